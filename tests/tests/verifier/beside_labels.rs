//! How labels fold, beside the program: two that are one to one side and two to the
//! other would let a schema count here and not there.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other labels, and more of them.

use harness::sim::rng::Rng;
use protocol::schema::fold_label;

use super::{beside, label::folded};

/// Labels, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 100_000;

/// Pieces that fold, vanish or are joined with what is beside them.
const PIECES: [&str; 44] = [
    "*",
    "＊",
    ":",
    "：",
    "(必填)",
    "（必填）",
    "(必填项)",
    "(选填)",
    "[必填]",
    "［选填］",
    "【必填】",
    "【选填】",
    "(required)",
    "(REQUIRED)",
    "(Required",
    "required)",
    "(",
    ")",
    "必填",
    "a",
    "A",
    "ß",
    "ẞ",
    "ﬁ",
    "İ",
    "ı",
    "Σ",
    "ς",
    "ǆ",
    "ŉ",
    "ͅ",
    "\u{301}",
    "é",
    "县",
    "㎡",
    "ﾞ",
    "ｶ",
    " ",
    "\u{3000}",
    "\u{200b}",
    "\u{ad}",
    "\u{1160}",
    "가",
    "\u{11a8}",
];

#[test]
fn every_character_folds_alike() {
    // Between these planes none has a character, and behind them all are private.
    for c in ('\0'..'\u{40000}').chain('\u{e0000}'..'\u{f0000}') {
        for label in [c.to_string(), format!("*{c}\u{301}:")] {
            assert_eq!(folded(&label), fold_label(&label), "{label:?}");
        }
    }
}

#[test]
fn labels_of_several_pieces_fold_alike() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut changed = 0;
    for _ in 0..rounds {
        let label: String =
            (0..1 + rng.index(6)).map(|_| PIECES[rng.index(PIECES.len())]).collect();
        let own = folded(&label);
        assert_eq!(own, fold_label(&label), "seed {seed}: {label:?}");
        assert_eq!(folded(&own), own, "seed {seed}: {label:?} folds on");
        changed += u64::from(own != label);
    }
    assert!(changed > rounds / 2, "{changed} of {rounds} folded");
}
