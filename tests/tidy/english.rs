//! Where English stands, and how it reads.

use super::source::production;

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
