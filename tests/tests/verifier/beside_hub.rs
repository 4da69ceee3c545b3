//! What a hub makes of requests to join, beside a real one: whatever tokens there are
//! for the same nodes, whoever has used them, and whoever was shut out since. Of each
//! answer that grants something the verifier checks all of it, and with the certificates
//! of it and of those before the hub lets in whom the verifier does.
//!
//! `FUZZ_SEED` and `FUZZ_ROUNDS` choose other requests, and more of them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use certs::{credentials::Credentials, tls::ALPN_JOIN};
use ed25519_dalek::Signer as _;
use harness::{federation::HUB, sim::rng::Rng};
use protocol::message::{Control, Open};
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData as _,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{
    admission::{self, Code, Side},
    beside,
    certificate::Certificate,
    enrolment::{self, Granted, Hub},
    entries::Member,
    federation::Federation,
    frames::Encoder,
    hashes, layout,
    made::{key, public},
    messages::{self, JoinReply, JoinRequest},
    token::Token,
};
use crate::{
    peer::{Dial, End, Stream, soon},
    world::{FEDERATION, HONEST, World, hello, identity},
};

/// Certificates that are shown once something was granted.
const SHOWN: usize = 4;
/// Why a hub does not renew.
const TOO_OFTEN: u8 = 1;
/// Steps, unless `FUZZ_ROUNDS` says otherwise.
const ROUNDS: u64 = 120;
const NODES: [&str; 2] = ["410190", "410191"];

/// A request for a certificate, right or not.
fn certificate_request(node: &str, key: &KeyPair, alter: fn(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uri = format!("spiffe://{FEDERATION}/node/{node}");
    let dns = format!("{node}.{FEDERATION}.creditsync.internal");
    params.subject_alt_names = vec![
        SanType::URI(uri.as_str().try_into().unwrap()),
        SanType::DnsName(dns.as_str().try_into().unwrap()),
    ];
    alter(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

/// The keys from which requests are made.
struct Keys {
    certified: [KeyPair; 2],
    other: KeyPair,
}

/// A request with a token, mostly one that fits.
fn some_request(rng: &mut Rng, keys: &Keys, token: &Token) -> JoinRequest {
    // Each node has signing keys of its own.
    let of_node = NODES.iter().position(|node| *node == token.node).unwrap();
    let own = key(u8::try_from(20 + 10 * of_node + rng.index(3)).unwrap());
    let possession = |node: &str, key: &ed25519_dalek::SigningKey| {
        let bytes = [&token.id[..], node.as_bytes()].concat();
        key.sign(&hashes::with_context(layout::signature::POSSESSION, &bytes)).to_bytes().to_vec()
    };
    let certified = &keys.certified[usize::from(rng.chance(25))];
    let mut request = JoinRequest {
        token_id: token.id,
        secret: token.secret,
        node: token.node.clone(),
        request: certificate_request(&token.node, certified, |_| ()),
        public: public(&own).to_vec(),
        possession: possession(&token.node, &own),
    };
    if rng.chance(70) {
        return request;
    }
    match rng.below(13) {
        0 => request.secret[rng.index(32)] ^= 1,
        1 => request.token_id[rng.index(8)] ^= 1,
        2 => request.node = HONEST.to_owned(),
        3 => request.public = public(&key(1)).to_vec(),
        4 => request.public.push(0),
        5 => request.public = vec![0; 32],
        6 => request.possession[rng.index(64)] ^= 1,
        7 => _ = request.possession.pop(),
        8 => request.possession = possession(HONEST, &own),
        9 => request.request = certificate_request(HONEST, certified, |_| ()),
        10 => request.request = certificate_request(&token.node, &keys.other, |_| ()),
        11 => {
            request.request = certificate_request(&token.node, certified, |params| {
                params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
            });
        }
        _ => {
            let last = request.request.len() - 1;
            request.request[last] ^= 1;
        }
    }
    request
}

/// All that the hub answers.
fn asked(world: &World, from: Ipv4Addr, request: &JoinRequest) -> Vec<Vec<u8>> {
    let dial = Dial { anonymous: true, alpn: ALPN_JOIN, from: IpAddr::V4(from), ..world.dial() };
    world.block_on(async {
        let peer = dial.connect().await.unwrap();
        let mut stream = peer.open().await;
        stream.send_body(&messages::encode_join(request)).await;
        stream.finish();
        let mut answer = Vec::new();
        while let Ok(body) = stream.receive_body().await {
            answer.push(body);
        }
        answer
    })
}

/// A certificate that was issued to a node, and which key it is for.
struct Issued {
    node: String,
    chain: Vec<Vec<u8>>,
    key: usize,
}

impl Issued {
    /// The code with which the hub closes a connection under it, or what it answers to a
    /// request to renew it: another one, unless its node has asked too often.
    fn renewed(&self, world: &World, keys: &Keys) -> Result<Option<Self>, Code> {
        let key = &keys.certified[self.key];
        let chain = self.chain.iter().map(|der| CertificateDer::from(der.clone()));
        let credentials = Credentials {
            chain: chain.collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            roots: world.credentials.roots.clone(),
            identity: identity(&self.node),
        };
        let dial = Dial { credentials: Arc::new(credentials), ..world.dial() };
        let code = |end: End| match end {
            End::Code(code) => u64::from(code.as_u32()),
            other => panic!("{other:?}"),
        };
        world.block_on(async {
            let peer = dial.connect().await.unwrap();
            let opened = soon("a stream opens", peer.connection.open_bi()).await;
            let streams = opened.map_err(|error| code(End::of_connection(&error)))?;
            let mut control = Stream::new(streams);
            control.send(&Open::Control(hello(vec![]))).await;
            control.receive_body().await.map_err(code)?;
            control.send(&Control::Report(world.report())).await;
            let request = certificate_request(&self.node, key, |_| ());
            let mut stream = peer.open().await;
            stream.send_body(&Encoder::default().varint(3).bytes(&request).body()).await;
            let answer = stream.receive_body().await.unwrap();
            peer.connection.close(0u8.into(), &[]);
            match messages::renew_reply(&answer).unwrap() {
                Ok(chain) => Ok(Some(Self { node: self.node.clone(), chain, key: self.key })),
                Err(reason) => {
                    assert_eq!(reason, TOO_OFTEN);
                    Ok(None)
                }
            }
        })
    }
}

/// Shows the last of these certificates to the hub, and renews the newest one.
fn check_admitted(
    world: &World,
    keys: &Keys,
    federation: &Federation,
    issued: &mut Vec<Issued>,
    case: &str,
) -> u64 {
    let side = Side { federation: FEDERATION, hub: HUB, is_hub: true };
    let admits = |chain: &[Vec<u8>]| admission::admits(side, federation.records(), chain);
    let mut refused = 0;
    let mut newest = None;
    for one in issued.iter().rev().take(SHOWN) {
        let program = one.renewed(world, keys);
        let own = admits(&one.chain);
        assert_eq!(own, program.as_ref().map(|_| ()).map_err(|code| *code), "{case}, {}", one.node);
        refused += u64::from(own.is_err());
        newest = newest.or(Some(program));
    }
    if let Some(renewed) = newest.expect("one was issued").expect("the newest one counts") {
        assert_eq!(admits(&renewed.chain), Ok(()), "{case}: a renewed one is refused");
        issued.push(renewed);
    }
    refused
}

/// What was granted to a node before.
#[derive(Debug, Clone)]
struct Before {
    begins_s: i64,
    certificates_from: Option<i64>,
    keys: usize,
}

/// What a node has behind an answer: its record, and its keys as they count.
fn check_granted(
    federation: &Federation,
    request: &JoinRequest,
    granted: Granted,
    leaf: &[u8],
    before: Option<&Before>,
) -> Before {
    let node = &request.node;
    let records = federation.records();
    let Member { removed, certificates_from, is_hub } = records.members[node];
    assert!(!removed && !is_hub);
    assert!(!records.revoked.contains(&(node.clone(), None)), "the revocation goes");
    let keys = federation.keys(node);
    let (present, earlier) = keys.split_last().unwrap();
    assert_eq!(present.public[..], request.public[..]);
    assert!(present.last.is_none() && earlier.iter().all(|key| key.last.is_some()));
    let known = before.map_or(0, |before| before.keys);
    assert_eq!(keys.len(), known + usize::from(granted == Granted::WithNewKey));
    if granted == Granted::WithNewKey {
        assert_eq!(present.by, if known == 0 { "enrolment" } else { "reenrolment" });
    }
    let (begins_s, _) = Certificate::read(leaf).unwrap().validity().unwrap();
    assert!(certificates_from.is_none_or(|from| begins_s >= from), "its own is refused");
    if let Some(before) = before {
        match granted {
            Granted::Again => assert_eq!(certificates_from, before.certificates_from),
            // What was issued before counts no more.
            _ => assert!(certificates_from > Some(before.begins_s), "{before:?}"),
        }
    }
    Before { begins_s, certificates_from, keys: keys.len() }
}

#[test]
fn a_hub_grants_what_the_page_says_and_nothing_else() {
    let (seed, rounds) = (beside::setting("FUZZ_SEED", 1), beside::setting("FUZZ_ROUNDS", ROUNDS));
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let world = World::new();
    let address = world.federation.address().to_string();
    let pair = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let keys = Keys { certified: [pair(), pair()], other };
    let mut hub = Hub::default();
    let mut tokens: Vec<Token> = Vec::new();
    let mut before: BTreeMap<String, Before> = BTreeMap::new();
    let mut said: BTreeMap<String, u64> = BTreeMap::new();
    let (mut issued, mut shut_out) = (Vec::new(), 0);
    for round in 0..rounds {
        let case = format!("seed {seed}, round {round}");
        let node = NODES[rng.index(2)];
        match rng.below(if tokens.is_empty() { 1 } else { 16 }) {
            0..3 => {
                let text = world.federation.invite(node, &["--address", &address]);
                let token = Token::parse(&text).unwrap();
                hub.invites(&token);
                tokens.push(token);
            }
            3 if before.contains_key(node) => {
                let remove = ["node", "remove", node, "--force"];
                let command = if rng.chance(50) { &remove[..] } else { &["revoke", node] };
                world.federation.hub.cli(command).expect_code(0);
                hub.shuts_out(node);
                println!("{round}: {command:?}");
            }
            _ => {
                // The newest ones mostly.
                let newest = tokens.len().min(if rng.chance(80) { 2 } else { 20 });
                let token = &tokens[tokens.len() - 1 - rng.index(newest)];
                let request = some_request(&mut rng, &keys, token);
                // An address of its own, or wrong tokens would be counted together.
                let [high, low] = u16::try_from(round).unwrap().to_be_bytes();
                let answer = asked(&world, Ipv4Addr::new(127, 1, high, low), &request);
                let expected = hub.judges(&request);
                let first = messages::join_reply(&answer[0]).unwrap();
                *said.entry(format!("{expected:?}")).or_default() += 1;
                println!("{round}: {} {:?} {expected:?}", token.node, &token.id[..2]);
                match (&first, expected) {
                    (JoinReply::Refused(reason), Err(expected)) => {
                        assert_eq!((*reason, answer.len()), (expected, 1), "{case}: {request:?}");
                    }
                    (JoinReply::Accepted { chain, .. }, Ok(granted)) => {
                        let (key, federation) = enrolment::joined(token, &answer).unwrap();
                        let own = enrolment::check_asked(token, &request).unwrap();
                        assert_eq!(key, own, "{case}");
                        let known = before.get(&request.node);
                        let now = check_granted(&federation, &request, granted, &chain[0], known);
                        before.insert(request.node.clone(), now);
                        let of = |pair: &KeyPair| pair.subject_public_key_info().ends_with(&key);
                        let key = keys.certified.iter().position(of).unwrap();
                        let (node, chain) = (request.node.clone(), chain.clone());
                        issued.push(Issued { node, chain, key });
                        shut_out += check_admitted(&world, &keys, &federation, &mut issued, &case);
                    }
                    _ => panic!("{case}: {expected:?}, but the hub says {first:?} to {request:?}"),
                }
            }
        }
    }
    println!("{said:?}, {shut_out} certificates are refused");
    assert!(shut_out > 0);
    // Four reasons, and three kinds of grants, of which one may be missed.
    assert!(said.len() > 5, "{said:?}");
    world.finish();
}
