//! What the documents name exists: files, targets of make, and settings in a page of their own.

use super::english::documents;
use super::source::root;
use std::collections::BTreeSet;
use std::fs;

/// The targets of links in Markdown, without those to other places and within the page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let targets = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
    targets.filter(|target| !target.is_empty() && !target.contains("://"))
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let here = root().join(&path);
        let folder = here.parent().expect("a folder");
        broken.extend(
            links(&text)
                .filter(|target| !folder.join(target).exists())
                .map(|target| format!("{path}: {target}")),
        );
    }
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

/// The words of all code in a document: fenced, and within a line.
fn code(text: &str) -> Vec<Vec<&str>> {
    let parts = text.split('`').enumerate().filter(|(at, _)| at % 2 == 1);
    parts.flat_map(|(_, code)| code.lines()).map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn files_that_commands_name_exist() {
    let mut missing = BTreeSet::new();
    let folders = ["deploy/", "docs/", "config/", "testbed/", "src/", "tests/"];
    for (path, text) in documents() {
        for word in code(&text).into_iter().flatten() {
            let word =
                word.trim_start_matches("file://").trim_matches(|letter: char| "\"'()|,".contains(letter));
            let names_a_file = folders.iter().any(|folder| word.starts_with(folder));
            if names_a_file && !root().join(word).exists() {
                missing.insert(format!("{path}: {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "files that are not there: {missing:#?}");
}

#[test]
fn make_demo_says_which_binary_runs() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    assert!(makefile.contains("cargo run -- demo"), "make demo runs something else");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    assert!(manifest.contains("\ndefault-run = \"spot-guard\"\n"), "cargo run does not know which binary");
}

#[test]
fn targets_of_make_that_the_documents_name_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile");
    let is_target = |name: &str| makefile.lines().any(|line| line.starts_with(&format!("{name}:")));
    let mut missing = BTreeSet::new();
    for (path, text) in documents() {
        for words in code(&text) {
            if let ["make", target, ..] = words[..]
                && !is_target(target)
            {
                missing.insert(format!("{path}: make {target}"));
            }
        }
    }
    assert!(missing.is_empty(), "targets that are not in the Makefile: {missing:#?}");
}

/// A text constant, as the source has it.
fn constant(path: &str, name: &str) -> String {
    let code = fs::read_to_string(root().join(path)).expect("a source file");
    let found =
        code.split_once(&format!("const {name}: &str = \"")).and_then(|(_, rest)| rest.split_once('"'));
    found.unwrap_or_else(|| panic!("{path} lacks {name}")).0.to_owned()
}

#[test]
fn what_stays_behind_is_found_and_undone_by_the_names_that_are_written() {
    let page = fs::read_to_string(root().join("docs/operations.md")).expect("the page");
    let (_, section) = page.split_once("### What stays behind\n").expect("the section");
    // Dots of a name are escaped in a path of kubectl.
    let section = section.split("\n## ").next().unwrap_or_default().replace("\\.", ".");
    let mark = |name: &str| constant("src/kube/marks.rs", name);
    let mut keys = ["CORDONED_BY", "EXCLUDE_LABEL", "SCALE_DOWN_DISABLED", "PROTECTED_BY"].map(mark).to_vec();
    keys.push(constant("src/config.rs", "DEFAULT_TAINT_KEY"));
    for key in &keys {
        assert!(section.contains(&format!("{key}-")), "no command takes off {key}");
    }
    let own = format!("-l {}={}", mark("EXCLUDE_LABEL"), mark("OWN"));
    assert!(section.contains(&own), "the label is found without its value: {own}");
    for word in section.split(|letter: char| letter.is_whitespace() || "`',:=".contains(letter)) {
        let named = word.trim_start_matches(".metadata.annotations.").trim_end_matches('-');
        assert!(!named.contains('/') || keys.iter().any(|key| key == named), "nothing is called {named}");
    }
}
