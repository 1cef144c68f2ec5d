//! Crates with known holes: `known-holes.yaml` against Cargo.lock.

use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hole {
    #[serde(rename = "crate")]
    name: String,
    id: String,
    fixed_in: String,
    hole: String,
    #[serde(default)]
    mitigation: String,
    #[serde(default)]
    shown_by: Vec<Shown>,
}

/// A test that shows that a mitigation works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    file: PathBuf,
    test: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn holes() -> Vec<Hole> {
    let text = std::fs::read_to_string(root().join("known-holes.yaml")).expect("the list");
    serde_saphyr::from_str(&text).expect("a list of holes")
}

/// Three numbers; a version before a release counts as older than it.
fn version(text: &str) -> (Vec<u64>, bool) {
    let core = text.split_once('+').map_or(text, |(core, _)| core);
    let (numbers, is_release) = core.split_once('-').map_or((core, true), |(numbers, _)| (numbers, false));
    let numbers: Vec<u64> = numbers.split('.').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), 3, "{text}");
    (numbers, is_release)
}

/// The versions of a crate in a lock file.
fn locked(lock: &str, name: &str) -> Vec<String> {
    let of_crate = format!("name = \"{name}\"\nversion = \"");
    let rest = lock.split(&of_crate).skip(1);
    rest.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

/// What is wrong with a hole, by this lock file.
fn problems(hole: &Hole, lock: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in locked(lock, &hole.name) {
        if version(&at) >= version(&hole.fixed_in) {
            continue;
        }
        let hole_in = format!("{} {at} has {} (fixed in {})", hole.name, hole.id, hole.fixed_in);
        if hole.mitigation.trim().is_empty() || hole.shown_by.is_empty() {
            found.push(format!("{hole_in}, and no mitigation with a test"));
        }
        for shown in &hole.shown_by {
            let code = std::fs::read_to_string(root().join(&shown.file)).unwrap_or_default();
            let function = format!("fn {}(", shown.test);
            let before = code.split_once(&function).map(|(before, _)| before);
            // The attribute stands right above the function.
            let is_test = before.is_some_and(|before| {
                let lines: Vec<&str> = before.lines().rev().take(3).map(str::trim).collect();
                let attributes = lines.iter().skip(usize::from(!before.ends_with('\n'))).take(2);
                attributes.clone().any(|line| line.ends_with("test]")) && !lines.contains(&"#[ignore]")
            });
            if !is_test {
                found.push(format!("{hole_in}: there is no test {} in {}", shown.test, shown.file.display()));
            }
        }
    }
    found
}

#[test]
fn a_crate_with_a_known_hole_has_a_mitigation_and_a_test_that_shows_it() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("the lock file");
    assert!(lock.contains("name = \"spot-guard\"\n"), "it is read");
    for hole in holes() {
        assert!(!hole.hole.trim().is_empty(), "{}", hole.id);
        assert!(
            !locked(&lock, &hole.name).is_empty(),
            "{} is in no lock file: take it off the list",
            hole.name
        );
        let problems = problems(&hole, &lock);
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

#[test]
fn what_is_missing_is_found() {
    let lock = |at: &str| format!("[[package]]\nname = \"actix-http\"\nversion = \"{at}\"\n");
    let listed = holes().into_iter().find(|hole| hole.name == "actix-http").expect("it is listed");
    for old in ["3.20.0", "2.99.99", "3.9.1", "3.21.0", "3.21.1-rc.1"] {
        assert_eq!(problems(&listed, &lock(old)), Vec::<String>::new(), "{old}");
        let bare = Hole { mitigation: String::new(), ..listed.clone() };
        assert_eq!(problems(&bare, &lock(old)).len(), 1, "{old}");
        let untested = Hole { shown_by: Vec::new(), ..listed.clone() };
        assert_eq!(problems(&untested, &lock(old)).len(), 1, "{old}");
        for (file, test) in
            [("tests/cli/holes.rs", "nobody_wrote_it"), ("tests/cli/holes.rs", "problems"), ("none.rs", "x")]
        {
            let shown = Shown { file: file.into(), test: test.to_owned() };
            let other = Hole { shown_by: vec![shown], ..listed.clone() };
            assert_eq!(problems(&other, &lock(old)).len(), 1, "{old} {test}");
        }
    }
    for fixed in ["3.21.1", "3.100.0", "4.0.0"] {
        let bare = Hole { mitigation: String::new(), shown_by: Vec::new(), ..listed.clone() };
        assert_eq!(problems(&bare, &lock(fixed)), Vec::<String>::new(), "{fixed}");
    }
}
