//! The rules of the source tree that no compiler checks: every module says what
//! it is, imports go one way, and a replaceable dependency is named in one place
//! only.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod layout {
    pub mod code;
    pub mod imports;
}

use std::fs;

use self::layout::{
    code::{code_below, root, sources},
    imports::Crate,
};

const CRATES: [&str; 6] =
    ["protocol/src", "files/src", "certs/src", "config/src", "daemon/store/src", "daemon/src"];

#[test]
fn every_module_begins_with_what_it_is() {
    let all = CRATES.iter().chain(&["tests/src", "tests/tests"]).flat_map(|dir| sources(dir));
    let silent: Vec<String> =
        all.filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "no `//!` header: {silent:?}");
}

#[test]
fn each_replaceable_dependency_has_one_place() {
    let all: Vec<(String, String)> = CRATES.iter().flat_map(|dir| code_below(dir)).collect();
    for (word, place) in [
        ("sled::", "daemon/store/src/engine/"),
        ("blake3::", "protocol/src/suite/"),
        ("platform::Platform", "protocol/src/suite/one/lanes.rs"),
        // Elsewhere a suite is a question to the federation.
        ("Suite::Artificial", "protocol/src/suite/"),
        ("bincode::", "protocol/src/codec.rs"),
        ("zstd::", "protocol/src/codec.rs"),
        ("quinn::", "daemon/src/net/"),
        ("ed25519_dalek", "protocol/src/suite/"),
        ("rcgen", "certs/src/"),
        ("rustix::", "daemon/"),
        ("highway::", "daemon/"),
        ("calamine", "daemon/src/sources/sheet/"),
        ("quick_xml", "daemon/src/sources/sheet/"),
        ("flate2::", "daemon/src/sources/packed/"),
        ("zip::", "daemon/src/sources/"),
        ("memchr::", "daemon/src/sources/csv/"),
    ] {
        let strangers: Vec<&String> = all
            .iter()
            .filter(|(name, code)| !name.starts_with(place) && names(code, word))
            .map(|(name, _)| name)
            .collect();
        assert!(strangers.is_empty(), "{word} outside of {place}: {strangers:?}");
    }
}

/// Whether a word stands in some code, and not as the end of a longer one.
fn names(code: &str, word: &str) -> bool {
    let is_whole = |at: usize| {
        !code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
    };
    code.match_indices(word).any(|(at, _)| is_whole(at))
}

#[test]
fn crates_import_of_the_workspace_only_what_they_may() {
    for (folder, may) in [
        ("protocol", &[][..]),
        ("files", &[]),
        ("certs", &["files", "protocol"]),
        ("config", &["protocol"]),
        ("daemon/store", &["files", "protocol"]),
        ("daemon", &["certs", "config", "files", "protocol", "store"]),
    ] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split_once("\n[dependencies]").map_or("", |(_, rest)| rest);
        let dependencies = dependencies.split("\n[").next().unwrap();
        for name in ["protocol", "files", "certs", "config", "store", "daemon"] {
            let named = dependencies.lines().any(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '.']))
            });
            assert!(!named || may.contains(&name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn what_is_released_has_no_artificial_suite() {
    for folder in ["protocol", "files", "certs", "config", "daemon/store", "daemon"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let released = manifest.split_once("\n[dev-dependencies]").map_or(&*manifest, |(it, _)| it);
        for line in released.lines().filter(|line| line.contains("artificial-suite")) {
            let declared = line.starts_with("artificial-suite = [");
            assert!(declared, "{folder} turns the artificial suite on: {line}");
        }
        assert!(!released.contains("\ndefault = "), "{folder} has features by default");
    }
}

#[test]
fn only_a_hub_is_made_with_a_suite_that_the_code_names() {
    // All others ask their federation; each place has its reason beside it.
    let places = [
        "protocol/src/suite/",
        "certs/src/keyfile/dir.rs",
        "daemon/src/cli/",
        "daemon/src/ingest/history/images.rs",
    ];
    for (name, code) in CRATES.iter().flat_map(|dir| code_below(dir)) {
        let may = places.iter().any(|place| name.starts_with(place));
        assert!(may || !names(&code, "Suite::One"), "{name} names a suite");
    }
}

#[test]
fn imports_inside_the_daemon_go_one_way() {
    // A folder or file, and the siblings that it may name.
    let allowed: [(&str, &[&str]); 11] = [
        ("limit", &[]),
        ("memory", &[]),
        ("membership", &[]),
        ("net", &["limit", "memory"]),
        ("ingest", &["membership"]),
        ("sources", &["ingest", "membership"]),
        ("sync", &["limit", "membership", "memory", "net"]),
        ("upkeep", &["sync"]),
        ("admin", &["ingest", "sources", "upkeep"]),
        ("app", &["admin", "ingest", "limit", "membership", "net", "sources", "sync", "upkeep"]),
        ("telemetry", &[]),
    ];
    for (module, imports) in Crate::read("daemon/src").imports() {
        let own = module.first().cloned().unwrap_or_default();
        let Some((_, may)) = allowed.iter().find(|(folder, _)| *folder == own) else {
            continue;
        };
        for named in imports.iter().filter_map(|path| path.first()) {
            let is_allowed = *named == own || may.contains(&named.as_str());
            assert!(is_allowed, "{} imports crate::{named}", module.join("::"));
        }
    }
}

/// The floors of the store from the lowest one up: a module imports what stands
/// on a lower floor than its own. The crate's root and what is above all floors
/// are the store as others see it.
const FLOORS: [&[&str]; 9] = [
    &["cores", "error"],
    &["engine"],
    &["events", "keys", "quota"],
    &["log", "marks", "tree"],
    &["state"],
    &["prepare"],
    &["jobs"],
    &["heads", "live", "queue", "snapshot"],
    &["copy", "feed", "intake", "writer"],
];

#[test]
fn the_floors_of_the_store_are_the_ones_that_are_told() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("| floor | is |\n| --- | --- |\n").unwrap();
    let rows = table.lines().map_while(|row| row.strip_prefix('|')?.split_once('|'));
    let names = |floor: &str| -> Vec<String> {
        let names = floor.split(',');
        names.map(|name| name.trim().trim_matches(['`', '/']).to_owned()).collect()
    };
    let told: Vec<Vec<String>> = rows.map(|(floor, _)| names(floor)).collect();
    let (above, floors) = told.split_last().unwrap();
    assert_eq!(above, &["lib", "consumers", "signing", "mending"]);
    assert_eq!(floors, FLOORS);
}

#[test]
fn imports_inside_the_store_go_down() {
    let floor = |name: &str| FLOORS.iter().position(|floor| floor.contains(&name));
    for (module, imports) in Crate::read("daemon/store/src").imports() {
        let Some(own) = module.first() else { continue };
        for named in imports {
            let named = named.first().cloned().unwrap_or_default();
            let may = floor(own).is_none_or(|own| floor(&named).is_some_and(|floor| floor < own));
            assert!(may || named == *own, "{} imports crate::{named}", module.join("::"));
        }
    }
}

#[test]
fn no_imports_go_round() {
    // On each level of the folders. In the store a folder's root counts as one of
    // its parts; elsewhere words may stand there that all of the folder uses.
    let mut round = Crate::read("daemon/store/src").loops(true);
    for dir in ["certs/src", "config/src", "daemon/src"] {
        round.extend(Crate::read(dir).loops(false));
    }
    assert!(round.is_empty(), "these import each other:\n{}", round.join("\n"));
}

#[test]
fn the_protocol_does_no_input_or_output() {
    for (name, code) in code_below("protocol/src") {
        for word in
            ["std::fs", "std::net", "std::thread", "SystemTime", "Instant", "tokio", "std::env"]
        {
            assert!(!code.contains(word), "{name} uses {word}");
        }
    }
}

#[test]
fn the_verifier_shares_nothing_with_what_it_verifies() {
    // These start processes, make certificates, or ask both about the same bytes.
    let scene = [
        "beside.rs",
        "beside_admission.rs",
        "beside_anchors.rs",
        "beside_authorities.rs",
        "beside_deliveries.rs",
        "beside_differences.rs",
        "beside_federation.rs",
        "beside_history.rs",
        "beside_hub.rs",
        "beside_json.rs",
        "beside_joining.rs",
        "beside_keys.rs",
        "beside_labels.rs",
        "beside_edges.rs",
        "beside_records.rs",
        "beside_roots.rs",
        "beside_schemas.rs",
        "beside_tokens.rs",
        "beside_work.rs",
        "live.rs",
        "recorded.rs",
    ];
    let own = code_below("tests/tests/verifier");
    for (name, code) in own.iter().filter(|(name, _)| !scene.iter().any(|s| name.ends_with(s))) {
        for word in ["protocol", "certs", "config", "daemon", "store", "files", "harness", "crate"]
        {
            assert!(!names(code, &format!("{word}::")), "{name} uses {word}");
        }
    }
}
