//! A member that signs what no honest origin does: records that no importer makes,
//! a second history that pages are to hide, and numbers beyond all histories.

use std::collections::BTreeMap;

use harness::{
    node::{Node, wait_until},
    table::Table,
};
use protocol::{
    change::{Change, Header, Position, SignedHeader, changes_hash, encode_changes},
    difference,
    hash::Hash,
    history::{self, Peaks, Proof, SEQ_LIMIT, nodes_of},
    message::{CloseCode, FollowReply, FollowRequest, Open, TreeReply, TreeRequest},
    record::Record,
    suite::Suite,
    value::Value,
};

use crate::{
    forge::{Entries, Origin, Tree, entries, reply},
    peer::{End, Peer, Stream},
    provider::followed,
    world::{HOSTILE, World},
};

const DATASET: &str = "enterprise";

fn name() -> String {
    format!("{DATASET}/{HOSTILE}")
}

/// A first change set of these entries, rightly signed.
fn set(origin: &Origin<'_>, entries: &Entries) -> FollowReply {
    let (header, body) = origin.first(entries);
    reply(header, &body, origin.key)
}

/// The record `number` with its values altered, under the key that it had.
fn altered(number: usize, alter: impl FnOnce(&mut Record)) -> Entries {
    let (key, bytes) = entries(number as u32 + 1).swap_remove(number);
    let mut record = Record::decode(&bytes).unwrap();
    alter(&mut record);
    vec![(key, record.encode().unwrap())]
}

#[test]
fn records_that_no_importer_makes_are_not_stored() {
    let mut world = World::new();
    let text = |text: &str| Value::Text(text.into());
    let name_of = |it: &'static str| move |record: &mut Record| record.values[0] = text(it);
    let moved = vec![(entries(1)[0].0.clone(), entries(2)[1].1.clone())];
    let unfit: Vec<(&str, Entries)> = vec![
        ("another record's key", moved),
        ("a text that steers terminals", altered(0, name_of("a\u{1b}]0;owned\u{7}"))),
        ("a control character of eight bits", altered(0, name_of("a\u{9b}2J"))),
        ("fewer fields", altered(0, |record| record.values.truncate(2))),
        ("more fields", altered(0, |record| record.values.resize(100, Value::Null))),
        ("a number for a name", altered(0, |record| record.values[0] = Value::Integer(1))),
        ("no name", altered(0, |record| record.values[0] = Value::Null)),
        ("an empty key", vec![(Vec::new(), entries(1)[0].1.clone())]),
        ("noise", vec![(vec![0xff; 1024], vec![0xff; 65_536])]),
        ("an empty record", vec![(b"key".to_vec(), Vec::new())]),
        ("no version", altered(0, |record| record.schema_version = 0)),
    ];
    for (what, unfit) in unfit {
        // Noise names a version that may come one day.
        let waits = what == "noise";
        let (code, counted) =
            if waits { (CloseCode::Unavailable, 0) } else { (CloseCode::Forged, 1) };
        world.attack(what, End::Code(code), counted, async |world| {
            let (_peer, _control, mut stream, origin, _) = followed(world, DATASET).await;
            stream.send(&set(&origin, &unfit)).await;
            stream.end().await
        });
        world.attack(&format!("{what}, as a page"), End::Code(code), counted, async |world| {
            let (peer, control, mut follow, origin, _) = followed(world, DATASET).await;
            follow.send(&FollowReply::TakePages).await;
            let mut stream = peer.accept().await;
            let Ok(Open::Tree { .. }) = stream.receive().await else { panic!("no tree stream") };
            let tree = Tree::of(&unfit);
            stream.send(&origin.tree_head(&tree, |_| {})).await;
            let bytes = tree.page(0, &[]).body.clone();
            stream.send(&TreeReply::Part { bytes, more: false }).await;
            let end = stream.end().await;
            drop((follow, control));
            end
        });
    }
    // A version that is not here yet holds its change set back, and nothing else.
    let future = altered(0, |record| record.schema_version = 7);
    world.attack("a version to come", End::Code(CloseCode::Unavailable), 0, async |world| {
        let (_peer, _control, mut stream, origin, _) = followed(world, DATASET).await;
        stream.send(&set(&origin, &future)).await;
        stream.end().await
    });
    world.finish();
}

/// The hub holds number 1 of the member and asks for pages.
async fn asked_behind_the_first<'a>(
    world: &'a World,
) -> (Peer, [Stream; 2], Stream, Origin<'a>, Position) {
    let (peer, control, mut follow, origin, have) = followed(world, DATASET).await;
    let mut have = have;
    if have.is_none() {
        follow.send(&set(&origin, &entries(3))).await;
        let Ok(FollowRequest::Ack { position, .. }) = follow.receive().await else {
            panic!("a first change set is taken")
        };
        have = Some(position);
    }
    follow.send(&FollowReply::TakePages).await;
    let mut stream = peer.accept().await;
    let open: Open = stream.receive().await.unwrap();
    assert_eq!(open, Open::Tree { partition: origin.partition.clone(), have });
    (peer, [control, follow], stream, origin, have.unwrap())
}

/// The head with this number of a history that begins with `first`, and the proof
/// that number 1 is in it.
fn head_behind(origin: &Origin<'_>, first: Hash, seq: u64, tree: &Tree) -> TreeReply {
    let (mut peaks, mut nodes) = (Peaks::new(), BTreeMap::new());
    for number in 1..seq {
        let hash = if number == 1 { first } else { Suite::One.repeated(number as u8) };
        nodes.insert(history::Node { height: 0, index: number - 1 }, hash);
        peaks.push_noting(hash, |node, hash| {
            nodes.insert(node, hash);
        });
    }
    let path = nodes_of(1, seq - 1).unwrap();
    let proof = Proof {
        peaks: peaks.hashes().to_vec(),
        path: path.iter().map(|node| nodes[node]).collect(),
    };
    let (header, _) = origin.first(&vec![]);
    let header = Header {
        seq,
        previous: Suite::One.repeated((seq - 1) as u8),
        history: peaks.root(Suite::One),
        root: tree.summary.root,
        records: tree.summary.records,
        ..header
    };
    let levels = tree.summary.pages.len() as u8;
    let header = SignedHeader::sign(header, origin.key).encode();
    TreeReply::Head { header, levels, root: Vec::new(), proof }
}

#[test]
fn a_second_history_is_not_hidden_by_pages() {
    let mut world = World::new();
    let tree = Tree::of(&entries(9));
    let hub = &world.federation.hub;
    let state = || hub.partition(&name()).map(|it| it["state"].clone());
    let end = world.block_on(async {
        let (_peer, _open, mut stream, origin, have) = asked_behind_the_first(&world).await;
        // One in which number 1 is what the hub has is taken: it asks for the pages.
        stream.send(&head_behind(&origin, have.hash, 5, &tree)).await;
        let asked: TreeRequest = stream.receive().await.unwrap();
        println!("{asked:?}");
        drop(stream);
        let other = SignedHeader::sign(origin.first(&entries(4)).0, origin.key);
        let (_peer, _open, mut stream, origin, _) = asked_behind_the_first(&world).await;
        let later = head_behind(&origin, other.hash(), 7, &tree);
        stream.send(&later).await;
        assert_eq!(stream.end().await, End::Code(CloseCode::Forged), "it proves nothing");
        assert_ne!(state(), Some("quarantined".into()), "nor is it a second history");
        // The same head, with what shows that its history has another number 1.
        let (_peer, _open, mut stream, _, _) = asked_behind_the_first(&world).await;
        let TreeReply::Head { header, proof, .. } = later else { unreachable!() };
        stream.send(&TreeReply::Fork { header, other: other.hash(), proof }).await;
        stream.end().await
    });
    assert_eq!(end, End::Code(CloseCode::Fork));
    wait_until("the partition is quarantined", || state() == Some("quarantined".into()));
    let partition = hub.partition(&name()).unwrap();
    assert_eq!(partition["seq"], 1);
    let log = hub.log();
    assert!(log.contains("two signed histories"), "{log}");
    world.check_service();
}

/// A provider that has jumped over the follower's number itself: nothing is overwritten, and
/// whoever looks is told what to do; a later proof takes the alarm away.
#[test]
fn what_a_provider_cannot_prove_waits_for_a_person_or_a_proof() {
    let mut world = World::new();
    let tree = Tree::of(&entries(9));
    let hub = &world.federation.hub;
    world.block_on(async {
        let (_peer, _open, mut stream, origin, have) = asked_behind_the_first(&world).await;
        stream.reset(CloseCode::Unproved);
        let refetch = format!("partition refetch {}", name());
        wait_until("the alarm says what to do", || {
            let alarms = hub.alarms().join(" ");
            alarms.contains("cannot prove") && alarms.contains(&refetch)
        });
        let held = hub.partition(&name()).unwrap();
        assert_eq!((&held["seq"], &held["state"]), (&1.into(), &"behind".into()), "{held:#}");
        drop(stream);
        let (_peer, _open, mut stream, _, _) = asked_behind_the_first(&world).await;
        stream.send(&head_behind(&origin, have.hash, 5, &tree)).await;
        let asked: TreeRequest = stream.receive().await.unwrap();
        println!("{asked:?}");
        wait_until("the alarm is over", || {
            hub.alarms().iter().all(|alarm| !alarm.contains("cannot prove"))
        });
    });
    world.check_service();
}

#[test]
fn numbers_beyond_all_histories_are_refused() {
    let mut world = World::new();
    let tree = Tree::of(&entries(9));
    let beyond = |origin: &Origin<'_>, seq: u64| {
        // Its peaks are invented, as many as the number has bits.
        let peaks: Vec<Hash> =
            (0..(seq - 1).count_ones()).map(|n| Suite::One.repeated(n as u8)).collect();
        let history = Peaks::of(seq - 1, peaks.clone()).root(Suite::One);
        let previous = Suite::One.repeated(1);
        let head = origin.tree_head(&tree, |header| {
            (header.seq, header.previous, header.history) = (seq, previous, history);
        });
        let TreeReply::Head { header, levels, root, .. } = head else { unreachable!() };
        TreeReply::Head { header, levels, root, proof: Proof { peaks, path: Vec::new() } }
    };
    for (what, seq, code) in [
        ("the last number", u64::MAX, CloseCode::Malformed),
        ("the first that is none", SEQ_LIMIT, CloseCode::Malformed),
        ("the last that is one", SEQ_LIMIT - 1, CloseCode::Unexpected),
        ("one more than a replica passes over", (1 << 32) + 1, CloseCode::Unexpected),
    ] {
        world.attack(what, End::Code(code), 1, async |world| {
            let (peer, control, mut follow, origin, _) = followed(world, DATASET).await;
            follow.send(&FollowReply::TakePages).await;
            let mut stream = peer.accept().await;
            let Ok(Open::Tree { .. }) = stream.receive().await else { panic!("no tree stream") };
            stream.send(&beyond(&origin, seq)).await;
            let end = stream.end().await;
            drop((follow, control));
            end
        });
    }
    world.attack(
        "a first number with a history",
        End::Code(CloseCode::Malformed),
        1,
        async |world| {
            let (_peer, _control, mut stream, origin, _) = followed(world, DATASET).await;
            let mut history = Peaks::new();
            history.push(Suite::One.repeated(9));
            let body = encode_changes(&[] as &[Change]);
            let (header, _) = origin.first(&vec![]);
            let header = Header {
                history: history.root(Suite::One),
                changes_hash: changes_hash(Suite::One, &body),
                ..header
            };
            stream.send(&reply(header, &body, origin.key)).await;
            stream.end().await
        },
    );
}

/// A thief of a county's keys gives its partition a number that the county would
/// never reach.
#[test]
fn what_a_thief_has_numbered_is_dropped_and_the_county_goes_on() {
    let world = World::new();
    let mut county = Node::new(HOSTILE, &world.federation.dir().join(HOSTILE));
    let hub = &world.federation.hub;
    let row = |rows: std::ops::Range<u32>| {
        Table::synthetic(7, rows, "真").write(world.federation.dir(), "true.csv")
    };
    let converged = |county: &Node| {
        let own = county.partition(&name()).unwrap();
        wait_until("the hub has what the county has", || {
            hub.partition(&name()).is_some_and(|replica| replica["head"] == own["head"])
        });
        own
    };
    county.start();
    county.import(DATASET, &row(0..1));
    let own = converged(&county);
    county.stop();

    let far = 100_000;
    world.block_on(async {
        let (peer, control, mut follow, origin, have) = followed(&world, DATASET).await;
        let first = have.expect("the hub has the county's number 1");
        assert_eq!((first.seq, own["head"].clone()), (1, first.hash.to_string().into()));
        follow.send(&FollowReply::TakePages).await;
        let mut stream = peer.accept().await;
        let Ok(Open::Tree { .. }) = stream.receive().await else { panic!("no tree stream") };
        let tree = Tree::of(&entries(9));
        stream.send(&head_behind(&origin, first.hash, far, &tree)).await;
        while let Ok(request) = stream.receive::<TreeRequest>().await {
            let told = match request {
                TreeRequest::Pages { level, .. } => tree.page(level, &[]).body.clone(),
                TreeRequest::Differences { level, salt, pages } => {
                    let body = &tree.page(level, &[]).body;
                    difference::make(Suite::One, level, body, &salt, &pages[0].known).unwrap()
                }
            };
            stream.send(&TreeReply::Part { bytes: told, more: false }).await;
        }
        drop((control, follow));
    });
    wait_until("the hub has the thief's", || {
        hub.partition(&name()).is_some_and(|replica| replica["seq"] == far)
    });

    let refetch = ["partition", "refetch", &name(), "--good", "1"];
    hub.cli(&refetch).expect_failure(&["revoke"]);
    let missing = format!("enterprise/{HOSTILE}9");
    hub.cli(&["partition", "refetch", &missing]).expect_failure(&["没有分区", "status"]);
    hub.cli(&["revoke", HOSTILE, "--reason", "stolen"]).expect_code(0);
    let done = hub.cli(&refetch).expect_code(0);
    println!("{}", done.stdout);
    // Whoever does not know whether it came to its end gives it again.
    hub.cli(&refetch).expect_code(0);
    assert!(hub.partition(&name()).is_none_or(|replica| replica["seq"] != far));
    let address = world.federation.address().to_string();
    let token = world.federation.invite(HOSTILE, &["--address", &address]);
    county.cli(&["join", &token]).expect_code(0);
    county.start();
    converged(&county);
    county.import(DATASET, &row(1..2));
    let own = converged(&county);
    assert_eq!((&own["seq"], &own["records"]), (&2.into(), &2.into()));
    hub.verify_deep();
    county.stop();
    world.finish();
}
