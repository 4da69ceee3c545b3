//! A run: the plan is carried out, then everything has to become equal.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use protocol::{change::Change, id::PartitionId, suite::Suite};

use super::{
    HOSTILE_SUITE,
    cast::{Cast, DATASETS, HUB, random_changes, schema_entry},
    claims::{ASKED_MAX, Claims},
    hostile::{Hostile, Met},
    in_sync::InSync,
    net::{Net, Next},
    node::{Node, Shared},
    oracle::{Oracle, Tally},
    plan::{Entry, FAULTS_MAX, Plan, Return},
    resolve::Person,
    rng::Rng,
    store::{Partition, Store},
};

/// Within so long after the last fault all is equal: a peer's silence, then the
/// longest wait of a dial, then the longest of a partition, and some.
const CONVERGENCE_MAX: Duration = Duration::from_secs(30 + 20 + 60 + 70);
/// Where a person has to end forks, it takes so many times that.
const ROUNDS_MAX: u32 = 4;
/// How long the equality is watched.
const CALM: Duration = Duration::from_secs(60);
/// A run that takes more steps spins: the busiest takes a tenth.
const STEPS_MAX: u64 = 300_000;

/// A federation in virtual time.
#[derive(Debug)]
pub struct World {
    shared: Shared,
    in_sync: InSync,
    nodes: Vec<Node>,
    backups: Vec<Option<Store>>,
    plan: Plan,
    schemas: u32,
    steps: u64,
    /// When a person has done something about a partition.
    begun: BTreeMap<PartitionId, Duration>,
    /// Whether the hub was put back.
    hub_went_back: bool,
    /// How often the end may be put off where forks have to be resolved.
    rounds: u32,
}

impl World {
    /// A federation whose every step follows from `seed`, of each suite in turn.
    pub fn new(seed: u64) -> Self {
        let suite = Suite::ALL[seed as usize % Suite::ALL.len()];
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let cast = Rc::new(Cast::new(plan.members, suite));
        Self::with(Net::new(rng), plan, cast, Oracle::default())
    }

    /// A federation whose nodes go back to earlier states of their own.
    pub fn put_back(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw_put_back(&mut rng);
        let cast = Rc::new(Cast::new(plan.members, Suite::ALL[seed as usize % Suite::ALL.len()]));
        Self::with(Net::new(rng), plan, cast, Oracle::default())
    }

    /// A federation in which one node lies: in a third of the runs the hub.
    pub fn hostile(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hostile = if rng.below(3) == 0 { HUB } else { 1 + rng.index(2) };
        let plan = Plan::draw_hostile(&mut rng, hostile);
        let cast = Rc::new(Cast::new(plan.members, HOSTILE_SUITE));
        let liar = Hostile::draw(&mut rng, &cast, hostile);
        let oracle = Oracle::of_hostile(hostile, cast.nodes[hostile].clone());
        let mut net = Net::new(rng);
        net.hostile = Some(liar);
        Self::with(net, plan, cast, oracle)
    }

    fn with(mut net: Net, plan: Plan, cast: Rc<Cast>, oracle: Oracle) -> Self {
        for (index, (at, _)) in plan.entries.iter().enumerate() {
            net.plan(*at, index);
        }
        let mut world = Self {
            nodes: (0..=plan.members)
                .map(|node| Node::new(node, Store::pruning(&cast, node)))
                .collect(),
            backups: vec![None; plan.members + 1],
            shared: Shared { cast, net, oracle, twice: Vec::new() },
            in_sync: InSync::default(),
            plan,
            schemas: 0,
            steps: 0,
            begun: BTreeMap::new(),
            hub_went_back: false,
            rounds: ROUNDS_MAX,
        };
        world.nodes[HUB].start(&mut world.shared);
        for node in 0..=world.plan.enrolled {
            world.enrol(node);
        }
        world
    }

    /// Carries the plan out and checks that all becomes equal.
    pub fn run(mut self) -> Tally {
        self.advance(FAULTS_MAX);
        self.end_faults();
        self.converge();
        self.advance(self.shared.net.now + CALM);
        self.compare().expect("what is equal stays equal");
        self.shared.oracle.tally
    }

    /// The same, and checks that whatever was put back can be written again.
    pub fn run_put_back(mut self) -> Tally {
        self.advance(FAULTS_MAX);
        self.end_faults();
        self.converge();
        for node in 0..self.nodes.len() {
            self.write_everywhere(node);
        }
        self.converge();
        self.advance(self.shared.net.now + CALM);
        self.compare().expect("what is equal stays equal");
        self.shared.oracle.tally
    }

    /// Carries the plan out, and checks that a hostile node has stopped nothing that
    /// honest nodes have among them, or own.
    pub fn run_hostile(mut self) -> (Tally, Met) {
        self.advance(FAULTS_MAX);
        self.end_faults();
        self.converge();
        for node in 0..self.nodes.len() {
            if !self.is_hostile(node) {
                self.write_everywhere(node);
            }
        }
        self.converge();
        self.advance(self.shared.net.now + CALM);
        self.compare().expect("what is equal stays equal");
        let met = self.shared.net.hostile.take().map(|hostile| hostile.met);
        (self.shared.oracle.tally, met.unwrap_or_default())
    }

    fn is_hostile(&self, node: usize) -> bool {
        self.shared.net.has_hostile(node, node)
    }

    /// Waits until honest nodes agree; a hostile hub has that long to do harm. Where a
    /// number is signed twice, somebody looks after it.
    fn converge(&mut self) {
        if self.is_hostile(HUB) {
            self.advance(self.shared.net.now + CONVERGENCE_MAX);
        }
        let mut deadline = self.shared.net.now + CONVERGENCE_MAX;
        while let Err(difference) = self.compare() {
            if self.shared.net.now >= deadline {
                let is_more = self.rounds > 0 && self.shared.net.hostile.is_none();
                assert!(is_more, "after {CONVERGENCE_MAX:?}: {difference}");
                self.rounds -= 1;
                deadline += CONVERGENCE_MAX;
            }
            self.person().look();
            self.check_twice();
            self.advance(self.shared.net.now + Duration::from_secs(5));
        }
        self.person().end_all();
    }

    fn person(&mut self) -> Person<'_> {
        Person { nodes: &mut self.nodes, shared: &mut self.shared, begun: &mut self.begun }
    }

    /// Whoever has heard what a peer holds signs no number of it again, but where the peer
    /// is asked for the proof and stays silent.
    fn check_twice(&mut self) {
        let now = self.shared.net.now;
        for (node, partition, others) in std::mem::take(&mut self.shared.twice) {
            if self.is_hostile(node) {
                continue;
            }
            let seq = self.nodes[node].store.position(&partition).map_or(0, |at| at.seq);
            let claims = &self.nodes[node].store.claims;
            for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
                let copy = self.nodes[peer].store.partition(&partition);
                let held = copy.and_then(|copy| copy.header_hash(seq));
                let is_held = held.is_some_and(|held| others.contains(&held));
                let has_heard = claims.heard(peer).is_some_and(|at| now < at + ASKED_MAX);
                assert!(
                    !is_held || !has_heard || self.is_hostile(peer),
                    "node {node} has signed number {seq} of {partition} again, which node {peer} holds and has \
                     told of"
                );
            }
        }
    }

    /// Every partition of an honest node can be written, but where the node itself has
    /// signed what it does not hold.
    fn write_everywhere(&mut self, node: usize) {
        for partition in self.shared.cast.own_partitions(node) {
            // A claim delays a first write, and no longer than that.
            let until = self.shared.net.now + ASKED_MAX;
            while !self.nodes[node].may_write(&partition, self.shared.net.now)
                && !self.is_stopped_by_itself(node, &partition)
                && self.shared.net.now < until
            {
                self.advance(self.shared.net.now + Duration::from_secs(1));
            }
            // One that waits asks only what is proven when that time is over.
            let is_over = self.shared.net.now >= until && self.nodes[node].up;
            let may = self.nodes[node].may_write(&partition, self.shared.net.now)
                || is_over && self.nodes[node].may_write_unasked(&partition);
            if !self.nodes[node].up || (!may && self.is_stopped_by_itself(node, &partition)) {
                continue;
            }
            let store = &self.nodes[node].store;
            assert!(
                may,
                "{partition} is stopped at {:?}, and node {node} has given no reason for it: lost \
                 {:?}, restored {}, {:?}",
                store.position(&partition),
                store.lost(&partition),
                store.restored,
                store.claims
            );
            let changes = match partition.dataset.is_system() {
                true => {
                    self.schemas += 1;
                    vec![schema_entry(self.schemas)]
                }
                false => random_changes(&mut self.shared.net.rng, 3),
            };
            self.nodes[node].write(&mut self.shared, &partition, &changes);
        }
        self.nodes[node].announce(&mut self.shared);
    }

    fn is_stopped_by_itself(&self, node: usize, partition: &PartitionId) -> bool {
        // Where nobody lies all is equal by now, and a person has decided what was open.
        if self.shared.net.hostile.is_none() {
            return false;
        }
        let have = self.nodes[node].store.position(partition).map_or(0, |at| at.seq);
        let oracle = &self.shared.oracle;
        // Whose key counts is the hub's to say.
        let hub = &self.nodes[HUB].store.registry;
        let is_member = hub.active_member(&self.shared.cast.nodes[node]).is_some();
        let has_no_key = !self.nodes[node].has_key() && (self.is_hostile(HUB) || !is_member);
        has_no_key
            || oracle.has_signed_more(partition, have)
            // A person has begun something that a hostile peer does not let end.
            || self.nodes[node].store.resolving.contains_key(partition)
            || self.nodes[node].store.partition(partition).is_some_and(|own| own.quarantined)
    }

    fn advance(&mut self, until: Duration) {
        while let Some(next) = self.shared.net.next(until) {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "the nodes keep each other busy with nothing");
            self.in_sync.check(&self.nodes, &self.shared);
            match next {
                Next::Node(node, boot, event) => {
                    self.nodes[node].handle(&mut self.shared, boot, event);
                }
                Next::Plan(index) => {
                    let entry = self.plan.entries[index].1.clone();
                    self.carry_out(entry);
                }
            }
        }
    }

    fn end_faults(&mut self) {
        for node in 1..self.nodes.len() {
            self.shared.net.block(node, Duration::ZERO);
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].up {
                self.nodes[node].start(&mut self.shared);
            }
        }
    }

    fn carry_out(&mut self, entry: Entry) {
        match entry {
            Entry::Cut(member) => self.shared.net.cut(member),
            Entry::Block(member, time) => {
                let until = self.shared.net.now + time;
                self.shared.net.block(member, until);
            }
            Entry::Crash(node, time, back) => {
                if self.nodes[node].up {
                    self.nodes[node].crash(&mut self.shared);
                    let at = self.shared.net.now + time;
                    self.plan.entries.push((at, Entry::Start(node, back)));
                    self.shared.net.plan(at, self.plan.entries.len() - 1);
                }
            }
            Entry::Start(node, back) => self.start(node, back),
            Entry::Dial(member) => {
                if self.nodes[member].up {
                    self.nodes[member].dial(&mut self.shared);
                }
            }
            Entry::Clock(node, jump) => self.nodes[node].clock_ms += jump,
            Entry::Expire(node) => self.nodes[node].expire_snapshots(&mut self.shared),
            Entry::Backup(node) => {
                if self.nodes[node].up {
                    self.backups[node] = Some(self.nodes[node].store.clone());
                }
            }
            Entry::Write(node, dataset, count) => self.work(node, dataset, count, false),
            Entry::Load(node, dataset, count) => self.work(node, dataset, count, true),
            Entry::Enrol(node) => self.enrol(node),
            Entry::Face(node) => self.turn(node),
            Entry::Schema => {
                self.schemas += 1;
                let entry = schema_entry(self.schemas);
                self.write_system(&[entry]);
            }
        }
    }

    /// A hostile node puts on its other face, and signs something before it connects.
    fn turn(&mut self, node: usize) {
        if let Some(other) = self.backups[node].take() {
            if self.nodes[node].up {
                self.nodes[node].crash(&mut self.shared);
            }
            self.backups[node] = Some(std::mem::replace(&mut self.nodes[node].store, other));
            self.nodes[node].start(&mut self.shared);
            let count = 1 + self.shared.net.rng.index(3);
            self.work(node, DATASETS[0], count, false);
            if node == HUB {
                self.carry_out(Entry::Schema);
            }
        }
    }

    fn start(&mut self, node: usize, back: Return) {
        // The end of the faults may have come before.
        if self.nodes[node].up {
            return;
        }
        let backup = self.backups[node].clone().filter(|_| back != Return::Whole);
        if let Some(mut store) = backup {
            self.hub_went_back |= node == HUB;
            // Nobody tells it what it has lost if the hub does not.
            store.restored = back == Return::Restored && !self.is_hostile(HUB);
            store.claims = Claims::default();
            let own = self.shared.cast.own_partitions(node);
            let heads = store.heads().map(|head| (head.partition, head.position));
            let quarantined = store.quarantined();
            self.shared.oracle.put_back(node, heads, quarantined);
            self.nodes[node].store = store;
            if back == Return::RolledBack && self.shared.net.rng.chance(60) {
                // Before its first connection, and so in ignorance.
                for partition in own.iter().filter(|it| !it.dataset.is_system()) {
                    let count = self.shared.net.rng.index(9);
                    self.work_offline(node, partition, count);
                }
            }
        }
        self.nodes[node].start(&mut self.shared);
        self.check_twice();
        // And while it hears what others hold.
        for _ in 0..if back == Return::Whole { 0 } else { 3 } {
            let at = self.shared.net.now + self.shared.net.rng.millis(20, 3_000);
            let dataset = DATASETS[self.shared.net.rng.index(DATASETS.len())];
            self.plan.entries.push((at, Entry::Write(node, dataset, 1)));
            self.shared.net.plan(at, self.plan.entries.len() - 1);
        }
    }

    /// A command without a daemon writes.
    fn work_offline(&mut self, node: usize, partition: &PartitionId, count: usize) {
        let is_begun = self.nodes[node].store.resolving.contains_key(partition);
        if is_begun || self.nodes[node].is_stopped(partition) {
            return;
        }
        for _ in 0..count {
            let size = self.shared.net.rng.index(12);
            let changes = random_changes(&mut self.shared.net.rng, size);
            self.nodes[node].write(&mut self.shared, partition, &changes);
        }
    }

    fn work(&mut self, node: usize, dataset: &str, count: usize, headers_only: bool) {
        let partition = self.shared.cast.partition(node, dataset);
        if !self.nodes[node].may_write(&partition, self.shared.net.now) {
            return;
        }
        for _ in 0..count {
            let most = if headers_only { 120 } else { 12 };
            let size = self.shared.net.rng.index(most);
            let changes = random_changes(&mut self.shared.net.rng, size);
            self.nodes[node].write(&mut self.shared, &partition, &changes);
        }
        if headers_only {
            self.nodes[node].store.drop_bodies(&partition);
        }
        self.nodes[node].announce(&mut self.shared);
        self.check_twice();
    }

    /// Makes `node` a member: it begins with the hub's `_federation`, as a
    /// joining node does.
    fn enrol(&mut self, node: usize) {
        let entries = self.shared.cast.member_entries(node);
        if self.write_system(&entries) && node != HUB {
            let system = self.shared.cast.system();
            self.nodes[node].store = self.nodes[HUB].store.only(&self.shared.cast, node, &system);
            self.shared.oracle.moved(node, &self.nodes[node].store, &system);
            self.nodes[node].start(&mut self.shared);
        }
    }

    fn write_system(&mut self, changes: &[Change]) -> bool {
        let system = self.shared.cast.system();
        let hub = &mut self.nodes[HUB];
        // A fork of `_federation` itself ends only by `partition refetch` at the members and
        // new signatures, which is not simulated: a hub that was put back waits for all.
        let net = &self.shared.net;
        let is_whole = (1..self.plan.members + 1).all(|it| hub.link_count_with(net, it) > 0);
        let up = hub.may_write(&system, net.now) && (is_whole || !self.hub_went_back);
        if up {
            hub.write(&mut self.shared, &system, changes);
            hub.announce(&mut self.shared);
        }
        up
    }

    /// Whether every replica equals its origin and everybody knows it; if not,
    /// what differs.
    fn compare(&self) -> Result<(), String> {
        for node in 1..self.nodes.len() {
            let hub = &self.nodes[HUB].store.registry;
            if self.shared.net.has_hostile(HUB, node)
                || hub.active_member(&self.shared.cast.nodes[node]).is_none()
            {
                continue;
            }
            let open = self.shared.net.open_conns(node);
            let links = self.nodes[node].link_count();
            if (open, links) != (1, 1) {
                return Err(format!("node {node} has {open} connections and {links} links"));
            }
            for (origin, replica) in [(HUB, node), (node, HUB)] {
                for partition in self.shared.cast.own_partitions(origin) {
                    self.compare_one(&partition, origin, replica)?;
                }
            }
        }
        for node in (1..self.nodes.len()).filter(|node| !self.shared.net.has_hostile(HUB, *node)) {
            let net = &self.shared.net;
            let (open, links) = (net.open_at_hub(node), self.nodes[HUB].link_count_with(net, node));
            let active = self.nodes[node].link_count();
            if (open, links) != (active, active) {
                return Err(format!(
                    "the hub has {open} connections and {links} links with node {node}, not {active}"
                ));
            }
        }
        Ok(())
    }

    fn compare_one(
        &self,
        partition: &PartitionId,
        origin: usize,
        replica: usize,
    ) -> Result<(), String> {
        let (mine, theirs) = (&self.nodes[origin].store, &self.nodes[replica].store);
        let states = [mine.partition(partition), theirs.partition(partition)];
        if states.iter().flatten().any(|state| state.quarantined) {
            assert!(self.shared.oracle.may_be_forked(partition), "{partition} is quarantined");
            // Nobody ends the forks that a hostile node makes.
            return match self.shared.net.hostile {
                Some(_) => Ok(()),
                None => {
                    let at = states.map(|state| state.map(|it| (it.position(), it.quarantined)));
                    let begun = mine.resolving.get(partition);
                    let (lost, awaited) = (mine.lost(partition), mine.claims.awaited(partition));
                    Err(format!(
                        "{partition}: {at:?} at {origin} and {replica}; begun: {begun:?}; lost: \
                         {lost:?}; awaited: {awaited}"
                    ))
                }
            };
        }
        // Where nobody lies whatever stops a partition is over, or a person ends it.
        if self.shared.net.hostile.is_none() && self.nodes[origin].is_stopped(partition) {
            let (lost, awaited) = (mine.lost(partition), mine.claims.awaited(partition));
            let at = states.map(|state| state.map(Partition::position));
            return Err(format!(
                "{partition} is stopped: {at:?} at {origin} and {replica}, lost {lost:?}, awaited {awaited}, \
                 restored {}, {:?}",
                mine.restored, mine.claims
            ));
        }
        let [first, second] = states.map(|state| {
            state.and_then(|state| Some((state.position()?, state.tree.summary.root)))
        });
        if first != second {
            return Err(format!(
                "{partition}: node {replica} is at {second:?}, its origin at {first:?}"
            ));
        }
        let [first_records, second_records] =
            states.map(|state| state.map(|state| &state.records).filter(|all| !all.is_empty()));
        if first_records != second_records {
            return Err(format!("{partition}: records differ under one root"));
        }
        let known = mine.known(replica, partition);
        if known != first.map(|(position, _)| position) {
            return Err(format!("{partition}: the origin believes that {replica} is at {known:?}"));
        }
        Ok(())
    }
}
