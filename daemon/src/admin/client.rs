//! Asking a running daemon.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    path::Path,
};

use anyhow::Context as _;

use super::{REQUEST_BYTES_MAX, Reply, Request, handover};

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
    let mut answers = BufReader::new(&stream);
    match answers.fill_buf() {
        // A daemon says that it takes a request before it begins with it.
        Ok([]) => return Ok(None),
        Err(error) if is_gone(&error) => return Ok(None),
        _ => {}
    }
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
    anyhow::bail!("the daemon went away before it had answered; its log says why")
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
            .with_context(|| format!("open {} (only its owner and root may)", socket.display())),
    }
}

/// Whether the other side has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}
