//! A node with a document of iroh-docs, told what to do on its standard input.
//!
//! Each line is a command, and is answered by one line. A row is an entry: its
//! code is the key, all its fields are the content.

use std::path::Path;

use anyhow::{Context as _, bail};
use iroh::{Endpoint, EndpointAddr, RelayMode, endpoint::presets, protocol::Router};
use iroh_blobs::{BlobsProtocol, store::fs::FsStore};
use iroh_docs::{
    AuthorId, DocTicket,
    api::{
        Doc,
        protocol::{AddrInfoOptions, ShareMode},
    },
    protocol::Docs,
    store::Query,
};
use iroh_gossip::net::Gossip;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// The column of a row's code.
const CODE: usize = 1;
/// Insertions that are under way at the same time.
const INSERTIONS: usize = 64;

/// Runs a node in `dir` until its standard input ends.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut node = Node::start(dir).await?;
        println!("ready");
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = lines.next_line().await? {
            println!("{}", node.obey(&line).await?);
        }
        node.router.shutdown().await.context("stop")
    })
}

struct Node {
    endpoint: Endpoint,
    blobs: FsStore,
    docs: Docs,
    author: AuthorId,
    doc: Option<Doc>,
    router: Router,
}

impl Node {
    async fn start(dir: &Path) -> anyhow::Result<Self> {
        let documents = dir.join("docs");
        std::fs::create_dir_all(&documents)?;
        // No relay, and nobody is looked up: the ticket says where the peer is.
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .clear_address_lookup()
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .bind()
            .await?;
        let blobs = FsStore::load(dir.join("blobs")).await.map_err(|e| anyhow::anyhow!("{e}"))?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let docs = Docs::persistent(documents)
            .spawn(endpoint.clone(), (*blobs).clone(), gossip.clone())
            .await?;
        let router = Router::builder(endpoint.clone())
            .accept(iroh_blobs::ALPN, BlobsProtocol::new(&blobs, None))
            .accept(iroh_gossip::ALPN, gossip)
            .accept(iroh_docs::ALPN, docs.clone())
            .spawn();
        let author = docs.author_default().await?;
        Ok(Self { endpoint, blobs, docs, author, doc: None, router })
    }

    async fn obey(&mut self, line: &str) -> anyhow::Result<String> {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "create" => {
                self.doc = Some(self.docs.create().await?);
                Ok("done".into())
            }
            "share" => {
                let mut ticket = self.doc()?.share(ShareMode::Write, AddrInfoOptions::Id).await?;
                let here = self.endpoint.bound_sockets();
                let here = here.first().context("a socket")?;
                ticket.nodes = vec![EndpointAddr::new(self.endpoint.id()).with_ip_addr(*here)];
                Ok(ticket.to_string())
            }
            "join" => {
                let ticket: DocTicket = argument.parse()?;
                self.doc = Some(self.docs.import(ticket).await?);
                Ok("done".into())
            }
            "insert" => {
                self.insert(&rows_of(argument.as_ref())?).await?;
                Ok("done".into())
            }
            "expect" => {
                self.expect(&rows_of(argument.as_ref())?).await?;
                Ok("done".into())
            }
            _ => bail!("{command} is unknown"),
        }
    }

    fn doc(&self) -> anyhow::Result<&Doc> {
        self.doc.as_ref().context("create or join comes first")
    }

    async fn insert(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
        let doc = self.doc()?;
        for some in rows.chunks(INSERTIONS) {
            let insertions = some
                .iter()
                .map(|(key, value)| doc.set_bytes(self.author, key.clone(), value.clone()));
            for inserted in n0_future::join_all(insertions).await {
                inserted?;
            }
        }
        Ok(())
    }

    /// Waits until every row is here as it is in the file, with its content.
    async fn expect(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> anyhow::Result<()> {
        let doc = self.doc()?;
        for (key, value) in rows {
            let hash = iroh_blobs::Hash::new(value);
            loop {
                let entry = doc.get_one(Query::single_latest_per_key().key_exact(key)).await?;
                if entry.is_some_and(|entry| entry.content_hash() == hash)
                    && self.blobs.has(hash).await?
                {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

fn rows_of(file: &Path) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut rows = Vec::new();
    for row in csv::Reader::from_path(file)?.byte_records() {
        let row = row?;
        rows.push((row.get(CODE).context("a code")?.to_vec(), row.as_slice().to_vec()));
    }
    Ok(rows)
}
