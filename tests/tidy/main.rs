//! What keeps the house in order: lengths, names, imports and dependencies. The lists of exceptions may only
//! shrink: an entry that is not needed any more fails as well.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod chart;
mod documents;
mod english;
mod iam;
mod ids;
mod image;
mod imports;
mod monitoring;
mod release;
mod security;
mod source;
mod testbed;

use source::{Source, production, workspace};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of a production file, without its inline tests.
const FILE_LINES: usize = 500;
/// Lines of a production function, from its name to its closing brace.
const FUNCTION_LINES: usize = 70;
/// Characters of a line, as in rustfmt.toml. Lines with a string, or of a table in one, are left out.
const LINE_WIDTH: usize = 110;
/// Floors of each crate: a module at its top stands above all that it imports.
const FLOORS: [(&str, usize); 3] = [("spot_guard_cloud", 8), ("spot_guard_core", 8), ("spot_guard", 8)];

/// Files that are still too long.
const LONG_FILES: &[&str] = &[];
/// Functions that are still too long.
const LONG_FUNCTIONS: &[&str] = &[];
/// The first file of each circle that is still there.
const CIRCLES: &[&str] = &[];
/// Names in the core that are still text.
const NAMES_AS_TEXT: &[&str] = &[];

/// Compares what was found with what is excepted: nothing new, and nothing that is mended already.
#[track_caller]
fn compare(what: &str, found: &BTreeMap<String, String>, excepted: &[&str]) {
    let excepted: BTreeSet<&str> = excepted.iter().copied().collect();
    let new: Vec<&String> =
        found.iter().filter(|(key, _)| !excepted.contains(key.as_str())).map(|(_, told)| told).collect();
    assert!(new.is_empty(), "{what}:\n{new:#?}");
    let mended: Vec<&&str> = excepted.iter().filter(|key| !found.contains_key(**key)).collect();
    assert!(mended.is_empty(), "{what}: no exception any more, strike it from the list: {mended:?}");
}

#[test]
fn no_line_is_too_wide() {
    let wide = |source: &Source| {
        let is_broken = |line: &str| !line.contains('"') && !line.ends_with('\\') && !line.contains("    ");
        let is_wide = |line: &str| line.chars().count() > LINE_WIDTH && is_broken(line.trim_start());
        let wide = source.text.lines().enumerate().filter(|(_, line)| is_wide(line));
        wide.map(|(at, _)| format!("{}:{}", source.path, at + 1)).collect::<Vec<_>>()
    };
    let found: Vec<String> = workspace().iter().flat_map(wide).collect();
    assert!(found.is_empty(), "lines of more than {LINE_WIDTH} characters: {found:#?}");
}

#[test]
fn no_file_is_too_long() {
    let long = production().into_iter().filter_map(|source| {
        let lines = source.code.lines().count();
        let told = format!("{} has {lines} lines", source.path);
        (lines > FILE_LINES).then_some((source.path, told))
    });
    compare("production files of more than 500 lines", &long.collect(), LONG_FILES);
}

#[test]
fn no_function_is_too_long() {
    let mut found = BTreeMap::new();
    for source in production() {
        for (name, at, lines) in
            source.functions().into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES)
        {
            let key = format!("{}:{name}", source.path);
            found.insert(key, format!("{}:{at}: {name} has {lines} lines", source.path));
        }
    }
    compare("production functions of more than 70 lines", &found, LONG_FUNCTIONS);
}

#[test]
fn no_public_type_name_stands_twice() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in production() {
        for name in source.public_types() {
            places.entry(name).or_default().push(source.path.clone());
        }
    }
    let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
    let found = shared.map(|(name, places)| (name.clone(), format!("{name}: {}", places.join(", "))));
    compare("public types of one name", &found.collect(), &[]);
}

#[test]
fn no_files_import_each_other() {
    let found = imports::circles(&production());
    let found = found.into_iter().map(|files| (files[0].clone(), files.join(" <-> ")));
    compare("circles of imports", &found.collect(), CIRCLES);
}

#[test]
fn the_house_has_few_floors() {
    for (name, floors) in imports::floors(&production()) {
        let most = FLOORS.iter().find(|(of, _)| *of == name).expect("a crate").1;
        assert!(floors.len() <= most, "{name} has {} floors: {}", floors.len(), floors.join(" > "));
    }
}

/// It is stored for the printer column; `phase()` is what the regions say.
#[test]
fn no_decision_reads_the_stored_phase() {
    let mut found = Vec::new();
    let decides =
        |path: &str| ["crates/core/src/", "src/actors/", "src/http/"].iter().any(|at| path.starts_with(at));
    let is_own = |path: &str| path.ends_with("record/status.rs") || path.ends_with("core/src/model.rs");
    for source in production().iter().filter(|source| decides(&source.path) && !is_own(&source.path)) {
        for (number, line) in source.code.lines().enumerate() {
            let reads = ["status.phase", "next.phase", "held.phase", "record.phase"].iter().any(|read| {
                line.split(read).skip(1).any(|rest| !rest.starts_with('(') && !rest.starts_with('_'))
            });
            if reads {
                found.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "the stored phase is read: {found:#?}");
}

#[test]
fn names_in_the_core_have_types_of_their_own() {
    let mut found = BTreeMap::new();
    for source in production().iter().filter(|source| source.path.starts_with("crates/core/src/")) {
        for (name, at) in ids::names_as_text(source) {
            found.insert(format!("{}:{name}", source.path), format!("{}:{at}: {name} is text", source.path));
        }
    }
    compare("names of the core that are text", &found, NAMES_AS_TEXT);
}

/// The dependencies of a package, by the tables of its manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(source::root().join(manifest)).expect("a manifest");
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if let Some(name) =
            line.split(['.', ' ', '=']).next().filter(|name| inside && !name.is_empty())
        {
            names.insert(name.to_owned());
        }
    }
    names
}

#[test]
fn the_core_depends_on_no_runtime_network_or_cluster() {
    let allowed = ["cronexpr", "fastrand", "jiff", "schemars", "serde", "serde_json", "thiserror"];
    let found = dependencies("crates/core/Cargo.toml");
    assert!(!found.is_empty());
    let other: Vec<&String> = found.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(other.is_empty(), "the core depends on {other:?}");
}

#[test]
fn the_judge_shares_no_code_with_the_judged() {
    let found = dependencies("crates/cloud/Cargo.toml");
    assert!(!found.is_empty() && !found.iter().any(|name| name.starts_with("spot-guard")), "{found:?}");
}
