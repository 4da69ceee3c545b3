//! Bytes from outside against every decoder that meets them.
//!
//! For each target the committed corpus (`tests/fuzz/corpus/TARGET/`) is
//! replayed, and then mutations of it, drawn from a seed that is printed. It is
//! a plain test: a few seconds a target, and as long as `FUZZ_ROUNDS` says.
//! `tests/fuzz/README.md` tells how.
//!
//! A target may refuse its input in any way but a panic. What it decodes has to
//! keep the limits of the format, encode to the same bytes where these are
//! canonical, and no input may cost more memory than [`targets`] says, which a
//! counting allocator watches. Not here: whether what is refused is refused
//! with the right reason, and what reaches a decoder over the network.

// Everything here is a test, also what lies in functions of its own.
#![allow(clippy::unwrap_used)]

#[path = "fuzz/beside.rs"]
mod beside;
#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "fuzz/foreign.rs"]
mod foreign;
#[path = "fuzz/memory.rs"]
mod memory;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets.rs"]
mod targets;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use harness::sim::rng::Rng;

use mutate::mutate;
use targets::{TARGETS, Target};

/// How long a target is tried where `FUZZ_ROUNDS` is not given.
const TIME_DEFAULT: Duration = Duration::from_millis(1000);
/// Rounds that are always done, however slow the machine is.
const ROUNDS_MIN: u64 = 200;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Tries one input; a failure shows it and how to get it again.
fn try_input(target: &Target, input: &[u8], origin: &dyn Fn() -> String) {
    let (outcome, peak) =
        memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let limit = target.memory_max(input.len());
    if outcome.is_ok() && peak <= limit {
        return;
    }
    let path =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", target.name));
    std::fs::write(&path, input).unwrap();
    panic!(
        "{}: {}; {peak} bytes of memory, {limit} are allowed; {}, {} bytes, kept in {}",
        target.name,
        if outcome.is_ok() { "too much memory" } else { "it panicked" },
        origin(),
        input.len(),
        path.display()
    );
}

#[test]
fn no_bytes_break_a_decoder() {
    let _alone = memory::alone();
    let seed = setting("FUZZ_SEED").unwrap_or(1);
    let only = std::env::var("FUZZ_TARGET").ok();
    println!("seed {seed}");
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|o| o == target.name)) {
        let corpus = corpus::read(target.name);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for (name, input) in &corpus {
            try_input(target, input, &|| format!("corpus file {name}"));
        }
        let inputs: Vec<&[u8]> = corpus.iter().map(|(_, input)| input.as_slice()).collect();
        let mut rng = Rng::new(seed);
        let (started, mut rounds, mut decoded) = (Instant::now(), 0, 0);
        loop {
            let input = mutate(&inputs, &mut rng);
            try_input(target, &input, &|| format!("round {rounds} of FUZZ_SEED={seed}"));
            decoded += u64::from((target.run)(&input));
            rounds += 1;
            let enough = match setting("FUZZ_ROUNDS") {
                Some(wanted) => rounds >= wanted,
                None => rounds >= ROUNDS_MIN && started.elapsed() >= TIME_DEFAULT,
            };
            if enough {
                break;
            }
        }
        println!("{:>14}: {} files, {rounds} rounds, {decoded} decoded", target.name, inputs.len());
    }
}

/// A target whose corpus decodes nowhere would try nothing but its first check.
#[test]
fn every_corpus_holds_what_decodes_and_what_does_not() {
    let _alone = memory::alone();
    for target in TARGETS {
        let corpus = corpus::read(target.name);
        let valid = |name: &str| name.starts_with("valid");
        for (name, input) in &corpus {
            assert_eq!((target.run)(input), valid(name), "{}/{name}", target.name);
        }
        assert!(corpus.iter().any(|(name, _)| valid(name)), "{}: nothing decodes", target.name);
        assert!(corpus.iter().any(|(name, _)| !valid(name)), "{}: nothing nasty", target.name);
    }
}

/// The corpus is what its rules make: run with `FUZZ_WRITE_CORPUS=1` after a
/// change of the format.
#[test]
fn the_committed_corpus_is_the_generated_one() {
    let _alone = memory::alone();
    let generated = corpus::generated();
    if std::env::var_os("FUZZ_WRITE_CORPUS").is_some() {
        corpus::write(&generated);
    }
    for target in TARGETS {
        let found = corpus::read(target.name);
        let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
            files.iter().map(|(name, _)| name.clone()).collect()
        };
        let expected = &generated[target.name];
        // Files that a failure was found with may be added by hand.
        let missing: Vec<String> =
            names(expected).into_iter().filter(|name| !names(&found).contains(name)).collect();
        assert!(missing.is_empty(), "{}: {missing:?} are not committed", target.name);
    }
}
