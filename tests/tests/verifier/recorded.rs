//! What a federation of real processes says on the wire, as bytes: a county that
//! has written, deleted and changed its signing key; then, with what lies in its
//! directory, a client of the test that asks the hub for all of it.
//!
//! Here crates of the workspace start processes, make certificates and dial.
//! What is said on streams is written and read by the verifier alone.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, OnceLock},
};

use certs::{
    authority::NodeKey,
    credentials::Credentials,
    keyfile::{KeyDir, SIGNING_KEY_FILE},
    tls::{ALPN, ALPN_JOIN},
};
use ed25519_dalek::{Signer as _, SigningKey};
use harness::{
    federation::{Federation, HUB},
    node::Node,
    table::Table,
};
use protocol::sign::SignaturePurpose;
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use super::{
    change::SignedHeader,
    hashes,
    hashes::Hash,
    layout,
    messages::{self, Control, FollowReply, JoinReply, JoinRequest, TreeReply},
    pages,
    token::Token,
};
use crate::{
    peer::{Dial, Peer, Stream},
    world::{hello, identity},
};

/// The county whose partition is verified.
pub const COUNTY: &str = "410122";
/// The node that joins only to be told what `_federation` is.
pub const NEWCOMER: &str = "410183";

/// A running federation, and the keys with which its county dials.
pub struct Scene {
    pub federation: Federation,
    pub runtime: Runtime,
    credentials: Option<Arc<Credentials>>,
}

impl Scene {
    #[track_caller]
    pub fn new() -> Self {
        let federation = Federation::new(&[COUNTY]);
        Self { federation, runtime: Runtime::new().unwrap(), credentials: None }
    }

    pub fn county(&self) -> &Node {
        &self.federation.counties[0]
    }

    /// A county or the hub imports these rows, as all that it has or not.
    #[track_caller]
    pub fn import(&self, node: &Node, table: &Table, full: bool) {
        let file = table.write(self.federation.dir(), "delivery.csv");
        if full {
            node.import_full("enterprise", &file);
        } else {
            node.import("enterprise", &file);
        }
        self.federation.wait_converged();
    }

    /// One more node joins; it does not run.
    #[track_caller]
    pub fn join(&self, name: &str) {
        let address = self.federation.address().to_string();
        let token = self.federation.invite(name, &["--address", &address]);
        let node = Node::new(name, &self.federation.dir().join(name));
        node.cli(&["join", &token]).expect_code(0);
        self.federation.wait_converged();
    }

    /// From here on the client of the test is the county.
    #[track_caller]
    pub fn stop_county(&mut self) {
        let (certs, keys) = (self.county().dir().join("certs"), keys(self.county()));
        let credentials = Credentials::load(&certs, &keys, &identity(COUNTY)).unwrap();
        self.credentials = Some(Arc::new(credentials));
        self.federation.counties[0].stop();
    }

    fn dial(&self) -> Dial {
        Dial {
            address: self.federation.address(),
            from: Ipv4Addr::LOCALHOST.into(),
            hub: identity(HUB),
            credentials: self.credentials.clone().expect("the county was stopped"),
            shown: None,
            anonymous: false,
            alpn: ALPN,
        }
    }

    /// Joins as a new node; answers the token and the bodies of all frames that the
    /// hub says.
    #[track_caller]
    pub fn enrol(&self) -> (String, Vec<Vec<u8>>) {
        let address = self.federation.address().to_string();
        let text = self.federation.invite(NEWCOMER, &["--address", &address]);
        let token = Token::parse(&text).unwrap();
        let key = SigningKey::from_bytes(&[0x42; 32]);
        let possession = [&token.id[..], NEWCOMER.as_bytes()].concat();
        let possession = hashes::with_context(layout::signature::POSSESSION, &possession);
        let request = messages::encode_join(&JoinRequest {
            token_id: token.id,
            secret: token.secret,
            node: NEWCOMER.to_owned(),
            request: NodeKey::generate().unwrap().csr(&identity(NEWCOMER)).unwrap(),
            public: key.verifying_key().to_bytes().to_vec(),
            possession: key.sign(&possession).to_bytes().to_vec(),
        });
        let dial = Dial { anonymous: true, alpn: ALPN_JOIN, ..self.dial() };
        let frames = self.runtime.block_on(async {
            let peer = dial.connect().await.unwrap();
            let mut stream = peer.open().await;
            stream.send_body(&request).await;
            stream.finish();
            let mut frames = Vec::new();
            while let Ok(body) = stream.receive_body().await {
                frames.push(body);
            }
            frames
        });
        assert_eq!(messages::join_reply(frames.last().unwrap()), Ok(JoinReply::Done));
        (text, frames)
    }

    /// What a county's client hears of a partition that it may have.
    #[track_caller]
    pub fn record(&self, partition: &str, until: u64) -> Partition {
        self.runtime.block_on(async {
            let peer = self.dial().connect().await.unwrap();
            let (mut control, _) = peer.say_hello(hello(vec![])).await;
            let follow = follow(&peer, partition, until).await;
            let newest = signed_header(follow.last().unwrap());
            let mut heads = BTreeMap::new();
            for body in &follow {
                let held = signed_header(body);
                let have = Some((held.header.seq, &held.hash));
                let mut stream = tree(&peer, partition, have).await;
                heads.insert(held.header.seq, stream.receive_body().await.unwrap());
                stream.finish();
                stream.end().await;
            }
            let mut stream = tree(&peer, partition, None).await;
            let head = stream.receive_body().await.unwrap();
            let pages = all_pages(&mut stream, &head).await;
            heads.insert(0, head);
            let mut trust: Vec<Vec<u8>> = Vec::new();
            // The hub says it at once, behind an anchor if that is not the first.
            while !trust.last().is_some_and(|body| is_freshness(body)) {
                trust.push(control.receive_body().await.unwrap());
            }
            println!("{partition} up to {}: {} pages", newest.header.seq, pages.len());
            Partition { name: partition.to_owned(), follow, heads, pages, trust }
        })
    }

    /// A node's word on a partition: number, head and root.
    #[track_caller]
    pub fn status(&self, node: &Node, name: &str) -> (u64, Json, Json) {
        let shown = node.partition(name).unwrap();
        (shown["seq"].as_u64().unwrap(), shown["head"].clone(), shown["root"].clone())
    }
}

fn keys(node: &Node) -> KeyDir {
    KeyDir::new(node.dir().join("keys"), None)
}

/// A key with which a node signs, for what the node itself would never sign.
pub struct NodeSigner(protocol::sign::SigningKey);

impl NodeSigner {
    /// The one that this node has now.
    pub fn of(node: &Node) -> Self {
        Self(keys(node).load(SIGNING_KEY_FILE).unwrap())
    }

    pub fn key_id(&self) -> Hash {
        hashes::key_id(self.0.public().as_bytes().try_into().unwrap())
    }

    /// Signs a header's hash.
    pub fn sign(&self, hash: &Hash) -> [u8; 64] {
        self.0.sign(SignaturePurpose::Header, hash).as_bytes().try_into().unwrap()
    }
}

/// A federation in which a county and the hub have changed their signing keys.
pub struct TwoKeys {
    pub token: String,
    /// The bodies of the frames of an enrolment.
    pub join: Vec<Vec<u8>>,
    /// The county's partition.
    pub heard: Partition,
    /// The county's keys, the earlier one first, and the hub's.
    pub county: [NodeSigner; 2],
    pub hub: [NodeSigner; 2],
    /// What the hub said of the partition: number, head and root, and its rows.
    pub shown: (u64, Json, Json),
    pub rows: Table,
}

/// Recorded once in a process: nothing of it is changed.
#[track_caller]
pub fn two_keys() -> &'static TwoKeys {
    static RECORDED: OnceLock<TwoKeys> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let mut scene = Scene::new();
        let (county, hub) = (scene.county().handle(), scene.federation.hub.handle());
        let own = county.own("enterprise");
        let first = [NodeSigner::of(&county), NodeSigner::of(&hub)];
        scene.import(&county, &Table::synthetic(1, 0..400, "一"), false);
        scene.import(&county, &Table::synthetic(1, 200..500, "二"), false);
        county.json(&["cert", "renew", "--signing-key"]);
        // As a whole: 30 rows are other ones, and 50 are gone.
        let mut whole = Table::synthetic(1, 0..200, "一");
        whole.put_all(&Table::synthetic(1, 200..450, "二"));
        whole.put_all(&Table::synthetic(1, 0..30, "三"));
        scene.import(&county, &whole, true);
        hub.json(&["cert", "renew", "--signing-key"]);
        scene.import(&county, &Table::synthetic(1, 440..460, "四"), false);
        let [county_first, hub_first] = first;
        let keys = ([county_first, NodeSigner::of(&county)], [hub_first, NodeSigner::of(&hub)]);
        let shown = scene.status(&hub, &own);
        let rows = Table::parse(&hub.export(&own));
        scene.stop_county();
        let (token, join) = scene.enrol();
        let heard = scene.record(&format!("test-city/{own}/*"), shown.0);
        scene.federation.hub.verify_deep();
        scene.federation.hub.stop();
        TwoKeys { token, join, heard, county: keys.0, hub: keys.1, shown, rows }
    })
}

/// All that was heard of a partition.
pub struct Partition {
    /// Its full name.
    pub name: String,
    /// The bodies of a Follow stream's frames from number 1 on.
    pub follow: Vec<Vec<u8>>,
    /// Those of the first answer on Tree streams, by the number that was held.
    pub heads: BTreeMap<u64, Vec<u8>>,
    /// Pages of the newest head by level and first key; that of the root is empty.
    pub pages: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// The bodies on the control stream behind the hello, up to the first word on
    /// what is newest.
    pub trust: Vec<Vec<u8>>,
}

fn is_freshness(body: &[u8]) -> bool {
    matches!(messages::control(body), Ok(Control::Freshness(_)))
}

fn signed_header(body: &[u8]) -> SignedHeader {
    let Ok(FollowReply::ChangeSet { header, .. }) = messages::follow_reply(body) else {
        panic!("no change set");
    };
    SignedHeader::decode(&header).unwrap()
}

async fn follow(peer: &Peer, partition: &str, until: u64) -> Vec<Vec<u8>> {
    let mut stream = peer.open().await;
    stream.send_body(&messages::encode_follow(partition, None)).await;
    let mut bodies = Vec::new();
    loop {
        let body = stream.receive_body().await.unwrap();
        let signed = signed_header(&body);
        // The hub closes a stream on which another root is acknowledged.
        let position = (signed.header.seq, &signed.hash);
        stream.send_body(&messages::encode_ack(position, &signed.header.root)).await;
        bodies.push(body);
        if signed.header.seq == until {
            return bodies;
        }
    }
}

async fn tree(peer: &Peer, partition: &str, have: Option<(u64, &Hash)>) -> Stream {
    let mut stream = peer.open().await;
    stream.send_body(&messages::encode_tree(partition, have)).await;
    stream
}

/// All pages below a head, from the root down.
async fn all_pages(stream: &mut Stream, head: &[u8]) -> BTreeMap<(u8, Vec<u8>), Vec<u8>> {
    let Ok(TreeReply::Head { levels, .. }) = messages::tree_reply(head) else {
        panic!("no head");
    };
    let (mut found, mut keys) = (BTreeMap::new(), vec![Vec::new()]);
    for level in (0..levels).rev() {
        let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        stream.send_body(&messages::encode_pages(level, &asked)).await;
        let mut below = Vec::new();
        for key in keys {
            let page = page(stream).await;
            if level > 0 {
                below.extend(pages::inner(&page).unwrap().into_iter().map(|child| child.first_key));
            }
            found.insert((level, key), page);
        }
        keys = below;
    }
    found
}

async fn page(stream: &mut Stream) -> Vec<u8> {
    let mut page = Vec::new();
    loop {
        let body = stream.receive_body().await.unwrap();
        let Ok(TreeReply::Part { bytes, more }) = messages::tree_reply(&body) else {
            panic!("no part");
        };
        page.extend(bytes);
        if !more {
            return page;
        }
    }
}
