//! Each command of Spot Guard that a document shows can be given as it stands there.

use super::spot_guard;
use std::fs;
use std::path::{Path, PathBuf};

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// The arguments of each command that stands in a document as code, fenced or within a line.
fn commands(text: &str) -> Vec<Vec<&str>> {
    let code = text.split('`').enumerate().filter(|(at, _)| at % 2 == 1);
    let lines = code.flat_map(|(_, code)| code.lines());
    let commands = lines.filter_map(|line| line.trim().strip_prefix("spot-guard "));
    let until = |word: &&str| !["#", "|", ">", "&&", "\\"].contains(word);
    commands.map(|command| command.split_whitespace().take_while(until).collect()).collect()
}

#[test]
fn the_commands_of_the_documents_are_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "SUPPORT.md", "CONTRIBUTING.md", "ARCHITECTURE.md"]
            .map(|name| root.join(name))
            .to_vec();
    ["docs", "deploy", ".github"].iter().for_each(|folder| documents(&root.join(folder), &mut paths));
    let (mut seen, mut refused) = (0, Vec::new());
    for path in paths {
        for command in commands(&fs::read_to_string(&path).expect("a document")) {
            let output = spot_guard(&[command.as_slice(), &["--help"]].concat());
            seen += 1;
            if !output.status.success() {
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                refused.push(format!("{}: spot-guard {}: {told}", path.display(), command.join(" ")));
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
    assert!(refused.is_empty(), "{refused:#?}");
}
