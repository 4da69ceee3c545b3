//! A member whose state has moved on without its change sets: the hub, which
//! holds an older state, asks for what differs, and takes it in place or not at
//! all.

use protocol::{
    change::Header,
    codec, difference,
    message::{CloseCode, FollowReply, Open, TreeReply, TreeRequest, decode_header},
    suite::Suite,
};

use crate::{
    forge::{Entries, Origin, Tree, entries, renamed},
    peer::{End, Peer, Stream},
    provider::followed,
    world::{HOSTILE, World},
};

const DATASET: &str = "enterprise";

/// What the hub holds, and what the member has come to.
fn states() -> [Entries; 2] {
    let old = entries(1000);
    let mut new = old.clone();
    new[500] = renamed(500, "另一个");
    [old, new]
}

/// The head of a tree, behind the one that the hub holds.
fn second(origin: &Origin<'_>, tree: &Tree, alter: impl FnOnce(&mut Header)) -> TreeReply {
    let first = origin.tree_head(&Tree::of(&states()[0]), |_| {});
    let TreeReply::Head { header, .. } = first else { unreachable!() };
    let previous = decode_header(&header).unwrap().hash();
    origin.tree_head(tree, |header| {
        (header.seq, header.previous) = (2, previous);
        alter(header);
    })
}

/// Says TakePages until the hub, which holds the old state by then, opens its
/// tree stream.
async fn comparing<'a>(world: &'a World) -> (Peer, Vec<Stream>, Stream, Origin<'a>) {
    let (peer, control, mut follow, origin, mut have) = followed(world, DATASET).await;
    let mut open = vec![control];
    loop {
        follow.send(&FollowReply::TakePages).await;
        let mut stream = peer.accept().await;
        let asked: Open = stream.receive().await.unwrap();
        assert_eq!(asked, Open::Tree { partition: origin.partition.clone(), have });
        open.push(follow);
        if have.is_some() {
            return (peer, open, stream, origin);
        }
        let tree = Tree::of(&states()[0]);
        stream.send(&origin.tree_head(&tree, |_| {})).await;
        while let Ok(request) = stream.receive().await {
            let TreeRequest::Pages { level, keys } = request else {
                panic!("the hub holds nothing to compare: {request:?}")
            };
            for key in keys {
                let bytes = tree.page(level, &key).body.clone();
                stream.send(&TreeReply::Part { bytes, more: false }).await;
            }
        }
        follow = peer.accept().await;
        have = match follow.receive().await {
            Ok(Open::Follow { have, .. }) => have,
            other => panic!("{other:?}"),
        };
        assert!(have.is_some(), "the hub holds the old state");
    }
}

/// What the conversation has cost.
#[derive(Default)]
struct Cost {
    requests: usize,
    bytes: usize,
}

/// Tells differences as they are asked for, each altered by `alter`, to the end
/// of the stream.
async fn tell(
    stream: &mut Stream,
    tree: &Tree,
    alter: &dyn Fn(u8, Vec<u8>) -> Vec<u8>,
) -> (End, Cost) {
    let mut cost = Cost::default();
    loop {
        let request: TreeRequest = match stream.receive().await {
            Ok(request) => request,
            Err(end) => return (end, cost),
        };
        cost.requests += 1;
        cost.bytes += codec::encode(&request).len();
        let told: Vec<Vec<u8>> = match request {
            TreeRequest::Differences { level, salt, pages } => {
                let told = pages.iter().map(|asked| {
                    let page = tree.page(level, &asked.first_key);
                    difference::make(Suite::One, level, &page.body, &salt, &asked.known).unwrap()
                });
                told.map(|told| alter(level, told)).collect()
            }
            // Behind a wrong one, lest two entries had one name.
            TreeRequest::Pages { level, keys } => {
                let pages = keys.iter().map(|key| tree.page(level, key).body.clone());
                pages.map(|page| alter(level, page)).collect()
            }
        };
        for bytes in told {
            let part = TreeReply::Part { bytes, more: false };
            cost.bytes += codec::encode(&part).len();
            stream.send(&part).await;
        }
    }
}

#[test]
fn differences_are_taken_in_place_and_wrong_ones_not_at_all() {
    let mut world = World::new();
    let tree = Tree::of(&states()[1]);
    // The hub comes to hold the old state.
    world.block_on(async { drop(comparing(&world).await) });
    let forged = End::Code(CloseCode::Forged);
    let malformed = End::Code(CloseCode::Malformed);
    let all_known = codec::compress(&[0, 0, 0, 0, 1]);
    let beyond = codec::compress(&[0, 1, 0, 0, 1]);
    let nothing = codec::compress(&[]);
    for (what, end, level, wrong) in [
        ("a leaf of the first entry alone", malformed, 0, all_known.clone()),
        ("an inner page of the first child alone", malformed, 1, all_known),
        ("an entry that the hub did not name", malformed, 0, beyond),
        ("a page without entries", malformed, 1, nothing),
        ("no compressed bytes", malformed, 0, vec![7; 30]),
    ] {
        world.attack(what, end, 1, async |world| {
            let (_peer, _open, mut stream, origin) = comparing(world).await;
            stream.send(&second(&origin, &tree, |_| {})).await;
            let alter = |of: u8, told: Vec<u8>| if of == level { wrong.clone() } else { told };
            tell(&mut stream, &tree, &alter).await.0
        });
    }
    // Signed, but not the root of these pages.
    world.attack("another signed root", forged, 1, async |world| {
        let (_peer, _open, mut stream, origin) = comparing(world).await;
        let head = second(&origin, &tree, |header| header.root = Suite::One.repeated(3));
        stream.send(&head).await;
        tell(&mut stream, &tree, &|_, told| told).await.0
    });

    let cost = world.block_on(async {
        let (_peer, _open, mut stream, origin) = comparing(&world).await;
        stream.send(&second(&origin, &tree, |_| {})).await;
        let (end, cost) = tell(&mut stream, &tree, &|_, told| told).await;
        assert_eq!(end, End::Finished);
        cost
    });
    let replica = world.federation.hub.partition(&format!("{DATASET}/{HOSTILE}")).unwrap();
    assert_eq!(
        (&replica["root"], &replica["seq"]),
        (&tree.summary.root.to_string().into(), &2.into())
    );
    assert_eq!(cost.requests, 2, "the root and one leaf");
    assert!(cost.bytes < 2500, "{} bytes", cost.bytes);
    let hub = &world.federation.hub;
    assert!(hub.log().contains("what differed is applied"));
    world.finish();
}
