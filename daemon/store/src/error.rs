//! What can go wrong with the store. `StoreError` is this folder's boundary.

use std::path::PathBuf;

use protocol::{
    change::Position,
    encoding::DecodeError,
    hash::Hash,
    id::{NodeId, PartitionId},
    tree::{Excess, ShapeError},
};

/// A read or write that did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// sled or the operating system reported an error.
    #[error("the database reported: {0}")]
    Database(String),
    /// A file beside the database could not be read or written.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// Stored bytes do not decode or fail their checksum.
    #[error("stored data of {place} is damaged: {problem}")]
    Damaged {
        /// Partition or table.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Written by a newer program.
    #[error(
        "the database has format {found}; this program knows formats up to {known}. Install a newer creditsync"
    )]
    Format {
        /// The format found.
        found: u32,
        /// The newest one known.
        known: u32,
    },
    /// Of a federation with another suite.
    #[error(
        "the database is of suite {found}, and this node's federation has suite {own}: it belongs to another \
         federation. Restore both from one backup"
    )]
    Suite {
        /// The suite found.
        found: u8,
        /// The federation's.
        own: u8,
    },
    /// Of another node.
    #[error(
        "{place} 属于节点 {found}，而本节点是 {own}：存储目录可能放错了，未做任何改动。请放回 {own} 自己的存储目录；若已丢失，从备份恢复\
         （creditsync restore） / {place} belongs to node {found}, and this is node {own}: directories were mixed up, and \
         nothing was changed. Put the store of {own} back; if it is lost, restore a backup (creditsync restore)"
    )]
    OtherNode {
        /// The directory, or the file in it.
        place: String,
        /// Whose it is.
        found: String,
        /// Who has opened it.
        own: NodeId,
    },
    /// Too little room on the disk.
    #[error(
        "磁盘空间不足：{path} 只剩 {free_mb} MiB，需要 {needed_mb} MiB；没有写入任何内容，请清理磁盘后重试 / \
         the disk is nearly full: {free_mb} MiB are free at {path} and {needed_mb} MiB are needed. \
         Nothing was written; make room and try again"
    )]
    DiskFull {
        /// The store's directory.
        path: PathBuf,
        /// Free space in MiB.
        free_mb: u64,
        /// Reserve and the batch, in MiB.
        needed_mb: u64,
    },
    /// An origin's data would take more room here than it may.
    #[error(
        "{origin} 的数据在本节点将占 {used_mb} MiB，超过上限 {quota_mb} MiB：未写入，其他节点不受影响。请让 {origin} \
         删除不需要的记录；或调高本节点配置 [store] 中的 origin_quota_mb；若主要是大量历史变更所占，可用 \
         creditsync partition refetch 只取现状 / \
         the data of {origin} would count for {used_mb} MiB here, and {quota_mb} MiB is its quota: nothing \
         of it was written, and others go on. Have {origin} delete what it does not need; or raise \
         origin_quota_mb in the section [store] of this node's configuration; or, where it is the history \
         of very many change sets, take the present state alone with creditsync partition refetch"
    )]
    OverQuota {
        /// The origin.
        origin: NodeId,
        /// What its data would count for.
        used_mb: u64,
        /// What it may.
        quota_mb: u64,
    },
    /// What is left of the disk is kept for other origins.
    #[error(
        "磁盘剩余空间已为其他节点预留：{origin} 的数据将占 {used_mb} MiB，目前可保证 {share_mb} MiB；未写入，请扩充磁盘 / \
         what is left of the disk is kept for other origins: the data of {origin} would count for \
         {used_mb} MiB here, {share_mb} MiB are left for it now, and nobody has more to give. Nothing of it \
         was written, and others go on. Make room on the disk of this node"
    )]
    OverShare {
        /// The origin.
        origin: NodeId,
        /// What its data would count for.
        used_mb: u64,
        /// What is left of the room that nobody else can take from it.
        share_mb: u64,
    },
    /// A change set that touches more of the tree than anybody accepts.
    #[error(
        "各节点都会拒绝这些变更：{chinese}。文件中此前的变更可能已写入，可用 creditsync delivery list --all 查看 / \
         every node refuses these changes: {0}{remedy}. What came before them in the file may be in: creditsync \
         delivery list --all",
        chinese = excess_in_chinese(.0), remedy = excess_remedy(.0)
    )]
    Excess(Excess),
    /// A change set that does not follow the replica's head.
    #[error("{partition}: number {offered} does not follow the head, which is number {head}")]
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The replica's number.
        head: u64,
        /// The number offered.
        offered: u64,
    },
    /// A validly signed header whose predecessor is not ours, or that differs
    /// from ours at the same number.
    #[error("{partition} has two histories at number {}", ours.seq)]
    Fork {
        /// The partition.
        partition: Box<PartitionId>,
        /// This replica's position.
        ours: Position,
    },
    /// The replica computes another state than the origin signed.
    #[error(
        "{partition} number {seq}: the computed root is {computed}, the signed one is {signed}"
    )]
    RootMismatch {
        /// The partition.
        partition: Box<PartitionId>,
        /// The change set's number.
        seq: u64,
        /// As signed.
        signed: Hash,
        /// As computed here.
        computed: Hash,
    },
    /// The change set names a `_federation` head that this node does not have
    /// yet, or an older one than its predecessor.
    #[error("{partition} refers to number {needed} of _federation; this node is at {have}")]
    Federation {
        /// The partition.
        partition: PartitionId,
        /// As the change set says.
        needed: u64,
        /// As this node has it.
        have: u64,
    },
    /// A peer's tree breaks the shape that its keys give.
    #[error("{partition}: the delivered tree is malformed: {problem}")]
    Shape {
        /// The partition.
        partition: PartitionId,
        /// The rule.
        problem: ShapeError,
    },
    /// The partition waits for a person.
    #[error("{partition} is quarantined: {reason}")]
    Quarantined {
        /// The partition.
        partition: PartitionId,
        /// Why.
        reason: String,
    },
    /// A peer holds more of this node's own history than the node itself.
    #[error(
        "{partition}：本机只到第 {have} 号，而曾签名到第 {awaited} 号：本目录来自旧备份或已损坏，正从对端取回，取回之前不写入；\
         'creditsync status' 显示进展 / {partition} is at number {have} here, and this node has signed it up to number \
         {awaited}: this directory is restored from an older state, or damaged. Nothing is written until its own \
         history is back from a peer; 'creditsync status' shows how far that is"
    )]
    AwaitsOwnHistory {
        /// The partition.
        partition: PartitionId,
        /// This node's number.
        have: u64,
        /// The peer's number.
        awaited: u64,
    },
    /// An earlier key of this node has signed more of its history than is here, and the
    /// hub was not asked for it yet.
    #[error(
        "{partition}：本节点已重新加入，先前的签名密钥已签到第 {last} 号，本机只到第 {have} 号；请先启动守护进程并连接市级中心，\
         取回之前不写入 / {partition} is at number {have} here, and an earlier signing key of this node has signed up \
         to number {last}: this node has joined again, and nothing is written until the hub was asked for what is \
         missing. Let the daemon run and connect (creditsync status)"
    )]
    AwaitsEarlierKey {
        /// The partition.
        partition: PartitionId,
        /// This node's number.
        have: u64,
        /// The earlier key's last number.
        last: u64,
    },
    /// The change set was signed with a key that nothing more is taken of, while
    /// it is being retired.
    #[error(
        "{partition}: the key that signed the change set is suspended while it is being retired"
    )]
    KeySuspended {
        /// The partition.
        partition: PartitionId,
    },
    /// This node was told to write nothing to its own partitions.
    #[error(
        "this node writes nothing of its own: {reason}. 'creditsync status' says what to do next"
    )]
    OwnWritesStopped {
        /// Why.
        reason: String,
    },
    /// Own changes, and no key to sign them.
    #[error("{0}: the store was given no signing key, so nothing can be committed")]
    NoSigner(PartitionId),
    /// A header is not in the log, so those behind it cannot be signed anew.
    #[error(
        "{partition}: the header with number {seq} is not kept here, so the change sets from there on cannot be signed with the new key. Nothing was changed"
    )]
    HeaderMissing {
        /// The partition.
        partition: PartitionId,
        /// The number.
        seq: u64,
    },
    /// More headers than are signed anew in one batch.
    #[error(
        "{partition}: {headers} change sets would have to be signed with the new key, and at most {limit} can be. Nothing was changed. Let the peer take them while the old key counts; if it counts no longer, move the store directory aside, let the node fetch its data from its peer and deliver the newest files again"
    )]
    TooManyToSign {
        /// The partition.
        partition: PartitionId,
        /// How many there are.
        headers: u64,
        /// How many may be.
        limit: u64,
    },
    /// Changes that no peer would accept from this node.
    #[error("{partition}: the changes cannot be committed: {problem}")]
    Changes {
        /// The partition.
        partition: PartitionId,
        /// The limit or rule.
        problem: &'static str,
    },
    /// What was to be written is of a state that the partition has no more: another
    /// fetch has begun, a commit came in between, or the partition was dropped.
    #[error(
        "{0}: 期间已有其他更新，稍后自动重试；手动命令请重新执行 / another change came first, so nothing of this one was \
         written. A node tries it again by itself; give a command again"
    )]
    Overtaken(PartitionId),
    /// More snapshots are open than the writer can serve.
    #[error("{0} snapshots are open already")]
    SnapshotsOpen(usize),
    /// The snapshot was closed because nobody read from it.
    #[error("the snapshot expired")]
    SnapshotExpired,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

impl From<Excess> for StoreError {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}

fn excess_in_chinese(excess: &Excess) -> &'static str {
    match excess {
        Excess::Leaves | Excess::Inner => "单条变更涉及的数据页过大",
        Excess::Pages => "单条变更涉及的数据页过多",
        Excess::Levels => "主键彼此层层嵌套，不像正常编号，请检查主键所在列",
    }
}

fn excess_remedy(excess: &Excess) -> &'static str {
    match excess {
        Excess::Levels => "; look at the columns of the key",
        Excess::Leaves | Excess::Inner | Excess::Pages => "",
    }
}

impl StoreError {
    /// Whether an origin may not have so much room: of a smaller state it may be taken.
    pub fn is_over_quota(&self) -> bool {
        matches!(self, StoreError::OverQuota { .. } | StoreError::OverShare { .. })
    }

    /// Whether there is no room for what was to be written.
    pub fn is_lack_of_room(&self) -> bool {
        self.is_over_quota() || matches!(self, StoreError::DiskFull { .. })
    }
}

impl From<DecodeError> for StoreError {
    fn from(error: DecodeError) -> Self {
        StoreError::Damaged { place: "a page".into(), problem: error.to_string() }
    }
}
