//! A member that asks for what it may not have, or asks wrongly, loses that
//! stream and keeps its connection.

use harness::federation::HUB;
use protocol::{
    change::{KeyRing, Position},
    codec,
    federation::Registry,
    history::SEQ_LIMIT,
    id::PartitionId,
    message::{
        ASKING_FRAME_BYTES_MAX, CloseCode, FollowReply, FollowRequest, Open, TreeReply,
        TreeRequest, decode_header,
    },
    suite::Suite,
};

use crate::{
    peer::{End, Peer, Stream},
    world::{HONEST, HOSTILE, World, hello, partition},
};

fn federation() -> PartitionId {
    partition(&format!("_federation/{HUB}"))
}

fn follow(partition: PartitionId) -> Open {
    Open::Follow { partition, have: None }
}

/// An attack on a stream of its own; the connection goes on serving.
#[track_caller]
fn attack(
    world: &mut World,
    what: &str,
    code: CloseCode,
    counted: u64,
    attack: impl AsyncFnOnce(&Peer, &mut Stream),
) {
    world.attack(what, End::Code(code), counted, async |world| {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut stream = peer.open().await;
        attack(&peer, &mut stream).await;
        let end = stream.end().await;
        assert!(first_federation_change_set(&peer).await, "{what}: the connection is dead");
        end
    });
}

/// What a member may always have.
async fn first_federation_change_set(peer: &Peer) -> bool {
    let mut stream = peer.open().await;
    stream.send(&follow(federation())).await;
    matches!(stream.receive().await, Ok(FollowReply::ChangeSet { .. }))
}

#[test]
fn partitions_that_a_member_may_not_have_are_refused() {
    let mut world = World::new();
    let other = PartitionId::parse_full(&format!("other-city/_federation/{HUB}/*")).unwrap();
    for (partition, code, counted) in [
        (partition(&format!("enterprise/{HONEST}")), CloseCode::NotEntitled, 1),
        (partition(&format!("enterprise/{HUB}/{HOSTILE}")), CloseCode::NotEntitled, 1),
        (partition(&format!("_federation/{HONEST}")), CloseCode::NotEntitled, 1),
        (other, CloseCode::NotEntitled, 1),
        (partition(&format!("enterprise/{HUB}")), CloseCode::UnknownPartition, 0),
        (partition(&format!("enterprise/{HOSTILE}")), CloseCode::UnknownPartition, 0),
    ] {
        for open in
            [follow(partition.clone()), Open::Tree { partition: partition.clone(), have: None }]
        {
            attack(&mut world, &format!("{open:?}"), code, counted, async |_, stream| {
                stream.send(&open).await;
            });
        }
    }
    attack(&mut world, "a second hello", CloseCode::Unexpected, 1, async |_, stream| {
        stream.send(&Open::Control(hello(vec![]))).await;
    });
    attack(&mut world, "noise", CloseCode::Malformed, 1, async |_, stream| {
        stream.send_body(&[0x77; 40]).await;
    });
    attack(&mut world, "a frame too long", CloseCode::Malformed, 1, async |_, stream| {
        stream.send_raw(&(ASKING_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await;
    });
    attack(&mut world, "a partition of three parts", CloseCode::Malformed, 1, async |_, stream| {
        stream.send(&(2u32, format!("test-city/_federation/{HUB}"))).await;
    });
    world.finish();
}

#[test]
fn acknowledgements_and_positions_that_are_lies_gain_nothing() {
    let mut world = World::new();
    let lie = Position { seq: 1, hash: Suite::One.repeated(9) };
    attack(&mut world, "an ack out of the blue", CloseCode::Unexpected, 1, async |_, stream| {
        stream.send(&follow(federation())).await;
        let ack = FollowRequest::Ack { position: lie, root: Suite::One.repeated(9) };
        stream.send(&ack).await;
    });
    attack(&mut world, "an ack with another root", CloseCode::Unexpected, 1, async |_, stream| {
        stream.send(&follow(federation())).await;
        let Ok(FollowReply::ChangeSet { header, .. }) = stream.receive().await else {
            panic!("a member may have _federation");
        };
        let position = decode_header(&header).unwrap().position();
        stream.send(&FollowRequest::Ack { position, root: Suite::One.repeated(9) }).await;
    });
    let acked = |world: &World| {
        let federation = world.federation.hub.partition(&format!("_federation/{HUB}")).unwrap();
        let acked = federation["acked"].as_array().unwrap().clone();
        acked.iter().any(|ack| ack["node"] == HOSTILE)
    };
    assert!(!acked(&world), "nothing was acknowledged");

    // Another history than the hub's is answered with the hub's signed header.
    world.attack("another history", End::Finished, 0, async |world| {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut stream = peer.open().await;
        stream.send(&Open::Follow { partition: federation(), have: Some(lie) }).await;
        let Ok(FollowReply::Fork { header }) = stream.receive().await else {
            panic!("the hub has a header of that number");
        };
        let header = decode_header(&header).unwrap();
        assert_eq!((header.header().seq, header.header().partition.clone()), (1, federation()));
        header.verify(&hub_keys(world)).unwrap();
        stream.end().await
    });
    // A position in the far future waits for that future.
    world.attack("a far future", End::Code(CloseCode::Unexpected), 1, async |world| {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut stream = peer.open().await;
        let have = Some(Position { seq: SEQ_LIMIT - 1, hash: Suite::One.repeated(9) });
        stream.send(&Open::Follow { partition: federation(), have }).await;
        stream.send(&FollowRequest::Ack { position: lie, root: Suite::One.repeated(9) }).await;
        stream.end().await
    });
    world.finish();
}

/// The hub's key, from the anchor that the hostile member was given.
fn hub_keys(world: &World) -> impl KeyRing + use<> {
    let anchor = std::fs::read(world.federation.dir().join(HOSTILE).join("certs/anchor")).unwrap();
    let anchor = certs::enrol::Anchor::decode(&anchor).unwrap();
    Registry::new(anchor.anchored())
}

#[test]
fn wrong_requests_for_pages_are_refused() {
    let mut world = World::new();
    let pages = |level, keys| codec::encode(&TreeRequest::Pages { level, keys });
    for (what, request, code) in [
        ("an absent key", pages(0, vec![b"absent".to_vec()]), CloseCode::Unexpected),
        ("an absent level", pages(200, vec![vec![]]), CloseCode::Unexpected),
        ("the level above the root", pages(1, vec![vec![]]), CloseCode::Unexpected),
        ("where a store has patches", pages(128, vec![vec![]]), CloseCode::Unexpected),
        ("where a store has indexes", pages(129, vec![vec![]]), CloseCode::Unexpected),
        ("257 keys", pages(0, vec![vec![]; 257]), CloseCode::Malformed),
        ("a key of 1025 bytes", pages(0, vec![vec![1; 1025]]), CloseCode::Malformed),
        ("noise", vec![3; 10], CloseCode::Malformed),
    ] {
        attack(&mut world, what, code, 1, async |_, stream| {
            stream.send(&Open::Tree { partition: federation(), have: None }).await;
            let head: Result<TreeReply, _> = stream.receive().await;
            assert!(matches!(head, Ok(TreeReply::Head { .. })), "{head:?}");
            stream.send_body(&request).await;
        });
    }
    let partitions = world.hub_partitions();
    attack(&mut world, "a fifth tree at once", CloseCode::Unexpected, 1, async |peer, stream| {
        let mut trees = Vec::new();
        for partition in partitions.clone() {
            let mut tree = peer.open().await;
            tree.send(&Open::Tree { partition, have: None }).await;
            let head: Result<TreeReply, _> = tree.receive().await;
            assert!(matches!(head, Ok(TreeReply::Head { .. })), "{head:?}");
            trees.push(tree);
        }
        stream.send(&Open::Tree { partition: federation(), have: None }).await;
        // The others stay open until the fifth is judged.
        stream.end().await;
    });
    world.finish();
}
