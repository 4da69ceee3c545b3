//! Pins the text of a join token and the bytes of anchors, as `protocol/SPEC.md`
//! describes them.
//!
//! All hold an ECDSA signature of a root key that was thrown away, so they were
//! made once and are read here; writing them again has to give the same bytes.

#![allow(clippy::unwrap_used)]

use certs::enrol::{Anchor, RootOfTrust, Token, secret_hash};
use protocol::{change::Position, suite::Suite};

const TOKEN: &str = "\
    creditsync-join-1.AQEAAAAJemhlbmd6aG91AAAABjQxMDEwMIqI4910CfGV_VLbLTy6XXLKZwm_HZ\
    QSG_N0iAG0D29cAAAAAwAAAEcwRQIgQc2o7ZguGytgVB9YRpTivnMs_YjD3PDxB3TFSWVN99gCIQCZnq\
    6MvFk-esDl8RIWwMXYgBgZ8z7teil2ezeG6A2pFgAAADgxEjAQBgNVBAoMCXpoZW5nemhvdTEiMCAGA1\
    UEAwwZY3JlZGl0c3luYyByb290IHpoZW5nemhvdQAAAFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEyf\
    F7W-j5NmFM2wrSl4XgfVKczrUcUgwpbnTthce_5kMIHjwLMFzYjBiE6U9N-qEmz_qlXjSj_m5tMg_Uhj\
    1wNQAAAAY0MTAxMjIAAAAJ5Lit54mf5Y6_AAIAAAAQaHViLmV4YW1wbGU6NzQwMAAAABJbMjAwMTpkYj\
    g6OjFdOjc0MDAAAAAAAAAABwkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJAAAAAGtJ0gAFBQ\
    UFBQUFBQYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGXL65hw";
const ANCHOR: &str = "\
    0101000000097a68656e677a686f75000000063431303130308a88e3dd7409f195fd52db2d3cba5d\
    72ca6709bf1d94121bf3748801b40f6f5c00000003000000473045022041cda8ed982e1b2b60541f\
    584694e2be732cfd88c3dcf0f10774c549654df7d8022100999eae8cbc593e7ac0e5f11216c0c5d8\
    801819f33eed7a29767b3786e80da916";
/// Of version 2, and the key of the root that signed it.
const ANCHOR_WITH_BASE: &str = "\
    0201000000097a68656e677a686f75000000063431303130308139770ea87d175f56a35466c34c7e\
    cccb8d8a91b4ee37a25df60f5b8fc9b3940000000200000000000001020707070707070707070707\
    07070707070707070707070707070707070707070700018a88e3dd7409f195fd52db2d3cba5d72ca\
    6709bf1d94121bf3748801b40f6f5c000000483046022100cb8102abb1fdc465b3b867de70261216\
    0c468935153443ddbbb0b87c6924599e022100f2afe3e024c00395c767c824993da6ad5998d39ae1\
    55c8b5e7050e2dc8de9f94";
const ITS_ROOT_KEY: &str = "\
    301306072a8648ce3d020106082a8648ce3d0301070342000454abbd95fae650372a31db256335c5\
    9f967f993173be7eedebaa4317ce5ba2f3dba861d7fda261f17df7d6caf89926d122426753d239cf\
    bc566a58202442cd3d";
const SECRET_HASH: &str = "0ca338814d5b939bb900c9a42becdbd8d84f6a69b422eb84c357dfe3127122e9";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn the_pinned_token_reads_as_what_it_was_made_of() {
    let token = Token::parse(TOKEN).unwrap();
    assert_eq!(token.to_text(), TOKEN);
    assert_eq!(token.identity().uri(), "spiffe://zhengzhou/node/410122");
    assert_eq!(token.hub_identity().uri(), "spiffe://zhengzhou/node/410100");
    assert_eq!(token.hub_identity().dns_name(), "410100.zhengzhou.creditsync.internal");
    assert_eq!(token.addresses, ["hub.example:7400", "[2001:db8::1]:7400"]);
    assert_eq!(token.name, "中牟县");
    assert_eq!((token.federation_seq, token.federation_head), (7, Suite::One.repeated(9)));
    assert_eq!((token.id, *token.secret), ([5; 8], [6; 32]));
    assert_eq!(token.expires_unix, 1_800_000_000);
    assert_eq!(token.secret_hash().to_string(), SECRET_HASH);
    assert_eq!(secret_hash(Suite::One, &[5; 8], &[6; 32]).to_string(), SECRET_HASH);
}

#[test]
fn the_pinned_anchor_verifies_under_the_tokens_root() {
    let token = Token::parse(TOKEN).unwrap();
    let anchor = Anchor::decode(&unhex(ANCHOR)).unwrap();
    assert_eq!(anchor, token.anchor);
    assert_eq!(hex(&anchor.encode()), ANCHOR);
    assert_eq!(anchor.epoch, 3);
    assert_eq!(anchor.hub_key, Suite::One.signing_key(&[1; 32]).unwrap().public());
    anchor.verify(&token.root).unwrap();
    assert!(Anchor { epoch: 4, ..anchor }.verify(&token.root).is_err());
}

#[test]
fn the_pinned_anchor_with_a_base_verifies() {
    let anchor = Anchor::decode(&unhex(ANCHOR_WITH_BASE)).unwrap();
    assert_eq!(hex(&anchor.encode()), ANCHOR_WITH_BASE);
    assert_eq!(anchor.epoch, 2);
    assert_eq!(anchor.hub_key, Suite::One.signing_key(&[2; 32]).unwrap().public());
    assert_eq!(anchor.base, Some(Position { seq: 258, hash: Suite::One.repeated(7) }));
    let root = RootOfTrust { subject: Vec::new(), spki: unhex(ITS_ROOT_KEY) };
    anchor.verify(&root).unwrap();
    assert_eq!(anchor.earlier, [Suite::One.signing_key(&[1; 32]).unwrap().public()]);
    assert!(Anchor { base: None, ..anchor }.verify(&root).is_err());
}
