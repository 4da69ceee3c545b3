//! Making a hub: certificate authority, keys, anchor, catalogue.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, bail};
use certs::{
    authority::{Authority, Lifetimes, NodeKey},
    bundle,
    credentials::NODE_CHAIN_FILE,
    enrol::Anchor,
    identity::Identity,
    keyfile::{self, KeyDir, NODE_KEY_FILE, SIGNING_KEY_FILE, generate_signing_key},
    pem,
};
use config::{CertificateConfig, NodeConfig};
use protocol::{
    federation::{CaKind, CaRecord, CaState, Entry, Introduction, KeyRecord, Member, Role},
    hex,
    id::{FederationId, NodeId},
    suite::Suite,
};
use time::{Duration, OffsetDateTime};

use super::{
    dir::NodeDir,
    lock::Occupant,
    node::{ca_dirs, load_anchor, open_store, passphrase},
};
use crate::membership::Membership;

/// What a new hub is to be.
#[derive(Debug)]
pub struct NewHub {
    /// The federation.
    pub federation: FederationId,
    /// Its suite.
    pub suite: Suite,
    /// The hub's name.
    pub node: NodeId,
    /// Its display name.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the root key is kept, if not in `keys/`; absolute.
    pub root_key_dir: Option<PathBuf>,
}

/// Makes a hub in `dir`. The configuration is written last: a directory without
/// it is not a node, and can be removed and made again.
pub fn init(dir: &NodeDir, hub: &NewHub) -> anyhow::Result<()> {
    check_free(dir)?;
    let identity = Identity::new(&hub.federation, &hub.node);
    identity.check()?;
    config::check_display_name(&hub.name)
        .map_err(|problem| anyhow::anyhow!("--name: {problem}"))?;
    dir.check_length()?;
    dir.create()?;
    let _lock = dir.lock(Occupant::Command)?;
    // Again: whoever had the directory may have made a node of it.
    check_free(dir)?;
    let config = new_config(hub);
    let now = OffsetDateTime::now_utc();

    let keys = KeyDir::new(dir.keys(), passphrase()?);
    keys.create()?;
    let cas = ca_dirs(dir, &config, &keys);
    cas.root_keys.create()?;
    let lifetimes = Lifetimes {
        issuing: Duration::seconds(config.certificates.issuing_lifetime_s as i64),
        ..Lifetimes::default()
    };
    let authority = Authority::create(&cas, &hub.federation, now, &lifetimes)
        .context("make the certificate authority")?;
    let node_key = NodeKey::generate()?;
    keys.save(NODE_KEY_FILE, &node_key)?;
    let lifetime = Duration::seconds(config.certificates.lifetime_s as i64);
    let chain = authority.issue(&identity, &node_key.csr(&identity)?, now, lifetime)?;
    pem::save_chain(&dir.certs().join(NODE_CHAIN_FILE), &chain)?;
    bundle::save_bundle(&dir.certs(), std::slice::from_ref(authority.root()))?;
    let signing_key = generate_signing_key(hub.suite);
    keys.save(SIGNING_KEY_FILE, &signing_key)?;
    let anchor = Anchor::unsigned(&hub.federation, &hub.node, &signing_key.public(), 1);
    let anchor = cas.sign_anchor(1, &anchor)?;
    keyfile::write_public(&dir.anchor(), &anchor.encode())?;

    let member =
        Member { name: hub.name.clone(), role: Role::Hub, removed: false, certificates_from: None };
    let at_ms = super::now_unix() * 1000;
    let key = KeyRecord::new(&signing_key.public(), Introduction::Anchor, at_ms);
    let ca = |certificate: &[u8], root| CaRecord {
        certificate: hex::encode(certificate),
        cross: None,
        root,
        state: CaState::Active,
    };
    let mut changes = vec![
        Entry::Member(hub.node.clone(), member).put()?,
        Entry::Key(hub.node.clone(), 1, key).put()?,
        Entry::Ca(CaKind::Root, 1, ca(authority.root(), None)).put()?,
        Entry::Ca(CaKind::Issuing, 1, ca(authority.issuing(), Some(1))).put()?,
    ];
    for schema in config::catalogue::standard() {
        changes.push(Entry::Schema(schema).put()?);
    }
    let store = open_store(dir, &config, hub.suite)?;
    let membership = Membership::new(store.clone(), load_anchor(dir)?, hub.node.clone());
    let changes = super::changes::federation_changes(&membership, changes);
    store.set_signer(signing_key.into());
    store.commit_own_later(changes)?.wait().context("write _federation")?;
    keyfile::write_public(&dir.config(), config.render_new().as_bytes())?;
    Ok(())
}

/// Refuses a directory that is a node.
pub(super) fn check_free(dir: &NodeDir) -> anyhow::Result<()> {
    if dir.is_node() {
        bail!(
            "{0} is a node already; choose another --dir / {0} 已是一个节点，请换一个目录",
            dir.path().display()
        );
    }
    Ok(())
}

fn new_config(hub: &NewHub) -> NodeConfig {
    NodeConfig {
        federation: hub.federation.clone(),
        node: hub.node.clone(),
        name: hub.name.clone(),
        listen: Some(hub.listen),
        advertise: Vec::new(),
        upstream: None,
        store: Default::default(),
        sync: Default::default(),
        import: Default::default(),
        inbox: Default::default(),
        certificates: CertificateConfig {
            root_key_dir: hub.root_key_dir.clone(),
            ..CertificateConfig::default()
        },
        tls: Default::default(),
        log: Default::default(),
    }
}
