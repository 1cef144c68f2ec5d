//! Token and access reviews: questions in the form of objects that are never stored.

use super::answer::Answer;
use super::refusal::{Refusal, bad_request};
use super::request::{Identity, RequestInfo};
use super::world::World;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Answers a review; `None` if the request is none.
pub(super) fn respond(
    world: &World,
    info: &RequestInfo,
    by: &Identity,
    body: impl FnOnce() -> Result<Value, Refusal>,
) -> Result<Option<Answer>, Refusal> {
    if info.verb != "create" {
        return Ok(None);
    }
    let status = match (info.group.as_str(), info.resource.as_str()) {
        ("authentication.k8s.io", "tokenreviews") => Review::Token,
        ("authorization.k8s.io", "selfsubjectaccessreviews") => Review::OwnAccess,
        ("authorization.k8s.io", "subjectaccessreviews") => Review::Access,
        _ => return Ok(None),
    };
    let mut review = body()?;
    if !review["spec"].is_object() {
        return Err(bad_request("a review needs a spec"));
    }
    review["status"] = match status {
        Review::Token => token_status(world, &review["spec"]),
        Review::OwnAccess => access_status(world, &review["spec"], by),
        Review::Access => access_status(world, &review["spec"], &subject(&review["spec"])),
    };
    Ok(Some(Answer::new(201, &review)))
}

enum Review {
    Token,
    OwnAccess,
    Access,
}

fn token_status(world: &World, spec: &Value) -> Value {
    match world.identity_of(spec["token"].as_str().unwrap_or_default()) {
        Ok(identity) => json!({
            "authenticated": true,
            "user": { "username": identity.user, "groups": identity.groups, "extra": identity.extra },
            "audiences": spec.get("audiences").cloned().unwrap_or_else(|| json!([])),
        }),
        // As the API server does it: what is false is left out.
        Err(why) => json!({ "user": {}, "error": why }),
    }
}

fn access_status(world: &World, spec: &Value, who: &Identity) -> Value {
    let attributes = &spec["resourceAttributes"];
    let field = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
    let given = |name: &str| attributes[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let question = RequestInfo {
        verb: field("verb"),
        group: field("group"),
        version: field("version"),
        resource: field("resource"),
        subresource: field("subresource"),
        namespace: given("namespace"),
        name: given("name"),
        fields: None,
    };
    json!({ "allowed": (world.policy)(who, &question) })
}

fn subject(spec: &Value) -> Identity {
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, values)| (name.clone(), words(values)))
        .collect();
    Identity {
        user: spec["user"].as_str().unwrap_or_default().to_owned(),
        groups: words(&spec["groups"]),
        extra,
    }
}
