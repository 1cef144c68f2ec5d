//! The IAM documents allow what the product calls, and nothing more.

use super::source::{production, root};
use serde_json::{Value, json};
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

fn documents() -> Vec<String> {
    let files = fs::read_dir(root().join("deploy/iam")).expect("the folder");
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".json")).collect()
}

fn statements(document: &str) -> Vec<Value> {
    let text = fs::read_to_string(root().join("deploy/iam").join(document)).expect("a document");
    let policy: Value = serde_json::from_str(&text).expect("JSON");
    policy["Statement"].as_array().expect("statements").clone()
}

fn actions(statement: &Value) -> Vec<String> {
    let action = &statement["Action"];
    let list = action.as_array().cloned().unwrap_or_else(|| vec![action.clone()]);
    list.iter().map(|action| action.as_str().expect("a name").to_owned()).collect()
}

fn allowed(document: &str) -> BTreeSet<String> {
    statements(document).iter().flat_map(actions).collect()
}

#[test]
fn the_iam_documents_allow_each_call_and_nothing_more() {
    let mut found = called();
    assert!(found.contains("autoscaling:SetDesiredCapacity"), "the calls were not found: {found:?}");
    found.extend(DEMANDED.map(str::to_owned));
    let documents: Vec<_> = documents().iter().map(|name| allowed(name)).collect();
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

/// Another cluster's groups and queues are out of reach.
#[test]
fn what_changes_something_is_allowed_on_what_belongs_to_the_cluster_only() {
    let own = json!({ "StringEquals": { "aws:ResourceTag/spotguard.dev/cluster": "CLUSTER_NAME" } });
    let mut changing = 0;
    for document in documents() {
        for statement in statements(&document) {
            assert_eq!(statement["Effect"], "Allow", "{document}");
            let named = actions(&statement);
            let of_groups = named.iter().filter(|name| name.starts_with("autoscaling:"));
            let changes = of_groups.filter(|name| !name.starts_with("autoscaling:Describe")).count();
            changing += changes;
            assert!(changes == 0 || statement["Condition"] == own, "{document}: {statement:#}");
            if named.iter().any(|name| name.starts_with("sqs:")) {
                let queue = "arn:*:sqs:*:*:spot-guard-CLUSTER_NAME";
                assert_eq!(statement["Resource"], queue, "{document}: {statement:#}");
            }
        }
    }
    assert_eq!(changing, 5, "changing calls of Auto Scaling");
}

#[test]
fn the_terraform_module_has_every_document_and_the_queue_that_they_name() {
    let module = |file: &str| fs::read_to_string(root().join("deploy/terraform").join(file)).expect("a file");
    let (role, queue) = (module("main.tf"), module("queue.tf"));
    for document in documents() {
        assert!(role.contains(&format!("\"{document}\"")), "main.tf lacks {document}");
    }
    assert!(role.contains(r#""CLUSTER_NAME", var.cluster_name)"#), "the placeholder stays in the policies");
    assert!(queue.contains("= \"spot-guard-${var.cluster_name}\"\n"), "the queue has another name");
}
