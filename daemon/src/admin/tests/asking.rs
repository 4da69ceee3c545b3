//! What a command is told when the daemon is not there, not there yet, or ends
//! at each moment of a request.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
};

use super::*;
use crate::admin::answers;

#[tokio::test]
async fn without_a_daemon_nobody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    assert_eq!(ask(socket.clone(), Request::Status, None).await.unwrap(), None);
    assert!(!answers(&socket));
    // A daemon that was killed leaves its socket's file.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    assert_eq!(ask(socket.clone(), Request::Status, None).await.unwrap(), None);
    assert!(!answers(&socket));
    // The next daemon puts its own in its place.
    let _server = Server::bind(&socket).unwrap();
    assert!(answers(&socket));
}

/// What a daemon does with one connection before it dies.
async fn asked_of(
    daemon: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static,
    request: Request,
) -> anyhow::Result<Option<Json>> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let dying = std::thread::spawn(move || daemon(listener.accept().unwrap().0));
    let asked = ask(socket, request, None).await;
    dying.join().unwrap();
    asked
}

#[tokio::test]
async fn a_request_that_was_not_taken_may_be_asked_again() {
    // Accepted, not read: the kernel resets the connection.
    assert_eq!(asked_of(drop, Request::Status).await.unwrap(), None);
    // Read, not taken.
    let read = |stream| {
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
    };
    assert_eq!(asked_of(read, Request::Status).await.unwrap(), None);
    // Ended in the midst of a request that does not fit the socket's buffers.
    let begun = |mut stream: std::os::unix::net::UnixStream| {
        stream.read_exact(&mut [0]).unwrap();
    };
    let long = Request::DatasetApply { text: "x".repeat(900 * 1024) };
    assert_eq!(asked_of(begun, long).await.unwrap(), None);
}

#[tokio::test]
async fn a_request_that_was_taken_is_never_asked_again() {
    for said in ["\"taken\"\n", "\"taken\"", "\"", "{\"progress\":"] {
        let taken = move |mut stream: std::os::unix::net::UnixStream| {
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
        };
        let error = asked_of(taken, Request::Status).await.expect_err(said);
        let text = format!("{error:#}");
        assert!(
            text.contains("went away") || text.contains("read the daemon's answer"),
            "{said}: {text}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_nobody_accepts_any_more_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let asking = tokio::spawn(ask(socket.clone(), Request::Status, None));
    // It has connected, and waits; a daemon ends without having accepted it.
    listener.set_nonblocking(true).unwrap();
    let waiting = tokio::net::UnixListener::from_std(listener).unwrap();
    let readable = std::future::poll_fn(|context| waiting.poll_accept(context));
    let (first, _) = tokio::time::timeout(DEADLINE, readable).await.unwrap().unwrap();
    let second = tokio::spawn(ask(socket, Request::Status, None));
    drop(first);
    assert_eq!(asking.await.unwrap().unwrap(), None);
    drop(waiting);
    assert_eq!(second.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn a_request_of_any_length_arrives_or_is_refused() {
    let serving = Serving::new(Teller);
    let schema = |bytes: usize| Request::DatasetApply { text: "字".repeat(bytes / 3) };
    for bytes in [0, 8 * 1024, 300_000, 1_000_000] {
        let answer = ask(serving.socket(), schema(bytes), None).await.unwrap().unwrap();
        assert_eq!(answer["command"], "dataset-apply");
    }
    let error = ask(serving.socket(), schema(1_100_000), None).await.unwrap_err();
    assert!(error.to_string().contains("1 MiB"), "{error}");
    serving.end().await;
}

#[tokio::test]
async fn where_the_kernel_keeps_no_more_commands_waiting_one_more_is_told_so() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let address = SocketAddrUnix::new(&socket).unwrap();
    let made = || {
        let flags = SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
    };
    // A daemon that accepts nobody.
    let listener = made();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut waiting = vec![made()];
    while rustix::net::connect(waiting.last().unwrap(), &address).is_ok() {
        waiting.push(made());
    }
    let error = ask(socket, Request::Status, None).await.unwrap_err().to_string();
    assert!(error.contains("does not answer") && error.contains("没有应答"), "{error}");
}
