use super::*;
use crate::kube::convert::Converter;
use crate::kube::slim::{CSINode, Head, Node, Pod, PodDisruptionBudget};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn many(count: usize, of: impl Fn(usize) -> Value) -> Value {
    (0..count).map(of).collect()
}

fn pairs(count: usize, value: &Value) -> Value {
    Value::Object((0..count).map(|at| (format!("example.com/{at}"), value.clone())).collect())
}

fn line(at: usize) -> Value {
    json!({ "key": format!("example.com/key-{at}"), "operator": "In", "values": ["a"] })
}

/// Rules of an affinity, in the field that the scheduler has to obey.
fn required(kind: &str, rules: Value) -> Value {
    json!({ kind: { "requiredDuringSchedulingIgnoredDuringExecution": rules } })
}

fn spec(field: &str, value: Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": { field: value } })
}

#[track_caller]
fn has_too_many<T: DeserializeOwned + fmt::Debug>(object: &Value) {
    let found = read::<T>(&bytes(object)).map(drop);
    assert_eq!(
        found,
        Err(ReadError::TooMany),
        "{}",
        object.to_string().chars().take(150).collect::<String>()
    );
    // What was counted is no matter of the next one.
    read::<T>(&bytes(&json!({ "metadata": { "name": "next" } }))).expect("it has nothing");
}

#[test]
fn an_object_of_more_than_any_of_real_use_has_is_not_understood() {
    let selector = json!({ "matchExpressions": many(85_000, line) });
    let values = json!({ "matchExpressions": [{ "key": "k", "operator": "In", "values": many(3_000, |_| json!("v")) }] });
    let term = |selector: &Value| json!([{ "topologyKey": "z", "labelSelector": selector }]);
    for (field, value) in [
        ("affinity", required("podAffinity", term(&selector))),
        ("affinity", required("podAffinity", term(&values))),
        ("affinity", required("podAffinity", term(&json!({ "matchLabels": pairs(3_000, &json!("v")) })))),
        ("affinity", required("podAntiAffinity", many(157_000, |_| json!({ "topologyKey": "z" })))),
        ("affinity", required("podAntiAffinity", json!([{ "namespaces": many(3_000, |_| json!("n")) }]))),
        ("affinity", required("podAffinity", json!([{ "matchLabelKeys": many(3_000, |_| json!("n")) }]))),
        ("affinity", required("podAffinity", json!([{ "mismatchLabelKeys": many(3_000, |_| json!("n")) }]))),
        ("affinity", required("nodeAffinity", json!({ "nodeSelectorTerms": [selector] }))),
        ("affinity", required("nodeAffinity", json!({ "nodeSelectorTerms": many(3_000, |_| json!({})) }))),
        ("tolerations", many(3_000, |at| json!({ "key": at.to_string() }))),
        ("nodeSelector", pairs(3_000, &json!("v"))),
        ("topologySpreadConstraints", many(3_000, |_| json!({}))),
        ("volumes", many(3_000, |_| json!({ "name": "v" }))),
        ("containers", many(5_000, |_| json!({ "name": "c" }))),
        ("initContainers", many(5_000, |_| json!({ "name": "c" }))),
        ("containers", json!([{ "ports": many(5_000, |_| json!({ "hostPort": 1 })) }])),
        ("containers", json!([{ "resources": { "requests": pairs(5_000, &json!("1")) } }])),
        ("overhead", pairs(5_000, &json!("1"))),
    ] {
        has_too_many::<Pod>(&spec(field, value));
    }
    has_too_many::<Pod>(&json!({ "metadata": { "ownerReferences": many(5_000, |_| json!({})) } }));
    has_too_many::<Pod>(&json!({ "metadata": { "labels": pairs(MAX_LABELS + 1, &json!("v")) } }));
    has_too_many::<Pod>(&json!({ "status": { "containerStatuses": many(5_000, |_| json!({})) } }));
    has_too_many::<PodDisruptionBudget>(&spec("selector", selector));
    has_too_many::<Node>(&spec("taints", many(3_000, |_| json!({}))));
    has_too_many::<CSINode>(&spec("drivers", many(5_000, |_| json!({}))));
    // What nobody reads may be of any number.
    let unread = many(100_000, |_| json!({ "name": "e", "value": "v" }));
    read::<Pod>(&bytes(&spec("containers", json!([{ "name": "c", "env": unread }])))).expect("a pod");
}

#[test]
fn of_what_is_not_understood_its_place_is_read_whatever_its_labels() {
    let labels = pairs(MAX_LABELS + 1, &json!("v"));
    let pod = json!({ "metadata": { "name": "p", "labels": labels }, "spec": { "nodeName": "a" } });
    let head = read::<Head>(&bytes(&pod)).expect("a head");
    assert_eq!(head.metadata.labels, None);
    assert_eq!(head.spec.and_then(|spec| spec.node_name).as_deref(), Some("a"));
}

/// Pods that take the longest of all that are read: by what they have, and by what has to be skipped.
fn worst() -> Vec<(&'static str, Value)> {
    let long = "k".repeat(250);
    let term = |lines: usize, same: usize, different: usize| {
        let key = |at: usize| json!(format!("example.com/{at}"));
        required(
            "podAffinity",
            json!([{ "topologyKey": "z", "labelSelector": { "matchExpressions": many(lines, |at| {
                json!({ "key": format!("{long}{at}"), "operator": "Exists" }) }) },
                "matchLabelKeys": many(same, key), "mismatchLabelKeys": many(different, key) }]),
        )
    };
    let labels = pairs(MAX_LABELS, &json!("v"));
    let with_keys = json!({ "metadata": { "name": "p", "labels": labels },
        "spec": { "affinity": term(999, 500, 500) } });
    let container = |at: usize| {
        let asked: serde_json::Map<_, _> =
            (0..3).map(|of| (format!("example.com/{}-{at}-{of}", &long[..40]), json!("1"))).collect();
        json!({ "name": format!("c{at}"), "restartPolicy": "Always", "resources": { "requests": asked } })
    };
    let states = json!({ "metadata": { "name": "p" },
        "spec": { "containers": many(2_000, |at| json!({ "name": format!("c{at}") })) },
        "status": { "containerStatuses": many(2_000, |at| json!({ "name": format!("c{at}") })) } });
    let terms = many(1_999, |at| json!({ "topologyKey": format!("{long}{at}") }));
    let filler = json!([{ "name": "c", "env": many(40_000, |_| json!({ "name": "e", "value": "v" })) }]);
    vec![
        ("lines", spec("affinity", term(1_999, 0, 0))),
        ("keys", with_keys),
        ("terms", spec("affinity", required("podAntiAffinity", terms))),
        ("containers", spec("initContainers", many(1_000, container))),
        ("states", states),
        ("filler", spec("containers", filler)),
    ]
}

#[test]
fn the_worst_object_within_the_bounds_is_read_at_once() {
    for (what, pod) in worst() {
        let text = bytes(&pod);
        // The best of a few: the machine may be busy with something else.
        let took = (0..5).map(|_| {
            let (mut converter, began) = (Converter::default(), Instant::now());
            let pod = read::<Pod>(&text).expect("it is within the bounds");
            let _ = converter.pod(&pod);
            began.elapsed()
        });
        let took = took.min().unwrap_or_default();
        assert!(took < Duration::from_millis(100), "{what}: {took:?} for {} bytes", text.len());
        println!("{what}: {took:?} for {} bytes", text.len());
    }
}
