//! What happens to a federation in one run: faults and work, drawn beforehand.

use std::time::Duration;

use super::{
    cast::{DATASETS, HUB},
    rng::Rng,
};

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

    /// Draws a plan in which nodes, the hub as well, go back to earlier states of their own,
    /// also again and while others are away. Nobody joins later: a hub that has gone back
    /// would not know of them.
    pub fn draw_put_back(rng: &mut Rng) -> Self {
        let members = 1 + rng.index(2);
        let mut plan = Self { members, enrolled: members, entries: Vec::new() };
        for _ in 0..8 + rng.below(12) {
            let work = plan.work(rng);
            plan.add(rng, work);
        }
        for _ in 0..2 + rng.below(6) {
            let node = rng.index(members + 1);
            plan.add(rng, Entry::Backup(node));
        }
        for _ in 0..1 + rng.below(5) {
            let (node, down) = (rng.index(members + 1), rng.millis(100, 20_000));
            let back = if rng.chance(20) { Return::Restored } else { Return::RolledBack };
            plan.add(rng, Entry::Crash(node, down, back));
        }
        for _ in 0..rng.below(12) {
            let fault = plan.fault(rng, true);
            plan.add(rng, fault);
        }
        if members == 2 && rng.chance(40) {
            plan.three_histories(rng);
        }
        plan.entries.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The hub goes back twice to the same state, and each time only one member hears what
    /// it writes, so that in the end three histories of its own partition may be held.
    fn three_histories(&mut self, rng: &mut Rng) {
        let begin = rng.below(20);
        let dataset = DATASETS[rng.index(DATASETS.len())];
        let members = match rng.chance(50) {
            true => [1, 2],
            false => [2, 1],
        };
        let mut at = |second: u64, entry: Entry| {
            self.entries.push((Duration::from_secs(begin + second), entry));
        };
        // A member dials again within 20 s.
        let mut goes_back = |second: u64, deaf: usize, hears: usize| {
            at(second, Entry::Block(deaf, Duration::from_secs(60)));
            at(second, Entry::Block(hears, Duration::ZERO));
            at(second + 30, Entry::Write(HUB, dataset, 1 + rng.index(3)));
            let down = rng.millis(100, 2_000);
            at(second + 45, Entry::Block(hears, Duration::from_secs(20)));
            at(second + 45, Entry::Crash(HUB, down, Return::RolledBack));
        };
        goes_back(1, members[0], members[1]);
        goes_back(47, members[1], members[0]);
        at(0, Entry::Backup(HUB));
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
