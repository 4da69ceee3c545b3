//! Which of two files' rows differ, found by their hashes.

use std::{path::Path, time::Instant};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use serde_json::json;

/// No limit on the size of a message.
const NO_LIMIT: u64 = 0;

/// Reconciles; prints what it took.
pub fn run(own: &Path, other: &Path) -> anyhow::Result<()> {
    let (own, other) = (set_of(own)?, set_of(other)?);
    let started = Instant::now();
    let mut asking = Negentropy::borrowed(&own, NO_LIMIT)?;
    let mut answering = Negentropy::borrowed(&other, NO_LIMIT)?;
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let (mut bytes, mut round_trips) = (0, 0);
    let mut next = Some(asking.initiate()?);
    while let Some(question) = next {
        let answer = answering.reconcile(&question)?;
        bytes += question.len() + answer.len();
        round_trips += 1;
        next = asking.reconcile_with_ids(&answer, &mut have, &mut need)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let ids = have.len() + need.len();
    let answer =
        json!({ "ids": ids, "seconds": seconds, "bytes": bytes, "round_trips": round_trips });
    println!("{answer}");
    Ok(())
}

fn set_of(file: &Path) -> anyhow::Result<NegentropyStorageVector> {
    let mut set = NegentropyStorageVector::new();
    let mut rows = csv::Reader::from_path(file)?;
    let mut row = csv::ByteRecord::new();
    while rows.read_byte_record(&mut row)? {
        // Rows have no time of their own; ids alone then decide the order.
        set.insert(0, Id::from_byte_array(blake3::hash(row.as_slice()).into()))?;
    }
    set.seal()?;
    Ok(set)
}
