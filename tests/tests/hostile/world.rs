//! A hub, an honest county that works, and a hostile one that has joined and
//! whose keys the test holds.

use std::{future::Future, path::Path, sync::Arc};

use certs::{
    authority::{Authority, CaDirs, IssuerChoice, Lifetimes, NodeKey},
    credentials::Credentials,
    identity::Identity,
    keyfile::{KeyDir, SIGNING_KEY_FILE},
    tls::ALPN,
};
use harness::{
    federation::{Federation, HUB},
    node::{Node, path_text, wait_until},
    table::Table,
};
use protocol::{
    change::Position,
    hash::Hash,
    id::{FederationId, NodeId, PartitionId},
    message::{Announced, Hello, PROTOCOL_VERSION},
    sign::SigningKey,
};
use serde_json::Value as Json;
use tokio::runtime::Runtime;

use crate::peer::{Dial, End, Peer};

/// The county that follows the rules.
pub const HONEST: &str = "410122";
/// The member that does not.
pub const HOSTILE: &str = "410181";
/// As the harness names it.
pub const FEDERATION: &str = "test-city";

pub struct World {
    pub federation: Federation,
    pub runtime: Runtime,
    /// The hostile member's certificate, trusting the hub's root.
    pub credentials: Arc<Credentials>,
    /// The hostile member's registered signing key.
    pub key: SigningKey,
    rows: u32,
}

impl World {
    #[track_caller]
    pub fn new() -> Self {
        let federation = Federation::new(&[HONEST]);
        let dir = federation.dir().join(HOSTILE);
        let address = federation.address().to_string();
        let token = federation.invite(HOSTILE, &["--address", &address]);
        Node::new(HOSTILE, &dir).cli(&["join", &token]).expect_code(0);
        let runtime = Runtime::new().unwrap();
        let keys = KeyDir::new(dir.join("keys"), None);
        let credentials = Credentials::load(&dir.join("certs"), &keys, &identity(HOSTILE)).unwrap();
        let key = keys.load(SIGNING_KEY_FILE).unwrap();
        let mut world =
            Self { federation, runtime, credentials: Arc::new(credentials), key, rows: 0 };
        world.check_service();
        world
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The hostile member's way to the hub.
    pub fn dial(&self) -> Dial {
        Dial {
            address: self.federation.address(),
            hub: identity(HUB),
            credentials: self.credentials.clone(),
            shown: None,
            anonymous: false,
            alpn: ALPN,
        }
    }

    /// The hostile member, verified and connected; no hello yet.
    pub async fn connect(&self) -> Peer {
        self.dial().connect().await.expect("a member connects")
    }

    /// A certificate that the hub's own authority issues to `node`; begins
    /// `age` ago and lasts for `lifetime`.
    pub fn issue(
        &self,
        node: &str,
        age: time::Duration,
        lifetime: time::Duration,
    ) -> Arc<Credentials> {
        let authority = Authority::open(&self.hub_dirs(), &IssuerChoice::default()).unwrap();
        issue(&authority, identity(node), age, lifetime)
    }

    /// The hub's certificates and keys.
    pub fn hub_dirs(&self) -> CaDirs {
        ca_dirs(self.federation.hub.dir())
    }

    /// How often the hub says that the hostile member broke the protocol.
    pub fn misbehaved(&self) -> u64 {
        let status = self.federation.hub.status();
        let peers = status["peers"].as_array().unwrap();
        let hostile = peers.iter().find(|peer| peer["node"] == HOSTILE).unwrap();
        hostile["misbehaved"].as_u64().unwrap()
    }

    /// All that the hub holds but the honest county's own data: name, number,
    /// root, and whether it is quarantined.
    pub fn held(&self) -> Vec<(Json, Json, Json, bool)> {
        let status = self.federation.hub.status();
        let partitions = status["partitions"].as_array().unwrap();
        partitions
            .iter()
            .filter(|partition| partition["origin"] != HONEST)
            .map(|partition| {
                let field = |name: &str| partition[name].clone();
                let quarantined = partition["state"] == "quarantined";
                (field("partition"), field("seq"), field("root"), quarantined)
            })
            .collect()
    }

    /// An attack that ends with `expected`, is counted `counted` times, and
    /// leaves nothing behind.
    #[track_caller]
    pub fn attack(
        &mut self,
        what: &str,
        expected: End,
        counted: u64,
        attack: impl AsyncFnOnce(&World) -> End,
    ) {
        let (before, held) = (self.misbehaved(), self.held());
        let end = self.block_on(attack(self));
        assert_eq!(end, expected, "{what}");
        // The count is moved right after the code was sent.
        wait_until(&format!("{what} is counted"), || self.misbehaved() >= before + counted);
        assert_eq!(self.misbehaved(), before + counted, "{what}");
        assert_eq!(self.held(), held, "{what}: something was kept");
        self.check_service();
        println!("{what}: {end:?}");
    }

    /// The honest county imports a row, and it arrives; nobody has panicked.
    #[track_caller]
    pub fn check_service(&mut self) {
        self.rows += 1;
        let row = Table::synthetic(1, self.rows..self.rows + 1, "诚实");
        let file = row.write(self.federation.dir(), "honest.csv");
        let county = &self.federation.counties[0];
        let report = county.import("enterprise", &file);
        assert_eq!(report["inserted"], 1, "{report}");
        let name = county.own("enterprise");
        let own = county.partition(&name).expect("the county holds its own partition");
        wait_until("an honest row arrives", || {
            let replica = self.federation.hub.partition(&name);
            replica.is_some_and(|replica| replica["head"] == own["head"])
        });
        assert!(self.federation.hub.is_running(), "the hub ended");
        let log = self.federation.hub.log();
        assert!(!log.contains("panicked at"), "the hub panicked: {log}");
    }

    /// The end of a test: everything verifies, unless it waits for a person, and
    /// the hub stops when told to.
    #[track_caller]
    pub fn finish(mut self) {
        self.check_service();
        if self.held().iter().all(|(.., quarantined)| !quarantined) {
            self.federation.hub.verify_deep();
        }
        self.federation.hub.stop();
    }
}

pub fn identity(node: &str) -> Identity {
    identity_in(FEDERATION, node)
}

pub fn identity_in(federation: &str, node: &str) -> Identity {
    Identity::new(&FederationId::new(federation).unwrap(), &NodeId::new(node).unwrap())
}

/// A certificate by an authority; it begins `age` ago.
pub fn issue(
    authority: &Authority,
    identity: Identity,
    age: time::Duration,
    lifetime: time::Duration,
) -> Arc<Credentials> {
    let key = NodeKey::generate().unwrap();
    let began = time::OffsetDateTime::now_utc() - age;
    let chain = authority.issue(&identity, &key.csr(&identity).unwrap(), began, lifetime).unwrap();
    let roots = vec![authority.root().clone()];
    Arc::new(Credentials::new(chain, key.private_key(), roots, identity).unwrap())
}

/// The authority of a federation with a root of its own, in `dir`.
pub fn other_authority(dir: &Path, federation: &str) -> Authority {
    let federation = FederationId::new(federation).unwrap();
    let now = time::OffsetDateTime::now_utc();
    Authority::create(&ca_dirs(dir), &federation, now, &Lifetimes::default()).unwrap()
}

fn ca_dirs(dir: &Path) -> CaDirs {
    let keys = KeyDir::new(dir.join("keys"), None);
    CaDirs { certs: dir.join("certs"), root_keys: keys.clone(), keys }
}

/// A partition by its full name below the federation.
pub fn partition(text: &str) -> PartitionId {
    PartitionId::parse(&FederationId::new(FEDERATION).unwrap(), text).unwrap()
}

/// A claim to hold number 1 of a partition.
pub fn claim(partition: PartitionId) -> Announced {
    let position = Position { seq: 1, hash: Hash([7; 32]) };
    Announced { partition, position, root: Hash([8; 32]), records: 1 }
}

pub fn hello(heads: Vec<Announced>) -> Hello {
    Hello { versions: vec![PROTOCOL_VERSION], build: "hostile".into(), now_ms: 0, heads }
}

/// Runs the command line of a node that is to fail, and answers its complaint.
#[track_caller]
pub fn join_fails(dir: &Path, token: &str) -> String {
    let output = harness::node::creditsync(&["--dir", path_text(dir), "join", token]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(!dir.join("creditsync.toml").exists(), "something was set up");
    output.stderr
}
