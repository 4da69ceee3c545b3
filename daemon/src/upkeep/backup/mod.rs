//! A node's directory in one file, and a directory out of one.
//!
//! - [`words`]: what stands in a backup, as its JSON says it;
//! - [`frame`]: the file as frames, each with a checksum over all up to it;
//! - [`output`]: where a backup goes, a file or a pipe with somebody behind it;
//! - [`tree`]: which files of a directory are taken;
//! - [`keys`]: private keys, encrypted with a passphrase;
//! - [`save`]: a backup made of a node at work;
//! - [`read`]: a backup read from its beginning to its end, in the one order there is;
//! - [`check`]: whether one is good, without a node;
//! - [`restore`]: a directory made of one.
//!
//! The store is not copied as files but as partitions ([`store::Piece`]): a restored
//! one is built anew, whatever format its database has, and has to come out as signed.
//! Invariants: what is written was judged as it will be judged when it is read; memory
//! does not grow with the node; nothing of a backup that is not whole to its last byte
//! becomes a node.
//!
//! # The format, number 1
//!
//! | part | bytes |
//! | --- | --- |
//! | beginning | `CSBACKUP`, the format's number (32 bits), the first 4 bytes of the checksum of these 12 |
//! | frame, again and again | kind (1), length of what follows (32 bits), payload, checksum (32) |
//!
//! Numbers are big-endian. A frame's checksum is over the checksum of the frame before
//! (of the beginning, for the first), kind, length and payload; so the last one is over
//! everything, and none can be left out, repeated or moved. A payload is compressed with
//! zstd behind its length, and has at most 16 MiB unpacked. Nothing follows the frame
//! `End`.
//!
//! | kind | payload | how often, in this order |
//! | --- | --- | --- |
//! | 1 Manifest | JSON: [`words::Manifest`] | once |
//! | 2 File | JSON: [`words::FileEntry`] | each file; the first one is `creditsync.toml` |
//! | 3 Data | bytes of the file | 0 or more |
//! | 4 FileEnd | none | once a file |
//! | 5 Keys | PEM of an encrypted bundle ([`keys`]) | once, behind `creditsync.toml`, if keys are in |
//! | 6 Partition | JSON: [`words::PartitionEntry`] | each partition; `_federation` is the last one |
//! | 7 Pieces | pieces ([`store::Piece`]) | 1 or more |
//! | 8 PartitionEnd, or | none | once a partition |
//! | 9 LeftOut | JSON: [`words::LeftOut`]; what came of the partition counts for nothing | |
//! | 10 End | JSON: [`words::Totals`] | once |
//!
//! Files may stand between partitions: those of `certs/` stand before `_federation`, so
//! that both are of one moment. A program reads its own format number and refuses
//! others in words.

pub mod check;
mod frame;
mod keys;
pub mod output;
mod read;
pub mod restore;
pub mod save;
mod tree;
mod words;

#[cfg(test)]
mod tests;

pub use self::{
    keys::{KeyFiles, look as look_at_keys},
    read::Summary,
    words::{BackupError, Copied, Keys, LeftOut, Manifest},
};
