//! Making a hub: certificate authority, keys, anchor, catalogue.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use certs::{
    authority::{Authority, NodeKey, save_chain},
    identity::Identity,
    keyfile,
    verify::{NODE_CHAIN_FILE, NODE_KEY_FILE},
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

    let authority = Authority::create(&dir.certs(), &dir.keys(), &hub.federation, now)
        .context("make the certificate authority")?;
    let node_key = NodeKey::generate()?;
    node_key.save(&dir.keys().join(NODE_KEY_FILE))?;
    let lifetime = Duration::hours(config.certificates.lifetime_hours as i64);
    let chain = authority.issue(&identity, &node_key.csr(&identity)?, now, lifetime)?;
    save_chain(&dir.certs().join(NODE_CHAIN_FILE), &chain)?;
    let signing_key = keyfile::generate_signing_key();
    keyfile::save_signing_key(&dir.signing_key(), &signing_key)?;
    let anchor = authority.sign_anchor(&hub.federation, &hub.node, &signing_key.public(), 1)?;
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
    store.set_signer(signing_key.into());
    store.commit_own_later(changes)?.wait().context("write _federation")?;
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
