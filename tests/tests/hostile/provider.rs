//! A member that the hub follows and that sends change sets which its origin
//! did not sign, or signed wrongly. Nothing of them may be kept.

use certs::keyfile::{KeyDir, SIGNING_KEY_FILE};
use protocol::{
    change::{
        BODY_BYTES_MAX, CHANGES_MAX, Change, Position, SignedHeader, changes_hash, encode_changes,
    },
    codec,
    frame::FRAME_BYTES_MAX,
    hash::Hash,
    message::{CloseCode, FollowReply, FollowRequest, Open},
    sign::SigningKey,
    suite::Suite,
};

use crate::{
    forge::{Origin, entries, entries_of, federation_head, nested, reply},
    peer::{End, Peer, Stream},
    world::{HONEST, HOSTILE, World, claim, hello, partition},
};

/// The hostile member connects, claims to hold `dataset`, and is followed.
/// Answers what has to stay open, the follow stream, and who signs.
pub async fn followed<'a>(
    world: &'a World,
    dataset: &str,
) -> (Peer, Stream, Stream, Origin<'a>, Option<Position>) {
    let peer = world.connect().await;
    let partition = partition(&format!("{dataset}/{HOSTILE}"));
    let (control, theirs) = peer.say_hello(hello(vec![claim(partition.clone())])).await;
    let mut stream = peer.accept().await;
    let have = match stream.receive().await {
        Ok(Open::Follow { partition: followed, have }) if followed == partition => have,
        other => panic!("{other:?}"),
    };
    let federation_head = federation_head(&theirs);
    (peer, control, stream, Origin { partition, key: &world.key, federation_head }, have)
}

/// Sends one reply to a follow request and sees what becomes of the stream.
#[track_caller]
fn attack(
    world: &mut World,
    what: &str,
    code: CloseCode,
    counted: u64,
    forge: impl FnOnce(&World, &Origin<'_>) -> FollowReply,
) {
    world.attack(what, End::Code(code), counted, async |world| {
        let (_peer, _control, mut stream, origin, _) = followed(world, "enterprise").await;
        stream.send(&forge(world, &origin)).await;
        stream.end().await
    });
}

#[test]
fn change_sets_that_their_origin_did_not_sign_are_refused() {
    let mut world = World::new();
    let honest_keys = KeyDir::new(world.federation.dir().join(HONEST).join("keys"), None);
    let honest: SigningKey = honest_keys.load(SIGNING_KEY_FILE).unwrap();
    let forged = CloseCode::Forged;

    attack(&mut world, "an altered signature", forged, 1, |_, origin| {
        let mut set = origin.altered(|_| {});
        if let FollowReply::ChangeSet { header, .. } = &mut set {
            // Behind the suite's number.
            header[1] ^= 1;
        }
        set
    });
    attack(&mut world, "another county's key", forged, 1, |_, origin| {
        let (mut header, body) = origin.first(&entries(3));
        header.key_id = honest.public().id();
        reply(header, &body, &honest)
    });
    attack(&mut world, "another county's key under our id", forged, 1, |_, origin| {
        let (header, body) = origin.first(&entries(3));
        reply(header, &body, &honest)
    });
    attack(&mut world, "another body", forged, 1, |_, origin| {
        let (header, _) = origin.first(&entries(3));
        let (_, other) = origin.first(&entries(4));
        reply(header, &other, origin.key)
    });
    attack(&mut world, "a wrong count", forged, 1, |_, origin| {
        origin.altered(|header| header.change_count = 4)
    });
    attack(&mut world, "another county's partition", CloseCode::NotEntitled, 1, |_, origin| {
        origin.altered(|header| header.partition = partition(&format!("enterprise/{HONEST}")))
    });
    attack(&mut world, "number 2 first", CloseCode::Unexpected, 1, |_, origin| {
        origin.altered(|header| {
            header.seq = 2;
            (header.previous, header.history) = (Suite::One.repeated(1), Suite::One.repeated(1));
        })
    });
    attack(&mut world, "a predecessor of the first", CloseCode::Malformed, 1, |_, origin| {
        origin.altered(|header| header.previous = Suite::One.repeated(1))
    });
    attack(&mut world, "no _federation head", CloseCode::Malformed, 1, |_, origin| {
        origin.altered(|header| header.federation_head = None)
    });
    // It may be on its way, so this is no misbehaviour.
    attack(&mut world, "a _federation of the future", CloseCode::Unavailable, 0, |_, origin| {
        origin.altered(|header| {
            header.federation_head = Some(Position { seq: 1000, hash: Suite::One.repeated(1) });
        })
    });
    attack(&mut world, "a fork that nobody signed", forged, 1, |_, origin| {
        let FollowReply::ChangeSet { mut header, .. } = origin.altered(|_| {}) else { panic!() };
        header[1] ^= 1;
        FollowReply::Fork { header }
    });
    attack(&mut world, "a fork of nothing", CloseCode::Unexpected, 1, |_, origin| {
        let FollowReply::ChangeSet { header, .. } = origin.altered(|_| {}) else { panic!() };
        FollowReply::Fork { header }
    });
    world.finish();
}

#[test]
fn change_sets_over_a_limit_or_with_a_wrong_root_are_refused() {
    let mut world = World::new();
    let forged = CloseCode::Forged;
    let bodies: [(&str, Vec<Change>); 4] = [
        ("disorder", vec![delete(b"b"), delete(b"a")]),
        ("10 001 changes", (0..=CHANGES_MAX as u32).map(|n| delete(&n.to_be_bytes())).collect()),
        ("a key of 1025 bytes", vec![delete(&[1; 1025])]),
        ("a record over 64 KiB", vec![Change::Put { key: vec![1], value: vec![0; 65_537] }]),
    ];
    for (what, changes) in bodies {
        attack(&mut world, what, forged, 1, |_, origin| {
            origin.with_body(&encode_changes(&changes), changes.len() as u32)
        });
    }
    attack(&mut world, "an unknown tag", forged, 1, |_, origin| {
        origin.with_body(&[3, 0, 0, 0, 1, 1], 1)
    });
    attack(&mut world, "a body of 8 MiB and 1", forged, 1, |_, origin| {
        origin.with_body(&vec![0; BODY_BYTES_MAX + 1], 1)
    });
    for (what, claimed) in [("a bomb that says so", u32::MAX), ("a bomb that does not", 8 << 20)] {
        attack(&mut world, what, forged, 1, |_, origin| {
            let mut set = origin.altered(|_| {});
            if let FollowReply::ChangeSet { body, .. } = &mut set {
                // A gigabyte would take 32 KiB; 64 MiB show the same.
                *body = codec::compress(&vec![0; 64 << 20]);
                body[..4].copy_from_slice(&u32::to_be_bytes(claimed));
            }
            set
        });
    }
    attack(&mut world, "a wrong root", CloseCode::RootMismatch, 1, |_, origin| {
        origin.altered(|header| header.root = Suite::One.repeated(5))
    });
    attack(&mut world, "a wrong number of records", CloseCode::RootMismatch, 1, |_, origin| {
        origin.altered(|header| header.records += 1)
    });
    for (what, body) in [("noise", vec![0x99; 50]), ("an empty frame", vec![])] {
        world.attack(what, End::Code(CloseCode::Malformed), 1, async |world| {
            let (_peer, _control, mut stream, ..) = followed(world, "enterprise").await;
            stream.send_body(&body).await;
            stream.end().await
        });
    }
    world.attack("a frame too long", End::Code(CloseCode::Malformed), 1, async |world| {
        let (_peer, _control, mut stream, ..) = followed(world, "enterprise").await;
        stream.send_raw(&(FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await;
        stream.end().await
    });
    world.finish();
}

fn delete(key: &[u8]) -> Change {
    Change::Delete { key: key.to_vec() }
}

/// Sends a change set and waits until it is durable at the hub.
async fn accepted(stream: &mut Stream, set: &FollowReply, root: Hash) -> Position {
    stream.send(set).await;
    match stream.receive().await {
        Ok(FollowRequest::Ack { position, root: computed }) if computed == root => position,
        other => panic!("{other:?}"),
    }
}

/// Two signed histories: at the follow stream itself, and as a provider's claim.
#[test]
fn two_signed_histories_quarantine_their_partition_and_nothing_else() {
    let mut world = World::new();
    for (dataset, by_claim) in [("enterprise", false), ("serious-violators", true)] {
        let name = format!("{dataset}/{HOSTILE}");
        let end = world.block_on(async {
            let (peer, control, mut stream, origin, have) = followed(&world, dataset).await;
            assert_eq!(have, None);
            let (first, body) = origin.first(&entries_of(dataset, 3));
            let root = first.root;
            let position = accepted(&mut stream, &reply(first, &body, origin.key), root).await;
            if !by_claim {
                let (mut second, _) = origin.first(&entries_of(dataset, 3));
                (second.seq, second.previous, second.history) =
                    (2, Suite::One.repeated(1), Suite::One.repeated(1));
                (second.change_count, second.changes_hash) = (0, changes_hash(Suite::One, &[]));
                stream.send(&reply(second, &[], origin.key)).await;
                return stream.end().await;
            }
            drop((stream, control, peer));
            let (_peer, _control, mut stream, origin, have) = followed(&world, dataset).await;
            assert_eq!(have, Some(position));
            let (other, _) = origin.first(&entries_of(dataset, 4));
            let header = SignedHeader::sign(other, origin.key).encode();
            stream.send(&FollowReply::Fork { header }).await;
            stream.end().await
        });
        assert_eq!(end, End::Code(CloseCode::Fork), "{name}");
        harness::node::wait_until("the partition is quarantined", || {
            world.federation.hub.partition(&name).is_some_and(|it| it["state"] == "quarantined")
        });
        let replica = world.federation.hub.partition(&name).unwrap();
        assert_eq!((&replica["seq"], &replica["records"]), (&1.into(), &3.into()));
        world.check_service();
    }
    assert!(world.federation.hub.log().contains("two signed histories"));
    world.finish();
}

#[test]
fn keys_that_lie_deep_inside_each_other_are_taken_from_nobody() {
    let mut world = World::new();
    let code = CloseCode::RootMismatch;
    // More of a tree than 1024 pages above its leaves.
    let reply_of = |origin: &Origin<'_>, letters| {
        let (header, body) = origin.first(&nested(letters));
        reply(header, &body, origin.key)
    };
    world.attack("a comb", End::Code(code), 1, async |world| {
        let (_peer, _control, mut stream, origin, _) = followed(world, "admin-penalty").await;
        stream.send(&reply_of(&origin, 900)).await;
        stream.end().await
    });
    // What is just not too deep is taken.
    world.block_on(async {
        let (_peer, _control, mut stream, origin, _) = followed(&world, "admin-penalty").await;
        stream.send(&reply_of(&origin, 800)).await;
        assert!(matches!(stream.receive().await, Ok(FollowRequest::Ack { .. })));
    });
    world.finish();
}
