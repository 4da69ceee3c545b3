//! Joining a federation with a token.
//!
//! Keys are made here and never leave. The hub is proved by the root key in the
//! token; what it sends of `_federation` must contain the head that the token
//! names.

use std::time::Duration;

use anyhow::{Context as _, bail};
use certs::{
    authority::NodeKey,
    bundle::save_bundle,
    credentials::{Credentials, NODE_CHAIN_FILE},
    enrol::{RootOfTrust, Token},
    keyfile::{self, KeyDir, NODE_KEY_FILE, SIGNING_KEY_FILE},
    pem::save_chain,
};
use config::{NodeConfig, Upstream};
use protocol::{
    change::ChangeSet,
    message::{JoinReply, JoinRequest, decode_header, possession_bytes},
    sign::{SignaturePurpose, SigningKey},
};
use rustls::pki_types::CertificateDer;

use super::{
    dir::NodeDir,
    node::{load_anchor, open_store},
    now_unix,
};
use crate::{
    membership::Membership,
    net::{Connection, Dialer},
};

/// The hub has this long for each answer: more than it gives a whole join.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Change sets that a hub may send: `_federation` is small.
const CHANGE_SETS_MAX: u64 = 1_000_000;

/// Makes `dir` a member of the token's federation. The configuration is
/// written last.
pub async fn join(dir: &NodeDir, text: &str) -> anyhow::Result<NodeConfig> {
    if dir.is_node() {
        bail!("{} is a node already; choose another --dir", dir.path().display());
    }
    dir.check_length()?;
    let token = Token::parse(text).context("read the token")?;
    if token.is_expired(now_unix()) {
        bail!(
            "this token has expired; ask the hub for a new one: creditsync invite {}",
            token.node
        );
    }
    dir.create()?;
    let _lock = dir.lock()?;
    clear_earlier_attempt(dir)?;

    let identity = token.identity();
    let node_key = NodeKey::generate()?;
    let signing_key = keyfile::generate_signing_key();
    let request = join_request(&token, &node_key, &signing_key)?;
    let connection = dial(&token).await?;
    let (mut sender, mut receiver) = connection.open_stream().await?;
    sender.send(&request).await?;
    sender.finish();
    let mut next = async || -> anyhow::Result<JoinReply> {
        let frame = tokio::time::timeout(ANSWER_MAX, receiver.receive()).await;
        let frame = frame.context("the hub does not answer")??;
        let frame = frame.context("the hub ended the conversation early")?;
        Ok(protocol::codec::decode(&frame)?)
    };
    let (chain, root) = match next().await? {
        JoinReply::Accepted { chain, root } => (chain, root),
        JoinReply::Refused(refused) => bail!("the hub refused: {refused}"),
        _ => bail!("the hub answered out of order"),
    };
    let root = CertificateDer::from(root);
    if RootOfTrust::from_certificate(&root)? != token.root {
        bail!("the hub sent another root certificate than the token names; nothing was set up");
    }
    let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
    // Checks that key, chain, root and identity fit together.
    Credentials::new(chain.clone(), node_key.private_key(), vec![root.clone()], identity.clone())
        .context("the certificate that the hub sent")?;

    std::fs::create_dir_all(dir.certs())
        .with_context(|| format!("make {}", dir.certs().display()))?;
    let keys = KeyDir::new(dir.keys(), None);
    keys.create()?;
    keys.save(NODE_KEY_FILE, &node_key)?;
    keys.save(SIGNING_KEY_FILE, &signing_key)?;
    save_chain(&dir.certs().join(NODE_CHAIN_FILE), &chain)?;
    save_bundle(&dir.certs(), std::slice::from_ref(&root))?;
    keyfile::write_public(&dir.anchor(), &token.anchor.encode())?;

    let config = new_config(&token);
    let store = open_store(dir, &config)?;
    let membership = Membership::new(store.clone(), load_anchor(dir)?, identity.node.clone());
    let mut token_head_seen = false;
    for _ in 0..CHANGE_SETS_MAX {
        match next().await? {
            JoinReply::ChangeSet { header, body } => {
                let set = ChangeSet { header: decode_header(&header)?, body };
                if set.header.header().partition != *membership.partition() {
                    bail!("the hub sent something else than _federation; nothing was set up");
                }
                let set =
                    set.verify(&*membership.current()?).context("_federation from the hub")?;
                let position = set.header().position();
                token_head_seen |=
                    (position.seq, position.hash) == (token.federation_seq, token.federation_head);
                store.commit_replica(set).await.context("store _federation")?;
            }
            JoinReply::Done => break,
            _ => bail!("the hub answered out of order"),
        }
    }
    if !token_head_seen {
        bail!(
            "the hub's _federation is not the one that the token names: it is older, or not the same \
             federation. Nothing was set up; ask the hub's administrator"
        );
    }
    keyfile::write_public(&dir.config(), config.render_new().as_bytes())?;
    // Without its marker a directory is never cleared.
    let _ = std::fs::remove_file(joining_marker(dir));
    Ok(config)
}

/// Removes what an attempt that was interrupted left behind: the hub has never
/// seen its keys, or has used up their token. Anything else that lies there is
/// somebody's, and stays.
fn clear_earlier_attempt(dir: &NodeDir) -> anyhow::Result<()> {
    let marker = joining_marker(dir);
    for path in [dir.keys(), dir.certs(), dir.store()] {
        let in_the_way = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if !in_the_way {
            continue;
        }
        if !marker.exists() {
            bail!("{} is not empty; choose another --dir, or move it away", path.display());
        }
        std::fs::remove_dir_all(&path).with_context(|| format!("clear {}", path.display()))?;
    }
    dir.create()?;
    std::fs::write(&marker, b"").with_context(|| format!("write {}", marker.display()))
}

/// Lies in the directory from the first file of a join to its last.
fn joining_marker(dir: &NodeDir) -> std::path::PathBuf {
    dir.run().join("joining")
}

fn join_request(
    token: &Token,
    node_key: &NodeKey,
    signing_key: &SigningKey,
) -> anyhow::Result<JoinRequest> {
    let proof = possession_bytes(&token.id, &token.node);
    Ok(JoinRequest {
        token_id: token.id,
        secret: *token.secret,
        node: token.node.clone(),
        csr: node_key.csr(&token.identity())?,
        signing_key: *signing_key.public().as_bytes(),
        possession: signing_key.sign(SignaturePurpose::Possession, &proof).to_vec(),
    })
}

async fn dial(token: &Token) -> anyhow::Result<Connection> {
    let dialer = Dialer::bind()?;
    let mut problems = Vec::new();
    for address in &token.addresses {
        match dialer.dial_to_join(address, &token.hub_identity(), &token.root).await {
            Ok(connection) => return Ok(connection),
            Err(error) => problems.push(format!("{address}: {error}")),
        }
    }
    bail!("no connection to the hub {}: {}", token.hub, problems.join("; "))
}

fn new_config(token: &Token) -> NodeConfig {
    NodeConfig {
        federation: token.federation.clone(),
        node: token.node.clone(),
        name: token.name.clone(),
        listen: None,
        advertise: Vec::new(),
        upstream: Some(Upstream { hub: token.hub.clone(), addresses: token.addresses.clone() }),
        store: Default::default(),
        sync: Default::default(),
        import: Default::default(),
        inbox: Default::default(),
        certificates: Default::default(),
        log: Default::default(),
    }
}
