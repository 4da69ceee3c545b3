//! What this node shows to others and whom it trusts, now: loaded from files,
//! replaced when it was renewed or when files changed, published to the network.
//!
//! Used by the daemon's tasks and by `cert show`. Invariants: what is published
//! was checked, and something that was published before stays until something
//! better was checked; a root is only trusted if one that is trusted already
//! vouches for it; the last result of every attempt is remembered.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use anyhow::Context as _;
use certs::{
    authority::NodeKey,
    bundle::{self, ROOTS_MAX, bundle_accepts},
    credentials::{self, Credentials},
    fault,
    identity::Identity,
    keyfile::{KeyDir, NODE_KEY_FILE},
    pki::{Fingerprint, PkiFiles},
};
use protocol::federation::{CaKind, CaState, Registry};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::alarms::{Alarm, Alarms};

/// What a node shows.
#[derive(Debug)]
pub struct Shown {
    /// For replication.
    pub replication: Arc<Credentials>,
    /// As the federation's own authority issued it. The same, unless an
    /// organisation's own PKI is used for replication.
    pub federation: Arc<Credentials>,
}

/// How the last attempt to renew or load went.
#[derive(Debug, Clone)]
pub struct LastResult {
    /// When.
    pub at: OffsetDateTime,
    /// The problem, if there was one.
    pub problem: Option<String>,
}

/// Keeps a node's credentials.
pub struct Keeper {
    dir_certs: PathBuf,
    keys: KeyDir,
    identity: Identity,
    pki: PkiFiles,
    shown: watch::Sender<Arc<Shown>>,
    files: Mutex<Fingerprint>,
    /// Of a member, from a request to its answer: two at once would use one
    /// waiting key.
    pub asking: tokio::sync::Mutex<()>,
    /// Trusted roots are changed by one at a time.
    following: Mutex<()>,
    last: Mutex<Option<LastResult>>,
    alarms: Arc<Alarms>,
}

impl Keeper {
    /// Loads what is there.
    pub fn load(
        dir_certs: PathBuf,
        keys: KeyDir,
        identity: Identity,
        pki: PkiFiles,
        alarms: Arc<Alarms>,
    ) -> anyhow::Result<Self> {
        let fingerprint = pki.fingerprint();
        let shown = load(&dir_certs, &keys, &identity, &pki)?;
        Ok(Self {
            dir_certs,
            keys,
            identity,
            pki,
            shown: watch::Sender::new(Arc::new(shown)),
            files: Mutex::new(fingerprint),
            asking: tokio::sync::Mutex::default(),
            following: Mutex::default(),
            last: Mutex::new(None),
            alarms,
        })
    }

    /// What is shown now.
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.borrow().clone()
    }

    /// Hears of what is shown from now on.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Shown>> {
        self.shown.subscribe()
    }

    /// Whether replication shows files of an organisation's own PKI.
    pub fn is_foreign(&self) -> bool {
        self.pki.certificate.is_some()
    }

    /// Whether those files have changed since they were loaded.
    pub fn files_changed(&self) -> bool {
        *lock(&self.files) != self.pki.fingerprint()
    }

    /// Loads everything again. What cannot be used is refused, and what is shown
    /// stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        // Before they are read: a change meanwhile is seen again.
        *lock(&self.files) = self.pki.fingerprint();
        let loaded = load(&self.dir_certs, &self.keys, &self.identity, &self.pki);
        self.note(loaded.as_ref().err());
        self.shown.send_replace(Arc::new(loaded?));
        tracing::info!("certificates and trusted roots were loaded");
        Ok(())
    }

    /// The roots that are trusted as the federation's own.
    pub fn bundle(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        Ok(bundle::load_bundle(&self.dir_certs)?)
    }

    /// Trusts the roots that `_federation` names from now on, as far as roots that
    /// are trusted already vouch for them, and not those any more that it calls
    /// retired, unless this node's own certificate still leads to one. Answers
    /// whether anything changed.
    pub fn follow_roots(&self, registry: &Registry) -> anyhow::Result<bool> {
        let _one_at_a_time = lock(&self.following);
        let before = self.bundle()?;
        let mut roots = before.clone();
        for (number, known) in registry.cas(CaKind::Root) {
            let root = CertificateDer::from(known.certificate.clone());
            if known.state == CaState::Retired || roots.contains(&root) {
                continue;
            }
            let cross = known.cross.clone().map(CertificateDer::from);
            match bundle_accepts(&roots, &root, cross.as_ref()) {
                Ok(()) if roots.len() < ROOTS_MAX => roots.push(root),
                Ok(()) => {
                    tracing::warn!(root = number, "too many roots are trusted; this one is not")
                }
                Err(error) => tracing::error!(
                    root = number, %error,
                    "_federation names a root CA that none of the trusted roots vouches for; it is not trusted"
                ),
            }
        }
        let retired = |root: &CertificateDer<'_>| {
            let found = registry.cas(CaKind::Root).find(|(_, known)| known.certificate == **root);
            found.is_some_and(|(_, known)| known.state == CaState::Retired)
        };
        let kept: Vec<_> = roots.iter().filter(|root| !retired(root)).cloned().collect();
        // A node whose own certificate leads to a retired root needs another one
        // first: without that root it could not even start.
        if self.leads_to(&kept) {
            roots = kept;
        }
        if roots == before {
            return Ok(false);
        }
        bundle::save_bundle(&self.dir_certs, &roots)?;
        fault::point("bundle.taken-over");
        self.reload()?;
        tracing::info!(roots = roots.len(), "the trusted roots were taken over from _federation");
        Ok(true)
    }

    /// Whether this node's certificate of the federation leads to one of these
    /// roots.
    fn leads_to(&self, roots: &[CertificateDer<'static>]) -> bool {
        let shown = self.shown();
        let own = &shown.federation;
        // Where it is an organisation's own PKI's, the roots of that count too.
        let is_foreign = self.is_foreign() && Arc::ptr_eq(own, &shown.replication);
        let roots = if is_foreign { self.pki.roots(roots) } else { Ok(roots.to_vec()) };
        let led = roots.and_then(|roots| {
            Credentials::new(own.chain.clone(), own.key.clone_key(), roots, self.identity.clone())
        });
        led.is_ok()
    }

    /// A request (PKCS#10, DER) for a certificate with a new key, which waits
    /// beside the present one until [`Keeper::install`].
    pub fn request(&self) -> anyhow::Result<Vec<u8>> {
        let waiting = self.keys.load_next::<NodeKey>(NODE_KEY_FILE)?;
        let key = match waiting {
            Some(key) => key,
            None => {
                let key = NodeKey::generate()?;
                self.keys.save_next(NODE_KEY_FILE, &key)?;
                key
            }
        };
        Ok(key.csr(&self.identity)?)
    }

    /// Whether a chain is good for the waiting key under these roots. Changes
    /// nothing.
    pub fn check_waiting(
        &self,
        chain: &[CertificateDer<'static>],
        roots: &[CertificateDer<'static>],
    ) -> anyhow::Result<()> {
        let key = self.keys.load_next::<NodeKey>(NODE_KEY_FILE)?;
        let key = key.context("there is no key waiting for a certificate")?.private_key();
        Credentials::new(chain.to_vec(), key, roots.to_vec(), self.identity.clone())?;
        Ok(())
    }

    /// Shows the certificate that was issued for [`Keeper::request`], if it is a
    /// good one.
    pub fn install(&self, chain: Vec<CertificateDer<'static>>) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        let installed =
            credentials::install(&self.dir_certs, &self.keys, &self.identity, chain, now)
                .map_err(anyhow::Error::from)
                .and_then(|_| load(&self.dir_certs, &self.keys, &self.identity, &self.pki));
        self.note(installed.as_ref().err());
        self.shown.send_replace(Arc::new(installed?));
        Ok(())
    }

    /// Remembers how an attempt to renew or load went.
    pub fn note(&self, error: Option<&anyhow::Error>) {
        let problem = error.map(|error| format!("{error:#}"));
        match &problem {
            Some(problem) => self.alarms.raise(
                Alarm::Certificate,
                format!(
                    "this node's certificate could not be renewed or loaded: {problem}. What was in use stays in \
                     use / 证书未能更新：{problem}"
                ),
            ),
            None => self.alarms.clear(Alarm::Certificate),
        }
        *lock(&self.last) = Some(LastResult { at: OffsetDateTime::now_utc(), problem });
    }

    /// What is shown is good again although the last attempt failed: no other is needed.
    pub fn needs_no_other(&self) {
        self.alarms.clear(Alarm::Certificate);
    }

    /// How the last attempt went; none before there was one.
    pub fn last(&self) -> Option<LastResult> {
        lock(&self.last).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Everything done under these locks is an assignment.
    mutex.lock().unwrap_or_else(|error| error.into_inner())
}

fn load(
    dir_certs: &std::path::Path,
    keys: &KeyDir,
    identity: &Identity,
    pki: &PkiFiles,
) -> anyhow::Result<Shown> {
    let roots = bundle::load_bundle(dir_certs)?;
    let foreign = pki.load(identity, &roots).context("the files of [tls] in creditsync.toml")?;
    let own = Credentials::load(dir_certs, keys, identity).context("load this node's certificate");
    let foreign = foreign.map(Arc::new);
    let own = match (own, &foreign) {
        (Ok(mut own), _) => {
            own.roots = pki.roots(&roots).context("the file 'ca' of [tls] in creditsync.toml")?;
            Arc::new(own)
        }
        // Without one of the federation's own the node still replicates.
        (Err(_), Some(foreign)) => foreign.clone(),
        (Err(error), None) => return Err(error),
    };
    Ok(Shown { replication: foreign.unwrap_or_else(|| own.clone()), federation: own })
}
