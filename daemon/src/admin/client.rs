//! Asking a running daemon.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use super::{REQUEST_BYTES_MAX, Reply, Request, handover};

/// How long a daemon may take to begin with a request. It does sixteen imports at
/// once, and the longest of them, an import of a million rows, takes about a minute.
const TAKING_MAX: Duration = Duration::from_secs(5 * 60);

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
    match handover::send(&stream, line.as_bytes(), file) {
        Ok(()) => {}
        // Its last byte did not go out, so nobody can have taken it.
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error).context("ask the daemon"),
    }
    stream.set_read_timeout(Some(TAKING_MAX)).context("ask the daemon")?;
    let mut answers = BufReader::new(&stream);
    match answers.fill_buf() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!(
            "the daemon did not begin with the request within {0} minutes: it hangs, or many commands are before this \
             one. Look at its log, then try again / 守护进程在 {0} 分钟内未开始处理该请求：可能已停止响应，或排队的命令过多。\
             请查看日志后重试",
            TAKING_MAX.as_secs() / 60
        ),
        // A daemon says that it takes a request before it begins with it.
        Ok([]) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        _ => {}
    }
    // What was begun with takes as long as it takes.
    stream.set_read_timeout(None).context("ask the daemon")?;
    for line in answers.lines() {
        let line = line.context("read the daemon's answer")?;
        match serde_json::from_str(&line)
            .context("read the daemon's answer; is it of another version?")?
        {
            Reply::Taken => {}
            Reply::Done { value, attention } => return Ok(Some((value, attention))),
            Reply::Failed(text) => anyhow::bail!(text),
            reply => heed(reply)?,
        }
    }
    anyhow::bail!(
        "the daemon went away before it had answered, so the request may have been done or not; its log says why / \
         守护进程在应答前已退出，请求可能已生效，也可能未生效；原因见其日志"
    )
}

/// Whether a daemon can be asked at `socket`.
pub fn answers(socket: &Path) -> bool {
    matches!(connect(socket), Ok(Some(_)))
}

/// A connection to the daemon; none if no daemon listens.
fn connect(socket: &Path) -> anyhow::Result<Option<UnixStream>> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if is_gone(&error)
                || matches!(
                    error.kind(),
                    // The last one: a path that is too long for any socket.
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput
                ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error)
            .with_context(|| format!(
                "无法打开 {0}：请用 sudo 执行，或用运行 creditsync 的用户执行 / open {0}: only its owner and root may",
                socket.display()
            )),
    }
}

/// Whether the other side has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
