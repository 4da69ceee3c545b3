//! The session machines in virtual time: many random federations (`simulation/seeds.rs`),
//! and here single scenarios that need a particular message at a particular moment.

use std::time::Duration;

use harness::sim::{
    cast::HUB,
    pair::{Fetched, ORIGIN, Pair},
    store::{CommitError, as_many_as_fit},
};
use protocol::{
    change::{Change, ChangeSet, Position, SignedHeader},
    hash::Hash,
    message::{
        Announced, CloseCode, Control, FollowReply, FollowRequest, Hello, PAGE_PART_BYTES_MAX,
        PAGES_MAX, PROTOCOL_VERSION, TreeReply,
    },
    page::{Leaf, MadePage, RawLeaf, decode_inner, make_inner},
    session::{
        PeerMisbehaved,
        follower::{Follower, FollowerAction},
        link::{FollowEnd, Link, LinkAction, SILENCE_MAX, Timing},
        provider::{Provider, ProviderAction, WINDOW_BYTES, WINDOW_CHANGE_SETS},
    },
    suite::Suite,
};

mod simulation {
    mod seeds;
}

#[test]
fn an_interrupted_fetch_never_asks_again_for_leaves_that_it_holds() {
    let mut pair = Pair::new();
    pair.write(12, 40);
    let whole = pair.clone().fetch(usize::MAX);
    assert!(whole.finished && pair.state().tree.levels() >= 3, "{whole:?}");
    for lost_after in 0..whole.messages {
        let mut pair = pair.clone();
        let first = pair.fetch(lost_after);
        assert!(!first.finished && pair.replica.position(&pair.partition).is_none());
        let second = pair.fetch(usize::MAX);
        let expected = Fetched {
            messages: whole.messages - first.leaves_arrived,
            leaves_asked: whole.leaves_asked - first.leaves_arrived,
            leaves_arrived: whole.leaves_asked - first.leaves_arrived,
            leaves_ahead: second.leaves_ahead,
            finished: true,
        };
        assert_eq!(second, expected, "lost after {lost_after}");
        let replica = pair.replica.partition(&pair.partition).unwrap();
        assert_eq!(replica.records, pair.state().records);
    }
}

#[test]
fn a_fetch_that_is_always_interrupted_gets_done_though_the_origin_goes_on() {
    let mut pair = Pair::new();
    pair.write(12, 40);
    let whole = pair.clone().fetch(usize::MAX);
    // Each stream carries what lies above the leaves and three of these.
    let each = whole.messages - whole.leaves_asked + 3;
    let mut streams = 0;
    while !pair.fetch(each).finished {
        streams += 1;
        pair.write(1, 1);
        assert!(streams < whole.leaves_asked, "{streams} streams did not suffice");
    }
    let replica = pair.replica.partition(&pair.partition).unwrap();
    assert_eq!(replica.records, pair.state().records);
    assert_eq!(replica.position(), pair.state().position());
}

#[test]
fn leaves_of_a_large_tree_are_asked_for_in_bounded_batches() {
    let mut pair = Pair::new();
    let many = |first: u32| -> Vec<Change> {
        (first..first + 10_000)
            .map(|n| Change::Put { key: n.to_be_bytes().to_vec(), value: vec![1] })
            .collect()
    };
    (0..8).for_each(|n| pair.write_changes(&many(n * 10_000)));
    let fetched = pair.fetch(usize::MAX);
    assert!(fetched.finished && fetched.leaves_asked > 2 * PAGES_MAX, "{fetched:?}");
    assert!(fetched.leaves_ahead <= 2 * PAGES_MAX, "{fetched:?}");
}

/// What a follower at the origin's first change set makes of a reply.
fn followed(pair: &Pair, replies: impl IntoIterator<Item = FollowReply>) -> Result<(), CloseCode> {
    let have = pair.replica.position(&pair.partition);
    let mut follower = Follower::new(pair.partition.clone(), have);
    let mut answer = Ok(());
    let mut commits = 0;
    for reply in replies {
        answer = follower.handle_message(reply, &*pair.replica.registry);
        if answer.is_err() {
            break;
        }
        commits += 1;
    }
    // Only what came before the mistake may be committed.
    assert_eq!(std::iter::from_fn(|| follower.poll_action()).count(), commits);
    answer.map_err(|error| error.code())
}

/// Where a header begins behind its suite and its signature.
const HEADER_AT: usize = 1 + Suite::One.signature_bytes();

/// A header as `signed` has it, without a signature.
fn without_signature(signed: &[u8]) -> Vec<u8> {
    [&signed[..1], &[0; HEADER_AT - 1], &signed[HEADER_AT..]].concat()
}

fn with_signature_of(set: &ChangeSet, other: &SignedHeader) -> FollowReply {
    let header = [&other.encode()[..HEADER_AT], &set.header.encode()[HEADER_AT..]].concat();
    FollowReply::ChangeSet { header, body: set.body.clone() }
}

#[test]
fn a_follower_commits_nothing_that_the_origin_did_not_sign_next() {
    let mut pair = Pair::new();
    pair.write(WINDOW_CHANGE_SETS + 3, 5);
    pair.replicate(1);
    let sets = pair.sets();
    let reply = |set: &ChangeSet| FollowReply::change_set(set.clone());
    assert_eq!(followed(&pair, [reply(&sets[1]), reply(&sets[2])]), Ok(()));

    let foreign = {
        let mut other = pair.clone();
        other.partition = pair.cast.partition(ORIGIN, "penalty");
        other.write(2, 5);
        reply(&other.sets()[1])
    };
    let other_body = ChangeSet { header: sets[1].header.clone(), body: sets[2].body.clone() };
    let no_header =
        FollowReply::ChangeSet { header: [&[1][..], &[7; 90]].concat(), body: Vec::new() };
    let unsigned_fork = FollowReply::Fork { header: [&[1][..], &[7; 64]].concat() };
    let unknown = [&[2][..], &sets[1].header.encode()[1..]].concat();
    let unknown = FollowReply::ChangeSet { header: unknown, body: sets[1].body.clone() };
    let other_suite = {
        let suite = Suite::Artificial;
        let mut header = sets[1].header.header().clone();
        (header.previous, header.history) = (suite.repeated(1), suite.repeated(2));
        header.federation_head =
            header.federation_head.map(|head| Position { hash: suite.repeated(3), ..head });
        (header.changes_hash, header.root) = (suite.repeated(4), suite.repeated(5));
        let key = suite.signing_key(&vec![2; suite.secret_key_bytes()]).unwrap();
        header.key_id = key.public().id();
        let header = SignedHeader::sign(header, &key).encode();
        FollowReply::ChangeSet { header, body: sets[1].body.clone() }
    };
    let stale_fork = FollowReply::Fork { header: sets[0].header.encode() };
    let flood = sets[1..].iter().map(reply).collect::<Vec<_>>();
    for (name, replies, code) in [
        ("a gap", vec![reply(&sets[2])], CloseCode::Unexpected),
        ("again", vec![reply(&sets[1]), reply(&sets[1])], CloseCode::Unexpected),
        ("foreign", vec![foreign], CloseCode::NotEntitled),
        ("unsigned", vec![with_signature_of(&sets[1], &sets[2].header)], CloseCode::Forged),
        ("another body", vec![reply(&other_body)], CloseCode::Forged),
        ("no header", vec![no_header], CloseCode::Malformed),
        ("a suite that nobody knows", vec![unknown], CloseCode::Version),
        ("a suite of another federation", vec![other_suite], CloseCode::Forged),
        ("a fork of nothing", vec![unsigned_fork], CloseCode::Malformed),
        ("a fork that is none", vec![stale_fork], CloseCode::Unexpected),
        ("more than the window", flood, CloseCode::Unexpected),
    ] {
        assert_eq!(followed(&pair, replies), Err(code), "{name}");
    }
}

#[test]
fn a_fork_needs_two_signed_headers_at_one_number() {
    let mut pair = Pair::new();
    pair.write(2, 5);
    let mut other = pair.clone();
    pair.write(1, 5);
    pair.replicate(3);
    other.write_changes(&[Change::Delete { key: vec![1] }]);
    let theirs = other.state().head.clone().unwrap();

    let have = pair.replica.position(&pair.partition);
    let mut provider = Provider::new(have, theirs.position(), other.state().header(3));
    let Some(ProviderAction::Send(fork)) = provider.poll_action() else {
        panic!("a provider tells of a fork at once");
    };
    assert_eq!(fork, FollowReply::Fork { header: theirs.encode() });
    assert_eq!(provider.poll_action(), Some(ProviderAction::Finish));

    let mut follower = Follower::new(pair.partition.clone(), have);
    follower.handle_message(fork, &*pair.replica.registry).unwrap();
    assert_eq!(follower.poll_action(), Some(FollowerAction::Fork(Box::new(theirs.clone()))));

    let forged = without_signature(&theirs.encode());
    assert_eq!(followed(&pair, [FollowReply::Fork { header: forged }]), Err(CloseCode::Forged));
    // The same header at a replica that is elsewhere claims nothing.
    other.write(1, 5);
    let elsewhere = FollowReply::Fork { header: other.state().head.as_ref().unwrap().encode() };
    assert_eq!(followed(&pair, [elsewhere]), Err(CloseCode::Unexpected));
    // What follows in the other history is signed, but does not fit.
    let next = other.sets()[3].clone().verify(&*pair.replica.registry).unwrap();
    assert_eq!(pair.replica.commit(&next), Err(CommitError::OtherPast));
    assert_eq!(pair.replica.position(&pair.partition), have);
}

#[test]
fn a_replica_takes_over_no_page_that_its_head_does_not_bind() {
    let mut pair = Pair::new();
    pair.write(12, 40);
    let head = || pair.tree_head();
    let part = |bytes: &[u8]| TreeReply::Part { bytes: bytes.to_vec(), more: false };
    let state = pair.state();
    let root = part(&state.tree.level(state.tree.levels() - 1).next().unwrap().body);
    let leaf = part(&state.tree.level(0).next().unwrap().body);
    let TreeReply::Head { header, levels, root: _, proof } = head() else { unreachable!() };
    let none = Vec::new;
    let lower =
        TreeReply::Head { header: header.clone(), levels: 0, root: none(), proof: proof.clone() };
    let mut other_peaks = proof.clone();
    other_peaks.peaks.reverse();
    let unproven =
        TreeReply::Head { header: header.clone(), levels, root: none(), proof: other_peaks };
    let unsigned = without_signature(&header);
    let unsigned = TreeReply::Head { header: unsigned, levels, root: none(), proof };
    let foreign = {
        let mut other = pair.clone();
        other.partition = pair.cast.partition(ORIGIN, "penalty");
        other.write(1, 5);
        other.tree_head()
    };
    let long = TreeReply::Part { bytes: vec![0; PAGE_PART_BYTES_MAX + 1], more: true };
    let (mut behind, mut up_to_date) = (pair.clone(), pair.clone());
    behind.replicate(4);
    up_to_date.replicate(12);
    for (name, at, replies, code) in [
        ("a leaf for the root", &pair, vec![head(), leaf], CloseCode::Malformed),
        ("another root", &pair, vec![head(), part(b"\0\0")], CloseCode::Malformed),
        ("the root again", &pair, vec![head(), root.clone(), root.clone()], CloseCode::Forged),
        ("another height", &pair, vec![lower], CloseCode::Forged),
        ("no signature", &pair, vec![unsigned], CloseCode::Forged),
        // It does not show that two histories are signed.
        ("another past", &pair, vec![unproven.clone()], CloseCode::Forged),
        ("another past than is here", &behind, vec![unproven], CloseCode::Forged),
        ("a foreign tree", &pair, vec![foreign], CloseCode::NotEntitled),
        ("too long a part", &pair, vec![head(), long], CloseCode::Malformed),
        ("a page before the head", &pair, vec![root.clone()], CloseCode::Unexpected),
        ("a second head", &pair, vec![head(), head()], CloseCode::Unexpected),
        ("an old tree", &up_to_date, vec![head()], CloseCode::Unexpected),
    ] {
        let mut at = at.clone();
        let before = at.replica.position(&at.partition);
        assert_eq!(at.fetch_hostile(replies).map_err(|e| e.code()), Err(code), "{name}");
        assert_eq!(at.replica.position(&at.partition), before, "{name}");
    }
}

/// The same keys and counts, but other values or other children.
fn altered(page: &MadePage) -> MadePage {
    if page.level > 0 {
        let mut children = decode_inner(Suite::One, &page.body).expect("it was made");
        children[0].hash = Suite::One.repeated(9);
        return make_inner(Suite::One, page.level, &children);
    }
    let leaf = Leaf::decode(&page.body).expect("it was made");
    RawLeaf::of(leaf.entries().map(|(key, _)| (key, &b"another value"[..]))).make(Suite::One)
}

#[test]
fn pages_of_another_tree_are_refused_at_every_place() {
    let mut pair = Pair::new();
    pair.write(12, 40);
    let pages = pair.pages_as_asked();
    let all: u64 = pair.state().tree.summary.pages.iter().sum();
    assert_eq!(pages.len() as u64, all, "each is asked for once");
    let refuses = |pages: &[MadePage]| {
        let part = |page: &MadePage| TreeReply::Part { bytes: page.body.clone(), more: false };
        let mut pair = pair.clone();
        let head = pair.tree_head();
        let refused = pair.fetch_hostile(std::iter::once(head).chain(pages.iter().map(part)));
        assert_eq!(refused.is_ok(), pair.replica.position(&pair.partition).is_some());
        matches!(refused, Err(PeerMisbehaved::WrongPage(_)))
    };
    assert!(!refuses(&pages));
    for wrong in 0..pages.len() {
        let mut others = pages.clone();
        others[wrong] = altered(&pages[wrong]);
        assert!(refuses(&others), "page {wrong} altered");
        if wrong > 0 && pages[wrong].level == 0 && pages[wrong - 1].level == 0 {
            others[wrong] = pages[wrong - 1].clone();
            assert!(refuses(&others), "page {wrong} repeats the one before");
        }
    }
}

/// Lets a provider send what it may, reading from `sets`.
fn provided(provider: &mut Provider, sets: &[ChangeSet]) -> Vec<Position> {
    let mut sent = Vec::new();
    while let Some(action) = provider.poll_action() {
        match action {
            ProviderAction::Read { from, count_max, bytes_max } => {
                let sets = sets[from as usize - 1..].iter().cloned();
                provider.handle_read(Some(as_many_as_fit(sets, count_max, bytes_max)));
            }
            ProviderAction::Send(FollowReply::ChangeSet { header, .. }) => {
                sent.push(SignedHeader::decode(&header).expect("it was encoded").position());
            }
            ProviderAction::Acked(_) => {}
            other => panic!("{other:?} has no reason"),
        }
    }
    sent
}

#[test]
fn a_provider_believes_no_acknowledgement_of_what_it_did_not_send() {
    let mut pair = Pair::new();
    pair.write(3, 5);
    let sets = pair.sets();
    let ack = |index: usize, root: Hash| FollowRequest::Ack {
        position: sets[index].header.position(),
        root,
    };
    let true_ack = |index: usize| ack(index, sets[index].header.header().root);
    for (name, acks) in [
        ("not yet sent", vec![true_ack(2)]),
        ("another root", vec![ack(0, Suite::One.none())]),
        ("again", vec![true_ack(1), true_ack(1)]),
        ("backwards", vec![true_ack(1), true_ack(0)]),
    ] {
        let mut provider = Provider::new(None, sets[1].header.position(), None);
        assert_eq!(provided(&mut provider, &sets[..2]).len(), 2);
        let (last, good) = acks.split_last().unwrap();
        for ack in good {
            provider.handle_message(ack.clone()).unwrap();
        }
        let refused = provider.handle_message(last.clone()).map_err(|error| error.code());
        assert_eq!(refused, Err(CloseCode::Unexpected), "{name}");
    }
}

#[test]
fn a_follower_that_never_commits_holds_up_its_own_partition_alone() {
    let mut pair = Pair::new();
    pair.write(3 * WINDOW_CHANGE_SETS, 3);
    let sets = pair.sets();
    let head = sets.last().unwrap().header.position();
    let mut slow = Provider::new(None, head, None);
    let mut quick = Provider::new(None, head, None);
    assert_eq!(provided(&mut slow, &sets).len(), WINDOW_CHANGE_SETS);
    let mut arrived = 0;
    while arrived < sets.len() {
        for position in provided(&mut quick, &sets) {
            let root = sets[arrived].header.header().root;
            arrived += 1;
            quick.handle_message(FollowRequest::Ack { position, root }).unwrap();
        }
        assert!(provided(&mut slow, &sets).is_empty(), "nothing was acknowledged");
    }
}

#[test]
fn large_change_sets_fill_the_window_by_their_bytes() {
    let mut pair = Pair::new();
    pair.write(WINDOW_CHANGE_SETS, 3);
    let mut sets = pair.sets();
    // A provider does not look into bodies.
    sets.iter_mut().for_each(|set| set.body = vec![0; WINDOW_BYTES.div_ceil(3)]);
    let head = sets.last().unwrap().header.position();
    let mut provider = Provider::new(None, head, None);
    assert_eq!(provided(&mut provider, &sets).len(), 3);
    let first = &sets[0].header;
    let ack = FollowRequest::Ack { position: first.position(), root: first.header().root };
    provider.handle_message(ack.clone()).unwrap();
    assert_eq!(provided(&mut provider, &sets).len(), 1, "one makes room for one");
}

const SECOND: Duration = Duration::from_secs(1);

/// The hub's link with a member that offers `offered`.
fn link(pair: &Pair, offered: Vec<Announced>, versions: Vec<u16>) -> Result<Link, PeerMisbehaved> {
    let suite = pair.cast.suite.number();
    let hello = Hello { suite, versions, build: String::new(), now_ms: 0, heads: offered };
    let timing = Timing { heartbeat: 10 * SECOND, follows_max: 100 };
    Link::new(pair.cast.ends(HUB, ORIGIN), timing, Vec::new(), hello, SECOND)
}

fn offer(pair: &Pair, node: usize, dataset: &str) -> Announced {
    Announced {
        partition: pair.cast.partition(node, dataset),
        position: Position { seq: 1, hash: Suite::One.repeated(1) },
        root: Suite::One.repeated(2),
        records: 1,
    }
}

#[test]
fn a_link_is_silent_after_half_a_minute_without_a_message() {
    let pair = Pair::new();
    let mut link = link(&pair, Vec::new(), vec![PROTOCOL_VERSION]).unwrap();
    let heard = 20 * SECOND;
    link.handle_message(Control::Heartbeat { now_ms: 0 }, heard).unwrap();
    link.handle_timeout(heard + SILENCE_MAX - Duration::from_nanos(1));
    assert_eq!(link.poll_action(), None);
    while link.heartbeat_due(link.poll_timeout()) {}
    assert!(link.poll_timeout() <= heard + SILENCE_MAX);
    link.handle_timeout(heard + SILENCE_MAX);
    assert_eq!(link.poll_action(), Some(LinkAction::Silent));
}

#[test]
fn a_link_refuses_what_concerns_others_and_what_has_no_place() {
    let pair = Pair::new();
    let offers = |node: usize| vec![offer(&pair, node, "penalty")];
    assert!(link(&pair, offers(ORIGIN), vec![9, PROTOCOL_VERSION]).is_ok());
    let refused = |offered, versions| link(&pair, offered, versions).err().map(|e| e.code());
    assert_eq!(refused(offers(2), vec![PROTOCOL_VERSION]), Some(CloseCode::NotEntitled));
    assert_eq!(refused(offers(ORIGIN), vec![9]), Some(CloseCode::Version));

    let mut link = link(&pair, offers(ORIGIN), vec![PROTOCOL_VERSION]).unwrap();
    let mut refused = |message| link.handle_message(message, SECOND).err().map(|e| e.code());
    assert_eq!(refused(Control::Announce(offers(2))), Some(CloseCode::NotEntitled));
    let (suite, build) = (1, String::new());
    let hello = Hello { suite, versions: vec![1], build, now_ms: 0, heads: Vec::new() };
    assert_eq!(refused(Control::Hello(hello)), Some(CloseCode::Unexpected));
}

#[test]
fn a_link_refuses_a_peer_of_another_suite_in_words() {
    let pair = Pair::new();
    let (versions, build) = (vec![PROTOCOL_VERSION], String::new());
    let suite = Suite::Artificial.number();
    let hello = Hello { suite, versions, build, now_ms: 0, heads: Vec::new() };
    let timing = Timing { heartbeat: 10 * SECOND, follows_max: 100 };
    let refused = Link::new(pair.cast.ends(HUB, ORIGIN), timing, Vec::new(), hello, SECOND);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), CloseCode::Version);
    assert_eq!(refused.to_string(), "its federation has suite 240, and this one has suite 1");
}

#[test]
fn what_is_in_doubt_is_followed_though_nothing_of_it_is_missing() {
    let pair = Pair::new();
    let offered: Vec<_> =
        ["enterprise", "penalty"].map(|dataset| offer(&pair, ORIGIN, dataset)).into();
    let hello = Hello {
        suite: pair.cast.suite.number(),
        versions: vec![PROTOCOL_VERSION],
        build: String::new(),
        now_ms: 0,
        heads: offered.clone(),
    };
    let timing = Timing { heartbeat: 10 * SECOND, follows_max: 1 };
    let ends = pair.cast.ends(HUB, ORIGIN);
    let mut link = Link::new(ends, timing, offered.clone(), hello, SECOND).unwrap();
    let mut actions = || std::iter::from_fn(|| link.poll_action()).collect::<Vec<_>>();
    let [first, second] = [&offered[0].partition, &offered[1].partition];
    assert_eq!(actions(), [LinkAction::Follow(first.clone())]);
    link.handle_doubt(second, SECOND);
    let mut actions = || std::iter::from_fn(|| link.poll_action()).collect::<Vec<_>>();
    assert_eq!(actions(), [LinkAction::Release(first.clone())]);
    link.handle_follow_end(first, FollowEnd::Released, 0, SECOND);
    let mut actions = || std::iter::from_fn(|| link.poll_action()).collect::<Vec<_>>();
    assert_eq!(actions(), [LinkAction::Follow(second.clone())]);
}

#[test]
fn a_failing_partition_waits_longer_each_time_and_holds_up_no_other() {
    let pair = Pair::new();
    let [failing, other] = ["enterprise", "penalty"].map(|dataset| offer(&pair, ORIGIN, dataset));
    let mut link =
        link(&pair, vec![failing.clone(), other.clone()], vec![PROTOCOL_VERSION]).unwrap();
    let actions = |link: &mut Link| std::iter::from_fn(|| link.poll_action()).collect::<Vec<_>>();
    let follow = |of: &Announced| LinkAction::Follow(of.partition.clone());
    assert_eq!(actions(&mut link), [follow(&failing), follow(&other)]);

    let mut now = SECOND;
    let mut waits = Vec::new();
    let mut fail = |link: &mut Link, end: FollowEnd| {
        link.handle_follow_end(&failing.partition, end, u32::MAX, now);
        let failed = now;
        let mut wakes = 0;
        while actions(link).is_empty() {
            link.handle_message(Control::Heartbeat { now_ms: 0 }, now).unwrap();
            now = link.poll_timeout();
            link.heartbeat_due(now);
            link.handle_timeout(now);
            wakes += 1;
            assert!(wakes < 100, "it is never followed again");
        }
        now - failed
    };
    for _ in 0..12 {
        waits.push(fail(&mut link, FollowEnd::Retry));
    }
    assert!(waits.is_sorted() && waits[1] > waits[0], "{waits:?}");
    assert_eq!(waits.last(), Some(&(60 * SECOND)));
    link.handle_follow_progress(&failing.partition);
    assert_eq!(fail(&mut link, FollowEnd::Retry), waits[0]);
    // That much of it arrives is no success where it is refused in the end.
    for wait in &waits {
        link.handle_follow_progress(&failing.partition);
        assert_eq!(fail(&mut link, FollowEnd::Refused), *wait);
    }
    link.handle_follow_end(&failing.partition, FollowEnd::Again, u32::MAX, SECOND);
    assert_eq!(actions(&mut link), [follow(&failing)]);
    assert_eq!(fail(&mut link, FollowEnd::Refused), waits[0], "until it is taken");
    link.handle_follow_end(&other.partition, FollowEnd::Retry, u32::MAX, Duration::ZERO);
    assert!(link.poll_timeout() <= waits[0], "the other one begins with the first wait");
}
