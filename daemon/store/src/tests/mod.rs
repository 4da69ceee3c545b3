//! The store as its users see it, against a simple reference: an ordered map
//! and the tree that `protocol` builds from it; and the engine by itself.
//!
//! [`fixtures`] and [`reference`] are what the others share.

mod commit;
mod compaction;
mod copy;
mod crashes;
mod disk;
mod feed;
mod fixtures;
mod forget;
mod full;
mod heads;
mod hub_keys;
mod journal;
mod mending;
mod packs;
mod pruning;
mod reference;
mod repacking;
mod replica;
mod room;
mod signing;
mod snapshot;
mod staging;
mod stale;
mod table;
