//! The frames of the vectors, decoded by hand; and that a frame which is cut, or
//! has a byte more, is refused.

use super::{
    Checked, frames,
    golden::Vectors,
    history::Proof,
    layout,
    messages::{
        self, Announced, Control, FollowReply, Hello, JoinReply, Open, TreeReply, TreeRequest,
    },
};

const COUNTY: &str = "zhengzhou/enterprise/410122/*";
const NOW_MS: i64 = 1_700_000_000_000;

/// Reads a vector's frame whole, and refuses it in every other length.
#[track_caller]
fn read<T>(vectors: &Vectors, name: &str, decode: impl Fn(&[u8]) -> Checked<T>) -> T {
    let max = match name.split_once('.') {
        Some(("open" | "control", _)) => layout::CONTROL_FRAME_BYTES_MAX,
        Some(("tree", _)) => layout::TREE_FRAME_BYTES_MAX,
        _ => layout::FRAME_BYTES_MAX,
    };
    let name = format!("frame.{name}");
    let bytes = vectors.bytes(&name);
    let body = frames::body(&bytes, max).unwrap();
    assert_eq!(frames::frame(body), bytes, "{name}");
    for cut in 0..body.len() {
        assert!(decode(&body[..cut]).is_err(), "{name} cut at {cut}");
        assert!(frames::body(&bytes[..4 + cut], max).is_err(), "{name}");
    }
    assert!(decode(&[body, &[0]].concat()).is_err(), "{name} and a byte");
    assert!(frames::body(&bytes, body.len() - 1).is_err(), "{name}: over a limit");
    decode(body).unwrap_or_else(|refused| panic!("{name}: {refused:?}"))
}

/// What the verifier writes itself is the vector, too.
#[track_caller]
fn written(vectors: &Vectors, name: &str, body: &[u8]) {
    vectors.is(&format!("frame.{name}"), frames::frame(body));
}

pub fn check(vectors: &Vectors) {
    opening(vectors);
    control(vectors);
    following(vectors);
    trees(vectors);
    asking(vectors);
    joining(vectors);
}

fn announced() -> Announced {
    let (position, root) = ((250, [0x44; 32]), [0x55; 32]);
    Announced { partition: COUNTY.into(), position, root, records: 70_000 }
}

fn hello(heads: Vec<Announced>) -> Hello {
    Hello { suite: 1, versions: vec![1, 300], build: "0.1.0".into(), now_ms: NOW_MS, heads }
}

fn opening(vectors: &Vectors) {
    let read = |name: &str| read(vectors, &format!("open.{name}"), messages::open);
    let partition = || COUNTY.to_owned();
    assert_eq!(read("control"), Open::Control(hello(vec![announced()])));
    let follow = |have| Open::Follow { partition: partition(), have };
    assert_eq!(read("follow.from_start"), follow(None));
    assert_eq!(read("follow.from_251"), follow(Some((251, [0x66; 32]))));
    let tree = |have| Open::Tree { partition: partition(), have };
    assert_eq!(read("tree"), tree(None));
    assert_eq!(read("tree_behind"), tree(Some((7, [0x55; 32]))));
    assert_eq!(read("renew"), Open::Renew(vec![0x30, 0]));
    let Open::NewKey { public, possession, countersignature } = read("new_key") else {
        panic!("another message");
    };
    assert!(vectors.bytes("signing.succession.bytes").ends_with(&public));
    assert_eq!((possession, countersignature), (vec![0x88; 64], vec![0x89; 64]));

    written(vectors, "open.follow.from_start", &messages::encode_follow(COUNTY, None));
    let have = Some((251, &[0x66; 32]));
    written(vectors, "open.follow.from_251", &messages::encode_follow(COUNTY, have));
    written(vectors, "open.tree", &messages::encode_tree(COUNTY, None));
    let have = Some((7, &[0x55; 32]));
    written(vectors, "open.tree_behind", &messages::encode_tree(COUNTY, have));
}

fn control(vectors: &Vectors) {
    let read = |name: &str| read(vectors, &format!("control.{name}"), messages::control);
    assert_eq!(read("hello"), Control::Hello(hello(vec![])));
    assert_eq!(read("announce"), Control::Announce(vec![announced(), announced()]));
    assert_eq!(read("heartbeat"), Control::Heartbeat(NOW_MS));
    assert_eq!(read("heartbeat.negative"), Control::Heartbeat(-2));
    let report = Control::Report {
        instance: [9; 8],
        roots: vec![[0x99; 32], [0xaa; 32]],
        signing_key: vectors.array("signing.county.key_id"),
    };
    assert_eq!(read("report"), report);
    assert_eq!(read("freshness"), Control::Freshness(vectors.bytes("freshness.statement")));
    assert_eq!(read("anchor"), Control::Anchor(vec![2, 3]));
}

fn signed_header(vectors: &Vectors) -> Vec<u8> {
    [vec![1], vectors.bytes("header.signature"), vectors.bytes("header.bytes")].concat()
}

fn following(vectors: &Vectors) {
    let header = || signed_header(vectors);
    let ack = read(vectors, "follow.ack", messages::ack);
    assert_eq!(ack, ((251, [0x66; 32]), [0x77; 32]));
    written(vectors, "follow.ack", &messages::encode_ack((251, &[0x66; 32]), &[0x77; 32]));
    let read = |name: &str| read(vectors, &format!("follow.{name}"), messages::follow_reply);
    let change_set = FollowReply::ChangeSet { header: header(), body: vec![0xab; 300] };
    assert_eq!(read("change_set"), change_set);
    assert_eq!(read("take_pages"), FollowReply::TakePages);
    assert_eq!(read("fork"), FollowReply::Fork(header()));
}

fn trees(vectors: &Vectors) {
    let asked = |name: &str| read(vectors, &format!("tree.{name}"), messages::tree_request);
    let keys = vec![vec![], b"key".to_vec()];
    assert_eq!(asked("pages"), TreeRequest::Pages { level: 1, keys });
    written(vectors, "tree.pages", &messages::encode_pages(1, &[b"", b"key"]));
    let pages = vec![(b"key".to_vec(), vec![0xcd; 16])];
    let differences = TreeRequest::Differences { level: 2, salt: [0x5a; 16], pages };
    assert_eq!(asked("differences"), differences);
    let read = |name: &str| read(vectors, &format!("tree.{name}"), messages::tree_reply);
    let head = TreeReply::Head {
        header: signed_header(vectors),
        levels: 3,
        root_page: vec![4, 5],
        proof: Proof { peaks: vec![[0x11; 32]], path: vec![[0x44; 32]] },
    };
    assert_eq!(read("head"), head);
    let fork = |other, proof| TreeReply::Fork { header: signed_header(vectors), other, proof };
    assert_eq!(read("fork"), fork(vectors.array("header.hash"), Proof::default()));
    let proof = Proof { peaks: vec![[0x11; 32]], path: vec![[0x44; 32]] };
    assert_eq!(read("fork_before"), fork([0x66; 32], proof));
    assert_eq!(read("part"), TreeReply::Part { bytes: vec![1, 2, 3], more: true });
}

fn asking(vectors: &Vectors) {
    let issued = read(vectors, "renew.issued", messages::renew_reply);
    assert_eq!(issued, Ok(vec![vec![0x30, 1], vec![0x30, 2]]));
    assert_eq!(read(vectors, "new_key.registered", messages::new_key_reply), Ok(300));
    for (reason, name) in (0..).zip(["mismatch", "too_often", "failed"]) {
        let name = format!("refused.{name}");
        let renew = read(vectors, &format!("renew.{name}"), messages::renew_reply);
        assert_eq!(renew, Err(reason));
        let new_key = read(vectors, &format!("new_key.{name}"), messages::new_key_reply);
        assert_eq!(new_key, Err(reason));
    }
    assert!(messages::renew_reply(&[1, 3]).is_err(), "an unknown reason");
}

fn joining(vectors: &Vectors) {
    let request = read(vectors, "join.request", messages::join_request);
    assert_eq!((request.token_id, request.secret, &request.node[..]), ([5; 8], [6; 32], "410122"));
    assert_eq!(request.request, [0x30, 0]);
    assert_eq!(request.public, vectors.array::<32>("signing.county.public"));
    assert_eq!(request.possession, [0x88; 64]);
    written(vectors, "join.request", &messages::encode_join(&request));
    let read = |name: &str| read(vectors, &format!("join.{name}"), messages::join_reply);
    let chain = vec![vec![0x30, 1], vec![0x30, 2]];
    assert_eq!(read("accepted"), JoinReply::Accepted { chain, root: vec![0x30, 3] });
    let change_set = JoinReply::ChangeSet { header: signed_header(vectors), body: vec![0xab; 4] };
    assert_eq!(read("change_set"), change_set);
    assert_eq!(read("done"), JoinReply::Done);
    let reasons =
        ["unknown_token", "used", "expired", "mismatch", "failed", "too_many", "key_retired"];
    for (reason, name) in (0..).zip(reasons) {
        assert_eq!(read(&format!("refused.{name}")), JoinReply::Refused(reason));
    }
    assert!(messages::join_reply(&[3, 7]).is_err(), "an unknown reason");
}
