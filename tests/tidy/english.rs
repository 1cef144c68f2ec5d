//! Where English stands, and how it reads.

use super::source::{production, root};
use std::fs;
use std::path::{Path, PathBuf};

/// More words than a name, a pattern or a fragment has.
const WORDS: usize = 4;
/// Files of the core with sentences that are no wording of ours to people.
const ELSEWHERE: [&str; 3] = [
    // Messages of AWS that are recognised.
    "crates/core/src/classify.rs",
    // The tables of transitions that docs/states.mmd is drawn from.
    "crates/core/src/record/regions.rs",
    // Messages of the schema, beside the rules that they belong to.
    "crates/core/src/windows.rs",
];

/// The code without attributes and assertions, whole.
fn without_asides(code: &str) -> String {
    let mut kept = String::new();
    let mut open = 0_usize;
    for line in code.lines() {
        let bare = line.trim_start();
        let begins = ["#[", "assert", "debug_assert"].iter().any(|word| bare.starts_with(word));
        if open > 0 || begins {
            let count = |letters: [char; 2]| line.matches(letters).count();
            open = (open + count(['(', '['])).saturating_sub(count([')', ']']));
        } else if !bare.starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The string literals of the code.
fn literals(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find('"') {
        if rest[..at].ends_with('\'') {
            rest = &rest[at + 1..];
            continue;
        }
        rest = &rest[at + 1..];
        let ends = rest.char_indices().find(|(at, letter)| *letter == '"' && !rest[..*at].ends_with('\\'));
        let Some((end, _)) = ends else { break };
        found.push(&rest[..end]);
        rest = &rest[end + 1..];
    }
    found
}

#[test]
fn the_sentences_of_the_core_stand_in_one_place() {
    let mut found = Vec::new();
    let core = production().into_iter().filter(|source| source.path.starts_with("crates/core/src/"));
    for source in core {
        let has_sentences = source.path.starts_with("crates/core/src/wording");
        if has_sentences || ELSEWHERE.contains(&source.path.as_str()) {
            continue;
        }
        let code = without_asides(&source.code);
        let long = literals(&code).into_iter().filter(|text| text.split_whitespace().count() > WORDS);
        found.extend(long.map(|text| format!("{}: {text}", source.path)));
    }
    assert!(found.is_empty(), "sentences outside of crates/core/src/wording: {found:#?}");
}

/// More words than a sentence of a document has.
const SENTENCE: usize = 30;
/// Words of ours that a stranger does not know, each with the field's word.
const SLANG: [(&str, &str); 8] = [
    ("story", "replacement, or scenario"),
    ("stories", "replacements, or scenarios"),
    ("marks", "taint and cordon"),
    ("told", "reported"),
    ("asked", "requested"),
    ("runs dry", "is out of capacity"),
    ("+1", "desired capacity raised by 1"),
    ("notice with a deadline", "interruption notice"),
];

/// The documents: those at the top, and all in `docs` and `deploy`.
pub fn documents() -> Vec<(String, String)> {
    fn add(folder: &Path, deep: bool, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() && deep {
                add(&entry, true, found);
            } else if entry.extension().is_some_and(|ending| ending == "md") {
                found.push(entry);
            }
        }
    }
    let mut paths = Vec::new();
    add(root(), false, &mut paths);
    ["docs", "deploy"].iter().for_each(|folder| add(&root().join(folder), true, &mut paths));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a document");
        (path.strip_prefix(root()).expect("below the root").display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

/// What stands outside of the given brackets; a bracket that is not closed leaves out the rest.
fn outside(text: &str, opening: &str, closing: &str, instead: &str) -> String {
    let mut parts = text.split(opening);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    if opening == closing {
        for (at, part) in parts.enumerate() {
            kept.push_str(if at % 2 == 0 { instead } else { part });
        }
    } else {
        for part in parts {
            kept.push_str(instead);
            kept.push_str(part.split_once(closing).map_or("", |(_, after)| after));
        }
    }
    kept
}

/// The paragraphs, list items and cells of a document, without code and addresses.
fn passages(document: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in outside(document, "```", "```", "\n\n").lines().map(str::trim) {
        if line.starts_with('|') {
            found.extend(line.split('|').map(str::to_owned));
            found.push(String::new());
            continue;
        }
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = first.strip_suffix('.').is_some_and(|number| number.parse::<u32>().is_ok());
        let begins = number || (!first.is_empty() && first.chars().all(|letter| "-*#".contains(letter)));
        if line.is_empty() || begins {
            found.push(String::new());
        }
        let text = if begins { rest } else { line };
        found.last_mut().into_iter().for_each(|passage| {
            passage.push_str(text);
            passage.push(' ');
        });
    }
    found.iter().map(|passage| outside(&outside(passage, "`", "`", "x"), "](", ")", "]")).collect()
}

fn sentences(passage: &str) -> Vec<Vec<&str>> {
    let mut found = vec![Vec::new()];
    for word in passage.split_whitespace() {
        found.last_mut().into_iter().for_each(|sentence| sentence.push(word));
        if word.ends_with(['.', '?', '!', ':']) {
            found.push(Vec::new());
        }
    }
    found
}

/// Where a text says it in words of ours.
fn slang(path: &str, text: &str) -> Vec<String> {
    let letters = |letter: char| if letter.is_alphanumeric() || letter == '+' { letter } else { ' ' };
    let words: String = text.to_lowercase().chars().map(letters).collect();
    let words = format!(" {} ", words.split_whitespace().collect::<Vec<_>>().join(" "));
    let found = SLANG.iter().filter(|(slang, _)| words.contains(&format!(" {slang} ")));
    found.map(|(slang, better)| format!("{path}: {slang:?} ({better}): {}", text.trim())).collect()
}

/// `kubectl explain`, the description of the API, and all that events, reasons and answers say.
#[test]
fn resources_api_and_reasons_use_the_words_of_the_field() {
    let shown = ["docs/openapi.json", "deploy/manifests/crds.yaml"].map(|path| {
        let text = fs::read_to_string(root().join(path)).expect("a document");
        (path.to_owned(), text.lines().map(str::to_owned).collect::<Vec<_>>())
    });
    let core = production().into_iter().filter(|source| source.path.starts_with("crates/core/src/wording"));
    let said = core.map(|source| {
        let texts = literals(&without_asides(&source.code)).into_iter().map(str::to_owned).collect();
        (source.path, texts)
    });
    let all: Vec<(String, Vec<String>)> = shown.into_iter().chain(said).collect();
    assert!(all.iter().map(|(_, texts)| texts.len()).sum::<usize>() > 1000, "nothing was found to read");
    let found: Vec<String> =
        all.iter().flat_map(|(path, texts)| texts.iter().flat_map(|text| slang(path, text))).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_documents_are_plain_english() {
    let mut found = Vec::new();
    for (path, text) in documents() {
        for passage in passages(&text) {
            for sentence in sentences(&passage).iter().filter(|sentence| sentence.len() > SENTENCE) {
                found.push(format!("{path}: {} words: {}", sentence.len(), sentence.join(" ")));
            }
            found.extend(slang(&path, &passage));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
