//! What a node can be asked to do: one file an operation.
//!
//! `commands` says which request is which operation. Invariant: an operation
//! takes plain arguments and answers JSON; it knows neither the command line nor
//! the socket. Not here yet: operations that still stand in `commands`.

mod backup;
mod chore;
mod delivery;
mod get;
mod import;
mod moving;
mod others;
mod partition;
mod record;
mod resolve;

use serde_json::Value as Json;

use crate::admin::Reply;

/// A JSON answer, and whether something needs a person.
pub(super) type Answer = (Json, bool);
/// Where everything but the last reply goes.
pub(super) type Heed<'a> = &'a dyn Fn(Reply) -> anyhow::Result<()>;
