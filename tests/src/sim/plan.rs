//! What happens to a federation in one run: faults and work, drawn beforehand.

use std::time::Duration;

use super::{cast::DATASETS, rng::Rng};

/// Faults and work go on for so long.
pub const FAULTS_MAX: Duration = Duration::from_secs(150);

/// How a node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    /// With all that was durable.
    Whole,
    /// From an old backup, knowing that it is one.
    Restored,
    /// From an old state without knowing it: the one case that may fork.
    RolledBack,
}

/// One entry of the plan.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A member's connections are cut.
    Cut(usize),
    /// The path between a member and the hub is blocked for a while.
    Block(usize, Duration),
    /// A node crashes, and returns after a while.
    Crash(usize, Duration, Return),
    /// A node that crashed returns.
    Start(usize, Return),
    /// A member dials although it may be connected.
    Dial(usize),
    /// A node's wall clock jumps by so many milliseconds.
    Clock(usize, i64),
    /// A node drops the snapshots that it keeps open.
    Expire(usize),
    /// A node's durable state is put aside.
    Backup(usize),
    /// A node writes so many change sets to a partition.
    Write(usize, &'static str, usize),
    /// The same, and only headers stay in the log.
    Load(usize, &'static str, usize),
    /// The hub enrols a node.
    Enrol(usize),
    /// The hub registers a schema.
    Schema,
    /// A hostile node goes on as the one that it was at its last backup, and signs
    /// something else there; the one that it was takes its place the next time.
    Face(usize),
}

/// The plan of one run.
#[derive(Debug)]
pub struct Plan {
    /// Members that take part sooner or later.
    pub members: usize,
    /// Those that belong from the start.
    pub enrolled: usize,
    /// When what happens.
    pub entries: Vec<(Duration, Entry)>,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(rng: &mut Rng) -> Self {
        let members = 1 + rng.index(3);
        Self::of(rng, members)
    }

    /// Draws a plan for a federation in which `hostile` lies; a hostile member is not
    /// alone. In some of them it shows two faces.
    pub fn draw_hostile(rng: &mut Rng, hostile: usize) -> Self {
        let members = hostile.max(1) + rng.index(2) + usize::from(hostile == 1);
        let mut plan = Self::of(rng, members);
        if rng.chance(25) {
            let early = Duration::from_secs(rng.below(60));
            plan.entries.push((early, Entry::Backup(hostile)));
            for _ in 0..1 + rng.below(4) {
                plan.add(rng, Entry::Face(hostile));
            }
            plan.entries.sort_by_key(|(at, _)| *at);
        }
        plan
    }

    fn of(rng: &mut Rng, members: usize) -> Self {
        let enrolled = 1 + rng.index(members);
        // Some runs are calm, some stormy, and few have a node that forgets.
        let storm = rng.below(40);
        let careless = rng.chance(30);
        let mut plan = Self { members, enrolled, entries: Vec::new() };
        for node in enrolled + 1..=members {
            plan.add(rng, Entry::Enrol(node));
        }
        for _ in 0..10 + rng.below(25) {
            let work = plan.work(rng);
            plan.add(rng, work);
        }
        if careless {
            let early = Duration::from_secs(rng.below(30));
            plan.entries.push((early, Entry::Backup(1)));
        }
        for _ in 0..storm {
            let fault = plan.fault(rng, careless);
            plan.add(rng, fault);
        }
        plan.entries.sort_by_key(|(at, _)| *at);
        plan
    }

    fn add(&mut self, rng: &mut Rng, entry: Entry) {
        let at = rng.millis(0, FAULTS_MAX.as_millis() as u64);
        self.entries.push((at, entry));
    }

    fn work(&self, rng: &mut Rng) -> Entry {
        let node = rng.index(self.members + 1);
        let dataset = DATASETS[rng.index(DATASETS.len())];
        match rng.below(10) {
            0 => Entry::Schema,
            1 => Entry::Load(node, dataset, 1 + rng.index(3)),
            2 => Entry::Write(node, dataset, 20 + rng.index(20)),
            _ => Entry::Write(node, dataset, 1 + rng.index(3)),
        }
    }

    fn fault(&self, rng: &mut Rng, careless: bool) -> Entry {
        let member = 1 + rng.index(self.members);
        let node = rng.index(self.members + 1);
        let down = rng.millis(100, 40_000);
        match rng.below(14) {
            0..=2 => Entry::Cut(member),
            3 => Entry::Block(member, down),
            4 => Entry::Crash(node, down, Return::Whole),
            5 => Entry::Crash(member, down / 8, Return::Whole),
            6 | 7 if careless => Entry::Crash(member, down / 4, Return::RolledBack),
            6 | 7 => Entry::Crash(member, down / 4, Return::Restored),
            8 => Entry::Dial(member),
            9 => Entry::Clock(node, rng.below(1 << 40) as i64 - (1 << 39)),
            10 => Entry::Expire(node),
            _ => Entry::Backup(member),
        }
    }
}
