//! A run: the plan is carried out, then everything has to become equal.

use std::{rc::Rc, time::Duration};

use protocol::{change::Change, id::PartitionId, suite::Suite};

use super::{
    cast::{Cast, DATASETS, HUB, random_changes, schema_entry},
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
        let mut net = Net::new(rng);
        for (index, (at, _)) in plan.entries.iter().enumerate() {
            net.plan(*at, index);
        }
        let mut world = Self {
            nodes: (0..=plan.members).map(|node| Node::new(node, Store::new(&cast))).collect(),
            backups: vec![None; plan.members + 1],
            shared: Shared { cast, net, oracle: Oracle::default() },
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
            Entry::Schema => {
                self.schemas += 1;
                let entry = schema_entry(self.schemas);
                self.write_system(&[entry]);
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
            store.restored = back == Return::Restored;
            let own = self.shared.cast.own_partitions(node);
            let heads = store.heads().map(|head| (head.partition, head.position));
            self.shared.oracle.restored(node, back == Return::RolledBack, &own, heads);
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
        if !self.nodes[node].may_write(&partition) {
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
            let known = self.nodes[HUB].store.only(&self.shared.cast, &system);
            self.nodes[node].store = known;
            let state = self.nodes[node].store.partition(&system).expect("it was just copied");
            self.shared.oracle.moved(node, state);
            self.nodes[node].start(&mut self.shared);
        }
    }

    fn write_system(&mut self, changes: &[Change]) -> bool {
        let system = self.shared.cast.system();
        let hub = &mut self.nodes[HUB];
        let up = hub.may_write(&system);
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
            if self.nodes[HUB].store.registry.active_member(&self.shared.cast.nodes[node]).is_none()
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
        let (open, links) = (self.shared.net.open_conns(HUB), self.nodes[HUB].link_count());
        let active = (1..self.nodes.len()).map(|node| self.nodes[node].link_count()).sum();
        if (open, links) != (active, active) {
            return Err(format!("the hub has {open} connections and {links} links, not {active}"));
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
