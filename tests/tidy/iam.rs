//! The IAM documents allow what the product calls, and nothing more.

use super::source::{production, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// What LaunchInstances demands beside its own permission (API Reference, LaunchInstances).
const DEMANDED: [&str; 2] = ["ec2:CreateFleet", "ec2:DescribeLaunchTemplateVersions"];
/// How the names of operations begin in the SDK.
const VERBS: [&str; 13] = [
    "attach_",
    "change_",
    "complete_",
    "create_",
    "delete_",
    "describe_",
    "get_",
    "launch_",
    "receive_",
    "record_",
    "resume_",
    "set_",
    "terminate_",
];

/// The operations that the product's adapters call. The SDK's client is called without arguments; that of SQS
/// in a file of its own.
fn called() -> BTreeSet<String> {
    let files = production().into_iter().filter(|file| file.path.starts_with("src/aws/"));
    let of_file = |path: &str, code: &str| -> Vec<String> {
        let service = if path == "src/aws/queue.rs" { "sqs" } else { "autoscaling" };
        let calls = code.split("client").filter_map(|rest| rest.trim_start().strip_prefix('.'));
        let names = calls.filter_map(|call| Some(call.split_once("()")?.0));
        let operations = names.filter(|name| VERBS.iter().any(|verb| name.starts_with(verb)));
        operations.map(|name| format!("{service}:{}", in_pascal_case(name))).collect()
    };
    files.flat_map(|file| of_file(&file.path, &file.code)).collect()
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
    let names = ["policy.json", "policy-launch-instances.json", "policy-queue.json"];
    let documents: Vec<_> = names.map(allowed).into();
    let stated: usize = documents.iter().map(BTreeSet::len).sum();
    let distinct: BTreeSet<&String> = documents.iter().flatten().collect();
    assert_eq!(stated, distinct.len(), "a permission stands twice");
    assert!(found.contains("sqs:DeleteMessage"), "the calls of SQS were not found: {found:?}");
    assert_eq!(found, documents.into_iter().flatten().collect::<BTreeSet<_>>());
    let page = fs::read_to_string(root().join("deploy/iam/README.md")).expect("the page");
    for permission in &found {
        assert!(page.contains(&format!("| `{permission}` |")), "deploy/iam/README.md lacks {permission}");
    }
}
