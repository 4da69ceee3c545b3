//! A hub that is not the real one, and a member that was lured to it: its
//! configuration names the wrong address, as a forged answer of DNS would.
//!
//! The false hub may have everything that the real one has, down to its keys.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use certs::{
    credentials::Credentials,
    keyfile::{KeyDir, SIGNING_KEY_FILE},
    tls::server_config,
};
use harness::{federation::HUB, node::Node};
use protocol::{
    change::{
        BODY_BYTES_MAX, Change, Header, Position, changes_hash, decode_changes, encode_changes,
    },
    codec,
    federation::Entry,
    message::{Announced, Control, FollowReply, FollowRequest, Open, decode_header},
    sign::SigningKey,
};
use quinn::crypto::rustls::QuicServerConfig;

use crate::{
    forge::{Tree, reply},
    peer::{End, Peer, Stream, soon},
    world::{World, hello, identity, partition},
};

/// A member that dials a false hub.
pub struct Victim {
    pub node: Node,
}

impl Victim {
    /// Joins the real hub as `name`, and dials the false one from its start.
    pub fn new(world: &World, name: &str, hub: &FalseHub) -> Self {
        let mut node = world.join(name);
        node.configure("addresses", &format!("[\"{}\"]", hub.address));
        node.configure("retry_max_s", "1");
        node.start();
        Self { node }
    }

    pub fn alarms(&self) -> Vec<String> {
        let status = self.node.status();
        let alarms = status["alarms"].as_array().unwrap();
        alarms.iter().map(|alarm| alarm.as_str().unwrap().to_owned()).collect()
    }

    /// Its `_federation`.
    pub fn federation(&self) -> serde_json::Value {
        self.node.partition(&format!("_federation/{HUB}")).unwrap()
    }

    /// Lines of its log at this level with these words.
    pub fn lines(&self, level: &str, words: &str) -> usize {
        let log = self.node.log();
        log.lines().filter(|line| line.contains(level) && line.contains(words)).count()
    }
}

/// The false hub.
pub struct FalseHub {
    pub address: SocketAddr,
    endpoint: quinn::Endpoint,
}

impl FalseHub {
    /// Shows what the real hub shows.
    pub fn start(world: &World) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let _inside = world.runtime.enter();
        let endpoint = quinn::Endpoint::server(config(&hub_credentials(world)), any).unwrap();
        Self { address: endpoint.local_addr().unwrap(), endpoint }
    }

    /// Shows this from now on.
    pub fn show(&self, shown: &Credentials) {
        self.endpoint.set_server_config(Some(config(shown)));
    }

    /// How the next dialler takes what is shown.
    pub async fn refused(&self) -> End {
        match self.next().await {
            Ok(connection) => End::of_connection(&soon("it is refused", connection.closed()).await),
            Err(end) => end,
        }
    }

    async fn next(&self) -> Result<quinn::Connection, End> {
        let incoming = soon("the victim dials", self.endpoint.accept()).await.unwrap();
        let connection = soon("a handshake ends", incoming.into_future()).await;
        connection.map_err(|error| End::of_connection(&error))
    }

    /// The next dialler, with whom this hub has exchanged hellos.
    pub async fn lured(&self, heads: Vec<Announced>) -> Lured {
        loop {
            let Ok(connection) = self.next().await else { continue };
            // One that was dialled before the present configuration may end.
            let Ok(streams) = soon("it says hello", connection.accept_bi()).await else { continue };
            let mut control = Stream::new(streams);
            let Ok(Open::Control(_)) = control.receive().await else { panic!("no hello") };
            control.send(&Control::Hello(hello(heads.clone()))).await;
            return Lured { peer: Peer::of(connection, self.endpoint.clone()), control };
        }
    }
}

/// A member that takes this hub for its own.
pub struct Lured {
    pub peer: Peer,
    pub control: Stream,
}

impl Lured {
    /// Sends a message; when this answers it was dealt with, because what follows
    /// it costs the connection.
    pub async fn tell(mut self, message: &Control) -> End {
        self.control.send(message).await;
        self.control.send(&Control::Hello(hello(vec![]))).await;
        self.peer.closed().await
    }

    /// The stream by which the member follows `_federation`, with these change
    /// sets sent. Answers how it takes them: an acknowledgement of each, or how
    /// the stream ends.
    pub async fn provide(&self, sets: &[FollowReply]) -> Result<(), End> {
        let mut stream = self.peer.accept().await;
        match stream.receive().await {
            Ok(Open::Follow { partition, .. }) if partition.dataset.is_system() => {}
            other => panic!("{other:?}"),
        }
        for set in sets {
            stream.send(set).await;
        }
        for _ in sets {
            let FollowRequest::Ack { .. } = stream.receive().await?;
        }
        Ok(())
    }
}

fn config(shown: &Credentials) -> quinn::ServerConfig {
    let tls = server_config(shown, None, Arc::new(())).unwrap();
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

pub fn hub_credentials(world: &World) -> Credentials {
    let dirs = world.hub_dirs();
    Credentials::load(&dirs.certs, &dirs.keys, &identity(HUB)).unwrap()
}

pub fn hub_key(world: &World) -> SigningKey {
    KeyDir::new(world.federation.hub.dir().join("keys"), None).load(SIGNING_KEY_FILE).unwrap()
}

/// `_federation` as the real hub has it, to be gone on with.
#[derive(Clone)]
pub struct History {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    headers: Vec<Header>,
    pub head: Position,
}

impl History {
    /// All of it, as the hostile member may have it.
    pub async fn of_hub(world: &World) -> Self {
        let peer = world.connect().await;
        let (_control, theirs) = peer.say_hello(hello(vec![])).await;
        let head = crate::forge::federation_head(&theirs);
        let mut history = Self { records: BTreeMap::new(), headers: Vec::new(), head };
        let mut stream = peer.open().await;
        stream.send(&Open::Follow { partition: system(), have: None }).await;
        while (history.headers.len() as u64) < head.seq {
            let Ok(FollowReply::ChangeSet { header, body }) = stream.receive().await else {
                panic!("a member may have _federation");
            };
            let header = decode_header(&header).unwrap();
            let changes = decode_changes(&codec::decompress(&body, BODY_BYTES_MAX).unwrap());
            history.take(&changes.unwrap());
            history.headers.push(header.header().clone());
            let position = header.position();
            stream.send(&FollowRequest::Ack { position, root: header.header().root }).await;
        }
        history
    }

    fn take(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put { key, value } => drop(self.records.insert(key.clone(), value.clone())),
                Change::Delete { key } => drop(self.records.remove(key)),
            }
        }
    }

    /// The head of its first change sets.
    pub fn at(&self, seq: u64) -> Position {
        match self.headers.get(seq as usize) {
            Some(next) => Position { seq, hash: next.previous },
            None => self.head,
        }
    }

    /// As a hello announces a head.
    pub fn announced(head: Position) -> Announced {
        Announced { position: head, ..crate::world::claim(system()) }
    }

    /// Goes on with these changes as `key` signs them; the header may be altered
    /// before that.
    pub fn go_on(
        &mut self,
        changes: &[Change],
        key: &SigningKey,
        alter: impl FnOnce(&mut Header),
    ) -> FollowReply {
        self.take(changes);
        let entries = self.records.clone().into_iter().collect();
        let (body, summary) = (encode_changes(changes), Tree::of(&entries).summary);
        let mut header = Header {
            seq: self.head.seq + 1,
            previous: self.head.hash,
            change_count: changes.len() as u32,
            changes_hash: changes_hash(&body),
            root: summary.root,
            records: summary.records,
            key_id: key.public().id(),
            ..self.headers.last().unwrap().clone()
        };
        alter(&mut header);
        self.headers.push(header.clone());
        let set = reply(header, &body, key);
        let FollowReply::ChangeSet { header, .. } = &set else { unreachable!("it is one") };
        self.head = decode_header(header).unwrap().position();
        set
    }

    /// The same with one record.
    pub fn put(&mut self, entry: &Entry, key: &SigningKey) -> FollowReply {
        self.go_on(&[entry.put().unwrap()], key, |_| {})
    }
}

pub fn system() -> protocol::id::PartitionId {
    partition(&format!("_federation/{HUB}"))
}
