//! What `cert show`, `cert check` and the status say about certificates and keys.

use certs::{
    bundle::root_id,
    credentials::Credentials,
    identity::{self, CertificateFacts},
    rotate,
};
use protocol::{
    federation::{CaKind, CaState, certificate_id},
    moment::rfc3339,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use super::{attention, node::Node, now_unix};

/// All certificates of this node: its own, those that lead to a root, and the
/// roots that it trusts.
pub(super) fn list(node: &Node) -> anyhow::Result<Vec<Json>> {
    let shown = node.keeper.shown();
    let foreign = node.keeper.is_foreign();
    let mut all = Vec::new();
    let own = |kind: &str, credentials: &Credentials, renews: bool| -> anyhow::Result<Vec<Json>> {
        let mut list = Vec::new();
        for (index, certificate) in credentials.chain.iter().enumerate() {
            let facts = identity::facts(certificate)?;
            let kind = if index == 0 { kind } else { "chain" };
            let mut item = describe(kind, certificate, &facts);
            if index == 0 {
                let renews_at =
                    renews.then(|| rfc3339(rotate::renew_at(&facts, u32::MAX).unix_timestamp()));
                item["renews_at"] = json!(renews_at);
                let chain: Vec<String> =
                    credentials.chain.iter().map(|cert| certificate_id(cert).to_string()).collect();
                item["chain"] = json!(chain);
                item["last_result"] = match node.keeper.last() {
                    None => Json::Null,
                    Some(last) => json!({
                        "at": rfc3339(last.at.unix_timestamp()),
                        "ok": last.problem.is_none(),
                        "problem": last.problem,
                    }),
                };
            }
            list.push(item);
        }
        Ok(list)
    };
    all.extend(own("node", &shown.replication, !foreign)?);
    if foreign && node.registrar.is_some() {
        all.extend(own("enrolment", &shown.federation, true)?);
    }
    for root in &shown.replication.roots {
        let mut item = describe("root", root, &identity::facts(root)?);
        item["id"] = json!(root_id(root).to_string());
        all.push(item);
    }
    Ok(all)
}

fn describe(kind: &str, certificate: &CertificateDer<'_>, facts: &CertificateFacts) -> Json {
    json!({
        "kind": kind,
        "identity": facts.identity.as_ref().map(|identity| identity.uri()),
        "serial": facts.serial_hex,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "key": facts.key_algorithm,
        "id": certificate_id(certificate).to_string(),
        "not_before": rfc3339(facts.not_before.unix_timestamp()),
        "not_after": rfc3339(facts.not_after.unix_timestamp()),
    })
}

/// This node's signing keys as `_federation` has them, the newest last.
pub(super) fn signing_keys(node: &Node, of: &protocol::id::NodeId) -> anyhow::Result<Vec<Json>> {
    let registry = node.membership.current()?;
    let keys = registry.keys(of).iter();
    let key = |known: &protocol::federation::KnownKey| {
        json!({
            "number": known.number,
            "public": known.record.public,
            "id": known.public.id().to_string(),
            "by": known.record.by,
            "at": rfc3339(known.record.at_ms / 1000),
            "last": known.record.last,
            "revoked": known.record.revoked,
        })
    };
    Ok(keys.map(key).collect())
}

/// `cert show`.
pub(super) fn show(node: &Node) -> anyhow::Result<Json> {
    let me = node.membership.me();
    let fresh = node.trustee.as_ref().and_then(|trustee| trustee.fresh_at_ms());
    Ok(json!({
        "node": me,
        "federation": node.identity.federation,
        "certificates": list(node)?,
        "signing_key": node.own_keys.current().public().id().to_string(),
        "signing_keys": signing_keys(node, me)?,
        "anchor_epoch": node.membership.anchor().epoch,
        "federation_fresh_at": fresh.map(|at_ms| rfc3339(at_ms / 1000)),
        "alarms": node.alarms.texts(),
    }))
}

/// `cert check`: what ends within `days`, and what is wrong anyway.
pub(super) fn check(node: &Node, days: u32) -> anyhow::Result<(Json, bool)> {
    let now = OffsetDateTime::now_utc();
    let mut ending = Vec::new();
    let mut add = |what: String, serial: &str, not_after: OffsetDateTime, advice: &str| {
        if rotate::ends_within(not_after, now, days) {
            ending.push(json!({
                "what": what,
                "serial": serial,
                "not_after": rfc3339(not_after.unix_timestamp()),
                "days_left": (not_after - now).whole_days(),
                "advice": advice,
            }));
        }
    };
    let shown = node.keeper.shown();
    let facts = shown.replication.facts()?;
    let advice = if node.keeper.is_foreign() {
        "replace the files that [tls] in creditsync.toml names; they are loaded when they change"
    } else if node.registrar.is_some() {
        "it should have renewed itself: see the log, and 'creditsync ca show'"
    } else {
        "it should have renewed itself: is the node running and connected? If it has ended: a new token \
         (creditsync invite at the hub, creditsync join here)"
    };
    add("this node's certificate".to_owned(), &facts.serial_hex, facts.not_after, advice);
    for root in &shown.replication.roots {
        let facts = identity::facts(root)?;
        let what = format!("the trusted root {}", facts.subject);
        add(what, &facts.serial_hex, facts.not_after, "at the hub: creditsync ca rotate --root");
    }
    if let Some(registrar) = &node.registrar {
        let registry = node.membership.current()?;
        for (number, known) in registry.cas(CaKind::Issuing) {
            if known.state == CaState::Active {
                let facts = identity::facts(&CertificateDer::from(known.certificate.clone()))?;
                let what = format!("issuing CA {number}");
                let advice =
                    "creditsync ca rotate (with the root key at hand it happens by itself)";
                add(what, &facts.serial_hex, facts.not_after, advice);
            }
        }
        for (member, serial, not_after) in registrar.members_not_after()? {
            let not_after = OffsetDateTime::from_unix_timestamp(not_after).unwrap_or(now);
            let what = format!("the certificate of {member}, as it was seen last");
            let advice = "is the node running and connected? If it has ended, it needs a new token";
            add(what, &serial, not_after, advice);
        }
    }
    if let Some(trustee) = &node.trustee {
        trustee.check_freshness(now_unix() * 1000);
    }
    let alarms = attention::alarms(node, &attention::peer_names(node)?)?;
    let well = ending.is_empty() && alarms.is_empty();
    Ok((json!({ "ok": well, "days": days, "ending": ending, "alarms": alarms }), !well))
}
