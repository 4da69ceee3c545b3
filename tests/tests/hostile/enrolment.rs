//! Requests to join that do not fit their token. None of them uses the token up,
//! and none makes a member.

use certs::{authority::NodeKey, enrol::Token, keyfile, tls::ALPN_JOIN};
use harness::node::Node;
use protocol::{
    id::NodeId,
    message::{JoinRefused, JoinReply, JoinRequest, possession_bytes},
    sign::SignaturePurpose,
    suite::Suite,
};

use crate::{
    peer::Dial,
    world::{HONEST, World, identity},
};

const INVITED: &str = "410182";

/// A request that the token is good for.
pub fn request(token: &Token) -> JoinRequest {
    let (node_key, key) = (NodeKey::generate().unwrap(), keyfile::generate_signing_key(Suite::One));
    let proof = possession_bytes(&token.id, &token.node);
    JoinRequest {
        token_id: token.id,
        secret: *token.secret,
        node: token.node.clone(),
        csr: node_key.csr(&token.identity()).unwrap(),
        signing_key: key.public().as_bytes().to_vec(),
        possession: key.sign(SignaturePurpose::Possession, &proof).as_bytes().to_vec(),
    }
}

#[track_caller]
pub fn refused(world: &World, what: &str, request: &JoinRequest) -> JoinRefused {
    let dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    println!("{what}");
    refused_from(world, &dial, request)
}

#[track_caller]
pub fn refused_from(world: &World, dial: &Dial, request: &JoinRequest) -> JoinRefused {
    match answer(world, dial, request) {
        JoinReply::Refused(refused) => refused,
        other => panic!("{other:?}"),
    }
}

/// The hub's first word.
pub fn answer(world: &World, dial: &Dial, request: &JoinRequest) -> JoinReply {
    world.block_on(async {
        let peer = dial.connect().await.unwrap();
        let mut stream = peer.open().await;
        stream.send(request).await;
        stream.receive().await.unwrap()
    })
}

#[test]
fn who_joins_again_within_a_second_has_a_certificate_that_begins_later() {
    let world = World::new();
    let dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..world.dial() };
    // Several, so that at least one joins twice within a second of the clock.
    for node in ["410183", "410184", "410185"] {
        let begins = [0, 1].map(|_| {
            let address = world.federation.address().to_string();
            let text = world.federation.invite(node, &["--address", &address]);
            let JoinReply::Accepted { chain, .. } =
                answer(&world, &dial, &request(&Token::parse(&text).unwrap()))
            else {
                panic!("{node} is refused");
            };
            certs::identity::facts(&chain[0].clone().into()).unwrap().not_before
        });
        assert!(begins[0] < begins[1], "{begins:?}");
    }
    world.finish();
}

#[test]
fn a_request_that_does_not_fit_its_token_changes_nothing() {
    let mut world = World::new();
    let address = world.federation.address().to_string();
    let text = world.federation.invite(INVITED, &["--address", &address]);
    let token = Token::parse(&text).unwrap();
    let held = world.held();
    let alter = |alter: &dyn Fn(&mut JoinRequest)| {
        let mut request = request(&token);
        alter(&mut request);
        request
    };
    let other_csr = NodeKey::generate().unwrap().csr(&identity(HONEST)).unwrap();
    let other = NodeId::new(HONEST).unwrap();
    for (what, request, expected) in [
        ("a wrong secret", alter(&|r| r.secret[31] ^= 1), JoinRefused::UnknownToken),
        ("another csr", alter(&|r| r.csr = other_csr.clone()), JoinRefused::Mismatch),
        ("no csr", alter(&|r| r.csr = vec![]), JoinRefused::Mismatch),
        ("noise for a csr", alter(&|r| r.csr = vec![0x30; 4000]), JoinRefused::Mismatch),
        ("a weak key", alter(&|r| r.signing_key = vec![0; 32]), JoinRefused::Mismatch),
        ("a proof by another key", alter(&|r| r.possession[3] ^= 1), JoinRefused::Mismatch),
        (
            "a proof that is too short",
            alter(&|r| r.possession = vec![1; 63]),
            JoinRefused::Mismatch,
        ),
        ("another token's id", alter(&|r| r.token_id = [0; 8]), JoinRefused::UnknownToken),
        ("another node's name", alter(&|r| r.node = other.clone()), JoinRefused::Mismatch),
    ] {
        assert_eq!(refused(&world, what, &request), expected, "{what}");
    }
    // A right request for another node, by who holds the token.
    let theft = Token { node: other, ..token.clone() };
    assert_eq!(refused(&world, "another node", &request(&theft)), JoinRefused::Mismatch);
    assert_eq!(world.held(), held, "something was granted");
    world.check_service();

    let dir = world.federation.dir().join(INVITED);
    Node::new(INVITED, &dir).cli(&["join", &text]).expect_code(0);
    assert_eq!(refused(&world, "a token again", &request(&token)), JoinRefused::Used);
    world.finish();
}
