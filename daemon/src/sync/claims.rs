//! What a peer says that it holds of this node's own history.
//!
//! Used by [`super::connection`], [`super::follow`] and the store, which asks before
//! the first own change set after a start. At a county the peer is the hub, at the hub
//! each member, of which any may be the one that holds most. A claim alone is worth
//! nothing: whoever answers under a peer's name can say any number. Invariant: only a
//! header that this node's own key signed stops its writes; a claim delays the first of
//! them, and for a bounded time. Not here: the proof ([`super::follow`]), and what `_federation`
//! says of the same (`app::own_history`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use protocol::{
    federation::DATASETS_MAX,
    id::{NodeId, PartitionId},
};

use super::asking::TakingBack;

/// A claim delays the first own change set at most so long: two round trips, a look
/// at the disk, and a reserve for a hub that is busy.
const ASKED_MAX: Duration = Duration::from_secs(10);
/// After its start a daemon waits so long for what the hub says, before it writes: a
/// connection needs less, and a county that is offline has to work.
const FIRST_WORD_MAX: Duration = Duration::from_secs(2);
/// The same at a hub: members dial it again after some seconds.
const MEMBERS_WORD_MAX: Duration = Duration::from_secs(5);
/// Proofs that are asked for at once: each is a tree stream, of which a peer serves
/// four.
const PROOFS_MAX: usize = 2;
/// Own partitions of unknown datasets that are kept in mind for each peer: as many as a
/// catalogue has datasets. A peer may name more than there are.
const UNKNOWN_MAX: usize = DATASETS_MAX;

/// How far a claim is known to be true.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The proof was asked for.
    Asked(Instant),
    /// There is a header with this number that this node has signed.
    Proven(u64),
    /// What came instead of a proof.
    Unproven(String),
    /// Nothing came in time. Writes wait no longer; whoever has to know what others hold
    /// still does not.
    Unanswered,
}

#[derive(Debug, Clone)]
struct Claim {
    theirs: u64,
    ours: u64,
    state: State,
}

/// All claims that are open.
pub struct Claims {
    inner: Mutex<Inner>,
    moved: Condvar,
    /// Whose turn it is to ask for a proof.
    pub(super) turn: tokio::sync::Semaphore,
    /// Whose turn it is to take own history back: from one peer at a time.
    pub(super) taking_back: TakingBack,
}

#[derive(Default)]
struct Inner {
    claims: BTreeMap<(PartitionId, NodeId), Claim>,
    /// Own partitions that were written since the start: what comes after that can
    /// not be made undone by waiting.
    written: BTreeSet<PartitionId>,
    first_word_until: Option<Instant>,
    /// Own partitions of unknown datasets that a peer says it holds, and up to which number.
    unknown: BTreeMap<NodeId, BTreeMap<PartitionId, u64>>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            moved: Condvar::new(),
            turn: tokio::sync::Semaphore::new(PROOFS_MAX),
            taking_back: TakingBack::default(),
        }
    }
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Everything done under the lock is an assignment.
        self.inner.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// The hub is about to be dialled for the first time; or at the hub, members that
    /// dial it are about to come.
    pub fn expect_word(&self, is_hub: bool) {
        let longest = if is_hub { MEMBERS_WORD_MAX } else { FIRST_WORD_MAX };
        self.lock().first_word_until = Some(Instant::now() + longest);
    }

    /// A peer has said what it holds, or the hub is not there.
    pub(super) fn word_is_here(&self) {
        self.lock().first_word_until = None;
        self.moved.notify_all();
    }

    /// A peer says that it holds more of an own partition than this node. Answers
    /// whether that is news.
    pub(super) fn note(
        &self,
        partition: &PartitionId,
        peer: &NodeId,
        theirs: u64,
        ours: u64,
    ) -> bool {
        let mut inner = self.lock();
        inner.is_known(partition, peer);
        let by = (partition.clone(), peer.clone());
        if let Some(known) = inner.claims.get_mut(&by) {
            // Proven or not: the follow stream asks again for each.
            let is_news = known.theirs != theirs;
            (known.theirs, known.ours) = (theirs, ours);
            if let State::Proven(seq) = known.state
                && seq <= ours
            {
                known.state = State::Unproven(format!("above number {seq}"));
            }
            return is_news;
        }
        let state = State::Asked(Instant::now());
        inner.claims.insert(by, Claim { theirs, ours, state });
        true
    }

    fn settle(&self, partition: &PartitionId, peer: &NodeId, state: State) -> bool {
        let mut inner = self.lock();
        let by = (partition.clone(), peer.clone());
        let Some(claim) = inner.claims.get_mut(&by) else {
            return false;
        };
        let is_news = claim.state != state;
        claim.state = state;
        self.moved.notify_all();
        is_news
    }

    /// This node has signed number `seq`, and a peer holds it.
    pub(super) fn proven(&self, partition: &PartitionId, peer: &NodeId, seq: u64) -> bool {
        self.settle(partition, peer, State::Proven(seq))
    }

    /// No proof came, for this reason. Answers whether that is news.
    pub(super) fn unproven(&self, partition: &PartitionId, peer: &NodeId, reason: String) -> bool {
        self.lock().is_known(partition, peer);
        self.settle(partition, peer, State::Unproven(reason))
    }

    /// Nothing came in time. Answers whether that is news.
    pub(super) fn unanswered(&self, partition: &PartitionId, peer: &NodeId) -> bool {
        self.settle(partition, peer, State::Unanswered)
    }

    /// A peer holds no more than this node, or nothing that counts. Answers whether that is
    /// news.
    pub fn clear(&self, partition: &PartitionId, peer: &NodeId) -> bool {
        let by = (partition.clone(), peer.clone());
        let is_news = {
            let mut inner = self.lock();
            let was_unknown = inner.is_known(partition, peer);
            inner.claims.remove(&by).is_some() || was_unknown
        };
        if is_news {
            self.moved.notify_all();
        }
        is_news
    }

    /// Whether a peer says that it holds more of an own partition than `held`, and has proven
    /// it or is asked to.
    pub fn is_open(&self, partition: &PartitionId, held: u64) -> bool {
        let inner = self.lock();
        let mut claims = inner.of(partition).map(|(_, claim)| claim);
        claims.any(|claim| claim.is_open(held))
    }

    /// Own partitions of which a peer has proven that it holds more than `held`, and the
    /// number.
    pub fn proven_beyond(&self, held: impl Fn(&PartitionId) -> u64) -> BTreeMap<PartitionId, u64> {
        let inner = self.lock();
        let mut beyond = BTreeMap::new();
        for ((partition, _), claim) in &inner.claims {
            if let State::Proven(seq) = claim.state
                && seq > held(partition)
            {
                let known = beyond.entry(partition.clone()).or_insert(seq);
                *known = seq.max(*known);
            }
        }
        beyond
    }

    /// Whether anything is claimed that is not here, with `held` for the number up to which
    /// an own partition is, and was not shown to be wrong. `may_be` says whether there can be
    /// a partition of a dataset that was unknown when it was claimed.
    pub fn any_open(
        &self,
        held: impl Fn(&PartitionId) -> u64,
        may_be: impl Fn(&PartitionId) -> bool,
    ) -> bool {
        let inner = self.lock();
        let mut claims = inner.claims.iter();
        let mut unknown = inner.unknown.values().flat_map(BTreeMap::keys);
        unknown.any(may_be) || claims.any(|((partition, _), claim)| claim.is_open(held(partition)))
    }

    /// A peer says that it holds an own partition, up to `theirs`, of a dataset that the
    /// list of members here does not have, or not yet.
    pub(super) fn note_unknown(&self, partition: &PartitionId, peer: &NodeId, theirs: u64) {
        let mut inner = self.lock();
        let of_peer = inner.unknown.entry(peer.clone()).or_default();
        if of_peer.len() < UNKNOWN_MAX || of_peer.contains_key(partition) {
            of_peer.insert(partition.clone(), theirs);
        }
    }

    /// What was judged by another list of members counts no more: claims without a
    /// proof wait for the next answer, which their follow streams ask for.
    pub fn ask_again(&self) {
        for claim in self.lock().claims.values_mut() {
            if let State::Unproven(_) | State::Unanswered = claim.state {
                claim.state = State::Asked(Instant::now());
            }
        }
    }

    /// Waits until it is known whether the hub holds more of an own partition, if
    /// nothing was written to it since the start. Answers the number that it was
    /// proven to hold, if that is above `held`: what was about to be written is out of date
    /// then. Blocks.
    pub fn before_write(
        &self,
        partition: &PartitionId,
        held: impl Fn(&PartitionId) -> u64,
    ) -> Option<u64> {
        let longest = Instant::now() + ASKED_MAX;
        let mut inner = self.lock();
        loop {
            if inner.written.contains(partition) {
                return None;
            }
            let telling = inner.most_telling(partition, held(partition));
            let until = match telling.map(|(_, claim)| claim.state.clone()) {
                Some(State::Proven(seq)) => return Some(seq),
                Some(State::Asked(since)) => Some(since + ASKED_MAX),
                Some(State::Unproven(_) | State::Unanswered) => None,
                None => inner.first_word_until,
            };
            let left =
                until.map(|until| until.min(longest).saturating_duration_since(Instant::now()));
            match left.filter(|left| !left.is_zero()) {
                Some(left) => {
                    let waited = self.moved.wait_timeout(inner, left);
                    inner = waited.unwrap_or_else(|error| error.into_inner()).0;
                }
                None => {
                    inner.written.insert(partition.clone());
                    return None;
                }
            }
        }
    }

    /// What a person has to know of claims that are open, with `held` for the number up to
    /// which an own partition is here.
    pub fn alarms(&self, held: impl Fn(&PartitionId) -> u64) -> Vec<String> {
        let inner = self.lock();
        let partitions: BTreeSet<_> = inner.claims.keys().map(|(partition, _)| partition).collect();
        let alarm = |partition: &PartitionId| {
            let (peer, claim) = inner.most_telling(partition, held(partition))?;
            Some(claim.alarm(partition, peer))
        };
        let unknown = inner.unknown.iter().filter_map(|(peer, claimed)| {
            let (partition, theirs) = claimed.first_key_value()?;
            Some(unknown_alarm(peer, partition, *theirs, claimed.len()))
        });
        partitions.into_iter().filter_map(alarm).chain(unknown).collect()
    }
}

/// One line for a peer, however many it names.
fn unknown_alarm(peer: &NodeId, partition: &PartitionId, theirs: u64, count: usize) -> String {
    let (more_zh, more_en) = match count - 1 {
        0 => (String::new(), String::new()),
        more => (format!("（另有 {more} 个）"), format!(", and {more} more")),
    };
    format!(
        "{peer} says that it holds {partition}{more_en}, which would be this node's own, up to number {theirs}, of a          dataset that the list of members here does not have. If the list is being taken back, it comes with that;          else nothing is done about it: call those who run {peer} / {peer} 称持有本节点的 {partition}{more_zh}（第 {theirs}          号），而本机名册没有该数据集：若名册正在取回，之后会自动处理；否则不作处理，请联系 {peer} 核实"
    )
}

impl Inner {
    /// The dataset is known by now, or nothing of it is claimed any more. Answers whether it
    /// was not known before.
    fn is_known(&mut self, partition: &PartitionId, peer: &NodeId) -> bool {
        let Some(of_peer) = self.unknown.get_mut(peer) else { return false };
        let was_unknown = of_peer.remove(partition).is_some();
        if of_peer.is_empty() {
            self.unknown.remove(peer);
        }
        was_unknown
    }

    fn of(&self, partition: &PartitionId) -> impl Iterator<Item = (&NodeId, &Claim)> {
        let of_it = self.claims.iter().filter(move |((of, _), _)| of == partition);
        of_it.map(|((_, peer), claim)| (peer, claim))
    }

    /// Of what is above the number that is held: what is proven, before what is asked for,
    /// before what nobody has proven; and of these the highest number.
    fn most_telling(&self, partition: &PartitionId, held: u64) -> Option<(&NodeId, &Claim)> {
        let rank = |claim: &Claim| match claim.state {
            State::Proven(seq) => (2, seq),
            State::Asked(_) => (1, claim.theirs),
            State::Unproven(_) | State::Unanswered => (0, claim.theirs),
        };
        let above = self.of(partition).filter(|(_, claim)| claim.number() > held);
        above.max_by_key(|(_, claim)| rank(claim))
    }
}

impl Claim {
    /// The number up to which the peer holds the partition, as far as is known.
    fn number(&self) -> u64 {
        match self.state {
            State::Proven(seq) => seq,
            _ => self.theirs,
        }
    }

    /// Whether it is of more than `held`, and was not shown to be wrong.
    fn is_open(&self, held: u64) -> bool {
        !matches!(self.state, State::Unproven(_)) && self.number() > held
    }

    fn alarm(&self, partition: &PartitionId, peer: &NodeId) -> String {
        let Self { theirs, ours, .. } = self;
        let unproven = |reason: &str| {
            format!(
                "{peer} says that it holds {partition}, which is this node's own, up to number {theirs}, and here it \
                 ends at number {ours}; but it shows nothing that this node has signed ({reason}). This node goes on \
                 writing. Whoever answers under that name may be somebody else: call those who run it / {peer} 称持有更新的\
                 记录（第 {theirs} 号，本机为第 {ours} 号），但未出示本节点的签名；本节点继续写入，请联系对方核实"
            )
        };
        match &self.state {
            State::Proven(seq) => format!(
                "{peer} holds {partition}, which is this node's own, up to number {seq}, signed by this node, and here \
                 it ends at number {ours}: this directory was restored from an older state, or a copy of it writes \
                 elsewhere. It is being taken back by itself, and nothing is written to it until then / \
                 {peer} 持有本节点签名的更新记录（第 {seq} 号，本机为第 {ours} 号）：本目录可能是从旧备份恢复的，正在自动取回，\
                 取回之前暂停写入"
            ),
            State::Asked(_) => format!(
                "{peer} says that it holds {partition}, which is this node's own, up to number {theirs}, and here it \
                 ends at number {ours}. It was asked for the proof and has not shown it / {peer} 称持有更新的记录\
                 （第 {theirs} 号，本机为第 {ours} 号），正在等待其出示签名证明"
            ),
            State::Unproven(reason) => unproven(reason),
            State::Unanswered => unproven("it does not answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn partition() -> PartitionId {
        PartitionId::parse_full("zhengzhou/enterprise/410122/*").unwrap()
    }

    fn hub() -> NodeId {
        NodeId::new("410100").unwrap()
    }

    /// What a first write is answered that begins before `then`.
    fn answer(claims: &Arc<Claims>, then: impl FnOnce(&Claims)) -> Option<u64> {
        let writing = claims.clone();
        let write = std::thread::spawn(move || writing.before_write(&partition(), |_| 3));
        then(claims);
        write.join().unwrap()
    }

    #[test]
    fn the_first_write_waits_for_the_proof_and_no_later_one_does() {
        let claims = Arc::new(Claims::default());
        assert!(claims.note(&partition(), &hub(), 7, 3));
        assert_eq!(
            answer(&claims, |claims| assert!(claims.proven(&partition(), &hub(), 7))),
            Some(7)
        );
        assert_eq!(claims.before_write(&partition(), |_| 3), Some(7), "until it is back");
        assert!(claims.alarms(|_| 3)[0].contains("restored"));
        assert_eq!(claims.alarms(|_| 7), [""; 0], "what was proven is here");
        assert!(!claims.is_open(&partition(), 7) && claims.proven_beyond(|_| 7).is_empty());
        claims.note(&partition(), &hub(), 9, 7);
        assert!(claims.alarms(|_| 7)[0].contains("above number 7"), "and no more than that");
        claims.clear(&partition(), &hub());
        assert_eq!(claims.before_write(&partition(), |_| 3), None);
        assert_eq!(claims.alarms(|_| 3), [""; 0]);
        // From now on a claim delays nothing.
        claims.note(&partition(), &hub(), 1000, 8);
        assert_eq!(claims.before_write(&partition(), |_| 3), None);
        assert_eq!(claims.alarms(|_| 3).len(), 1);
    }

    #[test]
    fn a_claim_without_a_proof_lets_everything_pass_and_is_told_of() {
        let claims = Arc::new(Claims::default());
        claims.note(&partition(), &hub(), 1000, 0);
        let unproven =
            |claims: &Claims| assert!(claims.unproven(&partition(), &hub(), "nothing came".into()));
        assert_eq!(answer(&claims, unproven), None);
        assert!(claims.alarms(|_| 3)[0].contains("nothing came"), "{:?}", claims.alarms(|_| 3));
        assert!(!claims.note(&partition(), &hub(), 1000, 0), "the same again is no news");
        assert!(claims.note(&partition(), &hub(), 1001, 0));
    }

    #[test]
    fn what_another_list_of_members_has_judged_is_asked_again() {
        let claims = Claims::default();
        let is = |open, proven| {
            let is_proven =
                claims.alarms(|_| 3).iter().any(|alarm| alarm.contains("signed by this node"));
            assert_eq!((claims.is_open(&partition(), 3), is_proven), (open, proven));
        };
        is(false, false);
        claims.note(&partition(), &hub(), 7, 3);
        is(true, false);
        claims.unproven(&partition(), &hub(), "an unknown key".into());
        is(false, false);
        claims.ask_again();
        is(true, false);
        claims.proven(&partition(), &hub(), 7);
        claims.ask_again();
        is(true, true);
        assert!(claims.clear(&partition(), &hub()));
        assert!(!claims.clear(&partition(), &hub()), "that is no news");
        is(false, false);
    }

    #[test]
    fn of_several_peers_the_one_that_has_proven_most_counts() {
        let claims = Claims::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| NodeId::new(name).unwrap());
        claims.note(&partition(), &a, 9, 3);
        claims.note(&partition(), &b, 7, 3);
        claims.note(&partition(), &c, 1000, 3);
        claims.unproven(&partition(), &c, "nothing came".into());
        claims.proven(&partition(), &b, 7);
        claims.proven(&partition(), &a, 9);
        assert_eq!(claims.proven_beyond(|_| 3), [(partition(), 9)].into());
        assert_eq!(claims.before_write(&partition(), |_| 3), Some(9));
        assert_eq!(claims.alarms(|_| 3).len(), 1);
        assert!(claims.alarms(|_| 3)[0].starts_with("a holds"), "{:?}", claims.alarms(|_| 3));
        // One that holds no more says nothing of the others.
        assert!(claims.clear(&partition(), &a));
        assert_eq!(claims.before_write(&partition(), |_| 3), Some(7));
        assert!(claims.clear(&partition(), &b));
        assert!(claims.alarms(|_| 3)[0].starts_with("c says"), "{:?}", claims.alarms(|_| 3));
        assert_eq!(claims.before_write(&partition(), |_| 3), None);
    }

    #[test]
    fn a_claim_is_open_until_it_is_settled_also_of_a_dataset_that_is_not_known_yet() {
        let claims = Claims::default();
        let is = |open| assert_eq!(claims.any_open(|_| 3, |_| true), open);
        is(false);
        claims.note(&partition(), &hub(), 7, 3);
        is(true);
        claims.proven(&partition(), &hub(), 7);
        is(true);
        assert!(claims.clear(&partition(), &hub()), "it is back");
        is(false);
        claims.note(&partition(), &hub(), 9, 7);
        claims.unproven(&partition(), &hub(), "nothing came".into());
        is(false);
        claims.clear(&partition(), &hub());
        claims.note_unknown(&partition(), &hub(), 9);
        is(true);
        assert!(!claims.any_open(|_| 3, |_| false), "there is no such dataset");
        assert!(
            claims.alarms(|_| 3)[0].contains("which would be this node's own"),
            "{:?}",
            claims.alarms(|_| 3)
        );
        assert!(claims.clear(&partition(), &hub()), "that is news to who waits for it");
        is(false);
        claims.note_unknown(&partition(), &hub(), 9);
        claims.note(&partition(), &hub(), 9, 7);
        claims.unproven(&partition(), &hub(), "nothing came".into());
        is(false);
        // However many a peer names.
        for number in 0..2 * UNKNOWN_MAX {
            let name = format!("zhengzhou/d{number}/410122/*");
            claims.note_unknown(&PartitionId::parse_full(&name).unwrap(), &hub(), 1);
        }
        assert_eq!(claims.lock().unknown[&hub()].len(), UNKNOWN_MAX);
        let other = NodeId::new("410122").unwrap();
        claims.note_unknown(&partition(), &other, 1);
        assert!(
            claims.lock().unknown[&other].contains_key(&partition()),
            "one pushes out no other"
        );
        assert_eq!(
            claims.alarms(|_| 3).iter().filter(|alarm| alarm.contains("would be")).count(),
            2
        );
    }

    #[test]
    fn a_claim_of_which_nobody_answers_is_open_and_holds_no_write_up() {
        let claims = Claims::default();
        claims.note(&partition(), &hub(), 7, 3);
        assert!(claims.unanswered(&partition(), &hub()));
        assert_eq!(claims.before_write(&partition(), |_| 3), None);
        assert!(claims.is_open(&partition(), 3) && claims.any_open(|_| 3, |_| true));
        assert!(!claims.any_open(|_| 7, |_| true), "what is here by now is not missing");
        assert!(
            claims.alarms(|_| 3)[0].contains("it does not answer"),
            "{:?}",
            claims.alarms(|_| 3)
        );
    }

    #[test]
    fn claims_that_come_and_go_keep_a_write_no_longer_than_one() {
        let claims = Arc::new(Claims::default());
        let peers = ["a", "b"].map(|name| NodeId::new(name).unwrap());
        claims.note(&partition(), &peers[0], 7, 3);
        let writing = claims.clone();
        let write = std::thread::spawn(move || writing.before_write(&partition(), |_| 3));
        // One of them is always asked, and never for long.
        for turn in 0.. {
            if write.is_finished() {
                break;
            }
            claims.note(&partition(), &peers[(turn + 1) % 2], 7, 3);
            claims.clear(&partition(), &peers[turn % 2]);
            std::thread::yield_now();
        }
        assert_eq!(write.join().unwrap(), None);
    }

    #[test]
    fn a_daemon_that_has_just_started_hears_the_hub_first() {
        let claims = Arc::new(Claims::default());
        claims.expect_word(false);
        let word = |claims: &Claims| {
            claims.note(&partition(), &hub(), 7, 3);
            claims.word_is_here();
            claims.proven(&partition(), &hub(), 7);
        };
        assert_eq!(answer(&claims, word), Some(7));
    }
}
