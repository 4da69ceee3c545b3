//! Intrusions with keys and certificates that were right once: signing keys whose
//! time is over, and a certificate that two daemons use.

use certs::{credentials::Credentials, keyfile::KeyDir, keyfile::SIGNING_KEY_FILE};
use harness::node::{Node, wait_until};
use protocol::{
    change::{Change, Header, Position, changes_hash, encode_changes},
    federation::succession_bytes,
    history::Peaks,
    message::{
        CloseCode, Control, FollowReply, FollowRequest, NewKeyReply, NewKeyRequest, Open, Report,
        decode_header,
    },
    sign::{SignaturePurpose, SigningKey},
    suite::Suite,
    suite::checksum::Checksum,
};

use crate::{
    forge::{Origin, Tree, entries, federation_head, reply},
    lure::honest_key,
    peer::{End, Peer, Stream},
    world::{HOSTILE, World, claim, hello, identity, partition},
};

const FORGED: End = End::Code(CloseCode::Forged);
const UNEXPECTED: End = End::Code(CloseCode::Unexpected);
const DATASET: &str = "enterprise";

/// The keys of a member that has had several.
struct Keys {
    /// The one that it joined with.
    first: SigningKey,
    /// The one that followed, if any.
    second: SigningKey,
    /// Another member's.
    honest: SigningKey,
    /// Nobody's.
    unknown: SigningKey,
}

type Row = (&'static str, fn(&Keys, &Next) -> FollowReply, End, u64);

/// After the second key has followed the first: what the hub is sent behind
/// number 1, how it ends the stream, and whether it counts that. The owner of a
/// retired key may not have heard yet, so that is no misbehaviour.
const RETIRED: &[Row] = &[
    ("signed by a retired key above its last number", |k, next| next.set(&k.first), FORGED, 0),
    (
        "signed by the new key under the retired one's id",
        |k, next| next.altered(&k.second, |header| header.key_id = k.first.public().id()),
        FORGED,
        0,
    ),
    (
        "signed by the retired key under the new one's id",
        |k, next| next.altered(&k.first, |header| header.key_id = k.second.public().id()),
        FORGED,
        1,
    ),
    ("signed by another member's key", |k, next| next.set(&k.honest), FORGED, 1),
    ("signed by nobody's key", |k, next| next.set(&k.unknown), FORGED, 1),
    ("another number 1, by a key that begins at 2", |k, next| next.fork(&k.second), FORGED, 0),
    ("another number 1, by nobody's key", |k, next| next.fork(&k.unknown), FORGED, 1),
];

/// After the member was revoked and has joined again with a third key.
const REVOKED: &[Row] = &[
    ("signed by a revoked key", |k, next| next.set(&k.second), FORGED, 0),
    ("signed by the key before that", |k, next| next.set(&k.first), FORGED, 0),
    ("another number 2, by nobody's key", |k, next| next.fork(&k.unknown), FORGED, 1),
];

/// What a daemon says of itself who shows a certificate that another one uses.
const TWO_DAEMONS: &[&str] = &[
    "a certificate used from two places in turn",
    "one of them says again who it is",
    "a daemon that does not say who it is",
    "a daemon that says it is two",
    "reports without end",
];

pub const ROWS: usize = RETIRED.len() + REVOKED.len() + TWO_DAEMONS.len();

/// A partition that goes on.
struct Next {
    records: u32,
    position: Position,
    header: Header,
    /// All headers up to the head.
    history: Peaks,
}

impl Next {
    /// A right change set behind the head.
    fn set(&self, key: &SigningKey) -> FollowReply {
        self.altered(key, |_| {})
    }

    fn altered(&self, key: &SigningKey, alter: impl FnOnce(&mut Header)) -> FollowReply {
        let all = entries(self.records + 1);
        let (record, value) = all.last().unwrap().clone();
        let body = encode_changes(&[Change::Put { key: record, value }]);
        let summary = Tree::of(&all).summary;
        let mut header = Header {
            seq: self.position.seq + 1,
            previous: self.position.hash,
            history: self.history.root(Suite::One),
            change_count: 1,
            changes_hash: changes_hash(Suite::One, &body),
            root: summary.root,
            records: summary.records,
            key_id: key.public().id(),
            ..self.header.clone()
        };
        alter(&mut header);
        reply(header, &body, key)
    }

    /// A claim that the head is another one.
    fn fork(&self, key: &SigningKey) -> FollowReply {
        let other = Header { origin_time_ms: 1, key_id: key.public().id(), ..self.header.clone() };
        let FollowReply::ChangeSet { header, .. } = reply(other, &[], key) else {
            unreachable!("it is one")
        };
        FollowReply::Fork { header }
    }

    /// The hub takes this one.
    fn taken(&mut self, set: &FollowReply) {
        let FollowReply::ChangeSet { header, .. } = set else { unreachable!("it is one") };
        let header = decode_header(header).unwrap();
        (self.position, self.header) = (header.position(), header.header().clone());
        self.history.push(self.position.hash);
        self.records += 1;
    }
}

#[test]
fn a_key_whose_time_is_over_signs_nothing_more() {
    let mut world = World::new();
    let keys = Keys {
        first: Suite::One.signing_key(&world.key.secret()).unwrap(),
        second: key(1),
        honest: honest_key(&world),
        unknown: key(9),
    };
    let mut next = begin(&world, &keys.first);
    let registered = world.block_on(follow_key(&world, &keys.first, &keys.second));
    assert!(matches!(registered, NewKeyReply::Registered { .. }), "{registered:?}");
    attack_all(&mut world, RETIRED, &keys, &next);
    go_on(&world, &mut next, &keys.second);

    world.federation.hub.cli(&["revoke", HOSTILE]).expect_code(0);
    let token =
        world.federation.invite(HOSTILE, &["--address", &world.federation.address().to_string()]);
    let dir = world.federation.dir().join(HOSTILE);
    Node::new(HOSTILE, &dir).cli(&["join", &token]).expect_code(0);
    let files = KeyDir::new(dir.join("keys"), None);
    let credentials = Credentials::load(&dir.join("certs"), &files, &identity(HOSTILE)).unwrap();
    world.credentials = credentials.into();
    let third: SigningKey = files.load(SIGNING_KEY_FILE).unwrap();
    assert!(third.public() != keys.first.public(), "a revoked key came back");
    attack_all(&mut world, REVOKED, &keys, &next);
    go_on(&world, &mut next, &third);
    world.finish();
}

fn attack_all(world: &mut World, table: &[Row], keys: &Keys, next: &Next) {
    for (what, forge, end, counted) in table {
        world.attack(what, *end, *counted, async |world| {
            let (_peer, _control, mut stream) = followed(world).await;
            stream.send(&forge(keys, next)).await;
            stream.end().await
        });
    }
}

/// The hostile member as an honest one: number 1, with three records.
fn begin(world: &World, key: &SigningKey) -> Next {
    world.block_on(async {
        let peer = world.connect().await;
        let claimed = claim(partition(&format!("{DATASET}/{HOSTILE}")));
        let (_control, theirs) = peer.say_hello(hello(vec![claimed.clone()])).await;
        let mut stream = peer.accept().await;
        let Ok(Open::Follow { have: None, .. }) = stream.receive().await else { panic!() };
        let federation_head = federation_head(&theirs);
        let origin = Origin { partition: claimed.partition, key, federation_head };
        let (header, body) = origin.first(&entries(3));
        stream.send(&reply(header.clone(), &body, key)).await;
        let Ok(FollowRequest::Ack { position, .. }) = stream.receive().await else { panic!() };
        let mut history = Peaks::new();
        history.push(position.hash);
        Next { records: 3, position, header, history }
    })
}

/// One more, which is taken.
fn go_on(world: &World, next: &mut Next, key: &SigningKey) {
    let set = next.set(key);
    world.block_on(async {
        let (_peer, _control, mut stream) = followed(world).await;
        stream.send(&set).await;
        let acked = stream.receive().await;
        assert!(matches!(acked, Ok(FollowRequest::Ack { .. })), "{acked:?}");
    });
    next.taken(&set);
}

/// The hub follows what the hostile member has; it claims to have more.
async fn followed(world: &World) -> (Peer, Stream, Stream) {
    let peer = world.connect().await;
    let mut more = claim(partition(&format!("{DATASET}/{HOSTILE}")));
    more.position.seq = 100;
    let (control, _) = peer.say_hello(hello(vec![more])).await;
    let mut stream = peer.accept().await;
    let opened: Result<Open, End> = stream.receive().await;
    assert!(matches!(opened, Ok(Open::Follow { have: Some(_), .. })), "{opened:?}");
    (peer, control, stream)
}

async fn follow_key(world: &World, earlier: &SigningKey, new: &SigningKey) -> NewKeyReply {
    let who = identity(HOSTILE);
    let bytes = succession_bytes(&who.federation, &who.node, &earlier.public().id(), &new.public());
    let request = NewKeyRequest {
        signing_key: new.public().as_bytes().to_vec(),
        possession: new.sign(SignaturePurpose::Possession, &bytes).as_bytes().to_vec(),
        countersignature: earlier.sign(SignaturePurpose::Succession, &bytes).as_bytes().to_vec(),
    };
    let peer = world.connect().await;
    let (_control, _) = peer.say_hello(hello(vec![])).await;
    let mut stream = peer.open().await;
    stream.send(&Open::NewKey(request)).await;
    stream.receive().await.unwrap()
}

fn key(seed: u8) -> SigningKey {
    Suite::One.signing_key(&[seed; 32]).unwrap()
}

#[test]
fn a_certificate_that_two_daemons_use_is_an_alarm() {
    let mut world = World::new();
    let (ours, theirs) = ([1; 8], [2; 8]);
    let appear = |instance: [u8; 8], again: bool| {
        world.block_on(async {
            let peer = world.connect().await;
            let (mut control, _) = peer.say_hello_as(instance, hello(vec![])).await;
            let report = Report { instance, signing_key: Suite::One.repeated(3), ..world.report() };
            if again {
                control.send(&Control::Report(report)).await;
            }
            // What comes behind a second report is dealt with behind it.
            control.send(&Control::Hello(hello(vec![]))).await;
            assert_eq!(peer.closed().await, UNEXPECTED);
        });
    };
    let alarm = || {
        let status = world.federation.hub.status();
        let peers = status["peers"].as_array().unwrap();
        let peer = peers.iter().find(|peer| peer["node"] == HOSTILE).unwrap();
        let listed = world.federation.hub.alarms().len();
        assert_eq!(listed == 1, peer["alarm"].is_string(), "{status:#}");
        listed == 1
    };
    let errors = || {
        let log = world.federation.hub.log();
        let lines = log.lines().filter(|line| line.contains("ERROR"));
        lines.filter(|line| line.contains("two daemons take turns")).count()
    };
    for instance in [ours, ours, theirs] {
        appear(instance, false);
        assert!(!alarm(), "a daemon may have been started again");
    }
    appear(ours, false);
    assert!(alarm(), "{}", TWO_DAEMONS[0]);
    for (instance, again) in [(theirs, false), (theirs, true), (ours, true)] {
        appear(instance, again);
        assert!(alarm(), "{}", TWO_DAEMONS[1]);
    }
    assert_eq!(errors(), 1, "{}", world.federation.hub.log());

    world.attack(TWO_DAEMONS[2], UNEXPECTED, 1, async |world| {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_only_hello(hello(vec![])).await;
        control.send(&Control::Heartbeat { now_ms: 0 }).await;
        peer.closed().await
    });
    world.attack(TWO_DAEMONS[3], UNEXPECTED, 1, async |world| {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_hello_as(ours, hello(vec![])).await;
        control.send(&Control::Report(Report { instance: theirs, ..world.report() })).await;
        peer.closed().await
    });
    reports_without_end(&mut world);

    // To be let in anew ends it.
    world.federation.hub.cli(&["revoke", HOSTILE]).expect_code(0);
    let token =
        world.federation.invite(HOSTILE, &["--address", &world.federation.address().to_string()]);
    let dir = world.federation.dir().join(HOSTILE);
    Node::new(HOSTILE, &dir).cli(&["join", &token]).expect_code(0);
    let mut hostile = Node::new(HOSTILE, &dir);
    hostile.start();
    wait_until("the alarm is over", || world.federation.hub.alarms().is_empty());
    hostile.stop();
    world.finish();
}

/// Each would be written to the hub's disk.
fn reports_without_end(world: &mut World) {
    let written = |world: &World| {
        let path = world.federation.hub.dir().join("certs/members.json");
        let seen: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        seen[HOSTILE]["roots"].clone()
    };
    world.block_on(async {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_hello(hello(vec![])).await;
        for n in 0..=255 {
            let roots = vec![Checksum([n; 32])];
            control.send(&Control::Report(Report { roots, ..world.report() })).await;
        }
        control.send(&Control::Hello(hello(vec![]))).await;
        assert_eq!(peer.closed().await, UNEXPECTED);
    });
    let last = written(world);
    assert_ne!(last, serde_json::json!([Checksum([255; 32])]), "{}", TWO_DAEMONS[4]);
    world.check_service();
}
