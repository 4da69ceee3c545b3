//! What one member may hold of a hub, and for how long: frames that have not
//! ended, connections without a hello, and streams on which it owes something.

use std::time::Duration;

use harness::{
    federation::{HUB, Making},
    node::wait_until,
    sim::rng::Rng,
};
use protocol::{
    codec,
    frame::{CONTROL_FRAME_BYTES_MAX, FRAME_BYTES_MAX, OPENING_FRAME_BYTES_MAX},
    id::PartitionId,
    message::{
        CloseCode, Control, FollowReply, FollowRequest, Open, TreeReply, TreeRequest, decode_header,
    },
    record::Record,
    schema::FieldType,
    value::Value,
};

use crate::{
    flood::resident_mb,
    forge::{Entries, Origin, Tree, entries, entries_of, federation_head, reply},
    peer::{End, Peer, Stream, client_config},
    world::{HOSTILE, World, claim, hello, partition},
};

/// How long the hub waits here for whoever owes it something.
const STALL_S: &str = "2";

fn impatient() -> World {
    World::made(&Making { hub: &[("stall_s", STALL_S)], ..Making::default() })
}

#[test]
fn frames_are_short_until_change_sets_are_asked_for() {
    let mut world = World::new();
    let malformed = End::Code(CloseCode::Malformed);
    world.attack("a long hello", malformed, 1, async |world| {
        let peer = world.connect().await;
        let mut stream = peer.open().await;
        stream.send_raw(&(CONTROL_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await;
        peer.closed().await
    });
    world.attack("a long announcement", malformed, 1, async |world| {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_hello(hello(vec![])).await;
        control.send_raw(&(CONTROL_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await;
        peer.closed().await
    });
    world.attack("a long first frame", malformed, 1, async |world| {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut stream = peer.open().await;
        stream.send_raw(&(OPENING_FRAME_BYTES_MAX as u32 + 1).to_be_bytes()).await;
        stream.end().await
    });
    world.attack("a long acknowledgement", malformed, 1, async |world| {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut stream = peer.open().await;
        stream.send(&Open::Follow { partition: federation(), have: None }).await;
        stream.send_raw(&4096u32.to_be_bytes()).await;
        stream.end().await
    });
    world.attack("a long part of a page", malformed, 1, async |world| {
        let (peer, _control, mut follows) = followed(world, &["enterprise"]).await;
        let (_, mut follow) = follows.pop().unwrap();
        follow.send(&FollowReply::TakePages).await;
        let mut tree = tree_of(&peer).await;
        tree.send_raw(&(2u32 << 20).to_be_bytes()).await;
        tree.end().await
    });
    world.finish();
}

#[test]
fn few_connections_of_one_member_wait_for_its_hello() {
    let mut world = World::new();
    let (mut waiting, turned_away) = world.block_on(async {
        let mut waiting = Vec::new();
        let mut turned_away = 0;
        while waiting.len() + turned_away < 10 {
            let peer = world.connect().await;
            // Who is turned away hears of it within a round trip.
            let closed = tokio::time::timeout(Duration::from_millis(300), peer.closed());
            match closed.await {
                Ok(end) => {
                    assert_eq!(end, End::Code(CloseCode::Unavailable));
                    turned_away += 1;
                }
                Err(_) => {
                    let mut stream = peer.open().await;
                    stream.send_raw(&1_000_000u32.to_be_bytes()).await;
                    stream.send_raw(&[0; 1000]).await;
                    waiting.push((peer, stream));
                }
            }
        }
        (waiting, turned_away)
    });
    assert_eq!((waiting.len(), turned_away), (2, 8));
    world.check_service();
    // A place is free again when its connection ends.
    let (freed, _stream) = waiting.pop().unwrap();
    freed.connection.close(0u32.into(), b"");
    world.block_on(async {
        loop {
            let peer = world.connect().await;
            let Ok(streams) = peer.connection.open_bi().await else { continue };
            let mut control = Stream::new(streams);
            control.send(&Open::Control(hello(vec![]))).await;
            if control.receive_body().await.is_ok() {
                break;
            }
        }
    });
    // Before their streams are: one that ends inside a frame is a fault.
    waiting.iter().for_each(|(peer, _)| peer.connection.close(0u32.into(), b""));
    assert_eq!(world.misbehaved(), 0);
    world.finish();
}

#[test]
fn unfinished_frames_of_one_member_are_held_two_at_a_time() {
    let mut world = World::new();
    let datasets = ["enterprise", "admin-licence", "admin-penalty", "serious-violators"];
    let (peer, control, mut sending) = world.block_on(async {
        let (peer, control, follows) = followed(&world, &datasets).await;
        let mut sending = tokio::task::JoinSet::new();
        for (_, mut follow) in follows {
            sending.spawn(async move {
                begin_frame(&mut follow).await;
                follow
            });
        }
        (peer, control, sending)
    });
    let mut begin = world.block_on(async {
        let one = sending.join_next().await.unwrap().unwrap();
        (one, sending.join_next().await.unwrap().unwrap())
    });
    world.check_service();
    assert!(sending.try_join_next().is_none(), "a third one is read");
    // Each that ends makes room for another one.
    world.block_on(async {
        begin.0.send_raw(&[0]).await;
        assert_eq!(begin.0.end().await, End::Code(CloseCode::Malformed));
        sending.join_next().await.unwrap().unwrap();
    });
    peer.connection.close(0u32.into(), b"");
    drop(control);
    assert_eq!(world.misbehaved(), 1);
    world.finish();
}

/// A frame as long as there are any, but for its last byte: more than may be on its way
/// without being read.
async fn begin_frame(stream: &mut Stream) {
    stream.send_raw(&(FRAME_BYTES_MAX as u32).to_be_bytes()).await;
    stream.send_raw(&vec![0; FRAME_BYTES_MAX - 1]).await;
}

/// Whatever all of them hold, a usual change set is read at once, and a long one soon.
#[test]
fn unfinished_frames_of_all_members_are_held_eight_at_a_time() {
    const DATASETS: [&str; 2] = ["enterprise", "admin-licence"];
    /// Eight frames, what may be on its way to the hub and is not read, and as much again
    /// as the first for what the allocator keeps.
    const HELD_MAX_MB: u64 = 72 + 64 + 72;
    let mut world = World::new();
    let names: Vec<String> = (0..8).map(|number| format!("4102{number:02}")).collect();
    for name in &names {
        world.join(name);
    }
    let before = resident_mb(&world);
    let (peers, mut sending) = world.block_on(async {
        let (mut peers, mut sending) = (Vec::new(), tokio::task::JoinSet::new());
        for name in &names {
            let peer = world.dial_as(name).connect().await.unwrap();
            let claims = DATASETS.map(|dataset| claim(partition(&format!("{dataset}/{name}"))));
            let (control, _) = peer.say_hello(hello(claims.to_vec())).await;
            for _ in DATASETS {
                let mut follow = peer.accept().await;
                assert!(matches!(follow.receive().await, Ok(Open::Follow { .. })));
                sending.spawn(async move {
                    begin_frame(&mut follow).await;
                    follow
                });
            }
            peers.push((peer, control));
        }
        (peers, sending)
    });
    let begun = world.block_on(async {
        let mut begun = Vec::new();
        while begun.len() < 8 {
            begun.push(sending.join_next().await.unwrap().unwrap());
        }
        begun
    });
    world.check_service();
    let most = resident_mb(&world);
    println!("{before} MiB before, {most} MiB while {} frames wait", begun.len());
    assert!(sending.try_join_next().is_none(), "a ninth one is read");
    assert!(most <= before + HELD_MAX_MB, "{before} MiB before, {most} MiB");
    world.block_on(deliver_long(&world, &DATASETS[..1]));
    drop((peers, begun, sending));
    assert_eq!(world.misbehaved(), 0, "to be slow is no crime");
    world.finish();
}

/// A frame takes room of its own also where it begins before the one in front of it
/// has been looked at.
#[test]
fn unfinished_frames_behind_finished_ones_are_held_two_at_a_time() {
    let mut world = World::new();
    let datasets = ["enterprise", "admin-licence", "admin-penalty", "serious-violators"];
    let (peer, control, mut sending) = world.block_on(async {
        let (peer, control, follows) = followed(&world, &datasets).await;
        let mut sending = tokio::task::JoinSet::new();
        for (origin, mut follow) in follows {
            let set = first(&origin);
            assert!(set.len() > 16 * 1024, "{} bytes are no long frame", set.len());
            sending.spawn(async move {
                // In one piece, or the second frame would begin after the first one's end.
                let mut bytes = set;
                bytes.extend((FRAME_BYTES_MAX as u32).to_be_bytes());
                bytes.resize(bytes.len() + FRAME_BYTES_MAX - 1, 0);
                follow.send_raw(&bytes).await;
                follow
            });
        }
        (peer, control, sending)
    });
    // A stream that is dropped ends, and gives its room back.
    let two = world.block_on(async {
        let one = sending.join_next().await.unwrap().unwrap();
        (one, sending.join_next().await.unwrap().unwrap())
    });
    world.check_service();
    assert!(sending.try_join_next().is_none(), "a third one is read");
    drop(two);
    peer.connection.close(0u32.into(), b"");
    drop(control);
    world.finish();
}

/// The frame of a first change set, a long one.
fn first(origin: &Origin<'_>) -> Vec<u8> {
    let entries = entries_of(origin.partition.dataset.as_str(), 5_000);
    let (header, body) = origin.first(&entries);
    protocol::frame::encode(&codec::encode(&reply(header, &body, origin.key)))
}

/// Records of a dataset with a long text each that does not compress.
fn long_entries(dataset: &str, count: u32) -> Entries {
    let schemas = config::catalogue::standard();
    let schema = schemas.iter().find(|schema| schema.dataset().as_str() == dataset).unwrap();
    let text = schema.fields().iter().position(|field| field.kind == FieldType::Text).unwrap();
    let mut rng = Rng::new(3);
    let mut long = |(key, bytes): (Vec<u8>, Vec<u8>)| {
        let mut record = Record::decode(&bytes).unwrap();
        let letters = (0..60_000).map(|_| char::from(b'!' + (rng.u64() % 93) as u8));
        record.values[text] = Value::text(letters.collect::<String>());
        (key, record.encode().unwrap())
    };
    entries_of(dataset, count).into_iter().map(&mut long).collect()
}

#[test]
fn change_sets_that_a_member_does_not_take_are_held_few_at_once() {
    /// Streams by which one partition may be followed.
    const FOLLOWERS: usize = 3;
    /// What the hub may hold of change sets that wait for one member, all its streams
    /// together: the 16 MiB that may be read for it, and as much again for copies and
    /// what the allocator keeps, and some. One change set for each stream is 94 MiB, and
    /// comes with as much beside it: 124 and more were seen.
    const HELD_MAX_MB: u64 = 70;
    let mut world = World::new();
    let datasets = ["enterprise", "admin-licence", "admin-penalty", "serious-violators"];
    world.block_on(deliver_long(&world, &datasets));
    world.check_service();
    let before = resident_mb(&world);
    let waiting = world.block_on(async {
        let peer = with_window(&world, 300).await;
        let (control, _) = peer.say_hello(hello(vec![])).await;
        let mut streams = Vec::new();
        for dataset in datasets.repeat(FOLLOWERS) {
            streams.push(follow(&peer, own(dataset)).await);
        }
        (peer, control, streams)
    });
    let mut most = before;
    for _ in 0..5 {
        world.check_service();
        most = most.max(resident_mb(&world));
    }
    println!("{before} MiB before, {most} MiB while {} streams wait", waiting.2.len());
    assert!(most <= before + HELD_MAX_MB, "{before} MiB before, {most} MiB");
    drop(waiting);
    world.finish();
}

/// A member with streams that it does not read keeps only its own long change sets
/// waiting, and those only until the hub gives up the streams.
#[test]
fn streams_that_a_member_does_not_read_hold_up_its_others_for_a_while() {
    // So that what waits for no room comes before that, also on a busy machine.
    let mut world = World::made(&Making { hub: &[("stall_s", "8")], ..Making::default() });
    let datasets = ["enterprise", "admin-penalty"];
    world.block_on(deliver_long(&world, &datasets));
    let (peer, control, mut deaf) = world.block_on(async {
        let peer = with_window(&world, 64 * 1024).await;
        let (control, _) = peer.say_hello(hello(vec![])).await;
        // A third one has no room beside these.
        let mut deaf = Vec::new();
        for dataset in datasets {
            let mut stream = follow(&peer, own(dataset)).await;
            stream.begun().await;
            deaf.push(stream);
        }
        let mut short = follow(&peer, federation()).await;
        assert!(matches!(short.receive().await, Ok(FollowReply::ChangeSet { .. })));
        for stream in &mut deaf {
            let stopped = tokio::time::timeout(Duration::ZERO, stream.stopped()).await;
            assert!(stopped.is_err(), "a short change set has waited for {stopped:?}");
        }
        (peer, control, deaf)
    });
    world.check_service();
    world.block_on(async {
        let mut long = follow(&peer, own(datasets[1])).await;
        assert!(matches!(long.receive().await, Ok(FollowReply::ChangeSet { .. })));
        for stream in &mut deaf {
            assert_eq!(stream.stopped().await, CloseCode::Silent);
        }
    });
    drop((peer, control));
    assert_eq!(world.misbehaved(), 0, "to be slow is no crime");
    world.finish();
}

/// The hub takes one change set of nearly 8 MiB for each dataset of the hostile member's.
async fn deliver_long(world: &World, datasets: &[&str]) {
    let (_peer, _control, follows) = followed(world, datasets).await;
    for (origin, mut stream) in follows {
        let entries = long_entries(origin.partition.dataset.as_str(), 130);
        let (header, body) = origin.first(&entries);
        stream.send(&reply(header, &body, origin.key)).await;
        assert!(matches!(stream.receive().await, Ok(FollowRequest::Ack { .. })));
    }
}

/// A connection of the hostile member, on each of whose streams so many bytes may be on
/// their way.
async fn with_window(world: &World, bytes: u32) -> Peer {
    let mut config = client_config(world.dial().tls());
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(bytes.into());
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    config.transport_config(transport.into());
    world.dial().connect_with(config).await.unwrap()
}

/// Follows a partition from its first change set on.
async fn follow(peer: &Peer, partition: PartitionId) -> Stream {
    let mut stream = peer.open().await;
    stream.send(&Open::Follow { partition, have: None }).await;
    stream
}

/// The hostile member's own partition of a dataset.
fn own(dataset: &str) -> PartitionId {
    partition(&format!("{dataset}/{HOSTILE}"))
}

fn federation() -> PartitionId {
    partition(&format!("_federation/{HUB}"))
}

/// The hostile member claims to hold these datasets, and the hub follows them.
async fn followed<'a>(
    world: &'a World,
    datasets: &[&str],
) -> (Peer, Stream, Vec<(Origin<'a>, Stream)>) {
    let peer = world.connect().await;
    let claims = datasets.iter().map(|name| claim(partition(&format!("{name}/{HOSTILE}"))));
    let (control, theirs) = peer.say_hello(hello(claims.collect())).await;
    let federation_head = federation_head(&theirs);
    let mut follows = Vec::new();
    for _ in datasets {
        let mut stream = peer.accept().await;
        match stream.receive().await {
            Ok(Open::Follow { partition, .. }) => {
                follows.push((Origin { partition, key: &world.key, federation_head }, stream));
            }
            other => panic!("{other:?}"),
        }
    }
    (peer, control, follows)
}

/// The tree stream that the hub opens.
async fn tree_of(peer: &Peer) -> Stream {
    let mut stream = peer.accept().await;
    let open = stream.receive().await.unwrap();
    assert!(matches!(open, Open::Tree { .. }), "{open:?}");
    stream
}

#[test]
fn whoever_owes_an_answer_and_does_not_get_on_loses_the_stream() {
    let mut world = impatient();
    let partitions = world.hub_partitions();
    let held = world.held();
    let silent = End::Code(CloseCode::Silent);
    world.block_on(async {
        let peer = world.connect().await;
        let (_control, theirs) = peer.say_hello(hello(vec![])).await;
        let open = async |open: &Open| {
            let mut stream = peer.open().await;
            stream.send(open).await;
            stream
        };
        let follow = Open::Follow { partition: federation(), have: None };
        let [federation_tree, own_tree, ..] =
            partitions.map(|partition| Open::Tree { partition, have: None });
        // A follower that has all and says nothing owes nothing.
        let mut idle = open(&follow).await;
        loop {
            let Ok(FollowReply::ChangeSet { header, .. }) = idle.receive().await else { panic!() };
            let header = decode_header(&header).unwrap();
            let (position, root) = (header.position(), header.header().root);
            idle.send(&FollowRequest::Ack { position, root }).await;
            if position == federation_head(&theirs) {
                break;
            }
        }
        let (mut unacknowledged, mut unasked, mut half) =
            (open(&follow).await, open(&federation_tree).await, open(&own_tree).await);
        half.send_raw(&[0, 0, 1]).await;
        let ends = tokio::join!(unacknowledged.end(), unasked.end(), half.end());
        assert_eq!(ends, (silent, silent, silent));
        let asked = tokio::time::timeout(Duration::from_secs(3), idle.receive_body()).await;
        assert!(asked.is_err(), "an idle follower was given up: {asked:?}");
    });
    // One that reads nothing.
    world.block_on(async {
        let mut config = client_config(world.dial().tls());
        let mut transport = quinn::TransportConfig::default();
        transport.stream_receive_window(300u32.into());
        config.transport_config(transport.into());
        let peer = world.dial().connect_with(config.clone()).await.unwrap();
        let (mut control, _) = peer.say_hello(hello(vec![])).await;
        let mut deaf = peer.open().await;
        deaf.send(&Open::Tree { partition: federation(), have: None }).await;
        deaf.send(&TreeRequest::Pages { level: 0, keys: vec![vec![]] }).await;
        tokio::select! {
            code = deaf.stopped() => assert_eq!(code, CloseCode::Silent),
            end = control.end() => panic!("the connection has ended: {end:?}"),
        }
        // Not even what is said about trust.
        let peer = world.dial().connect_with(config).await.unwrap();
        let (_deaf, _) = peer.say_hello(hello(vec![])).await;
        assert_eq!(peer.closed().await, silent);
    });
    // One that is asked and does not answer, or not to the end.
    world.block_on(async {
        let datasets = ["enterprise", "admin-licence", "admin-penalty"];
        let (peer, _control, mut follows) = followed(&world, &datasets).await;
        let (_, mut half) = follows.pop().unwrap();
        half.send_raw(&[0, 1, 0, 0, 7]).await;
        let mut trees = Vec::new();
        for (origin, follow) in &mut follows {
            follow.send(&FollowReply::TakePages).await;
            let mut stream = tree_of(&peer).await;
            if trees.is_empty() {
                let tree = Tree::of(&entries(3));
                stream.send(&origin.tree_head(&tree, |_| {})).await;
                let part = tree.page(0, &[]).body[..10].to_vec();
                stream.send(&TreeReply::Part { bytes: part, more: true }).await;
            }
            trees.push(stream);
        }
        let (first, second) = trees.split_at_mut(1);
        let ends = tokio::join!(half.end(), first[0].end(), second[0].end());
        assert_eq!(ends, (silent, silent, silent));
        // And it is asked again.
        let mut again = peer.accept().await;
        assert!(matches!(again.receive().await, Ok(Open::Follow { .. })));
    });
    wait_until("the connection is over", || world.held() == held);
    assert_eq!(world.misbehaved(), 0, "to be slow is no crime");
    world.check_service();
    world.finish();
}

/// Lines of the hub's log from byte `from` on.
fn lines_since(world: &World, from: usize) -> Vec<String> {
    world.federation.hub.log()[from..].lines().map(str::to_owned).collect()
}

#[test]
fn whoever_comes_and_goes_without_end_does_not_fill_the_log() {
    const TIMES: usize = 60;
    const HEADS: usize = 300;
    let mut world = World::new();
    let before = world.federation.hub.log().len();
    let unknown = |number| claim(partition(&format!("unknown-{number}/{HOSTILE}")));
    world.block_on(async {
        for _ in 0..TIMES {
            let peer = world.connect().await;
            let (_control, _) = peer.say_hello(hello((0..HEADS).map(unknown).collect())).await;
            // The hub has gone on to follow what was claimed, or has tried.
            let mut stream = peer.open().await;
            stream.send(&Open::Follow { partition: federation(), have: None }).await;
            assert!(stream.receive_body().await.is_ok());
        }
    });
    // Claims to hold more than the hub does of its own.
    world.block_on(async {
        let own = |number| claim(partition(&format!("unknown-{number}/{HUB}")));
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello((0..HEADS).map(own).collect())).await;
        let mut stream = peer.open().await;
        stream.send(&Open::Follow { partition: federation(), have: None }).await;
        assert!(stream.receive_body().await.is_ok());
    });
    world.check_service();
    let lines = lines_since(&world, before);
    let about = lines.iter().filter(|line| line.contains(HOSTILE)).count();
    let bytes: usize = lines.iter().map(String::len).sum();
    println!("{about} lines about it of {}, {bytes} bytes", lines.len());
    assert!(about > 0, "not a word");
    assert!(about <= 100, "{about} lines");
    assert!(bytes < 64 * 1024, "{bytes} bytes");
    world.finish();
}

#[test]
fn messages_without_end_are_not_taken_faster_than_they_can_matter() {
    /// What the hub may have taken, or has in the stream's window: that window, what
    /// may be said at once, and some seconds' worth.
    const TAKEN_MAX: usize = 6 << 20;
    let mut world = World::new();
    let heartbeat = protocol::frame::encode(&codec::encode(&Control::Heartbeat { now_ms: 0 }));
    let many = heartbeat.repeat(1000);
    let (taken, alive) = world.block_on(async {
        let peer = world.connect().await;
        let (mut control, _) = peer.say_hello(hello(vec![])).await;
        let mut taken = 0;
        let sending = async {
            while taken <= TAKEN_MAX {
                control.send_raw(&many).await;
                taken += many.len();
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), sending).await;
        // Other streams are served meanwhile.
        let mut stream = peer.open().await;
        stream.send(&Open::Follow { partition: federation(), have: None }).await;
        (taken, stream.receive_body().await.is_ok())
    });
    println!("{taken} bytes taken");
    assert!(alive, "the connection was closed");
    assert!(taken <= TAKEN_MAX, "{taken} bytes");
    assert_eq!(world.misbehaved(), 0);
    world.check_service();
    world.finish();
}

#[test]
fn streams_that_are_reset_at_once_are_not_taken_without_end() {
    /// Those that may be opened at once, those that may be open, and some seconds'
    /// worth.
    const TAKEN_MAX: usize = 2048 + 1024 + 2000;
    let mut world = World::new();
    let opened = world.block_on(async {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut opened = 0;
        let opening = async {
            while opened <= TAKEN_MAX {
                let (mut sender, mut receiver) = peer.connection.open_bi().await.unwrap();
                let _ = sender.write(&[0]).await;
                let _ = sender.reset(1u32.into());
                let _ = receiver.stop(1u32.into());
                opened += 1;
                if opened % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), opening).await;
        assert!(peer.connection.close_reason().is_none());
        opened
    });
    println!("{opened} streams");
    assert!(opened <= TAKEN_MAX, "{opened} streams");
    world.check_service();
    world.finish();
}

/// What the hub replaces is copied for each tree that is shown.
#[test]
fn of_one_partition_a_member_is_shown_the_newest_tree() {
    let mut world = World::new();
    let tree = async |peer: &Peer| {
        let mut tree = peer.open().await;
        tree.send(&Open::Tree { partition: federation(), have: None }).await;
        let head: Result<TreeReply, End> = tree.receive().await;
        assert!(matches!(head, Ok(TreeReply::Head { .. })), "{head:?}");
        tree
    };
    world.block_on(async {
        let peer = world.connect().await;
        let (_control, _) = peer.say_hello(hello(vec![])).await;
        let mut first = tree(&peer).await;
        let mut second = tree(&peer).await;
        assert_eq!(first.end().await, End::Code(CloseCode::Unavailable));
        second.send(&TreeRequest::Pages { level: 0, keys: vec![vec![]] }).await;
        assert!(matches!(second.receive().await, Ok(TreeReply::Part { .. })));
    });
    assert_eq!(world.misbehaved(), 0);
    world.check_service();
    world.finish();
}

#[test]
fn trees_that_others_hold_keep_nobody_from_being_shown_one() {
    let mut world = World::new();
    // Each as many as it may have; together all there are.
    let names: Vec<String> = (0..10).map(|number| format!("4102{number:02}")).collect();
    for name in &names {
        world.join(name);
    }
    let partitions = world.hub_partitions();
    let tree = async |peer: &Peer, which: usize| {
        let mut tree = peer.open().await;
        tree.send(&Open::Tree { partition: partitions[which].clone(), have: None }).await;
        let head: Result<TreeReply, End> = tree.receive().await;
        (tree, matches!(head, Ok(TreeReply::Head { .. })))
    };
    let mut members = world.block_on(async {
        let mut members = Vec::new();
        for name in &names {
            let peer = world.dial_as(name).connect().await.unwrap();
            let (control, _) = peer.say_hello(hello(vec![])).await;
            let mut trees = Vec::new();
            for which in 0..4 {
                let (tree, is_shown) = tree(&peer, which).await;
                assert!(is_shown, "{name}: {}", trees.len());
                trees.push(tree);
            }
            members.push((peer, control, trees));
        }
        members
    });
    let (_peer, _control, _tree) = world.block_on(async {
        let peer = world.connect().await;
        let (control, _) = peer.say_hello(hello(vec![])).await;
        let (tree, is_shown) = tree(&peer, 0).await;
        assert!(is_shown, "others hold all of them");
        (peer, control, tree)
    });
    world.block_on(async {
        // It took the place of the oldest; who has lost one is not shown another.
        let (peer, _, trees) = &mut members[0];
        assert_eq!(trees[0].end().await, End::Code(CloseCode::Unavailable));
        let (mut refused, is_shown) = tree(peer, 0).await;
        assert!(!is_shown);
        assert_eq!(refused.end().await, End::Code(CloseCode::Unavailable));
        let (_, _, trees) = &mut members[1];
        trees[0].send(&TreeRequest::Pages { level: 0, keys: vec![vec![]] }).await;
        assert!(matches!(trees[0].receive().await, Ok(TreeReply::Part { .. })));
    });
    drop(members);
    world.check_service();
    world.finish();
}
