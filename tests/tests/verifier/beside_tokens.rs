//! Which tokens are read, and what they say, beside the program: of contents that
//! somebody has altered who knows how a checksum is made.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other tokens, and more of them.

use certs::enrol;
use harness::sim::rng::Rng;
use protocol::suite::hash::Hash as ProgramHash;

use super::{Checked, beside, beside_joining::honest_token, enrolment, hashes, made, token::Token};

/// Tokens, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 3000;

/// What a token says.
type Content = (Vec<u8>, [String; 4], Vec<String>, (u64, hashes::Hash), i64, hashes::Hash);

fn read(text: &str) -> Checked<Content> {
    let token = Token::parse(text)?;
    let anchor = enrolment::anchor(&token)?;
    let names = [&anchor.fields().federation, &anchor.fields().hub, &token.node];
    let [federation, hub, node] = names.map(String::clone);
    Ok((
        token.anchor.clone(),
        [federation, hub, node, token.display_name.clone()],
        token.addresses.clone(),
        (token.federation_seq, token.federation_head),
        token.end_s,
        token.secret_hash(),
    ))
}

fn read_by_program(text: &str) -> Option<Content> {
    let token = enrol::Token::parse(text).ok()?;
    let hash = |hash: &ProgramHash| hash.as_bytes().try_into().unwrap();
    Some((
        token.anchor.encode(),
        [
            token.federation.to_string(),
            token.hub.to_string(),
            token.node.to_string(),
            token.name.clone(),
        ],
        token.addresses.clone(),
        (token.federation_seq, hash(&token.federation_head)),
        token.expires_unix,
        hash(&token.secret_hash()),
    ))
}

/// A token's content that somebody has altered who knows how the checksum is made.
fn altered(rng: &mut Rng, content: &[u8], anchor_bytes: usize) -> Vec<u8> {
    let mut content = content.to_vec();
    for _ in 0..1 + rng.below(2) {
        // The anchor is signed: what is behind it is not.
        let from = if rng.chance(10) { 0 } else { anchor_bytes };
        let at = from + rng.index(content.len() - from);
        match rng.below(8) {
            0 => _ = content.remove(at),
            1 => content.insert(at, rng.below(256) as u8),
            2 => content[at] = rng.below(3) as u8,
            3 => content[at] = b"-aZ09._/:"[rng.index(9)],
            4 if rng.chance(20) => content.truncate(at.max(anchor_bytes + 8)),
            5 if rng.chance(20) => content.push(0),
            _ => content[at] ^= 1 << rng.below(8),
        }
    }
    content
}

#[test]
fn both_read_the_same_tokens() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let token = honest_token();
    let content = made::token_content(&token);
    let text = made::token_text(content.clone());
    assert_eq!(read(&text).ok(), read_by_program(&text));
    let mut taken = 0;
    for round in 0..rounds {
        let mut text = made::token_text(altered(&mut rng, &content, token.anchor.len()));
        if rng.chance(20) {
            let at = rng.index(text.len());
            let more = [" ", "\u{2060}", "\u{3000}", "\t", "=", "+", "\u{200e}", "A"];
            text.insert_str(at, more[rng.index(more.len())]);
        }
        let (own, program) = (read(&text), read_by_program(&text));
        taken += u64::from(own.is_ok());
        let case = format!("seed {seed}, round {round}");
        assert!(own.clone().ok() == program, "{case}: {own:?}, program {program:?}: {text}");
    }
    println!("{taken} of {rounds} are taken");
    assert!(taken > rounds / 10 && taken < rounds * 9 / 10, "{taken} of {rounds}");
}
