//! Making a hub: certificate authority, keys, anchor, catalogue.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use certs::{
    authority::{Authority, CaDirs, Lifetimes, NodeKey},
    bundle::save_bundle,
    credentials::NODE_CHAIN_FILE,
    enrol::Anchor,
    identity::Identity,
    keyfile::{self, KeyDir, NODE_KEY_FILE, SIGNING_KEY_FILE},
    pem::save_chain,
};
use config::NodeConfig;
use protocol::{
    federation::{Entry, Member, Role},
    id::{FederationId, NodeId},
};
use time::{Duration, OffsetDateTime};

use super::{
    dir::NodeDir,
    node::{key_text, load_anchor, open_store},
};
use crate::membership::Membership;

/// What a new hub is to be.
#[derive(Debug)]
pub struct NewHub {
    /// The federation.
    pub federation: FederationId,
    /// The hub's name.
    pub node: NodeId,
    /// Its display name.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
}

/// Makes a hub in `dir`. The configuration is written last: a directory without
/// it is not a node, and can be removed and made again.
pub fn init(dir: &NodeDir, hub: &NewHub) -> anyhow::Result<()> {
    if dir.is_node() {
        bail!("{} is a node already; choose another --dir", dir.path().display());
    }
    let identity = Identity::new(&hub.federation, &hub.node);
    identity.check()?;
    config::check_display_name(&hub.name)
        .map_err(|problem| anyhow::anyhow!("--name: {problem}"))?;
    dir.check_length()?;
    dir.create()?;
    let _lock = dir.lock()?;
    let config = new_config(hub);
    let now = OffsetDateTime::now_utc();

    let keys = KeyDir::new(dir.keys(), None);
    let ca = CaDirs { certs: dir.certs(), keys: keys.clone(), root_keys: keys.clone() };
    let authority = Authority::create(&ca, &hub.federation, now, &Lifetimes::default())
        .context("make the certificate authority")?;
    save_bundle(&dir.certs(), std::slice::from_ref(authority.root()))?;
    let node_key = NodeKey::generate()?;
    keys.save(NODE_KEY_FILE, &node_key)?;
    let lifetime = Duration::hours(config.certificates.lifetime_hours as i64);
    let chain = authority.issue(&identity, &node_key.csr(&identity)?, now, lifetime)?;
    save_chain(&dir.certs().join(NODE_CHAIN_FILE), &chain)?;
    let signing_key = keyfile::generate_signing_key();
    keys.save(SIGNING_KEY_FILE, &signing_key)?;
    let anchor = Anchor::unsigned(&hub.federation, &hub.node, &signing_key.public(), 1);
    let anchor = ca.sign_anchor(1, &anchor)?;
    keyfile::write_public(&dir.anchor(), &anchor.encode())?;

    let member = Member {
        name: hub.name.clone(),
        role: Role::Hub,
        signing_keys: vec![key_text(&signing_key)],
        removed: false,
    };
    let mut changes = vec![Entry::Member(hub.node.clone(), member).put()?];
    for schema in config::catalogue::standard() {
        changes.push(Entry::Schema(schema).put()?);
    }
    let store = open_store(dir, &config)?;
    let membership = Membership::new(store.clone(), load_anchor(dir)?, hub.node.clone());
    let changes = super::node::federation_changes(&membership, changes);
    store.commit_own_later(changes, signing_key.into())?.wait().context("write _federation")?;
    keyfile::write_public(&dir.config(), config.render_new().as_bytes())?;
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
        certificates: Default::default(),
        log: Default::default(),
    }
}
