//! Joining: section 16 of `protocol/SPEC.md`. Who joins judges the hub's answer
//! ([`joined`]), and the hub a request ([`Hub`]).
//!
//! Not here: ends of tokens, retired roots, and how many ask at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checked, Refused,
    anchor::Anchor,
    certificate::{Certificate, check_chain, check_request},
    ensure,
    federation::Federation,
    hashes, layout,
    messages::{self, JoinReply, JoinRequest},
    token::Token,
};

/// The anchor of a token, under the token's root.
pub fn anchor(token: &Token) -> Checked<Anchor> {
    Anchor::verified(&token.anchor, &token.root_key()?)
}

/// A request that its token is good for; answers the key for which it wants a
/// certificate.
pub fn check_asked<'a>(token: &Token, request: &'a JoinRequest) -> Checked<&'a [u8]> {
    let anchor = anchor(token)?;
    let well =
        (request.token_id, request.secret, &request.node) == (token.id, token.secret, &token.node);
    ensure(well, "another token's request")?;
    let bytes = [&token.id[..], token.node.as_bytes()].concat();
    let sized = || Refused("a key or a signature of another length");
    let public = request.public[..].try_into().map_err(|_| sized())?;
    let possession = request.possession[..].try_into().map_err(|_| sized())?;
    hashes::verify(public, layout::signature::POSSESSION, &bytes, possession)?;
    check_request(&request.request, &anchor.fields().federation, &token.node)
}

/// Whether a chain that was shown behind the token's address is its hub's, by the root
/// that the hub says the token names.
pub fn check_hub(token: &Token, chain: &[Vec<u8>], root: &[u8]) -> Checked<()> {
    token.is_root(root)?;
    let anchor = anchor(token)?;
    check_chain(chain, root, &anchor.fields().federation, &anchor.fields().hub)
}

/// What a member has behind the hub's answer: the key that was certified, and a
/// verified `_federation`.
pub fn joined(token: &Token, answer: &[Vec<u8>]) -> Checked<(Vec<u8>, Federation)> {
    let anchor = anchor(token)?;
    let mut answer = answer.iter();
    let mut next = || messages::join_reply(answer.next().ok_or(Refused("an early end"))?);
    let JoinReply::Accepted { chain, root } = next()? else { return Err(Refused("not accepted")) };
    token.is_root(&root)?;
    check_chain(&chain, &root, &anchor.fields().federation, &token.node)?;
    let key = Certificate::read(&chain[0])?.spki.to_vec();
    let mut federation = Federation::new(anchor);
    loop {
        match next()? {
            JoinReply::ChangeSet { header, body } => match federation.take(&header, &body) {
                Err(Refused("held already")) => {}
                taken => taken?,
            },
            JoinReply::Done => break,
            _ => return Err(Refused("an answer that has no place here")),
        }
    }
    let held = federation.replica().header(token.federation_seq);
    let held = held.ok_or(Refused("the token's head is missing"))?;
    ensure(held.1 == token.federation_head, "the token's head is another")?;
    Ok((key, federation))
}

/// Why a hub refuses, as a JoinReply says it.
pub mod reason {
    pub const UNKNOWN: u8 = 0;
    pub const USED: u8 = 1;
    pub const MISMATCH: u8 = 3;
    pub const KEY_RETIRED: u8 = 6;
}

/// A token as its hub keeps it, with what it was used for: the signing key, and the key
/// that was certified.
struct Invited {
    token: Token,
    used_by: Option<(Vec<u8>, Vec<u8>)>,
    /// Another token was made for the node, or the node was removed or revoked.
    superseded: bool,
}

/// What a request that was granted comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// The answer once more: only the certificate is another one.
    Again,
    /// The node joins with its present key, or with a new one.
    WithPresentKey,
    WithNewKey,
}

/// What a hub knows of those whom it has invited.
#[derive(Default)]
pub struct Hub {
    invited: BTreeMap<[u8; 8], Invited>,
    /// Signing keys by node, the present one last.
    keys: BTreeMap<String, Vec<Vec<u8>>>,
    /// Nodes whose present key counts no more.
    without_key: BTreeSet<String>,
}

impl Hub {
    /// Of the tokens for one node only the newest counts.
    pub fn invites(&mut self, token: &Token) {
        self.supersedes_tokens(&token.node);
        let invited = Invited { token: token.clone(), used_by: None, superseded: false };
        self.invited.insert(token.id, invited);
    }

    fn supersedes_tokens(&mut self, node: &str) {
        let of_node = self.invited.values_mut().filter(|invited| invited.token.node == node);
        of_node.for_each(|invited| invited.superseded = true);
    }

    /// A node is removed, or revoked as a whole: its tokens and its key end with that.
    pub fn shuts_out(&mut self, node: &str) {
        self.supersedes_tokens(node);
        self.without_key.insert(node.to_owned());
    }

    pub fn judges(&mut self, request: &JoinRequest) -> Result<Granted, u8> {
        let known = self.invited.get_mut(&request.token_id);
        let known = known.filter(|invited| invited.token.secret == request.secret);
        let invited = known.ok_or(reason::UNKNOWN)?;
        let fits = check_asked(&invited.token, request).map(<[u8]>::to_vec);
        let keys = self.keys.entry(invited.token.node.clone()).or_default();
        if let Some(used_by) = &invited.used_by {
            let same = fits.is_ok_and(|key| *used_by == (request.public.clone(), key));
            let present = keys.last() == Some(&request.public);
            return match same && present && !invited.superseded {
                true => Ok(Granted::Again),
                false => Err(reason::USED),
            };
        }
        if invited.superseded {
            return Err(reason::UNKNOWN);
        }
        let key = fits.map_err(|_| reason::MISMATCH)?;
        let counts = !self.without_key.contains(&invited.token.node);
        let granted = match keys.iter().position(|known| *known == request.public) {
            None => Granted::WithNewKey,
            Some(at) if at + 1 == keys.len() && counts => Granted::WithPresentKey,
            Some(_) => return Err(reason::KEY_RETIRED),
        };
        invited.used_by = Some((request.public.clone(), key));
        if granted == Granted::WithNewKey {
            keys.push(request.public.clone());
            self.without_key.remove(&invited.token.node);
        }
        Ok(granted)
    }
}
