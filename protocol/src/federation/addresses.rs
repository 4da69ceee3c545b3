//! The record of where a hub is dialled.
//!
//! Used by the hub, which announces a move ahead of time, and by its members, which
//! dial what is said here before what they were configured with. Invariant: a record
//! that was read has one to [`ADDRESSES_MAX`] addresses, each of which can be dialled,
//! none twice. A hub is known by its certificate and never by its address, so a record
//! can lead a member nowhere but to silence.

use serde::{Deserialize, Serialize};

use crate::address::{self, ADDRESSES_MAX};

/// Where the hub is dialled, in the order to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubAddresses {
    /// HOST:PORT.
    pub addresses: Vec<String>,
    /// The number of the change set that announced them: whoever has acknowledged
    /// that has heard. Only the hub asks.
    pub since: u64,
}

impl HubAddresses {
    /// What is wrong with them, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        let count = self.addresses.len();
        if !(1..=ADDRESSES_MAX).contains(&count) {
            return Err(format!("{count} addresses, and 1 to {ADDRESSES_MAX} may be"));
        }
        for (index, text) in self.addresses.iter().enumerate() {
            // Longer texts are not quoted.
            address::check(text).map_err(|problem| format!("address {}: {problem}", index + 1))?;
            if self.addresses[..index].contains(text) {
                return Err(format!("address {} stands twice", index + 1));
            }
        }
        Ok(())
    }
}
