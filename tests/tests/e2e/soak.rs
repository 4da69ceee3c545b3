//! A soak: for a given time whatever happens to a federation happens to it in a random
//! order, and at the end a reference model decides. `CREDITSYNC_SOAK_S` says for how long,
//! `CREDITSYNC_SEED` which run.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use harness::{
    federation::{Federation, HUB},
    node::{Node, copy_all, path_text, wait_for, wait_until},
    relay::{Relay, Weather},
    sim::rng::Rng,
    table::Table,
};

const COUNTIES: [&str; 2] = ["410122", "410123"];
/// How long in CI.
const SOAK: Duration = Duration::from_secs(120);
/// A line that was silent is given up after 25 seconds; everything else is quicker.
const HEAL_MAX: Duration = Duration::from_secs(180);
/// Rows that a county's deliveries are about: enough for trees of two levels.
const ROWS: u64 = 1500;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A federation, and what its counties have delivered.
struct Soak {
    federation: Federation,
    relays: Vec<Relay>,
    cut: Vec<bool>,
    /// By county: what it holds.
    model: Vec<Table>,
    /// Copies of directories that may be put back.
    old: Vec<Option<PathBuf>>,
    random: Rng,
    done: BTreeMap<&'static str, u32>,
}

impl Soak {
    fn new(seed: u64) -> Self {
        let mut federation = Federation::hub_only();
        let mut random = Rng::new(seed);
        let mut relays = Vec::new();
        for name in COUNTIES {
            let weather =
                Weather { loss_percent: 2, delay: Duration::from_millis(1), seed: random.u64() };
            let relay = Relay::start(federation.address(), weather);
            let dir = federation.dir().join(name);
            federation.add_county_in(name, &dir, relay.address());
            relays.push(relay);
        }
        federation.wait_connected();
        let (cut, model) = (vec![false; COUNTIES.len()], vec![Table::default(); COUNTIES.len()]);
        let (old, done) = (vec![None; COUNTIES.len()], BTreeMap::new());
        Self { federation, relays, cut, model, old, random, done }
    }

    fn county(&mut self, at: usize) -> &mut Node {
        &mut self.federation.counties[at]
    }

    fn partition(at: usize) -> String {
        format!("enterprise/{}", COUNTIES[at])
    }

    fn step(&mut self, number: u32) {
        let at = self.random.index(COUNTIES.len());
        let what = match self.random.below(100) {
            0..45 => self.deliver(at, number, false),
            45..60 => self.deliver(at, number, true),
            60..66 => {
                self.county(at).restart();
                "restart of a county"
            }
            66..72 => {
                self.county(at).kill_9();
                self.county(at).start();
                "kill -9 of a county"
            }
            72..75 => {
                self.federation.hub.restart();
                "restart of the hub"
            }
            75..78 => {
                self.federation.hub.kill_9();
                self.federation.hub.start();
                "kill -9 of the hub"
            }
            78..84 => {
                self.cut[at] = !self.cut[at];
                self.relays[at].cut(self.cut[at]);
                "a link cut, or whole again"
            }
            84..87 => {
                self.relays[at].rebind();
                "another port"
            }
            87..89 => {
                // Whether everybody could follow is not the question here.
                self.federation.hub.cli(&["ca", "rotate"]);
                "a step of a rotation"
            }
            89..92 => {
                let node = if self.random.chance(50) {
                    &self.federation.hub
                } else {
                    &self.federation.counties[at]
                };
                node.cli(&["chore", "run", "scrub"]).expect_code(0);
                "a scrub"
            }
            92..94 => self.back_up(),
            94..97 => self.put_back(at),
            _ => self.flip(at),
        };
        println!("{number}: {what} ({})", COUNTIES[at]);
        *self.done.entry(what).or_default() += 1;
        self.never_equal_while_different();
    }

    /// A delivery, which goes through at once or says that it waits for its own history, or
    /// for what was damaged of it.
    fn deliver(&mut self, at: usize, number: u32, full: bool) -> &'static str {
        let (from, count) = (self.random.below(ROWS), 1 + self.random.below(200));
        let rows = from as u32..(from + count) as u32;
        let owner = 1 + u32::try_from(at).unwrap();
        let changed = Table::synthetic(owner, rows, &format!("第{number}次"));
        let mut wanted = self.model[at].clone();
        wanted.put_all(&changed);
        let delivery = if full { &wanted } else { &changed };
        let file = delivery.write(self.federation.dir(), "delivery.csv");
        let mut import = vec!["import", "enterprise", path_text(&file)];
        import.extend(full.then_some("--full"));
        let county = &self.federation.counties[at];
        wait_for("a delivery goes in", HEAL_MAX, || {
            let imported = county.cli(&import);
            let waits =
                ["restored from an older state", "held", "is being taken back", "is damaged"];
            let waits = waits.iter().any(|words| imported.stderr.contains(words));
            assert!(imported.code == Some(0) || waits, "{imported:#?}");
            imported.code == Some(0)
        });
        self.model[at] = wanted;
        if full { "a full file" } else { "a delivery" }
    }

    fn back_up(&mut self) -> &'static str {
        let file = self.federation.dir().join("backup");
        let _ = fs::remove_file(&file);
        let file = path_text(&file).to_owned();
        self.federation.hub.cli(&["backup", &file, "--without-keys"]).expect_code(0);
        self.federation.hub.cli(&["backup", &file, "--verify"]).expect_code(0);
        "a backup of the hub"
    }

    /// A county's directory becomes that of an earlier time, or is copied for that. What it
    /// had made since is at the hub, which it hears before it writes.
    fn put_back(&mut self, at: usize) -> &'static str {
        self.cut[at] = false;
        self.relays[at].cut(false);
        self.wait_at_hub(at);
        let dir = self.county(at).dir().to_owned();
        self.county(at).stop();
        let what = match self.old[at].take() {
            None => {
                let old = self.federation.dir().join(format!("old-{at}"));
                copy_all(&dir, &old);
                self.old[at] = Some(old);
                "a directory copied"
            }
            Some(old) => {
                // Certificates are renewed and keys change; what is put back is the data.
                fs::remove_dir_all(dir.join("store")).unwrap();
                fs::rename(old.join("store"), dir.join("store")).unwrap();
                fs::remove_dir_all(&old).unwrap();
                "an old directory put back"
            }
        };
        self.county(at).start();
        self.federation.counties[at].wait_connected(HUB);
        what
    }

    /// A bit of a stopped county's database is another one.
    fn flip(&mut self, at: usize) -> &'static str {
        self.cut[at] = false;
        self.relays[at].cut(false);
        // What nobody else has would be lost with it.
        self.wait_at_hub(at);
        self.county(at).stop();
        let path = self.county(at).dir().join("store/sled/db");
        let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (place, mut byte) = (self.random.below(file.metadata().unwrap().len()), [0]);
        file.read_exact_at(&mut byte, place).unwrap();
        byte[0] ^= 1 << self.random.below(8);
        file.write_all_at(&byte, place).unwrap();
        self.county(at).start();
        self.federation.counties[at].wait_connected(HUB);
        "a flipped bit"
    }

    /// Until the hub has all that a county has.
    fn wait_at_hub(&self, at: usize) {
        let (hub, county) = (&self.federation.hub, &self.federation.counties[at]);
        let name = Self::partition(at);
        wait_for("the hub has what the county has", HEAL_MAX, || {
            let (theirs, ours) = (hub.partition(&name), county.partition(&name));
            let head =
                |held: &Option<serde_json::Value>| held.as_ref().map(|held| held["head"].clone());
            head(&theirs) == head(&ours)
        });
    }

    /// The hub shows what a county has delivered wherever it says that it is in sync.
    fn never_equal_while_different(&self) {
        let hub = &self.federation.hub;
        for (at, model) in self.model.iter().enumerate() {
            let name = Self::partition(at);
            let (Some(before), county) = (hub.partition(&name), &self.federation.counties[at])
            else {
                continue;
            };
            let exported = hub.cli(&["export", &name]);
            let (after, ours) = (hub.partition(&name), county.partition(&name));
            // What moved meanwhile was not looked at.
            let same = after.is_some_and(|after| after["head"] == before["head"])
                && ours.is_some_and(|ours| ours["head"] == before["head"]);
            if same && before["state"] == "in_sync" {
                assert_eq!(exported.stdout, model.to_export(), "in sync, and different: {name}");
            }
        }
    }

    /// The model decides.
    fn end(mut self) {
        println!("{:#?}", self.done);
        self.relays.iter().for_each(|relay| relay.cut(false));
        self.federation.wait_converged_for(HEAL_MAX);
        for (at, model) in self.model.iter().enumerate() {
            let name = Self::partition(at);
            if model.is_empty() {
                continue;
            }
            for node in [&self.federation.hub, &self.federation.counties[at]] {
                assert_eq!(node.export(&name), model.to_export(), "{name} at {}", node.name());
            }
        }
        for node in self.federation.nodes() {
            wait_until("nobody is alarmed", || node.alarms().is_empty());
        }
        self.federation.end();
    }
}

#[test]
fn whatever_happens_everybody_holds_what_was_delivered() {
    let seed = setting("CREDITSYNC_SEED").unwrap_or(20_261_201);
    let longest = setting("CREDITSYNC_SOAK_S").map_or(SOAK, Duration::from_secs);
    println!("CREDITSYNC_SEED={seed} CREDITSYNC_SOAK_S={}", longest.as_secs());
    let mut soak = Soak::new(seed);
    let until = Instant::now() + longest;
    let mut number = 0;
    while Instant::now() < until {
        number += 1;
        soak.step(number);
    }
    soak.end();
}
