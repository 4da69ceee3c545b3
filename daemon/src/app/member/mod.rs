//! The member's side of trust. What the hub says about it is judged in
//! [`super::trustee`].
//!
//! - [`join`]: a directory becomes a member, or a member joins again;
//! - [`addresses`]: where the hub is, as a token says it;
//! - [`requests`]: what a member asks of its hub over the live connection.

mod addresses;
pub mod join;
pub(super) mod requests;
