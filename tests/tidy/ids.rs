//! Names of things have types of their own in the core: crates/core/src/ids.rs.

use super::source::Source;

/// Fields, parameters and variables that are to have a type of their own.
const NAMES: [&str; 7] =
    ["instance", "instance_id", "node", "node_name", "pool", "group_name", "replacement"];

/// Whether the type that the text begins with is text: `String`, `&str`, `Option<String>` and the like.
fn is_text(mut declared: &str) -> bool {
    loop {
        declared = declared.trim_start();
        if let Some(rest) = declared.strip_prefix('\'') {
            declared = rest.trim_start_matches(|letter: char| letter.is_alphanumeric() || letter == '_');
        } else if let Some(rest) =
            ["&", "mut ", "impl Into<", "impl AsRef<", "Option<", "Arc<", "Box<", "Cow<", ","]
                .iter()
                .find_map(|word| declared.strip_prefix(word))
        {
            declared = rest;
        } else {
            break;
        }
    }
    let end = declared.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(declared.len());
    // A path such as `String::new` is a value.
    ["String", "str"].contains(&&declared[..end]) && !declared[end..].starts_with(['_', ':'])
}

/// Where a name of the core is declared as text: the name, and its line.
pub fn names_as_text(source: &Source) -> Vec<(&'static str, usize)> {
    let mut found = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        for (start, _) in code.match_indices(": ") {
            let before = &code[..start];
            let word = before.rfind(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let name = &before[word.map_or(0, |end| end + 1)..];
            let named = NAMES.iter().find(|held| **held == name);
            found.extend(named.filter(|_| is_text(&code[start + 2..])).map(|name| (*name, at + 1)));
        }
    }
    found
}

#[test]
fn text_is_told_from_names() {
    for text in
        ["String,", "&str)", "&'a str,", "Option<String>,", "Option<&'a str>,", "Arc<str>", "Cow<'a, str>"]
    {
        assert!(is_text(text), "{text}");
    }
    for other in [
        "NodeName,",
        "&'a NodeName",
        "Option<&PoolName>",
        "String::new(),",
        "strict,",
        "str_of(x)",
        "GroupKind",
    ] {
        assert!(!is_text(other), "{other}");
    }
}
