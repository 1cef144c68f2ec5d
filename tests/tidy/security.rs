//! SECURITY.md names a test for each line: they are there.

use crate::source::{root, workspace};

#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let files = workspace().into_iter().filter(|file| !file.path.starts_with("benches/"));
    let code: String = files.map(|file| file.text).collect();
    let page = std::fs::read_to_string(root().join("SECURITY.md")).expect("the page");
    let quoted = page.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter_map(|text| Some(text.rsplit_once("::")?.1)).collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<&&str> =
        named.iter().filter(|name| name.contains('_') && !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
