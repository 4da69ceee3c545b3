//! Joining a federation with a token: a new directory, or a member that joins
//! again.
//!
//! Keys are made here and never leave. The hub is proved by the root key in the
//! token; what it sends of `_federation` must contain the head that the token
//! names. Who joins again keeps store, signing key and unsent changes: only the
//! certificate is new, and the signing key if the hub has retired the old one.
//!
//! The keys are on the disk before the hub is asked, so an answer that was lost on
//! its way, or by a crash here, is asked for again with the same token and the same
//! keys.

use std::time::Duration;

use anyhow::{Context as _, bail};
use certs::{
    authority::NodeKey,
    bundle,
    credentials::{Credentials, NODE_CHAIN_FILE},
    enrol::{RootOfTrust, Token},
    keyfile,
    keyfile::{KeyDir, NODE_KEY_FILE, SIGNING_KEY_FILE, generate_signing_key},
    pem,
    tls::TlsOptions,
};
use config::{NodeConfig, Upstream};
use protocol::{
    change::{ChangeSet, Position},
    frame::FRAME_BYTES_MAX,
    id::NodeId,
    message::{CloseCode, JoinRefused, JoinReply, JoinRequest, decode_header, possession_bytes},
    moment::rfc3339,
    sign::{SignaturePurpose, SigningKey},
    suite::Suite,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value as Json, json};
use store::Store;

use super::addresses::{dialable, write_upstream};
use crate::{
    app::{
        dir::NodeDir,
        freshness::note_join,
        init::check_free,
        keys::OwnKeys,
        lock::Occupant,
        node::{Node, load_anchor, load_config, open_store},
        now_unix,
        own_history::note_new_directory,
        trustee::stops_are_settled,
    },
    membership::Membership,
    net::{Connection, Dialer, FrameReceiver, NetError, in_turn},
};

/// The hub has this long for each piece of its answer: it may have to issue
/// certificates for others first, and it gives this node ten seconds for each.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// So often the hub is asked again when it is busy, or its answer was lost.
const ATTEMPTS_MAX: u32 = 10;
/// The wait before that, which doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(15);
/// Change sets that a hub may send: `_federation` is small.
const CHANGE_SETS_MAX: u64 = 1_000_000;

/// Makes `dir` a member of the token's federation. The configuration is
/// written last.
pub async fn join(dir: &NodeDir, text: &str, passphrase: Passphrase) -> anyhow::Result<NodeConfig> {
    check_free(dir)?;
    dir.check_length()?;
    let token = read_token(text)?;
    dir.create()?;
    let _lock = dir.lock(Occupant::Command)?;
    // Again: whoever had the directory may have made a node of it.
    check_free(dir)?;
    let keys = KeyDir::new(dir.keys(), passphrase);
    clear_earlier_attempt(dir, &token, &keys)?;

    let identity = token.identity();
    keys.create()?;
    let (node_key, signing_key) = prepare_keys(&keys, token.anchor.suite())?;
    // What an attempt that was interrupted has left is as good as new ones.
    std::fs::write(joining_marker(dir), token_text(&token))
        .with_context(|| format!("write {}", joining_marker(dir).display()))?;
    std::fs::create_dir_all(dir.certs())
        .with_context(|| format!("make {}", dir.certs().display()))?;
    keyfile::write_public(&dir.anchor(), &token.anchor.encode())?;
    let config = new_config(&token);
    let store = open_store(dir, &config, token.anchor.suite())?;
    let membership = Membership::new(store.clone(), load_anchor(dir)?, identity.node.clone());

    let csr = node_key.csr(&identity)?;
    let mut patience = Patience::default();
    let (chain, roots) = loop {
        let attempt = async {
            let mut answer =
                ask(&token, &csr, &signing_key, TlsOptions::of(token.anchor.suite())).await?;
            let (chain, root) = answer.accepted(&token).await?;
            let roots = vec![root];
            // Checks that key, chain, root and identity fit together.
            let (key, of) = (node_key.private_key(), identity.clone());
            Credentials::new(chain.clone(), key, roots.clone(), of)
                .context("the certificate that the hub sent")?;
            answer.take_federation(&token, &store, &membership).await?;
            anyhow::Ok((chain, roots))
        };
        match attempt.await {
            Ok(joined) => break joined,
            Err(error) => patience.wait_or(error).await?,
        }
    };
    pem::save_chain(&dir.certs().join(NODE_CHAIN_FILE), &chain)?;
    bundle::save_bundle(&dir.certs(), &roots)?;
    accept_keys(&OwnKeys::load(keys, &dir.certs(), store)?, &membership)?;
    note_join(dir);
    note_new_directory(dir)?;
    keyfile::write_public(&dir.config(), config.render_new().as_bytes())?;
    // Without its marker a directory is never cleared.
    let _ = std::fs::remove_file(joining_marker(dir));
    Ok(config)
}

/// What private keys are encrypted with.
pub type Passphrase = Option<certs::keyfile::Passphrase>;

/// A member joins its federation again: its certificate has ended, it was
/// revoked, or its hub has another address. Blocks, but not within a runtime.
pub fn join_again(
    node: &Node,
    text: &str,
    runtime: &tokio::runtime::Handle,
) -> anyhow::Result<Json> {
    let token = read_token(text)?;
    if token.identity() != node.identity {
        bail!(
            "{0} is a node already, {1}, and the token is for {2}; use the right token, or another --dir / {0} 已是节点 {1}，\
             而令牌属于 {2}：请使用正确的令牌或另一个目录",
            node.dir.path().display(),
            node.identity,
            token.identity()
        );
    }
    if token.hub != *node.membership.hub() {
        bail!(
            "this node's hub is {0}, and the token is of {1}: ask the right one / 本节点的市级中心是 {0}，而令牌来自 {1}",
            node.membership.hub(),
            token.hub
        );
    }
    let trustee = node.trustee.clone().context("a hub does not join")?;
    let anchor = node.membership.anchor();
    if token.anchor.epoch < anchor.epoch {
        bail!(
            "the token is older than what this node knows of the hub; ask for a new one / 令牌早于本节点已知的市级中心信息，请索取新令牌"
        );
    }
    if token.anchor.supersedes(&anchor) && token.anchor.verify_any(&node.keeper.bundle()?).is_err()
    {
        // Else the history that is held here could not tell the two apart.
        bail!(
            "the token names another signing key of the hub, and no root CA that this node trusts has signed \
             that: by what is known here it is of another federation of the same name. Call the municipal centre; \
             if it has replaced both while this node was away, join in a new --dir / 令牌与本节点信任的根证书不符，请联系市级中心"
        );
    }
    let options =
        TlsOptions { post_quantum: node.config.tls.post_quantum, suite: node.membership.suite() };
    // The task that renews must not use the waiting key meanwhile.
    let _one_at_a_time = runtime.block_on(node.keeper.asking.lock());
    let csr = node.keeper.request()?;
    let present = node.own_keys.current();
    let (mut answer, chain, root) = runtime.block_on(async {
        let mut patience = Patience::default();
        loop {
            let attempt = async {
                let mut answer = ask(&token, &csr, &present, options).await?;
                // What was granted to the next key is granted to that one alone: its
                // answer may have been lost.
                let has_next = node.own_keys.next()?.is_some();
                let asks_with_next = match answer.refused().await? {
                    Some(JoinRefused::KeyRetired) => true,
                    Some(JoinRefused::Used) => has_next,
                    _ => false,
                };
                if asks_with_next {
                    let next = node.own_keys.prepare_next()?;
                    answer = ask(&token, &csr, &next, options).await?;
                    // It was registered once, and ended before this node had heard of that.
                    if answer.refused().await? == Some(JoinRefused::KeyRetired) {
                        let next = node.own_keys.replace_next()?;
                        answer = ask(&token, &csr, &next, options).await?;
                    }
                }
                let (chain, root) = answer.accepted(&token).await?;
                anyhow::Ok((answer, chain, root))
            };
            match attempt.await {
                Ok(accepted) => return anyhow::Ok(accepted),
                Err(error) => patience.wait_or(error).await?,
            }
        }
    })?;
    let mut roots = node.keeper.bundle()?;
    if !roots.contains(&root) {
        roots.push(root);
    }
    // Nothing is changed before the hub has shown what the token promises.
    node.keeper.check_waiting(&chain, &roots).context("the certificate that the hub sent")?;
    // Before the list of members can let the next key sign.
    let joining = trustee.join_begins()?;
    if token.anchor.supersedes(&anchor) {
        trustee.use_anchor(token.anchor.clone())?;
    }
    runtime
        .block_on(answer.take_federation(&token, &node.store, &node.membership))
        .context("the token is still good for this directory: do the same again / 令牌对本目录仍有效，请重试")?;
    bundle::save_bundle(&node.dir.certs(), &roots)?;
    node.keeper.install(chain).context("the certificate that the hub sent")?;
    let registry = node.membership.current()?;
    let foreign = registry.keys(node.membership.me()).iter();
    let foreign = foreign.filter(|known| !node.own_keys.knows(&known.public)).count();
    // The administrator who pasted a token has looked at the keys.
    accept_keys(&node.own_keys, &node.membership)?;
    stops_are_settled(&node.dir)?;
    trustee.history_begins_anew();
    drop(joining);
    trustee.look()?;
    note_join(&node.dir);
    // The hub may have let in the next key, and the look have found that it must not sign.
    let new_signing_key = node.own_keys.current().public() != present.public();
    let not_after = node.keeper.shown().federation.not_after()?;
    tracing::info!(node = %node.identity.node, new_signing_key, "joined again");
    let addresses = dialable(&token);
    // Also where a person has changed the file since this node has started.
    let known = load_config(&node.dir).ok().and_then(|config| config.upstream);
    let differ = known.is_none_or(|upstream| upstream.addresses != addresses);
    let written = differ && write_upstream(node, &addresses);
    // What is dialled from now on, whether the file could be written or not.
    node.upstream.send_replace(addresses.clone());
    Ok(json!({
        "node": node.identity.node,
        "federation": node.identity.federation,
        "hub": token.hub,
        "new_signing_key": new_signing_key,
        "foreign_signing_keys": foreign,
        "certificate_not_after": rfc3339(not_after.unix_timestamp()),
        "addresses": addresses,
        "addresses_differ": differ && !written,
        "addresses_written": written,
    }))
}

fn read_token(text: &str) -> anyhow::Result<Token> {
    let token = Token::parse(text).context("read the token")?;
    if token.is_expired(now_unix()) {
        bail!(
            "this token has expired, by this machine's clock ({0}); if the clock is right, ask the hub for a \
             new one: creditsync invite {1} / 按本机时间（{0}）此令牌已过期；时间无误，则请市级中心重新生成：creditsync invite {1}",
            rfc3339(now_unix()),
            token.node
        );
    }
    Ok(token)
}

/// All keys that `_federation` has for this node now count as its own.
fn accept_keys(own_keys: &OwnKeys, membership: &Membership) -> anyhow::Result<()> {
    let registry = membership.current()?;
    let keys = registry.keys(membership.me()).iter();
    let keys = keys.map(|known| known.public);
    own_keys.know(keys.chain([own_keys.current().public()]))
}

/// How often and how long a hub that is busy, or whose answer was lost, is asked
/// again.
#[derive(Default)]
struct Patience {
    attempts: u32,
    /// The hub was reached once: what comes between is not a wrong address.
    reached: bool,
}

impl Patience {
    /// Waits before the next attempt, unless another one is of no use.
    async fn wait_or(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let problem = error.chain().find_map(|cause| cause.downcast_ref::<NetError>());
        let no_hub = error.is::<NoHub>();
        let is_busy = matches!(problem, Some(NetError::Closed(Some(CloseCode::Unavailable))));
        let is_lost = matches!(
            problem,
            Some(NetError::Closed(_) | NetError::NoAnswer | NetError::Transport(_))
        );
        let is_lost = is_lost || error.is::<Lost>() || (no_hub && self.reached);
        self.reached |= !no_hub;
        self.attempts += 1;
        if !(is_busy || is_lost) || self.attempts >= ATTEMPTS_MAX {
            let again = (is_busy || is_lost)
                .then_some("the token is still good for this directory: do the same again later / 令牌对本目录仍有效，请稍后重试");
            return Err(match again {
                Some(again) => error.context(again),
                None => error,
            });
        }
        let wait = RETRY_LONGEST.min(RETRY_FIRST * 2u32.saturating_pow(self.attempts.min(8)));
        let seconds = wait.as_secs_f32();
        if is_busy {
            eprintln!(
                "the hub is busy with others that join; asking again in {seconds:.0} s / 市级中心正忙，{seconds:.0} 秒后重试"
            );
        } else {
            eprintln!(
                "the hub's answer did not arrive ({error:#}); asking again in {seconds:.0} s / 未收到市级中心的答复，\
                 {seconds:.0} 秒后重试"
            );
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// The hub stopped in the middle of its answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(&'static str);

/// The hub was not reached.
#[derive(Debug, thiserror::Error)]
#[error("no connection to the hub {hub}: {problems}")]
struct NoHub {
    hub: NodeId,
    problems: String,
}

/// The hub's answer to a request to join, as it comes.
struct Answer {
    // It ends with the connection.
    _connection: Connection,
    receiver: FrameReceiver,
    /// Read already, to see whether it is a refusal.
    first: Option<JoinReply>,
}

async fn ask(
    token: &Token,
    csr: &[u8],
    signing_key: &SigningKey,
    options: TlsOptions,
) -> anyhow::Result<Answer> {
    let connection = dial(token, options).await?;
    let (mut sender, mut receiver) = connection.open_stream().await?;
    // `_federation` comes as change sets.
    receiver.limit(FRAME_BYTES_MAX);
    let proof = possession_bytes(&token.id, &token.node);
    sender
        .send(&JoinRequest {
            token_id: token.id,
            secret: *token.secret,
            node: token.node.clone(),
            csr: csr.to_vec(),
            signing_key: signing_key.public().as_bytes().to_vec(),
            possession: signing_key.sign(SignaturePurpose::Possession, &proof).as_bytes().to_vec(),
        })
        .await?;
    sender.finish();
    Ok(Answer { _connection: connection, receiver, first: None })
}

impl Answer {
    async fn next(&mut self) -> anyhow::Result<JoinReply> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let frame = tokio::time::timeout(ANSWER_MAX, self.receiver.receive()).await;
        let frame = frame.map_err(|_| Lost("the hub does not answer"))??;
        let frame = frame.ok_or(Lost("the hub ended the conversation early"))?;
        Ok(protocol::codec::decode(&frame)?)
    }

    /// Why the hub refuses, if it does.
    async fn refused(&mut self) -> anyhow::Result<Option<JoinRefused>> {
        let first = self.next().await?;
        let refused = match &first {
            JoinReply::Refused(refused) => Some(*refused),
            _ => None,
        };
        self.first = Some(first);
        Ok(refused)
    }

    /// The certificate's chain, and the root that the token names.
    async fn accepted(
        &mut self,
        token: &Token,
    ) -> anyhow::Result<(Vec<CertificateDer<'static>>, CertificateDer<'static>)> {
        let (chain, root) = match self.next().await? {
            JoinReply::Accepted { chain, root } => (chain, CertificateDer::from(root)),
            JoinReply::Refused(refused) => bail!("市级中心拒绝 / the hub refused: {refused}"),
            _ => bail!(
                "the hub answered out of order: is it of another version? / 市级中心的答复顺序有误，两者版本是否不同？"
            ),
        };
        if RootOfTrust::from_certificate(&root)? != token.root {
            bail!(
                "the hub sent another root certificate than the token names; nothing was set up / 市级中心的根证书与令牌不符，未做任何设置"
            );
        }
        Ok((chain.into_iter().map(CertificateDer::from).collect(), root))
    }

    /// All change sets of `_federation`: those that are held already have to be
    /// the same.
    async fn take_federation(
        &mut self,
        token: &Token,
        store: &Store,
        membership: &Membership,
    ) -> anyhow::Result<()> {
        let named = Position { seq: token.federation_seq, hash: token.federation_head };
        let mut token_head_seen = false;
        for _ in 0..CHANGE_SETS_MAX {
            match self.next().await? {
                JoinReply::ChangeSet { header, body } => {
                    let set = ChangeSet { header: decode_header(&header)?, body };
                    if set.header.header().partition != *membership.partition() {
                        bail!(
                            "the hub sent something else than _federation; nothing was set up / 市级中心发来的不是成员名册，未做任何设置"
                        );
                    }
                    let set =
                        set.verify(&*membership.current()?).context("_federation from the hub")?;
                    token_head_seen |= set.header().position() == named;
                    store.commit_replica(set).await.context("store _federation")?;
                }
                JoinReply::Done => break,
                _ => bail!(
                    "the hub answered out of order: is it of another version? / 市级中心的答复顺序有误，两者版本是否不同？"
                ),
            }
        }
        if !token_head_seen {
            bail!(
                "the hub's _federation is not the one that the token names: it is older, or not the same \
                 federation. Nothing was set up; ask the hub's administrator / 市级中心的成员名册与令牌不符（较旧，或不是同一联盟）。未做任何设置，请联系\
                 市级中心"
            );
        }
        Ok(())
    }
}

/// The keys of an attempt that was interrupted, or new ones.
fn prepare_keys(keys: &KeyDir, suite: Suite) -> anyhow::Result<(NodeKey, SigningKey)> {
    if let (Ok(node_key), Ok(signing_key)) = (keys.load(NODE_KEY_FILE), keys.load(SIGNING_KEY_FILE))
    {
        return Ok((node_key, signing_key));
    }
    let (node_key, signing_key) = (NodeKey::generate()?, generate_signing_key(suite));
    keys.save(NODE_KEY_FILE, &node_key)?;
    keys.save(SIGNING_KEY_FILE, &signing_key)?;
    Ok((node_key, signing_key))
}

/// Removes what an attempt that was interrupted left behind. Only its keys stay, if
/// it was with the same token, because the hub may have let them in. Anything else
/// that lies there is somebody's, and stays.
fn clear_earlier_attempt(dir: &NodeDir, token: &Token, keys: &KeyDir) -> anyhow::Result<()> {
    let marker = joining_marker(dir);
    let same_token = std::fs::read_to_string(&marker).is_ok_and(|of| of == token_text(token));
    let keeps_keys = same_token
        && keys.load::<NodeKey>(NODE_KEY_FILE).is_ok()
        && keys.load::<SigningKey>(SIGNING_KEY_FILE).is_ok();
    for path in [dir.keys(), dir.certs(), dir.store()] {
        let in_the_way = std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if !in_the_way || (keeps_keys && path == dir.keys()) {
            continue;
        }
        if !marker.exists() {
            bail!(
                "{0} is not empty; choose another --dir, or move it away / {0} 不是空目录：请换一个目录，或将其移走",
                path.display()
            );
        }
        std::fs::remove_dir_all(&path).with_context(|| format!("clear {}", path.display()))?;
    }
    dir.create()?;
    if keeps_keys {
        return Ok(());
    }
    std::fs::write(&marker, b"").with_context(|| format!("write {}", marker.display()))
}

/// As it stands in the marker: its public id.
fn token_text(token: &Token) -> String {
    token.id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lies in the directory from the first file of a join to its last; names the token
/// once the keys are there that it is used for.
fn joining_marker(dir: &NodeDir) -> std::path::PathBuf {
    dir.run().join("joining")
}

async fn dial(token: &Token, options: TlsOptions) -> anyhow::Result<Connection> {
    let dialer = Dialer::bind()?;
    let dialled = in_turn(&token.addresses, |address| {
        let (dialer, hub, root) = (dialer.clone(), token.hub_identity(), token.root.clone());
        async move { dialer.dial_to_join(&address, &hub, &root, options).await }
    });
    match dialled.await {
        Ok((_, connection)) => Ok(connection),
        Err(failures) => {
            let problem = |(place, error): &(usize, NetError)| {
                format!("{}: {error}", token.addresses.get(*place).map_or("", String::as_str))
            };
            let problems: Vec<String> = failures.iter().map(problem).collect();
            Err(NoHub { hub: token.hub.clone(), problems: problems.join("; ") }.into())
        }
    }
}

fn new_config(token: &Token) -> NodeConfig {
    NodeConfig {
        federation: token.federation.clone(),
        node: token.node.clone(),
        // Whoever made the token need not have been careful.
        name: config::shown_display_name(&token.name).unwrap_or_else(|| token.node.to_string()),
        listen: None,
        advertise: Vec::new(),
        upstream: Some(Upstream { hub: token.hub.clone(), addresses: dialable(token) }),
        store: Default::default(),
        sync: Default::default(),
        import: Default::default(),
        inbox: Default::default(),
        certificates: Default::default(),
        tls: Default::default(),
        log: Default::default(),
    }
}
