//! What the verifier refuses: each thing that a federation of real processes said,
//! altered, and signed by whoever could have signed it.
//!
//! Each refusal has its reason here, so that a check which is taken out of the
//! verifier is missed, and not hidden by the next one.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer as _, SigningKey};

use super::{
    Checked, Refused,
    certificate::check_chain,
    change::SignedHeader,
    enrolment,
    federation::Federation,
    hashes::{self, Hash},
    history::Proof,
    layout::{self, Header},
    live,
    messages::{self, JoinReply, TreeReply},
    pages,
    recorded::{COUNTY, NEWCOMER, NodeSigner, TwoKeys, two_keys},
    replica::{self, Replica},
    token::Token,
};

/// What was recorded, verified up to each number.
struct Case {
    recorded: &'static TwoKeys,
    federation: Federation,
    sets: Vec<(Vec<u8>, Vec<u8>)>,
    /// The replica before each change set, and the last one behind all.
    before: Vec<Replica>,
}

impl Case {
    fn new() -> Self {
        let recorded = two_keys();
        let token = Token::parse(&recorded.token).unwrap();
        let federation = live::federation(&token, &recorded.join).unwrap();
        let sets = live::change_sets(&recorded.heard.follow);
        let mut before = vec![Replica::new(&recorded.heard.name)];
        for (header, body) in &sets {
            let mut next = before.last().unwrap().clone();
            next.take(&federation, header, body).unwrap();
            before.push(next);
        }
        Self { recorded, federation, sets, before }
    }

    /// Offers a change set in place of the one with this index; it has to leave no
    /// trace where it is refused.
    #[track_caller]
    fn offer(&self, index: usize, header: &[u8], body: &[u8]) -> Checked<()> {
        let mut replica = self.before[index].clone();
        let taken = replica.take(&self.federation, header, body);
        if taken.is_err() {
            assert_eq!(replica.head(), self.before[index].head());
            assert_eq!(replica.state(), self.before[index].state());
        }
        taken
    }

    /// The same for a header that was altered and then signed by this key.
    #[track_caller]
    fn forge(
        &self,
        index: usize,
        key: &NodeSigner,
        alter: impl FnOnce(&mut Header),
    ) -> Checked<()> {
        let (header, body) = &self.sets[index];
        let mut altered = SignedHeader::decode(header).unwrap().header;
        altered.key_id = key.key_id();
        alter(&mut altered);
        self.offer(index, &signed(&altered, |hash| key.sign(hash)), body)
    }

    /// The key that has signed the change set with this index, and the other one.
    fn signers(&self, index: usize) -> (&NodeSigner, &NodeSigner) {
        let [first, second] = &self.recorded.county;
        let header = SignedHeader::decode(&self.sets[index].0).unwrap().header;
        if header.key_id == first.key_id() { (first, second) } else { (second, first) }
    }
}

/// A signed header as it travels.
fn signed(header: &Header, sign: impl FnOnce(&Hash) -> [u8; 64]) -> Vec<u8> {
    let bytes = layout::encode_header(header);
    let signature = sign(&hashes::hash(layout::hash::HEADER, &bytes));
    [&[layout::SUITE], &signature[..], &bytes].concat()
}

#[track_caller]
fn refused(taken: Checked<()>, why: &'static str) {
    assert_eq!(taken, Err(Refused(why)));
}

#[test]
fn change_sets_that_are_not_the_origins_are_refused() {
    let case = Case::new();
    let count = case.sets.len();
    assert!(count >= 4, "{count}");
    for (index, (header, body)) in case.sets.iter().enumerate() {
        // As it is, with a body that another zstd would have made.
        let raw = pages::decompress(body, layout::BODY_BYTES_MAX).unwrap();
        let stronger = zstd::bulk::compress(&raw, 19).unwrap();
        let stronger = [&body[..4], &stronger].concat();
        assert_ne!(stronger, *body);
        assert_eq!(case.offer(index, header, &stronger), Ok(()));
        let encoded = SignedHeader::decode(header).unwrap().header;
        assert_eq!(layout::encode_header(&encoded), header[layout::SIGNED_AT..]);

        for (other, (other_header, other_body)) in case.sets.iter().enumerate() {
            if other != index {
                refused(case.offer(index, header, other_body), "another body");
                let why = if other < index { "held already" } else { "not the next number" };
                refused(case.offer(index, other_header, other_body), why);
            }
        }
        let mut altered = raw.clone();
        *altered.last_mut().unwrap() ^= 1;
        let altered = [&body[..4], &zstd::bulk::compress(&altered, 1).unwrap()].concat();
        refused(case.offer(index, header, &altered), "another body");
        let longer = [&body[..3], &[body[3].wrapping_add(1)], &body[4..]].concat();
        refused(case.offer(index, header, &longer), "compressed bytes of another length");
        let mut cut = header.clone();
        cut.pop();
        refused(case.offer(index, &cut, body), "cut short");
        let more = [&header[..], &[0]].concat();
        refused(case.offer(index, &more, body), "bytes are left over");
    }
    let (header, body) = &case.sets[0];
    refused(case.offer(count, header, body), "held already");
    for bit in 0..header.len() * 8 {
        let mut altered = header.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(case.offer(0, &altered, body).is_err(), "bit {bit}");
    }
}

#[test]
fn keys_that_do_not_count_for_a_number_are_refused() {
    let case = Case::new();
    for index in 0..case.sets.len() {
        let (counts, other) = case.signers(index);
        assert_eq!(case.forge(index, counts, |_| {}), Ok(()), "the forge alters nothing by itself");
        refused(case.forge(index, other, |_| {}), "a key that does not count here");
        for hub in &case.recorded.hub {
            refused(case.forge(index, hub, |_| {}), "a key that nobody registered");
        }
        let swapped = case.forge(index, other, |header| header.key_id = counts.key_id());
        refused(swapped, "the signature does not verify");
        let (header, body) = &case.sets[index];
        let mut nobody = SignedHeader::decode(header).unwrap().header;
        let key = SigningKey::from_bytes(&[9; 32]);
        nobody.key_id = hashes::key_id(&key.verifying_key().to_bytes());
        let nobody = signed(&nobody, |hash| {
            key.sign(&hashes::with_context(layout::signature::HEADER, hash)).to_bytes()
        });
        refused(case.offer(index, &nobody, body), "a key that nobody registered");
    }
}

#[test]
fn headers_that_do_not_fit_what_is_held_are_refused() {
    let case = Case::new();
    let one = hashes::hash(layout::hash::HISTORY, b"another");
    for index in 0..case.sets.len() {
        let forge = |alter: &dyn Fn(&mut Header)| case.forge(index, case.signers(index).0, alter);
        refused(forge(&|header| header.audience = "410181".into()), "another partition");
        refused(forge(&|header| header.dataset = "person".into()), "another partition");
        refused(forge(&|header| header.root = one), "another root");
        refused(forge(&|header| header.records += 1), "another number of records");
        refused(forge(&|header| header.change_count += 1), "another number of changes");
        refused(forge(&|header| header.changes_hash = one), "another body");
        let later = case.federation.replica().seq() + 1;
        let ahead = forge(&|header| header.federation_head = Some((later, one)));
        refused(ahead, "a head that is not there yet");
        let elsewhere = forge(&|header| header.federation_head = Some((1, one)));
        refused(elsewhere, "a head of another _federation");
        let none = forge(&|header| header.federation_head = None);
        refused(none, "a head where none belongs, or none");
        if index == 0 {
            refused(forge(&|header| header.previous = one), "a first header, or not");
            refused(forge(&|header| header.history = one), "a first history, or not");
            continue;
        }
        refused(forge(&|header| header.previous = one), "another predecessor");
        refused(forge(&|header| header.history = one), "another history");
        let first = case.federation.replica().header(1).unwrap().1;
        let back = forge(&|header| header.federation_head = Some((1, first)));
        refused(back, "a head that goes back");
    }
}

#[test]
fn heads_of_another_history_and_pages_of_another_tree_are_refused() {
    let case = Case::new();
    let (heard, whole) = (&case.recorded.heard, case.before.last().unwrap());
    let key = case.signers(case.sets.len() - 1).0;
    let mut paths = 0;
    for (held, frame) in &heard.heads {
        let Ok(TreeReply::Head { header, proof, .. }) = messages::tree_reply(frame) else {
            panic!("no head for {held}");
        };
        let check = |held: Option<(u64, &Hash)>, header: &[u8], proof: &Proof| {
            replica::check_later_head(&case.federation, &heard.name, held, header, proof)
                .map(|_| ())
        };
        let hash = whole.header(*held).map(|(_, hash)| (*held, hash));
        assert_eq!(check(hash, &header, &proof), Ok(()));
        // Each hash of the proof counts, and none may be missing.
        for at in 0..proof.peaks.len() {
            let mut other = proof.clone();
            other.peaks[at][5] ^= 1;
            refused(check(hash, &header, &other), "peaks of another history");
            other.peaks.remove(at);
            refused(check(hash, &header, &other), "another number of peaks");
        }
        for at in 0..proof.path.len() {
            paths += 1;
            let mut other = proof.clone();
            other.path[at][5] ^= 1;
            refused(check(hash, &header, &other), "a path to another history");
            other.path.remove(at);
            refused(check(hash, &header, &other), "a path of another length");
        }
        let elsewhere = "test-city/enterprise/410181/*";
        let taken = replica::check_later_head(&case.federation, elsewhere, None, &header, &proof);
        refused(taken.map(|_| ()), "another partition");
        // The same key has signed another history of the same length.
        let mut other = SignedHeader::decode(&header).unwrap().header;
        other.history[0] ^= 1;
        let other = signed(&other, |hash| key.sign(hash));
        refused(check(hash, &other, &proof), "peaks of another history");
        // What is held is not in this history.
        let Some((held, _)) = hash else { continue };
        let why = if held == whole.seq() {
            "two headers of one number"
        } else {
            "a path to another history"
        };
        refused(check(Some((held, &[7; 32])), &header, &proof), why);
    }
    assert!(paths > 0, "no proof has a path");

    let Ok(TreeReply::Head { header, levels, .. }) = messages::tree_reply(&heard.heads[&0]) else {
        panic!("no head");
    };
    let head = SignedHeader::decode(&header).unwrap().header;
    let below = |head: &Header, pages: &BTreeMap<(u8, Vec<u8>), Vec<u8>>| {
        let page = |level: u8, key: &[u8]| pages.get(&(level, key.to_vec())).map(Vec::as_slice);
        pages::descend(head, levels, page)
    };
    let descend = |pages: &BTreeMap<(u8, Vec<u8>), Vec<u8>>| below(&head, pages);
    for other in [Header { root: [7; 32], ..head.clone() }, Header { records: 1, ..head.clone() }] {
        let read = below(&other, &heard.pages).map(|_| ());
        refused(read, "a root page that is not the head's");
    }
    assert!(levels >= 2 && heard.pages.len() >= 3, "{levels} levels");
    assert_eq!(descend(&heard.pages).as_ref(), Ok(whole.state()));
    for place in heard.pages.keys() {
        let mut missing = heard.pages.clone();
        let page = missing.remove(place).unwrap();
        assert_eq!(descend(&missing), Err(Refused("a page that did not come")));
        for at in 0..page.len() {
            // The byte of a frame of zstd that says nothing about its content, if
            // there is one, may not change what is read.
            let mut altered = heard.pages.clone();
            altered.get_mut(place).unwrap()[at] ^= 0x10;
            let read = descend(&altered);
            assert!(read.is_err() || read.as_ref() == Ok(whole.state()), "{place:?} at {at}");
        }
    }
}

#[test]
fn another_federation_is_refused() {
    let case = Case::new();
    let token = Token::parse(&case.recorded.token).unwrap();
    let sets: Vec<(Vec<u8>, Vec<u8>)> =
        case.recorded.join.iter().filter_map(|body| set(body)).collect();
    let mut federation = Federation::new(enrolment::anchor(&token).unwrap());
    for (index, (header, body)) in sets.iter().enumerate() {
        let signed_header = SignedHeader::decode(header).unwrap();
        let [first, second] = &case.recorded.hub;
        let is_first = signed_header.header.key_id == first.key_id();
        let (other, county) = (if is_first { second } else { first }, &case.recorded.county[0]);
        // Before a key is registered nobody knows it; later, it has its numbers.
        let known = federation.keys("410100").len() == 2;
        let why =
            if known { "a key that does not count here" } else { "a key that nobody registered" };
        for (key, why) in [(other, why), (county, "a key that nobody registered")] {
            let mut altered = signed_header.header.clone();
            altered.key_id = key.key_id();
            let altered = signed(&altered, |hash| key.sign(hash));
            refused(federation.clone().take(&altered, body), why);
        }
        if let Some((next, body)) = sets.get(index + 1) {
            assert!(federation.clone().take(next, body).is_err(), "one is left out");
        }
        federation.take(header, body).unwrap();
    }
    let Ok(JoinReply::Accepted { chain, root }) = messages::join_reply(&case.recorded.join[0])
    else {
        panic!("not accepted");
    };
    let check = |chain: &[Vec<u8>], node: &str| check_chain(chain, &root, "test-city", node);
    assert_eq!(check(&chain, NEWCOMER), Ok(()));
    refused(check(&chain, COUNTY), "a certificate for another node");
    let mut altered = chain.clone();
    *altered[0].last_mut().unwrap() ^= 1;
    refused(check(&altered, NEWCOMER), "the root's key has not signed it");
    altered = vec![chain[0].clone(), root.clone()];
    refused(check(&altered, NEWCOMER), "another issuer's name");
    refused(token.is_root(&chain[1]), "another root");

    // The partition of a county is nobody's without the members' keys.
    let nobody = Federation::new(enrolment::anchor(&token).unwrap());
    let taken = live::replica(&nobody, &case.recorded.heard).map(|_| ());
    refused(taken, "a key that nobody registered");
    // Without its last change set the token's head, or a member's, is missing.
    let join = &case.recorded.join;
    let cut = [&join[..2], &join[join.len() - 1..]].concat();
    refused(live::federation(&token, &cut).map(|_| ()), "the token's head is missing");
    let mut other = token.clone();
    other.federation_head[0] ^= 1;
    let taken = live::federation(&other, &case.recorded.join).map(|_| ());
    refused(taken, "the token's head is another");
}

fn set(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    match messages::join_reply(body) {
        Ok(JoinReply::ChangeSet { header, body }) => Some((header, body)),
        _ => None,
    }
}
