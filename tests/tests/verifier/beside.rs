//! The verifier's decoders beside the program's: of the same altered bytes both
//! have to say the same, or the page leaves open what a decoder refuses.
//!
//! The bytes are the corpus of the fuzz tests (`tests/fuzz/corpus`) and mutations
//! of it; `FUZZ_SEED` and `FUZZ_ROUNDS` choose others, and more of them.

use std::{fs, path::Path};

use certs::enrol;
use harness::sim::rng::Rng;
use protocol::{
    change, codec,
    freshness::Statement,
    message::{
        Control, FollowReply, FollowRequest, JoinReply, JoinRequest, NewKeyReply, Open, RenewReply,
        TreeReply, TreeRequest,
    },
    page::{Leaf, decode_inner},
    record::{Record, decode_key},
    suite::Suite,
};

use super::{
    Checked, Refused,
    anchor::{Anchor, Freshness},
    change::{SignedHeader, changes},
    messages, pages, record,
    token::Token,
};

#[path = "../fuzz/mutate.rs"]
mod mutate;

/// Inputs for each decoder, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 3000;
/// What a compressed field may be here.
const UNPACKED_BYTES_MAX: usize = 4 << 20;

struct Pair {
    /// Also the name of its corpus.
    name: &'static str,
    verifier: fn(&[u8]) -> Checked<()>,
    program: fn(&[u8]) -> bool,
}

fn done<T>(read: Checked<T>) -> Checked<()> {
    read.map(|_| ())
}

const PAIRS: &[Pair] = &[
    Pair {
        name: "open",
        verifier: |b| done(messages::open(b)),
        program: |b| Open::decode(b).is_ok(),
    },
    Pair {
        name: "control",
        verifier: |b| done(messages::control(b)),
        program: |b| Control::decode(b).is_ok(),
    },
    Pair {
        name: "follow_request",
        verifier: |b| done(messages::ack(b)),
        program: |b| codec::decode::<FollowRequest>(b).is_ok(),
    },
    Pair {
        name: "follow_reply",
        verifier: |b| done(messages::follow_reply(b)),
        program: |b| codec::decode::<FollowReply>(b).is_ok(),
    },
    Pair {
        name: "tree_request",
        verifier: |b| done(messages::tree_request(b)),
        program: |b| TreeRequest::decode(b).is_ok(),
    },
    Pair {
        name: "tree_reply",
        verifier: |b| done(messages::tree_reply(b)),
        program: |b| TreeReply::decode(b).is_ok(),
    },
    Pair {
        name: "renew_reply",
        verifier: |b| done(messages::renew_reply(b)),
        program: |b| codec::decode::<RenewReply>(b).is_ok(),
    },
    Pair {
        name: "new_key_reply",
        verifier: |b| done(messages::new_key_reply(b)),
        program: |b| codec::decode::<NewKeyReply>(b).is_ok(),
    },
    Pair {
        name: "join_request",
        verifier: |b| done(messages::join_request(b)),
        program: |b| codec::decode::<JoinRequest>(b).is_ok(),
    },
    Pair {
        name: "join_reply",
        verifier: |b| done(messages::join_reply(b)),
        program: |b| codec::decode::<JoinReply>(b).is_ok(),
    },
    Pair {
        name: "header",
        verifier: |b| done(SignedHeader::decode(b)),
        // The program of the tests knows a second suite.
        program: |b| change::SignedHeader::decode(b).is_ok_and(|h| h.suite() == Suite::One),
    },
    Pair {
        name: "changes",
        verifier: |b| done(changes(b)),
        program: |b| change::decode_changes(b).is_ok(),
    },
    Pair {
        name: "leaf_raw",
        verifier: |b| done(pages::leaf(b)),
        program: |b| Leaf::decode(&codec::compress(b)).is_ok(),
    },
    Pair {
        name: "inner",
        verifier: |b| done(pages::inner(b)),
        program: |b| decode_inner(Suite::One, b).is_ok(),
    },
    Pair {
        name: "compressed",
        verifier: |b| done(pages::decompress(b, UNPACKED_BYTES_MAX)),
        program: |b| codec::decompress(b, UNPACKED_BYTES_MAX).is_ok(),
    },
    Pair {
        name: "record",
        verifier: |b| done(record::decode(b)),
        // The program's decoder leaves the version to who looks for its schema.
        program: |b| Record::decode(b).is_ok_and(|record| record.schema_version > 0),
    },
    Pair {
        name: "key",
        verifier: |b| done(record::decode_key(b)),
        program: |b| decode_key(b).is_ok(),
    },
    Pair {
        name: "freshness",
        verifier: |b| done(Freshness::decode(b)),
        program: |b| Statement::decode(b).is_ok(),
    },
    Pair {
        name: "anchor",
        verifier: |b| done(Anchor::decode(b)),
        program: |b| enrol::Anchor::decode(b).is_ok(),
    },
    Pair {
        name: "token",
        verifier: |b| done(Token::parse(&String::from_utf8_lossy(b))),
        program: |b| enrol::Token::parse(&String::from_utf8_lossy(b)).is_ok(),
    },
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn both_decoders_refuse_the_same_bytes() {
    let (seed, rounds) = (setting("FUZZ_SEED", 1), setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut different = Vec::new();
    for pair in PAIRS {
        let corpus = corpus(pair.name);
        let inputs: Vec<&[u8]> = corpus.iter().map(Vec::as_slice).collect();
        let mut rng = Rng::new(seed);
        let altered = (0..rounds).map(|_| mutate::mutate(&inputs, &mut rng));
        let (mut both, mut neither) = (0, 0);
        for input in corpus.iter().cloned().chain(altered) {
            let read = (pair.verifier)(&input);
            // Section 13 lets a reader accept these, and a verifier refuse them.
            if read == Err(Refused("a varint that is not the shortest")) {
                continue;
            }
            match (read, (pair.program)(&input)) {
                (Ok(()), true) => both += 1,
                (Err(_), false) => neither += 1,
                (read, program) => {
                    let what = format!("{}: {read:?}, program {program}", pair.name);
                    if !different.iter().any(|(known, _)| *known == what) {
                        different.push((what, hex(&input[..input.len().min(600)])));
                    }
                }
            }
        }
        println!("{:>14}: {both} read by both, {neither} by neither", pair.name);
        assert!(both > 0 && neither > 0, "{} tries one kind only", pair.name);
    }
    assert!(different.is_empty(), "{different:#?}");
}
