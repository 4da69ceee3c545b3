//! A node, opened: what every command works on, in the daemon or on its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use certs::{
    authority::CaDirs,
    enrol::Anchor,
    identity::Identity,
    keyfile::{KeyDir, PASSPHRASE_VARIABLE, Passphrase},
    pki::PkiFiles,
};
use config::NodeConfig;
use protocol::{
    encoding::DecodeError,
    id::{DatasetId, PartitionId},
    sign::SigningKey,
    suite::Suite,
};
use store::{Head, Options, Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    alarms::{Alarm, Alarms},
    dir::NodeDir,
    hub::{self, Registrar},
    keeper::Keeper,
    keys::OwnKeys,
    lock::{DirLock, Occupant},
    missing, opening,
    restored::{Restored, refuse_without_keys},
    room,
    trustee::{self, Trustee},
};
use crate::{
    ingest::{Importer, held::Deliveries, history::UndoLimits, hold::HoldLimits},
    membership::Membership,
    sync,
    upkeep::Upkeep,
};

/// An open node.
pub struct Node {
    /// Where it lies.
    pub dir: NodeDir,
    /// Its configuration.
    pub config: NodeConfig,
    /// Its name in its federation.
    pub identity: Identity,
    /// The keys that sign its change sets.
    pub own_keys: Arc<OwnKeys>,
    /// What it shows and whom it trusts.
    pub keeper: Arc<Keeper>,
    /// At a hub: who says who belongs.
    pub registrar: Option<Arc<Registrar>>,
    /// At a member: who judges what the hub says.
    pub trustee: Option<Arc<Trustee>>,
    /// What is wrong with its trust.
    pub alarms: Arc<Alarms>,
    /// Its store.
    pub store: Store,
    /// Its federation.
    pub membership: Arc<Membership>,
    /// What replication needs, and who is connected.
    pub sync: Arc<sync::Context>,
    /// Where its hub is dialled by its configuration; nothing at a hub. A join may
    /// change it.
    pub upstream: watch::Sender<Vec<String>>,
    /// Imports into its partitions.
    pub importer: Arc<Importer>,
    /// Deliveries that wait for a person.
    pub deliveries: Arc<Deliveries>,
    /// What goes on in the background.
    pub upkeep: Arc<Upkeep>,
    /// When the daemon started; none for a single command.
    pub started: Option<Instant>,
    /// Ends everything that belongs to this node.
    pub shutdown: CancellationToken,
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
            "{0} 不是节点目录（没有 creditsync.toml）：市级用 'creditsync init' 创建，县级用 'creditsync join' 加入，\
             目录用 --dir 指定 / {0} is no node: there is no creditsync.toml. Make a hub with 'creditsync init', or join \
             one with 'creditsync join'; --dir says where",
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
    Anchor::decode(&bytes).with_context(|| match Anchor::decode(&bytes) {
        Err(DecodeError::UnknownSuite(_)) => format!("{} cannot be used here", path.display()),
        _ => format!("{} is damaged", path.display()),
    })
}

/// Opens the store as the configuration says.
pub fn open_store(dir: &NodeDir, config: &NodeConfig, suite: Suite) -> anyhow::Result<Store> {
    Store::open(&dir.store(), &store_options(config, suite))
        .with_context(|| format!("open the store at {}", dir.store().display()))
}

fn store_options(config: &NodeConfig, suite: Suite) -> Options {
    Options {
        suite,
        cache_mb: config.store.cache_mb,
        disk_reserve_mb: config.store.disk_reserve_mb,
    }
}

impl Node {
    /// Locks the directory, reads what lies there, opens the store. Waits for
    /// another process that has the directory.
    pub fn open(dir: &NodeDir, who: Occupant) -> anyhow::Result<Self> {
        // What is no node gets no lock's file.
        load_config(dir)?;
        let lock = dir.lock(who)?;
        Self::open_locked(dir, lock, who).map_err(|error| missing::explained(dir, error))
    }

    /// As [`Node::open`] for a command; none if another process has the
    /// directory, or is making a node of it.
    pub fn try_open(dir: &NodeDir) -> anyhow::Result<Option<Self>> {
        if dir.is_in_the_making() {
            return Ok(None);
        }
        load_config(dir)?;
        let lock = dir.try_lock()?;
        let opened = lock.map(|lock| Self::open_locked(dir, lock, Occupant::Command));
        opened.transpose().map_err(|error| missing::explained(dir, error))
    }

    fn open_locked(dir: &NodeDir, lock: DirLock, who: Occupant) -> anyhow::Result<Self> {
        // Again: whoever had the directory may have changed it.
        let config = load_config(dir)?;
        // Before a new one is made.
        missing::refuse_without_store(dir)?;
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
        let is_hub = config.upstream.is_none();
        refuse_without_keys(dir, is_hub)?;
        let keys = KeyDir::new(dir.keys(), passphrase()?);
        let alarms = Arc::new(Alarms::default());
        let pki = pki_files(dir, &config);
        let keeper =
            Keeper::load(dir.certs(), keys.clone(), identity.clone(), pki, alarms.clone())?;
        let keeper = Arc::new(keeper);
        if who == Occupant::Daemon {
            opening::make_openable(dir, &store_options(&config, anchor.suite()))?;
        }
        let store = open_store(dir, &config, anchor.suite())?;
        store.claim(&config.node)?;
        let mut membership = Membership::new(store.clone(), anchor, config.node.clone());
        if !membership.is_hub() {
            membership = membership.keep_personal(&dir.personal())?;
        }
        let membership = Arc::new(membership);
        if who == Occupant::Daemon {
            drop_damaged_members(&store, &membership)?;
        }
        if let Some(text) = Restored::of(dir).text()? {
            // At a member the trustee says when it is over, at the hub its office.
            store.stop_own_writes(Some(text.clone()));
            alarms.raise(Alarm::Restored, text);
        }
        let own_keys = Arc::new(OwnKeys::load(keys.clone(), &dir.certs(), store.clone())?);
        let (of_key, own) = (own_keys.current().suite(), membership.suite());
        if of_key != own {
            // What it signed could be read by nobody, this node included.
            bail!(
                "the signing key is of suite {of_key}, and this node's federation has suite {own}: it belongs to \
                 another federation. Restore both from one backup"
            );
        }
        let tell = watch::Sender::new(());
        let claims = Arc::new(sync::Claims::default());
        let (mut registrar, mut trustee) = (None, None);
        if membership.is_hub() {
            let office = Registrar::open(hub::Parts {
                dir: dir.clone(),
                identity: identity.clone(),
                cas: ca_dirs(dir, &config, &keys),
                own_keys: own_keys.clone(),
                keeper: keeper.clone(),
                alarms: alarms.clone(),
                store: store.clone(),
                membership: membership.clone(),
                tell: tell.clone(),
                claims: claims.clone(),
                config: config.clone(),
            })?;
            // A node that cannot bring something to its end is still there for the
            // commands that can.
            if let Err(error) = office.settle() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "an interrupted change of keys or authorities could not be finished"
                );
            }
            registrar = Some(Arc::new(office));
        } else {
            let judge = Trustee::open(trustee::Parts {
                dir: dir.clone(),
                store: store.clone(),
                membership: membership.clone(),
                own_keys: own_keys.clone(),
                keeper: keeper.clone(),
                alarms: alarms.clone(),
                claims: claims.clone(),
                tell: tell.clone(),
            })?;
            if let Err(error) = judge.look() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "what the hub says about trust could not be taken over; trying again"
                );
            }
            trustee = Some(Arc::new(judge));
        }
        check_own_key(&membership, &own_keys.current())?;
        room::share_out(&store, &membership, config.store.origin_quota_mb)?;
        let mut sync = sync::Context::new(
            store.clone(),
            membership.clone(),
            Duration::from_secs(config.sync.heartbeat_s),
            Duration::from_secs(config.sync.retry_max_s),
        );
        sync.patience = Duration::from_secs(config.sync.stall_s);
        sync.tell = tell;
        sync.claims = claims.clone();
        sync.office = registrar.clone().map(|office| office as Arc<dyn sync::Office>);
        sync.trustee = trustee.clone().map(|judge| judge as Arc<dyn sync::Trustee>);
        let sync = Arc::new(sync);
        store.ask_before_writing(move |partition, held| claims.before_write(partition, held));
        let shutdown = CancellationToken::new();
        let hold = HoldLimits {
            deletes_percent: config.import.hold_deletes_percent,
            deletes_min: config.import.hold_deletes_min,
            changes_percent: config.import.hold_changes_percent,
            changes_min: config.import.hold_changes_min,
            doubtful_percent: config.import.hold_doubtful_percent,
            doubtful_min: config.import.hold_doubtful_min,
        };
        let undo = UndoLimits {
            days: config.import.undo_days,
            bytes: config.import.undo_mb * 1024 * 1024,
        };
        let importer = Arc::new(Importer::new(
            store.clone(),
            membership.clone(),
            dir.run(),
            dir.recall(),
            usize::try_from(config.import.memory_mb * 1024 * 1024).unwrap_or(usize::MAX),
            hold,
            shutdown.clone(),
        ));
        let deliveries = Arc::new(Deliveries::new(dir.deliveries(), undo));
        deliveries.history().expire();
        let upkeep = Arc::new(Upkeep::load(sync.clone(), dir.chores())?);
        let upstream = config.upstream.as_ref();
        let upstream = upstream.map(|upstream| upstream.addresses.clone()).unwrap_or_default();
        let node = Self {
            dir: dir.clone(),
            config,
            identity,
            own_keys,
            keeper,
            registrar,
            trustee,
            alarms,
            store,
            membership,
            sync,
            upstream: watch::Sender::new(upstream),
            importer,
            deliveries,
            upkeep,
            started: None,
            shutdown,
            publishing: Mutex::new(()),
            _lock: lock,
        };
        node.hold_unresolved()?;
        node.load_given_up()?;
        Ok(node)
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

    /// The hub's office; an error at any other node.
    pub fn registrar(&self) -> anyhow::Result<&Arc<Registrar>> {
        self.registrar.as_ref().with_context(|| {
            format!(
                "成员、证书机构和数据集由市级中心管理，请在 {0} 上执行 / members, authorities and datasets are the hub's business; \
                 do this at {0}",
                self.membership.hub()
            )
        })
    }

    /// Trusts the roots that `_federation` names; after a renewal also not those
    /// any more that only the certificate before it needed. Blocks.
    pub fn follow_roots(&self) -> anyhow::Result<()> {
        if self.keeper.follow_roots(&*self.membership.current()?)? {
            self.sync.tell.send_replace(());
        }
        Ok(())
    }
}

/// A list of members that cannot be read keeps everybody out, also those from whom it
/// could come back. So it is fetched again, as where it was lost: from the hub, or at the
/// hub from its members.
fn drop_damaged_members(store: &Store, membership: &Membership) -> anyhow::Result<()> {
    let Err(StoreError::Damaged { place, problem }) = membership.current() else {
        return Ok(());
    };
    if let Some(head) = store.head(membership.partition()) {
        tracing::error!(%place, %problem, "the list of members is damaged; it is fetched again / 成员名册已损坏，将重新获取");
        store.give_up_blocking(head.signed.clone(), Some(head.position()))?;
    }
    Ok(())
}

/// The passphrase of private keys, if the environment names its file.
pub(crate) fn passphrase() -> anyhow::Result<Option<Passphrase>> {
    let path = std::env::var_os(PASSPHRASE_VARIABLE).filter(|path| !path.is_empty());
    let read = path.map(|path| Passphrase::read(std::path::Path::new(&path)));
    read.transpose()
        .with_context(|| format!("read the passphrase that {PASSPHRASE_VARIABLE} names"))
}

/// The files of an organisation's own PKI; relative paths begin at the node's
/// directory.
fn pki_files(dir: &NodeDir, config: &NodeConfig) -> PkiFiles {
    let at = |path: &std::path::PathBuf| dir.path().join(path);
    let pki = config.tls.pki.as_ref();
    PkiFiles {
        certificate: pki.map(|pki| at(&pki.certificate)),
        key: pki.map(|pki| at(&pki.key)),
        ca: config.tls.ca.as_ref().map(at),
    }
}

/// Where a hub's authorities lie.
pub(super) fn ca_dirs(dir: &NodeDir, config: &NodeConfig, keys: &KeyDir) -> CaDirs {
    let root_keys = match &config.certificates.root_key_dir {
        Some(path) => keys.beside(dir.path().join(path)),
        None => keys.clone(),
    };
    CaDirs { certs: dir.certs(), keys: keys.clone(), root_keys }
}

/// The key has to be one that the federation knows of the node that the
/// configuration names: nobody signs under another's name by a slip in a file.
/// A node that does not hold `_federation` yet learns later.
fn check_own_key(membership: &Membership, key: &SigningKey) -> anyhow::Result<()> {
    let registry = membership.current()?;
    let me = membership.me();
    let keys = registry.keys(me);
    // Without any, `_federation` is not here, or not to its end.
    if keys.is_empty() || keys.iter().any(|known| known.public == key.public()) {
        return Ok(());
    }
    bail!(
        "creditsync.toml says that this is node '{me}', but this node's signing key is not one of its \
         keys. Correct 'node' in the file"
    );
}

/// What a command says about a partition that this node does not have.
pub(super) fn no_partition(partition: &PartitionId) -> anyhow::Error {
    anyhow::anyhow!(
        "本节点没有分区“{partition}”，'creditsync status' 列出现有分区 / there is no partition '{partition}' here; \
         'creditsync status' lists those there are"
    )
}
