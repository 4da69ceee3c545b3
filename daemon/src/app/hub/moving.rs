//! `hub move`: the hub says ahead of time where it will be dialled, and who has heard.
//!
//! Members dial what `_federation` names, and the hub is proved by its certificate, in
//! which no address stands: so a move is one record, and the rest is waiting until
//! everybody has it. What was announced also goes into invitations, before `advertise`
//! in `creditsync.toml`. Invariant: nobody is said to have heard who has not
//! acknowledged the change set of the announcement.

use std::time::{Duration, Instant};

use anyhow::bail;
use certs::fault;
use protocol::{
    federation::{Entry, HubAddresses, Registry},
    id::NodeId,
    moment::rfc3339,
};
use serde_json::{Value as Json, json};

use super::{Registrar, puts, rotation::names};
use crate::app::now_unix;

/// How long members that are connected are waited for: they acknowledge within a
/// second, and who asks sits there.
const HEARD_MAX: Duration = Duration::from_secs(10);
/// How often is looked whether they have.
const HEARD_LOOK: Duration = Duration::from_millis(100);

/// Who has heard of an announcement, and who has not.
#[derive(Default)]
struct Heard {
    /// All members that may come, with whether they have heard.
    members: Vec<(NodeId, bool)>,
    /// Of those that have not, who was seen lately and has a certificate.
    waiting_for: Vec<NodeId>,
    /// The others of them.
    away: Vec<NodeId>,
}

impl Registrar {
    /// Announces that the hub is dialled at `addresses` from now on; without any says
    /// what was announced. Members that are connected are waited for, for
    /// [`HEARD_MAX`] at most; `connected` answers who they are. Answers also whether
    /// somebody is waited for. Blocks.
    pub(in crate::app) fn move_to(
        &self,
        addresses: &[String],
        connected: &dyn Fn() -> Vec<NodeId>,
    ) -> anyhow::Result<(Json, bool)> {
        check_addresses(addresses)?;
        let changed = !addresses.is_empty() && self.announce(addresses)?;
        let until = Instant::now() + HEARD_MAX;
        loop {
            let registry = self.membership.current()?;
            let Some(announced) = registry.hub_addresses() else {
                return Ok((self.never_announced()?, false));
            };
            let (heard, there) = (self.heard(&registry, announced), connected());
            let waits = heard.members.iter().any(|(node, has)| !has && there.contains(node));
            if waits && changed && Instant::now() < until {
                std::thread::sleep(HEARD_LOOK);
                continue;
            }
            let answer = self.moved(&registry, announced, &heard, (changed, &there))?;
            return Ok((answer, !heard.waiting_for.is_empty()));
        }
    }

    /// Writes the record, unless it says the same already. Answers whether it was
    /// written.
    fn announce(&self, addresses: &[String]) -> anyhow::Result<bool> {
        let _changing = self.change();
        self.refuse_restored()?;
        let registry = self.membership.current()?;
        if registry.hub_addresses().is_some_and(|known| known.addresses == addresses) {
            return Ok(false);
        }
        let head = self.store.head(self.membership.partition());
        // Nobody else writes `_federation` meanwhile.
        let since = head.map_or(0, |head| head.seq()) + 1;
        let record = HubAddresses { addresses: addresses.to_vec(), since };
        let entry = Entry::Address(self.membership.hub().clone(), record);
        let head = self.commit(puts(&[entry])?)?;
        fault::point("hub.moved");
        tracing::info!(
            addresses = addresses.join(", "),
            federation_seq = head.seq(),
            "the hub's addresses were announced"
        );
        Ok(true)
    }

    fn heard(&self, registry: &Registry, announced: &HubAddresses) -> Heard {
        let acks = self.store.acks(self.membership.partition());
        let has = |node: &NodeId| acks.get(node).is_some_and(|ack| ack.seq >= announced.since);
        let is_member =
            |node: &NodeId| node != self.membership.me() && registry.active_member(node).is_some();
        let members = registry.members().keys().filter(|node| is_member(node));
        let members: Vec<_> = members.map(|node| (node.clone(), has(node))).collect();
        let waiting_for = self.seen.behind(now_unix(), is_member, |node, _| !has(node));
        let late = members.iter().filter(|(_, has)| !has).map(|(node, _)| node);
        let away = late.filter(|node| !waiting_for.contains(node)).cloned().collect();
        Heard { members, waiting_for, away }
    }

    fn moved(
        &self,
        registry: &Registry,
        announced: &HubAddresses,
        heard: &Heard,
        (changed, connected): (bool, &[NodeId]),
    ) -> anyhow::Result<Json> {
        let member = |(node, has): &(NodeId, bool)| {
            json!({
                "node": node,
                "name": registry.members().get(node).map(|member| &member.name),
                "heard": has,
                "connected": connected.contains(node),
                "seen_at": self.seen.get(node).map(|seen| rfc3339(seen.at)),
            })
        };
        let invited = self.invited_before(announced.since)?;
        Ok(json!({
            "addresses": announced.addresses,
            "announced": true,
            "changed": changed,
            "federation_seq": announced.since,
            "members": heard.members.iter().map(member).collect::<Vec<_>>(),
            "waiting_for": heard.waiting_for,
            "away": heard.away,
            "invited_before": invited,
            "advertise_unused": !self.config.advertise.is_empty()
                && self.config.advertise != announced.addresses,
            "next": next_words(heard, &invited),
        }))
    }

    /// The answer of a hub that has announced nothing: what invitations carry.
    fn never_announced(&self) -> anyhow::Result<Json> {
        Ok(json!({
            "addresses": self.configured_addresses(),
            "announced": false,
            "changed": false,
            "federation_seq": null,
            "members": [],
            "waiting_for": [],
            "away": [],
            "invited_before": [],
            "advertise_unused": false,
            "next": "尚未公告地址：各成员使用其 creditsync.toml 中的地址。搬迁之前先公告新旧两个地址：creditsync hub move 旧地址 新地址 / \
                     nothing was announced: members dial what their creditsync.toml says. Before a move announce both \
                     addresses: creditsync hub move OLD NEW",
        }))
    }
}

/// What can be announced: every member has to be able to dial it.
pub fn check_addresses(addresses: &[String]) -> anyhow::Result<()> {
    if let Err(problem) = config::check_addresses(addresses) {
        bail!("地址不可用，未做任何更改 / nothing was announced: {problem}");
    }
    Ok(())
}

/// What a person has to do or to expect after an announcement.
fn next_words(heard: &Heard, invited: &[NodeId]) -> String {
    let Heard { waiting_for, away, .. } = heard;
    let mut words = match waiting_for.is_empty() {
        false => {
            let names = names(waiting_for);
            format!(
                "请保持旧地址可达，直到以下成员也获知（creditsync hub move 查看进度）：{names} / keep the old address reachable \
                 until these have heard as well (creditsync hub move shows it): {names}"
            )
        }
        true => "可以搬迁：近 30 天内出现过的成员均已获知。停用某个地址时，用 creditsync hub move 列出保留的地址 / the hub can move: every \
                 member that was seen in the last 30 days has heard. When an address is given up, name those that stay: \
                 creditsync hub move ADDRESS…"
            .to_owned(),
    };
    if !away.is_empty() {
        let names = names(away);
        words.push_str(&format!(
            "\n以下成员近 30 天未出现或证书已到期，尚未获知：{names}。旧地址停用后，在该节点的 creditsync.toml 中修改 [upstream] addresses \
             并重启，或用新令牌执行 creditsync join / these have not heard, and were not seen in the last 30 days or need \
             another certificate: {names}. Once the old address is gone, write the new one into [upstream] addresses of \
             creditsync.toml there and restart, or use a new token: creditsync join"
        ));
    }
    if !invited.is_empty() {
        let names = names(invited);
        words.push_str(&format!(
            "\n以下节点的令牌尚未使用，其中是此前的地址，停用后请重新邀请：{names} / these tokens were not used yet and name the \
             addresses from before; invite again once those are gone: {names}"
        ));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_dial_is_refused_in_words() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        check_addresses(&list(&[])).unwrap();
        check_addresses(&list(&["credit.example.org:7443", "[2001:db8::1]:7443"])).unwrap();
        let long = "a".repeat(10_000);
        for (wrong, words) in [
            (list(&["0.0.0.0:7443"]), "every address of a machine"),
            (list(&["credit.example.org"]), "no port"),
            (list(&["credit.example.org:0"]), "port from 1 to 65535"),
            (list(&["中心:7443"]), "'中心:7443' has no host name"),
            (list(&[&long]), "10000 bytes"),
            (list(&["a:1", "b:1", "a:1"]), "'a:1' stands twice"),
            (vec!["a:1".to_owned(); 100], "at most 8"),
        ] {
            let said = check_addresses(&wrong).unwrap_err().to_string();
            assert!(said.contains(words) && said.contains("地址不可用"), "{said}");
            assert!(said.len() < 300, "{} bytes", said.len());
        }
    }

    #[test]
    fn what_comes_next_names_who_has_not_heard() {
        let nodes = |names: &[&str]| -> Vec<NodeId> {
            names.iter().map(|name| NodeId::new(name).unwrap()).collect()
        };
        let heard = |waiting_for: &[&str], away: &[&str]| Heard {
            waiting_for: nodes(waiting_for),
            away: nodes(away),
            ..Heard::default()
        };
        let all = next_words(&heard(&[], &[]), &[]);
        assert!(all.contains("the hub can move") && !all.contains('\n'), "{all}");
        let some = next_words(&heard(&["410122", "410181"], &["410182"]), &nodes(&["410183"]));
        assert!(some.contains("as well (creditsync hub move shows it): 410122, 410181"), "{some}");
        let lines: Vec<&str> = some.lines().collect();
        assert!(lines[1].contains("410182. Once") && lines[2].ends_with(": 410183"), "{some}");
    }
}
