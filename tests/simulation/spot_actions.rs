//! What people ask for by spot_actions: each action, what is refused, and who asks while the leader changes.

use crate::play::{Play, Stage, ends};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};
use spot_guard::crd::{InterruptionNotice, SpotAction, notice_name};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{Gates, ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::Supply;
use spot_guard_cloud::cluster::{RequestFate, RequestGate, RequestInfo};
use spot_guard_core::flow::{Event, Wish};
use spot_guard_core::neighbours::Neighbour;
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::reason::{Pause, ReasonCode};
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, Phase, ReplacementStatus};
use spot_guard_core::spot_action::{ActionAnswer, ActionStage};
use spot_guard_core::windows::ReturnWindow;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Asks for something as a person would.
pub fn ask(stage: &Stage, name: &str, spec: Value) {
    let mut object = json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "SpotAction",
        "metadata": { "name": name },
        "spec": spec,
    });
    object["spec"]["requestedBy"] = json!("ann");
    stage.cluster.create_json(object).expect("a SpotAction");
}

fn node_of(stage: &Stage, instance: &str) -> String {
    stage.cloud.node_of(instance).expect("a node").node_name
}

fn spot_action(stage: &Stage, name: &str) -> SpotAction {
    stage.cluster.get("", name).expect("a SpotAction")
}

/// What a condition of a SpotAction says: whether it is true, its reason and its message.
fn condition(stage: &Stage, name: &str, type_: &str) -> Option<(bool, String, String)> {
    let found = spot_action(stage, name).status?.conditions.into_iter().find(|held| held.type_ == type_)?;
    Some((found.status == "True", found.reason, found.message))
}

/// Waits until something was said of the SpotAction, and gives the condition `Accepted`.
pub async fn answered(stage: &Stage, name: &str) -> (bool, String, String) {
    loop {
        if let Some(found) = condition(stage, name, "Accepted") {
            return found;
        }
        stage.pass_millis(100).await;
    }
}

/// Asks, and waits until it is accepted.
async fn asked(stage: &Stage, name: &str, spec: Value) {
    ask(stage, name, spec);
    let (accepted, reason, message) = answered(stage, name).await;
    assert!(accepted, "{name}: {reason}: {message}");
}

/// Asks, and waits until it is refused with this answer.
async fn refused(stage: &Stage, name: &str, spec: Value, answer: ActionAnswer) {
    ask(stage, name, spec);
    let (accepted, reason, message) = answered(stage, name).await;
    let expected = (false, answer.reason().to_string(), answer.to_string());
    assert_eq!((accepted, reason, message), expected, "{name}");
    assert_eq!(condition(stage, name, "Complete"), None, "{name}");
}

/// The answer to a cancel of a replacement whose deadline presses.
fn deadline_presses(instance: &str, deadline: Timestamp) -> ActionAnswer {
    let (replacement, instance_id) = (instance.to_owned(), instance.to_owned());
    ActionAnswer::DeadlinePresses {
        replacement: replacement.into(),
        instance_id: instance_id.into(),
        deadline,
    }
}

/// What is told of a pause that ann has requested.
fn paused_by_ann(everything: bool) -> String {
    Pause::SpotAction { spot_action: "pause".to_owned(), by: Some("ann".to_owned()), everything }.to_string()
}

/// A story in which nothing happens but what people ask for.
fn quiet(replacements: usize) -> Plot {
    Plot { script: Vec::new(), replacements, ..ends(Scenario::Rebalance) }
}

/// The same story, which goes on for so many seconds at least.
fn lasting(plot: Plot, seconds: u32) -> Plot {
    let mut plot = plot;
    plot.script.push((seconds * SECOND, Act::OnDemandHas(Supply::Unlimited)));
    plot
}

#[test]
fn a_node_is_replaced_because_a_person_asks() {
    let mut plot = quiet(1);
    plot.start.policy.min_node_age_seconds = Some(86_400);
    plot.steps = Scenario::Rebalance.plot().steps;
    let played = Play::plot("replace", plot)
        .beside(|stage| async move {
            stage.edit_pool(|pool| pool["rebalance"] = json!("Ignore"));
            let node = node_of(&stage, &stage.spot[0]);
            let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            let spec =
                json!({ "action": "Replace", "node": node, "reason": "kernel", "traceparent": traceparent });
            asked(&stage, "one", spec).await;
            let status = stage.record(&stage.spot[0]).and_then(|record| record.status).expect("a record");
            assert_eq!((status.notice, status.deadline), (Some(NoticeKind::Manual), None));
            assert_eq!(status.traceparent.as_deref(), Some(traceparent));
            let action_followed = Event::ActionFollowed {
                wish: Wish::Replacement,
                spot_action: "one".to_owned(),
                by: Some("ann".to_owned()),
                reason: Some("kernel".to_owned()),
            };
            assert_eq!(status.steps[0].message, action_followed.to_string());
            let answer = spot_action(&stage, "one").status.expect("a status");
            assert_eq!(answer.replacements, [stage.spot[0].clone()]);
            assert_eq!(ActionStage::of(&answer.conditions), ActionStage::Over);

            asked(&stage, "again", json!({ "action": "Replace", "node": node })).await;
            assert_eq!(
                spot_action(&stage, "again").status.expect("a status").replacements,
                answer.replacements
            );
            let text = stage.metrics();
            let counted = r#"spot_guard_spotactions_total{action="Replace",result="Accepted"} 2"#;
            assert!(text.contains(counted), "{text}");
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn what_is_asked_for_a_story_that_waits_for_its_age_lets_it_go_on() {
    let mut plot = ends(Scenario::Rebalance);
    plot.start.policy.min_node_age_seconds = Some(86_400);
    let played = Play::plot("no longer too young", plot)
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_waiting(&instance, FlowBox::Notice, ReasonCode::NodeTooYoung).await;
            asked(&stage, "one", json!({ "action": "Replace", "node": node_of(&stage, &instance) })).await;
            stage.until(&instance, |status| status.phase != Phase::Received).await;
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn limits_and_pauses_hold_what_people_ask_for_too() {
    let mut plot = quiet(2);
    plot.start.policy.max_concurrent_replacements = Some(1);
    Play::plot("held", plot)
        .beside(|stage| async move {
            let (first, second) = (stage.spot[0].clone(), stage.spot[1].clone());
            asked(&stage, "pause", json!({ "action": "Pause", "pool": POOL })).await;
            asked(&stage, "one", json!({ "action": "Replace", "node": node_of(&stage, &first) })).await;
            stage.until_waiting(&first, FlowBox::Notice, ReasonCode::Paused).await;
            assert_eq!(stage.status(&first).blocking[0].message, paused_by_ann(false));
            asked(&stage, "resume", json!({ "action": "Resume", "pool": POOL })).await;
            stage.until(&first, |status| status.phase != Phase::Received).await;
            asked(&stage, "two", json!({ "action": "Replace", "node": node_of(&stage, &second) })).await;
            stage.until_waiting(&second, FlowBox::Notice, ReasonCode::ConcurrencyLimit).await;
        })
        .play()
        .assert_ok();
}

#[test]
fn what_cannot_be_followed_is_refused_and_changes_nothing() {
    let plot = lasting(Plot { steps: Vec::new(), ..quiet(0) }, 300);
    let played = Play::plot("refused", plot)
        .beside(|stage| async move {
            let node = node_of(&stage, &stage.spot[0]);
            let replace = |node: &str| json!({ "action": "Replace", "node": node });
            refused(&stage, "no-node", replace("nobody"), ActionAnswer::NoSuchNode { node: "nobody".into() }).await;
            let karpenter = json!({ "karpenter.sh/nodepool": "x" });
            stage.cluster.edit("nodes", "", &node, |node| {
                let labels = node["metadata"]["labels"].as_object_mut().expect("labels");
                labels.extend(karpenter.as_object().cloned().expect("labels"));
            });
            stage.pass(1).await;
            let left =
                ActionAnswer::LeftToNeighbour { node: node.clone().into(), neighbour: Neighbour::Karpenter };
            refused(&stage, "neighbour", replace(&node), left).await;
            let groupless = json!({ "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": "elsewhere" }, "spec": { "providerID": "aws:///us-east-1a/i-0123456789abcdef0" } });
            stage.cluster.create_json(groupless).expect("a node");
            let nowhere = ActionAnswer::NotInPool { node: "elsewhere".into() };
            refused(&stage, "nowhere", replace("elsewhere"), nowhere).await;
            let no_story = json!({ "action": "Return", "replacement": stage.spot[0] });
            let unknown = ActionAnswer::NoSuchReplacement { replacement: stage.spot[0].clone().into() };
            refused(&stage, "no-fallback", no_story, unknown).await;
            let no_pool = json!({ "action": "Return", "pool": "nothing" });
            let unknown = ActionAnswer::NoSuchPool { pool: "nothing".into() };
            refused(&stage, "no-pool", no_pool, unknown.clone()).await;
            let no_story = json!({ "action": "Cancel", "node": node });
            refused(&stage, "no-story", no_story, ActionAnswer::NoReplacementOfNode { node: node.into() }).await;
            let no_pool = json!({ "action": "Pause", "pool": "nothing" });
            refused(&stage, "no-pause", no_pool, unknown).await;
            asked(&stage, "no-fallbacks", json!({ "action": "Return", "pool": POOL })).await;
            assert_eq!(stage.changes(), 0);
            stage.cluster.edit("nodes", "", "elsewhere", |node| node["metadata"]["finalizers"] = json!(null));
            let counted = r#"spot_guard_spotactions_total{action="Replace",result="Refused"} 3"#;
            assert!(stage.metrics().contains(counted), "{}", stage.metrics());
        })
        .play();
    assert_eq!(played.violations.len(), 0, "{:?}", played.complaints());
}

/// Spot is dry for a while, and nothing but a person brings the fallback back before its time.
fn slow_to_return() -> Plot {
    let mut plot = ends(Scenario::DrySpot);
    let window =
        ReturnWindow { schedule: "0 23 * * *".to_owned(), time_zone: "UTC".to_owned(), duration_seconds: 60 };
    plot.start.policy = PolicySpec {
        stability_seconds: Some(7200),
        return_windows: Some(vec![window]),
        ..plot.start.policy.clone()
    };
    plot
}

#[test]
fn a_fallback_returns_now_because_a_person_asks() {
    let specs: [fn(&Stage, &ReplacementStatus) -> Value; 4] = [
        |stage, _| json!({ "action": "Return", "replacement": stage.spot[0] }),
        |stage, _| json!({ "action": "Return", "node": stage.record(&stage.spot[0]).expect("a record").spec.node_name }),
        |_, status| json!({ "action": "Return", "node": status.capacity.taken().expect("a node").node_name }),
        |_, _| json!({ "action": "Return", "pool": POOL }),
    ];
    for spec in specs {
        let played = Play::plot("return now", slow_to_return())
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::OnFallback).await;
                stage.pass(600).await;
                assert_eq!(stage.held_by(&instance)[0], ReasonCode::ReturnWindow);
                let status = stage.record(&instance).and_then(|record| record.status).expect("a status");
                stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
                asked(&stage, "now", spec(&stage, &status)).await;
                let led_to = spot_action(&stage, "now").status.expect("a status").replacements;
                assert_eq!(led_to, std::slice::from_ref(&instance));
                stage.pass(120).await;
                let status = stage.record(&instance).and_then(|record| record.status).expect("a status");
                assert!(status.fallback.requested_at().is_some());
                assert_eq!(stage.held_by(&instance), [ReasonCode::NoSpotInstance], "never without");
                stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
                asked(&stage, "again", json!({ "action": "Return", "replacement": instance })).await;
                stage.until(&instance, |status| status.fallback.successor().is_some()).await;
                let began = stage.cloud.now();
                stage.until_phase(&instance, Phase::Returning).await;
                let took = stage.cloud.now().duration_since(began).as_secs();
                assert!(took <= 35, "it is assessed at once, not after the stability time: {took} s");
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn a_return_that_is_asked_for_waits_for_a_pause_and_for_safety() {
    let played = Play::plot("return when safe", slow_to_return())
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            stage.pass(600).await;
            asked(&stage, "pause", json!({ "action": "Pause" })).await;
            asked(&stage, "now", json!({ "action": "Return", "replacement": instance })).await;
            stage.pass(600).await;
            assert_eq!(stage.status(&instance).blocking[0].message, paused_by_ann(true));
            let (paused, reason, message) = stage.condition("Paused").expect("a condition");
            assert_eq!((paused, reason.as_str()), (true, "Paused"));
            assert_eq!(message, paused_by_ann(true));
            stage.set_budgets(&["web", "api"], 0);
            asked(&stage, "resume", json!({ "action": "Resume" })).await;
            stage.until_waiting(&instance, FlowBox::Safety, ReasonCode::BudgetExhausted).await;
            assert_eq!(stage.condition("Paused").map(|found| found.0), Some(false));
            stage.pass(300).await;
            assert_eq!(
                stage.record(&instance).and_then(|r| r.status).map(|s| s.phase),
                Some(Phase::OnFallback)
            );
            stage.set_budgets(&["web", "api"], 1);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_story_that_is_cancelled_leaves_everything_as_it_was() {
    // The phase in which it is cancelled, and what the markets have.
    let cases = [
        (Phase::ScalingUp, Scenario::Rebalance),
        (Phase::Draining, Scenario::Rebalance),
        (Phase::FallingBack, Scenario::DrySpot),
        (Phase::Draining, Scenario::DrySpot),
        (Phase::FallingBack, Scenario::DrySpotSetDesired),
        (Phase::Draining, Scenario::DrySpotSetDesired),
        (Phase::BackingOff, Scenario::AllDry),
    ];
    for (phase, scenario) in cases {
        let plot = Plot { steps: vec![(FlowBox::CleanUp, Outcome::Cancelled)], ..scenario.plot() };
        let plot = lasting(plot, 600);
        let played = Play::plot(&format!("cancelled in {phase:?} of {scenario:?}"), plot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, phase).await;
                if phase == Phase::Draining {
                    // Some pods have moved by then.
                    stage.pass(2).await;
                }
                asked(&stage, "stop", json!({ "action": "Cancel", "replacement": instance })).await;
                asked(&stage, "stop-again", json!({ "action": "Cancel", "replacement": instance })).await;
                stage.until_phase(&instance, Phase::Cancelled).await;
                stage.pass(60).await;
                let node = stage.node(&instance);
                assert!(!node["spec"]["unschedulable"].as_bool().unwrap_or(false), "{node}");
                assert_eq!(node["spec"]["taints"].as_array().map_or(0, Vec::len), 0, "{node}");
            })
            .play();
        played.assert_ok();
        let group = |name| played.stage.cloud.group(name).expect("a group");
        assert!(group(SPOT).instances.iter().any(|held| held.id == played.stage.spot[0]));
        assert_eq!(group(ON_DEMAND).desired, scenario.plot().start.on_demand_nodes, "{phase:?} {scenario:?}");
    }
}

#[test]
fn a_replacement_that_is_cancelled_while_its_instance_is_launched_ends_no_working_node() {
    // 2 s after the request, and when the launch is about to end.
    for seconds in [2, 18] {
        let mut plot = lasting(Scenario::DrySpotSetDesired.plot(), 600);
        plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
        plot.steps = vec![(FlowBox::CleanUp, Outcome::Cancelled)];
        let played = Play::plot(&format!("cancelled after {seconds} s"), plot)
            .beside(move |stage| async move {
                stage.cloud.configure(|settings| settings.launch_takes = 20 * SECOND);
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::ScalingUp).await;
                stage.pass(seconds).await;
                asked(&stage, "stop", json!({ "action": "Cancel", "replacement": instance })).await;
                stage.until_phase(&instance, Phase::Cancelled).await;
            })
            .play();
        played.assert_ok();
        let there = played.stage.cloud.group(SPOT).expect("a group").instances;
        let is_there = |id: &String| there.iter().any(|held| held.id == *id && !held.state.is_ending());
        assert!(played.stage.spot.iter().all(is_there), "{seconds} s: {there:#?}");
    }
}

#[test]
fn what_can_no_longer_be_cancelled_is_refused() {
    let played = Play::plot("deadline", ends(Scenario::TwoMinuteNotice))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until(&instance, |status| status.deadline.is_some()).await;
            let spec = json!({ "action": "Cancel", "replacement": instance });
            let deadline = stage.status(&instance).deadline.expect("a deadline");
            refused(&stage, "stop", spec, deadline_presses(&instance, deadline)).await;
        })
        .play();
    played.assert_ok();
    let played = Play::plot("fallback", ends(Scenario::DrySpot))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::Terminating).await;
            let spec = json!({ "action": "Cancel", "replacement": instance });
            let (replacement, instance_id) = (instance.clone(), instance.clone());
            let ending = ActionAnswer::OldInstanceTerminating { instance_id: instance_id.clone().into() };
            refused(&stage, "stop", spec.clone(), ending).await;
            stage.until_phase(&instance, Phase::OnFallback).await;
            let stands_in = ActionAnswer::FallbackStandsIn {
                replacement: replacement.into(),
                instance_id: instance_id.into(),
            };
            refused(&stage, "stop-fallback", spec, stands_in).await;
        })
        .play();
    played.assert_ok();
}

#[test]
fn two_minutes_bring_back_what_was_cancelled() {
    for over in [false, true] {
        let plot = lasting(ends(Scenario::Rebalance), 900);
        let played = Play::plot(&format!("taken after all, over: {over}"), plot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::Draining).await;
                stage.pass(2).await;
                asked(&stage, "stop", json!({ "action": "Cancel", "replacement": instance })).await;
                if over {
                    stage.until_phase(&instance, Phase::Cancelled).await;
                    // The same advice does not begin it anew.
                    stage.pass(120).await;
                    stage.until_phase(&instance, Phase::Cancelled).await;
                }
                stage.cloud.interrupt(&instance).expect("an instance");
                stage.until(&instance, |status| status.deadline.is_some()).await;
            })
            .play();
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1);
        let instance_id = &played.stage.spot[0];
        let message = played.told_of(instance_id, FlowBox::Drain, Outcome::Terminated);
        let terminated = |replaced_by_group| {
            Event::Terminated { instance_id: instance_id.clone().into(), replaced_by_group }.to_string()
        };
        assert!([false, true].map(terminated).contains(&message), "{message}");
    }
}

#[test]
fn a_cancelled_story_begins_anew_when_a_person_asks() {
    let played = Play::plot("after all", lasting(ends(Scenario::Rebalance), 300))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::ScalingUp).await;
            asked(&stage, "stop", json!({ "action": "Cancel", "replacement": instance })).await;
            let replace = json!({ "action": "Replace", "node": node_of(&stage, &instance) });
            let status = stage.record(&instance).and_then(|record| record.status).expect("a status");
            if status.phase == Phase::Cancelling {
                let too_early = ActionAnswer::BeingCancelled {
                    node: node_of(&stage, &instance).into(),
                    replacement: instance.clone().into(),
                };
                refused(&stage, "too-early", replace.clone(), too_early).await;
            }
            stage.until_phase(&instance, Phase::Cancelled).await;
            asked(&stage, "after-all", replace).await;
            stage.until_phase(&instance, Phase::Draining).await;
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn a_pause_that_a_spot_action_asked_for_holds_until_a_resume_for_the_same() {
    for (name, scope) in [("pool", json!({ "pool": POOL })), ("everything", json!({}))] {
        let of = move |action: &str| {
            let mut spec = scope.clone();
            spec["action"] = json!(action);
            spec
        };
        let mut plot = Plot {
            script: vec![(10 * SECOND, Act::Rebalance(0)), (10 * SECOND, Act::Interrupt(1))],
            replacements: 2,
            ..ends(Scenario::Rebalance)
        };
        plot.start.policy.keep_finished_seconds = Some(60);
        Play::plot(&format!("paused by a SpotAction: {name}"), plot)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                asked(&stage, "pause", of("Pause")).await;
                let (complete, reason, _) = condition(&stage, "pause", "Complete").expect("a condition");
                assert_eq!((complete, reason.as_str()), (false, "InForce"));
                stage.until_phase(&stage.spot[1], Phase::Completed).await;
                stage.until_waiting(&instance, FlowBox::Notice, ReasonCode::Paused).await;
                let told = paused_by_ann(of("Pause")["pool"].is_null());
                assert_eq!(stage.status(&instance).blocking[0].message, told);
                // Neither the other scope nor time ends it; the Janitor leaves it where it is.
                let other = if of("Pause")["pool"].is_null() {
                    json!({ "action": "Resume", "pool": POOL })
                } else {
                    json!({ "action": "Resume" })
                };
                asked(&stage, "other", other).await;
                stage.pass(1300).await;
                assert!(
                    stage.cluster.get_json("spotactions.spotguard.dev", "", "other").is_none(),
                    "removed in time"
                );
                assert_eq!(stage.status(&instance).blocking[0].message, told);

                stage.edit_pool(|pool| pool["paused"] = json!(true));
                stage.pass(1).await;
                asked(&stage, "resume", of("Resume")).await;
                loop {
                    if condition(&stage, "resume", "Complete").is_some_and(|found| found.0) {
                        break;
                    }
                    stage.pass_millis(100).await;
                }
                let (_, reason, message) = condition(&stage, "pause", "Complete").expect("a condition");
                let ended =
                    ActionAnswer::EndedBy { spot_action: "resume".to_owned(), by: Some("ann".to_owned()) };
                assert_eq!((reason, message), (ended.reason().to_string(), ended.to_string()));
                if of("Pause")["pool"].is_string() {
                    let (_, _, message) = condition(&stage, "resume", "Complete").expect("a condition");
                    assert!(message.contains(&Pause::Pool.to_string()), "{message}");
                }
                let told = Pause::Pool.to_string();
                stage
                    .until(&instance, |status| status.blocking.iter().any(|held| held.message == told))
                    .await;
                stage.edit_pool(|pool| pool["paused"] = json!(false));
                stage.until(&instance, |status| status.phase != Phase::Received).await;
            })
            .play()
            .assert_ok();
    }
}

#[test]
fn a_spot_action_is_followed_by_the_next_leader() {
    let played = Play::plot("handed over", quiet(1))
        .standby()
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            asked(&stage, "pause", json!({ "action": "Pause" })).await;
            ask(&stage, "one", json!({ "action": "Replace", "node": node_of(&stage, &instance) }));
            stage.end.trigger();
            answered(&stage, "one").await;
            stage.until_waiting(&instance, FlowBox::Notice, ReasonCode::Paused).await;
            let standby = stage.standby.clone().expect("a standby");
            assert!(*standby.leading.borrow());
            asked(&stage, "resume", json!({ "action": "Resume" })).await;
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

/// A notice with a deadline that the controller has not seen wins over the cancel that it sees with it.
#[test]
fn a_deadline_that_comes_with_the_cancel_wins() {
    let played = Play::plot("both at once", ends(Scenario::Rebalance))
        .standby()
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::ScalingUp).await;
            stage.end.trigger();
            stage.pass_millis(10).await;
            stage.cloud.interrupt(&instance).expect("an instance");
            let (now, node) = (stage.cloud.now(), node_of(&stage, &instance));
            let notice = json!({
                "apiVersion": "spotguard.dev/v1alpha1",
                "kind": "InterruptionNotice",
                "metadata": { "name": notice_name(&node.as_str().into(), &instance.as_str().into(), NoticeKind::SpotInterruption) },
                "spec": { "nodeName": node, "instanceId": instance,
                    "kind": "SpotInterruption", "noticeTime": now, "detectedAt": now, "deadline": now + 120 * SECOND },
            });
            stage.cluster.create_json(notice).expect("a notice");
            let status = stage.record(&instance).and_then(|record| record.status).expect("a status");
            assert_eq!(status.deadline, None, "nobody leads yet");
            let spec = json!({ "action": "Cancel", "replacement": instance });
            refused(&stage, "stop", spec, deadline_presses(&instance, now + 120 * SECOND)).await;
        })
        .play();
    played.assert_ok();
}

/// Answers to SpotActions take their time.
struct SlowAnswers(Duration);

impl RequestGate for SlowAnswers {
    fn before(&self, request: &RequestInfo) -> RequestFate {
        match (request.resource.as_str(), request.subresource.as_str()) {
            ("spotactions", "status") => RequestFate::Delay(self.0),
            _ => RequestFate::Pass,
        }
    }
}

#[test]
fn a_flood_of_spot_actions_whose_answers_are_slow_delays_no_notice() {
    const FLOOD: usize = 5_000;
    let gates = Gates { kube: Some(Arc::new(SlowAnswers(Duration::from_secs(4)))), ..Gates::default() };
    let played = Play::plot("flood of SpotActions", ends(Scenario::TwoMinuteNotice))
        .faults(gates)
        .beside(|stage| async move {
            for number in 0..FLOOD {
                ask(&stage, &format!("t-{number}"), json!({ "action": "Return", "node": "nowhere" }));
            }
            let noticed = loop {
                if let Some(notice) = stage.cluster.list::<InterruptionNotice>().pop() {
                    break notice;
                }
                stage.pass_millis(10).await;
            };
            stage.until(&noticed.spec.instance_id, |status| status.started_at.is_some()).await;
            let status = stage.record(&noticed.spec.instance_id).and_then(|record| record.status);
            let (created, recorded) = (noticed.creation_timestamp(), status.and_then(|held| held.started_at));
            let taken = recorded.expect("a time").duration_since(created.expect("a time").0);
            assert!(taken.as_secs() < 1, "{taken:?}");
            let is_answered = |at: &usize| condition(&stage, &format!("t-{at}"), "Accepted").is_some();
            let answered = (0..FLOOD).filter(is_answered).count();
            assert!(answered < FLOOD / 2, "{answered} were answered: none was left to delay the notice");
        })
        .play();
    played.assert_ok();
}
