//! Frames of every message.

use protocol::{
    change::{ChangeSet, Position},
    frame,
    history::Proof,
    id::NodeId,
    message::{
        Announced, Control, FollowReply, FollowRequest, Hello, JoinRefused, JoinReply, JoinRequest,
        KnownPage, NewKeyReply, NewKeyRequest, Open, RenewReply, RenewRequest, Report,
        RequestRefused, TreeReply, TreeRequest,
    },
    suite::Suite,
    suite::checksum::Checksum,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Vectors;
use crate::parts::{county_key, next_key, partition, signed_header, statement};

/// Adds the frame of a message, which has to decode to the same message.
fn add_frame<T>(vectors: &mut Vectors, name: &str, message: T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let body = protocol::codec::encode(&message);
    assert_eq!(protocol::codec::decode::<T>(&body).as_ref(), Ok(&message), "{name}");
    vectors.bytes(&format!("frame.{name}"), &frame::encode(&body));
}

fn hello() -> Hello {
    Hello {
        suite: 1,
        versions: vec![1, 300],
        build: "0.1.0".into(),
        now_ms: 1_700_000_000_000,
        heads: vec![announced()],
    }
}

fn announced() -> Announced {
    Announced {
        partition: partition("zhengzhou/enterprise/410122/*"),
        position: Position { seq: 250, hash: Suite::One.repeated(0x44) },
        root: Suite::One.repeated(0x55),
        records: 70_000,
    }
}

fn position() -> Position {
    Position { seq: 251, hash: Suite::One.repeated(0x66) }
}

pub fn add(vectors: &mut Vectors) {
    let county = || partition("zhengzhou/enterprise/410122/*");
    add_frame(vectors, "open.control", Open::Control(hello()));
    let follow = |have| Open::Follow { partition: county(), have };
    add_frame(vectors, "open.follow.from_start", follow(None));
    add_frame(vectors, "open.follow.from_251", follow(Some(position())));
    add_frame(vectors, "open.tree", Open::Tree { partition: county(), have: None });
    let have = Some(Position { seq: 7, hash: Suite::One.repeated(0x55) });
    add_frame(vectors, "open.tree_behind", Open::Tree { partition: county(), have });

    add_frame(vectors, "open.renew", Open::Renew(RenewRequest { csr: vec![0x30, 0x00] }));
    let new_key = NewKeyRequest {
        signing_key: next_key().public().as_bytes().to_vec(),
        possession: vec![0x88; 64],
        countersignature: vec![0x89; 64],
    };
    add_frame(vectors, "open.new_key", Open::NewKey(new_key));
    let chain = vec![vec![0x30, 0x01], vec![0x30, 0x02]];
    add_frame(vectors, "renew.issued", RenewReply::Issued { chain });
    let registered = NewKeyReply::Registered { federation_seq: 300 };
    add_frame(vectors, "new_key.registered", registered);
    for (name, refused) in [
        ("mismatch", RequestRefused::Mismatch),
        ("too_often", RequestRefused::TooOften),
        ("failed", RequestRefused::Failed),
    ] {
        add_frame(vectors, &format!("renew.refused.{name}"), RenewReply::Refused(refused));
        add_frame(vectors, &format!("new_key.refused.{name}"), NewKeyReply::Refused(refused));
    }

    add_frame(vectors, "control.hello", Control::Hello(Hello { heads: vec![], ..hello() }));
    add_frame(vectors, "control.announce", Control::Announce(vec![announced(), announced()]));
    add_frame(vectors, "control.heartbeat", Control::Heartbeat { now_ms: 1_700_000_000_000 });
    add_frame(vectors, "control.heartbeat.negative", Control::Heartbeat { now_ms: -2 });

    let report = Report {
        instance: [9; 8],
        roots: vec![Checksum([0x99; 32]), Checksum([0xaa; 32])],
        signing_key: county_key().public().id(),
    };
    add_frame(vectors, "control.report", Control::Report(report));
    add_frame(vectors, "control.freshness", Control::Freshness(statement().encode()));
    add_frame(vectors, "control.anchor", Control::Anchor(vec![0x02, 0x03]));

    let ack = FollowRequest::Ack { position: position(), root: Suite::One.repeated(0x77) };
    add_frame(vectors, "follow.ack", ack);
    let header = signed_header();
    let set = ChangeSet { header: header.clone(), body: vec![0xab; 300] };
    add_frame(vectors, "follow.change_set", FollowReply::change_set(set));
    add_frame(vectors, "follow.take_pages", FollowReply::TakePages);
    add_frame(vectors, "follow.fork", FollowReply::Fork { header: header.encode() });

    let pages = TreeRequest::Pages { level: 1, keys: vec![vec![], b"key".to_vec()] };
    add_frame(vectors, "tree.pages", pages);
    let known = KnownPage { first_key: b"key".to_vec(), known: vec![0xcd; 16] };
    let differences = TreeRequest::Differences { level: 2, salt: [0x5a; 16], pages: vec![known] };
    add_frame(vectors, "tree.differences", differences);
    let proof =
        Proof { peaks: vec![Suite::One.repeated(0x11)], path: vec![Suite::One.repeated(0x44)] };
    let head = TreeReply::Head {
        header: header.encode(),
        levels: 3,
        root: vec![4, 5],
        proof: proof.clone(),
    };
    add_frame(vectors, "tree.head", head);
    let fork = |other, proof| TreeReply::Fork { header: header.encode(), other, proof };
    add_frame(vectors, "tree.fork", fork(header.hash(), Proof::default()));
    add_frame(vectors, "tree.fork_before", fork(Suite::One.repeated(0x66), proof));
    add_frame(vectors, "tree.part", TreeReply::Part { bytes: vec![1, 2, 3], more: true });

    let possession = vec![0x88; 64];
    let request = JoinRequest {
        token_id: [5; 8],
        secret: [6; 32],
        node: NodeId::new("410122").unwrap(),
        csr: vec![0x30, 0x00],
        signing_key: county_key().public().as_bytes().to_vec(),
        possession,
    };
    add_frame(vectors, "join.request", request);
    let chain = vec![vec![0x30, 0x01], vec![0x30, 0x02]];
    add_frame(vectors, "join.accepted", JoinReply::Accepted { chain, root: vec![0x30, 0x03] });
    let change_set = JoinReply::ChangeSet { header: header.encode(), body: vec![0xab; 4] };
    add_frame(vectors, "join.change_set", change_set);
    add_frame(vectors, "join.done", JoinReply::Done);
    for (name, refused) in [
        ("unknown_token", JoinRefused::UnknownToken),
        ("used", JoinRefused::Used),
        ("expired", JoinRefused::Expired),
        ("mismatch", JoinRefused::Mismatch),
        ("failed", JoinRefused::Failed),
        ("too_many", JoinRefused::TooMany),
        ("key_retired", JoinRefused::KeyRetired),
    ] {
        add_frame(vectors, &format!("join.refused.{name}"), JoinReply::Refused(refused));
    }
}
