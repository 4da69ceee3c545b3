//! How long one changed row takes from a publisher to a subscriber.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use postgres::{Client, NoTls};

/// No row takes longer, unless it never arrives.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);
/// The columns of a row's code, capital and address.
const CHANGED: [usize; 3] = [1, 4, 8];

/// Updates the rows of a CSV file one by one, each until the subscriber shows it;
/// prints the times in milliseconds.
pub fn run(publisher: &str, subscriber: &str, changes: &Path) -> anyhow::Result<()> {
    let mut publisher = Client::connect(publisher, NoTls)?;
    let mut subscriber = Client::connect(subscriber, NoTls)?;
    let update =
        publisher.prepare("UPDATE enterprise SET capital = $2, address = $3 WHERE uscc = $1")?;
    let look = subscriber.prepare("SELECT address FROM enterprise WHERE uscc = $1")?;
    let mut times_ms = Vec::new();
    for row in csv::Reader::from_path(changes)?.records() {
        let row = row?;
        let field = |at: usize| row.get(at).context("a column is missing");
        let (code, capital, address) = (field(CHANGED[0])?, field(CHANGED[1])?, field(CHANGED[2])?);
        let started = Instant::now();
        publisher.execute(&update, &[&code, &capital, &address])?;
        while subscriber.query_one(&look, &[&code])?.get::<_, &str>(0) != address {
            ensure!(started.elapsed() < ARRIVAL_MAX, "row {code} did not arrive");
        }
        times_ms.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    println!("{}", serde_json::to_string(&times_ms)?);
    Ok(())
}
