//! Messages, frames and tokens that a decoder has to refuse, as [`super::strict`]
//! tries what is hashed and signed.

use super::{
    frames, hashes, layout,
    made::{self, key},
    messages,
    strict::{longer, refused},
    token::Token,
};

#[test]
fn messages_outside_of_their_rules_are_refused() {
    let name = b"made-city/enterprise/410122/*";
    let follow = |name: &[u8], rest: &[u8]| {
        let length = u8::try_from(name.len()).unwrap();
        messages::open(&[&[1, length], name, rest].concat())
    };
    assert!(follow(name, &[0]).is_ok());
    refused(follow(name, &[2]), "no bool");
    let position = |number: &[u8]| [&[1], number, &[1], &[7; 32]].concat();
    assert!(follow(name, &position(&[0xfb, 0, 251])).is_ok());
    refused(follow(name, &position(&[0xfb, 0, 250])), "a varint that is not the shortest");
    refused(follow(name, &position(&[0xfc, 0, 0, 1, 0])), "a varint that is not the shortest");
    refused(follow(name, &position(&[0xfe])), "no varint");
    let far = (1u64 << 62).to_be_bytes();
    refused(follow(name, &position(&[&[0xfd], &far[..]].concat())), "a number that cannot be");
    for name in ["made-city/enterprise/410122", "made-city/enterprise/*/*", "a/b/c/d/e", "a/b/c/-_"]
    {
        refused(follow(name.as_bytes(), &[0]), "no full name of a partition");
    }
    refused(messages::open(&[5]), "an unknown message");
    // A version that no `u16` is; then more of them than a hello may name.
    let hello = [0, 1, 1, 0xfc, 0, 1, 0, 0];
    refused(messages::control(&[&[0], &hello[1..]].concat()), "a number that does not fit");
    refused(messages::control(&[&[0, 1, 17], &[1; 40][..]].concat()), "too many items");
    refused(messages::control(&[0, 2, 1, 1, 0, 0, 0]), "another suite");
    refused(messages::tree_reply(&[1, 0, 0]), "an empty part");
    refused(messages::tree_reply(&[1, 1, 9, 2]), "no bool");
    refused(messages::ack(&[1]), "an unknown message");
    let known = |bytes: u8| {
        let asked = [&[1, 0][..], &[5; 16], &[1, 1, 7, bytes], &vec![0; bytes.into()]].concat();
        messages::tree_request(&asked)
    };
    assert!(known(16).is_ok());
    refused(known(15), "a part of a name");
    let join = |node: &str| {
        messages::join_request(&messages::encode_join(&messages::JoinRequest {
            token_id: [1; 8],
            secret: [2; 32],
            node: node.to_owned(),
            request: vec![],
            public: vec![3; 32],
            possession: vec![4; 63],
        }))
    };
    assert!(join(made::COUNTY).is_ok());
    refused(join("County"), "a name outside of its alphabet");
    let peaks = [&[0, 0, 0, 0, 63], &[1; 63 * 32 + 1][..]].concat();
    refused(messages::tree_reply(&peaks), "too many items");
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bit = |at: usize| bytes.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let digit =
        |at: usize| DIGITS[(0..6).fold(0, |sum, next| sum << 1 | usize::from(bit(at + next)))];
    (0..bytes.len() * 8).step_by(6).map(|at| char::from(digit(at))).collect()
}

#[test]
fn tokens_and_frames_outside_of_their_rules_are_refused() {
    let token = |addresses: u16, more: usize| {
        let mut content = made::anchor(&made::fields(&key(1)));
        for field in [&b"subject"[..], b"key", b"410122", "县".as_bytes()] {
            super::reader::write_bytes(&mut content, field);
        }
        content.extend(addresses.to_be_bytes());
        for _ in 0..addresses {
            super::reader::write_bytes(&mut content, b"hub:1");
        }
        let content = longer(&content, 8 + 32 + 8 + 8 + 32 + more);
        let counted = [layout::TOKEN_CHECKSUM_PREFIX, &content].concat();
        let sum = hashes::hash(layout::hash::CHECKSUM, &counted);
        format!("creditsync-join-1.{}", base64url(&[&content, &sum[..4]].concat()))
    };
    assert_eq!(Token::parse(&token(64, 0)).unwrap().addresses.len(), 64);
    refused(Token::parse(&token(65, 0)), "too many addresses");
    refused(Token::parse(&token(1, 1)), "bytes are left over");
    let long = format!("{}{}", token(1, 0), " ".repeat(65_536));
    refused(Token::parse(&long), "a token over its limit");
    let other = token(1, 0).replace("join-1", "join-2");
    refused(Token::parse(&other), "no token");
    refused(Token::parse("creditsync-join-1.AAAA="), "no base64url");
    refused(Token::parse("creditsync-join-1.AAAAA"), "base64url with bits left over");
    refused(Token::parse("creditsync-join-1.AB"), "base64url with bits left over");
    refused(Token::parse("creditsync-join-1.AAAAAAA"), "another checksum");

    refused(frames::body(&[0, 0, 0, 2, 1], 9), "cut short");
    refused(frames::body(&[0, 0, 0, 2, 1, 2, 3], 9), "bytes are left over");
    refused(frames::body(&[0, 0, 0, 10], 9), "a frame over its limit");
}
