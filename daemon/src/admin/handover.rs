//! A request on the socket: one line, and the file that comes with it.
//!
//! A command opens the file that is to be imported, or that a backup goes to, and
//! hands the open file to the daemon (`SCM_RIGHTS`). So the daemon reads what the one
//! who gives the command may read, writes where that one may write, and nothing else: neither does its sandbox hide a file
//! from it, nor can it be led to a file by a path.
//!
//! Used by [`super::client`] and [`super::server`]. Invariant: at most one
//! descriptor is kept; further ones are closed where they arrive, and the
//! request is refused. Not here: which request needs a file (`server`), and
//! what kind of file it has to be (`ingest`).

use std::{
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
};

use rustix::{
    cmsg_space,
    io::retry_on_intr,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use tokio::{io::Interest, net::UnixStream};

use super::REQUEST_BYTES_MAX;

/// Descriptors that a request may bring: an import is of one file.
const DESCRIPTORS_MAX: usize = 1;
/// Bytes read at once: nearly every request is shorter.
const CHUNK: usize = 8 * 1024;

/// Sends a request's line, and a file with its first byte.
pub(super) fn send(
    stream: &StdStream,
    line: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("a descriptor does not fit its message"));
    }
    // No signal: a daemon that went away is an error like any other.
    let sent = retry_on_intr(|| {
        sendmsg(stream, &[IoSlice::new(line)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    let mut stream = stream;
    stream.write_all(&line[sent..])
}

/// What a command has sent.
pub(super) enum Received {
    /// A whole line, without its end, and the file that came with it.
    Line(String, Option<OwnedFd>),
    /// The command went away before a whole line had come.
    Nothing,
    /// What cannot be a request; the text is for the user.
    Refused(&'static str),
}

/// Reads one request. May be dropped at any time; files that have come are
/// closed then.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<Received> {
    let mut line = Vec::new();
    let mut file = None;
    loop {
        let mut chunk = [0; CHUNK];
        let piece = stream.async_io(Interest::READABLE, || receive_piece(stream, &mut chunk));
        let Piece { bytes, files, cut } = piece.await?;
        if cut && files.is_empty() {
            return Ok(Received::Refused(
                "the daemon has too many files open to take this one: try again, or raise LimitNOFILE / \
                 守护进程打开的文件过多，请稍后重试，或调高 LimitNOFILE",
            ));
        }
        for received in files {
            if cut || file.replace(received).is_some() {
                return Ok(Received::Refused(
                    "the request brings more than one file / 请求附带了多个文件",
                ));
            }
        }
        let chunk = &chunk[..bytes];
        let end = chunk.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&chunk[..end.unwrap_or(bytes)]);
        if line.len() as u64 >= REQUEST_BYTES_MAX {
            return Ok(Received::Refused("the request is longer than 1 MiB / 请求超过 1 MiB"));
        }
        if end.is_some() {
            return Ok(match String::from_utf8(line) {
                Ok(line) => Received::Line(line, file),
                Err(_) => Received::Refused("the request is not UTF-8 / 请求不是 UTF-8"),
            });
        }
        if bytes == 0 {
            return Ok(Received::Nothing);
        }
    }
}

/// What one look at the socket has brought.
struct Piece {
    bytes: usize,
    files: Vec<OwnedFd>,
    /// There were more descriptors than there was room for; the kernel has
    /// closed those.
    cut: bool,
}

fn receive_piece(stream: &UnixStream, chunk: &mut [u8]) -> io::Result<Piece> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(chunk)],
        &mut ancillary,
        // A process that the daemon starts must not inherit it.
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(Piece {
        bytes: received.bytes,
        files: files.flatten().collect(),
        cut: received.flags.contains(ReturnFlags::CTRUNC),
    })
}
