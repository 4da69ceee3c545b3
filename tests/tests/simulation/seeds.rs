//! Many random federations of each kind, of which each follows from its seed.
//!
//! A kind is shared out over several tests, so that none takes minutes: the seeds of a
//! share are those that leave its number when they are divided by [`SHARES`], each on one
//! thread of as many as there are cores. `SIM_SEED` runs one seed, `SIM_SEEDS` so many of
//! a kind, and `SIM_FIRST` says which is the first. Invariant: what a kind exists for has
//! happened in each of its shares.

use harness::sim::{self, Met, Tally};

/// Tests over which a kind is shared out.
const SHARES: u64 = 3;
/// Runs of each kind when `SIM_SEEDS` does not say otherwise.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs those seeds of a kind that are of `share`, on all cores. Answers whether they are
/// as many as usual.
fn run_share<T: Send>(share: u64, run: impl Fn(u64) -> T + Sync, mut take: impl FnMut(T)) -> bool {
    let (first, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (number("SIM_FIRST").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let seeds: Vec<u64> = (first..first + count).filter(|seed| seed % SHARES == share).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let (run, seeds) = (&run, &seeds);
        let run_some = move |thread| {
            let own = seeds.iter().skip(thread).step_by(threads);
            own.map(|seed| run(*seed)).collect()
        };
        let workers: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || -> Vec<T> { run_some(thread) }))
            .collect();
        for worker in workers {
            let of_worker = worker.join().expect("a run failed; its seed is printed above");
            of_worker.into_iter().for_each(&mut take);
        }
    });
    count >= SEEDS
}

fn every_federation_becomes_equal(share: u64) {
    let mut total = Tally::default();
    let is_usual = run_share(share, sim::run, |tally| total += tally);
    println!("{total:#?}");
    assert!(!is_usual || !total.lacks_something(), "the runs never met something: {total:#?}");
}

fn a_directory_that_is_put_back_overwrites_nothing(share: u64) {
    let mut total = Tally::default();
    let is_usual = run_share(share, sim::run_put_back, |tally| total += tally);
    println!("{total:#?}");
    assert!(!is_usual || !total.lacks_a_fork(), "the runs never met something: {total:#?}");
}

fn a_hostile_node_changes_nothing_of_honest_ones(share: u64) {
    let (mut total, mut met) = (Tally::default(), Met::default());
    let is_usual = run_share(share, sim::run_hostile, |(tally, of_run)| {
        total += tally;
        met += of_run;
    });
    println!("{total:#?}; told and refused: {met:#?}");
    if is_usual {
        assert_eq!(met.lacking(), [], "never told, or never refused");
        assert!(total.forks > 0 && total.proven > 0, "{total:#?}");
    }
}

/// A test for each share of each kind.
macro_rules! shares {
    ($($name:ident: $kind:ident($share:literal);)*) => {
        $(#[test]
        fn $name() {
            $kind($share);
        })*
    };
}

shares! {
    every_federation_becomes_equal_0: every_federation_becomes_equal(0);
    every_federation_becomes_equal_1: every_federation_becomes_equal(1);
    every_federation_becomes_equal_2: every_federation_becomes_equal(2);
    a_directory_that_is_put_back_overwrites_nothing_0: a_directory_that_is_put_back_overwrites_nothing(0);
    a_directory_that_is_put_back_overwrites_nothing_1: a_directory_that_is_put_back_overwrites_nothing(1);
    a_directory_that_is_put_back_overwrites_nothing_2: a_directory_that_is_put_back_overwrites_nothing(2);
    a_hostile_node_changes_nothing_of_honest_ones_0: a_hostile_node_changes_nothing_of_honest_ones(0);
    a_hostile_node_changes_nothing_of_honest_ones_1: a_hostile_node_changes_nothing_of_honest_ones(1);
    a_hostile_node_changes_nothing_of_honest_ones_2: a_hostile_node_changes_nothing_of_honest_ones(2);
}

#[test]
fn a_run_follows_from_its_seed() {
    assert_eq!(sim::run(7), sim::run(7));
    assert_eq!(sim::run_put_back(7), sim::run_put_back(7));
    assert_eq!(sim::run_hostile(7), sim::run_hostile(7));
}
