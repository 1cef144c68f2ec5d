//! The release: its steps are run as the workflow has them, on what is here.

use super::image::copy;
use super::source::root;
use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const REPOSITORY: &str = "https://github.com/Owner/A-Fork";
const IMAGE: &str = "ghcr.io/owner/a-fork";
const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn workflow() -> Value {
    serde_saphyr::from_str(&read(&root().join(".github/workflows/release.yml"))).expect("YAML")
}

fn jobs(workflow: &Value) -> impl Iterator<Item = &Value> {
    workflow["jobs"].as_object().expect("jobs").values()
}

fn steps(job: &Value) -> &Vec<Value> {
    job["steps"].as_array().expect("steps")
}

/// A folder with copies of these files.
fn checkout(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    files.iter().for_each(|file| copy(&root().join(file), &folder.path().join(file)));
    folder
}

/// Runs a step of the workflow in this folder, for the tag of this version. Its outputs are in `outputs`.
fn run(id: &str, folder: &Path) {
    let workflow = workflow();
    let found = jobs(&workflow).flat_map(steps).find(|step| step["id"] == id);
    let script = found.and_then(|step| step["run"].as_str()).unwrap_or_else(|| panic!("no step {id}"));
    let mut command = Command::new("bash");
    command.args(["-eo", "pipefail", "-c", script]).current_dir(folder);
    command.env("GITHUB_OUTPUT", "outputs").env("GITHUB_REF_NAME", format!("v{VERSION}"));
    command.env("GITHUB_SERVER_URL", "https://github.com").env("GITHUB_REPOSITORY", "Owner/A-Fork");
    let output = command.env("IMAGE", IMAGE).env("DIGEST", DIGEST).output().expect("bash runs");
    assert!(output.status.success(), "step {id}, which is\n{script}\nended with {output:?}");
}

#[test]
fn the_manifest_the_chart_and_the_changelog_are_of_one_version() {
    let folder = checkout(&["Cargo.toml", "CHANGELOG.md", "deploy/helm/spot-guard/Chart.yaml"]);
    run("version", folder.path());
    let outputs = read(&folder.path().join("outputs"));
    assert_eq!(outputs, format!("version={VERSION}\nimage={IMAGE}\n"));
}

#[test]
fn the_chart_of_a_release_names_its_image_and_its_runbooks() {
    let path = "deploy/helm/spot-guard/values.yaml";
    let folder = checkout(&[path]);
    run("chart", folder.path());
    let (before, after) = (read(&root().join(path)), read(&folder.path().join(path)));
    assert_eq!(before.lines().count(), after.lines().count());
    let changed = before.lines().zip(after.lines()).filter(|(before, after)| before != after);
    assert_eq!(changed.count(), 3, "{after}");
    let values: Value = serde_saphyr::from_str(&after).expect("YAML");
    assert_eq!(values["image"]["repository"], IMAGE);
    assert_eq!(values["image"]["digest"], DIGEST);
    let runbooks = format!("{REPOSITORY}/blob/v{VERSION}/docs/runbooks");
    assert_eq!(values["prometheusRule"]["runbooks"], runbooks);
}

/// The archives that the jobs hand over, each job for all that it is run for.
fn archives() -> BTreeSet<String> {
    let (workflow, once) = (workflow(), vec![Value::Null]);
    let mut found = BTreeSet::new();
    for job in jobs(&workflow) {
        let variants = job["strategy"]["matrix"]["include"].as_array().unwrap_or(&once);
        for step in steps(job) {
            let is_upload = step["uses"].as_str().is_some_and(|uses| uses.contains("/upload-artifact@"));
            let Some(path) = step["with"]["path"].as_str().filter(|_| is_upload) else { continue };
            let names = variants.iter().map(|variant| variant["arch"].as_str().unwrap_or_default());
            found.extend(names.map(|arch| path.replace("${{ matrix.arch }}", arch)));
        }
    }
    found
}

#[test]
fn the_plugin_of_a_release_names_each_archive_and_its_checksum() {
    let archives = archives();
    assert_eq!(archives.len(), 3, "{archives:?}");
    let folder = checkout(&[".krew.yaml"]);
    for archive in &archives {
        fs::write(folder.path().join(archive), archive).expect("an archive");
    }
    run("plugin", folder.path());
    let plugin: Value = serde_saphyr::from_str(&read(&folder.path().join("spot-guard.yaml"))).expect("YAML");
    assert_eq!(plugin["spec"]["version"], format!("v{VERSION}"));
    assert_eq!(plugin["spec"]["homepage"], REPOSITORY);
    let mut named = BTreeSet::new();
    for platform in plugin["spec"]["platforms"].as_array().expect("platforms") {
        let label = |name: &str| platform["selector"]["matchLabels"][name].as_str().expect("a label");
        let archive = format!("kubectl-spot_guard-{}-{}.tar.gz", label("os"), label("arch"));
        assert_eq!(platform["uri"], format!("{REPOSITORY}/releases/download/v{VERSION}/{archive}"));
        let checksum = digest(&SHA256, archive.as_bytes());
        let checksum: Vec<String> = checksum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(platform["sha256"], checksum.concat(), "{archive}");
        named.insert(archive);
    }
    assert_eq!(named, archives);
}
