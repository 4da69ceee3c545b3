//! A replica and a provider without network or store: what comes out, how many
//! bytes it takes and how often one waits for the other.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    change::{CHANGES_MAX, Header, KeyProblem},
    codec, difference,
    hash::Hash,
    history::{Node, nodes_of},
    page::{MadePage, make_inner},
    sign::{PublicKey, SigningKey},
    suite::Suite,
    suite::checksum::Checksum,
    tree::{Summary, pages_of},
};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

struct Everybody(SigningKey);

impl KeyRing for Everybody {
    fn key(&self, _: &PartitionId, _: u64, _: &Hash) -> Result<PublicKey, KeyProblem> {
        Ok(self.0.public())
    }
}

fn keys() -> Everybody {
    Everybody(Suite::One.signing_key(&[7; 32]).unwrap())
}

fn partition() -> PartitionId {
    PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap()
}

/// All pages of a tree.
#[derive(Clone)]
struct Tree {
    pages: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    summary: Summary,
}

impl Tree {
    fn of(records: &Records) -> Self {
        let entries = records.iter().map(|(key, value)| (&key[..], &value[..]));
        let (made, summary) = pages_of(Suite::One, entries).unwrap();
        let place = |made: MadePage| ((made.level, made.page.first_key), made.body);
        Self { pages: made.into_iter().map(place).collect(), summary }
    }

    fn levels(&self) -> u8 {
        self.summary.pages.len() as u8
    }

    fn seek(&self, level: u8, key: &[u8]) -> Option<(&Vec<u8>, &Vec<u8>)> {
        let level_pages = || self.pages.range((level, vec![])..(level + 1, vec![]));
        let before = self.pages.range((level, vec![])..=(level, key.to_vec())).next_back();
        before.or_else(|| level_pages().next()).map(|((_, key), body)| (key, body))
    }

    fn next(&self, level: u8, key: &[u8]) -> Option<Vec<u8>> {
        let from = (level, [key, &[0]].concat());
        self.pages.range(from..(level + 1, vec![])).next().map(|((_, key), _)| key.clone())
    }

    fn head(&self, seq: u64, with_root: bool) -> TreeReply {
        let key = keys().0;
        let header = Header {
            partition: partition(),
            seq,
            previous: Suite::One.repeated(1),
            history: history(seq - 1).0.root(Suite::One),
            federation_head: Some(Position { seq: 1, hash: Suite::One.repeated(4) }),
            origin_time_ms: 0,
            schema_version: 1,
            change_count: 1,
            changes_hash: Suite::One.repeated(2),
            root: self.summary.root,
            records: self.summary.records,
            key_id: key.public().id(),
        };
        let root = match self.levels() {
            levels if levels >= 2 && with_root => self.seek(levels - 1, &[]).unwrap().1.clone(),
            _ => vec![],
        };
        let header = SignedHeader::sign(header, &key).encode();
        TreeReply::Head { header, levels: self.levels(), root, proof: proof(seq - 1) }
    }

    fn serve(&self, request: &TreeRequest) -> Vec<TreeReply> {
        let page = |level: u8, key: &[u8]| {
            let (first, body) = self.seek(level, key).unwrap();
            assert!(key.is_empty() || first == key, "only pages of the tree are asked for");
            body
        };
        let bodies: Vec<Vec<u8>> = match request {
            TreeRequest::Pages { level, keys } => {
                keys.iter().map(|key| page(*level, key).clone()).collect()
            }
            TreeRequest::Differences { level, salt, pages } => pages
                .iter()
                .map(|asked| {
                    difference::make(
                        Suite::One,
                        *level,
                        page(*level, &asked.first_key),
                        salt,
                        &asked.known,
                    )
                    .unwrap()
                })
                .collect(),
        };
        bodies.into_iter().map(|bytes| TreeReply::Part { bytes, more: false }).collect()
    }

    fn own(&self, level: u8, key: &[u8]) -> Own {
        match self.seek(level, key) {
            None => Own::Nothing,
            Some((_, body)) if level == 0 => Leaf::decode(body).map_or(Own::Nothing, Own::Leaf),
            Some((_, body)) => decode_inner(Suite::One, body).map_or(Own::Nothing, Own::Inner),
        }
    }

    /// All records below a page.
    fn below(&self, level: u8, key: &[u8]) -> Records {
        let end = if key.is_empty() { None } else { self.next(level, key) };
        let leaves = self.pages.range((0, key.to_vec())..(1, vec![]));
        let leaves = leaves.take_while(|((_, key), _)| end.as_ref().is_none_or(|end| key < end));
        leaves.flat_map(|(_, body)| records_of(&Leaf::decode(body).unwrap())).collect()
    }
}

fn records_of(leaf: &Leaf) -> Records {
    leaf.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

/// What a fetch has cost and brought.
#[derive(Default)]
struct Cost {
    /// Bytes of frames in both directions.
    bytes: usize,
    round_trips: usize,
    /// Own pages that were read.
    looked: usize,
    /// The most bytes of them in one answer, and in the machine.
    read_at_once: usize,
    held: usize,
    /// Pages asked for, by level.
    asked: BTreeMap<u8, usize>,
    records: Records,
    /// Leaves that came from the provider.
    arrived: usize,
    whole: bool,
    finished: bool,
}

impl Cost {
    fn frame<T: serde::Serialize>(&mut self, message: &T) {
        self.bytes += 4 + codec::encode(message).len();
    }
}

/// Runs a fetch to its end; `lie` may alter what the provider says.
fn run(
    mut fetch: TreeFetch,
    own: &Tree,
    theirs: &Tree,
    mut lie: impl FnMut(usize, &mut TreeReply),
) -> Result<Cost, PeerMisbehaved> {
    let mut cost = Cost::default();
    cost.frame(&fetch.open());
    let mut replies = vec![theirs.head(9, true)];
    let mut number = 0;
    while !cost.finished {
        assert!(!replies.is_empty(), "it waits for what nobody sends");
        cost.round_trips += 1;
        let mut requests = Vec::new();
        let count = replies.len();
        for (place, mut reply) in replies.drain(..).enumerate() {
            cost.frame(&reply);
            lie(number, &mut reply);
            number += 1;
            fetch.handle_message(TreeReply::decode(&codec::encode(&reply))?, &keys())?;
            // In groups and one by one.
            if number % 3 == 0 || place + 1 == count {
                fetch.check_arrived();
            }
            while let Some(action) = fetch.poll_action() {
                act(&mut fetch, action, own, &mut cost, &mut requests)?;
            }
        }
        for request in requests {
            cost.frame(&request);
            replies.extend(theirs.serve(&TreeRequest::decode(&codec::encode(&request)).unwrap()));
        }
    }
    Ok(cost)
}

fn act(
    fetch: &mut TreeFetch,
    action: FetchAction,
    own: &Tree,
    cost: &mut Cost,
    requests: &mut Vec<TreeRequest>,
) -> Result<(), PeerMisbehaved> {
    match action {
        FetchAction::Send(request) => {
            let (level, count) = match &request {
                TreeRequest::Pages { level, keys } => (*level, keys.len()),
                TreeRequest::Differences { level, pages, .. } => (*level, pages.len()),
            };
            *cost.asked.entry(level).or_default() += count;
            requests.push(request);
        }
        FetchAction::Compare(_) => {}
        FetchAction::Begin(_) => {
            cost.whole = true;
            cost.records.clear();
        }
        FetchAction::Look { level, pages, bytes_max } => {
            let own = looked(own, level, &pages, bytes_max);
            cost.looked += own.len();
            let read = own.iter().map(Own::bytes).sum();
            cost.read_at_once = cost.read_at_once.max(read);
            fetch.handle_own(own)?;
            cost.held = cost.held.max(held(fetch));
        }
        FetchAction::Piece(Piece::Held { level, page }) => {
            cost.records.extend(own.below(level, &page.first_key));
        }
        FetchAction::Piece(Piece::Leaf(leaf)) => {
            cost.arrived += 1;
            cost.records.extend(records_of(&leaf));
        }
        FetchAction::Resolve(leaves) => {
            let held = |page: &PageRef| {
                let hash = compare::hash_of(Suite::One, &own.own(0, &page.first_key), 0);
                hash == Some(page.hash)
            };
            fetch.handle_resolved(&leaves.iter().map(held).collect::<Vec<_>>())?;
        }
        FetchAction::Check(leaves) => {
            fetch.handle_checked(leaves.into_iter().map(ArrivedLeaf::check).collect())?;
        }
        FetchAction::Stage(FetchedLeaf::Held(page)) => {
            cost.records.extend(own.below(0, &page.first_key));
        }
        FetchAction::Stage(FetchedLeaf::Arrived { leaf, .. }) => {
            cost.arrived += 1;
            cost.records.extend(records_of(&leaf));
        }
        FetchAction::Apply | FetchAction::Finish => cost.finished = true,
    }
    Ok(())
}

/// What a store answers to a look.
fn looked(own: &Tree, level: u8, pages: &[PageRef], bytes_max: usize) -> Vec<Own> {
    let (mut answer, mut bytes) = (Vec::new(), 0);
    for page in pages {
        let own = own.own(level, &page.first_key);
        bytes += own.bytes();
        answer.push(own);
        if bytes >= bytes_max {
            break;
        }
    }
    answer
}

/// Bytes of own pages that a comparison holds.
fn held(fetch: &TreeFetch) -> usize {
    match &fetch.state {
        State::Compare(compare) => compare.held_bytes(),
        _ => 0,
    }
}

fn have() -> Position {
    Position { seq: 3, hash: Suite::One.repeated(3) }
}

/// The history of so many headers, each of whose hashes is its number, and the
/// nodes above them.
fn history(count: u64) -> (Peaks, BTreeMap<Node, Hash>) {
    let (mut peaks, mut nodes) = (Peaks::new(), BTreeMap::new());
    for seq in 1..=count {
        let hash = Suite::One.repeated(seq as u8);
        nodes.insert(Node { height: 0, index: seq - 1 }, hash);
        peaks.push_noting(hash, |node, hash| {
            nodes.insert(node, hash);
        });
    }
    (peaks, nodes)
}

/// That what the replica has is in the history of so many headers.
fn proof(count: u64) -> Proof {
    let (peaks, nodes) = history(count);
    let path = nodes_of(have().seq, count).unwrap_or_default();
    let path = path.iter().map(|node| nodes[node]).collect();
    Proof { peaks: peaks.hashes().to_vec(), path }
}

fn comparing() -> TreeFetch {
    TreeFetch::comparing(partition(), have(), [9; 16])
}

fn compared(own: &Tree, theirs: &Tree) -> Cost {
    let cost = run(comparing(), own, theirs, |_, _| ()).unwrap();
    assert!(cost.records == theirs.below(0, &[]), "the pieces are not the tree");
    cost
}

/// Records of about 150 bytes with 18-byte keys, as enterprises have.
fn records(count: u64) -> Records {
    let value = |n: u64| {
        let noise = Checksum::of(&[&n.to_be_bytes()]);
        format!("郑州市某某商贸有限公司 {n} {noise} 存续")
    };
    (0..count).map(|n| (key(n), value(n).into_bytes())).collect()
}

fn key(n: u64) -> Vec<u8> {
    format!("9141010{:011}", n * 7919 % 100_000_000_007).into_bytes()
}

fn altered(records: &Records, count: usize) -> Records {
    let mut altered = records.clone();
    let step = (records.len() / count).max(1);
    for value in altered.values_mut().skip(step / 2).step_by(step).take(count) {
        value.extend_from_slice(b"!");
    }
    altered
}

#[test]
fn what_few_differences_cost_follows_from_the_differences() {
    let own = records(120_000);
    // The least is the root page, of some thirty children.
    for (count, bytes_max, trips_max) in
        [(0, 2_500, 1), (1, 5_000, 4), (100, 200_000, 4), (CHANGES_MAX, 2_500_000, 20)]
    {
        let theirs = if count == 0 { own.clone() } else { altered(&own, count) };
        let cost = compared(&Tree::of(&own), &Tree::of(&theirs));
        println!(
            "{count} differences: {} bytes, {} round trips, pages asked for {:?}",
            cost.bytes, cost.round_trips, cost.asked
        );
        assert!(!cost.whole);
        assert!(cost.bytes < bytes_max, "{count} differences took {} bytes", cost.bytes);
        assert!(cost.round_trips <= trips_max, "{count}: {} round trips", cost.round_trips);
        let asked: usize = cost.asked.values().sum();
        assert_eq!(cost.looked, asked + 1, "own pages beside the root and those that differ");
        assert!(cost.arrived <= count, "{} leaves for {count} differences", cost.arrived);
    }
}

/// Records of 60 KB each, which compress to nothing.
fn large_records(count: u64) -> Records {
    (0..count).map(|n| (key(n), vec![n as u8; 60_000])).collect()
}

#[test]
fn leaves_of_10_mb_are_held_few_at_a_time() {
    // A page lies across the bound.
    const HELD_MAX: usize = 8 * 1024 * 1024 + LEAF_BYTES_MAX;
    let own = large_records(1_500);
    let mut theirs = own.clone();
    // Every leaf differs; the change set stays small.
    for value in theirs.values_mut().step_by(20) {
        *value = b"small".to_vec();
    }
    let (own, theirs) = (Tree::of(&own), Tree::of(&theirs));
    let largest = own
        .pages
        .range((0, vec![])..(1, vec![]))
        .map(|(_, body)| Leaf::decode(body).unwrap().bytes());
    assert!(largest.max().unwrap() > 5_000_000);
    // While the provider says nothing.
    let mut fetch = comparing();
    let cost = go_on_until_leaves_are_asked_for(&mut fetch, &own, &theirs, theirs.head(9, true));
    assert!(held(&fetch) > 0 && cost.asked[&0] < 20, "{:?}", cost.asked);
    assert!(cost.held <= HELD_MAX, "{} bytes are held", cost.held);
    // And when it answers.
    let cost = compared(&own, &theirs);
    assert!(!cost.whole && cost.arrived > 10);
    assert!(cost.held <= HELD_MAX, "{} bytes are held", cost.held);
    assert!(cost.read_at_once <= HELD_MAX, "{} bytes are read", cost.read_at_once);
}

#[test]
fn usual_leaves_are_asked_for_as_many_as_may_be_awaited() {
    let own = records(60_000);
    let theirs = altered(&own, 5_000);
    let (own, theirs) = (Tree::of(&own), Tree::of(&theirs));
    let cost = compared(&own, &theirs);
    assert!(!cost.whole && cost.asked[&0] > 400);
    assert_eq!(cost.looked, cost.asked.values().sum::<usize>() + 1, "none is read twice");
    // Hundreds at once, as the bound on their number says.
    assert!(cost.held > 1_500_000, "{} bytes", cost.held);
}

#[test]
fn any_two_trees_are_compared() {
    let all = records(9_000);
    let some = |keep: &dyn Fn(usize) -> bool| -> Records {
        let kept = all.iter().enumerate().filter(|(index, _)| keep(*index));
        kept.map(|(_, (key, value))| (key.clone(), value.clone())).collect()
    };
    let states = [
        Records::new(),
        some(&|index| index == 17),
        some(&|index| index < 60),
        some(&|index| index % 3 > 0),
        some(&|index| !(2_000..7_000).contains(&index)),
        some(&|index| index < 8_990),
        some(&|index| index > 10),
        all.clone(),
        altered(&all, 300),
    ]
    .map(|records| Tree::of(&records));
    for (from, own) in states.iter().enumerate() {
        for (to, theirs) in states.iter().enumerate() {
            let cost = compared(own, theirs);
            assert!(!cost.whole && (from != to || cost.asked.is_empty()), "{from} to {to}");
        }
    }
}

#[test]
fn too_many_differences_end_in_the_whole_tree() {
    let own = records(3 * CHANGES_MAX as u64);
    let theirs = altered(&own, own.len());
    let (own, tree) = (Tree::of(&own), Tree::of(&theirs));
    // The driver counts the changes; here it gives up at the fiftieth leaf.
    let mut fetch = comparing();
    let (mut cost, mut replies) = (Cost::default(), vec![tree.head(9, true)]);
    while !cost.finished {
        let mut requests = Vec::new();
        for reply in std::mem::take(&mut replies) {
            fetch.handle_message(reply, &keys()).unwrap();
            fetch.check_arrived();
            while let Some(action) = fetch.poll_action() {
                act(&mut fetch, action, &own, &mut cost, &mut requests).unwrap();
                if cost.arrived == 50 && !cost.whole {
                    fetch.take_whole().unwrap();
                }
            }
        }
        replies.extend(requests.iter().flat_map(|request| tree.serve(request)));
        assert!(cost.finished || !replies.is_empty());
    }
    assert!(cost.whole && cost.records == theirs);
}

#[test]
fn a_provider_that_lies_is_caught_at_every_step() {
    let own = records(40_000);
    let truth = altered(&own, 3);
    let (own, theirs) = (Tree::of(&own), Tree::of(&truth));
    let mut steps = 0;
    run(comparing(), &own, &theirs, |number, _| steps = number + 1).unwrap();
    assert!(steps > 3, "{steps} steps");
    let other = Tree::of(&altered(&records(40_000), 40));
    for step in 0..steps {
        // Another page of the same kind, an older one, and garbage; once, which may
        // be two entries of one name, or from then on.
        for (kind, once) in (0..3).flat_map(|kind| [(kind, true), (kind, false)]) {
            let mut seen = 0;
            let lied = run(comparing(), &own, &theirs, |number, reply| {
                if number < step || (once && number > step) {
                    return;
                }
                seen += 1;
                match (reply, kind) {
                    (TreeReply::Head { root, .. }, 0) => {
                        let mut children = decode_inner(Suite::One, root).unwrap();
                        children[0].records += 1;
                        *root = make_inner(Suite::One, theirs.levels() - 1, &children).body;
                    }
                    (TreeReply::Head { root, .. }, 1) => {
                        if let TreeReply::Head { root: wrong, .. } = other.head(9, true) {
                            assert_ne!(*root, wrong);
                            *root = wrong;
                        }
                    }
                    (TreeReply::Head { header, .. }, _) => header[3] ^= 1,
                    // All that the replica has, as it has it.
                    (TreeReply::Part { bytes, .. }, 0) => {
                        *bytes = codec::compress(&[0, 0, 0, 0, 1]);
                    }
                    (TreeReply::Part { bytes, .. }, 1) => {
                        *bytes = codec::compress(&[]);
                    }
                    (TreeReply::Part { bytes, .. }, _) => {
                        let last = bytes.len() - 1;
                        bytes[last] ^= 0x55;
                    }
                    (TreeReply::Fork { .. }, _) => unreachable!("there is no fork"),
                }
            });
            match lied {
                Ok(cost) => assert!(once && step > 0 && cost.whole && cost.records == truth),
                Err(_) => assert!(!once || step == 0, "step {step}, lie {kind}"),
            }
            assert!(seen > 0);
        }
    }
    // One that shows what it did not sign, all else being consistent.
    let refused = run(comparing(), &own, &other, |number, reply| {
        if number == 0 {
            *reply = theirs.head(9, false);
        }
    });
    assert!(matches!(refused, Err(PeerMisbehaved::WrongPage(_))));
}

#[test]
fn a_leaf_of_the_same_keys_and_other_values_is_refused() {
    let own = records(20);
    let theirs = altered(&own, 1);
    let (own, theirs) = (Tree::of(&own), Tree::of(&theirs));
    assert_eq!(theirs.levels(), 1);
    let refused = run(comparing(), &own, &theirs, |_, reply| {
        if let TreeReply::Part { bytes, .. } = reply {
            // The replica's own leaf.
            *bytes = codec::compress(&[0, 0, 0, 0, 20]);
        }
    });
    assert!(refused.is_err());
}

#[test]
fn a_head_without_its_root_page_costs_a_round_trip() {
    let own = records(5_000);
    let (own, theirs) = (Tree::of(&own), Tree::of(&altered(&own, 1)));
    let with = run(comparing(), &own, &theirs, |_, _| ()).unwrap();
    let without = run(comparing(), &own, &theirs, |_, reply| {
        if let TreeReply::Head { root, .. } = reply {
            root.clear();
        }
    });
    let without = without.unwrap();
    assert_eq!(without.round_trips, with.round_trips + 1);
    assert!(with.records == without.records);
}

#[test]
fn a_repair_asks_for_exactly_the_pages_that_are_damaged() {
    let records = records(60_000);
    let well = Tree::of(&records);
    let of_level = |level: u8, index: usize| {
        well.pages.keys().filter(|place| place.0 == level).nth(index).unwrap().clone()
    };
    let damages = [
        vec![],
        vec![of_level(0, 0)],
        vec![of_level(0, 77), of_level(0, 78), of_level(0, 200)],
        vec![of_level(1, 3)],
        vec![of_level(1, 0), of_level(1, 1), of_level(0, 200)],
        vec![of_level(well.levels() - 1, 0)],
    ];
    for damage in damages {
        for missing in [false, true] {
            let mut own = well.clone();
            for place in &damage {
                if missing {
                    own.pages.remove(place);
                } else {
                    own.pages.insert(place.clone(), b"damaged".to_vec());
                }
            }
            let cost = run(TreeFetch::repairing(partition(), Some(have())), &own, &well, |_, _| ())
                .unwrap();
            // The root comes with the head.
            let asked: BTreeSet<u8> = damage.iter().map(|place| place.0).collect();
            let asked: BTreeMap<u8, usize> = asked
                .into_iter()
                .filter(|level| *level < well.levels() - 1)
                .map(|level| (level, damage.iter().filter(|place| place.0 == level).count()))
                .collect();
            assert_eq!(cost.asked, asked, "{damage:?}");
            assert!(cost.records == records);
        }
    }
}

/// Lets a fetch go on from the provider's head until it has asked for leaves, of which
/// none has come; answers what it cost.
fn go_on_until_leaves_are_asked_for(
    fetch: &mut TreeFetch,
    own: &Tree,
    theirs: &Tree,
    head: TreeReply,
) -> Cost {
    let (mut cost, mut replies) = (Cost::default(), vec![head]);
    while !cost.asked.contains_key(&0) {
        let mut requests = Vec::new();
        for reply in std::mem::take(&mut replies) {
            fetch.handle_message(reply, &keys()).unwrap();
            while let Some(action) = fetch.poll_action() {
                act(fetch, action, own, &mut cost, &mut requests).unwrap();
            }
        }
        replies = requests.iter().flat_map(|request| theirs.serve(request)).collect();
    }
    cost
}

#[test]
fn long_leaves_that_claim_to_be_short_are_checked_few_at_a_time() {
    let (own, theirs) = (Tree::of(&Records::new()), Tree::of(&records(5_000)));
    let mut fetch = TreeFetch::new(partition(), None);
    let mut head = theirs.head(9, true);
    if let TreeReply::Head { proof: shown, .. } = &mut head {
        *shown = Proof { path: vec![], ..proof(8) };
    }
    go_on_until_leaves_are_asked_for(&mut fetch, &own, &theirs, head);
    let long = TreeReply::Part { bytes: vec![0; PAGE_PART_BYTES_MAX], more: false };
    for _ in 0..4 {
        assert!(fetch.poll_action().is_none());
        fetch.handle_message(long.clone(), &keys()).unwrap();
    }
    let checked = fetch.poll_action();
    assert!(matches!(checked, Some(FetchAction::Check(leaves)) if leaves.len() == 4));
}

/// Bodies by level and first key.
type Invented = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// A tree whose leaves nobody has: a million of them, and the inner pages above.
fn invented() -> (Invented, PageRef) {
    let leaf = |number: u32| PageRef {
        first_key: number.to_be_bytes().to_vec(),
        hash: Suite::One.repeated(3),
        records: 90,
        entries: 90,
    };
    let mut level: Vec<PageRef> = (0..1_000_000).map(leaf).collect();
    let mut pages = BTreeMap::new();
    for number in 1..=3 {
        let made = level.chunks(100).map(|children| make_inner(Suite::One, number, children));
        let made: Vec<MadePage> = made.collect();
        level = made.iter().map(|made| made.page.clone()).collect();
        let place = |made: MadePage| ((number, made.page.first_key), made.body);
        pages.extend(made.into_iter().map(place));
    }
    (pages, level.remove(0))
}

#[test]
fn a_walk_holds_few_references_however_large_a_tree_is_said_to_be() {
    let (pages, root) = invented();
    let root = PageRef { first_key: Vec::new(), entries: 0, ..root };
    let mut walk = Walk::new(root, 4, None);
    let mut actions = VecDeque::new();
    walk.advance(&mut actions).unwrap();
    let (mut most, mut asked) = (0, VecDeque::new());
    loop {
        while let Some(action) = actions.pop_front() {
            match action {
                FetchAction::Look { pages, .. } => {
                    walk.handle_own(vec![Own::Nothing; pages.len()], &mut actions).unwrap();
                }
                FetchAction::Resolve(pages) => {
                    walk.handle_resolved(&vec![false; pages.len()], &mut actions).unwrap();
                }
                FetchAction::Send(TreeRequest::Pages { level, keys }) => {
                    asked.extend(keys.into_iter().map(|key| (level, key)));
                }
                other => panic!("{other:?}"),
            }
        }
        most = most.max(walk.references());
        let (level, key) = asked.pop_front().expect("it goes on to the leaves");
        if level == 0 {
            // Nothing comes behind what does not come.
            break;
        }
        let key = if level == 3 { 0u32.to_be_bytes().to_vec() } else { key };
        walk.handle_page(pages[&(level, key)].clone(), &mut actions).unwrap();
    }
    assert!((1_000..4_500).contains(&most), "{most} references");
}

#[test]
fn what_says_that_it_is_longer_than_any_page_counts_as_the_longest() {
    let body = [&u32::MAX.to_be_bytes()[..], b"little"].concat();
    let have = Position { seq: 1, hash: empty_root(Suite::One) };
    let mut fetch = TreeFetch::comparing(partition(), have, Salt::default());
    let root = PageRef { first_key: vec![], hash: empty_root(Suite::One), records: 1, entries: 1 };
    fetch.state = State::Compare(Compare::new(root.clone(), 1, None, Salt::default()));
    let part = TreeReply::Part { bytes: body.clone(), more: false };
    assert_eq!(fetch.unpacks(&part), LEAF_BYTES_MAX);
    let leaf = ArrivedLeaf { expected: root, body };
    assert_eq!(leaf.takes(), LEAF_BYTES_MAX + 10);
    assert!(matches!(leaf.check(), Err(PeerMisbehaved::Malformed(_))));
}
