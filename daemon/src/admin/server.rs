//! The daemon's side of the local interface.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{REQUEST_BYTES_MAX, Reply, Request};

/// Commands that are served at once; more wait.
const COMMANDS_MAX: usize = 16;
/// A request has to arrive within this time: who says nothing must not hold a
/// slot.
const REQUEST_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// Replies that may wait for a slow reader; the command then waits too.
const REPLIES_WAITING_MAX: usize = 16;

/// Does what a request asks. It blocks, on a thread of its own; `reply` fails
/// when nobody listens any more.
pub trait Handler: Send + Sync + 'static {
    /// Everything but the last reply goes to `reply`, the last one is returned.
    fn handle(&self, request: Request, reply: &dyn Fn(Reply) -> anyhow::Result<()>) -> Reply;
}

/// A bound socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds the socket at `path`; a left-over file of a daemon that died is
    /// replaced, so hold the directory's lock.
    pub fn bind(path: &Path) -> std::io::Result<Self> {
        match std::fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves commands until `shutdown`.
    pub async fn run(self, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(COMMANDS_MAX));
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match stream {
                Ok((stream, _)) => {
                    let (handler, slots) = (handler.clone(), slots.clone());
                    tokio::spawn(async move {
                        let Ok(_slot) = slots.acquire().await else { return };
                        if let Err(error) = serve(stream, handler).await {
                            tracing::debug!(%error, "a local command went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the local socket does not accept");
                    // Out of descriptors, most likely: do not spin.
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        }
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve(stream: UnixStream, handler: Arc<dyn Handler>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(REQUEST_WAIT_MAX, read.read_line(&mut line))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    if line.is_empty() {
        return Ok(());
    }
    if !line.ends_with('\n') {
        let reply = Reply::Failed("the request is longer than 1 MiB, or was cut".to_owned());
        let mut line = serde_json::to_string(&reply).map_err(std::io::Error::other)?;
        line.push('\n');
        return write.write_all(line.as_bytes()).await;
    }
    let (sender, mut replies) = mpsc::channel::<Reply>(REPLIES_WAITING_MAX);
    let handling = tokio::task::spawn_blocking(move || {
        let reply = |reply: Reply| {
            sender.blocking_send(reply).map_err(|_| anyhow::anyhow!("the command went away"))
        };
        let last = match serde_json::from_str::<Request>(&line) {
            Ok(request) => handler.handle(request, &reply),
            Err(error) => {
                Reply::Failed(format!("the daemon does not understand the command: {error}"))
            }
        };
        let _ = reply(last);
    });
    while let Some(reply) = replies.recv().await {
        let mut line = serde_json::to_string(&reply).map_err(std::io::Error::other)?;
        line.push('\n');
        write.write_all(line.as_bytes()).await?;
    }
    handling.await.map_err(std::io::Error::other)
}
