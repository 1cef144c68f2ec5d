//! The IAM documents allow what the product calls, and nothing more.

use super::source::{production, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// What LaunchInstances demands beside its own permission (API Reference, LaunchInstances).
const DEMANDED: [&str; 2] = ["ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions"];
/// How the names of operations begin in the SDK.
const VERBS: [&str; 9] =
    ["attach_", "complete_", "create_", "describe_", "launch_", "record_", "resume_", "set_", "terminate_"];

/// The operations of Auto Scaling that the product's adapter calls. The SDK's builders are called without
/// arguments, each on a line of its own.
fn called() -> BTreeSet<String> {
    let files = production().into_iter().filter(|file| file.path.starts_with("src/aws/"));
    let text: String = files.map(|file| file.code).collect();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix('.')?.strip_suffix("()"));
    let operations = names.filter(|name| VERBS.iter().any(|verb| name.starts_with(verb)));
    operations.map(|name| format!("autoscaling:{}", in_pascal_case(name))).collect()
}

fn in_pascal_case(name: &str) -> String {
    name.split('_').map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..])).collect()
}

fn allowed(document: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deploy/iam").join(document)).expect("a document");
    let policy: Value = serde_json::from_str(&text).expect("JSON");
    let statements = policy["Statement"].as_array().expect("statements");
    let list = |action: &Value| action.as_array().cloned().unwrap_or_else(|| vec![action.clone()]);
    let actions = statements.iter().flat_map(|statement| list(&statement["Action"]));
    actions.map(|action| action.as_str().expect("a name").to_owned()).collect()
}

#[test]
fn the_iam_documents_allow_each_call_and_nothing_more() {
    let mut found = called();
    assert!(found.contains("autoscaling:SetDesiredCapacity"), "the calls were not found: {found:?}");
    found.extend(DEMANDED.map(str::to_owned));
    let documents: Vec<_> = ["policy.json", "policy-launch-instances.json"].map(allowed).into();
    assert!(documents[0].is_disjoint(&documents[1]), "a permission stands twice");
    assert_eq!(found, documents.into_iter().flatten().collect::<BTreeSet<_>>());
    let page = fs::read_to_string(root().join("deploy/iam/README.md")).expect("the page");
    for permission in &found {
        assert!(page.contains(&format!("| `{permission}` |")), "deploy/iam/README.md lacks {permission}");
    }
}
