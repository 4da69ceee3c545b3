//! Asking a running daemon.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{REQUEST_BYTES_MAX, Reply, Request, handover};

/// How long a daemon may take to begin with a request. It does sixteen imports at
/// once, and the longest of them, an import of a million rows, takes about a minute.
const TAKING_MAX: Duration = Duration::from_secs(5 * 60);
/// A daemon that says nothing for so long before it has taken a request hangs, or was
/// stopped: three times as long as it is ever silent ([`super::ALIVE_EVERY`]).
const SILENT_MAX: Duration = Duration::from_secs(10);
/// The same while it works, and perhaps all cores with it.
const SILENT_AT_WORK_MAX: Duration = Duration::from_secs(30);
/// What is only looked up takes a fraction of a second: after this time something that
/// the daemon itself does not notice stands still.
const LOOKING_MAX: Duration = Duration::from_secs(30);
/// How often is tried to connect where too many commands wait.
const CONNECT_EVERY: Duration = Duration::from_millis(50);

/// Asks the daemon behind `socket`, handing what comes before the last reply to
/// `heed`. `file` is what the request is about, opened.
///
/// `None` if no daemon listens there, or if it ended before it took the request:
/// then nothing of it was done and nothing will be, so it may be asked again or
/// done otherwise.
pub fn ask(
    socket: &Path,
    request: &Request,
    file: Option<BorrowedFd<'_>>,
    heed: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<Option<(serde_json::Value, bool)>> {
    let Some(stream) = connect(socket)? else {
        return Ok(None);
    };
    let mut line = serde_json::to_string(request).context("encode the request")?;
    line.push('\n');
    if line.len() as u64 > REQUEST_BYTES_MAX {
        anyhow::bail!("the request is longer than 1 MiB / 请求超过 1 MiB");
    }
    stream.set_write_timeout(Some(SILENT_MAX)).context("ask the daemon")?;
    match handover::send(&stream, line.as_bytes(), file) {
        Ok(()) => {}
        // Its last byte did not go out, so nobody can have taken it.
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!(hangs(&stream)),
        Err(error) => return Err(error).context("ask the daemon"),
    }
    stream.set_read_timeout(Some(SILENT_MAX)).context("ask the daemon")?;
    let mut answers = BufReader::new(&stream).lines();
    let asked = Instant::now();
    // A daemon says that it takes a request before it begins with it.
    let mut next = loop {
        let line = match answers.next() {
            None => return Ok(None),
            Some(Err(error)) if is_gone(&error) => return Ok(None),
            Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                anyhow::bail!(hangs(&stream))
            }
            Some(line) => line.context("read the daemon's answer")?,
        };
        match parse(&line)? {
            Reply::Waiting if asked.elapsed() > TAKING_MAX => anyhow::bail!(
                "the daemon did not begin with the request within {0} minutes: many commands are before this one. \
                 Look at its log, then try again / 守护进程在 {0} 分钟内未开始处理该请求：排队的命令过多。请查看日志后重试",
                TAKING_MAX.as_secs() / 60
            ),
            Reply::Waiting => {}
            reply => break Some(reply),
        }
    };
    stream.set_read_timeout(Some(SILENT_AT_WORK_MAX)).context("ask the daemon")?;
    let longest = if request.only_looks() { LOOKING_MAX } else { Duration::MAX };
    let taken = Instant::now();
    loop {
        let reply = match next.take() {
            Some(reply) => reply,
            None => match answers.next() {
                None => anyhow::bail!(
                    "the daemon went away before it had answered, so the request may have been done or not; its log \
                     says why / 守护进程在应答前已退出，请求可能已生效，也可能未生效；原因见其日志"
                ),
                Some(Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    anyhow::bail!("{} {}", may_be_done(), hangs(&stream))
                }
                Some(line) => parse(&line.context("read the daemon's answer")?)?,
            },
        };
        match reply {
            Reply::Working if taken.elapsed() > longest => {
                anyhow::bail!("{} {}", may_be_done(), hangs(&stream))
            }
            Reply::Taken | Reply::Waiting | Reply::Working => {}
            Reply::Done { value, attention } => return Ok(Some((value, attention))),
            Reply::Failed(text) => anyhow::bail!(text),
            reply => heed(reply)?,
        }
    }
}

fn parse(line: &str) -> anyhow::Result<Reply> {
    serde_json::from_str(line).context("read the daemon's answer; is it of another version?")
}

fn may_be_done() -> &'static str {
    "the request was taken, and may have been done or not / 请求已被接收，可能已生效，也可能未生效。"
}

/// What to do about a daemon that does not answer.
fn hangs(stream: &UnixStream) -> String {
    let pid = rustix::net::sockopt::socket_peercred(stream).ok();
    let pid = pid.map(|peer| peer.pid.as_raw_nonzero().to_string());
    let stopped = pid.as_deref().is_some_and(is_stopped);
    let pid = pid.unwrap_or_else(|| "?".to_owned());
    if stopped {
        return format!(
            "the daemon does not answer: its process {pid} is stopped. Let it go on: kill -CONT {pid} / \
             守护进程没有应答：进程 {pid} 已被暂停，请执行 kill -CONT {pid}"
        );
    }
    format!(
        "the daemon does not answer: its process {pid} hangs, or this machine is overloaded or its disk stands still. \
         Look at its log and at the machine's load, then try again, or restart the daemon (systemctl restart creditsync) \
         / 守护进程没有应答：进程 {pid} 已停止响应，或本机过载、磁盘无响应。请查看其日志和本机负载后重试，\
         或重启守护进程（systemctl restart creditsync）"
    )
}

/// Whether the kernel says that a process is stopped, by a signal or a debugger.
fn is_stopped(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name, which may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, fields)| fields.chars().next());
    matches!(state, Some('T' | 't'))
}

/// Whether a daemon can be asked at `socket`.
pub fn answers(socket: &Path) -> bool {
    matches!(connect(socket), Ok(Some(_)))
}

/// A connection to the daemon; none if no daemon listens.
fn connect(socket: &Path) -> anyhow::Result<Option<UnixStream>> {
    let until = Instant::now() + SILENT_MAX;
    loop {
        match try_connect(socket) {
            Ok(stream) => return Ok(Some(stream)),
            // More commands wait for the daemon than the kernel keeps waiting.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    anyhow::bail!(
                        "the daemon does not answer, and many commands wait for it: it hangs. Look at its log, then \
                         restart it (systemctl restart creditsync) / 守护进程没有应答，且有大量命令在等待：请查看其日志后\
                         重启（systemctl restart creditsync）"
                    );
                }
                std::thread::sleep(CONNECT_EVERY);
            }
            Err(error)
                if is_gone(&error)
                    || matches!(
                        error.kind(),
                        // The last two: a path that is too long for any socket.
                        ErrorKind::NotFound
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::InvalidInput
                            | ErrorKind::InvalidFilename
                    ) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "无法打开 {0}：请用 sudo 执行，或用运行 creditsync 的用户执行 / open {0}: only its owner and root may",
                        socket.display()
                    )
                });
            }
        }
    }
}

/// Never waits, which the standard library would where the daemon accepts nobody.
fn try_connect(socket: &Path) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(socket)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&made, &address)?;
    let stream = UnixStream::from(made);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether the other side has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
