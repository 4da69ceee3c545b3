//! The pure heart of creditsync: what a record, a change set, a state tree and
//! a conversation between two nodes *are*, without any input or output.
//!
//! Every other crate imports this one; it imports none of them, and neither
//! tokio, quinn, sled, files nor a clock. Hostile bytes are parsed here and
//! nowhere else. The bytes are described in `protocol/SPEC.md`, for someone who
//! writes a second implementation.
//!
//! Read in this order: [`id`], [`suite`], [`value`], [`schema`], [`record`],
//! [`change`], [`tree`], [`message`], [`session`].

pub mod address;
pub mod change;
pub mod codec;
pub mod cut;
pub mod difference;
pub mod encoding;
pub mod federation;
pub mod frame;
pub mod freshness;
pub mod hex;
pub mod history;
pub mod id;
mod json;
pub mod judge;
pub mod message;
pub mod moment;
pub mod page;
pub mod patch;
pub mod record;
pub mod schema;
pub mod session;
pub mod suite;
pub mod text;
pub mod tree;
pub mod uscc;
pub mod value;

pub use suite::{hash, sign};
