//! The open file that a request brings.

use std::{
    io::{BufRead as _, BufReader, IoSlice, Write as _},
    mem::MaybeUninit,
    os::{fd::AsFd as _, unix::net::UnixStream},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;

/// A file that no path leads to.
fn unnamed(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

#[tokio::test]
async fn a_file_that_only_the_command_can_reach_is_read() {
    let serving = Serving::new(Teller);
    let answer = ask(serving.socket(), import(), Some(unnamed("a,b\n"))).await.unwrap().unwrap();
    assert_eq!(answer, json!({ "command": "import", "read": "a,b\n" }));
    serving.end().await;
}

#[tokio::test]
async fn a_file_comes_with_an_import_and_nothing_else() {
    let serving = Serving::new(Teller);
    let error = ask(serving.socket(), import(), None).await.unwrap_err();
    assert!(error.to_string().contains("did not hand its file"), "{error}");
    let error = ask(serving.socket(), Request::Status, Some(unnamed("a"))).await.unwrap_err();
    assert!(error.to_string().contains("no use for"), "{error}");
    serving.end().await;
}

/// Sends a request in pieces, each with so many descriptors; answers the replies.
async fn sent(socket: PathBuf, pieces: Vec<(String, usize)>) -> String {
    let sending = tokio::task::spawn_blocking(move || {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let file = unnamed("a,b\n");
        for (text, count) in pieces {
            let files = vec![file.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(count == 0 || ancillary.push(SendAncillaryMessage::ScmRights(&files)));
            let text = [IoSlice::new(text.as_bytes())];
            sendmsg(&stream, &text, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        }
        drop(file);
        let lines: Result<Vec<String>, _> = BufReader::new(&stream).lines().collect();
        lines.unwrap().join("\n")
    });
    sending.await.unwrap()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn more_than_one_file_is_refused_and_all_are_closed() {
    let serving = Serving::new(Teller);
    let line = format!("{}\n", serde_json::to_string(&import()).unwrap());
    let (head, tail) = line.split_at(10);
    let piece = |text: &str, count| (text.to_owned(), count);
    // How it is when all goes well.
    let told = sent(serving.socket(), vec![piece(head, 0), piece(tail, 1)]).await;
    assert!(told.contains("done"), "{told}");
    for pieces in [
        vec![piece(&line, 2)],
        vec![piece(&line, 3)],
        vec![piece(&line, 8)],
        vec![piece(head, 1), piece(tail, 1)],
    ] {
        let told = sent(serving.socket(), pieces).await;
        assert!(told.contains("failed") && !told.contains("taken"), "{told}");
    }
    serving.end().await;
}

#[tokio::test]
async fn a_file_of_a_command_that_went_away_is_closed() {
    let serving = Serving::new(Teller);
    // Another test of this process may open and close files meanwhile, so many
    // are handed over.
    const COUNT: usize = 200;
    let before = open_descriptors();
    for _ in 0..COUNT {
        let socket = serving.socket();
        let gone = tokio::task::spawn_blocking(move || {
            let stream = UnixStream::connect(socket).unwrap();
            crate::admin::handover::send(&stream, b"{", Some(unnamed("a").as_fd())).unwrap();
        });
        gone.await.unwrap();
    }
    // Whoever comes later is served, so those before have been looked at.
    let answer = ask(serving.socket(), Request::Status, None).await.unwrap().unwrap();
    assert_eq!(answer["command"], "status");
    serving.end().await;
    let after = open_descriptors();
    assert!(after < before + COUNT / 2, "{before} descriptors, then {after}");
}
