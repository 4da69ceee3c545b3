//! A federation of real processes, verified from what it said on the wire: all of
//! section 19 of `protocol/SPEC.md`.

use std::collections::BTreeSet;

use harness::{federation::HUB, table::Table};

use super::{
    Checked, Refused,
    anchor::Freshness,
    enrolment::{self, anchor},
    federation::Federation,
    hashes::{self, Hash},
    messages::{self, Control, FollowReply, JoinReply, TreeReply},
    pages, record,
    recorded::{COUNTY, NEWCOMER, Partition, Scene, two_keys},
    replica::{self, Keys as _, Replica},
    token::Token,
};

/// Points 1 and 2: `_federation` from number 1, as an enrolment tells it.
pub fn federation(token: &Token, join: &[Vec<u8>]) -> Checked<Federation> {
    Ok(enrolment::joined(token, join)?.1)
}

/// Change sets of a Follow stream: signed headers and bodies.
pub fn change_sets(follow: &[Vec<u8>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let read = |frame: &Vec<u8>| match messages::follow_reply(frame) {
        Ok(FollowReply::ChangeSet { header, body }) => (header, body),
        other => panic!("{other:?}"),
    };
    follow.iter().map(read).collect()
}

/// Point 3: each change set from an empty state.
pub fn replica(federation: &Federation, heard: &Partition) -> Checked<Replica> {
    let mut replica = Replica::new(&heard.name);
    for (header, body) in change_sets(&heard.follow) {
        replica.take(federation, &header, &body)?;
    }
    Ok(replica)
}

/// Point 4, for the head that answers to each number held; and point 3 for a state
/// alone, from its pages.
pub fn heads_and_pages(federation: &Federation, heard: &Partition, replica: &Replica) {
    let newest = replica.seq();
    for (held, frame) in &heard.heads {
        let Ok(TreeReply::Head { header, levels, root_page, proof }) = messages::tree_reply(frame)
        else {
            panic!("no head for {held}");
        };
        let hash = replica.header(*held).map(|(_, hash)| (*held, hash));
        let head =
            replica::check_later_head(federation, &heard.name, hash, &header, &proof).unwrap();
        assert_eq!((head.header.seq, head.hash), (newest, replica.head()));
        assert!(proof.path.is_empty() || (1..newest).contains(held), "{held}");
        let page =
            |level: u8, key: &[u8]| heard.pages.get(&(level, key.to_vec())).map(Vec::as_slice);
        assert!(root_page.is_empty() || page(levels - 1, &[]) == Some(&root_page[..]));
        let state = pages::descend(&head.header, levels, page).unwrap();
        assert_eq!(state, *replica.state());
        for (key, record) in &state {
            federation.fits(&head.header.dataset, key, record).unwrap();
        }
    }
}

/// The hub's word on what is newest; answers the anchor that came before it.
fn check_trust(federation: &Federation, heard: &Partition) -> Option<Vec<u8>> {
    let mut anchor = None;
    for body in &heard.trust {
        match messages::control(body).unwrap() {
            Control::Anchor(bytes) => anchor = Some(bytes),
            Control::Freshness(bytes) => {
                let statement = Freshness::decode(&bytes).unwrap();
                assert_eq!(statement.fields.seq, federation.replica().seq());
                federation.check_freshness(&statement).unwrap();
            }
            other => println!("{other:?}"),
        }
    }
    anchor
}

fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key ids that signed the headers of a partition.
pub fn signers(replica: &Replica) -> BTreeSet<Hash> {
    let headers = (1..=replica.seq()).map(|seq| replica.header(seq).unwrap());
    headers.map(|(header, _)| header.key_id).collect()
}

/// The numbers that this key signed.
fn signed_by(replica: &Replica, public: &[u8; 32]) -> Vec<u64> {
    let id = hashes::key_id(public);
    (1..=replica.seq()).filter(|seq| replica.header(*seq).unwrap().0.key_id == id).collect()
}

/// The records as a table of texts.
fn rows(replica: &Replica) -> Table {
    let mut table = Table::default();
    for (key, bytes) in replica.state() {
        let (version, values) = record::decode(bytes).unwrap();
        assert_eq!(record::encode(version, &values), *bytes);
        let own = record::decode_key(key).unwrap();
        assert_eq!(record::encode_key(&own), *key);
        table.put(values.iter().map(record::canonical_text).collect());
    }
    table
}

#[test]
fn a_county_with_two_keys_is_verified_from_its_bytes() {
    let recorded = two_keys();
    let (heard, shown) = (&recorded.heard, &recorded.shown);
    let token = Token::parse(&recorded.token).unwrap();
    let federation = federation(&token, &recorded.join).unwrap();
    let members = federation.members();
    assert_eq!(members, [HUB, COUNTY, NEWCOMER].into());
    assert!(federation.roots().iter().any(|root| token.is_root(root).is_ok()));
    for node in [HUB, COUNTY] {
        let by: Vec<&str> = federation.keys(node).iter().map(|key| &key.by[..]).collect();
        assert_eq!(by[1..], ["succession"], "{node}: {by:?}");
    }
    // The change set that retires the hub's key is the last that it signs.
    let first = &federation.keys(HUB)[0];
    let last = first.last.as_ref().unwrap()[&format!("_federation/{HUB}")];
    assert_eq!(signed_by(federation.replica(), &first.public), (1..=last).collect::<Vec<_>>());
    assert!(last < federation.replica().seq());
    assert_eq!(signers(federation.replica()).len(), 2, "both keys of the hub have signed");

    let replica = replica(&federation, heard).unwrap();
    assert_eq!(signers(&replica).len(), 2, "both keys of the county have signed");
    assert_eq!(replica.seq(), shown.0);
    assert_eq!(hex(&replica.head()), shown.1);
    let (newest, _) = replica.header(replica.seq()).unwrap();
    assert_eq!(hex(&newest.root), shown.2);
    assert_eq!(rows(&replica), recorded.rows);
    assert_eq!(rows(&replica).len(), 460);
    heads_and_pages(&federation, heard, &replica);

    assert_eq!(check_trust(&federation, heard), None, "a first anchor is not sent again");
}

#[test]
fn a_hub_whose_key_was_stolen_is_verified_from_its_new_anchor() {
    let mut scene = Scene::new();
    let hub = scene.federation.hub.handle();
    let own = hub.own("enterprise");
    scene.import(&hub, &Table::synthetic(3, 0..5, "一"), false);
    hub.json(&["cert", "renew", "--signing-key"]);
    scene.import(&hub, &Table::synthetic(3, 0..6, "二"), false);
    // The second key signs, too.
    scene.join("410184");
    let before = scene.federation.invite("410185", &["--address", "localhost:1"]);
    let stolen = hub.json(&["cert", "renew", "--signing-key", "--stolen"]);
    assert_eq!(stolen["epoch"], 2);
    scene.import(&hub, &Table::synthetic(3, 3..9, "三"), false);
    let shown = scene.status(&hub, &own);
    scene.stop_county();
    let (text, join) = scene.enrol();
    let heard = scene.record(&format!("test-city/{own}/*"), shown.0);

    let token = Token::parse(&text).unwrap();
    let anchored = anchor(&token).unwrap();
    let fields = anchored.fields();
    assert_eq!((fields.epoch, fields.earlier.len()), (2, 1), "{fields:?}");
    let (base, named) = fields.base.unwrap();
    let federation = federation(&token, &join).unwrap();
    assert_eq!(federation.replica().header(base).unwrap().1, named);
    let by: Vec<&str> = federation.keys(HUB).iter().map(|key| &key.by[..]).collect();
    assert_eq!(by, ["anchor", "succession", "anchor"]);
    assert_eq!(signers(federation.replica()).len(), 3);
    let replica = replica(&federation, &heard).unwrap();
    assert_eq!((replica.seq(), hex(&replica.head())), (shown.0, shown.1.as_str().unwrap().into()));
    assert_eq!(rows(&replica).len(), 9);
    heads_and_pages(&federation, &heard, &replica);

    assert_eq!(check_trust(&federation, &heard).as_ref(), Some(&token.anchor));

    // Under the anchor before it, nothing behind the base counts.
    let old = Token::parse(&before).unwrap();
    let mut by_old = Federation::new(anchor(&old).unwrap());
    let mut sets = join.iter().filter_map(|body| match messages::join_reply(body) {
        Ok(JoinReply::ChangeSet { header, body }) => Some((header, body)),
        _ => None,
    });
    let refused = sets.find_map(|(header, body)| by_old.take(&header, &body).err());
    assert_eq!(refused, Some(Refused("a key that nobody registered")));
    assert_eq!(by_old.replica().seq(), base);
    scene.federation.hub.stop();
}

#[test]
fn what_a_county_wrote_with_a_retired_key_is_verified_under_the_next_one() {
    let mut scene = Scene::new();
    let (county, hub) = (scene.county().handle(), scene.federation.hub.handle());
    let own = county.own("enterprise");
    scene.import(&county, &Table::synthetic(1, 0..9, "一"), false);
    // Its key ends at what the hub holds; it writes on, and hears of it later.
    hub.cli(&["revoke", COUNTY, "--reason", "lost"]).expect_code(0);
    for batch in ["二", "三", "四"] {
        let file = Table::synthetic(1, 5..15, batch).write(scene.federation.dir(), "more.csv");
        county.import("enterprise", &file);
    }
    let token = scene.federation.invite(COUNTY, &[]);
    county.cli(&["join", &token]).expect_code(0);
    scene.federation.wait_converged();
    let shown = scene.status(&hub, &own);
    scene.stop_county();
    let (text, join) = scene.enrol();
    let heard = scene.record(&format!("test-city/{own}/*"), shown.0);

    let federation = federation(&Token::parse(&text).unwrap(), &join).unwrap();
    let [first, second] = federation.keys(COUNTY) else { panic!("two keys") };
    assert_eq!((&first.by[..], &second.by[..]), ("enrolment", "reenrolment"));
    assert_eq!(first.last, Some([(own.clone(), 1)].into()));
    let replica = replica(&federation, &heard).unwrap();
    assert_eq!(signed_by(&replica, &first.public), [1]);
    assert_eq!(signed_by(&replica, &second.public), [2, 3, 4]);
    assert_eq!(hex(&replica.head()), shown.1);
    let mut expected = Table::synthetic(1, 0..9, "一");
    expected.put_all(&Table::synthetic(1, 5..15, "四"));
    assert_eq!(rows(&replica), expected);
    heads_and_pages(&federation, &heard, &replica);
    scene.federation.hub.stop();
}
