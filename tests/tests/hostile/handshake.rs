//! Certificates and protocols that a hub does not let in.

use certs::tls::{ALPN, ALPN_JOIN};
use protocol::message::{CloseCode, Open};
use time::Duration;

use crate::{
    peer::{Dial, End},
    world::{FEDERATION, HOSTILE, World, hello, identity_in, issue, other_authority},
};

/// TLS alerts, RFC 8446, section 6.2.
const CERTIFICATE_EXPIRED: End = End::Alert(45);
const DECRYPT_ERROR: End = End::Alert(51);
const UNKNOWN_CA: End = End::Alert(48);
const NO_APPLICATION_PROTOCOL: End = End::Alert(120);
const NOT_A_MEMBER: End = End::Code(CloseCode::NotAMember);

#[test]
fn a_connection_without_the_right_certificate_ends_before_its_first_word() {
    let mut world = World::new();
    let day = Duration::days(1);
    let foreign = |federation| {
        let dir = tempfile::tempdir().unwrap();
        let identity = identity_in(federation, HOSTILE);
        issue(&other_authority(dir.path(), federation), identity, Duration::ZERO, day)
    };
    let expired = world.issue(HOSTILE, Duration::minutes(4), Duration::minutes(1));
    let stranger = world.issue("419999", Duration::ZERO, day);

    let dial = world.dial();
    let showing = |shown| Dial { shown: Some(shown), ..world.dial() };
    let attacks = [
        ("another root of the same name", showing(foreign(FEDERATION)), DECRYPT_ERROR),
        ("another federation's root", showing(foreign("other-city")), UNKNOWN_CA),
        ("an expired certificate", showing(expired), CERTIFICATE_EXPIRED),
        ("a certificate of no member", showing(stranger), NOT_A_MEMBER),
        ("no certificate", Dial { anonymous: true, alpn: ALPN, ..dial.clone() }, NOT_A_MEMBER),
        ("an unknown protocol", Dial { alpn: b"h3", ..dial.clone() }, NO_APPLICATION_PROTOCOL),
    ];
    for (what, dial, expected) in attacks {
        world.attack(what, expected, 0, async |_| dial.refused().await);
    }
    let log = world.federation.hub.log();
    assert!(log.matches("a connection was refused").count() >= 3, "{log}");
    world.finish();
}

#[test]
fn the_protocol_of_enrolment_is_good_for_enrolment_only() {
    let mut world = World::new();
    let joining = Dial { alpn: ALPN_JOIN, ..world.dial() };
    // A member's certificate makes no difference there.
    for anonymous in [false, true] {
        let dial = Dial { anonymous, ..joining.clone() };
        let what = format!("a hello to enrolment, anonymous: {anonymous}");
        world.attack(&what, End::Code(CloseCode::Normal), 0, async |_| {
            let peer = dial.connect().await.expect("whoever joins has no certificate yet");
            peer.open().await.send(&Open::Control(hello(vec![]))).await;
            peer.closed().await
        });
    }
    world.attack("a request of 1 MiB", End::Code(CloseCode::Normal), 0, async |_| {
        let peer = joining.connect().await.unwrap();
        let mut stream = peer.open().await;
        stream.send_raw(&(1u32 << 20).to_be_bytes()).await;
        peer.closed().await
    });
    world.attack("a request that is cut off", End::Code(CloseCode::Normal), 0, async |_| {
        let peer = joining.connect().await.unwrap();
        let mut stream = peer.open().await;
        stream.send_raw(&[0, 0, 1, 0, 5]).await;
        stream.finish();
        peer.closed().await
    });
    world.finish();
}
