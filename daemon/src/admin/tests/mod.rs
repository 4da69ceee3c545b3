//! Commands and a daemon on both ends of a real socket.

mod asking;
mod handing;
mod serving;

use std::{fs::File, io::Read as _, path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Handler, Reply, Request, Server};

/// Nothing takes longer than this unless it never happens.
const DEADLINE: Duration = Duration::from_secs(20);

/// A server in a directory of its own.
struct Serving {
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Serving {
    fn new(handler: impl Handler) -> Self {
        Self::with_patience(handler, DEADLINE)
    }

    fn with_patience(handler: impl Handler, patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::bind(&dir.path().join("sock")).unwrap().with_patience(patience);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(Arc::new(handler), shutdown.clone()));
        Self { dir, shutdown, running }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.running).await.expect("it ends").unwrap();
    }
}

/// Answers with what the request and its file are.
struct Teller;

impl Handler for Teller {
    fn handle(
        &self,
        request: Request,
        file: Option<File>,
        _: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply {
        let read = file.map(|mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).map(|_| text).unwrap_or_else(|error| error.to_string())
        });
        let request = serde_json::to_value(&request).unwrap();
        let value = json!({ "command": request["command"], "read": read });
        Reply::Done { value, attention: false }
    }
}

/// Asks on a thread that may block.
async fn ask(
    socket: PathBuf,
    request: Request,
    file: Option<File>,
) -> anyhow::Result<Option<Json>> {
    let asking = tokio::task::spawn_blocking(move || {
        use std::os::fd::AsFd as _;
        let file = file.as_ref().map(File::as_fd);
        super::ask(&socket, &request, file, &mut |_| Ok(()))
    });
    let asked = tokio::time::timeout(DEADLINE, asking).await.expect("it is answered").unwrap();
    Ok(asked?.map(|(value, _)| value))
}

fn import() -> Request {
    Request::Import {
        dataset: "enterprise".to_owned(),
        path: "/nowhere/rows.csv".to_owned(),
        full: false,
        reading: crate::sources::Reading::default(),
        wait_s: None,
    }
}
