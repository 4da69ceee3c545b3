//! Intrusions into a member, by a hub that is not its own, or is not what it was:
//! what it shows, what it says about trust, and which `_federation` it has.

use std::sync::Arc;

use certs::{authority::ROOT_LIFETIME, credentials::Credentials, enrol::Anchor};
use harness::{
    federation::{Federation, HUB},
    node::{Node, wait_until},
};
use protocol::{
    change::{Header, Position},
    federation::{CaKind, CaRecord, CaState, Entry, Introduction, KeyRecord, Revocation},
    freshness::Statement,
    id::NodeId,
    message::{Announced, CloseCode, Control, FollowReply},
    sign::SigningKey,
    suite::Suite,
};
use rcgen::ExtendedKeyUsagePurpose;
use time::Duration;

use crate::{
    lure::{FalseHub, History, Victim, hub_key, system},
    mint::Leaf,
    peer::End,
    world::{FEDERATION, HOSTILE, World, identity, identity_in, issue, other_authority},
};

/// TLS alerts, RFC 8446, section 6.2, of the member that dials.
const BAD_CERTIFICATE: End = End::Alert(42);
const UNSUPPORTED_CERTIFICATE: End = End::Alert(43);
const CERTIFICATE_EXPIRED: End = End::Alert(45);
const UNKNOWN_CA: End = End::Alert(48);
const DECRYPT_ERROR: End = End::Alert(51);
const NOT_A_MEMBER: End = End::Code(CloseCode::NotAMember);

/// What somebody shows who wants to be taken for the hub.
const SHOWN: &[(&str, fn(&World) -> Arc<Credentials>, End)] = &[
    ("a member's certificate", |world| world.credentials.clone(), BAD_CERTIFICATE),
    ("another hub's", |world| world.issue("410000", Duration::ZERO, DAY), BAD_CERTIFICATE),
    ("self-signed", |world| hub(|_| {}).self_signed(world), UNKNOWN_CA),
    ("of another federation", |_| foreign("other-city"), UNKNOWN_CA),
    ("by another root of the same name", |_| foreign(FEDERATION), DECRYPT_ERROR),
    (
        "expired",
        |world| world.issue(HUB, Duration::minutes(4), Duration::minutes(1)),
        CERTIFICATE_EXPIRED,
    ),
    (
        "not yet valid",
        |world| hub(|leaf| leaf.begins_in = Duration::hours(1)).issued(world, 1),
        CERTIFICATE_EXPIRED,
    ),
    (
        "for clients only",
        |world| hub(|leaf| leaf.usages = vec![CLIENTS]).issued(world, 1),
        UNSUPPORTED_CERTIFICATE,
    ),
    (
        "a wildcard",
        |world| hub(|leaf| leaf.dns_names = vec![wildcard()]).issued(world, 1),
        NOT_A_MEMBER,
    ),
    (
        "a member's with the hub's DNS name",
        |world| {
            let names = [identity(HOSTILE).dns_name(), identity(HUB).dns_name()];
            Leaf::altered(identity(HOSTILE), |leaf| leaf.dns_names = names.into()).issued(world, 1)
        },
        NOT_A_MEMBER,
    ),
    (
        "two URIs",
        |world| hub(|leaf| leaf.uris.push(identity(HOSTILE).uri())).issued(world, 1),
        NOT_A_MEMBER,
    ),
    ("without a URI", |world| hub(|leaf| leaf.uris.clear()).issued(world, 1), NOT_A_MEMBER),
];

/// What becomes of what a hub says.
#[derive(Debug, PartialEq, Eq)]
enum Heed {
    /// Nothing changes, no line at ERROR.
    Ignored,
    /// Nothing changes, and an ERROR with these words is logged once.
    Refused(&'static str),
    /// The hub counts as heard, by this machine's clock at most.
    Heard,
    /// An alarm with these words.
    Alarm(&'static str),
}

type Saying = (&'static str, fn(&Scene) -> Vec<u8>, Heed);

/// Statements of freshness. The false hub has the real one's certificate, and in
/// the last rows its signing key too.
const STATEMENTS: &[Saying] = &[
    ("noise", |_| vec![7; 300], Heed::Ignored),
    (
        "signed by a member",
        |scene| scene.state(scene.history.head, &scene.member_key),
        Heed::Ignored,
    ),
    (
        "altered",
        |scene| {
            let mut statement = scene.state(scene.history.head, &scene.hub_key);
            *statement.last_mut().unwrap() ^= 1;
            statement
        },
        Heed::Ignored,
    ),
    (
        "with an altered time",
        |scene| {
            let mut statement = scene.state(scene.history.head, &scene.hub_key);
            let at = statement.len() - 33;
            statement[at] ^= 1;
            statement
        },
        Heed::Ignored,
    ),
    ("from last year", |scene| scene.stated_at(now_ms() - YEAR_MS), Heed::Ignored),
    ("from next year", |scene| scene.stated_at(now_ms() + YEAR_MS), Heed::Heard),
    (
        "for an older head",
        |scene| scene.state(scene.history.at(scene.history.head.seq - 1), &scene.hub_key),
        Heed::Alarm("older _federation"),
    ),
    (
        "for another head",
        |scene| {
            let other = Position { hash: Suite::One.repeated(9), ..scene.history.head };
            scene.state(other, &scene.hub_key)
        },
        Heed::Alarm("another _federation"),
    ),
];

/// Anchors, by somebody who has everything but the root's key.
const ANCHORS: &[Saying] = &[
    ("an anchor that is noise", |_| vec![7; 200], Heed::Refused("anchor is refused")),
    (
        "an anchor that another root signed",
        |scene| scene.anchor(FEDERATION).encode(),
        Heed::Refused("anchor is refused"),
    ),
    (
        "an anchor that nobody signed",
        |scene| Anchor { signature: vec![], ..scene.anchor(FEDERATION) }.encode(),
        Heed::Refused("anchor is refused"),
    ),
    ("an anchor of another federation", |scene| scene.anchor("other-city").encode(), Heed::Ignored),
    (
        "an anchor of no higher epoch",
        |scene| {
            Anchor { epoch: 1, base: None, earlier: vec![], ..scene.anchor(FEDERATION) }.encode()
        },
        Heed::Ignored,
    ),
];

type Forged = (&'static str, fn(&Scene) -> FollowReply, CloseCode);

/// A change set that goes on with `_federation`.
const CHANGE_SETS: &[Forged] = &[
    ("signed by an unknown key", |scene| scene.go_on(&key(5), |_| {}), CloseCode::Forged),
    ("signed by a member", |scene| scene.go_on(&scene.member_key, |_| {}), CloseCode::Forged),
    (
        "signed by an unknown key under the hub's id",
        |scene| {
            let id = scene.hub_key.public().id();
            scene.go_on(&key(5), |header| header.key_id = id)
        },
        CloseCode::Forged,
    ),
    (
        "with another root",
        |scene| scene.go_on(&scene.hub_key, |header| header.root = Suite::One.repeated(3)),
        CloseCode::RootMismatch,
    ),
    (
        "that leaves a number out",
        |scene| scene.go_on(&scene.hub_key, |header| header.seq += 1),
        CloseCode::Unexpected,
    ),
    (
        "of another federation",
        |scene| {
            let other =
                protocol::id::PartitionId::parse_full(&format!("other/_federation/{HUB}/*"));
            scene.go_on(&scene.hub_key, |header| header.partition = other.unwrap())
        },
        CloseCode::NotEntitled,
    ),
];

/// By somebody who has all that the real hub has.
const TAKEN_OVER: &[&str] = &[
    "a signing key that the county did not make",
    "that key taken out again",
    "a root that no trusted root vouches for",
    "a second history",
    "an older _federation",
    "a report, which is a member's to send",
];

/// What must not outlast a token that is pasted at a member.
const JOINED_AGAIN: &[&str] = &[
    "a token of another root, to join again",
    "the same with an anchor of a higher epoch",
    "a thief's _federation, and then a new token",
];

pub const ROWS: usize = SHOWN.len()
    + STATEMENTS.len()
    + ANCHORS.len()
    + CHANGE_SETS.len()
    + TAKEN_OVER.len()
    + JOINED_AGAIN.len();

const DAY: Duration = Duration::days(1);
const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
const CLIENTS: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::ClientAuth;
const VICTIM: &str = "410183";

/// What the false hub has to work with.
struct Scene {
    history: History,
    hub_key: SigningKey,
    member_key: SigningKey,
    anchor: Anchor,
}

impl Scene {
    /// As it is when the victim has joined.
    fn new(world: &World) -> Self {
        let anchor = std::fs::read(world.federation.hub.dir().join("certs/anchor")).unwrap();
        Self {
            history: world.block_on(History::of_hub(world)),
            hub_key: hub_key(world),
            member_key: Suite::One.signing_key(&world.key.secret()).unwrap(),
            anchor: Anchor::decode(&anchor).unwrap(),
        }
    }

    /// A statement about this head, as of now.
    fn state(&self, head: Position, key: &SigningKey) -> Vec<u8> {
        Statement::sign(system(), head, now_ms(), key).encode()
    }

    /// A right one but for its time.
    fn stated_at(&self, at_ms: i64) -> Vec<u8> {
        Statement::sign(system(), self.history.head, at_ms, &self.hub_key).encode()
    }

    /// An anchor of the next epoch that a root of no trust signed.
    fn anchor(&self, federation: &str) -> Anchor {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity_in(federation, HUB);
        let unsigned = Anchor {
            federation: identity.federation,
            hub_key: key(5).public(),
            epoch: 2,
            base: Some(self.history.head),
            earlier: vec![self.anchor.hub_key],
            ..self.anchor.clone()
        };
        let authority = other_authority(dir.path(), federation);
        authority.dirs().sign_anchor(1, &unsigned).unwrap()
    }

    /// A change set with one harmless record behind the head.
    fn go_on(&self, key: &SigningKey, alter: impl FnOnce(&mut Header)) -> FollowReply {
        let revocation = Revocation { at_ms: 0, reason: String::new() };
        let record = Entry::Revocation(node(HOSTILE), Some("4a".into()), revocation);
        self.history.clone().go_on(&[record.put().unwrap()], key, alter)
    }

    /// As the hub announces that there is more.
    fn more(&self) -> Vec<Announced> {
        let head = self.history.head;
        vec![History::announced(Position { seq: head.seq + 1, hash: Suite::One.repeated(1) })]
    }
}

#[test]
fn a_member_talks_to_its_own_hub_only() {
    let mut world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    // What was dialled before is over with the first one.
    let Ok(_) = world.block_on(async { Ok::<_, End>(hub.lured(vec![]).await) }) else { panic!() };
    for (what, shown, expected) in SHOWN {
        hub.show(&shown(&world));
        assert_eq!(world.block_on(hub.refused()), *expected, "{what}");
        println!("{what}: {expected:?}");
    }
    assert_eq!(victim.alarms(), [""; 0], "it is not the hub that is wrong");
    drop(victim);
    world.check_service();
    world.finish();
}

#[test]
fn a_hub_is_believed_as_far_as_signatures_go() {
    let mut world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    let scene = Scene::new(&world);
    let as_message: [(&[Saying], fn(Vec<u8>) -> Control); 2] =
        [(ANCHORS, Control::Anchor), (STATEMENTS, Control::Freshness)];
    for (table, message) in as_message {
        for (what, say, expected) in table {
            let (fresh, alarms, errors) = standing(&victim);
            let message = message(say(&scene));
            let end = world.block_on(async { hub.lured(vec![]).await.tell(&message).await });
            assert_eq!(end, End::Code(CloseCode::Unexpected), "{what}");
            let (fresh_after, alarms_after, errors_after) = standing(&victim);
            match expected {
                Heed::Ignored => {
                    assert_eq!((&fresh_after, &alarms_after), (&fresh, &alarms), "{what}");
                    assert_eq!(errors_after, errors, "{what}: {}", victim.node.log());
                }
                Heed::Refused(words) => {
                    assert_eq!((&fresh_after, &alarms_after), (&fresh, &alarms), "{what}");
                    assert_eq!(errors_after, errors + 1, "{what}: {}", victim.node.log());
                    assert!(victim.lines("ERROR", words) > 0, "{what}: {}", victim.node.log());
                }
                Heed::Heard => {
                    let now = now_ms();
                    assert!(fresh < fresh_after && fresh_after <= now, "{what}: {fresh_after}");
                }
                Heed::Alarm(words) => {
                    let is_on = alarms_after.iter().any(|alarm| alarm.contains(words));
                    assert!(is_on, "{what}: {alarms_after:?}");
                    assert_eq!(errors_after, errors + 1, "{what}: {}", victim.node.log());
                    assert_eq!(fresh_after, fresh, "{what}");
                }
            }
            println!("{what}: {expected:?}");
        }
    }
    assert_eq!(victim.node.json(&["cert", "show"])["anchor_epoch"], 1);

    let held = victim.federation();
    for (what, forge, code) in CHANGE_SETS {
        let end = world.block_on(async {
            let lured = hub.lured(scene.more()).await;
            lured.provide(&[forge(&scene)]).await
        });
        assert_eq!(end, Err(End::Code(*code)), "{what}");
        assert_eq!(victim.federation()["head"], held["head"], "{what}: it was kept");
        println!("{what}: {code:?}");
    }
    let end = world.block_on(async {
        let mut lured = hub.lured(vec![]).await;
        lured.control.send(&Control::Report(world.report())).await;
        lured.peer.closed().await
    });
    assert_eq!(end, End::Code(CloseCode::Unexpected), "{}", TAKEN_OVER[5]);

    // It holds more than its hub says there is, and goes on holding it.
    let older = scene.history.at(scene.history.head.seq - 1);
    world.block_on(async {
        let lured = hub.lured(vec![History::announced(older)]).await;
        wait_until(TAKEN_OVER[4], || victim.federation()["state"] == "behind");
        drop(lured);
    });
    assert_eq!(victim.federation()["head"], held["head"], "{}", TAKEN_OVER[4]);
    drop(victim);
    world.check_service();
    world.finish();
}

/// When the hub was heard, what is wrong, and how many errors were logged.
fn standing(victim: &Victim) -> (i64, Vec<String>, usize) {
    let fresh = victim.node.status()["federation_fresh_at"].as_str().unwrap().to_owned();
    let fresh = protocol::moment::from_rfc3339(&fresh).unwrap() * 1000;
    (fresh, victim.alarms(), victim.lines("ERROR", ""))
}

#[test]
fn a_hub_cannot_speak_in_a_members_name_unnoticed() {
    let mut world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let mut scene = Scene::new(&world);
    let row =
        harness::table::Table::synthetic(5, 0..1, "害").write(world.federation.dir(), "v.csv");
    victim.node.import("enterprise", &row);
    let row =
        harness::table::Table::synthetic(5, 1..2, "害").write(world.federation.dir(), "w.csv");
    let is_stopped = |victim: &Victim| {
        assert!(victim.alarms().iter().any(|alarm| alarm.contains("did not make")));
        let import = ["import", "enterprise", harness::node::path_text(&row)];
        victim.node.cli(&import).expect_failure(&["did not make"]);
    };

    let forged = Entry::Key(
        node(VICTIM),
        2,
        KeyRecord::new(&key(5).public(), Introduction::Reenrolment, now_ms()),
    );
    let added = scene.history.put(&forged, &scene.hub_key);
    world.block_on(async {
        assert_eq!(hub.lured(scene.more()).await.provide(&[added]).await, Ok(()));
    });
    wait_until(TAKEN_OVER[0], || !victim.alarms().is_empty());
    is_stopped(&victim);
    assert_eq!(victim.lines("ERROR", "did not make"), 1, "{}", victim.node.log());

    let gone = scene.history.go_on(&[forged.delete().unwrap()], &scene.hub_key, |_| {});
    world.block_on(async {
        assert_eq!(hub.lured(scene.more()).await.provide(&[gone]).await, Ok(()));
    });
    wait_until("that is known too", || victim.federation()["seq"] == scene.history.head.seq);
    is_stopped(&victim);
    victim.node.stop();
    is_stopped(&victim);
    victim.node.start();
    is_stopped(&victim);
    drop(victim);
    world.check_service();
    world.finish();
}

#[test]
fn roots_and_histories_that_nobody_vouches_for_are_not_taken() {
    let mut world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    let mut scene = Scene::new(&world);
    let bundle = || std::fs::read(victim.node.dir().join("certs/root.pem")).unwrap();
    let before = bundle();
    // One alone, and one that another stranger vouches for.
    let dir = tempfile::tempdir().unwrap();
    let strange = other_authority(dir.path(), FEDERATION);
    let (dirs, now) = (strange.dirs(), time::OffsetDateTime::now_utc());
    let federation = identity(HUB).federation;
    let second = dirs.create_root(&federation, 2, now, ROOT_LIFETIME).unwrap();
    let cross = dirs.cross_sign(1, 2, now).unwrap();
    let root = |certificate: &[u8], cross: Option<&[u8]>| CaRecord {
        certificate: protocol::hex::encode(certificate),
        cross: cross.map(protocol::hex::encode),
        root: None,
        state: CaState::Next,
    };
    let alone = Entry::Ca(CaKind::Root, 2, root(strange.root(), None));
    let vouched = Entry::Ca(CaKind::Root, 3, root(&second, Some(&cross)));
    let sets = [alone, vouched].map(|entry| scene.history.put(&entry, &scene.hub_key));
    world.block_on(async {
        assert_eq!(hub.lured(scene.more()).await.provide(&sets).await, Ok(()));
    });
    for number in ["root=2", "root=3"] {
        wait_until(TAKEN_OVER[2], || {
            let log = victim.node.log();
            log.lines().any(|line| {
                line.contains("ERROR") && line.contains("vouches for") && line.contains(number)
            })
        });
    }
    assert_eq!(bundle(), before, "{}", TAKEN_OVER[2]);

    // Of the same number, and signed with the right key.
    let other = scene.go_on(&scene.hub_key, |header| header.seq -= 1);
    let FollowReply::ChangeSet { header, .. } = other else { unreachable!("it is one") };
    let end = world.block_on(async {
        hub.lured(scene.more()).await.provide(&[FollowReply::Fork { header }]).await
    });
    assert_eq!(end, Err(End::Code(CloseCode::Fork)), "{}", TAKEN_OVER[3]);
    wait_until(TAKEN_OVER[3], || victim.federation()["state"] == "quarantined");
    assert_eq!(victim.federation()["seq"], scene.history.head.seq);
    assert!(victim.lines("ERROR", "two signed histories") > 0);
    // Its own records are its own affair.
    let row =
        harness::table::Table::synthetic(5, 0..1, "害").write(world.federation.dir(), "v.csv");
    victim.node.import("enterprise", &row);
    drop(victim);
    world.check_service();
    world.finish();
}

#[test]
fn a_member_that_cannot_join_again_trusts_nobody_new() {
    let mut world = World::new();
    // The same names and another root; this hub would let it in.
    let other = Federation::hub_only();
    let token = other.invite(HOSTILE, &["--address", &other.address().to_string()]);
    let node = Node::new(HOSTILE, &world.federation.dir().join(HOSTILE));
    let files = ["certs/root.pem", "certs/anchor", "certs/node.pem", "keys/node.key"];
    let read = || files.map(|file| std::fs::read(node.dir().join(file)).unwrap());
    let head = || node.partition(&format!("_federation/{HUB}")).unwrap()["head"].clone();
    let (before, head_before) = (read(), head());
    node.cli(&["join", &token]).expect_failure(&["_federation from the hub"]);
    assert_eq!((read(), head()), (before.clone(), head_before.clone()), "{}", JOINED_AGAIN[0]);
    // With an anchor that would count more, had a root of ours signed it.
    other.hub.cli(&["cert", "renew", "--signing-key", "--stolen"]).expect_code(0);
    let token = other.invite(HOSTILE, &["--address", &other.address().to_string()]);
    node.cli(&["join", &token]).expect_failure(&["no root CA that this node trusts"]);
    assert_eq!((read(), head()), (before.clone(), head_before), "{}", JOINED_AGAIN[1]);
    // At its own hub it still can.
    let token =
        world.federation.invite(HOSTILE, &["--address", &world.federation.address().to_string()]);
    node.cli(&["join", &token]).expect_code(0);
    assert_eq!(read()[..2], before[..2]);
    world.check_service();
    world.finish();
}

#[test]
fn a_member_that_a_thief_has_misled_joins_again() {
    let mut world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let scene = Scene::new(&world);
    // The thief has the hub's signing key.
    let stolen = scene.go_on(&scene.hub_key, |_| {});
    world.block_on(async {
        assert_eq!(hub.lured(scene.more()).await.provide(&[stolen]).await, Ok(()));
    });
    victim.node.stop();
    world.federation.hub.cli(&["cert", "renew", "--signing-key", "--stolen"]).expect_code(0);
    let address = world.federation.address().to_string();
    let token = world.federation.invite(VICTIM, &["--address", &address]);
    victim.node.cli(&["join", &token]).expect_code(0);
    assert_eq!(victim.node.json(&["cert", "show"])["anchor_epoch"], 2);
    let theirs = world.federation.hub.partition(&format!("_federation/{HUB}")).unwrap();
    assert_eq!(victim.federation()["head"], theirs["head"], "{}", JOINED_AGAIN[2]);
    drop(victim);
    world.check_service();
    world.finish();
}

fn now_ms() -> i64 {
    i64::try_from(time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap()
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// A signing key that nobody has registered.
fn key(seed: u8) -> SigningKey {
    Suite::One.signing_key(&[seed; 32]).unwrap()
}

/// The hub's leaf, altered.
fn hub(alter: impl FnOnce(&mut Leaf)) -> Leaf {
    Leaf::altered(identity(HUB), alter)
}

fn wildcard() -> String {
    format!("*.{FEDERATION}.creditsync.internal")
}

fn foreign(federation: &str) -> Arc<Credentials> {
    let dir = tempfile::tempdir().unwrap();
    issue(
        &other_authority(dir.path(), federation),
        identity_in(federation, HUB),
        Duration::ZERO,
        DAY,
    )
}
