//! Who imports whom among the modules of a crate, and whether that goes round.
//!
//! An import is any path that begins with `crate`, `super` or `self`, and it is
//! the import of the module that has what is named: where a folder's root only
//! passes something on, it is the module that the root has it from.

use std::collections::{BTreeMap, BTreeSet};

use super::code::code_below;

/// The place of a module: the names from the crate's root on.
pub type ModulePath = Vec<String>;

/// What imports name in place of a module: the root of a folder.
const ROOT: &str = "(root)";

/// The modules of a crate.
pub struct Crate {
    modules: BTreeMap<ModulePath, String>,
    /// What a folder's root passes on, by its place and name.
    passed_on: BTreeMap<(ModulePath, String), ModulePath>,
}

impl Crate {
    /// The crate whose sources lie in this directory, without its tests.
    pub fn read(dir: &str) -> Self {
        let place = |name: &str| -> ModulePath {
            let inside = name[dir.len() + 1..].trim_end_matches(".rs");
            let parts = inside.split('/').filter(|part| !["lib", "main", "mod"].contains(part));
            parts.map(str::to_owned).collect()
        };
        let mut modules = BTreeMap::<ModulePath, String>::new();
        for (name, code) in code_below(dir) {
            modules.entry(place(&name)).or_default().push_str(&code);
        }
        let mut read = Self { modules, passed_on: BTreeMap::new() };
        for (own, code) in &read.modules {
            for (path, name) in uses(code) {
                let first = path.first().map(String::as_str);
                let inside = match first {
                    Some("self") => [own, &path[1..]].concat(),
                    Some("crate") => path[1..].to_vec(),
                    Some("super") | None => continue,
                    _ => [&own[..], &path].concat(),
                };
                if inside.len() > own.len() + 1 && inside.starts_with(own) {
                    read.passed_on.insert((own.clone(), name), inside);
                }
            }
        }
        read
    }

    /// Each module, and those that it imports.
    pub fn imports(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let of = |(own, code): (&ModulePath, &String)| {
            let named = paths(code).into_iter().filter_map(|path| absolute(own, &path));
            let found: BTreeSet<_> = named.map(|path| self.owner(&path)).collect();
            (own.clone(), found)
        };
        self.modules.iter().map(of).collect()
    }

    /// The module that has what this path names.
    fn owner(&self, path: &[String]) -> ModulePath {
        let mut at = ModulePath::new();
        for (index, name) in path.iter().enumerate() {
            at.push(name.clone());
            if self.modules.contains_key(&at) || self.modules.keys().any(|m| m.starts_with(&at)) {
                continue;
            }
            at.pop();
            return match self.passed_on.get(&(at.clone(), name.clone())) {
                Some(inside) => self.owner(&[inside, &path[index + 1..]].concat()),
                None => at,
            };
        }
        at
    }

    /// What is in the way of an order in which each part of a folder imports only
    /// those before it: by folder, the parts that import each other. The root of a
    /// folder is a part of it `with_roots`.
    pub fn loops(&self, with_roots: bool) -> Vec<String> {
        let imports = self.imports();
        let is_folder = |place: &ModulePath| {
            self.modules.keys().any(|m| m.len() > place.len() && m.starts_with(place))
        };
        let mut places: BTreeSet<ModulePath> = self.modules.keys().cloned().collect();
        places.insert(ModulePath::new());
        let mut found = Vec::new();
        for folder in places.into_iter().filter(is_folder) {
            let part = |module: &ModulePath| -> Option<String> {
                let inside = module.strip_prefix(&folder[..])?;
                match inside.first() {
                    Some(name) => Some(name.clone()),
                    None => with_roots.then(|| ROOT.to_owned()),
                }
            };
            let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (from, to) in &imports {
                if let Some(own) = part(from) {
                    let others = to.iter().filter_map(part).filter(|other| *other != own);
                    arrows.entry(own.clone()).or_default().extend(others);
                }
            }
            let round = going_round(arrows);
            if !round.is_empty() {
                found.push(format!("in crate::{}: {round:?}", folder.join("::")));
            }
        }
        found
    }
}

/// What is left when those that import nothing that is left are taken away, again
/// and again, and then those that nothing imports.
fn going_round(
    mut arrows: BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let names: BTreeSet<String> = arrows.keys().cloned().collect();
        let imported: BTreeSet<String> = arrows.values().flatten().cloned().collect();
        arrows.retain(|name, to| {
            to.retain(|to| names.contains(to));
            !to.is_empty() && imported.contains(name)
        });
        if arrows.len() == names.len() {
            return arrows;
        }
    }
}

/// A path from the crate's root on.
fn absolute(own: &[String], path: &[String]) -> Option<ModulePath> {
    let mut base = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        "self" | "super" => own.to_vec(),
        _ => return None,
    };
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => base.truncate(base.len().saturating_sub(1)),
            _ => break,
        }
        rest = behind;
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// All paths in some code that begin with `crate`, `super` or `self`.
pub fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            let goes_on = |c: char| c.is_alphanumeric() || "_:$".contains(c);
            if !before.is_some_and(goes_on) {
                found.extend(tree(&code[at..]).into_iter().map(|(path, _)| path));
            }
        }
    }
    found
}

/// What the `use` statements of some code name, and how it is called here.
fn uses(code: &str) -> Vec<(Vec<String>, String)> {
    let is_start = |at: &usize| {
        code[..*at].chars().next_back().is_none_or(|c| c.is_whitespace() || c == ';' || c == '}')
    };
    let starts = code.match_indices("use ").map(|(at, _)| at).filter(is_start);
    starts.flat_map(|at| tree(&code[at + 4..])).collect()
}

/// The paths that a text begins with, alone or in braces, and the names that they
/// get.
fn tree(text: &str) -> Vec<(Vec<String>, String)> {
    let text = text.trim_start();
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if word.is_empty() {
        return Vec::new();
    }
    let rest = &text[word.len()..];
    let Some(behind) = rest.strip_prefix("::") else {
        let alias = rest
            .trim_start()
            .strip_prefix("as ")
            .map(|alias| alias.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        return vec![(vec![word.clone()], alias.unwrap_or(word))];
    };
    let inner = match behind.trim_start().strip_prefix('{') {
        Some(list) => items(list).iter().flat_map(|item| tree(item)).collect(),
        None => tree(behind),
    };
    if inner.is_empty() {
        return vec![(vec![word.clone()], word)];
    }
    let with_word = |(path, name): (Vec<String>, String)| match path.as_slice() {
        // `a::{self}` is `a`.
        [only] if only == "self" => (vec![word.clone()], word.clone()),
        _ => ([vec![word.clone()], path].concat(), name),
    };
    inner.into_iter().map(with_word).collect()
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
fn imports_are_found_where_the_names_are_defined() {
    let place = |path: &str| -> ModulePath {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let modules = [
        ("", "pub use self::a::Word; fn here() { b::c::work() }"),
        ("a", "use crate::{b::{self, c::Work}, Other};"),
        ("b", "pub use c::{Work, Rest as Renamed};"),
        ("b/c", "use super::super::Word; use std::{self, fs}; fn f() { super::g::<u8>() }"),
    ];
    let modules = modules.map(|(path, code)| (place(path), code.to_owned()));
    let mut read = Crate { modules: modules.into(), passed_on: BTreeMap::new() };
    read.passed_on.insert((place(""), "Word".into()), place("a/Word"));
    let imports = read.imports();
    assert_eq!(imports[&place("a")], [place(""), place("b"), place("b/c")].into());
    assert_eq!(imports[&place("b/c")], [place("a"), place("b")].into());
    assert_eq!(read.loops(false).len(), 1, "a and b import each other");
    assert_eq!(uses(&read.modules[&place("b")])[1].1, "Renamed");
}
