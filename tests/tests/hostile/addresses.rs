//! A hub that lies about where it is: it leads its members nowhere but to silence, and
//! never away from what they were configured with.

use harness::{
    federation::{HUB, free_address},
    node::{DEADLINE, wait_for_ok},
};
use protocol::{
    federation::{Entry, HubAddresses},
    id::NodeId,
};
use serde_json::json;

use crate::{
    lure::{FalseHub, History, Victim, hub_key},
    world::World,
};

const VICTIM: &str = "410183";

fn said_by(node: &str, addresses: &[String]) -> Entry {
    let record = HubAddresses { addresses: addresses.to_vec(), since: 1 };
    Entry::Address(NodeId::new(node).unwrap(), record)
}

#[test]
fn whatever_a_hub_says_of_its_addresses_the_configured_one_is_dialled() {
    let world = World::new();
    let hub = FalseHub::start(&world);
    let victim = Victim::new(&world, VICTIM, &hub);
    let own = hub.address.to_string();
    let mut history = world.block_on(History::of_hub(&world));
    let key = hub_key(&world);
    let dead = free_address().to_string();
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let many: Vec<String> = (0..100).map(|n| format!("h{n}.example.org:1")).collect();
    // What it says, and what is dialled then.
    for (what, entry, dialled) in [
        ("nobody is there", said_by(HUB, &texts(&[&dead])), vec![dead.clone(), own.clone()]),
        ("no address", said_by(HUB, &texts(&["0.0.0.0:1"])), vec![own.clone()]),
        ("steers a terminal", said_by(HUB, &texts(&["\u{1b}[2J:1"])), vec![own.clone()]),
        ("long", said_by(HUB, &[format!("{}:1", "a".repeat(10_000))]), vec![own.clone()]),
        ("many", said_by(HUB, &many), vec![own.clone()]),
        ("none", said_by(HUB, &[]), vec![own.clone()]),
        ("nobody is there, again", said_by(HUB, &texts(&[&dead])), vec![dead.clone(), own.clone()]),
        ("of a county", said_by(VICTIM, &texts(&["a:1"])), vec![dead.clone(), own.clone()]),
    ] {
        let set = history.put(&entry, &key);
        let heads = vec![History::announced(history.head)];
        // It comes each time, and takes the change set: a record is ignored alone.
        let taken = world.block_on(async {
            let lured = hub.lured(heads).await;
            lured.provide(&[set]).await
        });
        assert_eq!(taken, Ok(()), "{what}");
        wait_for_ok(what, DEADLINE, || {
            let status = victim.node.status();
            let found = &status["hub_addresses"];
            if *found == json!(dialled) { Ok(()) } else { Err(format!("{found}")) }
        });
        println!("{what}: {dialled:?}");
    }
    let ignored = |alarm: &String| alarm.contains("ignored") && alarm.contains("only the hub");
    assert!(victim.alarms().iter().any(ignored), "{:?}", victim.alarms());
    drop(victim);
    world.finish();
}
