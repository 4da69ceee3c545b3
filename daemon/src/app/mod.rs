//! Puts the node together: opens it, makes one, joins one, runs one, and does
//! what commands ask.
//!
//! - [`dir`]: what lies where in a node's directory; [`lock`]: who works in it;
//!   [`owner`]: whose files they are;
//! - [`node`]: the opened node; [`opening`]: its store, whatever has become of that;
//! - [`init`]: how a hub comes to be; [`restore`]: a node made of a backup, and
//!   [`restored`], the mark that it has until it may write;
//! - [`hub`]: the hub's office: who belongs, with which keys and certificates;
//! - [`member`]: joining, and what a member asks of its hub; [`trustee`]: what the
//!   hub says about trust, judged at a member, with [`own_history`] for what it says
//!   of the member's own;
//! - [`keys`], [`keeper`], [`renewal`], [`alarms`]: this node's own signing keys
//!   and certificates, what keeps them alive, and what is wrong with them;
//! - [`catalogue`]: what is wrong with the catalogue as it has arrived;
//! - [`room`]: who shares this node's disk;
//! - [`daemon`]: the node running, with its [`inbox`];
//! - [`commands`]: what a request does, in the daemon or without one, with
//!   [`ops`] for one operation a file, and
//!   [`status`], [`certificates`], [`verify`], [`repair`] and [`export`] for the larger
//!   answers.

mod alarms;
mod attention;
mod catalogue;
mod certificates;
mod changes;
pub mod commands;
pub mod daemon;
pub mod dir;
mod export;
mod freshness;
mod given_up;
pub mod hub;
mod inbox;
pub mod init;
mod keeper;
mod keys;
pub mod lock;
pub mod member;
mod missing;
pub mod node;
pub mod opening;
mod ops;
mod own_history;
pub mod owner;
mod renewal;
mod repair;
pub mod restore;
pub mod restored;
mod room;
mod runtime;
mod status;
mod trustee;
mod verify;

/// The wall clock in seconds since 1970.
pub(crate) fn now_unix() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
