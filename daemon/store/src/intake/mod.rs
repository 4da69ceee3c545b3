//! What a peer's tree turns into here.
//!
//! - [`compare`]: what differs, applied in place in one batch;
//! - [`staging`]: a whole tree, into a generation that nobody reads yet;
//! - [`heal`]: damaged pages replaced under the head that is there;
//! - [`own`]: what this node has, as a comparison needs it.
//!
//! Reading and comparing is done on the caller's side of the queue; writing is
//! asked of the writer. How pages come from a peer is `protocol::session`'s.

pub mod compare;
pub mod heal;
pub mod own;
pub mod staging;

use protocol::page::{Leaf, PageRef};

/// A leaf that is ready to be staged: what has to be read of it was read.
pub struct ReadyLeaf {
    page: PageRef,
    index: Vec<u8>,
    leaf: Leaf,
    /// What is to be written; none where it is already.
    body: Option<Vec<u8>>,
}
