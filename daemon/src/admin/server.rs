//! The daemon's side of the local interface.

use std::{
    cell::Cell,
    convert::Infallible,
    fs::File,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    ALIVE_EVERY, Pace, Reply, Request,
    handover::{self, Received},
};

/// Commands of each [`Pace`] that are served at once; more wait. A `status` never
/// waits for an export that nobody reads.
pub(super) const QUICK_MAX: usize = 16;
const LONG_MAX: usize = 16;
const STREAMS_MAX: usize = 4;
/// Commands whose request has not arrived. Each may hold a request of 1 MiB.
const ARRIVING_MAX: usize = 64;
/// A command that takes nothing of its answer for so long is given up: an export
/// holds a snapshot, for which the writer saves pages. Long enough for somebody
/// who reads it page by page.
const TAKES_NOTHING_MAX: Duration = Duration::from_secs(600);
/// A request has to arrive within this time: who says nothing must not hold a
/// slot.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long a daemon that ends goes on answering: half of what it gives its tasks.
const ANSWERS_MAX: Duration = Duration::from_secs(5);
/// After an accept that failed, this long passes before the next one.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// Replies that may wait for a slow reader; the command then waits too.
const REPLIES_WAITING_MAX: usize = 16;
/// How far a command has come is told no more often than anybody could read it,
/// and not at all of one that takes less: each time wakes a thread here and one
/// in the command.
pub(super) const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Does what a request asks. It blocks, on a thread of its own; `reply` fails
/// when nobody listens any more, for progress within [`PROGRESS_EVERY`].
pub trait Handler: Send + Sync + 'static {
    /// Everything but the last reply goes to `reply`, the last one is returned.
    /// `file` came with the request if [`Request::brings_file`]; what kind of file
    /// it is has not been looked at.
    fn handle(
        &self,
        request: Request,
        file: Option<File>,
        reply: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply;
}

/// A bound socket.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    patience: Duration,
}

/// Places of those that are served at once.
struct Slots {
    arriving: Semaphore,
    quick: Semaphore,
    long: Semaphore,
    streams: Semaphore,
    patience: Duration,
}

impl Slots {
    fn new(patience: Duration) -> Self {
        Self {
            arriving: Semaphore::new(ARRIVING_MAX),
            quick: Semaphore::new(QUICK_MAX),
            long: Semaphore::new(LONG_MAX),
            streams: Semaphore::new(STREAMS_MAX),
            patience,
        }
    }

    fn of(&self, pace: Pace) -> &Semaphore {
        match pace {
            Pace::Quick => &self.quick,
            Pace::Long => &self.long,
            Pace::Stream => &self.streams,
        }
    }
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
        Ok(Self { listener, path: path.to_owned(), patience: TAKES_NOTHING_MAX })
    }

    /// Another time for commands that take nothing of their answer.
    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Serves commands until `shutdown`; answers that are under way then get
    /// [`ANSWERS_MAX`].
    pub async fn run(self, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
        let Self { listener, path, patience } = self;
        let slots = Arc::new(Slots::new(patience));
        let mut serving = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
                // Reaped as they end.
                Some(_) = serving.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (handler, slots) = (handler.clone(), slots.clone());
                    let shutdown = shutdown.clone();
                    serving.spawn(async move {
                        if let Err(error) = serve(stream, handler, &slots, &shutdown).await {
                            tracing::debug!(%error, "a local command went away");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the local socket does not accept");
                    // Out of descriptors, most likely: do not spin.
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
        // In this order: who finds no socket waits for the directory, and who was
        // not accepted any more is told by the closed connection.
        let _ = std::fs::remove_file(&path);
        drop(listener);
        let ended = async { while serving.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ANSWERS_MAX, ended).await;
    }
}

/// Serves one command. At a shutdown a request that was not taken is dropped
/// without a word, which says that nothing of it was done.
async fn serve(
    mut stream: UnixStream,
    handler: Arc<dyn Handler>,
    slots: &Slots,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let take = async {
        // The semaphores are never closed.
        let arriving = slots.arriving.acquire().await.map_err(std::io::Error::other)?;
        let received = tokio::time::timeout(REQUEST_WAIT_MAX, handover::receive(&stream))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        let parsed = parse(received);
        drop(arriving);
        let slot = match &parsed {
            Ok(Some((request, _))) => {
                let slot = slots.of(request.pace()).acquire().await;
                Some(slot.map_err(std::io::Error::other)?)
            }
            _ => None,
        };
        std::io::Result::Ok((slot, parsed))
    };
    let (_slot, parsed) = tokio::select! {
        // A request that is here when the shutdown comes is not begun with.
        biased;
        () = shutdown.cancelled() => return Ok(()),
        taken = take => taken?,
        never = say_waiting(&stream) => match never? {},
    };
    let patience = slots.patience;
    let (request, file) = match parsed {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(()),
        Err(text) => return tell(&mut stream, patience, &Reply::Failed(text)).await,
    };
    // Before anything is done: a command that does not hear it asks again.
    tell(&mut stream, patience, &Reply::Taken).await?;
    let (sender, mut replies) = mpsc::channel::<Reply>(REPLIES_WAITING_MAX);
    let handling = tokio::task::spawn_blocking(move || {
        let told = Cell::new(Instant::now());
        let reply = |reply: Reply| {
            if matches!(reply, Reply::Progress(_) | Reply::Copied(_)) {
                if told.get().elapsed() < PROGRESS_EVERY {
                    return Ok(());
                }
                told.set(Instant::now());
            }
            sender.blocking_send(reply).map_err(|_| anyhow::anyhow!("the command went away"))
        };
        let _ = reply(handler.handle(request, file, &reply));
    });
    loop {
        let reply = match tokio::time::timeout(ALIVE_EVERY, replies.recv()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => break,
            Err(_) => Reply::Working,
        };
        tell(&mut stream, patience, &reply).await?;
    }
    handling.await.map_err(std::io::Error::other)
}

/// Tells a command now and then that it waits for others and not for a daemon that
/// hangs; until it is dropped.
async fn say_waiting(stream: &UnixStream) -> std::io::Result<Infallible> {
    let mut line = serde_json::to_vec(&Reply::Waiting).map_err(std::io::Error::other)?;
    line.push(b'\n');
    loop {
        tokio::time::sleep(ALIVE_EVERY).await;
        stream.writable().await?;
        match stream.try_write(&line) {
            // A few bytes go as one piece.
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The request and its file, nothing if the command went away, or why it is
/// refused.
fn parse(received: Received) -> Result<Option<(Request, Option<File>)>, String> {
    let (line, file) = match received {
        Received::Line(line, file) => (line, file),
        Received::Nothing => return Ok(None),
        Received::Refused(text) => return Err(text.to_owned()),
    };
    let request: Request = serde_json::from_str(&line)
        .map_err(|error| format!("the daemon does not understand the command: {error}"))?;
    match (request.brings_file(), file) {
        (true, None) => {
            Err("the command did not hand its file to the daemon: is it of another version? / \
             命令未将文件交给守护进程，两者版本是否不同？"
                .to_owned())
        }
        (false, Some(_)) => {
            Err("the request brings a file that it has no use for / 该请求不应附带文件".to_owned())
        }
        (_, file) => Ok(Some((request, file.map(File::from)))),
    }
}

/// Fails where the command does not take it in time.
async fn tell(stream: &mut UnixStream, patience: Duration, reply: &Reply) -> std::io::Result<()> {
    let mut line = serde_json::to_string(reply).map_err(std::io::Error::other)?;
    line.push('\n');
    let told = tokio::time::timeout(patience, stream.write_all(line.as_bytes())).await;
    told.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}
