//! The image: Cargo finds what it needs among the files that the Dockerfile copies.

use super::source::root;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Copies a file, or all that is in a folder.
pub fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::create_dir_all(to.parent().expect("a folder")).expect("it is made");
        fs::copy(from, to).expect("it is copied");
        return;
    }
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}

#[test]
fn what_the_dockerfile_copies_is_a_workspace_that_cargo_reads() {
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile")).expect("the Dockerfile");
    let folder = tempfile::tempdir().expect("a folder");
    for line in dockerfile.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["COPY", sources @ .., target] = words.as_slice()
            && !sources.iter().any(|source| source.starts_with("--from"))
        {
            for source in sources {
                let to = if *target == "./" { *source } else { *target };
                copy(&root().join(source), &folder.path().join(to.trim_start_matches('/')));
            }
        }
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Builds nothing: what it says first is whether the manifest can be read.
    let mut build = Command::new(cargo);
    build.args(["build", "--offline", "--locked", "--no-default-features", "--bin", "nothing"]);
    let output = build.current_dir(folder.path()).output().expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no bin target named `nothing`"), "{told}");
}

#[test]
fn the_image_is_pinned_runs_as_nobody_and_holds_no_system() {
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile")).expect("the Dockerfile");
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).expect("the toolchain");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a version");
    let version = version.trim_matches('"');
    assert!(dockerfile.contains(&format!("ARG RUST_VERSION={version}\n")), "another Rust than {version}");
    let (_, image) = dockerfile.split_once("FROM scratch\n").expect("the image begins with nothing");
    assert!(image.contains("\nUSER 65532:65532\n"));
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let chart = fs::read_to_string(root().join("deploy/helm/spot-guard/Chart.yaml")).expect("the chart");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).expect("a version");
    let version = version.trim_matches('"');
    for line in [format!("version: {version}\n"), format!("appVersion: {version}\n")] {
        assert!(chart.contains(&line), "the chart is not of version {version}");
    }
    assert!(image.contains(&format!("ARG VERSION={version}\n")), "the image is not of version {version}");
}
