//! Intrusions by certificate: what a dialler shows, and how the hub ends it.
//!
//! None of them is counted as misbehaviour: nothing that an impostor does may
//! count against the member whose name it uses.

use std::sync::Arc;

use certs::{
    authority::{CaRole, NodeKey},
    credentials::Credentials,
    keyfile::KeyDir,
    tls::ALPN,
};
use harness::{federation::HUB, node::wait_until};
use protocol::message::CloseCode;
use rcgen::ExtendedKeyUsagePurpose;
use time::Duration;

use crate::{
    mint::{Leaf, in_other_bytes, pair_of, with_chain, with_key},
    peer::{Dial, End},
    world::{FEDERATION, HONEST, HOSTILE, World, identity, identity_in, issue, other_authority},
};

/// TLS alerts, RFC 8446, section 6.2.
const UNSUPPORTED_CERTIFICATE: End = End::Alert(43);
const CERTIFICATE_UNKNOWN: End = End::Alert(46);
const CERTIFICATE_EXPIRED: End = End::Alert(45);
const UNKNOWN_CA: End = End::Alert(48);
const DECRYPT_ERROR: End = End::Alert(51);
/// The hub's own answers, before it says a word of the protocol.
const NOT_A_MEMBER: End = End::Code(CloseCode::NotAMember);
const REVOKED: End = End::Code(CloseCode::Revoked);
const CERTIFICATE_ENDED: End = End::Code(CloseCode::CertificateEnded);

type Row = (&'static str, fn(&World) -> Dial, End);

/// A member that was revoked, and one that was removed.
const REVOKED_NODE: &str = "410183";
const REMOVED_NODE: &str = "410184";

const SHOWN: &[Row] = &[
    // Who signed it.
    ("no certificate", |world| Dial { anonymous: true, alpn: ALPN, ..world.dial() }, NOT_A_MEMBER),
    ("another root of the same name", |world| show(world, foreign(FEDERATION)), DECRYPT_ERROR),
    ("another federation's root", |world| show(world, foreign("other-city")), UNKNOWN_CA),
    ("self-signed", |world| show(world, leaf(|_| {}).self_signed(world)), UNKNOWN_CA),
    ("signed by a member", |world| show(world, by_a_member(world)), CERTIFICATE_UNKNOWN),
    ("the issuing CA itself", |world| show(world, the_ca_itself(world)), CERTIFICATE_UNKNOWN),
    // When.
    (
        "expired",
        |world| show(world, world.issue(HOSTILE, Duration::minutes(4), Duration::minutes(1))),
        CERTIFICATE_EXPIRED,
    ),
    (
        "not yet valid",
        |world| show(world, leaf(|l| l.begins_in = Duration::hours(1)).issued(world, 1)),
        CERTIFICATE_EXPIRED,
    ),
    // Whose it is.
    ("of nobody", |world| show(world, world.issue("419999", Duration::ZERO, DAY)), NOT_A_MEMBER),
    ("of another federation", |world| show(world, of_another_federation(world)), NOT_A_MEMBER),
    ("the hub's own", |world| show(world, of_node(world, HUB)), NOT_A_MEMBER),
    ("another member's, without its key", |world| show(world, stolen_chain(world)), DECRYPT_ERROR),
    ("of a revoked node", |world| show(world, of_node(world, REVOKED_NODE)), REVOKED),
    (
        "issued to a revoked node later",
        |world| show(world, world.issue(REVOKED_NODE, Duration::ZERO, DAY)),
        REVOKED,
    ),
    ("of a removed node", |world| show(world, of_node(world, REMOVED_NODE)), NOT_A_MEMBER),
    // What it is for.
    (
        "for servers only",
        |world| show(world, leaf(|l| l.usages.truncate(1)).issued(world, 1)),
        UNSUPPORTED_CERTIFICATE,
    ),
    (
        "for mail only",
        |world| show(world, leaf(|l| l.usages = vec![MAIL]).issued(world, 1)),
        UNSUPPORTED_CERTIFICATE,
    ),
    // Its names.
    ("without a URI", |world| show(world, leaf(|l| l.uris.clear()).issued(world, 1)), NOT_A_MEMBER),
    (
        "without a DNS name",
        |world| show(world, leaf(|l| l.dns_names.clear()).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    (
        "a URI of the one and a DNS name of the other",
        |world| show(world, leaf(|l| l.uris = vec![identity(HONEST).uri()]).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    (
        "two URIs",
        |world| show(world, leaf(|l| l.uris.push(identity(HONEST).uri())).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    (
        "the hub's DNS name too",
        |world| show(world, leaf(|l| l.dns_names.push(identity(HUB).dns_name())).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    (
        "a wildcard too",
        |world| show(world, leaf(|l| l.dns_names.push(wildcard())).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    (
        "a wildcard alone",
        |world| show(world, leaf(|l| l.dns_names = vec![wildcard()]).issued(world, 1)),
        NOT_A_MEMBER,
    ),
    // What stands behind it.
    ("its issuer left out", |world| show(world, chain(world, &[0])), UNKNOWN_CA),
    ("another CA second", |world| show(world, another_ca_second(world)), NOT_A_MEMBER),
];

/// After the issuing CA was rotated. What the old one issued is refused however
/// it is shown.
const RETIRED: &[Row] = &[
    ("issued by a retired CA", |world| show(world, chain(world, &[0, 1])), CERTIFICATE_ENDED),
    (
        "signed with a retired CA's key just now",
        |world| show(world, retired_now(world)),
        CERTIFICATE_ENDED,
    ),
    (
        "a retired CA's certificate in other bytes",
        |world| {
            let mut chain = world.credentials.chain.clone();
            chain[1] = in_other_bytes(&chain[1]);
            show(world, with_chain(&world.credentials, chain))
        },
        CERTIFICATE_ENDED,
    ),
    (
        "a retired CA behind the present one",
        |world| show(world, retired_behind(world)),
        NOT_A_MEMBER,
    ),
    ("a retired CA left out", |world| show(world, chain(world, &[0])), UNKNOWN_CA),
];

pub const ROWS: usize = SHOWN.len() + RETIRED.len() + SERIAL.len();

/// One certificate of a member that may go on with another, and the number by
/// which it is revoked.
const SERIAL: &[(&str, fn(&World) -> Arc<Credentials>, fn(&Credentials) -> String)] = &[
    (
        "a certificate whose serial number was revoked",
        |world| world.issue(HOSTILE, Duration::ZERO, DAY),
        |shown| shown.facts().unwrap().serial_hex,
    ),
    (
        "a serial number whose first bit is set, as openssl prints it",
        |world| leaf(|leaf| leaf.serial = Some(vec![0x9a, 0x0b, 0x0c])).issued(world, 1),
        |_| "9A0B0C".to_owned(),
    ),
];

const DAY: Duration = Duration::days(1);
const MAIL: ExtendedKeyUsagePurpose = ExtendedKeyUsagePurpose::EmailProtection;

#[test]
fn certificates_that_do_not_fit_are_refused_before_the_first_word() {
    let mut world = World::new();
    let [revoked, removed] = [REVOKED_NODE, REMOVED_NODE].map(|node| world.join(node));
    world.federation.hub.cli(&["revoke", revoked.name()]).expect_code(0);
    world.federation.hub.cli(&["node", "remove", removed.name(), "--force"]).expect_code(0);
    attack_all(&mut world, SHOWN);

    for (what, shown, serial) in SERIAL {
        let shown = shown(&world);
        let serial = serial(&shown);
        world.federation.hub.cli(&["revoke", HOSTILE, "--serial", &serial]).expect_code(0);
        let dial = show(&world, shown);
        world.attack(what, REVOKED, 0, async |_| dial.refused().await);
    }
    // The other one counts as before.
    world.block_on(async {
        drop(world.connect().await.say_hello(crate::world::hello(vec![])).await)
    });

    steal_the_issuing_key(&world);
    for step in ["prepared", "activated", "retired"] {
        if step == "retired" {
            wait_until("the honest county has renewed", || {
                let county = world.federation.counties[0].status();
                county["certificates"][0]["issuer"].as_str().is_some_and(|name| name.ends_with('2'))
            });
        }
        let done = world.federation.hub.json(&["ca", "rotate", "--force", "--yes"]);
        assert_eq!(done["step"], step, "{done}");
    }
    attack_all(&mut world, RETIRED);
    world.finish();
}

#[test]
fn a_connection_lasts_no_longer_than_its_certificate() {
    let mut world = World::new();
    let dial = show(&world, world.issue(HOSTILE, Duration::minutes(1), Duration::seconds(64)));
    world.attack("a certificate that ends", CERTIFICATE_ENDED, 0, async |_| {
        let peer = dial.connect().await.expect("it still counts");
        let (_control, _) = peer.say_hello(crate::world::hello(vec![])).await;
        peer.closed().await
    });
    world.finish();
}

fn attack_all(world: &mut World, table: &[Row]) {
    for (what, dial, expected) in table {
        let dial = dial(world);
        world.attack(what, *expected, 0, async |_| dial.refused().await);
    }
}

fn show(world: &World, shown: Arc<Credentials>) -> Dial {
    Dial { shown: Some(shown), ..world.dial() }
}

/// The hostile member's, altered.
fn leaf(alter: impl FnOnce(&mut Leaf)) -> Leaf {
    Leaf::altered(identity(HOSTILE), alter)
}

fn wildcard() -> String {
    format!("*.{FEDERATION}.creditsync.internal")
}

/// The hostile member's chain, of these certificates.
fn chain(world: &World, order: &[usize]) -> Arc<Credentials> {
    let of = &world.credentials;
    with_chain(of, order.iter().map(|at| of.chain[*at].clone()).collect())
}

/// A right certificate for the hostile member, by another federation's CA.
fn foreign(federation: &str) -> Arc<Credentials> {
    let dir = tempfile::tempdir().unwrap();
    let identity = identity_in(federation, HOSTILE);
    issue(&other_authority(dir.path(), federation), identity, Duration::ZERO, DAY)
}

/// Our CA's certificate for a node of another federation.
fn of_another_federation(world: &World) -> Arc<Credentials> {
    Leaf::of(identity_in("other-city", HOSTILE)).issued(world, 1)
}

/// What a node has in its directory.
fn of_node(world: &World, node: &str) -> Arc<Credentials> {
    let dir = if node == HUB { "hub" } else { node };
    let dir = world.federation.dir().join(dir);
    let keys = KeyDir::new(dir.join("keys"), None);
    Arc::new(Credentials::load(&dir.join("certs"), &keys, &identity(node)).unwrap())
}

/// What everybody sees who talks to the honest county.
fn stolen_chain(world: &World) -> Arc<Credentials> {
    with_key(&of_node(world, HONEST), &world.credentials)
}

/// The hostile member plays CA, for the honest county's name.
fn by_a_member(world: &World) -> Arc<Credentials> {
    let own = &world.credentials;
    Leaf::of(identity(HONEST)).signed(world, &own.chain, &pair_of(&own.key))
}

fn the_ca_itself(world: &World) -> Arc<Credentials> {
    let dirs = world.hub_dirs();
    let key: NodeKey = dirs.keys.load(&CaRole::Issuing.key_file(1)).unwrap();
    Arc::new(Credentials {
        chain: vec![dirs.issuing(1).unwrap()],
        key: key.private_key(),
        roots: world.credentials.roots.clone(),
        identity: identity(HOSTILE),
    })
}

/// A CA that has nothing to do with it stands where the issuer should.
fn another_ca_second(world: &World) -> Arc<Credentials> {
    let dir = tempfile::tempdir().unwrap();
    let other = other_authority(dir.path(), "other-city");
    let [leaf, issuing] = &world.credentials.chain[..] else { panic!("there are two") };
    let chain = vec![leaf.clone(), other.root().clone(), issuing.clone()];
    with_chain(&world.credentials, chain)
}

fn retired_behind(world: &World) -> Arc<Credentials> {
    let present = world.hub_dirs().issuing(2).unwrap();
    let [leaf, retired] = &world.credentials.chain[..] else { panic!("there are two") };
    with_chain(&world.credentials, vec![leaf.clone(), present, retired.clone()])
}

/// By a thief of the retired CA's key, which the hub itself has deleted.
fn retired_now(world: &World) -> Arc<Credentials> {
    let key: NodeKey = stolen_keys(world).load(&CaRole::Issuing.key_file(1)).unwrap();
    let retired = world.hub_dirs().issuing(1).unwrap();
    leaf(|_| {}).signed(world, &[retired], &pair_of(&key.private_key()))
}

fn stolen_keys(world: &World) -> KeyDir {
    KeyDir::new(world.federation.dir().join("stolen"), None)
}

/// While it is still in use.
fn steal_the_issuing_key(world: &World) {
    let (file, stolen) = (CaRole::Issuing.key_file(1), stolen_keys(world));
    stolen.create().unwrap();
    std::fs::copy(world.hub_dirs().keys.file(&file), stolen.file(&file)).unwrap();
}
