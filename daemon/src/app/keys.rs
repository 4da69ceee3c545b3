//! This node's signing key, the one that is to follow it, and which keys it
//! ever made.
//!
//! Used by the hub's office and by a member's trustee. Invariants: a key that
//! shall follow is on the disk before anybody hears of it, and becomes the
//! present one by a rename; the store's signer is always the present key. A key
//! that `_federation` has for this node and that is not in the list of own keys
//! was registered by somebody else.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
};

use certs::keyfile::{self, KeyDir, SIGNING_KEY_FILE, generate_signing_key};
use protocol::{
    hex,
    sign::{PublicKey, SigningKey},
};
use store::Store;

/// Public keys that this node made or has accepted as its own, a line each.
const KNOWN_FILE: &str = "own-keys";

/// This node's signing keys.
pub struct OwnKeys {
    keys: KeyDir,
    store: Store,
    current: RwLock<Arc<SigningKey>>,
    known_path: PathBuf,
    /// As hexadecimal digits.
    known: Mutex<BTreeSet<String>>,
}

impl OwnKeys {
    /// Loads the present key and makes it the store's signer.
    pub fn load(keys: KeyDir, dir_certs: &Path, store: Store) -> anyhow::Result<Self> {
        let current: Arc<SigningKey> = Arc::new(keys.load(SIGNING_KEY_FILE)?);
        store.set_signer(current.clone());
        let known_path = dir_certs.join(KNOWN_FILE);
        let mut known = BTreeSet::new();
        if known_path.exists() {
            let text = keyfile::read_public(&known_path)?;
            let lines = String::from_utf8_lossy(&text).into_owned();
            known.extend(
                lines
                    .lines()
                    .filter_map(|line| hex::decode(line.trim()))
                    .map(|key| hex::encode(&key)),
            );
        }
        known.insert(hex::encode(current.public().as_bytes()));
        let (current, known) = (RwLock::new(current), Mutex::new(known));
        Ok(Self { keys, store, current, known_path, known })
    }

    /// The key that signs now.
    pub fn current(&self) -> Arc<SigningKey> {
        self.current.read().unwrap_or_else(|error| error.into_inner()).clone()
    }

    /// The key that shall follow, if one was made.
    pub fn next(&self) -> anyhow::Result<Option<Arc<SigningKey>>> {
        Ok(self.keys.load_next::<SigningKey>(SIGNING_KEY_FILE)?.map(Arc::new))
    }

    /// Where the following key lies, for messages.
    pub fn next_path(&self) -> PathBuf {
        self.keys.file(&format!("{SIGNING_KEY_FILE}.next"))
    }

    /// The key that shall follow; made now if there is none.
    pub fn prepare_next(&self) -> anyhow::Result<Arc<SigningKey>> {
        if let Some(next) = self.next()? {
            return Ok(next);
        }
        let next = generate_signing_key(self.current().suite());
        // Known first: a key of ours must never look like somebody else's.
        self.know([next.public()])?;
        self.keys.save_next(SIGNING_KEY_FILE, &next)?;
        Ok(Arc::new(next))
    }

    /// Another key that shall follow, in the place of one that `_federation` has retired
    /// before it signed: nothing else would ever take that out of the way.
    pub fn replace_next(&self) -> anyhow::Result<Arc<SigningKey>> {
        let next = generate_signing_key(self.current().suite());
        self.know([next.public()])?;
        self.keys.replace_next(SIGNING_KEY_FILE, &next)?;
        Ok(Arc::new(next))
    }

    /// From now on the following key signs.
    pub fn use_next(&self) -> anyhow::Result<()> {
        if let Some(next) = self.next()? {
            self.store.set_signer(next.clone());
            *self.current.write().unwrap_or_else(|error| error.into_inner()) = next;
        }
        Ok(())
    }

    /// The following key, which the store signs with already, takes the present
    /// one's place on the disk too.
    pub fn promote_next(&self) -> anyhow::Result<()> {
        if let Some(next) = self.next()? {
            *self.current.write().unwrap_or_else(|error| error.into_inner()) = next;
            self.keys.promote_next(SIGNING_KEY_FILE)?;
        }
        Ok(())
    }

    /// Whether this node made a key, or has accepted it as its own.
    pub fn knows(&self, public: &PublicKey) -> bool {
        let known = self.known.lock().unwrap_or_else(|error| error.into_inner());
        known.contains(&hex::encode(public.as_bytes()))
    }

    /// Accepts keys as this node's own.
    pub fn know(&self, keys: impl IntoIterator<Item = PublicKey>) -> anyhow::Result<()> {
        let mut known = self.known.lock().unwrap_or_else(|error| error.into_inner());
        known.extend(keys.into_iter().map(|key| hex::encode(key.as_bytes())));
        let text: String = known.iter().map(|key| format!("{key}\n")).collect();
        keyfile::write_public(&self.known_path, text.as_bytes())?;
        Ok(())
    }
}
