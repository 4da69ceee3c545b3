//! A member that makes the hub take pages, and shows a tree that is not the one
//! it signed.

use std::time::Duration;

use protocol::{
    change::{Header, Position},
    message::{CloseCode, FollowReply, Open, PAGE_PART_BYTES_MAX, TreeReply, TreeRequest},
    page::{MadePage, RawLeaf, decode_inner, make_inner},
    suite::Suite,
    tree::empty_root,
};

use crate::{
    forge::{Origin, Tree, entries, entries_of},
    peer::{End, Peer, Stream},
    provider::followed,
    world::World,
};

/// Answers the follow with `TakePages`, and hands over the tree stream that the
/// hub opens thereupon.
async fn asked_for_pages<'a>(
    world: &'a World,
    dataset: &str,
) -> (Peer, [Stream; 2], Stream, Origin<'a>) {
    let (peer, control, mut follow, origin, _) = followed(world, dataset).await;
    follow.send(&FollowReply::TakePages).await;
    let mut stream = peer.accept().await;
    let open: Open = stream.receive().await.unwrap();
    assert_eq!(open, Open::Tree { partition: origin.partition.clone(), have: None });
    (peer, [control, follow], stream, origin)
}

/// Serves pages as they are asked for, each altered by `alter`, to the end of
/// the stream.
async fn serve(stream: &mut Stream, tree: &Tree, alter: &dyn Fn(&MadePage) -> Vec<u8>) -> End {
    loop {
        let (level, keys) = match stream.receive().await {
            Ok(TreeRequest::Pages { level, keys }) => (level, keys),
            Ok(other) => panic!("the hub holds nothing to compare: {other:?}"),
            Err(end) => return end,
        };
        for key in keys {
            let body = alter(tree.page(level, &key));
            for (index, part) in body.chunks(PAGE_PART_BYTES_MAX).enumerate() {
                let more = (index + 1) * PAGE_PART_BYTES_MAX < body.len();
                stream.send(&TreeReply::Part { bytes: part.to_vec(), more }).await;
            }
        }
    }
}

/// A tree whose head or pages are altered.
#[track_caller]
fn attack(
    world: &mut World,
    what: &str,
    code: CloseCode,
    head: impl FnOnce(&mut Header),
    page: &dyn Fn(&MadePage) -> Vec<u8>,
) {
    world.attack(what, End::Code(code), 1, async |world| {
        let (_peer, _open, mut stream, origin) = asked_for_pages(world, "enterprise").await;
        let tree = Tree::of(&entries(1000));
        stream.send(&origin.tree_head(&tree, head)).await;
        serve(&mut stream, &tree, page).await
    });
}

fn as_it_is(page: &MadePage) -> Vec<u8> {
    page.body.clone()
}

/// Alters the children of inner pages.
fn inner(alter: impl Fn(&mut Vec<protocol::page::PageRef>)) -> impl Fn(&MadePage) -> Vec<u8> {
    move |made| {
        if made.level == 0 {
            return made.body.clone();
        }
        let mut children = decode_inner(Suite::One, &made.body).unwrap();
        alter(&mut children);
        make_inner(Suite::One, made.level, &children).body
    }
}

/// Puts a leaf with one altered value in place of each.
fn other_leaf(made: &MadePage) -> Vec<u8> {
    if made.level > 0 {
        return made.body.clone();
    }
    let leaf = protocol::page::Leaf::decode(&made.body).unwrap();
    let other = leaf.entries().enumerate();
    let other =
        other.map(|(index, (key, value))| (key, if index == 0 { b"another" } else { value }));
    RawLeaf::of(other).make(Suite::One).body
}

#[test]
fn a_tree_that_was_not_signed_is_refused() {
    let mut world = World::new();
    let forged = CloseCode::Forged;
    attack(&mut world, "an altered leaf", forged, |_| {}, &other_leaf);
    attack(&mut world, "a leaf that is cut", CloseCode::Malformed, |_| {}, &|made| {
        let whole = made.level > 0;
        made.body[..made.body.len() - usize::from(!whole)].to_vec()
    });
    let first = |made: &MadePage| Tree::of(&entries(1000)).page(made.level, &[]).body.clone();
    attack(&mut world, "the first leaf again and again", forged, |_| {}, &first);
    let moved = inner(|children| children[1].first_key.push(0));
    attack(&mut world, "an altered first key", forged, |_| {}, &moved);
    let counted = inner(|children| children[0].records += 1);
    attack(&mut world, "an altered count", forged, |_| {}, &counted);
    let fewer = inner(|children| drop(children.pop()));
    attack(&mut world, "a child that is missing", forged, |_| {}, &fewer);
    attack(
        &mut world,
        "another signed root",
        forged,
        |h| h.root = Suite::One.repeated(3),
        &as_it_is,
    );
    attack(&mut world, "more records than there are", forged, |h| h.records += 1, &as_it_is);
    attack(&mut world, "no records, and a tree", forged, |h| h.records = 0, &as_it_is);
    let other = crate::world::partition(&format!("enterprise/{}", crate::world::HONEST));
    let not_entitled = CloseCode::NotEntitled;
    attack(&mut world, "another's head", not_entitled, |h| h.partition = other, &as_it_is);
    // Signed, but without a `_federation` that the hub knows.
    let future = Position { seq: 1000, hash: Suite::One.repeated(3) };
    world.attack("a head from the future", End::Code(CloseCode::Unavailable), 0, async |world| {
        let (_peer, _open, mut stream, origin) = asked_for_pages(world, "enterprise").await;
        let tree = Tree::of(&entries(1000));
        stream.send(&origin.tree_head(&tree, |h| h.federation_head = Some(future))).await;
        serve(&mut stream, &tree, &as_it_is).await
    });
    world.finish();
}

#[test]
fn heights_and_parts_that_make_no_tree_are_refused() {
    let mut world = World::new();
    // Two levels are right. An inner page is no leaf, and level 1 is not hashed
    // as level 2.
    for (levels, code) in [
        (0, CloseCode::Forged),
        (1, CloseCode::Malformed),
        (3, CloseCode::Forged),
        (11, CloseCode::Forged),
        (255, CloseCode::Forged),
    ] {
        let what = format!("a tree of {levels} levels");
        world.attack(&what, End::Code(code), 1, async |world| {
            let (_peer, _open, mut stream, origin) = asked_for_pages(world, "enterprise").await;
            let tree = Tree::of(&entries(1000));
            let TreeReply::Head { header, root, proof, .. } = origin.tree_head(&tree, |_| {})
            else {
                panic!()
            };
            stream.send(&TreeReply::Head { header, levels, root, proof }).await;
            // Whatever is asked for is answered with the root.
            let root = tree.page(1, &[]).clone();
            while stream.receive::<TreeRequest>().await.is_ok() {
                stream.send(&TreeReply::Part { bytes: root.body.clone(), more: false }).await;
            }
            stream.end().await
        });
    }
    let empty = |h: &mut Header| (h.root, h.records) = (empty_root(Suite::One), 1);
    attack(&mut world, "an empty root with a record", CloseCode::Forged, empty, &as_it_is);

    let part = |bytes: Vec<u8>, more| TreeReply::Part { bytes, more };
    let full = part(vec![0; PAGE_PART_BYTES_MAX], true);
    for (what, code, first, parts, repeats) in [
        ("a part before the head", CloseCode::Unexpected, false, part(vec![1], false), 1),
        ("a page without an end", CloseCode::Forged, true, full, 20),
        ("parts without bytes", CloseCode::Malformed, true, part(vec![], true), 100),
        (
            "a part over 1 MiB",
            CloseCode::Malformed,
            true,
            part(vec![0; PAGE_PART_BYTES_MAX + 1], false),
            1,
        ),
    ] {
        world.attack(what, End::Code(code), 1, async |world| {
            let (_peer, _open, mut stream, origin) = asked_for_pages(world, "enterprise").await;
            if first {
                let tree = Tree::of(&entries(1000));
                stream.send(&origin.tree_head(&tree, |_| {})).await;
                stream.receive::<TreeRequest>().await.unwrap();
            }
            for _ in 0..repeats {
                stream.send(&parts).await;
            }
            stream.end().await
        });
    }
    world.attack("the root twice", End::Code(CloseCode::Malformed), 1, async |world| {
        let (_peer, _open, mut stream, origin) = asked_for_pages(world, "enterprise").await;
        let tree = Tree::of(&entries(1000));
        stream.send(&origin.tree_head(&tree, |_| {})).await;
        let root = TreeReply::Part { bytes: tree.page(1, &[]).body.clone(), more: false };
        stream.send(&root).await;
        stream.send(&root).await;
        stream.end().await
    });
    world.finish();
}

#[test]
fn endless_take_pages_cost_little_and_an_honest_tree_is_taken() {
    let mut world = World::new();
    // Each attempt fails, and the next one waits twice as long.
    let attempts = world.block_on(async {
        let (peer, _open, mut stream, _origin) = asked_for_pages(&world, "enterprise").await;
        stream.finish();
        let mut attempts = 1;
        let counting = async {
            loop {
                let mut stream = peer.accept().await;
                match stream.receive().await {
                    Ok(Open::Follow { .. }) => stream.send(&FollowReply::TakePages).await,
                    Ok(Open::Tree { .. }) => attempts += 1,
                    other => panic!("{other:?}"),
                }
                // Dropped: the hub sees the end of the stream.
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(4), counting).await;
        attempts
    });
    assert!((2..=8).contains(&attempts), "{attempts} attempts in 4 s");
    assert!(world.held().iter().all(|(_, _, _, quarantined)| !quarantined));
    world.check_service();

    // The same keys, used honestly: so the attacks failed for their own reasons.
    let tree = Tree::of(&entries_of("admin-licence", 1000));
    world.block_on(async {
        let (_peer, _open, mut stream, origin) = asked_for_pages(&world, "admin-licence").await;
        stream.send(&origin.tree_head(&tree, |_| {})).await;
        assert_eq!(serve(&mut stream, &tree, &as_it_is).await, End::Finished);
    });
    let name = format!("admin-licence/{}", crate::world::HOSTILE);
    let replica = world.federation.hub.partition(&name).expect("the tree was taken");
    assert_eq!(replica["root"], tree.summary.root.to_string());
    assert_eq!(replica["records"], 1000);
    world.finish();
}
