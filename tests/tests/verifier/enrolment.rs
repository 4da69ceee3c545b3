//! Joining: section 16 of `protocol/SPEC.md`, on the side of who joins.
//!
//! Not here: what the hub makes of a token.

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
