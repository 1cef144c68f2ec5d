//! SECURITY.md names a test for each line: they are there.

use std::fs;
use std::path::Path;

/// Adds the text of all Rust files below a folder.
fn add_code(folder: &Path, code: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            add_code(&entry, code);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            code.push_str(&fs::read_to_string(&entry).expect("a source file"));
        }
    }
}

#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    for folder in ["crates", "src", "tests"] {
        add_code(&root.join(folder), &mut code);
    }
    let page = fs::read_to_string(root.join("SECURITY.md")).expect("the page");
    let quoted = page.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter_map(|text| Some(text.rsplit_once("::")?.1)).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&&str> =
        named.iter().filter(|name| name.contains('_') && !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
