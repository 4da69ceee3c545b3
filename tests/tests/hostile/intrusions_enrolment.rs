//! Intrusions by token and by request: who wants to be enrolled, to have a
//! certificate renewed or a signing key registered, and may not.
//!
//! None of them uses a token up, makes a member, or changes `_federation`.

use certs::{authority::NodeKey, enrol::Token, identity::Identity, keyfile, tls::ALPN_JOIN};
use harness::{
    federation::{Federation, HUB},
    node::{Node, wait_until},
};
use protocol::{
    federation::succession_bytes,
    id::NodeId,
    message::{
        CloseCode, Control, JoinRefused, JoinReply, JoinRequest, NewKeyReply, NewKeyRequest, Open,
        RenewReply, RenewRequest, Report, RequestRefused, possession_bytes,
    },
    sign::{SignaturePurpose, SigningKey},
    suite::Suite,
    suite::checksum::Checksum,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType};

use crate::{
    enrolment::{refused, request},
    lure::honest_key,
    mint::key_pair,
    peer::{Dial, End, Peer},
    world::{FEDERATION, HONEST, HOSTILE, World, hello, identity, identity_in},
};

const INVITED: &str = "410182";
const MISMATCH: JoinRefused = JoinRefused::Mismatch;
const UNKNOWN: JoinRefused = JoinRefused::UnknownToken;

/// The tokens that an intruder may have got hold of.
struct Tokens {
    /// One that is good.
    good: Token,
    /// For the same node, before that.
    superseded: Token,
    expired: Token,
    used: Token,
    /// Of another federation's hub.
    foreign: Token,
}

/// A joiner's request, by what it shows of a token.
const TOKENS: &[(&str, fn(&Tokens) -> JoinRequest, JoinRefused)] = &[
    ("a token again", |tokens| request(&tokens.used), JoinRefused::Used),
    ("a token that has expired", |tokens| request(&tokens.expired), JoinRefused::Expired),
    ("a token for another hub", |tokens| request(&tokens.foreign), UNKNOWN),
    ("a token after a newer one", |tokens| request(&tokens.superseded), UNKNOWN),
    ("an altered secret", |tokens| altered(tokens, |r| r.secret[31] ^= 1), UNKNOWN),
    ("an altered id", |tokens| altered(tokens, |r| r.token_id[0] ^= 1), UNKNOWN),
    (
        "a token for another node",
        |tokens| request(&Token { node: node(HONEST), ..tokens.good.clone() }),
        MISMATCH,
    ),
    (
        "a token for a member, to be the hub",
        |tokens| request(&Token { node: node(HUB), ..tokens.good.clone() }),
        MISMATCH,
    ),
    (
        "another member's signing key",
        |tokens| altered(tokens, |r| r.signing_key = signing_key(9).public().as_bytes().to_vec()),
        MISMATCH,
    ),
    (
        "a proof for another token",
        |tokens| {
            let proof = possession_bytes(&tokens.used.id, &tokens.good.node);
            altered(tokens, |r| proven(r, &proof))
        },
        MISMATCH,
    ),
    (
        "a proof for another node",
        |tokens| {
            let proof = possession_bytes(&tokens.good.id, &node(HONEST));
            altered(tokens, |r| proven(r, &proof))
        },
        MISMATCH,
    ),
];

/// Certificate requests that are not granted, to who joins and to who renews.
const REQUESTS: &[(&str, fn(&Identity) -> Vec<u8>)] = &[
    ("for another node", |_| csr(&identity(HONEST), &key_pair(), |_| {})),
    ("for the hub", |_| csr(&identity(HUB), &key_pair(), |_| {})),
    ("for another federation", |own| {
        csr(&identity_in("other-city", own.node.as_str()), &key_pair(), |_| {})
    }),
    ("with the hub's DNS name too", |own| with_name(own, dns(&identity(HUB).dns_name()))),
    ("with a wildcard too", |own| {
        with_name(own, dns(&format!("*.{FEDERATION}.creditsync.internal")))
    }),
    ("with a second URI", |own| {
        with_name(own, SanType::URI(identity(HONEST).uri().try_into().unwrap()))
    }),
    ("with its own name twice", |own| with_name(own, dns(&own.dns_name()))),
    ("without names", |own| csr(own, &key_pair(), |params| params.subject_alt_names.clear())),
    ("of a P-384 key", |own| {
        csr(own, &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), |_| {})
    }),
    ("of an Ed25519 key", |own| csr(own, &KeyPair::generate_for(&PKCS_ED25519).unwrap(), |_| {})),
    ("with an altered signature", |own| {
        let mut request = csr(own, &key_pair(), |_| {});
        *request.last_mut().unwrap() ^= 1;
        request
    }),
];

/// A signing key that the hostile member wants to follow its own.
const KEYS: &[(&str, fn(&World) -> NewKeyRequest)] = &[
    ("countersigned by itself", |world| {
        let new = signing_key(1);
        follows(world, &new, &new, &new)
    }),
    ("countersigned by another member", |world| {
        let new = signing_key(1);
        follows(world, &new, &new, &signing_key(9))
    }),
    ("countersigned as another node's", |world| {
        let bytes = succession(HONEST, world, &signing_key(1));
        signed(&signing_key(1), &bytes, &signing_key(1), &world.key)
    }),
    ("countersigned for another key", |world| {
        let bytes = succession(HOSTILE, world, &signing_key(2));
        NewKeyRequest {
            countersignature: sign(&world.key, SignaturePurpose::Succession, &bytes),
            ..follows(world, &signing_key(1), &signing_key(1), &world.key)
        }
    }),
    ("proven by another key", |world| follows(world, &signing_key(1), &signing_key(2), &world.key)),
    ("that is another node's", |world| {
        // Its public half stands in `_federation`; its private one is not ours.
        follows(world, &honest_key(world), &world.key, &world.key)
    }),
    ("with the signatures exchanged", |world| {
        let right = follows(world, &signing_key(1), &signing_key(1), &world.key);
        NewKeyRequest {
            possession: right.countersignature,
            countersignature: right.possession,
            ..right
        }
    }),
    ("that is none", |world| NewKeyRequest {
        signing_key: vec![0; 32],
        ..follows(world, &signing_key(1), &signing_key(1), &world.key)
    }),
];

/// Messages on the control stream that are the hub's to send, or too much.
const CONTROL: &[(&str, fn(&World) -> Control, CloseCode)] = &[
    ("a statement of freshness", |_| Control::Freshness(vec![1; 200]), CloseCode::Unexpected),
    ("an anchor", |_| Control::Anchor(vec![1; 200]), CloseCode::Unexpected),
    (
        "a report of 17 roots",
        |world| Control::Report(Report { roots: vec![Checksum::ZERO; 17], ..world.report() }),
        CloseCode::Malformed,
    ),
];

pub const ROWS: usize =
    TOKENS.len() + 2 * REQUESTS.len() + KEYS.len() + CONTROL.len() + OTHERS.len();

const OTHERS: &[&str] = &[
    "a renewal before the hello",
    "a renewal by the protocol of enrolment",
    "renewals without end",
    "a signing key that was registered, again",
    "a signing key of the past",
    "unknown tokens without end",
];

#[test]
fn tokens_and_requests_that_do_not_fit_enrol_nobody() {
    let mut world = World::new();
    let address = world.federation.address().to_string();
    let other = Federation::hub_only();
    let invite = |federation: &Federation, node: &str, ttl: &str| {
        Token::parse(&federation.invite(node, &["--address", &address, "--ttl", ttl])).unwrap()
    };
    let tokens = Tokens {
        superseded: invite(&world.federation, INVITED, "1h"),
        good: invite(&world.federation, INVITED, "1h"),
        expired: invite(&world.federation, "410185", "1s"),
        used: invite(&world.federation, "410186", "1h"),
        foreign: invite(&other, INVITED, "1h"),
    };
    let dir = world.federation.dir().join("410186");
    Node::new("410186", &dir).cli(&["join", &tokens.used.to_text()]).expect_code(0);
    wait_until("a token has expired", || {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        tokens.expired.is_expired(now)
    });

    let held = world.held();
    for (what, forge, expected) in TOKENS {
        assert_eq!(refused(&world, what, &forge(&tokens)), *expected, "{what}");
        println!("{what}: {expected:?}");
    }
    for (what, forge) in REQUESTS {
        let request = altered(&tokens, |r| r.csr = forge(&tokens.good.identity()));
        assert_eq!(refused(&world, what, &request), MISMATCH, "{what}");
        println!("{what}: {MISMATCH:?}");
    }
    assert_eq!(world.held(), held, "something was granted");
    world.check_service();
    // The good one is as good as before.
    let dir = world.federation.dir().join(INVITED);
    Node::new(INVITED, &dir).cli(&["join", &tokens.good.to_text()]).expect_code(0);
    world.finish();
}

#[test]
fn a_member_gets_no_certificate_and_no_key_but_its_own() {
    let mut world = World::new();
    let held = world.held();
    world.block_on(async {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        for (what, forge) in REQUESTS {
            let reply = renew(&peer, forge(&identity(HOSTILE))).await;
            assert_eq!(reply, RenewReply::Refused(RequestRefused::Mismatch), "{what}");
            println!("{what}: {reply:?}");
        }
    });
    // The budget of a member is for both, and those took half of it.
    world.federation.hub.restart();
    world.check_service();
    world.block_on(async {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        for (what, forge) in KEYS {
            let reply = new_key(&peer, &forge(&world)).await;
            assert_eq!(reply, NewKeyReply::Refused(RequestRefused::Mismatch), "{what}");
            println!("{what}: {reply:?}");
        }
    });
    assert_eq!(world.held(), held, "something was granted");

    for (what, message, code) in CONTROL {
        world.attack(what, End::Code(*code), 1, async |world| {
            let peer = world.connect().await;
            let (mut control, _) = peer.say_hello(hello(vec![])).await;
            control.send(&message(world)).await;
            peer.closed().await
        });
    }
    let good = Open::Renew(RenewRequest { csr: good_csr() });
    world.attack(
        "a renewal before the hello",
        End::Code(CloseCode::Unexpected),
        1,
        async |world| {
            let peer = world.connect().await;
            peer.open().await.send(&good).await;
            peer.closed().await
        },
    );
    let what = "a renewal by the protocol of enrolment";
    world.attack(what, End::Code(CloseCode::Normal), 0, async |world| {
        let peer = Dial { alpn: ALPN_JOIN, ..world.dial() }.connect().await.unwrap();
        peer.open().await.send(&good).await;
        peer.closed().await
    });
    world.finish();
}

#[test]
fn a_signing_key_is_registered_once_and_never_again() {
    let world = World::new();
    let first = follows(&world, &signing_key(1), &signing_key(1), &world.key);
    let registered = world.block_on(ask_for_key(&world, &first));
    let NewKeyReply::Registered { .. } = registered else { panic!("{registered:?}") };
    let held = world.held();
    assert_eq!(world.block_on(ask_for_key(&world, &first)), registered, "the answer was lost");
    assert_eq!(world.held(), held, "a key that was registered, again");

    // Another follows; then the first one wants to come back.
    let bytes = succession_of(&signing_key(1), HOSTILE, &signing_key(2));
    let second = signed(&signing_key(2), &bytes, &signing_key(2), &signing_key(1));
    let reply = world.block_on(ask_for_key(&world, &second));
    assert!(matches!(reply, NewKeyReply::Registered { .. }), "{reply:?}");
    let held = world.held();
    let back = succession_of(&signing_key(2), HOSTILE, &signing_key(1));
    let back = signed(&signing_key(1), &back, &signing_key(1), &signing_key(2));
    for request in [&first, &back] {
        let reply = world.block_on(ask_for_key(&world, request));
        assert_eq!(reply, NewKeyReply::Refused(RequestRefused::Mismatch));
    }
    assert_eq!(world.held(), held, "a key of the past");
    world.finish();
}

#[test]
fn renewals_without_end_slow_down_who_asks_and_nobody_else() {
    let world = World::new();
    let (issued, refused) = world.block_on(async {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let (mut issued, mut refused) = (0, 0);
        while issued + refused < 60 {
            match renew(&peer, good_csr()).await {
                RenewReply::Issued { .. } => issued += 1,
                RenewReply::Refused(RequestRefused::TooOften) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        (issued, refused)
    });
    // Twenty at once, and one each two seconds.
    assert!(issued >= 20 && refused >= 10, "{issued} were issued, {refused} refused");
    let county = &world.federation.counties[0];
    let serial = |node: &Node| node.status()["certificates"][0]["serial"].clone();
    let before = serial(county);
    county.cli(&["cert", "renew"]).expect_code(0);
    assert_ne!(serial(county), before, "the honest county renews meanwhile");
    assert_eq!(world.misbehaved(), 0, "who asks too often is told so");
    world.finish();
}

#[test]
fn unknown_tokens_without_end_are_slowed_down_by_address_and_do_not_fill_the_log() {
    let mut world = World::new();
    let address = world.federation.address().to_string();
    let text = world.federation.invite(INVITED, &["--address", &address]);
    let good = Token::parse(&text).unwrap();
    let elsewhere =
        Dial { from: [127, 0, 0, 2].into(), anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    let ask = |request: &JoinRequest| crate::enrolment::refused_from(&world, &elsewhere, request);
    let mut answers = [0, 0];
    for n in 0..60 {
        let mut request = request(&good);
        request.secret[0] ^= n + 1;
        match ask(&request) {
            JoinRefused::UnknownToken => answers[0] += 1,
            JoinRefused::TooMany => answers[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [10, 50]);
    let log = world.federation.hub.log();
    let about = log.lines().filter(|line| line.contains("join") && line.contains("WARN"));
    let lines = about.count();
    assert!(lines <= 12, "{lines} lines: {log}");
    // Who has a token is served, also at that address.
    let reply = crate::enrolment::answer(&world, &elsewhere, &request(&good));
    assert!(matches!(reply, JoinReply::Accepted { .. }), "{reply:?}");
    world.join("410187");
    world.check_service();
    world.finish();
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A signing key that nobody has registered.
fn signing_key(seed: u8) -> SigningKey {
    Suite::One.signing_key(&[seed; 32]).unwrap()
}

fn altered(tokens: &Tokens, alter: impl FnOnce(&mut JoinRequest)) -> JoinRequest {
    let mut request = request(&tokens.good);
    alter(&mut request);
    request
}

/// A new key signs `proof`.
fn proven(request: &mut JoinRequest, proof: &[u8]) {
    let key = keyfile::generate_signing_key(Suite::One);
    request.signing_key = key.public().as_bytes().to_vec();
    request.possession = sign(&key, SignaturePurpose::Possession, proof);
}

fn csr(identity: &Identity, key: &KeyPair, alter: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let uri = SanType::URI(identity.uri().try_into().unwrap());
    params.subject_alt_names = vec![uri, dns(&identity.dns_name())];
    alter(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn with_name(own: &Identity, name: SanType) -> Vec<u8> {
    csr(own, &key_pair(), |params| params.subject_alt_names.push(name))
}

fn good_csr() -> Vec<u8> {
    NodeKey::generate().unwrap().csr(&identity(HOSTILE)).unwrap()
}

fn sign(key: &SigningKey, purpose: SignaturePurpose, bytes: &[u8]) -> Vec<u8> {
    key.sign(purpose, bytes).as_bytes().to_vec()
}

/// What a key signs that follows `earlier`.
fn succession_of(earlier: &SigningKey, of: &str, new: &SigningKey) -> Vec<u8> {
    let federation = identity(of).federation;
    succession_bytes(&federation, &node(of), &earlier.public().id(), &new.public())
}

fn succession(of: &str, world: &World, new: &SigningKey) -> Vec<u8> {
    succession_of(&world.key, of, new)
}

fn signed(
    new: &SigningKey,
    bytes: &[u8],
    possession: &SigningKey,
    countersignature: &SigningKey,
) -> NewKeyRequest {
    NewKeyRequest {
        signing_key: new.public().as_bytes().to_vec(),
        possession: sign(possession, SignaturePurpose::Possession, bytes),
        countersignature: sign(countersignature, SignaturePurpose::Succession, bytes),
    }
}

/// The request that `new` follows the hostile member's key, by these signers.
fn follows(
    world: &World,
    new: &SigningKey,
    possession: &SigningKey,
    countersignature: &SigningKey,
) -> NewKeyRequest {
    signed(new, &succession(HOSTILE, world, new), possession, countersignature)
}

async fn renew(peer: &Peer, csr: Vec<u8>) -> RenewReply {
    let mut stream = peer.open().await;
    stream.send(&Open::Renew(RenewRequest { csr })).await;
    stream.receive().await.unwrap()
}

async fn new_key(peer: &Peer, request: &NewKeyRequest) -> NewKeyReply {
    let mut stream = peer.open().await;
    stream.send(&Open::NewKey(request.clone())).await;
    stream.receive().await.unwrap()
}

async fn ask_for_key(world: &World, request: &NewKeyRequest) -> NewKeyReply {
    let peer = world.connect().await;
    let (_control, _) = peer.say_hello(hello(vec![])).await;
    new_key(&peer, request).await
}
