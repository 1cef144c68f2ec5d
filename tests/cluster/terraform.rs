//! The Terraform modules, by the formatter of their language.

use crate::chart::root;
use crate::process::built;
use std::fs;
use std::process::Command;

#[test]
fn the_terraform_modules_are_well_formed_and_formatted() {
    let (program, mut checked) = (built("testbed/hcl", &[], "hclfmt"), 0);
    for module in ["deploy/terraform", "deploy/terraform/pair"] {
        for entry in fs::read_dir(root().join(module)).expect("a module") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|ending| ending == "tf") {
                let arguments = ["-check", "-require-no-change"];
                let output = Command::new(&program).args(arguments).arg(&path).output().expect("hclfmt runs");
                assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 9);
}
