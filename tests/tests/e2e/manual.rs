//! What the manual tells people to type is what the program takes, in both languages, and
//! each procedure of the page about trouble is carried out by a test.

use std::{collections::BTreeSet, fs, path::Path};

use harness::node::{creditsync, workspace};

/// The sections of docs/operations.md, in their order, and the tests that do what they say.
const PROCEDURES: [(&str, &[&str]); 7] = [
    (
        "## States of a partition",
        &[
            "converge.rs: the_status_tells_who_holds_what",
            "forks.rs: a_fork_goes_on_with_what_the_hub_holds",
        ],
    ),
    ("## Chores", &["repair.rs: damage_is_found_and_taken_back_without_a_command"]),
    (
        "## A damaged store",
        &[
            "damage.rs: a_countys_store_heals_from_whatever_was_done_to_it",
            "damage.rs: a_hubs_store_heals_from_whatever_was_done_to_it",
            "damage.rs: what_nobody_else_holds_is_lost_only_when_a_person_says_so",
            "disk.rs: a_node_started_on_a_full_disk_loses_nothing",
        ],
    ),
    (
        "## An old directory was put back",
        &[
            "restored.rs: what_a_restored_directory_lacks_is_taken_back_before_it_writes",
            "restored.rs: a_restored_hub_takes_its_own_history_back_from_its_members",
        ],
    ),
    (
        "## Two histories (a fork)",
        &[
            "forks.rs: a_fork_goes_on_with_what_the_hub_holds",
            "forks.rs: a_fork_goes_on_with_what_the_origin_has",
            "forks.rs: a_resolution_that_was_cut_off_holds_the_partition_until_it_is_done",
            "forks.rs: a_hub_goes_on_with_the_history_of_the_member_that_differs",
            "forks.rs: a_hub_that_was_put_back_twice_goes_on_with_one_of_three_histories",
            "restored.rs: a_county_goes_on_with_a_restored_hubs_members_once_somebody_has_decided",
        ],
    ),
    (
        "## The hub moves to another address or machine",
        &[
            "moving.rs: the_hub_moves_and_who_was_away_comes_back_by_hand_or_by_a_token",
            "moving.rs: a_token_of_the_hub_in_its_new_place_brings_a_running_county_back",
        ],
    ),
    (
        "## Clocks, certificates, the log",
        &[
            "clock.rs: a_certificate_from_a_clock_that_was_ahead_is_replaced_once_the_clock_is_right",
            "forced_rotation.rs: nobody_is_locked_out_before_a_person_has_read_the_name",
            "log.rs: a_log_that_nobody_reads_holds_nothing_up_and_says_what_it_lost",
            "frozen.rs: commands_to_a_frozen_daemon_say_so_and_do_nothing",
        ],
    ),
];

fn page(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages that people read, by their paths.
fn pages() -> Vec<String> {
    let docs = fs::read_dir(workspace().join("docs")).unwrap();
    let names = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let pages = names.filter(|name| Path::new(name).extension().is_some_and(|it| it == "md"));
    let mut pages: Vec<String> = pages.map(|name| format!("docs/{name}")).collect();
    pages.extend(["README.md".to_owned(), "README.zh-CN.md".to_owned()]);
    pages.sort();
    pages
}

/// The commands of a page: in backquotes, or a line of a block.
fn commands(text: &str) -> BTreeSet<String> {
    let mut commands = BTreeSet::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            let line = line.trim_start().trim_start_matches("sudo ");
            commands.extend(line.starts_with("creditsync ").then(|| line.to_owned()));
        } else {
            // Every other piece is in backquotes.
            let quoted = line.split('`').skip(1).step_by(2);
            commands.extend(quoted.filter(|it| it.starts_with("creditsync ")).map(str::to_owned));
        }
    }
    commands
}

/// What a shell would make of it, without what it does beside: comments, pipes, files, and
/// what columns of a block say behind two blanks.
fn arguments(command: &str) -> Vec<String> {
    let ends = [" #", " | ", " < ", " > ", " &", "  "];
    let end = ends.iter().filter_map(|end| command.find(end)).min().unwrap_or(command.len());
    // What is quoted is one word.
    let pieces = command[..end].split('"').enumerate();
    let line: String = pieces
        .map(|(at, piece)| if at % 2 == 1 { piece.replace(' ', "_") } else { piece.to_owned() })
        .collect();
    let words = line.split_whitespace().skip(1);
    let mut arguments: Vec<String> = Vec::new();
    for word in words {
        let is_value = arguments.last().is_some_and(|before| before.starts_with("--"));
        match word {
            // Numbers have to be some.
            "NUMBER" | "N" | "序号" | "版本" => arguments.push("1".to_owned()),
            // A value that is left out, or all the rest.
            "…" if is_value => arguments.push("1".to_owned()),
            "…" | "TEXT…" => {}
            _ => arguments.push(word.to_owned()),
        }
    }
    arguments
}

#[test]
fn what_the_manual_says_to_type_is_what_the_program_takes() {
    let mut seen = 0;
    for page_name in pages() {
        for command in commands(&page(&page_name)) {
            // Not a command, but the name of any.
            let arguments = arguments(&command);
            if arguments.first().is_some_and(|first| first == "COMMAND" || first == "0.1.0") {
                continue;
            }
            // With this nothing is done, and everything before it is looked at.
            let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
            all.retain(|word| !word.starts_with('[') && !word.ends_with(']'));
            all.push("--help");
            let output = creditsync(&all);
            assert_eq!(output.code, Some(0), "{page_name}: `{command}`: {output:#?}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} commands were found");
}

#[test]
fn every_procedure_for_trouble_is_carried_out_by_a_test() {
    let headings = |text: &str| {
        let headings = text.lines().filter(|line| line.starts_with("## "));
        headings.map(str::to_owned).collect::<Vec<_>>()
    };
    let english = page("docs/operations.md");
    let chinese = page("docs/operations.zh-CN.md");
    let named: Vec<&str> = PROCEDURES.iter().map(|(heading, _)| *heading).collect();
    assert_eq!(headings(&english), named, "each section has its tests in PROCEDURES");
    assert_eq!(headings(&chinese).len(), named.len(), "both languages have the same sections");
    assert_eq!(commands_by_name(&english), commands_by_name(&chinese), "and the same commands");
    for (heading, tests) in PROCEDURES {
        for test in tests {
            let (file, name) = test.split_once(": ").unwrap();
            let source = page(&format!("tests/tests/e2e/{file}"));
            assert!(source.contains(&format!("fn {name}()")), "{heading}: there is no test {test}");
        }
    }
}

/// The names of a page's commands: their placeholders are in its language.
fn commands_by_name(text: &str) -> BTreeSet<String> {
    let commands = commands(text).into_iter();
    let names = commands.map(|command| {
        let words = arguments(&command).into_iter();
        let is_name = |word: &String| word.bytes().all(|byte| byte.is_ascii_lowercase());
        words.take_while(is_name).take(2).collect::<Vec<_>>().join(" ")
    });
    names.collect()
}
