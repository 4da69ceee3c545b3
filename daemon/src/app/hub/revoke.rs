//! Nodes and certificates that count no more.
//!
//! A revocation is a record of `_federation`, so it reaches every node; live
//! connections look at once, new ones before their first word. What a revoked
//! node owned stays readable. Un-revoking is a new invitation.

use anyhow::{Context as _, bail};
use certs::identity::Identity;
use protocol::{
    federation::{Entry, Member, Revocation, Role},
    id::NodeId,
    moment::rfc3339,
};
use serde_json::{Value as Json, json};

use super::{Ending, Registrar, puts};
use crate::app::now_unix;

/// Longest reason: two lines on a screen.
const REASON_BYTES_MAX: usize = 400;
/// A serial number has at most 20 octets (RFC 5280, 4.1.2.2).
const SERIAL_DIGITS_MAX: usize = 40;

impl Registrar {
    /// Revokes a node with everything it has, or one certificate of it. Blocks.
    pub fn revoke(&self, node: &str, serial: Option<&str>, reason: &str) -> anyhow::Result<Json> {
        let node = NodeId::new(node)?;
        if reason.len() > REASON_BYTES_MAX {
            bail!("--reason has {} bytes; at most {REASON_BYTES_MAX} are kept", reason.len());
        }
        let serial = serial.map(normal_serial).transpose()?;
        let _changing = self.change();
        let registry = self.membership.current()?;
        if !registry.members().contains_key(&node) {
            bail!("{node} is not in this federation; 'creditsync node list' shows who is");
        }
        if node == *self.membership.me() && serial.is_none() {
            bail!(
                "{node} is this hub itself. For a stolen TLS certificate: creditsync cert renew, then \
                 creditsync revoke {node} --serial NUMBER. For a stolen signing key: creditsync cert renew \
                 --signing-key --stolen"
            );
        }
        if node == *self.membership.me() && serial.as_deref() == Some(&self.own_serial()?) {
            bail!("this is the certificate in use; first: creditsync cert renew");
        }
        if serial.is_none() {
            self.take_back_invites_of(&node)?;
        }
        if registry.revocation(&node, serial.as_deref()).is_some() {
            return Ok(json!({ "node": node, "serial": serial, "changed": false }));
        }
        let revocation = Revocation { at_ms: now_unix() * 1000, reason: reason.to_owned() };
        let record = Entry::Revocation(node.clone(), serial.clone(), revocation);
        let head = if serial.is_some() {
            self.commit(puts(&[record])?)?
        } else {
            // What its keys signed so far stays; what comes later does not count.
            self.with_key_suspended(&registry, &node, || {
                let mut entries = self.succession(&registry, &node, None, Ending::Stolen)?;
                entries.push(record);
                self.commit(puts(&entries)?)
            })?
        };
        tracing::warn!(%node, serial = serial.as_deref().unwrap_or("all"), "revoked");
        let seen = self.seen.get(&node);
        let in_use =
            seen.is_some_and(|seen| serial.as_deref().is_none_or(|serial| seen.serial == serial));
        Ok(json!({
            "node": node, "serial": serial, "changed": true, "in_use": in_use,
            "federation_seq": head.seq(),
        }))
    }

    /// Takes a node out of the federation. What it owned stays. Blocks.
    pub fn remove(&self, node: &str, force: bool) -> anyhow::Result<Json> {
        let node = NodeId::new(node)?;
        let _changing = self.change();
        let registry = self.membership.current()?;
        let Some(member) = registry.members().get(&node).cloned() else {
            bail!("{node} is not in this federation; 'creditsync node list' shows who is");
        };
        if member.role == Role::Hub {
            bail!("{node} is the hub; a federation without it is none");
        }
        if member.removed {
            self.take_back_invites_of(&node)?;
            return Ok(json!({ "node": node, "changed": false }));
        }
        if registry.revocation(&node, None).is_none() && !force {
            bail!(
                "{node} is not revoked, so its keys and certificates still count. First: creditsync revoke \
                 {node} (--force does without)"
            );
        }
        self.take_back_invites_of(&node)?;
        let head = self.with_key_suspended(&registry, &node, || {
            let mut entries = self.succession(&registry, &node, None, Ending::Routine)?;
            entries.push(Entry::Member(node.clone(), Member { removed: true, ..member.clone() }));
            self.commit(puts(&entries)?)
        })?;
        tracing::warn!(%node, "removed from the federation; its partitions stay");
        Ok(json!({ "node": node, "changed": true, "federation_seq": head.seq() }))
    }

    /// What was seen of a node last; null if it never came.
    pub(in crate::app) fn seen_json(&self, node: &NodeId) -> Json {
        let Some(seen) = self.seen.get(node) else {
            return Json::Null;
        };
        json!({
            "at": rfc3339(seen.at),
            "serial": seen.serial,
            "not_after": rfc3339(seen.not_after),
            "issuer": seen.issuer.map(|id| id.to_string()),
            "roots": seen.roots.iter().map(|id| id.to_string()).collect::<Vec<_>>(),
        })
    }

    /// Certificates of members as they were seen last, for `cert check`.
    pub(in crate::app) fn members_not_after(&self) -> anyhow::Result<Vec<(NodeId, String, i64)>> {
        let registry = self.membership.current()?;
        let active =
            registry.members().keys().filter(|node| registry.active_member(node).is_some());
        let seen = active.filter_map(|node| {
            self.seen.get(node).map(|seen| (node.clone(), seen.serial, seen.not_after))
        });
        Ok(seen.collect())
    }

    fn own_serial(&self) -> anyhow::Result<String> {
        let identity = Identity::new(self.membership.federation(), self.membership.me());
        let path = self.dir.certs().join(certs::credentials::NODE_CHAIN_FILE);
        let chain = certs::pem::load_chain(&path)?;
        let leaf = chain.first().with_context(|| format!("{identity} has no certificate"))?;
        Ok(certs::identity::facts(leaf)?.serial_hex)
    }
}

/// A serial number as `_federation` has it, from how tools print it.
fn normal_serial(text: &str) -> anyhow::Result<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
    let digits = digits.trim_start_matches("0x").to_ascii_lowercase();
    // As a certificate's number is read here: whole octets, none of them a zero
    // that only stands before.
    let octets = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
    let mut digits = octets.as_str();
    while let Some(rest) = digits.strip_prefix("00").filter(|rest| !rest.is_empty()) {
        digits = rest;
    }
    let digits = digits.to_owned();
    let good = (1..=SERIAL_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !good {
        bail!(
            "--serial {text}: write its hexadecimal digits, as 'creditsync node show' prints them"
        );
    }
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::normal_serial;

    #[test]
    fn serial_numbers_are_taken_as_tools_print_them() {
        assert_eq!(normal_serial("4A:01:ff").unwrap(), "4a01ff");
        assert_eq!(normal_serial("0x4a01").unwrap(), "4a01");
        assert_eq!(normal_serial("00:9A:01").unwrap(), "9a01");
        assert_eq!(normal_serial("a01").unwrap(), "0a01");
        assert_eq!(normal_serial("0").unwrap(), "00");
        for bad in ["", "0x", "4g", &"1".repeat(41)] {
            assert!(normal_serial(bad).is_err(), "{bad}");
        }
    }
}
