//! What was seen of members: when, which roots they trust, whose certificate
//! they showed, and which daemon they are.
//!
//! Kept in `certs/members.json`, because a rotation of authorities must not leave
//! anybody behind, also after a restart. Nothing here decides who may do what.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use anyhow::Context as _;
use certs::{keyfile, verify::VerifiedPeer};
use protocol::{
    federation::certificate_id, id::NodeId, message::Report, suite::checksum::Checksum,
};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

/// A node that was not seen for so long is not waited for: 30 days.
pub const WAITED_FOR_S: i64 = 30 * 24 * 3600;
/// Two daemons with one certificate are spoken of for a day after the last sign
/// of them.
const TWO_SAID_S: i64 = 24 * 3600;
/// Seeing a connected node again is written down this often.
const WRITE_EVERY_S: i64 = 3600;

/// A hub that saw nobody for a day was away, or has a wrong clock.
const AWAY_S: i64 = 24 * 3600;

/// One member as it was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMember {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The serial number of its certificate.
    pub serial: String,
    /// When that ends, in seconds since 1970.
    pub not_after: i64,
    /// The id of the issuing CA's certificate that it showed.
    pub issuer: Option<Checksum>,
    /// The ids of the roots that it trusts.
    pub roots: Vec<Checksum>,
    /// When two daemons were last seen to take turns with its certificate.
    #[serde(default)]
    two_at: Option<i64>,
    /// The daemon that was connected last, and the one before it.
    #[serde(skip)]
    instances: [Option<[u8; 8]>; 2],
}

impl SeenMember {
    fn are_two(&self, now: i64) -> bool {
        self.two_at.is_some_and(|at| now - at < TWO_SAID_S)
    }
}

/// Whether one daemon uses a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemons {
    /// As far as is known.
    One,
    /// Two take turns, and that is news.
    TwoNow,
    /// Two took turns within the last day.
    Two,
}

/// All members that were seen.
pub struct Seen {
    path: PathBuf,
    members: Mutex<BTreeMap<NodeId, SeenMember>>,
}

impl Seen {
    /// Reads the file, if there is one.
    pub fn load(path: PathBuf) -> anyhow::Result<Self> {
        let members = if path.exists() {
            let bytes = keyfile::read_list(&path)?;
            serde_json::from_slice(&bytes).with_context(|| {
                format!("{} is damaged; it can be deleted, and fills again", path.display())
            })?
        } else {
            BTreeMap::new()
        };
        Ok(Self { path, members: Mutex::new(members) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, SeenMember>> {
        self.members.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// What was seen of a member.
    pub fn get(&self, node: &NodeId) -> Option<SeenMember> {
        self.lock().get(node).cloned()
    }

    /// Whether all that were seen were seen long ago by this clock, or after now.
    pub fn is_stale(&self, now: i64) -> bool {
        let newest = self.lock().values().map(|member| member.at).max();
        newest.is_some_and(|newest| now.abs_diff(newest) > AWAY_S.unsigned_abs())
    }

    /// Notes a member's report. Two daemons take turns with its certificate if one
    /// that was replaced has come back, so that both are alive.
    pub fn report(
        &self,
        peer: &VerifiedPeer,
        report: Report,
        now: i64,
        may_write: bool,
    ) -> Daemons {
        let mut members = self.lock();
        let member = members.entry(peer.identity().node.clone()).or_default();
        let [current, before] = member.instances;
        let two = current != Some(report.instance) && before == Some(report.instance);
        if current != Some(report.instance) {
            member.instances = [Some(report.instance), current];
        }
        let before = SeenMember { at: now, ..member.clone() };
        let were_two = member.are_two(now);
        if two {
            member.two_at = Some(now);
        }
        let daemons = match (member.are_two(now), were_two) {
            (false, _) => Daemons::One,
            (true, false) => Daemons::TwoNow,
            (true, true) => Daemons::Two,
        };
        member.serial = peer.serial_hex().to_owned();
        member.not_after = peer.not_after().unix_timestamp();
        member.issuer = peer.issuer();
        member.roots = report.roots;
        let news = before != SeenMember { at: now, ..member.clone() };
        let due = now >= member.at + WRITE_EVERY_S;
        member.at = now;
        if may_write && (news || due) {
            self.write(&members);
        }
        daemons
    }

    /// A node has just joined: it has this certificate, trusts this root, and
    /// begins as one daemon.
    pub fn joined(
        &self,
        node: &NodeId,
        chain: &[CertificateDer<'_>],
        root: &CertificateDer<'_>,
        now: i64,
    ) {
        let Some(Ok(facts)) = chain.first().map(certs::identity::facts) else {
            return;
        };
        let mut members = self.lock();
        let member = members.entry(node.clone()).or_default();
        member.at = now;
        member.serial = facts.serial_hex;
        member.not_after = facts.not_after.unix_timestamp();
        member.issuer = chain.get(1).map(|issuer| certificate_id(issuer));
        member.roots = vec![certificate_id(root)];
        (member.two_at, member.instances) = (None, [None; 2]);
        self.write(&members);
    }

    /// These members are connected now.
    pub fn connected<'a>(&self, nodes: impl Iterator<Item = &'a NodeId>, now: i64) {
        let mut members = self.lock();
        let mut due = false;
        for node in nodes {
            if let Some(member) = members.get_mut(node) {
                // What is kept is at most an hour behind.
                if now >= member.at + WRITE_EVERY_S {
                    (member.at, due) = (now, true);
                }
            }
        }
        if due {
            self.write(&members);
        }
    }

    /// Members that were seen in the last 30 days, whose certificate is still good,
    /// and for which `behind` holds.
    pub fn behind(
        &self,
        now: i64,
        is_member: impl Fn(&NodeId) -> bool,
        behind: impl Fn(&NodeId, &SeenMember) -> bool,
    ) -> Vec<NodeId> {
        let members = self.lock();
        let late = |(node, member): &(&NodeId, &SeenMember)| {
            // Whose certificate has ended needs a token whatever happens here.
            let may_come = member.at > now - WAITED_FOR_S && member.not_after > now;
            may_come && is_member(node) && behind(node, member)
        };
        members.iter().filter(late).map(|(node, _)| node.clone()).collect()
    }

    /// What cannot be written is only a worse memory: it is not worth a
    /// connection.
    fn write(&self, members: &BTreeMap<NodeId, SeenMember>) {
        let written = serde_json::to_vec_pretty(members)
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(keyfile::replace_list(&self.path, &text)?));
        if let Err(error) = written {
            tracing::warn!(
                error = format!("{error:#}"),
                "what was seen of members could not be written down"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use certs::{
        authority::{Authority, CaDirs, Lifetimes, NodeKey},
        identity::Identity,
        keyfile::KeyDir,
        tls::ALPN,
        verify::verified_peer,
    };
    use protocol::id::FederationId;
    use protocol::suite::Suite;
    use time::{Duration, OffsetDateTime};

    use super::*;

    /// A county with a certificate of an authority in `dir`.
    fn county(dir: &std::path::Path) -> VerifiedPeer {
        let keys = KeyDir::new(dir.join("keys"), None);
        let dirs = CaDirs { certs: dir.join("certs"), keys: keys.clone(), root_keys: keys };
        let federation = FederationId::new("zhengzhou").unwrap();
        let identity = Identity::new(&federation, &NodeId::new("410122").unwrap());
        let now = OffsetDateTime::now_utc();
        let authority = Authority::create(&dirs, &federation, now, &Lifetimes::default()).unwrap();
        let csr = NodeKey::generate().unwrap().csr(&identity).unwrap();
        let chain = authority.issue(&identity, &csr, now, Duration::DAY).unwrap();
        verified_peer(Some(ALPN), Some(&chain), &federation).unwrap()
    }

    #[test]
    fn a_report_counts_although_it_is_not_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let (path, county) = (dir.path().join("members.json"), county(dir.path()));
        let seen = Seen::load(path.clone()).unwrap();
        let report = |root: u8| Report {
            instance: [1; 8],
            roots: vec![Checksum([root; 32])],
            signing_key: Suite::One.none(),
        };
        let of = |seen: &Seen| seen.get(&county.identity().node).map(|member| member.roots);
        let kept = || of(&Seen::load(path.clone()).unwrap());
        seen.report(&county, report(1), 1000, true);
        assert_eq!(
            (of(&seen), kept()),
            (Some(vec![Checksum([1; 32])]), Some(vec![Checksum([1; 32])]))
        );
        // A rotation waits for this one, which is sent once.
        seen.report(&county, report(2), 1001, false);
        assert_eq!(
            (of(&seen), kept()),
            (Some(vec![Checksum([2; 32])]), Some(vec![Checksum([1; 32])]))
        );
    }

    #[test]
    fn as_many_as_may_be_seen_are_there_after_a_restart() {
        const MANY: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let (path, county) = (dir.path().join("members.json"), county(dir.path()));
        let seen = Seen::load(path.clone()).unwrap();
        let roots = vec![Checksum([255; 32]); 2];
        for number in 1..MANY {
            let member = SeenMember { roots: roots.clone(), ..SeenMember::default() };
            seen.lock().insert(NodeId::new(&format!("county-{number}")).unwrap(), member);
        }
        let instance = [1; 8];
        seen.report(&county, Report { instance, roots, signing_key: Suite::One.none() }, 7, true);
        assert_eq!(Seen::load(path).unwrap().lock().len(), MANY);
    }

    #[test]
    fn two_daemons_are_those_that_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let county = county(dir.path());
        let seen = Seen::load(dir.path().join("members.json")).unwrap();
        let from = |instance: u8, now| {
            let report =
                Report { instance: [instance; 8], roots: vec![], signing_key: Suite::One.none() };
            seen.report(&county, report, now, true)
        };
        // A daemon that reports twice, and one that was restarted.
        assert_eq!([from(1, 1), from(1, 2), from(2, 3)], [Daemons::One; 3]);
        assert_eq!(from(1, 4), Daemons::TwoNow, "that was replaced, and is alive");
        assert_eq!([from(1, 5), from(2, 4 + TWO_SAID_S - 1)], [Daemons::Two; 2]);
        assert_eq!(from(2, 4 + 2 * TWO_SAID_S), Daemons::One, "nothing for a day");
    }

    #[test]
    fn a_hub_was_away_if_whom_it_saw_last_is_a_day_off_either_way() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Seen::load(dir.path().join("members.json")).unwrap();
        assert!(!seen.is_stale(0), "nobody was ever seen, so nobody is waited for");
        let at = 1_000_000;
        for (node, at) in [("410122", at), ("410181", at - 90 * AWAY_S)] {
            let member = SeenMember { at, ..SeenMember::default() };
            seen.lock().insert(NodeId::new(node).unwrap(), member);
        }
        for (now, stale) in [(0, false), (AWAY_S, false), (AWAY_S + 1, true), (-AWAY_S - 1, true)] {
            assert_eq!(seen.is_stale(at + now), stale, "{now} s later");
        }
    }
}
