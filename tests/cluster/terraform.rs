//! The Terraform modules, by the formatter of their language, and by Terraform where it can be had.

use crate::chart::{root, succeeded};
use crate::process::built;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const MODULES: [&str; 2] = ["deploy/terraform", "deploy/terraform/pair"];

/// How long Terraform may take for a command; the provider is some hundred megabytes.
const LIMIT: Duration = Duration::from_secs(300);

fn files(module: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(module)).expect("a module");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "tf")).collect()
}

#[test]
fn the_terraform_modules_are_well_formed_and_formatted() {
    let (program, mut checked) = (built("testbed/hcl", &[], "hclfmt"), 0);
    for path in MODULES.into_iter().flat_map(files) {
        let arguments = ["-check", "-require-no-change"];
        let output = Command::new(&program).args(arguments).arg(&path).output().expect("hclfmt runs");
        assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
        checked += 1;
    }
    assert_eq!(checked, 9);
}

/// Runs Terraform in a folder. Providers are kept in the target folder.
async fn terraform(folder: &Path, arguments: &[&str]) -> io::Result<Output> {
    let providers = Path::new(env!("CARGO_TARGET_TMPDIR")).join("terraform");
    fs::create_dir_all(&providers)?;
    let mut command = tokio::process::Command::new("terraform");
    command.args(arguments).arg("-no-color").current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command.env("TF_PLUGIN_CACHE_DIR", providers).env("CHECKPOINT_DISABLE", "1");
    // Without it a module that has no lock file fetches the provider anew.
    command.env("TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE", "1");
    tokio::time::timeout(LIMIT, command.output()).await?
}

#[tokio::test]
async fn terraform_finds_the_modules_valid() {
    let folder = tempfile::tempdir().expect("a folder");
    let copies = MODULES.map(|module| folder.path().join(module));
    for (module, copy) in MODULES.into_iter().zip(&copies) {
        fs::create_dir_all(copy).expect("a folder");
        for file in files(module) {
            fs::copy(&file, copy.join(file.file_name().expect("a name"))).expect("a copy");
        }
    }
    for copy in &copies {
        let begun = match terraform(copy, &["init", "-backend=false", "-input=false"]).await {
            Ok(begun) => begun,
            Err(error) => {
                println!("terraform: {error}: the modules are not validated");
                return;
            }
        };
        let told = String::from_utf8_lossy(&begun.stderr);
        // Whatever else is wrong is a failure.
        let no_provider = ["Failed to query available provider packages", "Failed to install provider"];
        if let Some(cause) = no_provider.iter().find(|cause| told.contains(**cause)) {
            println!("terraform: {cause}: the modules are not validated");
            return;
        }
        succeeded(begun);
        succeeded(terraform(copy, &["validate"]).await.expect("terraform runs"));
    }
}
