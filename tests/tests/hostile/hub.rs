//! A hub that is not the one of the token: `join` refuses it and sets nothing
//! up.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use certs::{
    authority::{Authority, IssuerChoice},
    credentials::Credentials,
    enrol::Token,
    tls::server_config,
};
use harness::federation::Federation;
use protocol::{
    message::{JoinReply, JoinRequest},
    suite::Suite,
};
use quinn::crypto::rustls::QuicServerConfig;

use crate::{
    peer::Stream,
    world::{FEDERATION, HOSTILE, World, identity, join_fails, other_authority},
};

const INVITED: &str = "410182";

/// A fresh token for a node, its addresses replaced.
fn token(federation: &Federation, address: SocketAddr) -> Token {
    let text = federation.invite(INVITED, &["--address", &address.to_string()]);
    Token::parse(&text).unwrap()
}

/// A directory that nobody has used.
fn fresh_dir(federation: &Federation) -> std::path::PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    federation.dir().join(format!("joining-{number}"))
}

#[test]
fn a_hub_of_another_root_or_history_is_refused() {
    let ours = Federation::hub_only();
    let theirs = Federation::hub_only();
    // The same names, another root.
    let lured = token(&ours, theirs.address());
    let complaint = join_fails(&fresh_dir(&ours), &lured.to_text());
    assert!(complaint.contains("the secure handshake failed"), "{complaint}");
    // Nothing reached the other hub that it could have used.
    assert!(!theirs.hub.log().contains("joined"));

    let other_history =
        Token { federation_head: Suite::One.repeated(4), ..token(&ours, ours.address()) };
    let complaint = join_fails(&fresh_dir(&ours), &other_history.to_text());
    assert!(complaint.contains("not the one that the token names"), "{complaint}");

    for node in [ours.hub, theirs.hub] {
        assert!(!node.log().contains("panicked at"));
    }
}

/// A hub that holds the real hub's certificate, and answers as the test says.
struct FakeHub {
    address: SocketAddr,
    _endpoint: quinn::Endpoint,
}

type Answers = Arc<dyn Fn(JoinRequest) -> Vec<JoinReply> + Send + Sync>;

impl FakeHub {
    fn start(world: &World, answers: Answers) -> Self {
        let dirs = world.hub_dirs();
        let hub = identity(harness::federation::HUB);
        let credentials = Credentials::load(&dirs.certs, &dirs.keys, &hub).unwrap();
        let tls = server_config(Suite::One, &credentials, None, Arc::new(())).unwrap();
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let _inside = world.runtime.enter();
        let endpoint = quinn::Endpoint::server(config, any).unwrap();
        let (listening, address) = (endpoint.clone(), endpoint.local_addr().unwrap());
        world.runtime.spawn(async move {
            while let Some(incoming) = listening.accept().await {
                let connection = incoming.await.unwrap();
                let mut stream = Stream::new(connection.accept_bi().await.unwrap());
                let request = stream.receive().await.unwrap();
                for answer in answers(request) {
                    stream.send(&answer).await;
                }
                stream.finish();
                connection.closed().await;
            }
        });
        Self { address, _endpoint: endpoint }
    }
}

/// What a real hub would answer to a request for a certificate.
fn accepted(authority: &Authority, csr: &[u8]) -> JoinReply {
    let now = time::OffsetDateTime::now_utc();
    let chain = authority.issue(&identity(INVITED), csr, now, time::Duration::days(1)).unwrap();
    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
    JoinReply::Accepted { chain, root: authority.root().to_vec() }
}

#[track_caller]
fn refused(world: &World, what: &str, complaint: &str, answers: Answers) {
    let hub = FakeHub::start(world, answers);
    let said =
        join_fails(&fresh_dir(&world.federation), &token(&world.federation, hub.address).to_text());
    assert!(said.contains(complaint), "{what}: {said}");
    println!("{what}: {}", said.trim());
}

#[test]
fn answers_that_no_honest_hub_gives_are_refused() {
    let world = World::new();
    let dirs = world.hub_dirs();
    let open = move || Authority::open(&dirs, &IssuerChoice::default()).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let other_root = other_authority(other_dir.path(), FEDERATION).root().to_vec();
    let another = world.issue(HOSTILE, time::Duration::ZERO, time::Duration::days(1));
    let another: Vec<Vec<u8>> = another.chain.iter().map(|cert| cert.to_vec()).collect();

    let authority = open();
    let root = authority.root().to_vec();
    refused(
        &world,
        "another node's certificate",
        "this node is",
        Arc::new(move |_| vec![JoinReply::Accepted { chain: another.clone(), root: root.clone() }]),
    );
    let authority = open();
    refused(
        &world,
        "another root",
        "another root certificate",
        Arc::new(move |request| {
            let JoinReply::Accepted { chain, .. } = accepted(&authority, &request.csr) else {
                unreachable!("it is one");
            };
            vec![JoinReply::Accepted { chain, root: other_root.clone() }]
        }),
    );
    let authority = open();
    let root = authority.root().to_vec();
    refused(
        &world,
        "no certificate",
        "certificate",
        Arc::new(move |_| vec![JoinReply::Accepted { chain: vec![], root: root.clone() }]),
    );
    refused(&world, "another key's certificate", "does not fit", {
        let authority = open();
        Arc::new(move |_| {
            let stranger = certs::authority::NodeKey::generate().unwrap();
            vec![accepted(&authority, &stranger.csr(&identity(INVITED)).unwrap())]
        })
    });
    let authority = open();
    refused(
        &world,
        "no _federation",
        "not the one that the token names",
        Arc::new(move |request| vec![accepted(&authority, &request.csr), JoinReply::Done]),
    );
    let authority = open();
    refused(
        &world,
        "an early end",
        "early",
        Arc::new(move |request| vec![accepted(&authority, &request.csr)]),
    );
    refused(&world, "out of order", "out of order", Arc::new(|_| vec![JoinReply::Done]));
    let forged = forged_federation(&world);
    let authority = open();
    refused(
        &world,
        "a forged _federation",
        "_federation from the hub",
        Arc::new(move |request| {
            vec![accepted(&authority, &request.csr), forged.clone(), JoinReply::Done]
        }),
    );
    world.finish();
}

/// A first change set of `_federation` that a member signed.
fn forged_federation(world: &World) -> JoinReply {
    use protocol::message::FollowReply;
    let partition = crate::world::partition(&format!("_federation/{}", harness::federation::HUB));
    let federation_head = protocol::change::Position { seq: 1, hash: Suite::One.repeated(1) };
    let origin = crate::forge::Origin { partition, key: &world.key, federation_head };
    match origin.altered(|header| header.federation_head = None) {
        FollowReply::ChangeSet { header, body } => JoinReply::ChangeSet { header, body },
        other => panic!("{other:?}"),
    }
}
