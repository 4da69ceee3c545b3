//! A run: the plan is carried out, then everything has to become equal.

use std::{rc::Rc, time::Duration};

use protocol::{change::Change, id::PartitionId, suite::Suite};

use super::{
    HOSTILE_SUITE,
    cast::{Cast, DATASETS, HUB, random_changes, schema_entry},
    hostile::{Hostile, Met},
    net::{Net, Next},
    node::{Node, Shared},
    oracle::{Oracle, Tally},
    plan::{Entry, FAULTS_MAX, Plan, Return},
    rng::Rng,
    store::Store,
};

/// Within so long after the last fault all is equal: a peer's silence, then the
/// longest wait of a dial, then the longest of a partition, and some.
const CONVERGENCE_MAX: Duration = Duration::from_secs(30 + 20 + 60 + 70);
/// How long the equality is watched.
const CALM: Duration = Duration::from_secs(60);
/// A run that takes more steps spins: the busiest takes a tenth.
const STEPS_MAX: u64 = 300_000;

/// A federation in virtual time.
#[derive(Debug)]
pub struct World {
    shared: Shared,
    nodes: Vec<Node>,
    backups: Vec<Option<Store>>,
    plan: Plan,
    schemas: u32,
    steps: u64,
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
                .map(|node| Node::new(node, Store::new(&cast, node)))
                .collect(),
            backups: vec![None; plan.members + 1],
            shared: Shared { cast, net, oracle },
            plan,
            schemas: 0,
            steps: 0,
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
        let deadline = self.shared.net.now + CONVERGENCE_MAX;
        while let Err(difference) = self.compare() {
            assert!(self.shared.net.now < deadline, "after {CONVERGENCE_MAX:?}: {difference}");
            self.advance(self.shared.net.now + Duration::from_secs(5));
        }
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

    /// Waits until honest nodes agree; a hostile hub has that long to do harm.
    fn converge(&mut self) {
        let deadline = self.shared.net.now + CONVERGENCE_MAX;
        if self.is_hostile(HUB) {
            self.advance(deadline);
        }
        while let Err(difference) = self.compare() {
            assert!(self.shared.net.now < deadline, "after {CONVERGENCE_MAX:?}: {difference}");
            self.advance(self.shared.net.now + Duration::from_secs(5));
        }
    }

    /// Every partition of an honest node can be written, but where the node itself has
    /// signed what it does not hold.
    fn write_everywhere(&mut self, node: usize) {
        let now = self.shared.net.now;
        for partition in self.shared.cast.own_partitions(node) {
            let may = self.nodes[node].may_write(&partition, now);
            if !self.nodes[node].up || (!may && self.is_stopped_by_itself(node, &partition)) {
                continue;
            }
            assert!(may, "{partition} is stopped, and node {node} has given no reason for it");
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
        let have = self.nodes[node].store.position(partition).map_or(0, |at| at.seq);
        let oracle = &self.shared.oracle;
        // Whose key counts is the hub's to say.
        let hub = &self.nodes[HUB].store.registry;
        let is_member = hub.active_member(&self.shared.cast.nodes[node]).is_some();
        let has_no_key = !self.nodes[node].has_key() && (self.is_hostile(HUB) || !is_member);
        has_no_key
            || oracle.may_be_forked(partition) && oracle.has_signed_more(partition, have)
            || self.nodes[node].store.partition(partition).is_some_and(|own| own.quarantined)
    }

    fn advance(&mut self, until: Duration) {
        while let Some(next) = self.shared.net.next(until) {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "the nodes keep each other busy with nothing");
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
            // Nobody tells it what it has lost if the hub does not.
            let is_told = back == Return::Restored && !self.is_hostile(HUB);
            store.restored = is_told;
            let own = self.shared.cast.own_partitions(node);
            let heads = store.heads().map(|head| (head.partition, head.position));
            self.shared.oracle.restored(node, !is_told, &own, heads);
            self.nodes[node].store = store;
        }
        self.nodes[node].start(&mut self.shared);
        if back == Return::RolledBack {
            // Before its first connection, and so in ignorance.
            let count = self.shared.net.rng.index(9);
            self.work(node, DATASETS[0], count, false);
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
        let up = hub.may_write(&system, self.shared.net.now);
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
            return Ok(());
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
