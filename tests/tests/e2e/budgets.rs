//! What a piece of work costs in pages, flushes and bytes.
//!
//! None of it depends on the clock or the machine, so a budget that is exceeded
//! means that more work is done than before. Whoever has a reason to do more
//! raises the budget and says why. Each is the cost as it was measured, and a
//! tenth to a quarter on top.

use harness::{
    federation::{Federation, HUB},
    node::Node,
    table::Table,
};

const ROWS: u32 = 6000;

/// Counts of one node since its start.
#[derive(Debug, Clone, Copy)]
struct Counts {
    commits: u64,
    syncs: u64,
    pages: u64,
    patched: u64,
    bytes: u64,
}

impl Counts {
    fn of(node: &Node) -> Self {
        let status = node.status();
        let count = |name: &str| status["store"][name].as_u64().expect(name);
        Self {
            commits: count("commits"),
            syncs: count("syncs"),
            pages: count("pages_written"),
            patched: count("leaves_patched"),
            bytes: count("bytes_written"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            commits: self.commits - before.commits,
            syncs: self.syncs - before.syncs,
            pages: self.pages - before.pages,
            patched: self.patched - before.patched,
            bytes: self.bytes - before.bytes,
        }
    }
}

fn wire_bytes(county: &Node) -> u64 {
    let peer = county.peer(HUB);
    let bytes = |name: &str| peer[name].as_u64().expect("both are connected");
    bytes("bytes_sent") + bytes("bytes_received")
}

#[track_caller]
fn within(what: &str, cost: u64, budget: u64) {
    assert!(cost <= budget, "{what}: {cost}, and the budget is {budget}");
}

#[test]
fn loading_updating_and_delivering_again_stay_within_their_budgets() {
    let federation = Federation::new(&["410122"]);
    let (county, hub) = (&federation.counties[0], &federation.hub);
    let dir = federation.dir();
    let rows = u64::from(ROWS);

    // A first load: one change set, so that the hub takes it from the log.
    let all = Table::synthetic(1, 0..ROWS, "一");
    let file = all.write(dir, "all.csv");
    let (before, before_hub) = (Counts::of(county), Counts::of(hub));
    let wire = wire_bytes(county);
    let report = county.import("enterprise", &file);
    let sets = report["change_sets"].as_u64().unwrap();
    federation.wait_converged();
    for (who, cost) in
        [("county", Counts::of(county).since(before)), ("hub", Counts::of(hub).since(before_hub))]
    {
        println!("load, {who}: {cost:?}");
        assert_eq!(cost.commits, sets, "{who}");
        // Of the pack, and of the journal behind it.
        within(&format!("flushes of a load, {who}"), cost.syncs, 2 * sets);
        within(&format!("pages of a load, {who}"), cost.pages, rows / 50);
        within(&format!("bytes a record to the store, {who}"), cost.bytes / rows, 95);
    }
    let wire = wire_bytes(county) - wire;
    println!("load: {wire} bytes on the wire");
    within("bytes a record on the wire", wire / rows, 21);

    // The same file again.
    let (before, before_hub) = (Counts::of(county), Counts::of(hub));
    let wire = wire_bytes(county);
    county.import_full("enterprise", &file);
    assert_eq!(Counts::of(county).since(before).commits, 0);
    assert_eq!(Counts::of(county).since(before).bytes, 0);
    assert_eq!(Counts::of(hub).since(before_hub).commits, 0);
    let wire = wire_bytes(county) - wire;
    println!("the same again: {wire} bytes on the wire");
    // Nothing but signs of life.
    within("bytes on the wire of a file without news", wire, 1000);

    // One row at a time.
    const CHANGES: u32 = 20;
    let (before, before_hub) = (Counts::of(county), Counts::of(hub));
    let wire = wire_bytes(county);
    for change in 0..CHANGES {
        let row = change * 271;
        let one = Table::synthetic(1, row..row + 1, &format!("第{change}次"));
        county.import("enterprise", &one.write(dir, "one.csv"));
        federation.wait_converged();
    }
    for (who, cost) in
        [("county", Counts::of(county).since(before)), ("hub", Counts::of(hub).since(before_hub))]
    {
        println!("one row, {who}: {cost:?}");
        let changes = u64::from(CHANGES);
        assert_eq!((cost.commits, cost.patched), (changes, changes), "{who}");
        // Of the journal.
        within(&format!("flushes of a change, {who}"), cost.syncs, changes);
        // The root is above the leaves.
        assert_eq!(cost.pages, changes, "{who}");
        // In whole blocks to the journal. Most of it is the root, of some fifty
        // children.
        within(&format!("bytes a change to the store, {who}"), cost.bytes / changes, 9000);
    }
    let wire = (wire_bytes(county) - wire) / u64::from(CHANGES);
    println!("one row: {wire} bytes on the wire");
    within("bytes a change on the wire", wire, 1300);

    // Every tenth row.
    let mut some = Table::default();
    for row in (0..ROWS).step_by(10) {
        some.put_all(&Table::synthetic(1, row..row + 1, "二"));
    }
    let (before, before_hub) = (Counts::of(county), Counts::of(hub));
    let wire = wire_bytes(county);
    county.import("enterprise", &some.write(dir, "some.csv"));
    federation.wait_converged();
    let changes = some.len() as u64;
    for (who, cost) in
        [("county", Counts::of(county).since(before)), ("hub", Counts::of(hub).since(before_hub))]
    {
        println!("scattered, {who}: {cost:?}");
        assert_eq!(cost.commits, 1, "{who}");
        within(&format!("flushes of a scattered change, {who}"), cost.syncs, 1);
        // Almost all leaves stay as they are, and get a patch, which is not compressed.
        assert!(cost.patched * 10 > cost.pages * 40, "{who}: {cost:?}");
        within(
            &format!("bytes of a scattered change to the store, {who}"),
            cost.bytes / changes,
            340,
        );
    }
    let wire = wire_bytes(county) - wire;
    println!("scattered: {wire} bytes on the wire");
    within("bytes of a scattered change on the wire", wire / changes, 24);
    federation.finish();
}
