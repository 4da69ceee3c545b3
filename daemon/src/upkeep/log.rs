//! One number of a partition's log, compared with what was signed.
//!
//! A header that is kept is signed by a key that counts and is in the history of the
//! head; its body, where that is kept, is the one that it signs. Used by `inspect`, which
//! finds, and by `mend`, which puts right. Invariant: what a key has signed that does not
//! count is told, and is no damage.

use protocol::{
    change::{BODY_BYTES_MAX, ChangeSetError, KeyRing, Position},
    id::PartitionId,
};
use store::{Head, StoreError};

use crate::sync::Context;

/// What is wrong with one number of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The header is not the one that belongs there, or gone without its hash.
    Header(String),
    /// The hash that is left of a header is another one.
    Hash(String),
    /// The body is not the one that was signed, or is gone where it is needed.
    Body(String),
    /// Whose signature it is does not count.
    Key(String),
}

impl Wrong {
    /// What is said of it.
    pub fn problem(&self) -> &str {
        match self {
            Self::Header(problem)
            | Self::Hash(problem)
            | Self::Body(problem)
            | Self::Key(problem) => problem,
        }
    }
}

/// Looks at a number, which is not above the head's; nothing is wrong with one of which
/// nothing is, or has to be, here. Reads the body.
pub(super) fn check(
    context: &Context,
    partition: &PartitionId,
    head: &Head,
    seq: u64,
    keys: &dyn KeyRing,
) -> Result<Option<Wrong>, StoreError> {
    let store = &context.store;
    let Some(header) = unless_damaged(store.header_at(partition, seq))? else {
        return Ok(Some(Wrong::Header("its header cannot be read".into())));
    };
    let Some(header) = header else {
        return check_absent(context, partition, head, seq);
    };
    let problem = match header.verify(keys) {
        Ok(()) => None,
        Err(error) => Some(of_signature(error)),
    };
    if let Some(Wrong::Header(_)) = problem {
        return Ok(problem);
    }
    if seq == head.seq() && header != head.signed {
        return Ok(Some(Wrong::Header("it is not the head".into())));
    }
    if !store.is_vouched(partition, header.position(), Some(header.header().previous))? {
        return Ok(Some(Wrong::Header("the history of the head does not have it".into())));
    }
    if problem.is_some() {
        return Ok(problem);
    }
    let Some(sets) = unless_damaged(store.change_sets(partition, seq, 1, BODY_BYTES_MAX))? else {
        return Ok(Some(Wrong::Body("its changes cannot be read".into())));
    };
    match sets.and_then(|sets| sets.into_iter().next()) {
        Some(set) => match set.verify(keys) {
            Ok(_) => Ok(None),
            Err(error) => Ok(Some(Wrong::Body(error.to_string()))),
        },
        None if needs_all(context, partition, head) => {
            Ok(Some(Wrong::Body("its changes are missing".into())))
        }
        None => Ok(None),
    }
}

/// Whether a partition has to have its whole log: a hub sends all of `_federation` to
/// whoever joins.
fn needs_all(context: &Context, partition: &PartitionId, head: &Head) -> bool {
    partition.dataset.is_system() && has_own_log(context, partition, head)
}

/// Whether all headers were made here: an origin that never took pages from a peer has
/// all of them, or their hashes.
pub(super) fn has_own_log(context: &Context, partition: &PartitionId, head: &Head) -> bool {
    partition.origin == *context.membership.me() && head.generation == 0
}

/// Of a number without a header there may be the hash.
fn check_absent(
    context: &Context,
    partition: &PartitionId,
    head: &Head,
    seq: u64,
) -> Result<Option<Wrong>, StoreError> {
    let store = &context.store;
    let is_missing = match has_own_log(context, partition, head) {
        true => match partition.dataset.is_system() {
            true => true,
            false => unless_damaged(store.header_hash_at(partition, seq))?.flatten().is_none(),
        },
        false => seq == head.seq() || store.is_header_lost(partition, seq)?,
    };
    if is_missing {
        return Ok(Some(Wrong::Header("it is missing in the log".into())));
    }
    let Some(hash) = unless_damaged(store.header_hash_at(partition, seq))?.flatten() else {
        return Ok(None);
    };
    let known = store.vouched_hash_at(partition, seq)?;
    let is_right = known.is_none_or(|known| known == hash)
        || store.is_vouched(partition, Position { seq, hash }, None)?;
    Ok((!is_right).then(|| Wrong::Hash("the hash of its header is another one".into())))
}

fn of_signature(error: ChangeSetError) -> Wrong {
    let text = error.to_string();
    match error {
        ChangeSetError::UnknownKey { .. }
        | ChangeSetError::KeyRange { .. }
        | ChangeSetError::OtherBase => Wrong::Key(text),
        _ => Wrong::Header(text),
    }
}

fn unless_damaged<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
