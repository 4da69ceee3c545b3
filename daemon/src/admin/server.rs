//! The daemon's side of the local interface.

use std::{
    cell::Cell,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
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
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// Replies that may wait for a slow reader; the command then waits too.
const REPLIES_WAITING_MAX: usize = 16;
/// How far a command has come is told no more often than anybody could read it,
/// and not at all of one that takes less: each time wakes a thread here and one
/// in the command.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Does what a request asks. It blocks, on a thread of its own; `reply` fails
/// when nobody listens any more, for progress within [`PROGRESS_EVERY`].
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
                    tokio::time::sleep(Duration::from_secs(1)).await;
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
        let told = Cell::new(Instant::now());
        let reply = |reply: Reply| {
            if matches!(reply, Reply::Progress(_)) {
                if told.get().elapsed() < PROGRESS_EVERY {
                    return Ok(());
                }
                told.set(Instant::now());
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Progress;

    const PROGRESS: Progress = Progress { bytes_read: 1, bytes_total: 2, rows: 3, compared: 0 };

    /// Tells its progress without a pause, for a time or as long as anybody
    /// listens.
    struct Teller {
        time: Duration,
        ended: Arc<Semaphore>,
    }

    impl Handler for Teller {
        fn handle(&self, _: Request, reply: &dyn Fn(Reply) -> anyhow::Result<()>) -> Reply {
            let started = Instant::now();
            while started.elapsed() < self.time {
                if reply(Reply::Progress(PROGRESS)).is_err() {
                    self.ended.add_permits(1);
                    break;
                }
                std::thread::yield_now();
            }
            Reply::Done { value: serde_json::Value::Null, attention: false }
        }
    }

    #[tokio::test]
    async fn progress_is_told_now_and_then() {
        for periods in [0, 3] {
            let started = Instant::now();
            let time = PROGRESS_EVERY * periods + PROGRESS_EVERY / 2;
            let (mut here, there) = UnixStream::pair().unwrap();
            let teller = Teller { time, ended: Arc::new(Semaphore::new(0)) };
            let serving = tokio::spawn(serve(there, Arc::new(teller)));
            here.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
            let mut text = String::new();
            here.read_to_string(&mut text).await.unwrap();
            serving.await.unwrap().unwrap();
            let told = text.lines().filter(|line| line.contains("\"progress\"")).count() as u128;
            let most = started.elapsed().as_millis() / PROGRESS_EVERY.as_millis();
            assert!(told <= most, "{told} times within {most} periods");
            assert!(told > 0 || periods == 0);
            assert!(text.lines().last().unwrap().contains("\"done\""), "{text}");
        }
    }

    #[tokio::test]
    async fn a_command_that_went_away_is_noticed() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let ended = Arc::new(Semaphore::new(0));
        let teller = Teller { time: Duration::from_secs(10), ended: ended.clone() };
        let serving = tokio::spawn(serve(there, Arc::new(teller)));
        here.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
        drop(here);
        serving.await.unwrap().unwrap_err();
        let ended = tokio::time::timeout(Duration::from_secs(5), ended.acquire()).await;
        assert!(ended.is_ok(), "it goes on for nobody");
    }
}
