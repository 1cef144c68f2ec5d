//! What the testbed pins: dependabot watches all of it, and the documents name the versions of Kubernetes.

use super::source::root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The files below a folder whose names end so.
fn ending(name: &str, folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(ending(name, &path));
        } else if path.to_string_lossy().ends_with(name) {
            found.push(path);
        }
    }
    found
}

fn folder_of(file: &Path) -> String {
    let folder = file.parent().and_then(|folder| folder.strip_prefix(root()).ok());
    folder.expect("below the root").display().to_string()
}

#[test]
fn dependabot_watches_all_that_the_testbed_pins() {
    let text = fs::read_to_string(root().join(".github/dependabot.yml")).expect("dependabot's settings");
    let settings: Value = serde_saphyr::from_str(&text).expect("YAML");
    let updates = settings["updates"].as_array().expect("updates");
    for (ecosystem, pins) in [("gomod", "/go.mod"), ("pip", "requirements.txt")] {
        let watched = updates.iter().filter(|update| update["package-ecosystem"] == ecosystem);
        let watched = watched.flat_map(|update| {
            let several = update["directories"].as_array().into_iter().flatten();
            several.chain([&update["directory"]]).filter_map(Value::as_str)
        });
        let watched: BTreeSet<String> = watched.map(str::to_owned).collect();
        let pinned = ending(pins, &root().join("testbed"));
        let mut pinned: BTreeSet<String> =
            pinned.iter().map(|file| format!("/{}", folder_of(file))).collect();
        // The oldest Kubernetes that is served stays as old as it is.
        pinned.remove("/testbed/tools/old");
        assert!(!pinned.is_empty(), "{pins}");
        assert_eq!(watched, pinned, "{ecosystem}");
    }
}

#[test]
fn the_requirements_name_each_kubernetes_that_the_tests_run_on() {
    let page = fs::read_to_string(root().join("docs/requirements.md")).expect("the page");
    let mut versions = BTreeSet::new();
    for file in ending("/go.mod", &root().join("testbed")) {
        let text = fs::read_to_string(&file).expect("a module");
        let version = text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
        let Some(version) = version else { continue };
        let minor: Vec<&str> = version.split('.').take(2).collect();
        let (begins, named) = (format!("| {} |", minor.join(".")), format!("{}/go.mod", folder_of(&file)));
        let is_named = page.lines().any(|line| line.starts_with(&begins) && line.contains(&named));
        assert!(is_named, "docs/requirements.md lacks a row that begins with {begins:?} and names {named}");
        versions.insert(begins);
    }
    assert!(!versions.is_empty(), "no module pins Kubernetes");
}
