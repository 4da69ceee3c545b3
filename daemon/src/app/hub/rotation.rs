//! A rotation of authorities: how it is asked for, which step is next, and how a step
//! is answered.
//!
//! Used by [`super::ca`], which does the steps. Invariant: what comes next is read off
//! `_federation`, and every answer names who is waited for or locked out.

use std::path::Path;

use certs::{authority::CaRole, identity};
use protocol::{
    federation::{CaKind, CaState, KnownCa, Registry},
    id::NodeId,
};
use rustls::pki_types::CertificateDer;
use serde_json::{Value as Json, json};
use time::OffsetDateTime;

use crate::admin::Late;

/// A rotation as it is asked for.
pub(in crate::app) struct Rotation<'a> {
    /// The root too; it only matters at the beginning.
    pub root: bool,
    /// What becomes of nodes that have not followed.
    pub late: Late,
    /// Where the root's key is, if elsewhere than configured.
    pub root_keys: Option<&'a Path>,
}

impl Rotation<'_> {
    /// Whether this step may lock these nodes out.
    pub(super) fn may_lock_out(&self, step: &Step, late: &[NodeId]) -> bool {
        let agreed = match &self.late {
            Late::Wait | Late::Ask => false,
            Late::Agreed { to, nodes } => {
                to == step.name() && late.iter().all(|node| nodes.contains(node))
            }
            Late::LockOut => true,
        };
        agreed || late.is_empty()
    }
}

/// What a rotation has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is under way.
    Begin,
    /// This generation is known to all that matter, or will be.
    Activate { root: Option<u32>, issuing: u32 },
    /// These generations have successors.
    Retire { root: Option<u32>, issuing: Option<u32> },
}

impl Step {
    /// As `ca show` names it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Step::Begin => "none",
            Step::Activate { .. } => "activate",
            Step::Retire { .. } => "retire",
        }
    }
}

/// Reads off `_federation` what a rotation has to do next.
pub(super) fn next_step(registry: &Registry) -> Step {
    let find = |kind, state| {
        let mut all = registry.cas(kind);
        all.find(|(_, known)| known.state == state).map(|(number, _)| number)
    };
    if let Some(issuing) = find(CaKind::Issuing, CaState::Next) {
        return Step::Activate { root: find(CaKind::Root, CaState::Next), issuing };
    }
    let root = find(CaKind::Root, CaState::Retiring);
    let issuing = find(CaKind::Issuing, CaState::Retiring);
    match (root, issuing) {
        (None, None) => Step::Begin,
        _ => Step::Retire { root, issuing },
    }
}

/// The answer of a step that was done; `then` comes after it.
pub(super) fn done(
    step: &Step,
    root: Option<u32>,
    issuing: Option<u32>,
    seq: u64,
    then: &Step,
) -> Json {
    let name = match step {
        Step::Begin => "prepared",
        Step::Activate { .. } => "activated",
        Step::Retire { .. } => "retired",
    };
    json!({
        "step": name,
        "root": root,
        "issuing": issuing,
        "federation_seq": seq,
        "waiting_for": [],
        "locked_out": [],
        "next": next_words(step, then, &[]),
    })
}

/// What a person has to do or to expect after a step that locked these nodes out.
pub(super) fn next_words(step: &Step, then: &Step, locked_out: &[NodeId]) -> String {
    let (next, next_zh) = match (then, step) {
        (Step::Activate { .. }, _) => (
            "activate, once every node that was seen in the last 30 days knows the new authority; a running hub does \
             it by itself"
                .to_owned(),
            "近 30 天内出现过的节点都获知新机构后启用，运行中的市中心会自动进行".to_owned(),
        ),
        (Step::Retire { .. }, _) => (
            "retire the old authority, once every node that was seen in the last 30 days has a certificate of the new \
             one; nodes renew and a running hub goes on by themselves"
                .to_owned(),
            "近 30 天内出现过的节点都换用新证书后停用旧机构，会自动进行".to_owned(),
        ),
        (Step::Begin, Step::Retire { root: Some(root), .. }) => {
            let key = CaRole::Root.key_file(*root);
            (
                format!("nothing; the key of the retired root ({key}) signs nothing any more: destroy its copies"),
                format!("已完成；旧根的密钥（{key}）不再使用，请销毁其副本"),
            )
        }
        (Step::Begin, _) => ("nothing".to_owned(), "已完成".to_owned()),
    };
    if locked_out.is_empty() {
        return format!("{next} / {next_zh}");
    }
    let names = names(locked_out);
    format!(
        "a new token for each of {names}: creditsync invite ID here, then creditsync join there. After that: {next} / \
         {names} 各需一个新令牌：在此执行 creditsync invite 节点标识，再到该节点执行 creditsync join。之后：{next_zh}"
    )
}

/// The answer of a step that was not done.
pub(super) fn waiting(step: &Step, late: &[NodeId], connected: &[NodeId]) -> Json {
    let there: Vec<&NodeId> = late.iter().filter(|node| connected.contains(node)).collect();
    let next = match step {
        Step::Activate { .. } => {
            "with --force the new authority is used now: these nodes may not be able to verify the hub, and then need \
             a new token each (creditsync invite ID) / 加 --force 立即启用新机构：上述节点可能无法验证市中心，届时各需一个新令牌"
        }
        Step::Begin | Step::Retire { .. } => {
            "with --force the old authority ends now: the certificates of these nodes count no more, and they need a \
             new token each (creditsync invite ID) / 加 --force 立即停用旧机构：上述节点的证书随即失效，各需一个新令牌"
        }
    };
    json!({ "step": "waiting", "to": step.name(), "waiting_for": late, "connected": there, "next": next })
}

/// Whether the issuing CA in use begins after now: a clock was ahead when it was made.
pub(super) fn early_authority(registry: &Registry, now: OffsetDateTime) -> bool {
    let active = registry.active_ca(CaKind::Issuing);
    let facts = active.and_then(|(_, known)| identity::facts(&certificate(known)).ok());
    facts.is_some_and(|facts| now < facts.not_before)
}

pub(super) fn names(nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeId::as_str).collect();
    names.join(", ")
}

/// An authority's certificate.
pub(super) fn certificate(known: &KnownCa) -> CertificateDer<'static> {
    CertificateDer::from(known.certificate.clone())
}
