//! The member's side of trust.
//!
//! - [`join`]: a directory becomes a member, or a member joins again;
//! - [`trustee`]: what the hub says about trust is judged here;
//! - [`requests`]: what a member asks of its hub over the live connection.

pub mod join;
pub(super) mod requests;
pub(super) mod trustee;
