//! The commands that the documents show.

use std::fs;
use std::path::{Path, PathBuf};

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// The documents that show commands, each with its name.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = ["README.md", "SECURITY.md", "SUPPORT.md", "CONTRIBUTING.md", "ARCHITECTURE.md"];
    let mut paths: Vec<PathBuf> = top.map(|name| root.join(name)).to_vec();
    ["docs", "deploy"].iter().for_each(|folder| collect(&root.join(folder), &mut paths));
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).expect("a document"));
    paths.into_iter().map(read).collect()
}

/// The arguments of each command of a program that a document shows as code, with the document.
fn commands(program: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let text = text.replace("\\\n", " ");
        let code = text.split('`').enumerate().filter(|(at, _)| at % 2 == 1);
        for line in code.flat_map(|(_, code)| code.lines()) {
            let Some(arguments) = line.trim().strip_prefix(program).and_then(|rest| rest.strip_prefix(' '))
            else {
                continue;
            };
            let ends = |word: &&str| ["#", "|", ">", "&", "&&", ";"].contains(word) || word.starts_with("<<");
            let words = arguments.split_whitespace().take_while(|word| !ends(word));
            // Quotes are for the shell.
            let words = words.map(|word| word.replace(['\'', '"'], "")).collect();
            found.push((name.clone(), words));
        }
    }
    found
}

/// Panics if one of these commands is none: each is run as a document shows it, but for its help only.
pub fn are_ones(program: &str, at_least: usize, run: impl Fn(&[&str]) -> std::process::Output) {
    let shown = commands(program);
    assert!(shown.len() >= at_least, "only {} commands of {program} were found", shown.len());
    let mut refused = Vec::new();
    for (document, command) in shown {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run(&arguments);
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            refused.push(format!("{document}: {program} {}: {told}", command.join(" ")));
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}
