//! A membership that takes up what is new answers like one that reads all of it.

use protocol::{
    change::Change,
    federation::{Entry, Introduction, KeyRecord, Member},
    suite::Suite,
};
use store::{Options, OwnChanges};

use super::*;

const HUB: &str = "410100";

struct Hub {
    membership: Membership,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Hub {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { suite: Suite::One, cache_mb: 16, disk_reserve_mb: Some(0) };
        let store = Store::open(&dir.path().join("store"), &options).unwrap();
        let key = Suite::One.signing_key(&[1; 32]).unwrap();
        let anchor = Anchor {
            federation: FederationId::new("zhengzhou").unwrap(),
            hub: NodeId::new(HUB).unwrap(),
            hub_key: key.public(),
            epoch: 1,
            base: None,
            earlier: vec![],
            signature: vec![],
        };
        store.set_signer(key.into());
        let membership = Membership::new(store.clone(), anchor, NodeId::new(HUB).unwrap());
        Self { membership, store, _dir: dir }
    }

    fn commit(&self, entries: &[Entry]) {
        self.commit_changes(entries.iter().map(|entry| entry.put().unwrap()).collect());
    }

    fn commit_changes(&self, mut changes: Vec<Change>) {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        let partition = self.membership.partition().clone();
        let own = OwnChanges { partition, changes, schema_version: 1, keep_body: true };
        self.store.commit_own_later(own).unwrap().wait().unwrap();
    }
}

/// What a node that joins adds.
fn joins(number: u32) -> [Entry; 2] {
    let node = NodeId::new(&format!("m{number:05}")).unwrap();
    let name = format!("第{number}县");
    let member = Member { name, role: Role::Member, removed: false, certificates_from: None };
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = Suite::One.signing_key(&seed).unwrap().public();
    let key = KeyRecord::new(&key, Introduction::Enrolment, 0);
    [Entry::Member(node.clone(), member), Entry::Key(node, 1, key)]
}

fn said(registry: &Registry) -> String {
    let keys: Vec<_> = registry.members().keys().map(|node| registry.keys(node)).collect();
    let schemas: Vec<_> = registry.datasets().map(|schema| schema.raw()).collect();
    format!("{:?}", (registry.members(), keys, schemas, registry.problems()))
}

#[test]
fn what_is_taken_up_is_what_would_be_read() {
    let hub = Hub::new();
    let same = |what: &str| {
        let (now, read) = (hub.membership.current().unwrap(), hub.membership.read().unwrap());
        assert_eq!(said(&now), said(&read), "{what}");
        now
    };
    same("nothing");
    hub.commit(&joins(1));
    let held = same("one");
    for number in 2..20 {
        hub.commit(&joins(number));
    }
    assert_eq!(same("many at once").members().len(), 19);
    assert_eq!(held.members().len(), 1, "what somebody holds stays as it was");
    hub.commit_changes(joins(3).iter().map(|entry| entry.delete().unwrap()).collect());
    assert_eq!(same("one goes").members().len(), 18);
    let schemas: Vec<Entry> =
        config::catalogue::standard().into_iter().map(Entry::Schema).collect();
    hub.commit(&schemas);
    assert_eq!(same("the catalogue").datasets().count(), schemas.len());
    let broken = Change::Put { key: schemas[0].delete().unwrap().key().to_vec(), value: vec![1] };
    hub.commit_changes(vec![broken]);
    let registry = same("one is malformed");
    assert_eq!(registry.datasets().count(), schemas.len() - 1);
    assert_eq!(registry.problems().len(), 1);
}

/// What a join costs must not grow with the members there are. Somebody whom only
/// the cached registry knows is still there if that was taken further, and gone if
/// all records were read.
#[test]
fn a_join_is_taken_up_without_reading_all_members() {
    let hub = Hub::new();
    hub.commit(&joins(1));
    let ghost = &joins(9999).map(|entry| entry.put().unwrap());
    let haunt = || {
        hub.membership.current().unwrap();
        let mut cached = hub.membership.cached.write().unwrap();
        let (_, registry) = cached.as_mut().unwrap();
        Arc::make_mut(registry).apply(ghost).unwrap();
    };
    let ghosts = || {
        let registry = hub.membership.current().unwrap();
        registry.members().keys().filter(|node| node.as_str() == "m09999").count()
    };
    haunt();
    hub.commit(&joins(2));
    assert_eq!(ghosts(), 1, "one change set");
    for number in 0..TAKEN_UP_MAX as u32 {
        hub.commit(&joins(10 + number));
    }
    assert_eq!(ghosts(), 1, "as many as are taken up");
    for number in 0..=TAKEN_UP_MAX as u32 {
        hub.commit(&joins(1000 + number));
    }
    assert_eq!(ghosts(), 0, "one more: all records are read");
}
