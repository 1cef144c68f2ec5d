//! The source files of the workspace.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file.
#[derive(Clone)]
pub struct Source {
    /// From the root of the repository.
    pub path: String,
    /// Whole.
    pub text: String,
    /// Without inline tests.
    pub code: String,
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn add(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            add(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
}

fn read(folders: &[&str]) -> Vec<Source> {
    let mut paths = Vec::new();
    folders.iter().for_each(|folder| add(&root().join(folder), &mut paths));
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Source { path, text, code }
    };
    paths.into_iter().map(source).collect()
}

/// All files, those of tests too.
pub fn workspace() -> Vec<Source> {
    read(&["benches", "crates", "src", "tests"])
}

/// The files of the product and of the simulation, without tests.
pub fn production() -> Vec<Source> {
    let files = read(&["crates/cloud/src", "crates/core/src", "src"]);
    let declared_as_tests = |path: &str| {
        let Some((folder, name)) = path.rsplit_once('/') else { return false };
        let name = name.trim_end_matches(".rs");
        let lines = ["mod", "pub(crate) mod"].map(|word| format!("#[cfg(test)]\n{word} {name};"));
        let parents = [format!("{folder}.rs"), format!("{folder}/mod.rs"), format!("{folder}/lib.rs")];
        let mut parents = files.iter().filter(|file| parents.contains(&file.path));
        parents.any(|file| lines.iter().any(|line| file.text.contains(line)))
    };
    let in_tests = |path: &str| {
        let mut upper = String::new();
        path.split('/').any(|part| {
            upper = if upper.is_empty() { part.to_owned() } else { format!("{upper}/{part}") };
            let file = if upper.ends_with(".rs") { upper.clone() } else { format!("{upper}.rs") };
            declared_as_tests(&file)
        }) || path.ends_with("/testing.rs")
    };
    files.iter().filter(|file| !in_tests(&file.path)).cloned().collect()
}

/// What follows one of these words, up to the end of the name.
fn name_after<'a>(line: &'a str, words: &[&str]) -> Option<&'a str> {
    let rest = words.iter().find_map(|word| line.strip_prefix(word))?;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

impl Source {
    /// The functions: name, line, and how many lines each has. The file is formatted by rustfmt, so a closing
    /// brace stands as deep as the line that it closes.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let mut found = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let depth = line.len() - line.trim_start().len();
            let mut words = line.trim_start();
            while let Some(rest) = ["pub ", "pub(crate) ", "pub(super) ", "async ", "const ", "unsafe "]
                .iter()
                .find_map(|word| words.strip_prefix(word))
            {
                words = rest;
            }
            let Some(name) = name_after(words, &["fn "]) else { continue };
            if line.ends_with(['}', ';']) {
                continue;
            }
            let closing = format!("{}}}", " ".repeat(depth));
            let length = lines[at..].iter().position(|line| *line == closing).map_or(1, |found| found + 1);
            found.push((name.to_owned(), at + 1, length));
        }
        found
    }

    /// The names of its public types.
    pub fn public_types(&self) -> Vec<String> {
        let words = ["pub struct ", "pub enum ", "pub trait ", "pub type ", "pub union "];
        self.code.lines().filter_map(|line| name_after(line, &words)).map(str::to_owned).collect()
    }
}
