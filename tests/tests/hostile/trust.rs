//! How far a member believes its hub about the member's own history, and about what
//! is personal; and who may join at once.

use std::{collections::BTreeMap, sync::Arc};

use certs::{
    credentials::Credentials,
    enrol::Token,
    keyfile::{KeyDir, SIGNING_KEY_FILE},
    tls::ALPN_JOIN,
};
use harness::{
    federation::{Federation, HUB},
    node::{Node, Output, path_text, wait_until},
    table::Table,
};
use protocol::{
    change::Position,
    federation::{Entry, Introduction, KeyRecord},
    history::SEQ_LIMIT,
    id::NodeId,
    message::{
        CloseCode, FollowReply, FollowRequest, JoinRefused, JoinReply, JoinRequest, Open,
        TreeReply, decode_header,
    },
    schema::{RawSchema, Schema},
    sign::SigningKey,
    suite::Suite,
};

use crate::{
    enrolment::{answer, request},
    forge::{Origin, Tree, entries},
    lure::{FalseHub, History, Lured, Victim, hub_key},
    peer::{Dial, End, Peer},
    world::{World, claim, partition},
};

const VICTIM: &str = "410183";

fn import(victim: &Victim, world: &World, row: u32) -> Output {
    let file = Table::synthetic(5, row..row + 1, "害").write(world.federation.dir(), "v.csv");
    victim.node.cli(&["import", "enterprise", path_text(&file)])
}

/// The victim's head as `key` signs it.
fn head_at(tree: &Tree, key: &SigningKey, federation_head: Position, seq: u64) -> TreeReply {
    let own = partition(&format!("enterprise/{VICTIM}"));
    Origin { partition: own, key, federation_head }.tree_head(tree, |header| {
        header.seq = seq;
        header.previous = Suite::One.repeated(7);
        header.history = Suite::One.repeated(8);
    })
}

#[test]
fn only_what_a_member_has_signed_itself_stops_its_writes() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    let history = world.block_on(History::of_hub(&world));
    let own = partition(&format!("enterprise/{VICTIM}"));
    let mut claimed = claim(own.clone());
    claimed.position.seq = 1000;
    let own_key = own_key(&victim);
    let (other_key, tree) = (Suite::One.signing_key(&[5; 32]).unwrap(), Tree::of(&entries(3)));
    let head = |key: &SigningKey, seq: u64| head_at(&tree, key, history.head, seq);

    // A claim alone, and what others have signed.
    let mut lured = world.block_on(hub.lured(vec![claimed.clone()]));
    import(&victim, &world, 0).expect_code(0);
    wait_until("a person is told", || {
        victim.alarms().iter().any(|alarm| alarm.contains("number 1000"))
    });
    let mut show = |head: TreeReply| {
        world.block_on(async {
            loop {
                let mut stream = lured.accept().await;
                // Nothing of a partition is followed before its proof.
                let Ok(Open::Tree { partition, .. }) = stream.receive().await else {
                    panic!("a proof")
                };
                assert_eq!(partition, own);
                stream.send(&head).await;
                if stream.end().await != End::Code(CloseCode::Normal) {
                    return;
                }
            }
        });
    };
    show(head(&other_key, 1000));
    wait_until("there is no proof", || {
        victim.alarms().iter().any(|alarm| alarm.contains("nothing that this node has signed"))
    });
    import(&victim, &world, 1).expect_code(0);
    show(head(&hub_key(&world), 1000));
    import(&victim, &world, 2).expect_code(0);
    // What it has signed itself counts.
    world.block_on(async {
        loop {
            let mut stream = lured.accept().await;
            if let Ok(Open::Tree { .. }) = stream.receive().await {
                stream.send(&head(&own_key, 1000)).await;
                stream.finish();
            } else {
                return;
            }
        }
    });
    let refused = import(&victim, &world, 3).expect_failure(&["number 1000", "restored"]);
    println!("{}", refused.stderr);
    assert!(victim.alarms().iter().any(|alarm| alarm.contains("signed by this node")));
    drop(lured);
    import(&victim, &world, 3).expect_failure(&["number 1000"]);
    drop(victim);
    world.finish();
}

/// A key's record, with a last number that nobody can have reached if it has ended.
fn key_record(key: &SigningKey, ended: bool) -> KeyRecord {
    let mut record = KeyRecord::new(&key.public(), Introduction::Reenrolment, 0);
    let last = BTreeMap::from([(format!("enterprise/{VICTIM}"), SEQ_LIMIT - 1)]);
    record.last = ended.then_some(last);
    record
}

/// The victim has made this key, too.
fn know(victim: &mut Victim, key: &SigningKey) {
    victim.node.stop();
    let own_keys = victim.node.dir().join("certs/own-keys");
    let known = std::fs::read_to_string(&own_keys).unwrap();
    let key = protocol::hex::encode(key.public().as_bytes());
    std::fs::write(&own_keys, format!("{known}{key}\n")).unwrap();
    victim.node.start();
}

fn own_key(victim: &Victim) -> SigningKey {
    KeyDir::new(victim.node.dir().join("keys"), None).load(SIGNING_KEY_FILE).unwrap()
}

/// The next change set of `_federation`, with these records of the victim's keys,
/// numbered from 1.
fn put_keys(world: &World, history: &mut History, keys: &[KeyRecord]) -> FollowReply {
    let victim = NodeId::new(VICTIM).unwrap();
    let entry = |(key, number): (&KeyRecord, u32)| Entry::Key(victim.clone(), number, key.clone());
    let puts = keys.iter().zip(1..).map(|key| entry(key).put().unwrap());
    history.go_on(&puts.collect::<Vec<_>>(), &hub_key(world), |_| {})
}

/// Has the victim take them.
fn tell_keys(world: &World, hub: &FalseHub, history: &mut History, keys: &[KeyRecord]) -> Lured {
    let set = put_keys(world, history, keys);
    let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
    assert_eq!(world.block_on(lured.provide(&[set])), Ok(()));
    lured
}

fn is_told(victim: &Victim, words: &str) -> bool {
    victim.alarms().iter().any(|alarm| alarm.contains(words))
}

/// A hub that has its signing key writes into the county's own key record up to which
/// number it counts: the word of somebody who cannot sign in the county's name.
#[test]
fn a_last_number_that_nobody_has_signed_does_not_stop_a_county() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let mut history = world.block_on(History::of_hub(&world));
    let own_key = own_key(&victim);
    import(&victim, &world, 0).expect_code(0);

    let lured = tell_keys(&world, &hub, &mut history, &[key_record(&own_key, true)]);
    let number = (SEQ_LIMIT - 1).to_string();
    wait_until("a person is told of the key, and of the number", || {
        is_told(&victim, "has ended this node's signing key")
            && is_told(
                &victim,
                &format!("signed up to number {number}, and here it ends at number 1"),
            )
    });
    assert!(!is_told(&victim, "restored"), "{:#?}", victim.alarms());
    import(&victim, &world, 1).expect_code(0);
    drop(lured);
    victim.node.restart();
    import(&victim, &world, 2).expect_code(0);
    victim.node.stop();
    import(&victim, &world, 3).expect_code(0);
    victim.node.start();

    // The record is taken back while the daemon runs.
    let lured = tell_keys(&world, &hub, &mut history, &[key_record(&own_key, false)]);
    wait_until("no alarm stays", || victim.alarms().is_empty());
    import(&victim, &world, 4).expect_code(0);
    drop((lured, victim));
    world.finish();
}

/// The same of an earlier key. It stops a county that has just joined, which cannot
/// know what the directory before it has signed, and only until the hub has answered.
#[test]
fn a_last_number_of_an_earlier_key_is_believed_after_a_join_until_the_hub_has_answered() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let mut history = world.block_on(History::of_hub(&world));
    let (own_key, earlier) = (own_key(&victim), Suite::One.signing_key(&[6; 32]).unwrap());
    know(&mut victim, &earlier);
    import(&victim, &world, 0).expect_code(0);

    let keys = [key_record(&earlier, true), key_record(&own_key, false)];
    let lured = tell_keys(&world, &hub, &mut history, &keys);
    let is_unproven =
        |victim: &Victim| is_told(victim, "nobody takes it until the list is corrected");
    wait_until("a person is told", || is_unproven(&victim));
    import(&victim, &world, 1).expect_code(0);
    drop(lured);
    victim.node.stop();
    import(&victim, &world, 2).expect_code(0);

    // As if it had just joined.
    let joined = victim.node.dir().join("certs/joined");
    std::fs::write(&joined, "").unwrap();
    import(&victim, &world, 3).expect_failure(&["has joined again", "本节点已重新加入"]);
    victim.node.start();
    wait_until("a person is told what is missing", || is_told(&victim, "taken back by itself"));
    import(&victim, &world, 3).expect_failure(&["has joined again"]);
    let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
    wait_until("the hub's answer shows nothing", || is_unproven(&victim) && !joined.exists());
    import(&victim, &world, 3).expect_code(0);
    drop((lured, victim));
    world.finish();
}

/// The false hub acknowledges the victim's number 1.
fn acknowledge_first(world: &World, lured: &Lured, victim: &Victim) {
    let own = format!("enterprise/{VICTIM}");
    let _follows = world.block_on(async {
        let mut stream = lured.peer.open().await;
        stream.send(&Open::Follow { partition: partition(&own), have: None }).await;
        let Ok(FollowReply::ChangeSet { header, .. }) = stream.receive().await else {
            panic!("its hub may have it")
        };
        let header = decode_header(&header).unwrap();
        let (position, root) = (header.position(), header.header().root);
        stream.send(&FollowRequest::Ack { position, root }).await;
        stream
    });
    wait_until("number 1 is acknowledged", || {
        let status = victim.node.partition(&own).unwrap();
        status["acked"].as_array().unwrap().iter().any(|ack| ack["seq"] == 1)
    });
}

/// A hub that ends the county's key below what it has acknowledged wants a second
/// history signed: the next key signs nothing, and the present one goes on.
#[test]
fn a_hub_that_counts_less_than_it_has_acknowledged_gets_no_second_history() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let mut history = world.block_on(History::of_hub(&world));
    let (own_key, next) = (own_key(&victim), Suite::One.signing_key(&[6; 32]).unwrap());
    let keys = KeyDir::new(victim.node.dir().join("keys"), None);
    keys.save_next(SIGNING_KEY_FILE, &next).unwrap();
    know(&mut victim, &next);
    import(&victim, &world, 0).expect_code(0);
    let own = format!("enterprise/{VICTIM}");

    let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
    acknowledge_first(&world, &lured, &victim);
    let mut ended = key_record(&own_key, true);
    ended.last = Some(BTreeMap::new());
    let follows = key_record(&next, false);
    let set = put_keys(&world, &mut history, &[ended.clone(), follows.clone()]);
    assert_eq!(world.block_on(lured.provide(&[set])), Ok(()));
    let words = "counts up to number 0 only";
    wait_until("a person is told", || is_told(&victim, words));
    import(&victim, &world, 1).expect_code(0);
    drop(lured);
    victim.node.restart();
    wait_until("a person is told again", || is_told(&victim, words));
    import(&victim, &world, 2).expect_code(0);
    assert!(keys.load::<SigningKey>(SIGNING_KEY_FILE).unwrap().public() == own_key.public());

    // The list is corrected, and the next key signs again what nobody has taken.
    ended.last = Some(BTreeMap::from([(own.clone(), 1)]));
    let lured = tell_keys(&world, &hub, &mut history, &[ended, follows]);
    wait_until("no alarm stays", || victim.alarms().is_empty());
    assert!(keys.load::<SigningKey>(SIGNING_KEY_FILE).unwrap().public() == next.public());
    import(&victim, &world, 3).expect_code(0);
    drop((lured, victim));
    world.finish();
}

/// The same after the county was revoked: it joins again, and the key with which it does
/// so signs nothing yet.
#[test]
fn who_joins_a_hub_that_counts_less_than_it_has_acknowledged_is_told_which_key_signs() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    let history = world.block_on(History::of_hub(&world));
    let own_key = own_key(&victim);
    import(&victim, &world, 0).expect_code(0);
    // As if the hub had been restored from before that.
    let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
    acknowledge_first(&world, &lured, &victim);
    drop(lured);

    world.federation.hub.cli(&["revoke", VICTIM]).expect_code(0);
    let address = world.federation.address().to_string();
    let token = world.federation.invite(VICTIM, &["--address", &address]);
    let joined = victim.node.cli(&["join", &token]).expect_code(0);
    assert!(!joined.stderr.contains("a new one signs"), "{joined:?}");
    assert!(is_told(&victim, "counts up to number 0 only"), "{:#?}", victim.alarms());
    assert!(self::own_key(&victim).public() == own_key.public());
    import(&victim, &world, 1).expect_code(0);
    drop(victim);
    world.finish();
}

/// A directory from before its last change of keys hears of its newest history first,
/// and then of the key that has signed it: until then there is no answer.
#[test]
fn a_proof_by_a_key_that_is_still_on_its_way_counts_once_that_has_arrived() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let mut history = world.block_on(History::of_hub(&world));
    let (own_key, next) = (own_key(&victim), Suite::One.signing_key(&[6; 32]).unwrap());
    know(&mut victim, &next);
    let mut ended = key_record(&own_key, true);
    ended.last = Some(BTreeMap::from([(format!("enterprise/{VICTIM}"), 5)]));
    let set = put_keys(&world, &mut history, &[ended, key_record(&next, false)]);
    let proof = head_at(&Tree::of(&entries(3)), &next, history.head, 1000);
    let mut claimed = claim(partition(&format!("enterprise/{VICTIM}")));
    claimed.position.seq = 1000;

    let mut lured = world.block_on(hub.lured(vec![History::announced(history.head), claimed]));
    let mut members = world.block_on(async {
        let (mut members, mut refused) = (None, false);
        while members.is_none() || !refused {
            let mut stream = lured.accept().await;
            match stream.receive().await {
                Ok(Open::Tree { .. }) => {
                    stream.send(&proof).await;
                    refused = stream.end().await != End::Code(CloseCode::Normal);
                }
                Ok(Open::Follow { partition, .. }) if partition.dataset.is_system() => {
                    members = Some(stream);
                }
                other => panic!("{other:?}"),
            }
        }
        members.unwrap()
    });
    wait_until("a person is told that the proof is asked for", || {
        is_told(&victim, "It was asked for the proof")
    });
    world.block_on(async {
        members.send(&set).await;
        loop {
            let mut stream = lured.accept().await;
            match stream.receive().await {
                Ok(Open::Tree { .. }) => {
                    stream.send(&proof).await;
                    stream.finish();
                }
                // Its own history is followed: the proof counts.
                Ok(Open::Follow { .. }) => return,
                other => panic!("{other:?}"),
            }
        }
    });
    import(&victim, &world, 0).expect_failure(&["number 1000", "restored"]);
    assert!(is_told(&victim, "signed by this node"), "{:#?}", victim.alarms());
    drop((lured, victim));
    world.finish();
}

/// What `import` rejects of a row whose citizen id is wrong, as the reports show it.
fn shown(node: &Node, world: &World, fields: &[String]) -> String {
    let value = |name: &str| match name {
        "XK_FR_ZJHM" | "OTHER" => "41010219800101123\u{7}",
        "XK_FRDB" => "张三\u{7}",
        _ => "x",
    };
    let row: Vec<_> = fields.iter().map(|name| value(name)).collect();
    let file = world.federation.dir().join("licence.csv");
    std::fs::write(&file, format!("{}\n{}\n", fields.join(","), row.join(","))).unwrap();
    let report = node.cli(&["import", "admin-licence", path_text(&file), "--json"]);
    report.stdout + &report.stderr
}

#[test]
fn personal_fields_stay_masked_until_the_countys_administrator_agrees() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let key = hub_key(&world);
    let mut history = world.block_on(History::of_hub(&world));
    let before: RawSchema =
        serde_json::from_value(victim.node.json(&["dataset", "show", "admin-licence"])).unwrap();
    let personal = |schema: &RawSchema| -> Vec<String> {
        schema.fields.iter().filter(|f| f.personal).map(|f| f.name.clone()).collect()
    };
    let names = personal(&before);
    assert!(!names.is_empty());
    let publish = |history: &mut History, raw: &RawSchema| {
        let set = history.put(&Entry::Schema(Schema::check(raw.clone()).unwrap()), &key);
        let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
        assert_eq!(world.block_on(lured.provide(&[set])), Ok(()));
    };
    let now = |victim: &Victim| -> RawSchema {
        serde_json::from_value(victim.node.json(&["dataset", "show", "admin-licence"])).unwrap()
    };
    let alarm = |victim: &Victim| {
        victim.alarms().into_iter().find(|alarm| alarm.contains("dataset accept"))
    };

    // Nothing is personal any more, and one field has another name.
    let mut second = RawSchema { version: 2, ..before.clone() };
    for field in &mut second.fields {
        field.personal = false;
    }
    let renamed = second.fields.iter_mut().find(|field| field.name == names[0]).unwrap();
    renamed.name = "OTHER".into();
    publish(&mut history, &second);
    wait_until("an alarm says so", || alarm(&victim).is_some());
    let told = alarm(&victim).unwrap();
    for word in ["admin-licence", "OTHER", names[1].as_str(), "--version 2"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    let masked: Vec<String> = names
        .iter()
        .map(|name| if *name == names[0] { "OTHER" } else { name }.to_owned())
        .collect();
    assert_eq!(personal(&now(&victim)), masked);
    let fields: Vec<String> = second.fields.iter().map(|field| field.name.clone()).collect();
    let report = shown(&victim.node, &world, &fields);
    assert!(!report.contains("41010219800101123"), "{report}");

    // Neither a restart nor a later version changes that.
    victim.node.restart();
    assert_eq!(personal(&now(&victim)), masked);
    let third = RawSchema { version: 3, ..second.clone() };
    publish(&mut history, &third);
    wait_until("it is of version 3", || {
        alarm(&victim).is_some_and(|alarm| alarm.contains("--version 3"))
    });
    assert_eq!(personal(&now(&victim)), masked);
    // Agreement to what was looked at is no agreement to what came since.
    let accept = ["dataset", "accept", "admin-licence", "--version"];
    victim.node.cli(&[&accept[..], &["2"]].concat()).expect_failure(&["3", "dataset show"]);
    let accepted = victim.node.json(&[&accept[..], &["3"]].concat());
    assert_eq!(accepted["fields"].as_array().unwrap().len(), masked.len(), "{accepted}");
    assert_eq!(personal(&now(&victim)), [""; 0]);
    assert_eq!(alarm(&victim), None);
    victim.node.restart();
    assert_eq!(personal(&now(&victim)), [""; 0], "it is written down");
    drop(victim);

    // At the hub its own administrator's word counts at once.
    let file = world.federation.dir().join("licence.toml");
    std::fs::write(&file, toml::to_string(&second).unwrap()).unwrap();
    world.federation.hub.cli(&["dataset", "apply", path_text(&file)]).expect_code(0);
    let at_hub = world.federation.hub.json(&["dataset", "show", "admin-licence"]);
    assert_eq!(personal(&serde_json::from_value(at_hub).unwrap()), [""; 0]);
    world.federation.hub.cli(&["dataset", "accept", "admin-licence"]).expect_failure(&["apply"]);
    world.finish();
}

#[test]
fn a_catalogue_without_end_costs_a_member_little_and_is_told_of() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let mut victim = Victim::new(&world, VICTIM, &hub);
    let key = hub_key(&world);
    let mut history = world.block_on(History::of_hub(&world));
    let field = |n: usize| {
        serde_json::json!({
            "name": format!("f{n}"), "title_zh": format!("题{n}"), "title_en": format!("t{n}"),
            "aliases": (0..18).map(|a| format!("alias{n}x{a}aaaaaa")).collect::<Vec<_>>(),
            "type": "text", "required": n == 0,
        })
    };
    let fields: Vec<_> = (0..120).map(field).collect();
    let schema = |n: u32| {
        let raw = serde_json::json!({
            "dataset": format!("d{n:05}"), "version": 1, "title_zh": "多", "title_en": "many",
            "key": ["f0"], "field": fields,
        });
        Entry::Schema(Schema::check(serde_json::from_value(raw).unwrap()).unwrap()).put().unwrap()
    };
    let before = memory_kib(&victim.node);
    let sets: Vec<_> = (0..4)
        .map(|chunk| {
            let changes: Vec<_> = (0..60).map(|n| schema(chunk * 60 + n)).collect();
            history.go_on(&changes, &key, |_| {})
        })
        .collect();
    let lured = world.block_on(hub.lured(vec![History::announced(history.head)]));
    assert_eq!(world.block_on(lured.provide(&sets)), Ok(()));
    wait_until("what is above the limit is told of", || {
        victim.alarms().iter().any(|alarm| alarm.contains("ignored"))
    });
    let listed = victim.node.json(&["dataset", "list"]);
    let listed = listed["datasets"].as_array().unwrap().len();
    assert!(listed <= protocol::federation::DATASETS_MAX, "{listed} datasets");
    let more = memory_kib(&victim.node).saturating_sub(before) / 1024;
    println!("{listed} datasets of 244 are listed, and the daemon takes {more} MiB more");
    assert!(more < 400, "{more} MiB");
    victim.node.restart();
    assert!(victim.alarms().iter().any(|alarm| alarm.contains("ignored")));
    drop(victim);
    world.finish();
}

/// The memory of a node's daemon.
fn memory_kib(node: &Node) -> u64 {
    let pid = std::fs::read_to_string(node.dir().join("run/lock")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn addresses_that_say_nothing_keep_nobody_from_joining() {
    let world = World::new();
    let silent = |network: u8| {
        let from = [127, 0, 0, network].into();
        let dial = Dial { from, anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
        world.block_on(async move { dial.connect().await.unwrap() })
    };
    let held: Vec<Peer> = (0..32).map(|n| silent(2 + n / 8)).collect();
    // While they hold on.
    world.join("410187");
    // And each ends by itself soon.
    let ends = world.block_on(async {
        let mut ends = Vec::new();
        for peer in &held {
            ends.push(peer.closed().await);
        }
        ends
    });
    let busy = ends.iter().filter(|end| **end == End::Code(CloseCode::Unavailable)).count();
    assert!((1..=3).contains(&busy), "only as many made room as were needed: {ends:?}");
    world.finish();
}

#[test]
fn who_lost_the_answer_is_answered_again_and_nobody_else_is() {
    let world = World::new();
    let dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    let address = world.federation.address().to_string();
    let invite =
        || Token::parse(&world.federation.invite("410184", &["--address", &address])).unwrap();
    let token = invite();
    let first = request(&token);
    let accepted = |request: &JoinRequest| {
        matches!(answer(&world, &dial, request), JoinReply::Accepted { .. })
    };
    assert!(accepted(&first));
    assert!(accepted(&first), "the answer was lost");
    let keys = world.federation.hub.json(&["node", "show", "410184"])["signing_keys"].clone();
    assert_eq!(keys.as_array().unwrap().len(), 1, "{keys}");
    let used = |request: &JoinRequest| {
        answer(&world, &dial, request) == JoinReply::Refused(JoinRefused::Used)
    };
    assert!(used(&request(&token)), "other keys");
    let mut mixed = first.clone();
    mixed.csr = request(&token).csr;
    assert!(used(&mixed), "another certificate's key");
    // It ends with the next token, and with a revocation.
    let next = invite();
    assert!(used(&first));
    let again = request(&next);
    assert!(accepted(&again));
    world.federation.hub.cli(&["revoke", "410184", "--reason", "lost"]).expect_code(0);
    assert!(used(&again), "it was revoked since");
    world.finish();
}

#[test]
fn of_a_used_token_nothing_is_said_but_that_it_was_used_also_after_its_root_has_ended() {
    let world = World::new();
    let address = world.federation.address().to_string();
    let token = world.federation.invite("410184", &["--address", &address]);
    let request = request(&Token::parse(&token).unwrap());
    let mut dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    assert!(matches!(answer(&world, &dial, &request), JoinReply::Accepted { .. }));
    let hub = &world.federation.hub;
    assert_eq!(hub.json(&["ca", "rotate", "--root"])["step"], "prepared");
    assert_eq!(hub.json(&["ca", "rotate", "--force", "--yes"])["step"], "activated");
    wait_until("the honest county has renewed", || {
        let county = world.federation.counties[0].status();
        county["certificates"][0]["issuer"].as_str().is_some_and(|name| name.ends_with('2'))
    });
    assert_eq!(hub.json(&["ca", "rotate", "--force", "--yes"])["step"], "retired");
    let shown = &world.credentials;
    dial.credentials = Arc::new(Credentials {
        chain: shown.chain.clone(),
        key: shown.key.clone_key(),
        roots: vec![world.hub_dirs().root(2).unwrap()],
        identity: shown.identity.clone(),
    });
    let reply = answer(&world, &dial, &request);
    assert_eq!(reply, JoinReply::Refused(JoinRefused::Used));
    world.finish();
}

#[test]
fn who_joins_again_with_a_new_key_loses_no_token_with_the_answer() {
    let mut world = World::new();
    let mut node = world.join("410184");
    let hub = &mut world.federation.hub;
    hub.cli(&["revoke", "410184"]).expect_code(0);
    let address = world.federation.address().to_string();
    let token = world.federation.invite("410184", &["--address", &address]);
    let hub = &mut world.federation.hub;
    hub.stop();
    // It grants what the token is for, to a key that follows the retired one.
    hub.try_start_to_crash("invite.granted").unwrap();
    let mut join = node.command(&["join", &token]).spawn().unwrap();
    hub.wait_crashed("invite.granted");
    hub.start();
    assert!(join.wait().unwrap().success(), "it asks again with that key");
    node.start();
    node.wait_connected(HUB);
    drop(node);
    world.finish();
}

#[test]
fn a_name_that_steers_terminals_keeps_no_node_from_starting() {
    let federation = Federation::hub_only();
    let bad = "一\u{1b}[31m\n\u{202e}县";
    federation.hub.cli(&["invite", "410122", "--name", bad]).expect_failure(&["--name"]);
    // Made by somebody who was less careful.
    let token = Token::parse(&federation.invite("410122", &[])).unwrap();
    let token = Token { name: bad.into(), ..token };
    let mut node = Node::new("410122", &federation.dir().join("410122"));
    let joined = node.cli(&["join", &token.to_text()]).expect_code(0);
    assert!(!joined.stderr.contains('\u{1b}'), "{joined:?}");
    node.start();
    node.wait_connected(HUB);
    node.stop();
}
