//! Either side is killed at any moment, again and again: nothing that was
//! acknowledged is lost, nothing is torn, and both sides end up equal.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use harness::{
    federation::Federation,
    node::{Node, path_text, wait_until},
    sim::rng::Rng,
    table::{Table, synthetic_row},
};

/// Kills of the long test.
const ROUNDS: u32 = 50;
/// Everything is compared at all nodes after so many rounds, and at the end.
const ROUNDS_PER_COMPARISON: u32 = 10;
/// Importing threads of each county.
const LOADERS: u32 = 2;
/// Rows that a loader imports again and again.
const ROWS_OF_LOADER: u64 = 400;
/// Most rows of one import. They fit one change set, so an import whose command
/// got no answer has happened as a whole or not at all.
const ROWS_PER_IMPORT: u64 = 25;

/// What one thread imports, and what it was told about it.
struct Loader {
    /// Tells its rows apart from other loaders'.
    owner: u32,
    random: Rng,
    file: PathBuf,
    imports: u32,
    /// The last acknowledged content of each row.
    acknowledged: Table,
    /// Imports since then that nobody acknowledged, oldest first: each may have
    /// happened, in this order.
    uncertain: Vec<Table>,
    imports_acknowledged: u32,
    imports_cut: u32,
}

impl Loader {
    fn new(owner: u32, seed: u64, dir: &Path) -> Self {
        Self {
            owner,
            random: Rng::new(seed),
            file: dir.join(format!("load-{owner}.csv")),
            imports: 0,
            acknowledged: Table::default(),
            uncertain: Vec::new(),
            imports_acknowledged: 0,
            imports_cut: 0,
        }
    }

    /// Imports until `stop`; an import in a crash is not repeated.
    fn run(&mut self, county: &Node, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.imports += 1;
            let batch = format!("第{}次", self.imports);
            let mut delivery = Table::default();
            for _ in 0..=self.random.below(ROWS_PER_IMPORT) {
                let row = u32::try_from(self.random.below(ROWS_OF_LOADER)).unwrap();
                delivery.put(synthetic_row(self.owner, row, &batch));
            }
            std::fs::write(&self.file, delivery.to_csv()).unwrap();
            let output = county.cli(&["import", "enterprise", path_text(&self.file)]);
            if output.code == Some(0) {
                self.imports_acknowledged += 1;
                self.acknowledged.put_all(&delivery);
                // A cut import may still have come before this one, and its
                // other rows may be there.
                self.uncertain.iter_mut().for_each(|cut| {
                    cut.0.retain(|code, _| !delivery.0.contains_key(code));
                });
            } else {
                assert_eq!(output.code, Some(1), "{output:?}");
                let cut = [
                    "went away",
                    "in use by another",
                    "read the daemon's answer",
                    "ask the daemon",
                ];
                assert!(cut.iter().any(|word| output.stderr.contains(word)), "{output:?}");
                self.imports_cut += 1;
                self.uncertain.push(delivery);
            }
        }
    }

    /// All of this loader's rows in `stored` are ones that may be there, and
    /// all that were acknowledged are there.
    #[track_caller]
    fn check(&self, place: &str, stored: &Table) {
        let own = |code: &String| code[8..10] == format!("{:02}", self.owner);
        for (code, row) in stored.0.iter().filter(|(code, _)| own(code)) {
            let known = self.acknowledged.0.get(code) == Some(row)
                || self.uncertain.iter().any(|cut| cut.0.get(code) == Some(row));
            assert!(known, "{place}: {row:?} is neither the acknowledged nor a cut import's");
        }
        for (code, row) in &self.acknowledged.0 {
            assert!(stored.0.contains_key(code), "{place}: acknowledged and lost: {row:?}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_in_fifty_crashes() {
    let seed = std::env::var("SEED").ok().map_or(20_261_123, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = Rng::new(seed);
    let mut federation = Federation::new(&["410122", "410181"]);
    let mut loaders: BTreeMap<usize, Vec<Loader>> = BTreeMap::new();
    for county in 0..federation.counties.len() {
        let first = u32::try_from(county).unwrap() * LOADERS;
        let made = (first..first + LOADERS)
            .map(|owner| Loader::new(owner, random.u64(), federation.dir()));
        loaders.insert(county, made.collect());
    }
    for round in 1..=ROUNDS {
        let victim = random.index(3);
        let delay = random.millis(5, 250);
        crash_under_load(&mut federation, &mut loaders, victim, delay);
        restart_when_free(node_of(&mut federation, victim));
        if victim > 0 {
            let county = &federation.counties[victim - 1];
            check_at(&loaders[&(victim - 1)], county, county);
        }
        if round % ROUNDS_PER_COMPARISON == 0 {
            federation.wait_converged();
            for (index, loaders) in &loaders {
                let county = &federation.counties[*index];
                check_at(loaders, county, county);
                check_at(loaders, county, &federation.hub);
            }
            federation.nodes().for_each(Node::verify_deep);
        }
    }
    let all = || loaders.values().flatten();
    let acknowledged: u32 = all().map(|loader| loader.imports_acknowledged).sum();
    let cut: u32 = all().map(|loader| loader.imports_cut).sum();
    println!("{acknowledged} imports were acknowledged, {cut} were cut");
    assert!(acknowledged > ROUNDS && cut > 0, "the load was no load");
    // Every loader's last import was answered, or is uncertain; a crash is no
    // reason for an error.
    federation.finish();
}

/// The hub, or a county.
fn node_of(federation: &mut Federation, index: usize) -> &mut Node {
    match index {
        0 => &mut federation.hub,
        county => &mut federation.counties[county - 1],
    }
}

/// Kills one node while all counties import.
fn crash_under_load(
    federation: &mut Federation,
    loaders: &mut BTreeMap<usize, Vec<Loader>>,
    victim: usize,
    delay: Duration,
) {
    let stop = AtomicBool::new(false);
    let (hub, counties) = (&mut federation.hub, &mut federation.counties);
    // Commands want the nodes, the crash wants its node for itself.
    let handles: Vec<Node> =
        counties.iter().map(|county| Node::new(county.name(), county.dir())).collect();
    std::thread::scope(|scope| {
        for (index, loaders) in loaders {
            for loader in loaders {
                let (county, stop) = (&handles[*index], &stop);
                scope.spawn(move || loader.run(county, stop));
            }
        }
        // The moment of the crash is the random part of the test.
        std::thread::sleep(delay);
        // What runs now is cut; what comes later would open the store itself.
        stop.store(true, Ordering::Relaxed);
        match victim {
            0 => hub.kill_9(),
            county => counties[county - 1].kill_9(),
        }
    });
}

/// A command that found no daemon does its work itself and holds the directory
/// for as long.
fn restart_when_free(node: &mut Node) {
    wait_until("the node starts", || match node.try_start() {
        Ok(()) => true,
        Err(problem) => {
            assert!(problem.contains("in use by another"), "{problem}");
            false
        }
    });
}

/// What `place` holds of `county`'s partition is what its loaders know.
#[track_caller]
fn check_at(loaders: &[Loader], county: &Node, place: &Node) {
    let name = county.own("enterprise");
    if loaders.iter().all(|loader| loader.acknowledged.is_empty()) {
        return;
    }
    let stored = Table::parse(&place.export(&name));
    for loader in loaders {
        loader.check(&format!("{name} at {}", place.name()), &stored);
    }
}

#[test]
fn a_first_load_survives_crashes_of_either_side() {
    const KILLS: u32 = 8;
    let seed = std::env::var("SEED").ok().map_or(7, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = Rng::new(seed);
    let mut federation = Federation::new(&["410122"]);
    let table = Table::synthetic(1, 0..30_000, "一");
    let file = table.write(federation.dir(), "large.csv");
    federation.hub.stop();
    federation.counties[0].import("enterprise", &file);

    let fetches =
        |federation: &Federation| federation.hub.log().matches("fetching the whole").count();
    let done = |federation: &Federation| federation.hub.log().contains("the whole state is here");
    let mut cut = 0;
    federation.hub.start();
    for kill in 0..KILLS {
        let before = fetches(&federation);
        wait_until("the hub fetches", || fetches(&federation) > before || done(&federation));
        std::thread::sleep(random.millis(0, 40));
        if done(&federation) {
            break;
        }
        cut += 1;
        let victim = node_of(&mut federation, usize::try_from(kill % 2).unwrap());
        victim.kill_9();
        victim.start();
    }
    println!("the first load was cut {cut} times");
    assert!(cut >= 2, "the first load was never cut on both sides");
    federation.wait_converged();
    assert_eq!(federation.hub.export("enterprise/410122"), table.to_export());
    federation.finish();
}
