//! Programs that the benchmark starts to measure peers that are crates, and with
//! clients that are crates. Their answers go to standard output.

mod iroh_docs;
mod negentropy_ids;
mod postgres_latency;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["postgres-latency", publisher, subscriber, changes] => {
            postgres_latency::run(publisher, subscriber, changes.as_ref())
        }
        ["negentropy", own, other] => negentropy_ids::run(own.as_ref(), other.as_ref()),
        ["iroh-docs", dir] => iroh_docs::run(dir.as_ref()),
        _ => bail!("started by tests/bench/run.sh only"),
    }
}
