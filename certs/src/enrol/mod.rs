//! How a new member comes to trust a hub: the root of trust, the anchor that
//! the root signs for a hub, and the one-time token that carries both.
//!
//! Used by the `invite` and `join` commands and by whoever checks a
//! `_federation` history from its beginning. Invariant: the joiner has to trust
//! nothing but the text that it was handed.
//!
//! Not here: the conversation of enrolment, and the hub's list of open tokens.

mod anchor;
mod token;

pub use self::{
    anchor::{Anchor, RootOfTrust},
    token::{Token, TokenError, generate_secret, secret_hash},
};
