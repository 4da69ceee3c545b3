//! Pins the text of a join token and the bytes of anchors, as `protocol/SPEC.md`
//! describes them.
//!
//! All hold an ECDSA signature of a root key that was thrown away, so they were
//! made once and are read here; writing them again has to give the same bytes.

#![allow(clippy::unwrap_used)]

use certs::enrol::{Anchor, RootOfTrust, Token, secret_hash};
use protocol::{change::Position, hash::Hash, sign::SigningKey};

const TOKEN: &str = "\
    creditsync-join-1.AQAAAAl6aGVuZ3pob3UAAAAGNDEwMTAwiojj3XQJ8ZX9UtstPLpdcspnCb8dlB\
    Ib83SIAbQPb1wAAAADAAAARzBFAiBvjujK0y7BtZXW-eyriK3L1KclIkr4KLeT2T6UuStDCAIhAPU0YD\
    ukB20wnLrWcn1gL-Qr5bkz-0r2C2q4_WK4ytReAAAAODESMBAGA1UECgwJemhlbmd6aG91MSIwIAYDVQ\
    QDDBljcmVkaXRzeW5jIHJvb3Qgemhlbmd6aG91AAAAWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQi1c\
    f4AQlx3vl0jbok5CuL6-q3kVwVEheaJFe-qGXkcDf_elhxGKEz3CNtysIm3FVP4zvguIKXd9Lsz4tY2F\
    iTAAAABjQxMDEyMgAAAAnkuK3niZ_ljr8AAgAAABBodWIuZXhhbXBsZTo3NDAwAAAAElsyMDAxOmRiOD\
    o6MV06NzQwMAAAAAAAAAAHCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkAAAAAa0nSAAUFBQ\
    UFBQUFBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgYGBgbmJ2p3";
const ANCHOR: &str = "\
    01000000097a68656e677a686f75000000063431303130308a88e3dd7409f195fd52db2d3cba5d72\
    ca6709bf1d94121bf3748801b40f6f5c0000000300000047304502206f8ee8cad32ec1b595d6f9ec\
    ab88adcbd4a725224af828b793d93e94b92b4308022100f534603ba4076d309cbad6727d602fe42b\
    e5b933fb4af60b6ab8fd62b8cad45e";
/// Of version 2, and the key of the root that signed it.
const ANCHOR_WITH_BASE: &str = "\
    02000000097a68656e677a686f75000000063431303130308139770ea87d175f56a35466c34c7ecc\
    cb8d8a91b4ee37a25df60f5b8fc9b394000000020000000000000102070707070707070707070707\
    070707070707070707070707070707070707070700018a88e3dd7409f195fd52db2d3cba5d72ca67\
    09bf1d94121bf3748801b40f6f5c00000046304402204e92fb5ee6c1c8238c940a10fae18edcafc4\
    fa6ea51c6204ea1f39d4a1493b8902205840ee6cb24955093f4b0a59c0b3b31f2921bcd22cbc1bbb\
    c97bf2d192f84da8";
const ITS_ROOT_KEY: &str = "\
    301306072a8648ce3d020106082a8648ce3d03010703420004b882b24409cb78433798e1ee1fb6c9\
    e85a99c828c1c1badd93ef4c2d598c60b9a69762411f4a4aba278ee61c3837c1cf016172bbf35da6\
    a1c3745bad9d41e2f7";
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
    assert_eq!((token.federation_seq, token.federation_head), (7, Hash([9; 32])));
    assert_eq!((token.id, *token.secret), ([5; 8], [6; 32]));
    assert_eq!(token.expires_unix, 1_800_000_000);
    assert_eq!(token.secret_hash().to_string(), SECRET_HASH);
    assert_eq!(secret_hash(&[5; 8], &[6; 32]).to_string(), SECRET_HASH);
}

#[test]
fn the_pinned_anchor_verifies_under_the_tokens_root() {
    let token = Token::parse(TOKEN).unwrap();
    let anchor = Anchor::decode(&unhex(ANCHOR)).unwrap();
    assert_eq!(anchor, token.anchor);
    assert_eq!(hex(&anchor.encode()), ANCHOR);
    assert_eq!(anchor.epoch, 3);
    assert_eq!(anchor.hub_key, SigningKey::from_seed(&[1; 32]).public());
    anchor.verify(&token.root).unwrap();
    assert!(Anchor { epoch: 4, ..anchor }.verify(&token.root).is_err());
}

#[test]
fn the_pinned_anchor_with_a_base_verifies() {
    let anchor = Anchor::decode(&unhex(ANCHOR_WITH_BASE)).unwrap();
    assert_eq!(hex(&anchor.encode()), ANCHOR_WITH_BASE);
    assert_eq!(anchor.epoch, 2);
    assert_eq!(anchor.hub_key, SigningKey::from_seed(&[2; 32]).public());
    assert_eq!(anchor.base, Some(Position { seq: 258, hash: Hash([7; 32]) }));
    let root = RootOfTrust { subject: Vec::new(), spki: unhex(ITS_ROOT_KEY) };
    anchor.verify(&root).unwrap();
    assert_eq!(anchor.earlier, [SigningKey::from_seed(&[1; 32]).public()]);
    assert!(Anchor { base: None, ..anchor }.verify(&root).is_err());
}
