//! Programs that the benchmark starts to measure peers that are crates, and with
//! clients that are crates. Each prints one JSON document.

mod postgres_latency;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["postgres-latency", publisher, subscriber, changes] => {
            postgres_latency::run(publisher, subscriber, changes.as_ref())
        }
        _ => bail!("started by tests/bench/run.sh only"),
    }
}
