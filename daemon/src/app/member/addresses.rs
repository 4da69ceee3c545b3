//! Where the hub is, as a token says it: what of that can be dialled, and how it comes
//! into `creditsync.toml`.
//!
//! Used by [`super::join`]. Invariant: a file is changed in this one setting, whole or
//! not at all, and only to what can be read again.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::Context as _;
use certs::enrol::Token;
use protocol::address::{self, ADDRESSES_MAX};

use crate::app::node::Node;

/// The addresses of a token that can be dialled: whoever made it need not have been
/// careful, and a file with others would not be read again.
pub(super) fn dialable(token: &Token) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for address in token.addresses.iter().filter(|address| address::check(address).is_ok()) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(address) {
            addresses.push(address.clone());
        }
    }
    addresses
}

/// Writes where the hub is now into `creditsync.toml`, as the first join does. Whether
/// that could be done: the file may be somebody else's to write.
pub(super) fn write_upstream(node: &Node, addresses: &[String]) -> bool {
    let write = || -> anyhow::Result<()> {
        // Where it is a link, what it leads to is written.
        let path = node.dir.config().canonicalize().context("find creditsync.toml")?;
        let text = std::fs::read_to_string(&path)?;
        let edited = config::with_upstream_addresses(&text, addresses);
        let edited = edited.map_err(anyhow::Error::msg)?;
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o7777;
        Ok(files::replace(&path, edited.as_bytes(), mode)?)
    };
    let written = write();
    if let Err(error) = &written {
        tracing::warn!(
            error = format!("{error:#}"),
            addresses = addresses.join(", "),
            "the hub's addresses could not be written into creditsync.toml"
        );
    }
    written.is_ok()
}
