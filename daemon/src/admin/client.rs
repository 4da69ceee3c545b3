//! Asking a running daemon.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::Context as _;

use super::{Reply, Request};

/// Asks the daemon behind `socket`, handing what comes before the last reply to
/// `heed`. `None` if no daemon listens there.
pub fn ask(
    socket: &Path,
    request: &Request,
    heed: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<Option<(serde_json::Value, bool)>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                // The last one: a path that is too long for any socket.
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::InvalidInput
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| {
                format!("open {} (only its owner and root may)", socket.display())
            });
        }
    };
    let mut line = serde_json::to_string(request).context("encode the request")?;
    line.push('\n');
    (&stream).write_all(line.as_bytes()).context("ask the daemon")?;
    for line in BufReader::new(&stream).lines() {
        let line = line.context("read the daemon's answer")?;
        match serde_json::from_str(&line)
            .context("read the daemon's answer; is it of another version?")?
        {
            Reply::Done { value, attention } => return Ok(Some((value, attention))),
            Reply::Failed(text) => anyhow::bail!(text),
            reply => heed(reply)?,
        }
    }
    anyhow::bail!("the daemon went away before it had answered; its log says why")
}
