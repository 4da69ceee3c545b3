//! A node, opened: what every command works on, in the daemon or on its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use certs::{
    enrol::Anchor,
    identity::Identity,
    keyfile::{KeyDir, SIGNING_KEY_FILE},
};
use config::NodeConfig;
use protocol::{
    change::Change,
    hash::Hash,
    id::{DatasetId, PartitionId},
    sign::SigningKey,
};
use tokio_util::sync::CancellationToken;

use super::dir::{DirLock, NodeDir};
use crate::{
    ingest::{Importer, deliveries::Deliveries, import::HoldRule},
    membership::Membership,
    store::{Head, Options, OwnChanges, Store},
    sync,
};

/// An open node.
pub struct Node {
    /// Where it lies.
    pub dir: NodeDir,
    /// Its configuration.
    pub config: NodeConfig,
    /// Its name in its federation.
    pub identity: Identity,
    /// The key that signs its change sets.
    pub signing_key: Arc<SigningKey>,
    /// Its store.
    pub store: Store,
    /// Its federation.
    pub membership: Arc<Membership>,
    /// What replication needs, and who is connected.
    pub sync: Arc<sync::Context>,
    /// Imports into its partitions.
    pub importer: Arc<Importer>,
    /// Deliveries that wait for a person.
    pub deliveries: Arc<Deliveries>,
    /// When the daemon started; none for a single command.
    pub started: Option<Instant>,
    /// Ends everything that belongs to this node.
    pub shutdown: CancellationToken,
    /// Invitations are read, changed and written by one at a time.
    pub(super) invites: Mutex<()>,
    /// Schemas are compared and published by one at a time.
    pub(super) publishing: Mutex<()>,
    _lock: DirLock,
}

/// Reads and checks `creditsync.toml`.
pub fn load_config(dir: &NodeDir) -> anyhow::Result<NodeConfig> {
    let path = dir.config();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is no node: there is no creditsync.toml. Make a hub with 'creditsync init', or join \
             one with 'creditsync join TOKEN'; --dir says where",
            dir.path().display()
        ),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    NodeConfig::parse(&text).with_context(|| format!("{} is not valid", path.display()))
}

/// Reads the anchor that `init` or `join` left.
pub fn load_anchor(dir: &NodeDir) -> anyhow::Result<Anchor> {
    let path = dir.anchor();
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Anchor::decode(&bytes).with_context(|| format!("{} is damaged", path.display()))
}

/// Opens the store as the configuration says.
pub fn open_store(dir: &NodeDir, config: &NodeConfig) -> anyhow::Result<Store> {
    let options =
        Options { cache_mb: config.store.cache_mb, disk_reserve_mb: config.store.disk_reserve_mb };
    Store::open(&dir.store(), &options)
        .with_context(|| format!("open the store at {}", dir.store().display()))
}

impl Node {
    /// Locks the directory, reads what lies there, opens the store.
    pub fn open(dir: &NodeDir) -> anyhow::Result<Self> {
        let config = load_config(dir)?;
        let lock = dir.lock()?;
        Self::open_locked(dir, config, lock)
    }

    /// As [`Node::open`], for who holds the lock.
    pub(super) fn open_locked(
        dir: &NodeDir,
        config: NodeConfig,
        lock: DirLock,
    ) -> anyhow::Result<Self> {
        dir.create()?;
        let identity = Identity::new(&config.federation, &config.node);
        let anchor = load_anchor(dir)?;
        if anchor.federation != config.federation {
            bail!(
                "creditsync.toml says federation '{}', but this node belongs to '{}'. Correct the file",
                config.federation,
                anchor.federation
            );
        }
        let signing_key = Arc::new(KeyDir::new(dir.keys(), None).load(SIGNING_KEY_FILE)?);
        let store = open_store(dir, &config)?;
        let membership = Arc::new(Membership::new(store.clone(), anchor, config.node.clone()));
        check_own_key(&membership, &signing_key)?;
        let sync = Arc::new(sync::Context::new(
            store.clone(),
            membership.clone(),
            Duration::from_secs(config.sync.heartbeat_s),
            Duration::from_secs(config.sync.retry_max_s),
        ));
        let shutdown = CancellationToken::new();
        let hold = HoldRule {
            percent: config.import.hold_deletes_percent,
            at_least: config.import.hold_deletes_min,
        };
        let importer = Arc::new(Importer::new(
            store.clone(),
            membership.clone(),
            signing_key.clone(),
            dir.run(),
            usize::try_from(config.import.memory_mb * 1024 * 1024).unwrap_or(usize::MAX),
            hold,
            shutdown.clone(),
        ));
        let deliveries = Arc::new(Deliveries::new(dir.deliveries()));
        Ok(Self {
            dir: dir.clone(),
            config,
            identity,
            signing_key,
            store,
            membership,
            sync,
            importer,
            deliveries,
            started: None,
            shutdown,
            invites: Mutex::new(()),
            publishing: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Whether this node is its federation's hub.
    pub fn is_hub(&self) -> bool {
        self.membership.is_hub()
    }

    /// Partitions of one dataset, or all, that have a head.
    pub fn heads(&self, dataset: Option<&DatasetId>) -> BTreeMap<PartitionId, Arc<Head>> {
        let mut heads = self.store.heads();
        heads.retain(|partition, _| dataset.is_none_or(|dataset| partition.dataset == *dataset));
        heads
    }

    /// Commits changes of `_federation`, which only the hub may. Blocks.
    pub fn commit_federation(&self, changes: Vec<Change>) -> anyhow::Result<Arc<Head>> {
        if !self.is_hub() {
            bail!(
                "members and datasets are the hub's business; do this at {}",
                self.membership.hub()
            );
        }
        let own = federation_changes(&self.membership, changes);
        let pending = self.store.commit_own_later(own, self.signing_key.clone())?;
        Ok(pending.wait()?)
    }
}

/// The key has to be one that the federation knows of the node that the
/// configuration names: nobody signs under another's name by a slip in a file.
/// A node whose store is empty learns later.
fn check_own_key(membership: &Membership, key: &SigningKey) -> anyhow::Result<()> {
    use protocol::change::KeyRing as _;
    let registry = membership.current()?;
    let me = membership.me();
    if registry.members().is_empty() || registry.key(me, &key.public().id()).is_some() {
        return Ok(());
    }
    bail!(
        "creditsync.toml says that this is node '{me}', but this node's signing key is not one of its \
         keys. Correct 'node' in the file"
    );
}

/// Sorted changes of `_federation`.
pub(super) fn federation_changes(membership: &Membership, mut changes: Vec<Change>) -> OwnChanges {
    changes.sort_by(|a, b| a.key().cmp(b.key()));
    OwnChanges {
        partition: membership.partition().clone(),
        changes,
        schema_version: protocol::federation::schema().version(),
        keep_body: true,
    }
}

/// The text form of a public signing key, as `_federation` has it.
pub(super) fn key_text(key: &SigningKey) -> String {
    Hash(*key.public().as_bytes()).to_string()
}
