//! A person asks with kubectl, on the real control plane: a node is replaced, what cannot be followed is
//! refused, and what the controller's own role lets it do is enough.

use crate::helpers::wait_for;
use crate::product::{PATIENCE, kubectl};
use crate::stories::{Stagecraft, Tale};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use spot_guard::crd::SpotAction;
use spot_guard::sim::scenario::Scenario;
use spot_guard::sim::world::POOL;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::spot_action::{ActionAnswer, ActionStage};

/// Asks with kubectl, as a person would.
pub fn ask(stage: &Stagecraft, name: &str, spec: &Value) {
    let object = json!({
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotAction", "metadata": { "name": name }, "spec": spec,
    });
    let file = stage.testbed.dir().join(format!("{name}.json"));
    std::fs::write(&file, object.to_string()).expect("the SpotAction is written");
    kubectl(&stage.testbed, &["create", "-f", &file.to_string_lossy()]);
}

/// The SpotAction, once something was said of it that is as wanted.
async fn told(stage: &Stagecraft, name: &str, wanted: ActionStage) -> SpotAction {
    let spot_actions: Api<SpotAction> = Api::all(stage.testbed.client());
    wait_for(&format!("SpotAction {name} to be {wanted:?}"), PATIENCE, async || {
        let found = spot_actions.get(name).await.ok()?;
        let conditions = found.status.as_ref().map_or(&[][..], |status| &status.conditions);
        (ActionStage::of(conditions) == wanted).then_some(found)
    })
    .await
}

#[actix::test]
async fn a_node_is_replaced_because_a_person_asks_with_kubectl() {
    let tale = Tale::new(Scenario::Rebalance, Vec::new());
    let stage = Stagecraft::set_up("asked", &tale).await;

    ask(&stage, "nobody", &json!({ "action": "Replace", "node": "nobody" }));
    let refused = told(&stage, "nobody", ActionStage::Over).await.status.expect("a status");
    let answer = ActionAnswer::NoSuchNode { node: "nobody".into() };
    assert_eq!(refused.conditions[0].message, answer.to_string());
    assert_eq!(refused.conditions[0].reason, answer.reason().to_string());
    ask(&stage, "pause", &json!({ "action": "Pause", "pool": POOL, "reason": "a release" }));
    told(&stage, "pause", ActionStage::Accepted).await;
    let table = kubectl(&stage.testbed, &["get", "spotactions"]).stdout;
    let table = String::from_utf8(table).expect("a table");
    assert!(table.lines().any(|line| line.starts_with("pause") && line.contains("True")), "{table}");

    ask(&stage, "replace", &json!({ "action": "Replace", "node": stage.old_node, "reason": "a new kernel" }));
    let accepted = told(&stage, "replace", ActionStage::Over).await.status.expect("a status");
    let old = stage.story.spot_instances()[0].clone();
    assert_eq!(accepted.replacements, [old]);
    wait_for("the story to wait for the pause", PATIENCE, async || {
        let records = stage.story.records().await;
        let blocking = records.first()?.status.as_ref()?.blocking.first()?.clone();
        (blocking.reason == ReasonCode::Paused && blocking.message.contains("SpotAction pause")).then_some(())
    })
    .await;
    ask(&stage, "resume", &json!({ "action": "Resume", "pool": POOL }));
    told(&stage, "resume", ActionStage::Over).await;
    told(&stage, "pause", ActionStage::Over).await;

    let report = tale.play(&stage.story).await;
    assert_eq!(report.problems, [""; 0]);
    let log = stage.controller.process.log();
    assert!(!log.contains("Forbidden") && !log.contains("forbidden"), "{log}");

    // A webhook's message names its spot_action: a replay is a name that is taken.
    let spot_actions: Api<SpotAction> = Api::all(stage.testbed.client());
    let again = SpotAction::new("replace", spot_actions.get("replace").await.expect("the SpotAction").spec);
    let answer = spot_actions.create(&PostParams::default(), &again).await;
    assert!(
        matches!(&answer, Err(kube::Error::Api(status)) if status.reason == "AlreadyExists"),
        "{answer:?}"
    );
    stage.controller.ends_well().await;
}
