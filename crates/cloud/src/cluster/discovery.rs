//! What the API says about itself.

use super::answer::Answer;
use super::refusal::{Refusal, refusal};
use super::world::World;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The paths that are no resources. `None` for all others.
pub(super) fn respond(world: &World, path: &str) -> Option<Result<Answer, Refusal>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let answer = match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => {
            Answer { code: 200, body: Bytes::from_static(b"ok"), retry_after: None }
        }
        ["version"] => Answer::new(
            200,
            &json!({ "major": "1", "minor": "37", "gitVersion": "v1.37.2-simulated", "gitCommit": "",
                "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
                "compiler": "", "platform": "linux/amd64" }),
        ),
        ["api"] => Answer::new(
            200,
            &json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ),
        ["apis"] => Answer::new(200, &groups(world)),
        ["api", version] => return Some(resources(world, "", version)),
        ["apis", group] => match groups(world)["groups"]
            .as_array()
            .and_then(|all| all.iter().find(|item| item["name"].as_str() == Some(group)))
        {
            Some(found) => {
                let mut found = found.clone();
                found["kind"] = json!("APIGroup");
                found["apiVersion"] = json!("v1");
                Answer::new(200, &found)
            }
            None => return Some(Err(unknown())),
        },
        ["apis", group, version] => return Some(resources(world, group, version)),
        _ => return None,
    };
    Some(Ok(answer))
}

fn unknown() -> Refusal {
    refusal(404, "NotFound", "the server could not find the requested resource")
}

fn groups(world: &World) -> Value {
    let mut versions: BTreeMap<String, String> =
        world.store.kinds().map(|kind| (kind.group.clone(), kind.version.clone())).collect();
    versions.remove("");
    versions.insert("authentication.k8s.io".to_owned(), "v1".to_owned());
    versions.insert("authorization.k8s.io".to_owned(), "v1".to_owned());
    let groups: Vec<Value> = versions
        .into_iter()
        .map(|(group, version)| {
            let one = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
            json!({ "name": group, "versions": [one], "preferredVersion": one })
        })
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn resources(world: &World, group: &str, version: &str) -> Result<Answer, Refusal> {
    let mut list = Vec::new();
    let mut entry = |name: String, namespaced: bool, kind: &str, verbs: Value| {
        list.push(json!({ "name": name, "singularName": kind.to_lowercase(), "namespaced": namespaced,
            "kind": kind, "verbs": verbs }));
    };
    for kind in world.store.kinds().filter(|kind| kind.group == group && kind.version == version) {
        let all = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        entry(kind.plural.clone(), kind.namespaced, &kind.kind, all);
        if kind.status {
            let verbs = json!(["get", "patch", "update"]);
            entry(format!("{}/status", kind.plural), kind.namespaced, &kind.kind, verbs);
        }
        if kind.id() == "pods" {
            entry("pods/eviction".to_owned(), true, "Eviction", json!(["create"]));
            entry("pods/binding".to_owned(), true, "Binding", json!(["create"]));
        }
    }
    match (group, version) {
        ("authentication.k8s.io", "v1") => {
            entry("tokenreviews".to_owned(), false, "TokenReview", json!(["create"]));
        }
        ("authorization.k8s.io", "v1") => {
            for kind in ["SelfSubjectAccessReview", "SubjectAccessReview"] {
                entry(format!("{}s", kind.to_lowercase()), false, kind, json!(["create"]));
            }
        }
        _ => {}
    }
    if list.is_empty() {
        return Err(unknown());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(Answer::new(
        200,
        &json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": list }),
    ))
}

/// The metadata of an object alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": object["metadata"] })
}
