//! What the store knows in memory: heads, acknowledgements, counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use protocol::{
    change::{Change, Position, SignedHeader},
    hash::Hash,
    history::Peaks,
    id::{FederationId, NodeId, PartitionId},
    message::Announced,
    session::fetch::ShownHead,
    sign::SigningKey,
    suite::Suite,
    tree::Summary,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{
    engine::Disk,
    error::StoreError,
    events::Moved,
    keys,
    marks::Marks,
    quota::{LogKept, Origins, Usage, counted},
    tree::OpenSnapshot,
};

/// A partition's newest durable change set and the tree behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The signed header.
    pub signed: SignedHeader,
    /// The headers before it, as it names them in its history.
    pub before: Peaks,
    /// The tree's root, record count and page counts.
    pub summary: Summary,
    /// The generation of the pages.
    pub generation: u32,
    /// What the log keeps of its change sets.
    pub log: LogKept,
    /// When this node committed it, in milliseconds since 1970.
    pub updated_ms: i64,
}

impl Head {
    /// Sequence number and header hash.
    pub fn position(&self) -> Position {
        self.signed.position()
    }

    /// The sequence number.
    pub fn seq(&self) -> u64 {
        self.signed.header().seq
    }

    /// The state root.
    pub fn root(&self) -> Hash {
        self.summary.root
    }

    /// The headers up to this one: the history of the next.
    pub fn history(&self) -> Peaks {
        let mut history = self.before.clone();
        history.push(self.signed.hash());
        history
    }

    /// What the partition counts for where room is shared out.
    pub fn counted(&self) -> u64 {
        counted(&self.summary, self.log)
    }

    /// As a replica without anything is shown it.
    pub fn shown(&self) -> ShownHead {
        let (signed, before) = (self.signed.clone(), self.before.clone());
        ShownHead { signed, before, have: None, path: Vec::new() }
    }

    /// What a peer is told about this head.
    pub fn announced(&self) -> Announced {
        Announced {
            partition: self.signed.header().partition.clone(),
            position: self.position(),
            root: self.summary.root,
            records: self.summary.records,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        protocol::codec::encode(&StoredHead {
            version: 1,
            header: self.signed.encode(),
            before: self.before.clone(),
            summary: self.summary.clone(),
            generation: self.generation,
            log: self.log,
            updated_ms: self.updated_ms,
        })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let wrong = |problem: String| StoreError::Damaged { place: "a head".into(), problem };
        let stored: StoredHead =
            protocol::codec::decode(bytes).map_err(|error| wrong(error.to_string()))?;
        if stored.version != 1 {
            return Err(wrong(format!("unknown version {}", stored.version)));
        }
        let signed = SignedHeader::decode(&stored.header).map_err(|e| wrong(e.to_string()))?;
        let StoredHead { before, summary, generation, log, updated_ms, .. } = stored;
        Ok(Self { signed, before, summary, generation, log, updated_ms })
    }
}

/// The shape of a head on the disk.
#[derive(Serialize, Deserialize)]
struct StoredHead {
    version: u8,
    #[serde(with = "serde_bytes")]
    header: Vec<u8>,
    before: Peaks,
    summary: Summary,
    generation: u32,
    log: LogKept,
    updated_ms: i64,
}

/// Changes for a partition that this node owns.
#[derive(Debug)]
pub struct OwnChanges {
    /// The partition; its origin is this node.
    pub partition: PartitionId,
    /// Sorted by key, within the limits of one change set.
    pub changes: Vec<Change>,
    /// The version of the dataset's schema that they were made under.
    pub schema_version: u32,
    /// Whether the log keeps the changes. The change sets of a large first load
    /// keep only their headers: followers take pages.
    pub keep_body: bool,
}

impl OwnChanges {
    /// The same in two, of which the first one comes first.
    pub fn halves(&mut self) -> (Self, Self) {
        let second = self.changes.split_off(self.changes.len() / 2);
        let part = |changes| Self { partition: self.partition.clone(), changes, ..*self };
        let second = part(second);
        (part(std::mem::take(&mut self.changes)), second)
    }
}

/// What a node acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The newest durable number there.
    pub seq: u64,
    /// When it was heard, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Change sets and stagings committed.
    pub commits: u64,
    /// Calls of `fdatasync`.
    pub syncs: u64,
    /// Pages written.
    pub pages_written: u64,
    /// Leaves that were changed in place.
    pub leaves_patched: u64,
    /// Bytes of keys and values given to sled, and bytes written to the journal.
    pub bytes_written: u64,
}

/// What a partition has lost: the database holds less of it than the sidecar says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The number that was durable.
    pub seq: u64,
    /// What the sidecar says of it.
    pub line: String,
}

impl Lost {
    /// The head that was durable: the sidecar has its hash behind the number.
    pub fn position(&self, suite: Suite) -> Option<Position> {
        let hash = self.line.split(' ').nth(2)?;
        Some(Position { seq: self.seq, hash: Hash::parse(suite, hash)? })
    }
}

/// One partition in memory.
pub struct PartitionState {
    pub number: u32,
    head: RwLock<Option<Arc<Head>>>,
    acks: Mutex<BTreeMap<NodeId, Ack>>,
    acked: Condvar,
    quarantine: Mutex<Option<String>>,
    /// What of its pages was found to be damaged, until they are well again.
    damage: Mutex<Option<String>>,
    /// What of its log was found to be damaged, by number, until it was mended.
    log_damage: Mutex<BTreeMap<u64, String>>,
}

/// Damaged numbers of one partition's log that are kept in mind: those above are found
/// when these were mended.
const LOG_DAMAGE_MAX: usize = 1000;

impl PartitionState {
    pub fn new(number: u32) -> Self {
        Self {
            number,
            head: RwLock::new(None),
            acks: Mutex::new(BTreeMap::new()),
            acked: Condvar::new(),
            quarantine: Mutex::new(None),
            damage: Mutex::new(None),
            log_damage: Mutex::default(),
        }
    }

    pub fn head(&self) -> Option<Arc<Head>> {
        self.head.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    pub fn publish(&self, head: Arc<Head>) {
        *self.head.write().unwrap_or_else(|e| e.into_inner()) = Some(head);
    }

    /// Shows those who still hold it that nothing is here any more.
    pub fn forget(&self) {
        *self.head.write().unwrap_or_else(|e| e.into_inner()) = None;
    }

    pub fn acks(&self) -> BTreeMap<NodeId, Ack> {
        lock(&self.acks).clone()
    }

    /// Notes an acknowledgement; answers whether it is news.
    pub fn note_ack(&self, node: &NodeId, ack: Ack) -> bool {
        let mut acks = lock(&self.acks);
        let news = acks.get(node).is_none_or(|known| known.seq != ack.seq);
        acks.insert(node.clone(), ack);
        self.acked.notify_all();
        news
    }

    /// Waits, at most so long, until `node` holds everything up to `seq`; answers
    /// whether it does.
    pub fn wait_for_ack(&self, node: &NodeId, seq: u64, longest: Duration) -> bool {
        let missing =
            |acks: &mut BTreeMap<NodeId, Ack>| acks.get(node).is_none_or(|known| known.seq < seq);
        let waited = self.acked.wait_timeout_while(lock(&self.acks), longest, missing);
        let (mut acks, _) = waited.unwrap_or_else(|error| error.into_inner());
        !missing(&mut acks)
    }

    pub fn quarantine(&self) -> Option<String> {
        lock(&self.quarantine).clone()
    }

    pub fn set_quarantine(&self, reason: Option<String>) {
        *lock(&self.quarantine) = reason;
    }

    pub fn damage(&self) -> Option<String> {
        lock(&self.damage).clone()
    }

    /// Notes damage; answers whether it is news.
    pub fn set_damage(&self, damage: Option<String>) -> bool {
        let mut known = lock(&self.damage);
        let is_news = known.is_none() && damage.is_some();
        *known = damage;
        is_news
    }

    pub fn log_damage(&self) -> BTreeMap<u64, String> {
        lock(&self.log_damage).clone()
    }

    /// Notes what is wrong with a number of the log; answers whether it is news.
    pub fn note_log_damage(&self, seq: u64, problem: String) -> bool {
        let mut known = lock(&self.log_damage);
        if !known.contains_key(&seq) && known.len() >= LOG_DAMAGE_MAX {
            return false;
        }
        known.insert(seq, problem).is_none()
    }

    /// A number of the log is well, or not there any more.
    pub fn log_is_well(&self, seq: u64) {
        lock(&self.log_damage).remove(&seq);
    }
}

/// The number up to which a partition is here.
type Held<'a> = &'a dyn Fn(&PartitionId) -> u64;
/// Answers the number up to which another node holds an own partition, if that is
/// more than what is here.
pub(super) type AskBeforeWriting = Arc<dyn Fn(&PartitionId, Held<'_>) -> Option<u64> + Send + Sync>;

/// What the writer, the readers and the sidecar share.
pub struct Shared {
    pub disk: Disk,
    pub path: PathBuf,
    partitions: RwLock<BTreeMap<PartitionId, Arc<PartitionState>>>,
    pub moved: Moved,
    pub snapshots: Mutex<Vec<Arc<OpenSnapshot>>>,
    /// Partitions whose large first load is under way.
    pub loading: Mutex<BTreeSet<PartitionId>>,
    /// Own partitions that a peer holds up to a higher number: nothing is
    /// written before they are taken back.
    pub awaited: Mutex<BTreeMap<PartitionId, u64>>,
    /// Own partitions to which nothing is written for now, and why.
    pub held: Mutex<BTreeMap<PartitionId, String>>,
    /// Own partitions that an earlier key is said to have signed up to a higher number,
    /// while that is asked for.
    pub awaited_earlier: Mutex<BTreeMap<PartitionId, u64>>,
    /// What was lost of partitions, until it is there again.
    pub lost: Mutex<BTreeMap<PartitionId, Lost>>,
    /// Whose data is here, and how much each may have; no quotas while it is not set.
    pub origins: Mutex<Option<Arc<Origins>>>,
    /// What each origin's data counts for.
    pub usage: Mutex<Usage>,
    /// How far consumers have come.
    pub marks: Mutex<Marks>,
    /// Asked before own change sets.
    pub ask_before_writing: Mutex<Option<AskBeforeWriting>>,
    /// Signs own change sets. Set when the node opens; behind that only the
    /// writer changes it, between two jobs.
    pub signer: Mutex<Option<Arc<SigningKey>>>,
    /// Why nothing is written to own partitions but `_federation`.
    pub own_writes_stopped: Mutex<Option<String>>,
    /// Stagings that are under way, to share memory out among them.
    pub stagings: AtomicUsize,
    pub failed: AtomicBool,
    /// Told when a partition is found to be damaged.
    pub damaged: Notify,
    /// The database has become so long that it should be compacted.
    pub wasteful: Notify,
    pub commits: AtomicU64,
    pub pages_written: AtomicU64,
    /// Leaves that were changed in place.
    pub leaves_patched: AtomicU64,
    /// Whose store the sidecar says this is.
    pub owner: Mutex<Option<String>>,
    /// The partition that the sidecar leaves out, because it is being forgotten.
    /// Held while the file is written.
    pub forgetting: Mutex<Option<PartitionId>>,
    /// Heads moved since the sidecar was written, and whether to end.
    pub sidecar: (Mutex<SidecarState>, std::sync::Condvar),
}

/// What the sidecar's thread waits for.
#[derive(Default)]
pub struct SidecarState {
    pub dirty: bool,
    pub closing: bool,
}

impl Shared {
    pub fn new(
        disk: Disk,
        partitions: BTreeMap<PartitionId, Arc<PartitionState>>,
        path: PathBuf,
    ) -> Self {
        let mut usage = Usage::default();
        for (partition, state) in &partitions {
            usage.moved(&partition.origin, 0, state.head().map_or(0, |head| head.counted()));
        }
        Self {
            disk,
            path,
            partitions: RwLock::new(partitions),
            moved: Moved::default(),
            snapshots: Mutex::default(),
            loading: Mutex::default(),
            awaited: Mutex::default(),
            held: Mutex::default(),
            awaited_earlier: Mutex::default(),
            lost: Mutex::default(),
            marks: Mutex::default(),
            origins: Mutex::default(),
            usage: Mutex::new(usage),
            ask_before_writing: Mutex::default(),
            signer: Mutex::default(),
            own_writes_stopped: Mutex::default(),
            stagings: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            damaged: Notify::new(),
            wasteful: Notify::new(),
            commits: AtomicU64::new(0),
            pages_written: AtomicU64::new(0),
            leaves_patched: AtomicU64::new(0),
            forgetting: Mutex::default(),
            owner: Mutex::default(),
            sidecar: Default::default(),
        }
    }

    pub fn partition(&self, partition: &PartitionId) -> Option<Arc<PartitionState>> {
        self.partitions.read().unwrap_or_else(|e| e.into_inner()).get(partition).cloned()
    }

    pub fn partitions(&self) -> BTreeMap<PartitionId, Arc<PartitionState>> {
        self.partitions.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// The partitions that hold what a federation says of itself.
    pub fn federation_partitions(&self, federation: &FederationId) -> Vec<PartitionId> {
        let partitions = self.partitions.read().unwrap_or_else(|e| e.into_inner());
        let is_it = |id: &&PartitionId| id.federation == *federation && id.dataset.is_system();
        partitions.keys().filter(is_it).cloned().collect()
    }

    /// What became of reading pages under `head`, which is or was the partition's: damage
    /// is noted, whoever met it.
    pub fn heed<T>(
        &self,
        head: &Head,
        state: &PartitionState,
        read: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Err(StoreError::Damaged { place, problem }) = read else {
            return read;
        };
        let place = format!("{} ({place})", head.signed.header().partition);
        if state.set_damage(Some(format!("{place}: {problem}"))) {
            tracing::error!(
                partition = %head.signed.header().partition, seq = head.seq(), %place, %problem,
                "stored pages are damaged; nothing of them is shown or signed / 存储的数据页已损坏，不会对外提供或签名"
            );
            self.damaged.notify_one();
        }
        Err(StoreError::Damaged { place, problem })
    }

    /// What became of reading number `seq` of a partition's log: damage is noted, whoever met
    /// it, and something is told to mend it.
    pub fn heed_log<T>(
        &self,
        partition: &PartitionId,
        state: &PartitionState,
        seq: u64,
        read: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Err(StoreError::Damaged { place, problem }) = read else {
            return read;
        };
        self.note_log_damage(partition, state, seq, format!("{place}: {problem}"));
        Err(StoreError::Damaged { place: format!("{partition} ({place})"), problem })
    }

    pub fn note_log_damage(
        &self,
        partition: &PartitionId,
        state: &PartitionState,
        seq: u64,
        problem: String,
    ) {
        if state.note_log_damage(seq, problem.clone()) {
            tracing::warn!(
                %partition, seq, %problem,
                "a change set of the log is damaged; no record is concerned, and it is mended by itself / \
                 变更日志中有一条损坏，记录不受影响，将自动修复"
            );
            self.damaged.notify_one();
        }
    }

    pub fn add_partition(&self, partition: PartitionId, state: Arc<PartitionState>) {
        self.partitions.write().unwrap_or_else(|e| e.into_inner()).insert(partition, state);
    }

    pub fn counters(&self) -> Counters {
        Counters {
            commits: self.commits.load(Ordering::Relaxed),
            syncs: self.disk.syncs.load(Ordering::Relaxed),
            pages_written: self.pages_written.load(Ordering::Relaxed),
            leaves_patched: self.leaves_patched.load(Ordering::Relaxed),
            bytes_written: self.disk.bytes_written.load(Ordering::Relaxed),
        }
    }

    /// Tells the sidecar's thread that a head moved, or that it should end.
    pub fn touch_sidecar(&self, change: impl FnOnce(&mut SidecarState)) {
        change(&mut lock(&self.sidecar.0));
        self.sidecar.1.notify_all();
    }
}

/// Locks a mutex whose data stays whole even if a holder panicked: what is changed under
/// these locks is changed by one assignment or insertion.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Reads all partitions from the disk.
pub fn load_partitions(
    disk: &Disk,
) -> Result<BTreeMap<PartitionId, Arc<PartitionState>>, StoreError> {
    let damaged =
        |place: &str, problem: String| StoreError::Damaged { place: place.into(), problem };
    let mut partitions = BTreeMap::new();
    for item in disk.scan(keys::NUMBERS) {
        let (name, value) = item?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let partition =
            PartitionId::parse_full(&name).map_err(|error| damaged(&name, error.to_string()))?;
        let number: [u8; 4] = value
            .as_ref()
            .try_into()
            .map_err(|_| damaged(&name, "its number has not 4 bytes".into()))?;
        let state = PartitionState::new(u32::from_be_bytes(number));
        if let Some(bytes) = disk.get(&keys::head(state.number))? {
            state.publish(Arc::new(Head::decode(&bytes)?));
        }
        if let Some(reason) = disk.get(&keys::quarantine(state.number))? {
            state.set_quarantine(Some(String::from_utf8_lossy(&reason).into_owned()));
        }
        for ack in disk.scan(&keys::acks(state.number)) {
            let (node, ack) = ack?;
            let node = NodeId::new(&String::from_utf8_lossy(&node));
            let ack = protocol::codec::decode(&ack);
            if let (Ok(node), Ok(ack)) = (node, ack) {
                state.note_ack(&node, ack);
            }
        }
        partitions.insert(partition, Arc::new(state));
    }
    Ok(partitions)
}

/// The wall clock in milliseconds since 1970; zero if it is before that.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
