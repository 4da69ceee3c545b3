//! How creditsync's needs grow with records and with members.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    arguments::Arguments,
    compare::{Scratch, again, take_turn},
    machine,
    network::Network,
    rows,
    systems::{System, creditsync::Federation},
};

/// The records of each member where members grow.
const MEMBER_ROWS: u64 = 20_000;
/// The records of a register that is delivered each day: those of a real one.
const DAILY_ROWS: u64 = 2834;
/// Of these, how many have changed since the day before.
const DAILY_CHANGES: u64 = 60;
/// And how many are new, in place of as many that are gone: fewer than are held.
const DAILY_NEW: u64 = 5;
/// The datasets of each county where partitions grow: fewer than a catalogue may list.
const DATASETS: usize = 200;

/// Measures and prints both curves.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = String::from("One county, from few records to many:\n\n");
    let mut by_size = Curve::default();
    for rows in &arguments.sizes {
        let _turn = take_turn(arguments)?;
        with_records(&mut by_size, *rows).with_context(|| format!("with {rows} records"))?;
    }
    report.push_str(&by_size.markdown("records"));
    report.push_str("\nFrom one county to many, all importing at once:\n\n");
    let mut by_members = Curve::default();
    for members in &arguments.members {
        let _turn = take_turn(arguments)?;
        with_members(&mut by_members, *members).with_context(|| format!("{members} members"))?;
    }
    report.push_str(&by_members.markdown(&format!("members, {MEMBER_ROWS} records each")));
    report.push_str("\nMany who have joined, of whom none is connected:\n\n");
    let mut by_joined = Curve::default();
    for members in &arguments.joined {
        let _turn = take_turn(arguments)?;
        with_joined(&mut by_joined, *members).with_context(|| format!("{members} joined"))?;
    }
    report.push_str(&by_joined.markdown("members in the list"));
    report
        .push_str("\nMany partitions of one record each, of counties that are all connected:\n\n");
    let mut by_partitions = Curve::default();
    for count in &arguments.partitions {
        let _turn = take_turn(arguments)?;
        with_partitions(&mut by_partitions, *count)
            .with_context(|| format!("{count} partitions"))?;
    }
    report.push_str(&by_partitions.markdown("partitions"));
    if let Some(last) = arguments.days.iter().max() {
        report.push_str(&format!(
            "\nA full file of {DAILY_ROWS} records each day, of which {DAILY_CHANGES} have changed, {DAILY_NEW} are new and as \
             many are gone:\n\n"
        ));
        let mut by_days = Curve::default();
        let _turn = take_turn(arguments)?;
        with_days(&mut by_days, *last, &arguments.days)?;
        report.push_str(&by_days.markdown("days"));
    }
    let machine = machine::describe(&std::env::temp_dir())?;
    let version = System::Creditsync.version()?;
    writeln!(
        report,
        "\n{} with default settings, each number measured once, on {machine}. Peaks of resident memory, looked at \
         every 25 ms; both daemons run on the machine, and the copy runs from the start of the county's daemon to \
         the hub's acknowledgement.\n\nAgain: `{}`.",
        version.trim(),
        again()
    )?;
    print!("{report}");
    if let Some(path) = &arguments.output {
        std::fs::write(path, report).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn with_records(curve: &mut Curve, rows: u64) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let network = Network::new("growth")?;
    let file = scratch.path().join("rows.csv");
    let bytes = rows::write(&file, &mut (0..rows).map(|number| (number, 0)))?;
    let mut federation = Federation::new(&network, scratch.path(), 1)?;
    federation.hub.stop()?;
    curve.column(rows.to_string());
    curve.put("CSV file, MB", megabytes(bytes));
    let (time, memory) = federation.import(&file, rows)?;
    curve.put("import, s", seconds(time));
    curve.put("import, records/s", per_second(rows, time));
    curve.put("county: peak memory during the import, MiB", mebibytes(memory));
    curve.put("county: disk, MB", megabytes(federation.counties[0].disk_bytes()?));
    let copied = federation.copy()?;
    curve.put("copy to an empty hub, s", seconds(copied.time));
    curve.put("copy, records/s", per_second(rows, copied.time));
    curve.put("copy: on the wire, MB", megabytes(copied.wire_bytes));
    curve.put("county: peak memory during the copy, MiB", mebibytes(copied.county_memory));
    curve.put("hub: peak memory during the copy, MiB", mebibytes(copied.hub_memory));
    curve.put("hub: disk, MB", megabytes(federation.hub.disk_bytes()?));
    curve.put("hub: restart until ready, s", seconds(federation.hub.restart()?));
    Ok(())
}

fn with_members(curve: &mut Curve, members: usize) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let network = Network::new("growth")?;
    let mut files = Vec::new();
    for member in 0..members as u64 {
        let path = scratch.path().join(format!("{member}.csv"));
        let numbers = member * MEMBER_ROWS..(member + 1) * MEMBER_ROWS;
        rows::write(&path, &mut numbers.map(|number| (number, 0)))?;
        files.push(path);
    }
    let mut federation = Federation::new(&network, scratch.path(), members)?;
    let rows = members as u64 * MEMBER_ROWS;
    curve.column(members.to_string());
    let wire = network.bytes()?;
    let memory = federation.hub.watch_memory()?;
    let time = federation.import_all(&files)?;
    curve.put("import until durable at the hub, s", seconds(time));
    curve.put("records/s", per_second(rows, time));
    curve.put("on the wire, MB", megabytes(network.bytes()? - wire));
    curve.put("hub: peak memory, MiB", mebibytes(memory.peak_bytes()?));
    curve.put("hub: disk, MB", megabytes(federation.hub.disk_bytes()?));
    curve.put("hub: restart until ready, s", seconds(federation.hub.restart()?));
    Ok(())
}

fn with_joined(curve: &mut Curve, members: usize) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let network = Network::new("growth")?;
    let mut federation = Federation::new(&network, scratch.path(), 0)?;
    curve.column(members.to_string());
    let memory = federation.hub.watch_memory()?;
    let started = Instant::now();
    let mut last = Duration::ZERO;
    for number in 1..=members {
        let joining = Instant::now();
        federation.join(scratch.path(), &format!("c{number}"))?;
        last = joining.elapsed();
    }
    curve.put("invitations and joins, s", seconds(started.elapsed()));
    curve.put("the last one, s", seconds(last));
    curve.put("hub: peak memory, MiB", mebibytes(memory.peak_bytes()?));
    curve.put("hub: disk, MB", megabytes(federation.hub.disk_bytes()?));
    curve.put("hub: restart until ready, s", seconds(federation.hub.restart()?));
    let asked = Instant::now();
    federation.hub.status()?;
    curve.put("hub: status, s", seconds(asked.elapsed()));
    Ok(())
}

fn with_partitions(curve: &mut Curve, partitions: usize) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let network = Network::new("growth")?;
    let datasets = partitions.min(DATASETS);
    let mut federation = Federation::new(&network, scratch.path(), partitions.div_ceil(datasets))?;
    let file = scratch.path().join("row.csv");
    rows::write(&file, &mut std::iter::once((0, 0)))?;
    let names: Vec<String> = (0..datasets).map(|number| format!("d{number}")).collect();
    for name in &names {
        federation.publish(scratch.path(), name)?;
    }
    curve.column(partitions.to_string());
    let memory = federation.hub.watch_memory()?;
    let started = Instant::now();
    federation.import_each(&names, &file)?;
    curve.put("imports of one row, until durable at the hub, s", seconds(started.elapsed()));
    curve.put("hub: peak memory, MiB", mebibytes(memory.peak_bytes()?));
    curve.put("hub: disk, MB", megabytes(federation.hub.disk_bytes()?));
    let asked = Instant::now();
    let status = federation.hub.status()?;
    curve.put("hub: status, s", seconds(asked.elapsed()));
    let known = status["partitions"].as_array().map_or(0, Vec::len);
    // And `_federation`.
    anyhow::ensure!(known > partitions, "the hub has {known} partitions");
    curve.put("hub: restart until ready, s", seconds(federation.hub.restart()?));
    let started = Instant::now();
    federation.wait_in_sync(known)?;
    curve.put("from there until all is in sync, s", seconds(started.elapsed()));
    // One row is as quick as it is elsewhere, beside all those.
    rows::write(&file, &mut std::iter::once((0, 1)))?;
    let started = Instant::now();
    federation.import_one(&names[0], &file)?;
    curve.put("one changed row, until durable at the hub, s", seconds(started.elapsed()));
    Ok(())
}

fn with_days(curve: &mut Curve, last: usize, shown: &[usize]) -> anyhow::Result<()> {
    let scratch = Scratch::new()?;
    let network = Network::new("growth")?;
    let federation = Federation::new(&network, scratch.path(), 1)?;
    let file = scratch.path().join("daily.csv");
    let mut started = Instant::now();
    for day in 0..=last as u64 {
        let first = day * DAILY_NEW;
        // Each day others of them have changed, at the latest a version ago.
        let version = |number: u64| {
            let turns = DAILY_ROWS / DAILY_CHANGES;
            ((day + turns - number % turns) / turns) as u32
        };
        let mut numbers = (first..first + DAILY_ROWS).map(|number| (number, version(number)));
        rows::write(&file, &mut numbers)?;
        federation.deliver_full(&file)?;
        if day == 0 || shown.contains(&(day as usize)) {
            let time = std::mem::replace(&mut started, Instant::now()).elapsed();
            curve.column(day.to_string());
            curve.put("deliveries since, until durable at the hub, s", seconds(time));
            curve.put("county: disk, MB", megabytes(federation.counties[0].disk_bytes()?));
            curve.put("hub: disk, MB", megabytes(federation.hub.disk_bytes()?));
        }
    }
    Ok(())
}

/// A table that grows by columns.
#[derive(Default)]
struct Curve {
    columns: Vec<String>,
    lines: Vec<(&'static str, Vec<String>)>,
}

impl Curve {
    fn column(&mut self, name: String) {
        self.columns.push(name);
    }

    fn put(&mut self, line: &'static str, value: String) {
        eprintln!("{}: {line}: {value}", self.columns.last().map_or("", String::as_str));
        match self.lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, values)) => values.push(value),
            None => self.lines.push((line, vec![value])),
        }
    }

    fn markdown(&self, corner: &str) -> String {
        let mut text = format!("| {corner} | {} |\n", self.columns.join(" | "));
        let _ = writeln!(text, "| --- |{}", " ---: |".repeat(self.columns.len()));
        for (line, values) in &self.lines {
            let _ = writeln!(text, "| {line} | {} |", values.join(" | "));
        }
        text
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

fn mebibytes(bytes: u64) -> String {
    format!("{}", bytes >> 20)
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

fn per_second(count: u64, time: Duration) -> String {
    format!("{:.0}", count as f64 / time.as_secs_f64())
}
