//! The controller's roles, as the chart renders them, beside the requests that it makes.

mod roles;

use spot_guard::sim::crash::RequestKind;
use std::collections::BTreeSet;

const ROLES: &str = include_str!("../../deploy/manifests/controller-rbac.yaml");

/// What no scenario shows: its group, resource and verb, and who uses it. The audit log of a real API server
/// shows the first four (`tests/cluster/audit.rs`).
const ELSEWHERE: &[(&str, &str, &str)] = &[
    // Who calls the HTTP API, and what a person requests by it or by a webhook.
    ("authentication.k8s.io", "tokenreviews", "create"),
    ("authorization.k8s.io", "subjectaccessreviews", "create"),
    ("spotguard.dev", "spotactions", "create"),
    ("spotguard.dev", "spotactions", "get"),
    // No verb of the API server: the admission policy asks for it.
    ("spotguard.dev", "spotactions", "ask-for-others"),
    // A record that somebody else has changed meanwhile is read anew.
    ("spotguard.dev", "nodereplacements", "get"),
    // The notice queue.
    ("spotguard.dev", "interruptionnotices", "create"),
];

fn right(group: &str, resource: &str, verb: &str) -> RequestKind {
    RequestKind { group: group.to_owned(), resource: resource.to_owned(), verb: verb.to_owned() }
}

fn granted() -> BTreeSet<RequestKind> {
    let mut granted = BTreeSet::new();
    roles::each_right(ROLES, |group, resource, verb, _| {
        granted.insert(right(group, resource, verb));
    });
    granted
}

/// Panics if a request is not granted, or what is granted is used by nobody.
#[track_caller]
pub fn are_used(requests: &BTreeSet<RequestKind>) {
    let granted = granted();
    let missing: Vec<_> = requests.difference(&granted).collect();
    assert!(missing.is_empty(), "no role grants {missing:#?}");
    let elsewhere: BTreeSet<_> =
        ELSEWHERE.iter().map(|(group, resource, verb)| right(group, resource, verb)).collect();
    let unused: Vec<_> = granted.difference(requests).filter(|held| !elsewhere.contains(held)).collect();
    assert!(unused.is_empty(), "nobody uses {unused:#?}");
    let shown: Vec<_> = elsewhere.intersection(requests).collect();
    assert!(shown.is_empty(), "scenarios show by now {shown:#?}");
}
