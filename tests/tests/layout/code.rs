//! Source files as the rules look at them: whole, but for comments, the content
//! of texts, and code that is there for tests only.
//!
//! Modules of tests are left out, in the same file or in one of their own. What
//! else stands behind `#[cfg(test)]`, a field or a function, is looked at.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The workspace's directory.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies in the workspace").to_owned()
}

/// All Rust files below `dir`, as paths relative to the workspace, with their
/// text.
pub fn sources(dir: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root().join(dir)];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {dir}");
    found
}

/// The code of all files below `dir` that are not there for tests only.
pub fn code_below(dir: &str) -> BTreeMap<String, String> {
    let texts = sources(dir);
    let of_tests: Vec<String> =
        texts.iter().flat_map(|(name, text)| files_of_tests(name, text)).collect();
    let is_of_tests = |name: &str| {
        of_tests.iter().any(|tests| {
            name.strip_prefix(tests.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    texts
        .into_iter()
        .filter(|(name, _)| !is_of_tests(name))
        .map(|(name, text)| (name, without_tests(&without_comments(&text))))
        .collect()
}

/// The modules of tests that a file declares and that have files of their own,
/// as paths without their ending.
fn files_of_tests(name: &str, text: &str) -> Vec<String> {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let own = match name.rsplit('/').next() {
        Some("mod.rs" | "lib.rs" | "main.rs") => folder.to_owned(),
        _ => name.trim_end_matches(".rs").to_owned(),
    };
    let mut found = Vec::new();
    for rest in text.split("#[cfg(test)]\n").skip(1) {
        let mut path = None;
        for line in rest.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("#[path = \"") {
                path = rest.strip_suffix(".rs\"]");
            } else if !line.starts_with("#[") {
                let declared =
                    line.rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
                found.extend(declared.map(|declared| match path {
                    Some(path) => format!("{folder}/{path}"),
                    None => format!("{own}/{declared}"),
                }));
                break;
            }
        }
    }
    found
}

/// A text without its comments and without the content of its literals.
pub fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(literal) = literal_bytes(rest, code.chars().next_back()) {
            code.push_str("\"\"");
            literal
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// How long the literal is that `rest` begins with, if it begins with one.
fn literal_bytes(rest: &str, before: Option<char>) -> Option<usize> {
    let after_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = rest.strip_prefix('r').filter(|_| !after_word || before == Some('b'));
    if let Some(raw) = raw {
        let quoted = raw.trim_start_matches('#');
        let hashes = "#".repeat(raw.len() - quoted.len());
        if let Some(content) = quoted.strip_prefix('"') {
            let end = content.find(&format!("\"{hashes}")).unwrap_or(content.len());
            return Some((1 + 2 * (hashes.len() + 1) + end).min(rest.len()));
        }
    }
    if let Some(content) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = content.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        return Some(end.map_or(rest.len(), |end| end + 2));
    }
    // A character, but not a lifetime.
    let content = rest.strip_prefix('\'')?;
    let mut chars = content.char_indices();
    match chars.next()? {
        (_, '\\') => {
            let (after, _) = chars.nth(1)?;
            Some(after + content[after..].find('\'').map_or(0, |end| end + 2).max(1))
        }
        _ => chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 2),
    }
}

/// Code without the bodies of its modules of tests.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let item = rest.trim_start_matches("#[cfg(test)]").trim_start();
        let body = item.split_once('{').filter(|(head, _)| {
            let words: Vec<&str> = head.split_whitespace().collect();
            matches!(words[..], ["mod", _] | [_, "mod", _])
        });
        match body {
            Some((_, body)) => rest = after_braces(body),
            None => {
                kept.push_str("#[cfg(test)]");
                rest = &rest["#[cfg(test)]".len()..];
            }
        }
    }
    kept + rest
}

/// What follows the brace that closes a body.
fn after_braces(body: &str) -> &str {
    let mut depth = 1;
    let end = body.find(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    end.map_or("", |end| &body[end + 1..])
}

#[test]
fn all_of_a_file_is_looked_at_but_its_tests() {
    let text = "\
//! Not sled:: here.
struct A<'a> { #[cfg(test)] broken: &'a str }
/* nor sled:: here */
#[cfg(test)]
mod tests { fn a() { let brace = '}'; sled::open(\"}\") } }
fn b() { c(\"sled::\", r#\"sled:: \"quoted\" \"#, '\\'', '\\u{41}') } // sled::
fn d() { e::f() }
";
    let code = without_tests(&without_comments(text));
    assert!(!code.contains("sled::"), "{code}");
    assert!(code.contains("broken: &'a str") && code.contains("e::f()"), "{code}");
}
