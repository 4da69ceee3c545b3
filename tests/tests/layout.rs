//! The rules of the source tree that no compiler checks: every module says what
//! it is, imports go one way, and a replaceable dependency is named in one place
//! only.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies in the workspace").to_owned()
}

/// All Rust files below `dir`, as paths relative to the workspace, with their
/// text.
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {dir}");
    found
}

const CRATES: [&str; 4] = ["protocol/src", "certs/src", "config/src", "daemon/src"];

#[test]
fn every_module_begins_with_what_it_is() {
    let all = CRATES.iter().chain(&["tests/src", "tests/tests"]).flat_map(|dir| sources(dir));
    let silent: Vec<String> =
        all.filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "no `//!` header: {silent:?}");
}

#[test]
fn each_replaceable_dependency_has_one_place() {
    for (word, place) in [
        ("sled::", "daemon/src/store/"),
        ("blake3::", "protocol/src/hash"),
        ("platform::Platform", "protocol/src/hash/lanes.rs"),
        ("bincode::", "protocol/src/codec.rs"),
        ("zstd::", "protocol/src/codec.rs"),
        ("quinn::", "daemon/src/net/"),
        ("ed25519_dalek", "protocol/src/sign.rs"),
        ("rcgen", "certs/src/"),
        ("rustix::", "daemon/src/"),
        ("highway::", "daemon/src/"),
        ("calamine", "daemon/src/sources/sheet/"),
        ("quick_xml", "daemon/src/sources/sheet/"),
        ("flate2::", "daemon/src/sources/packed/"),
        ("zip::", "daemon/src/sources/"),
        ("memchr::", "daemon/src/sources/csv/"),
    ] {
        let strangers: Vec<String> = CRATES
            .iter()
            .flat_map(|dir| sources(dir))
            .filter(|(name, text)| !name.starts_with(place) && code_of(text).contains(word))
            .map(|(name, _)| name)
            .collect();
        assert!(strangers.is_empty(), "{word} outside of {place}: {strangers:?}");
    }
}

#[test]
fn imports_inside_the_daemon_go_one_way() {
    // A folder, and the siblings that it may name. `cores` and `limit` name none.
    let allowed: [(&str, &[&str]); 11] = [
        ("cores.rs", &[]),
        ("limit.rs", &[]),
        ("store", &["store", "cores"]),
        ("membership.rs", &["store"]),
        ("net", &["net", "limit"]),
        ("ingest", &["ingest", "membership", "store"]),
        ("sources", &["sources", "ingest", "membership", "store"]),
        ("sync", &["sync", "cores", "limit", "membership", "net", "store"]),
        ("admin", &["admin", "ingest", "sources"]),
        (
            "app",
            &["app", "admin", "ingest", "limit", "membership", "net", "sources", "store", "sync"],
        ),
        ("telemetry.rs", &[]),
    ];
    for (folder, may) in allowed {
        let prefix = format!("daemon/src/{folder}");
        for (name, text) in sources("daemon/src") {
            if !name.starts_with(&prefix) {
                continue;
            }
            for module in siblings_named(&code_of(&text)) {
                assert!(may.contains(&module.as_str()), "{name} imports crate::{module}");
            }
        }
    }
}

/// Rooms of the daemon whose modules import each other one way only.
const ROOMS_WITHOUT_LOOPS: [&str; 2] = ["ingest", "sources"];

#[test]
fn no_imports_go_round_inside_a_room() {
    for room in ROOMS_WITHOUT_LOOPS {
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, text) in sources(&format!("daemon/src/{room}")) {
            let inside = name.trim_start_matches(&format!("daemon/src/{room}/"));
            let own = inside.split('/').next().unwrap().trim_end_matches(".rs");
            if ["mod", "tests", "random"].contains(&own) {
                continue;
            }
            // How a module names its room: from the room's own files and from
            // folders' roots by one step less than from what lies deeper.
            let depth = inside.matches('/').count() + usize::from(!inside.ends_with("/mod.rs"));
            let steps = "super::".repeat(depth.max(1));
            let code = before_tests(&text);
            let mut named = named_after(&code, &format!("{room}::"));
            named.extend(named_after(&code, &steps));
            named.retain(|word| word != own && !word.starts_with(char::is_uppercase));
            arrows.entry(own.to_owned()).or_default().extend(named);
        }
        let mut done = BTreeSet::new();
        while let Some(next) = arrows.keys().find(|own| {
            let ends = |to: &String| done.contains(to) || !arrows.contains_key(to);
            !done.contains(*own) && arrows[*own].iter().all(ends)
        }) {
            done.insert(next.clone());
        }
        let round: Vec<_> = arrows.iter().filter(|(own, _)| !done.contains(*own)).collect();
        assert!(round.is_empty(), "{room}: these import each other: {round:?}");
    }
}

/// The code up to its module of tests.
fn before_tests(text: &str) -> String {
    without_comments(text.split("#[cfg(test)]\nmod ").next().unwrap_or_default())
}

fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first words of the paths behind `prefix`, alone or in a list.
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let first_word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut named = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        // Longer steps, or a longer word, are another module's.
        let before = &code[..at];
        if before.ends_with("super::")
            || before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => named.extend(items(list).iter().map(|item| first_word(item))),
            None => named.push(first_word(rest)),
        }
    }
    named.retain(|word| !word.is_empty() && word != "super");
    named
}

/// The modules of the daemon that a text names, alone or in a list.
fn siblings_named(code: &str) -> Vec<String> {
    let first_word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut named = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => named.extend(items(list).iter().map(|item| first_word(item))),
            None => named.push(first_word(rest)),
        }
    }
    named.retain(|word| !word.is_empty());
    named
}

/// The parts of a braced list that commas separate, up to its closing brace.
fn items(list: &str) -> Vec<String> {
    let (mut items, mut item, mut depth) = (Vec::new(), String::new(), 0);
    for character in list.chars() {
        match character {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => {
                depth += match character {
                    '{' => 1,
                    '}' => -1,
                    _ => 0,
                };
                item.push(character);
            }
        }
    }
    items.push(item);
    items
}

#[test]
fn the_protocol_does_no_input_or_output() {
    for (name, text) in sources("protocol/src") {
        let code = code_of(&text);
        for word in
            ["std::fs", "std::net", "std::thread", "SystemTime", "Instant", "tokio", "std::env"]
        {
            assert!(!code.contains(word), "{name} uses {word}");
        }
    }
}

/// The text without comment lines and without what follows `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    without_comments(text.split("#[cfg(test)]").next().unwrap_or_default())
}
