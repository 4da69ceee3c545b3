//! Invitations: the hub makes tokens, and remembers who has used them.
//!
//! What the hub keeps of a token (`keys/invites.json`) is its id, the hash of
//! its secret, for whom and until when. A token is marked as used, durably,
//! before anything is granted, together with the two keys that it was used for: who
//! comes again with the same two has lost the answer and gets another one, and nobody
//! else is let in. A node that belongs already is invited in the same way: that lets
//! in one whose certificate has ended, one that was revoked, and one that lost
//! its directory, whose new signing key is then marked as such. Not here: what a token
//! grants ([`super::enrol`]).

use anyhow::{Context as _, bail};
use certs::{
    authority::Authority,
    enrol::{RootOfTrust, Token, generate_secret, secret_hash},
    fault,
    identity::Identity,
    keyfile,
};
use protocol::{
    federation::Registry,
    hex,
    id::NodeId,
    message::{JoinRefused, JoinRequest},
    suite::checksum::Checksum,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::Registrar;
use crate::app::now_unix;

/// Invitations that may be open at once: more than a city has counties.
const INVITES_OPEN_MAX: usize = 1000;
/// Used and expired invitations are kept for so long, so that a late use is
/// told apart from a forged token.
const INVITES_KEPT_S: i64 = 90 * 24 * 3600;
/// At most so many of them: with those that are open, and after all of these are used, they
/// stay below the length of a private file.
const INVITES_SETTLED_MAX: usize = 300;
/// A node that has lost the answer may ask for it again for so long.
const ANSWERED_AGAIN_S: i64 = 24 * 3600;

/// An invitation as the hub keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Invite {
    /// The token's public id, hexadecimal.
    pub(super) id: String,
    secret_hash: String,
    pub(super) node: NodeId,
    pub(super) name: String,
    expires_unix: i64,
    used_unix: Option<i64>,
    /// For which keys it was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    /// What it grants stands in `_federation`.
    #[serde(default)]
    pub(super) granted: bool,
    /// The number of the root that the token names.
    pub(super) root: u32,
    /// How far `_federation` went when it was made.
    #[serde(default)]
    federation_seq: u64,
}

/// Who has used an invitation: a node that proves that it has both keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The public signing key, hexadecimal.
    pub(super) signing_key: String,
    /// The checksum of the certificate's public key.
    pub(super) certificate_key: Checksum,
}

/// Whether a request is the first one that an invitation is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    First,
    /// It was used with the same keys: the answer was lost, or this hub died over it.
    Again,
}

impl Use {
    /// Why a request is refused: of an invitation that was used nothing else is said than
    /// that.
    pub(super) fn or(self, why: JoinRefused) -> JoinRefused {
        match self {
            Self::First => why,
            Self::Again => JoinRefused::Used,
        }
    }
}

impl Invite {
    fn is_open(&self, now: i64) -> bool {
        self.used_unix.is_none() && self.expires_unix > now
    }

    /// Whether it lets in who asks with its secret. Of one that was used nothing else is
    /// said than that.
    fn judge(
        &self,
        request: &JoinRequest,
        used_by: Option<&Holder>,
        now: i64,
    ) -> Result<Use, JoinRefused> {
        let fits = self.node == request.node;
        if let Some(used) = self.used_unix {
            let again = self.holder.as_ref().is_some_and(|holder| {
                holder.signing_key == hex::encode(&request.signing_key)
                    && used_by.is_none_or(|used_by| used_by == holder)
            });
            let is_answered = again && fits && now.saturating_sub(used) < ANSWERED_AGAIN_S;
            return if is_answered { Ok(Use::Again) } else { Err(JoinRefused::Used) };
        }
        match self.expires_unix <= now {
            true => Err(JoinRefused::Expired),
            false if !fits => Err(JoinRefused::Mismatch),
            false => Ok(Use::First),
        }
    }
}

/// Drops used and expired invitations that are old, and of too many the first ones.
fn forget_settled(invites: &mut Vec<Invite>, now: i64) {
    invites.retain(|invite| invite.expires_unix > now - INVITES_KEPT_S);
    let settled = invites.iter().filter(|invite| !invite.is_open(now)).count();
    let mut superfluous = settled.saturating_sub(INVITES_SETTLED_MAX);
    invites.retain(|invite| {
        let goes = superfluous > 0 && !invite.is_open(now);
        superfluous -= usize::from(goes);
        !goes
    });
}

/// Drops the invitations of a node that were not used, and forgets who has used the
/// others. Whether there was anything to do.
fn take_back_of(invites: &mut Vec<Invite>, node: &NodeId) -> bool {
    let before = invites.len();
    invites.retain(|invite| invite.node != *node || invite.used_unix.is_some());
    let mut changed = invites.len() != before;
    for invite in invites.iter_mut().filter(|invite| invite.node == *node) {
        changed |= invite.holder.take().is_some();
    }
    changed
}

impl Registrar {
    fn read_invites(&self) -> anyhow::Result<Vec<Invite>> {
        let path = self.dir.keys().join("invites.json");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let bytes = keyfile::read_private(&path)?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }

    fn write_invites(&self, invites: &[Invite]) -> anyhow::Result<()> {
        let path = self.dir.keys().join("invites.json");
        let text = serde_json::to_vec(invites)?;
        Ok(keyfile::replace_private(&path, &text)?)
    }

    /// Makes a one-time token for `node`.
    pub(in crate::app) fn invite(
        &self,
        node: &str,
        name: Option<String>,
        ttl_s: u64,
        address: Option<String>,
    ) -> anyhow::Result<Token> {
        self.refuse_restored()?;
        let node = NodeId::new(node)?;
        Identity::new(&self.identity.federation, &node).check()?;
        if node == *self.membership.hub() {
            bail!("{node} is this hub itself; a member needs a name of its own");
        }
        if let Some(name) = &name {
            config::check_display_name(name)
                .map_err(|problem| anyhow::anyhow!("--name: {problem}"))?;
        }
        let ttl = i64::try_from(ttl_s).ok().filter(|ttl| (1..=366 * 24 * 3600).contains(ttl));
        let ttl = ttl.context("--ttl is between 1 second and a year")?;
        let addresses = self.addresses_for_token(address)?;
        let head = self.store.head(self.membership.partition());
        let head = head.context("this hub has no _federation; was it initialised?")?;
        let registry = self.membership.current()?;
        let known_as = registry.members().get(&node);
        let known_as = known_as.and_then(|member| config::shown_display_name(&member.name));
        let authority = self.authority()?;
        self.check_usable(&authority, &registry, &node)?;
        let (id, secret) = generate_secret()?;
        let token = Token {
            federation: self.identity.federation.clone(),
            node: node.clone(),
            hub: self.identity.node.clone(),
            addresses,
            root: RootOfTrust::from_certificate(authority.root())?,
            anchor: self.membership.anchor(),
            federation_seq: head.seq(),
            federation_head: head.signed.hash(),
            id,
            secret,
            expires_unix: now_unix() + ttl,
            name: name.or(known_as).unwrap_or_else(|| node.to_string()),
        };

        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        let now = now_unix();
        forget_settled(&mut invites, now);
        // Of two open tokens for one name the second to be used would speak for
        // the first: only the newest counts.
        take_back_of(&mut invites, &node);
        let open = invites.iter().filter(|invite| invite.is_open(now));
        if open.count() >= INVITES_OPEN_MAX {
            bail!("{INVITES_OPEN_MAX} invitations are open; wait until some are used or expire");
        }
        invites.push(Invite {
            id: hex::encode(&token.id),
            secret_hash: token.secret_hash().to_string(),
            node,
            name: token.name.clone(),
            expires_unix: token.expires_unix,
            used_unix: None,
            holder: None,
            granted: false,
            root: authority.choice().root,
            federation_seq: token.federation_seq,
        });
        self.write_invites(&invites)?;
        Ok(token)
    }

    /// A token that nobody could use is not given away.
    fn check_usable(
        &self,
        authority: &Authority,
        registry: &Registry,
        node: &NodeId,
    ) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc();
        authority.check_valid(now).context(
            "a token would be of no use, because nothing can be issued now. If this machine's clock is right (date -u): \
             creditsync ca rotate (with the root key), again and again with --force until 'creditsync ca show' says that \
             the next step is none, then invite / 目前无法签发证书，令牌不能使用。若本机时间无误：请插入根密钥执行 \
             creditsync ca rotate，再反复加 --force 直至下一步为 none，然后重新邀请",
        )?;
        let is_known = registry.members().contains_key(node);
        self.put_off((authority, registry), node, is_known, now).with_context(|| {
            format!("a token for {node} would be of no use / 给 {node} 的令牌不能使用")
        })?;
        Ok(())
    }

    fn addresses_for_token(&self, address: Option<String>) -> anyhow::Result<Vec<String>> {
        if let Some(address) = address {
            if let Err(problem) = config::check_address(&address) {
                bail!("--address {address}: {problem}");
            }
            return Ok(vec![address]);
        }
        if let Some(announced) = self.membership.current()?.hub_addresses() {
            return Ok(announced.addresses.clone());
        }
        let addresses = self.configured_addresses();
        if addresses.is_empty() {
            bail!(
                "this hub listens on all addresses, so say which one its members reach: \
                 --address HOST:PORT, creditsync hub move HOST:PORT, or listen.advertise in creditsync.toml"
            );
        }
        Ok(addresses)
    }

    /// Where the hub is dialled by its configuration; nothing if that does not say it.
    pub(super) fn configured_addresses(&self) -> Vec<String> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.clone();
        }
        let listen = self.config.listen;
        let listen = listen.filter(|listen| !listen.ip().is_unspecified() && listen.port() != 0);
        listen.map(|listen| listen.to_string()).into_iter().collect()
    }

    /// Who has a token that was not used and is from before this number of `_federation`.
    pub(super) fn invited_before(&self, seq: u64) -> anyhow::Result<Vec<NodeId>> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let (invites, now) = (self.read_invites()?, now_unix());
        let open = invites.into_iter().filter(|invite| invite.is_open(now));
        Ok(open.filter(|invite| invite.federation_seq < seq).map(|invite| invite.node).collect())
    }

    /// Takes back invitations that were not used: what they say of the hub is not
    /// true any more.
    pub(super) fn drop_open_invites(&self) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        invites.retain(|invite| invite.used_unix.is_some());
        self.write_invites(&invites)
    }

    /// Takes back the invitations of a node, because it is shut out: only one that is made
    /// later lets it in again, and who has used one gets no more answers to that.
    pub(super) fn take_back_invites_of(&self, node: &NodeId) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        if take_back_of(&mut invites, node) { self.write_invites(&invites) } else { Ok(()) }
    }

    /// Finds the invitation that a request is for: one that is open, or one that was
    /// used with the same signing key. With `used_by` marks one that is open as used, and
    /// one that was used is good only for the same two keys. Blocks.
    pub(super) fn redeem(
        &self,
        request: &JoinRequest,
        used_by: Option<&Holder>,
    ) -> Result<(Use, Invite), JoinRefused> {
        let failed = |error: anyhow::Error| {
            tracing::error!(error = format!("{error:#}"), "invitations cannot be read or written");
            JoinRefused::Failed
        };
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites().map_err(failed)?;
        let id = hex::encode(&request.token_id);
        let suite = self.membership.suite();
        let hash = secret_hash(suite, &request.token_id, &request.secret).to_string();
        let invite = invites
            .iter_mut()
            // Hashes are compared, so timing tells nothing about the secret.
            .find(|invite| invite.id == id && invite.secret_hash == hash)
            .ok_or(JoinRefused::UnknownToken)?;
        let now = now_unix();
        let is = invite.judge(request, used_by, now)?;
        let (Use::First, Some(used_by)) = (is, used_by) else {
            return Ok((is, invite.clone()));
        };
        invite.used_unix = Some(now);
        invite.holder = Some(used_by.clone());
        let used = invite.clone();
        self.write_invites(&invites).map_err(failed)?;
        fault::point("invite.used");
        Ok((is, used))
    }

    /// What an invitation grants is done.
    pub(super) fn note_granted(&self, id: &str) -> anyhow::Result<()> {
        let _one_at_a_time = self.invites.lock().unwrap_or_else(|error| error.into_inner());
        let mut invites = self.read_invites()?;
        if let Some(invite) = invites.iter_mut().find(|invite| invite.id == id) {
            invite.granted = true;
        }
        self.write_invites(&invites)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_request_is_said_in_one_order() {
        const NOW: i64 = 1_800_000_000;
        let holder = |key: u8, certificate: &[u8]| Holder {
            signing_key: hex::encode(&[key; 32]),
            certificate_key: Checksum::of(&[certificate]),
        };
        let request = |node: &str, key: u8| JoinRequest {
            token_id: [1; 8],
            secret: [2; 32],
            node: NodeId::new(node).unwrap(),
            csr: vec![],
            signing_key: vec![key; 32],
            possession: vec![],
        };
        let invite = |ends_in: i64, used_before: Option<i64>| Invite {
            id: hex::encode(&[1; 8]),
            secret_hash: "f".repeat(64),
            node: NodeId::new("410122").unwrap(),
            name: "中牟县".into(),
            expires_unix: NOW + ends_in,
            used_unix: used_before.map(|seconds| NOW - seconds),
            holder: used_before.map(|_| holder(7, b"its own")),
            granted: false,
            root: 1,
            federation_seq: 1,
        };
        let its_own = holder(7, b"its own");
        let other = holder(7, b"another");
        // Ends in, used before, asked by, with the key, which certificate's key.
        let table = [
            (1, None, ("410122", 7), Some(&its_own), Ok(Use::First)),
            (1, None, ("410181", 7), None, Err(JoinRefused::Mismatch)),
            (0, None, ("410122", 7), None, Err(JoinRefused::Expired)),
            (0, None, ("410181", 7), None, Err(JoinRefused::Expired)),
            (1, Some(0), ("410122", 7), None, Ok(Use::Again)),
            (1, Some(0), ("410122", 7), Some(&its_own), Ok(Use::Again)),
            (-90, Some(86_399), ("410122", 7), Some(&its_own), Ok(Use::Again)),
            (1, Some(86_400), ("410122", 7), Some(&its_own), Err(JoinRefused::Used)),
            (1, Some(0), ("410122", 7), Some(&other), Err(JoinRefused::Used)),
            (1, Some(0), ("410122", 8), None, Err(JoinRefused::Used)),
            (0, Some(0), ("410122", 8), None, Err(JoinRefused::Used)),
            (0, Some(0), ("410181", 7), None, Err(JoinRefused::Used)),
        ];
        for (row, (ends_in, used, (node, key), used_by, expected)) in table.into_iter().enumerate()
        {
            let found = invite(ends_in, used).judge(&request(node, key), used_by, NOW);
            assert_eq!(found, expected, "row {row}");
        }
    }

    #[test]
    fn the_file_of_invitations_stays_short_however_many_have_joined() {
        let now = 1_800_000_000;
        let name = "\u{90d1}".repeat(85);
        config::check_display_name(&name).unwrap();
        config::check_display_name(&format!("{name}\u{90d1}")).expect_err("it is the longest");
        let invite = |number: usize, used: bool| Invite {
            id: "0123456789abcdef".into(),
            secret_hash: "f".repeat(64),
            node: NodeId::new(&format!("{number:a>63}")).unwrap(),
            name: name.clone(),
            expires_unix: now + 1,
            used_unix: used.then_some(now),
            holder: used.then(|| Holder {
                signing_key: "a".repeat(64),
                certificate_key: Checksum::of(&[b"certificate"]),
            }),
            granted: used,
            root: u32::MAX,
            federation_seq: u64::MAX,
        };
        let mut invites: Vec<Invite> = (0..5000).map(|number| invite(number, true)).collect();
        invites.push(invite(5000, false));
        forget_settled(&mut invites, now);
        assert_eq!(invites.len(), INVITES_SETTLED_MAX + 1);
        assert!(invites[0].node.as_str().ends_with("4700"), "the newest are kept");
        assert!(invites.last().unwrap().is_open(now));
        // All that may be open besides are used then.
        invites.extend((0..INVITES_OPEN_MAX).map(|number| invite(number, true)));
        let bytes = serde_json::to_vec(&invites).unwrap().len();
        assert!((bytes as u64) < keyfile::FILE_BYTES_MAX, "{bytes} bytes");
    }
}
