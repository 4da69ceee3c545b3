//! A member that breaks the rules of the control stream loses its connection.

use harness::{
    federation::HUB,
    node::{Node, wait_until},
    table::Table,
};
use protocol::{
    codec,
    history::SEQ_LIMIT,
    id::PartitionId,
    message::{CloseCode, Control, Hello, Open},
    suite::Suite,
};

use crate::{
    peer::{End, Peer},
    world::{HONEST, HOSTILE, World, claim, hello, partition},
};

/// What a frame of control may not be, by the code that it is answered with.
fn first_frames() -> Vec<(&'static str, Vec<u8>, CloseCode)> {
    let claiming = |partition: PartitionId| hello(vec![claim(partition)]);
    let open = |hello: Hello| codec::encode(&Open::Control(hello));
    let foreign = PartitionId::parse_full(&format!("other-city/enterprise/{HOSTILE}/*")).unwrap();
    let own = claim(partition(&format!("enterprise/{HOSTILE}")));
    let many = hello(vec![own; 10_001]);
    let versions = Hello { versions: vec![99, 2], ..hello(vec![]) };
    let suite = Suite::Artificial;
    let mut head = claim(partition(&format!("enterprise/{HOSTILE}")));
    (head.position.hash, head.root) = (suite.repeated(1), suite.repeated(2));
    let of_other_suite = Hello { suite: suite.number(), ..hello(vec![head]) };
    let follow = Open::Follow { partition: partition(&format!("_federation/{HUB}")), have: None };
    let mut left_over = open(hello(vec![]));
    left_over.push(0);
    vec![
        ("no common version", open(versions), CloseCode::Version),
        ("another suite", open(Hello { suite: 240, ..hello(vec![]) }), CloseCode::Version),
        // Hashes of it nobody can read here.
        ("heads of another suite", open(of_other_suite), CloseCode::Version),
        (
            "another county's partition",
            open(claiming(partition(&format!("enterprise/{HONEST}")))),
            CloseCode::NotEntitled,
        ),
        (
            "a view for somebody else",
            open(claiming(partition(&format!("enterprise/{HOSTILE}/{HONEST}")))),
            CloseCode::NotEntitled,
        ),
        ("another federation", open(claiming(foreign)), CloseCode::NotEntitled),
        (
            "a _federation of its own",
            open(claiming(partition(&format!("_federation/{HOSTILE}")))),
            CloseCode::NotEntitled,
        ),
        ("10 001 heads", open(many), CloseCode::Malformed),
        (
            "a build text of 65 bytes",
            open(Hello { build: "x".repeat(65), ..hello(vec![]) }),
            CloseCode::Malformed,
        ),
        ("a follow request", codec::encode(&follow), CloseCode::Unexpected),
        ("a heartbeat", codec::encode(&Control::Heartbeat { now_ms: 0 }), CloseCode::Malformed),
        ("an empty frame", vec![], CloseCode::Malformed),
        ("an unknown kind", vec![250], CloseCode::Malformed),
        ("bytes behind the hello", left_over, CloseCode::Malformed),
        ("noise", (0..200u8).map(|n| n.wrapping_mul(151) ^ 0x5a).collect(), CloseCode::Malformed),
        // A list of 2^60 versions in ten bytes.
        ("an endless list", vec![0, 1, 253, 0x10, 0, 0, 0, 0, 0, 0, 0], CloseCode::Malformed),
    ]
}

#[test]
fn a_first_frame_that_is_no_honest_hello_costs_the_connection() {
    let mut world = World::new();
    for (what, body, code) in first_frames() {
        world.attack(what, End::Code(code), 1, async |world| {
            let peer = world.connect().await;
            let mut stream = peer.open().await;
            stream.send_body(&body).await;
            peer.closed().await
        });
    }
    for (what, bytes, finish) in [
        ("a length of 4 GiB", &[0xff; 4][..], false),
        ("a length of 16 MiB and 1", &[1, 0, 0, 1], false),
        ("a frame that is cut off", &[0, 0, 0, 9, 1, 2, 3], true),
        ("a length that is cut off", &[0, 0], true),
    ] {
        world.attack(what, End::Code(CloseCode::Malformed), 1, async |world| {
            let peer = world.connect().await;
            let mut stream = peer.open().await;
            stream.send_raw(bytes).await;
            if finish {
                stream.finish();
            }
            peer.closed().await
        });
    }
    world.finish();
}

#[test]
fn a_clock_that_says_anything_is_only_wrong() {
    let mut world = World::new();
    for now_ms in [i64::MIN, i64::MIN + 1, i64::MAX] {
        world.attack("a clock", End::Code(CloseCode::Normal), 0, async |world| {
            let peer = world.connect().await;
            let (mut control, _) = peer.say_hello(Hello { now_ms, ..hello(vec![]) }).await;
            let hub = &world.federation.hub;
            wait_until("the hub says that it is wrong", || {
                let ahead_s = hub.peer(HOSTILE)["clock_ahead_s"].as_i64();
                ahead_s.is_some_and(|ahead_s| ahead_s.signum() == now_ms.signum())
                    && hub.log().contains("the peer's clock is ")
            });
            control.finish();
            peer.closed().await
        });
    }
    world.finish();
}

#[test]
fn a_later_frame_that_has_no_place_costs_the_connection() {
    let mut world = World::new();
    let stranger = claim(partition(&format!("enterprise/{HONEST}")));
    let own = claim(partition(&format!("enterprise/{HOSTILE}")));
    for (what, body, code) in [
        ("a second hello", codec::encode(&Control::Hello(hello(vec![]))), CloseCode::Unexpected),
        (
            "an announcement of another county's",
            codec::encode(&Control::Announce(vec![stranger])),
            CloseCode::NotEntitled,
        ),
        (
            "an announcement of 10 001 heads",
            codec::encode(&Control::Announce(vec![own; 10_001])),
            CloseCode::Malformed,
        ),
        ("noise", vec![9; 99], CloseCode::Malformed),
    ] {
        world.attack(what, End::Code(code), 1, async |world| {
            let peer = world.connect().await;
            let (mut control, _) = peer.say_hello(hello(vec![])).await;
            control.send_body(&body).await;
            peer.closed().await
        });
    }
    world.attack("the control stream ends", End::Code(CloseCode::Normal), 0, async |world| {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_hello(hello(vec![])).await;
        control.finish();
        peer.closed().await
    });
    world.attack("a second connection", End::Code(CloseCode::Replaced), 0, async |world| {
        let first: Peer = world.connect().await;
        let (mut control, _) = first.say_hello(hello(vec![])).await;
        // What follows the hub's hello is sent once the connection counts: before,
        // the second one could count first, and be replaced.
        let _: Control = control.receive().await.expect("the hub's statement or anchor");
        let second = world.connect().await;
        let (_control, _) = second.say_hello(hello(vec![])).await;
        first.closed().await
    });
    world.finish();
}

#[test]
fn a_member_that_claims_more_of_the_hubs_history_does_not_stop_the_hub() {
    let world = World::new();
    let more = |name: &str| {
        let mut head = claim(partition(&format!("{name}/{HUB}")));
        head.position.seq = SEQ_LIMIT - 1;
        head
    };
    let heads = vec![more("_federation"), more("enterprise"), more("no-such-dataset")];
    let (peer, control) = world.block_on(async {
        let peer = world.connect().await;
        let control = peer.say_hello(hello(heads)).await;
        (peer, control)
    });
    // The hub still writes its own data, and lets others in.
    let row = Table::synthetic(9, 0..1, "市");
    let report =
        world.federation.hub.import("enterprise", &row.write(world.federation.dir(), "own.csv"));
    assert_eq!(report["inserted"], 1, "{report}");
    let dir = world.federation.dir().join("newcomer");
    let address = world.federation.address().to_string();
    let token = world.federation.invite("410199", &["--address", &address]);
    Node::new("410199", &dir).cli(&["join", &token]).expect_code(0);
    drop((peer, control));
    world.finish();
}
