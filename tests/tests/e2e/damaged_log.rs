//! Logs of change sets that somebody has damaged on the disk of a node that is stopped:
//! what was signed comes back from a peer, what nobody keeps any more is left out as what is
//! old is, and whoever comes later gets everything.
//!
//! The test writes into the database of a node that is stopped, which nothing else does
//! outside of the store.

use std::{collections::BTreeMap, path::Path};

use harness::{
    federation::Federation,
    node::{Node, wait_until},
    table::Table,
};

const COUNTY: &str = "410122";
const FEDERATION: &str = "_federation/410100";

/// What is done to a number of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    HeaderGarbled,
    /// It decodes, and is another one.
    HeaderAltered,
    Signature,
    HeaderMissing,
    Body,
    BodyMissing,
}

/// The database of a node that is stopped.
struct Database {
    tree: sled::Tree,
    db: sled::Db,
}

impl Database {
    fn open(node: &Node) -> Self {
        // As the store opens it, but for the cache.
        let config = sled::Config::new().path(node.dir().join("store/sled"));
        let db = config.segment_size(8 * 1024 * 1024).open().unwrap();
        Self { tree: db.open_tree("creditsync").unwrap(), db }
    }

    fn key(&self, table: u8, partition: &str, seq: u64) -> Vec<u8> {
        let number = self.tree.get(format!("ntest-city/{partition}/*")).unwrap();
        [&[table], &number.expect("the partition has a number")[..], &seq.to_be_bytes()].concat()
    }

    fn harm(&self, partition: &str, seq: u64, harm: Harm) {
        let is_of_body = matches!(harm, Harm::Body | Harm::BodyMissing);
        let key = self.key(if is_of_body { b'b' } else { b'l' }, partition, seq);
        let mut value = self.tree.get(&key).unwrap().expect("it is there").to_vec();
        let last = value.len() - 1;
        match harm {
            Harm::HeaderGarbled => value.truncate(last),
            // The last bytes are the id of the key.
            Harm::HeaderAltered | Harm::Body => value[last] ^= 1,
            // Behind the number of the suite.
            Harm::Signature => value[1] ^= 1,
            Harm::HeaderMissing | Harm::BodyMissing => {
                self.tree.remove(&key).unwrap();
                return;
            }
        }
        self.tree.insert(key, value).unwrap();
    }

    /// All headers and bodies of a partition's log, by table and number.
    fn log(&self, partition: &str) -> BTreeMap<(char, u64), Vec<u8>> {
        let mut log = BTreeMap::new();
        for table in [b'l', b'b'] {
            let prefix = self.key(table, partition, 0);
            for pair in self.tree.scan_prefix(&prefix[..5]) {
                let (key, value) = pair.unwrap();
                let seq = u64::from_be_bytes(key[5..].try_into().unwrap());
                log.insert((char::from(table), seq), value.to_vec());
            }
        }
        log
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.db.flush().unwrap();
    }
}

/// Commits as many change sets as there are names.
fn import_all(node: &Node, dir: &Path, owner: u32, names: &[&str]) {
    for name in names {
        let file = Table::synthetic(owner, 0..40, name).write(dir, "delivery.csv");
        node.import("enterprise", &file);
    }
}

fn chore(node: &Node, name: &str) -> serde_json::Value {
    // 3 while something needs a person.
    let list = node.cli(&["chore", "list", "--json"]).json();
    let chores = list["chores"].as_array().unwrap().clone();
    chores.into_iter().find(|chore| chore["name"] == name).unwrap()
}

/// All of a node's logs is well, and nothing is said of it any more.
#[track_caller]
fn wait_mended(node: &Node) {
    wait_until("everything was read, and the log is mended", || {
        let read = chore(node, "scrub")["result"].is_string();
        read && node.cli(&["verify", "--deep"]).code == Some(0)
    });
    wait_until("nothing is said of it any more", || {
        node.alarms().is_empty() && chore(node, "repair")["state"] == "idle"
    });
    let mended = node.cli(&["repair", &format!("enterprise/{COUNTY}")]).expect_code(0).stdout;
    assert!(mended.contains("nothing to repair"), "{mended}");
}

/// Whoever says that it is in sync shows what its origin has.
fn assert_never_equal_while_different(federation: &Federation, delivered: &str) {
    let partition = format!("enterprise/{COUNTY}");
    let state = federation.hub.partition(&partition).map(|it| it["state"].clone());
    let exported = federation.hub.cli(&["export", &partition]);
    if state.is_some_and(|state| state == "in_sync") && exported.code == Some(0) {
        assert_eq!(exported.stdout, delivered, "in sync, and different");
    }
}

#[test]
fn a_damaged_log_is_mended_from_a_peer_and_who_joins_later_gets_everything() {
    // A second one, so that `_federation` has more numbers.
    let mut federation = Federation::new(&[COUNTY, "410181"]);
    let dir = federation.dir().to_owned();
    let of_county = format!("enterprise/{COUNTY}");
    let of_hub = format!("enterprise/{}", federation.hub.name());
    let names = ["一", "二", "三", "四", "五", "六", "七", "八", "九", "十"];
    import_all(&federation.counties[0], &dir, 1, &names);
    import_all(&federation.hub, &dir, 2, &names);
    federation.wait_converged();
    for harms_hub in [false, true] {
        let [hub, county] = [&mut federation.hub, &mut federation.counties[0]];
        let delivered = county.export(&of_county);
        county.stop();
        hub.stop();
        let harmed = if harms_hub { &*hub } else { &*county };
        let database = Database::open(harmed);
        let mut before = BTreeMap::new();
        for partition in [&of_county, &of_hub, FEDERATION] {
            before.insert(partition.to_owned(), database.log(partition));
        }
        for partition in [&of_county, &of_hub] {
            for (seq, harm) in [
                (2, Harm::HeaderGarbled),
                (3, Harm::HeaderAltered),
                (4, Harm::Signature),
                (6, Harm::HeaderMissing),
                (8, Harm::Body),
                (9, Harm::BodyMissing),
                (10, Harm::HeaderGarbled),
            ] {
                database.harm(partition, seq, harm);
            }
        }
        database.harm(FEDERATION, 1, Harm::Body);
        database.harm(FEDERATION, 2, Harm::HeaderAltered);
        database.harm(FEDERATION, 2, Harm::Body);
        drop(database);
        // It is found and said while nobody is there from whom it could come.
        let harmed = if harms_hub { &mut federation.hub } else { &mut federation.counties[0] };
        harmed.start();
        wait_until("the damage is told, with what is done about it", || {
            let alarms = harmed.alarms().join(" ");
            alarms.contains(&format!("creditsync repair {of_county}"))
                && alarms.contains("变更日志有")
        });
        let told = harmed.cli(&["verify", &of_county, "--deep"]).expect_code(3).stdout;
        assert!(told.contains("number 3") && told.contains("变更日志的损坏会自动修复"), "{told}");
        let refused = harmed.cli(&["repair", &of_county]);
        refused.expect_failure(&["no pe", "number 3"]);
        let other = if harms_hub { &mut federation.counties[0] } else { &mut federation.hub };
        other.start();
        federation.wait_connected();
        assert_never_equal_while_different(&federation, &delivered);
        let harmed = if harms_hub { &federation.hub } else { &federation.counties[0] };
        wait_mended(harmed);
        assert_never_equal_while_different(&federation, &delivered);
        assert_eq!(federation.hub.export(&of_county), delivered);
        // What was signed is there to the letter, and of the bodies none that is damaged.
        let harmed = if harms_hub { &mut federation.hub } else { &mut federation.counties[0] };
        harmed.stop();
        let database = Database::open(harmed);
        for (partition, before) in &before {
            let mut expected = before.clone();
            if partition != FEDERATION {
                expected.retain(|place, _| !matches!(place, ('b', 8 | 9)));
            }
            let after = database.log(partition);
            assert!(after.keys().eq(expected.keys()), "{partition}: {:?}", after.keys());
            // A body is packed anew by whoever sends it.
            let headers = |log: &BTreeMap<(char, u64), Vec<u8>>| {
                log.clone().into_iter().filter(|((table, _), _)| *table == 'l').collect::<Vec<_>>()
            };
            assert!(headers(&after) == headers(&expected), "{partition}");
        }
        drop(database);
        harmed.start();
        federation.wait_connected();
        // Whoever comes now is sent all of `_federation`, and takes the rest.
        let name = if harms_hub { "410183" } else { "410182" };
        federation.add_county(name);
        federation.wait_connected();
        let next = Table::synthetic(1, 0..55, name).write(&dir, "next.csv");
        federation.counties[0].import("enterprise", &next);
        federation.wait_converged();
        let joined = federation.counties.last().unwrap();
        assert_eq!(joined.export(&of_hub), federation.hub.export(&of_hub));
        federation.nodes().for_each(Node::verify_deep);
    }
    // What is damaged is a warning where it is found, and no error.
    federation.end();
}

#[test]
fn what_no_peer_keeps_is_left_out_and_followers_take_pages() {
    let mut federation = Federation::new(&[COUNTY]);
    let dir = federation.dir().to_owned();
    let partition = format!("enterprise/{COUNTY}");
    import_all(&federation.counties[0], &dir, 1, &["一", "二", "三", "四"]);
    federation.wait_converged();
    // Numbers that the hub has not seen, and one that is damaged at both.
    federation.hub.stop();
    import_all(&federation.counties[0], &dir, 1, &["五", "六", "七", "八"]);
    federation.counties[0].stop();
    let delivered_root = {
        let of_county = Database::open(&federation.counties[0]);
        for (seq, harm) in [
            (2, Harm::HeaderAltered),
            (5, Harm::HeaderGarbled),
            (6, Harm::Body),
            (7, Harm::HeaderMissing),
        ] {
            of_county.harm(&partition, seq, harm);
        }
        Database::open(&federation.hub).harm(&partition, 2, Harm::HeaderGarbled);
        of_county.log(&partition)[&('l', 8)].clone()
    };
    federation.hub.start();
    federation.counties[0].start();
    federation.wait_connected();
    federation.wait_converged();
    for node in federation.nodes() {
        wait_mended(node);
    }
    assert_eq!(federation.hub.export(&partition), federation.counties[0].export(&partition));
    // The next change set follows on.
    import_all(&federation.counties[0], &dir, 1, &["九"]);
    federation.wait_converged();
    federation.counties[0].stop();
    federation.hub.stop();
    let headers = |node: &Node| {
        let log = Database::open(node).log(&partition);
        let numbers = log.keys().filter(|(table, _)| *table == 'l').map(|(_, seq)| *seq);
        (numbers.collect::<Vec<_>>(), log[&('l', 8)] == delivered_root)
    };
    assert_eq!(headers(&federation.counties[0]), (vec![1, 3, 4, 6, 8, 9], true));
    assert_eq!(headers(&federation.hub), (vec![1, 3, 4, 8, 9], true));
    federation.hub.start();
    federation.counties[0].start();
    federation.wait_connected();
    federation.end();
}
