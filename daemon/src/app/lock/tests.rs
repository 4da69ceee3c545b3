//! Who meets whom at a directory. Two open files of one process exclude each
//! other as those of two processes do.

use std::{
    os::unix::net::UnixListener,
    sync::{Mutex, mpsc},
};

use super::*;

/// Nothing takes longer than this unless it never happens.
const DEADLINE: Duration = Duration::from_secs(20);

struct Place {
    dir: NodeDir,
    _temporary: tempfile::TempDir,
}

fn place() -> Place {
    let temporary = tempfile::tempdir().unwrap();
    Place { dir: NodeDir::new(&temporary.path().join("node")), _temporary: temporary }
}

/// A wait that is over at once, or never, and what it has said.
fn wait<'a>(
    dir: &'a NodeDir,
    who: Occupant,
    patience: Duration,
    say: &'a dyn Fn(&str),
) -> Wait<'a> {
    Wait { dir, who, patience, say, began: None }
}

/// Waits for the lock on a thread of its own; says that it waits, then how it
/// ended.
fn waiting(
    dir: &NodeDir,
    who: Occupant,
) -> (mpsc::Receiver<String>, std::thread::JoinHandle<anyhow::Result<DirLock>>) {
    let (said, hears) = mpsc::channel();
    let dir = dir.clone();
    let waiting = std::thread::spawn(move || {
        let say = |text: &str| said.send(text.to_owned()).unwrap();
        dir.lock_within(&mut wait(&dir, who, DEADLINE, &say))
    });
    (hears, waiting)
}

#[test]
fn a_daemon_waits_for_a_command_and_a_command_for_a_daemon() {
    for (holder, who) in [
        (Occupant::Command, Occupant::Daemon),
        (Occupant::Daemon, Occupant::Command),
        (Occupant::Command, Occupant::Command),
        // One that starts or ends: nothing answers.
        (Occupant::Daemon, Occupant::Daemon),
    ] {
        let place = place();
        let lock = place.dir.lock(holder).unwrap();
        let (hears, waiting) = waiting(&place.dir, who);
        let said = hears.recv_timeout(DEADLINE).unwrap();
        let process = std::process::id();
        let words = [format!("(process {process})"), format!("（进程 {process}）")];
        for word in words.iter().map(String::as_str).chain(place.dir.path().to_str()) {
            assert!(said.contains(word), "{word} is missing: {said}");
        }
        drop(lock);
        waiting.join().unwrap().unwrap();
        // It was said once.
        assert_eq!(hears.try_iter().count(), 0);
    }
}

#[test]
fn a_daemon_gives_up_at_once_where_a_daemon_answers() {
    let place = place();
    let _lock = place.dir.lock(Occupant::Daemon).unwrap();
    let listener = UnixListener::bind(place.dir.socket()).unwrap();
    let never = |text: &str| panic!("it waits: {text}");
    let mut wait = wait(&place.dir, Occupant::Daemon, DEADLINE, &never);
    let error = place.dir.lock_within(&mut wait).unwrap_err().to_string();
    for word in ["in use by another creditsync (process", "a daemon runs here", "--dir", "守护进程"]
    {
        assert!(error.contains(word), "{word} is missing: {error}");
    }
    // A socket that nobody listens at is one of a daemon that died.
    drop(listener);
    let (hears, waiting) = waiting(&place.dir, Occupant::Daemon);
    hears.recv_timeout(DEADLINE).unwrap();
    drop(_lock);
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_daemon_that_begins_to_answer_ends_the_wait_of_another_one() {
    let place = place();
    let _lock = place.dir.lock(Occupant::Daemon).unwrap();
    let (hears, waiting) = waiting(&place.dir, Occupant::Daemon);
    hears.recv_timeout(DEADLINE).unwrap();
    let _listener = UnixListener::bind(place.dir.socket()).unwrap();
    let error = waiting.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("a daemon runs here already"), "{error}");
}

#[test]
fn nobody_waits_for_ever() {
    let place = place();
    let lock = place.dir.lock(Occupant::Command).unwrap();
    let said = Mutex::new(Vec::new());
    let say = |text: &str| said.lock().unwrap().push(text.to_owned());
    for who in [Occupant::Daemon, Occupant::Command] {
        let mut wait = wait(&place.dir, who, Duration::ZERO, &say);
        let error = place.dir.lock_within(&mut wait).unwrap_err().to_string();
        for word in ["in use by another creditsync (process", "--dir", "未释放"] {
            assert!(error.contains(word), "{word} is missing: {error}");
        }
    }
    assert_eq!(said.lock().unwrap().len(), 2);
    drop(lock);
    place.dir.try_lock().unwrap().unwrap();
}

#[test]
fn the_text_of_the_lock_decides_nothing() {
    let place = place();
    drop(place.dir.lock(Occupant::Daemon).unwrap());
    assert_eq!(std::fs::read_to_string(place.dir.lock_file()).unwrap(), "");
    for text in
        ["", "4711\n", "command", "-1", "\u{1b}[31m 7", "99999999999", "字字字字字字字字字字字字"]
    {
        // As one that was killed leaves it.
        std::fs::write(place.dir.lock_file(), text).unwrap();
        let known = (text == "4711\n").then_some(4711);
        assert_eq!(place.dir.holder(), Holder(known), "{text:?}");
        let lock = place.dir.try_lock().unwrap().expect("nobody has it");
        let own = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(place.dir.lock_file()).unwrap(), own);
        drop(lock);
    }
}

#[test]
fn a_node_in_the_making_is_waited_for_and_nothing_else() {
    let place = place();
    assert!(!place.dir.is_in_the_making());
    assert!(!place.dir.path().exists(), "looking made something");
    let lock = place.dir.lock(Occupant::Command).unwrap();
    assert!(place.dir.is_in_the_making());
    let say = |_: &str| {};
    let over = wait(&place.dir, Occupant::Command, Duration::ZERO, &say).until_made();
    assert!(over.unwrap_err().to_string().contains("in use by another"));
    let (told, hears) = mpsc::channel();
    let dir = place.dir.clone();
    let waiting = std::thread::spawn(move || {
        let say = |text: &str| told.send(text.to_owned()).unwrap();
        wait(&dir, Occupant::Daemon, DEADLINE, &say).until_made()
    });
    hears.recv_timeout(DEADLINE).unwrap();
    // As `init` and `join` end.
    std::fs::write(place.dir.config(), "").unwrap();
    waiting.join().unwrap().unwrap();
    assert!(!place.dir.is_in_the_making());
    drop(lock);
    // One that failed leaves no node, and nobody to wait for.
    std::fs::remove_file(place.dir.config()).unwrap();
    assert!(!place.dir.is_in_the_making());
}
