//! Children that die, are silent, or talk nonsense; frames that are none.

use std::{os::unix::fs::PermissionsExt as _, time::Instant};

use super::{
    super::texts::{COLUMNS_MAX, ROW_BYTES_MAX},
    frames::{FRAME_BYTES_MAX, SheetRows, Trouble},
    *,
};

#[test]
fn arguments_say_the_whole_task() {
    for task in [
        Task::SheetFronts { rows: 20 },
        Task::Sheet {
            index: 3,
            header_line: 2,
            columns: Columns { texts: vec![0, 7], others: vec![2] },
        },
        Task::Sheet { index: 0, header_line: 1, columns: Columns::default() },
        Task::List { gzip: true },
        Task::Unpack { gzip: false, index: 7, bytes_max: 1 << 40 },
    ] {
        assert_eq!(Task::parse(&task.arguments()), Some(task));
    }
    for wrong in
        ["", "sheet", "sheet x", "list tar", "unpack zip 1", "sheet 1 2 x 3", "sheet 1 2 3 4 5"]
    {
        let arguments: Vec<String> = wrong.split_whitespace().map(str::to_owned).collect();
        assert_eq!(Task::parse(&arguments), None, "{wrong}");
    }
}

/// A child that is this shell script instead of the program.
fn script(text: &str) -> (tempfile::TempDir, Program) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("child");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, Program::At(path))
}

fn start(program: &Program) -> Child {
    let input = tempfile::tempfile().unwrap();
    Child::start(program, &Task::SheetFronts { rows: 1 }, &input, None).unwrap()
}

#[test]
fn a_child_that_dies_is_told_with_its_signal() {
    for (text, how) in [
        ("kill -ABRT $$", "signal 6"),
        ("exit 7", "exit code 7"),
        ("printf '\\001'; kill -9 $$", "signal 9"),
    ] {
        let (_dir, program) = script(text);
        let mut child = start(&program);
        match child.hear() {
            Err(ChildError::Died { how: found }) => assert_eq!(found, how),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_child_that_talks_nonsense_is_not_believed() {
    for text in [
        "printf '\\377\\000\\000\\000\\000'",
        "printf '\\002\\377\\377\\377\\377'",
        "printf '\\007\\000\\000\\000\\001x'",
        "echo thread main panicked at file.rs",
    ] {
        let (_dir, program) = script(text);
        assert!(matches!(start(&program).hear(), Err(ChildError::Nonsense(_))), "{text}");
    }
}

#[test]
fn a_silent_child_is_killed() {
    let (_dir, program) = script("exec sleep 1000");
    let mut child = start(&program);
    child.answer.silence_max = Duration::from_millis(50);
    assert!(matches!(child.hear(), Err(ChildError::Silent)));
    let id = match &child.running {
        Running::Process(process) => process.id(),
        Running::Thread => unreachable!("a script is a process"),
    };
    let begun = Instant::now();
    drop(child);
    // Reaped, so nothing is left of it.
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    assert!(begun.elapsed() < Duration::from_secs(500), "it was waited for");
}

#[test]
fn a_child_has_no_environment_and_no_directory_of_ours() {
    let (dir, program) =
        script("env > \"$(dirname \"$0\")/seen\"; pwd >> \"$(dirname \"$0\")/seen\"");
    let mut child = start(&program);
    assert!(child.hear().is_err());
    let seen = std::fs::read_to_string(dir.path().join("seen")).unwrap();
    assert!(!seen.contains("HOME=") && !seen.contains("CARGO"), "{seen}");
    assert!(seen.ends_with("\n/\n") || seen.trim_end().ends_with("/"), "{seen}");
}

fn rows(cells: &[&str]) -> SheetRows {
    let mut rows = SheetRows::default();
    rows.push(7, None, cells.iter().copied());
    rows
}

fn messages() -> Vec<Message> {
    let mut two = rows(&["甲", "", "1"]);
    two.push(9, Some(Trouble::ErrorCell(1)), ["#N/A"].into_iter());
    two.push(10, Some(Trouble::MergedCell(COLUMNS_MAX as u16)), [].into_iter());
    two.push(11, Some(Trouble::DamagedCell), ["x"].into_iter());
    vec![
        Message::Sheet { name: "名单".into(), hidden: true },
        Message::Rows(two),
        Message::BrokenSheet(Fault::Damaged),
        Message::Entry { name: "a.csv".into(), bytes: 7, encrypted: false },
        Message::Unpacked(1 << 40),
        Message::Failed(Fault::Internal),
        Message::Done,
    ]
}

#[test]
fn messages_come_back_as_they_were() {
    let mut bytes = Vec::new();
    messages().iter().for_each(|message| message.write(&mut bytes).unwrap());
    let mut from = bytes.as_slice();
    for message in messages() {
        assert_eq!(Message::read(&mut from).unwrap(), Some(message));
    }
    assert!(Message::read(&mut from).unwrap().is_none());
    let mut cut = &bytes[..bytes.len() - 1];
    for _ in 1..messages().len() {
        Message::read(&mut cut).unwrap();
    }
    assert!(Message::read(&mut cut).is_err(), "a frame that is cut is no end");
}

#[test]
fn what_is_too_large_for_a_frame_is_left_out() {
    let long = "x".repeat(ROW_BYTES_MAX);
    let kept = rows(&[&long]);
    assert_eq!(kept.iter().next().unwrap().trouble, None);
    let (kind, bytes) = Message::Rows(kept).encode();
    assert!(bytes.len() <= FRAME_BYTES_MAX);
    assert!(Message::decode(kind, &bytes).is_ok());
    for row in [rows(&[&long, "x"]), rows(&vec!["x"; COLUMNS_MAX + 1])] {
        let row = row.iter().next().unwrap();
        assert!(row.trouble == Some(Trouble::TooLong) && row.is_empty());
    }
    // A child that does not keep to it.
    let mut bytes = 7u32.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 0, 2]);
    for _ in 0..2 {
        bytes.extend((ROW_BYTES_MAX as u32 / 2 + 1).to_be_bytes());
        bytes.resize(bytes.len() + ROW_BYTES_MAX / 2 + 1, b'x');
    }
    assert!(Message::decode(2, &bytes).is_err());
}
