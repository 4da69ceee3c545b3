//! What a command hears while the daemon works, and when it ends.

use std::{cell::Cell, time::Instant};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::Semaphore,
};

use super::*;
use crate::{
    admin::server::{PROGRESS_EVERY, QUICK_MAX},
    ingest::Progress,
};

const PROGRESS: Progress = Progress { bytes_read: 1, bytes_total: 2, rows: 3, compared: 0 };

/// Tells its progress without a pause, for a time or as long as anybody
/// listens.
struct Busy {
    time: Duration,
    ended: Arc<Semaphore>,
}

impl Handler for Busy {
    fn handle(
        &self,
        _: Request,
        _: Option<File>,
        reply: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply {
        let started = Instant::now();
        while started.elapsed() < self.time {
            if reply(Reply::Progress(PROGRESS)).is_err() {
                self.ended.add_permits(1);
                break;
            }
            std::thread::yield_now();
        }
        Reply::Done { value: Json::Null, attention: false }
    }
}

#[tokio::test]
async fn progress_is_told_now_and_then() {
    for periods in [0, 3] {
        let started = Instant::now();
        let time = PROGRESS_EVERY * periods + PROGRESS_EVERY / 2;
        let serving = Serving::new(Busy { time, ended: Arc::new(Semaphore::new(0)) });
        let mut here = UnixStream::connect(serving.socket()).await.unwrap();
        here.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
        let mut text = String::new();
        here.read_to_string(&mut text).await.unwrap();
        let told = text.lines().filter(|line| line.contains("\"progress\"")).count() as u128;
        let most = started.elapsed().as_millis() / PROGRESS_EVERY.as_millis();
        assert!(told <= most, "{told} times within {most} periods");
        assert!(told > 0 || periods == 0);
        assert_eq!(text.lines().next(), Some("\"taken\""));
        assert!(text.lines().last().unwrap().contains("\"done\""), "{text}");
        serving.end().await;
    }
}

#[tokio::test]
async fn a_command_that_went_away_is_noticed() {
    let ended = Arc::new(Semaphore::new(0));
    let serving = Serving::new(Busy { time: DEADLINE, ended: ended.clone() });
    let mut here = UnixStream::connect(serving.socket()).await.unwrap();
    here.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
    here.read_exact(&mut [0; "\"taken\"\n".len()]).await.unwrap();
    drop(here);
    let noticed = tokio::time::timeout(DEADLINE / 2, ended.acquire()).await;
    assert!(noticed.is_ok(), "it goes on for nobody");
    serving.end().await;
}

/// Begins with a request when it is let, and says that it has begun.
struct Held {
    begun: Arc<Semaphore>,
    may_end: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Handler for Held {
    fn handle(
        &self,
        _: Request,
        _: Option<File>,
        _: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply {
        self.begun.add_permits(1);
        let _ = self.may_end.lock().unwrap().recv_timeout(DEADLINE);
        Reply::Done { value: json!("held"), attention: false }
    }
}

#[tokio::test]
async fn a_daemon_that_ends_answers_what_it_has_taken_and_nothing_else() {
    let begun = Arc::new(Semaphore::new(0));
    let (end, may_end) = std::sync::mpsc::channel();
    let serving = Serving::new(Held { begun: begun.clone(), may_end: may_end.into() });
    let asking = tokio::spawn(ask(serving.socket(), Request::Status, None));
    begun.acquire().await.unwrap().forget();
    // Whoever has said nothing yet is let go of, not waited for.
    let mut silent = UnixStream::connect(serving.socket()).await.unwrap();
    // Connections are accepted in their order, so that one has been, too.
    let mut later = UnixStream::connect(serving.socket()).await.unwrap();
    later.write_all(b"?\n").await.unwrap();
    later.read_exact(&mut [0]).await.unwrap();
    let socket = serving.socket();
    serving.shutdown.cancel();
    let gone = Cell::new(false);
    while !gone.replace(!socket.exists()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(socket, Request::Status, None).await.unwrap(), None);
    let mut nothing = String::new();
    let closed = tokio::time::timeout(DEADLINE, silent.read_to_string(&mut nothing));
    closed.await.expect("it is closed").unwrap();
    assert_eq!(nothing, "");
    assert!(!serving.running.is_finished(), "the answer under way was given up");
    end.send(()).unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), Some(json!("held")));
    serving.end().await;
}

/// Goes on telling until nobody takes it, and then says that it has ended; a
/// status is answered at once.
struct Endless {
    begun: Arc<Semaphore>,
    ended: Arc<Semaphore>,
}

impl Handler for Endless {
    fn handle(
        &self,
        request: Request,
        _: Option<File>,
        reply: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply {
        if !matches!(request, Request::Status) {
            self.begun.add_permits(1);
            while reply(Reply::Chunk("x".repeat(256 * 1024))).is_ok() {}
            self.ended.add_permits(1);
        }
        Reply::Done { value: json!("told"), attention: false }
    }
}

#[tokio::test]
async fn exports_that_nobody_reads_keep_no_status_waiting() {
    /// More than there are places of any kind.
    const PAUSED: usize = 40;
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let serving = Serving::new(Endless { begun: begun.clone(), ended: ended.clone() });
    let mut paused = Vec::new();
    for _ in 0..PAUSED {
        let mut here = UnixStream::connect(serving.socket()).await.unwrap();
        let export = b"{\"command\":\"export\",\"target\":\"x\",\"format\":\"csv\"}\n";
        here.write_all(export).await.unwrap();
        paused.push(here);
    }
    begun.acquire_many(4).await.unwrap().forget();
    assert_eq!(ask(serving.socket(), Request::Status, None).await.unwrap(), Some(json!("told")));
    assert_eq!(begun.available_permits(), 0, "more exports at once than there are places for");
    // A place is free again when its command goes away.
    drop(paused);
    ended.acquire_many(4).await.unwrap().forget();
    serving.end().await;
}

#[tokio::test]
async fn a_command_that_takes_nothing_is_given_up() {
    let (begun, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = Endless { begun, ended: ended.clone() };
    let serving = Serving::with_patience(handler, Duration::from_millis(200));
    let mut here = UnixStream::connect(serving.socket()).await.unwrap();
    let export = b"{\"command\":\"export\",\"target\":\"x\",\"format\":\"csv\"}\n";
    here.write_all(export).await.unwrap();
    let given_up = tokio::time::timeout(DEADLINE, ended.acquire()).await;
    assert!(given_up.is_ok(), "it goes on for somebody who does not read");
    serving.end().await;
}

/// Every request that was begun with, and those that come, wait until they may end.
#[derive(Default)]
struct Gate {
    may_end: std::sync::Mutex<bool>,
    changed: std::sync::Condvar,
}

impl Gate {
    fn open(&self) {
        *self.may_end.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

impl Handler for Arc<Gate> {
    fn handle(
        &self,
        _: Request,
        _: Option<File>,
        _: &dyn Fn(Reply) -> anyhow::Result<()>,
    ) -> Reply {
        let closed = |may_end: &mut bool| !*may_end;
        let may_end = self.may_end.lock().unwrap();
        drop(self.changed.wait_timeout_while(may_end, DEADLINE, closed).unwrap());
        Reply::Done { value: json!("held"), attention: false }
    }
}

#[tokio::test]
async fn a_daemon_says_that_it_is_there_whatever_a_request_waits_for() {
    let gate = Arc::new(Gate::default());
    let serving = Serving::new(gate.clone());
    // One more than there are places for; which of them waits is the kernel's choice.
    let mut all = Vec::new();
    for _ in 0..=QUICK_MAX {
        let mut here = UnixStream::connect(serving.socket()).await.unwrap();
        here.write_all(b"{\"command\":\"status\"}\n").await.unwrap();
        all.push(tokio::io::BufReader::new(here).lines());
    }
    let (mut waiting, mut taken) = (0, 0);
    for one in &mut all {
        match one.next_line().await.unwrap().as_deref() {
            Some("\"waiting\"") => waiting += 1,
            Some("\"taken\"") => {
                taken += 1;
                assert_eq!(one.next_line().await.unwrap().as_deref(), Some("\"working\""));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((waiting, taken), (1, QUICK_MAX));
    gate.open();
    for mut one in all {
        let mut last = String::new();
        while let Some(line) = one.next_line().await.unwrap() {
            last = line;
        }
        assert!(last.contains("\"held\""), "{last}");
    }
    serving.end().await;
}
