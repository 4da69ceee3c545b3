//! Upkeep: work that goes on in the background while the node serves.
//!
//! A *chore* has a name, does one step at a time within a budget, keeps its
//! position on the disk so that a restart goes on where it was, can be paused, and
//! tells how far it is. To add one: a file here with its step, and a line in
//! [`Chore`]. `chore list` shows them, and the runs of commands that do the same
//! work at once (`verify --deep`, `repair`).
//!
//! - [`scrub`]: everything that is stored is read, gently, and compared with what was
//!   signed;
//! - [`repair`]: what was found damaged is taken back from a peer;
//! - [`mend`]: the same of a log: taken back, or left out as what is old is;
//! - [`compact`]: room that the database needs no more is given back;
//! - [`inspect`]: one partition looked through in steps, for both and for `verify`;
//! - [`log`]: one number of a log, for `inspect` and `mend`;
//! - [`record`]: what of a chore outlives a restart;
//! - [`backup`]: all of a node in one file, and a node out of one: no chore, since a
//!   person, or cron, says when.
//!
//! Used by `app`. Invariant: a chore writes nothing but through the store's writer, and
//! one that is stopped between two steps leaves nothing half done. Not here: what the
//! store's writer tidies up by itself (`store::writer::tidying`).

pub mod backup;
mod compact;
mod inspect;
mod log;
mod mend;
mod record;
mod repair;
mod scrub;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use protocol::{id::PartitionId, moment::rfc3339};
use serde_json::{Value as Json, json};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::record::Record;
pub use self::{
    inspect::{Findings, Inspection},
    mend::Mended,
};
use crate::sync;

/// A step takes about so long: a stop is heeded within it, and a reader of the disk
/// beside it hardly notices.
const STEP: Duration = Duration::from_millis(50);
/// After a step a chore rests so many times as long as that took: a twentieth of one
/// core.
const REST: u32 = 19;
/// The same until all was read through once since the start: what came with the
/// directory is looked at soon.
const REST_AT_FIRST: u32 = 3;
/// The position is kept on the disk this often: that much is done again after a crash.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// What has failed is tried again after so long: a peer may have come by then.
const RETRY: Duration = Duration::from_secs(3);
/// Each time after twice as long, up to this.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Partitions whose damaged logs are told of at once: more say nothing new.
const DAMAGED_LOGS_TOLD_MAX: usize = 20;
/// Runs of commands that are listed at once.
const RUNS_MAX: usize = 100;

/// The chores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Chore {
    /// Everything stored is read and compared with what was signed.
    Scrub,
    /// What was found damaged is taken back from a peer.
    Repair,
    /// Room that the database needs no more is given back.
    Compact,
}

/// How far a chore has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes, or whatever the chore counts.
    pub done: u64,
    /// All there are.
    pub of: u64,
}

/// What one step has come to.
enum Step {
    /// There is more to do.
    More(Progress),
    /// It is at its end: what came of it, and what needs a person.
    Ended { result: String, attention: Vec<String> },
}

impl Chore {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Scrub, Self::Repair, Self::Compact];

    /// As commands name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::Repair => "repair",
            Self::Compact => "compact",
        }
    }

    /// What it does, for people.
    fn about(self) -> &'static str {
        match self {
            Self::Scrub => {
                "逐页核对全部存储内容与签名 / reads everything stored and compares it with what was signed"
            }
            Self::Repair => {
                "从对端取回已损坏的数据页与变更日志 / takes damaged pages and change sets back from a connected peer"
            }
            Self::Compact => {
                "将数据库中无用的空间还给磁盘 / gives room that the database needs no more back to the disk"
            }
        }
    }

    /// How long after its end it begins again by itself; none if something calls it.
    fn every(self) -> Option<Duration> {
        match self {
            // A disk that loses bits loses few a year.
            Self::Scrub => Some(Duration::from_secs(7 * 24 * 3600)),
            Self::Repair => None,
            // The store says when it grows; what has shrunk is found by then.
            Self::Compact => Some(Duration::from_secs(7 * 24 * 3600)),
        }
    }

    /// How long after a start it begins by itself; none if something calls it.
    fn first(self) -> Option<Duration> {
        match self {
            // What lay here before the start may have been altered.
            Self::Scrub => Some(Duration::ZERO),
            Self::Repair => None,
            // When a start has other work no more.
            Self::Compact => Some(Duration::from_secs(3600)),
        }
    }

    /// Answers when something calls it.
    async fn called(self, upkeep: &Upkeep) {
        match self {
            Self::Scrub => std::future::pending().await,
            Self::Repair => upkeep.context.store.found_damage().await,
            Self::Compact => upkeep.context.store.found_waste().await,
        }
    }

    /// Takes back what only makes sense if it goes on soon.
    async fn pause(self, upkeep: &Upkeep) -> anyhow::Result<()> {
        if self == Self::Compact {
            upkeep.context.store.give_up_compaction().await?;
        }
        Ok(())
    }

    async fn step(self, upkeep: &Upkeep, position: &mut Json) -> anyhow::Result<Step> {
        match self {
            Self::Scrub => scrub::step(upkeep, position).await,
            Self::Repair => repair::step(upkeep).await,
            Self::Compact => compact::step(upkeep).await,
        }
    }
}

/// The node's chores.
pub struct Upkeep {
    context: Arc<sync::Context>,
    directory: PathBuf,
    states: BTreeMap<Chore, State>,
    runs: Mutex<BTreeMap<u64, Arc<Run>>>,
    next_run: AtomicU64,
    /// When each partition was last read through and found well, in seconds since 1970.
    checked: Mutex<BTreeMap<PartitionId, i64>>,
    /// Everything was read through since the start.
    was_read: AtomicBool,
}

/// A chore in memory.
struct State {
    record: Mutex<Record>,
    progress: Mutex<Option<Progress>>,
    /// Somebody wants it now.
    asked: Notify,
}

/// A run of a command.
struct Run {
    name: &'static str,
    what: String,
    began: Instant,
    progress: Mutex<Progress>,
    stop: CancellationToken,
}

/// A run of a command, listed until it is dropped.
pub struct Listed<'a> {
    upkeep: &'a Upkeep,
    number: u64,
    run: Arc<Run>,
}

impl Listed<'_> {
    /// Tells how far it is.
    pub fn tell(&self, progress: Progress) {
        *lock(&self.run.progress) = progress;
    }

    /// Whether somebody has stopped it.
    pub fn is_stopped(&self) -> bool {
        self.run.stop.is_cancelled()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.upkeep.runs).remove(&self.number);
    }
}

impl Upkeep {
    /// The chores of a node, whose records lie in this directory.
    pub fn load(context: Arc<sync::Context>, directory: PathBuf) -> anyhow::Result<Self> {
        let mut states = BTreeMap::new();
        for chore in Chore::ALL {
            let record = Record::load(&directory, chore.name())?;
            let (progress, asked) = (Mutex::default(), Notify::new());
            states.insert(chore, State { record: Mutex::new(record), progress, asked });
        }
        Ok(Self {
            context,
            directory,
            states,
            runs: Mutex::default(),
            next_run: AtomicU64::new(0),
            checked: Mutex::default(),
            was_read: AtomicBool::new(false),
        })
    }

    fn state(&self, chore: Chore) -> &State {
        // Each has one from the beginning.
        &self.states[&chore]
    }

    /// Does all chores until the node ends.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut chores = JoinSet::new();
        for chore in Chore::ALL {
            chores.spawn(self.clone().keep_doing(chore, shutdown.clone()));
        }
        while let Some(ended) = chores.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                // A half-dead daemon is worse than a dead one.
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    async fn keep_doing(self: Arc<Self>, chore: Chore, shutdown: CancellationToken) {
        let state = self.state(chore);
        let mut retry: Option<Duration> = None;
        let mut due = chore.first();
        if chore == Chore::Scrub {
            let mut record = lock(&state.record);
            record.position = record.position.as_ref().map(scrub::after_start);
            record.began_at = None;
        }
        loop {
            let wait = retry.or(due);
            let after = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let is_paused = lock(&state.record).paused;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = state.asked.notified() => {}
                () = chore.called(&self) => {}
                () = after, if !is_paused => {}
            }
            if lock(&state.record).paused {
                continue;
            }
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.do_all(chore) => ended,
            };
            *lock(&state.progress) = None;
            (due, retry) = match ended {
                Ok(true) => (chore.every(), None),
                // Paused on its way.
                Ok(false) => (None, None),
                Err(error) => {
                    let chore = chore.name();
                    tracing::warn!(
                        chore,
                        error = format!("{error:#}"),
                        "a chore has failed; it is tried again"
                    );
                    (None, Some(retry.map_or(RETRY, |before| (2 * before).min(RETRY_MAX))))
                }
            };
        }
    }

    /// Does one chore to its end, or until it is paused; answers whether it came to its
    /// end.
    async fn do_all(&self, chore: Chore) -> anyhow::Result<bool> {
        let state = self.state(chore);
        let mut position = lock(&state.record).begin(now());
        let mut kept = Instant::now();
        loop {
            let began = Instant::now();
            let step = chore.step(self, &mut position).await;
            match step {
                Ok(Step::More(progress)) => *lock(&state.progress) = Some(progress),
                Ok(Step::Ended { result, attention }) => {
                    if chore == Chore::Scrub {
                        self.was_read.store(true, Ordering::Relaxed);
                    }
                    self.keep(chore, |record| record.end(now(), result, attention))?;
                    return Ok(true);
                }
                Err(error) => {
                    self.keep(chore, |record| record.fail(now(), format!("{error:#}")))?;
                    return Err(error);
                }
            }
            if lock(&state.record).paused {
                chore.pause(self).await?;
                self.keep(chore, |record| record.position = Some(position))?;
                return Ok(false);
            }
            if kept.elapsed() >= KEPT_EVERY {
                self.keep(chore, |record| record.position = Some(position.clone()))?;
                kept = Instant::now();
            }
            let was_read = self.was_read.load(Ordering::Relaxed);
            let rest = began.elapsed() * if was_read { REST } else { REST_AT_FIRST };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                // Somebody waits for it.
                () = state.asked.notified() => {}
            }
        }
    }

    /// Changes what is kept of a chore, and writes it.
    fn keep(&self, chore: Chore, change: impl FnOnce(&mut Record)) -> anyhow::Result<()> {
        let mut record = lock(&self.state(chore).record);
        change(&mut record);
        record.write(&self.directory, chore.name())
    }

    /// Lists a command's run until what is answered is dropped.
    pub fn list_run(&self, name: &'static str, what: String) -> anyhow::Result<Listed<'_>> {
        let mut runs = lock(&self.runs);
        if runs.len() >= RUNS_MAX {
            bail!(
                "已有 {RUNS_MAX} 个核对或修复命令在运行，请稍候 / {RUNS_MAX} commands like this one are running: wait until \
                 one of them has ended (creditsync chore list)"
            );
        }
        let number = self.next_run.fetch_add(1, Ordering::Relaxed);
        let run = Arc::new(Run {
            name,
            what,
            began: Instant::now(),
            progress: Mutex::default(),
            stop: CancellationToken::new(),
        });
        runs.insert(number, run.clone());
        Ok(Listed { upkeep: self, number, run })
    }

    /// A partition was read through and is well.
    pub fn note_checked(&self, partition: &PartitionId) {
        self.context.store.is_well_again(partition);
        lock(&self.checked).insert(partition.clone(), now());
    }

    /// When a partition was last read through and found well since the start, in seconds
    /// since 1970.
    pub fn checked_at(&self, partition: &PartitionId) -> Option<i64> {
        lock(&self.checked).get(partition).copied()
    }

    /// Begins a chore now, or goes on with one that was paused.
    pub fn ask(&self, name: &str) -> anyhow::Result<()> {
        let chore = named(name)?;
        self.keep(chore, |record| record.paused = false)?;
        self.state(chore).asked.notify_one();
        Ok(())
    }

    /// Stops a chore where it is until it is asked for again, and commands' runs of that
    /// name for good. Answers how many of those there were.
    pub fn pause(&self, name: &str) -> anyhow::Result<usize> {
        let runs = lock(&self.runs);
        let stopped: Vec<_> = runs.values().filter(|run| run.name == name).collect();
        stopped.iter().for_each(|run| run.stop.cancel());
        let count = stopped.len();
        drop(runs);
        match named(name) {
            Ok(chore) => self.keep(chore, |record| record.paused = true)?,
            Err(error) if count == 0 => return Err(error),
            Err(_) => {}
        }
        Ok(count)
    }

    /// All chores, and the runs of commands, as `chore list --json` has them.
    pub fn list(&self) -> Json {
        let chores = Chore::ALL.iter().map(|chore| {
            let state = self.state(*chore);
            let record = lock(&state.record).clone();
            let progress = *lock(&state.progress);
            let what = match (progress, record.paused, &record.failed) {
                (_, true, _) => "paused",
                (Some(_), ..) => "running",
                (None, false, Some(_)) => "failed",
                (None, false, None) => "idle",
            };
            json!({
                "name": chore.name(),
                "about": chore.about(),
                "state": what,
                "done": progress.map(|progress| progress.done),
                "of": progress.map(|progress| progress.of),
                "began_at": record.began_at.map(rfc3339),
                "ended_at": record.ended_at.map(rfc3339),
                "result": record.failed.or(record.result),
                "attention": record.attention,
            })
        });
        let chores: Vec<Json> = chores.collect();
        let runs = lock(&self.runs);
        let runs: Vec<Json> = runs
            .values()
            .map(|run| {
                let Progress { done, of } = *lock(&run.progress);
                let seconds = run.began.elapsed().as_secs();
                json!({ "name": run.name, "what": run.what, "done": done, "of": of, "seconds": seconds })
            })
            .collect();
        json!({ "chores": chores, "runs": runs })
    }

    /// What chores have found that needs a person.
    pub fn attention(&self) -> Vec<String> {
        let of = |state: &State| lock(&state.record).attention.clone();
        self.states.values().flat_map(of).chain(self.damaged_logs()).collect()
    }

    /// What of logs is damaged and not mended yet, some of it.
    fn damaged_logs(&self) -> Vec<String> {
        let store = &self.context.store;
        let told = store.heads().into_keys().filter_map(|partition| {
            let damage = store.known_log_damage(&partition);
            let (count, first) = (damage.len(), damage.into_values().next()?);
            // Nothing else is put together from what followers hold.
            let (zh, en) = match partition.dataset.is_system() {
                true => (
                    "若已没有节点持有，请从备份恢复（docs/backup.zh-CN.md）",
                    "if no node holds it any more, restore a backup (docs/backup.md)",
                ),
                false => ("其间落后的节点改为按页获取", "followers that are behind take pages instead"),
            };
            Some(format!(
                "{partition}：变更日志有 {count} 处损坏（{first}）。记录不受影响；持有它的对端连接后自动修复，'creditsync repair \
                 {partition}' 立即执行；{zh} / {partition}: its log is damaged in {count} places ({first}). No record is \
                 concerned, and it is mended by itself once a peer that holds it is connected, or at once by \
                 'creditsync repair {partition}'; {en}"
            ))
        });
        told.take(DAMAGED_LOGS_TOLD_MAX).collect()
    }
}

fn named(name: &str) -> anyhow::Result<Chore> {
    let found = Chore::ALL.into_iter().find(|chore| chore.name() == name);
    let names: Vec<_> = Chore::ALL.iter().map(|chore| chore.name()).collect();
    let names = names.join(", ");
    found.ok_or_else(|| {
        anyhow::anyhow!(
            "没有名为“{name}”的后台任务，现有：{names} / there is no chore '{name}'; there are: {names}"
        )
    })
}

fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// What is guarded is changed by one assignment each.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}
