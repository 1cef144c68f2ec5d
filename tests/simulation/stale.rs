//! Watches that are refused, or that say nothing any more: nothing that cannot be taken back is done by the
//! picture that they have left, pods that were bound meanwhile included, and the story goes on when they are
//! back.

use crate::play::{Play, Stage};
use crate::spot_actions::ask;
use serde_json::{Value, json};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::Gates;
use spot_guard_cloud::cloud::Supply;
use spot_guard_cloud::cluster::{self, RequestInfo};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::{BlockingReason, FallbackState, FlowBox, OldNodeState, Outcome, Phase};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How a watch fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It ends, and neither it nor a list is answered.
    Refused,
    /// It is open, and what it says comes late by so many seconds.
    Silent(u64),
}

/// For longer than anybody waits.
const FOR_EVER: Way = Way::Silent(86_400);

/// The watches of one kind, between a controller and its API server.
#[derive(Clone)]
struct Watches {
    plural: &'static str,
    fails: Arc<Mutex<Option<Way>>>,
}

impl Watches {
    fn of(plural: &'static str) -> Self {
        Self { plural, fails: Arc::default() }
    }

    fn gates(&self) -> Gates {
        Gates { kube: Some(Arc::new(self.clone())), ..Gates::default() }
    }

    fn fail(&self, stage: &Stage, way: Way) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
        if way == Way::Refused {
            stage.cluster.close_watches();
        }
    }

    fn heal(&self) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How this request fails, if it does. One node's pods can be listed while their watch is silent.
    fn fails(&self, request: &RequestInfo) -> Option<Way> {
        let way = *self.fails.lock().unwrap_or_else(PoisonError::into_inner);
        let verbs = if way == Some(Way::Refused) { &["list", "watch"][..] } else { &["watch"] };
        way.filter(|_| request.resource == self.plural && verbs.contains(&request.verb.as_str()))
    }
}

impl cluster::RequestGate for Watches {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        match self.fails(request) {
            Some(Way::Refused) => cluster::RequestFate::Refuse(500, "InternalError".to_owned()),
            Some(Way::Silent(_)) | None => cluster::RequestFate::Pass,
        }
    }

    fn after(&self, request: &RequestInfo, _: u16) -> cluster::RequestFate {
        match self.fails(request) {
            Some(Way::Refused) => cluster::RequestFate::Drop,
            Some(Way::Silent(late)) => cluster::RequestFate::Delay(Duration::from_secs(late)),
            None => cluster::RequestFate::Pass,
        }
    }
}

/// A plot of which no more is expected than that it ends, some time after the watch is back.
fn ends(scenario: Scenario) -> Plot {
    let mut plot = scenario.plot();
    plot.script.push((Duration::from_secs(3000), Act::SpotHas(Supply::Unlimited)));
    Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..plot }
}

impl Stage {
    /// Binds four pods to a node, as a scheduler does that has not heard of its cordon yet.
    fn bind_four(&self, node: &str) {
        self.edit_pool(|pool| pool["policy"]["podHoldSeconds"] = json!(0));
        for number in 0..4 {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "namespace": "default", "name": format!("late-{number}") },
                "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "app:1" }] },
            });
            self.cluster.create_json(pod).expect("a pod");
        }
    }

    /// How many of them are there.
    fn late_pods(&self) -> usize {
        let name = |number| format!("late-{number}");
        (0..4).filter(|number| self.cluster.get_json("pods", "default", &name(*number)).is_some()).count()
    }

    fn runs(&self, instance: &str) -> bool {
        let groups = self.cloud.snapshot().groups;
        groups
            .iter()
            .flat_map(|group| &group.instances)
            .any(|held| held.id == instance && !held.state.is_ending())
    }

    fn stale(&self, plural: &str) -> bool {
        self.metrics().contains(&format!("spot_guard_stale_watches{{resource=\"{plural}\"}} 1"))
    }
}

/// What a drain that ends is judged by, of what can be seen in the simulation.
const DRAINS_LOOK_AT: [&str; 3] = ["pods", "nodes", "poddisruptionbudgets"];

/// The watches of a kind fail in `phase` of a replacement, four pods are bound to the old node, and for three
/// minutes nobody ends it; then they go by evictions, and the story ends.
fn fails_in(phase: Phase, plural: &'static str, way: Way, scenario: Scenario) {
    let watches = Watches::of(plural);
    let name = format!("{plural} {way:?} in {phase:?} of {scenario:?}");
    let gates = watches.gates();
    let played = Play::plot(&name.clone(), ends(scenario))
        .faults(gates)
        .beside(move |stage| async move {
            let old = stage.spot[0].clone();
            let node = stage.cloud.node_of(&old).expect("a node").node_name;
            let late = scenario == Scenario::PdbBlocked;
            if phase == Phase::Terminating {
                // Between the decision and the call.
                stage.until_phase(&old, Phase::Draining).await;
                stage.cloud.throttle_for(Duration::from_secs(60));
            }
            stage.until_phase(&old, phase).await;
            while phase == Phase::Draining && !late && !stage.cluster.movable_pods_on(&node).is_empty() {
                // The last that it shows is an empty node.
                stage.pass_millis(50).await;
            }
            watches.fail(&stage, way);
            stage.pass_millis(if late { 3000 } else { 0 }).await;
            stage.bind_four(&node);
            stage.pass(200).await;
            assert!(stage.runs(&old), "{name}: it was ended");
            if way == Way::Refused {
                assert!(stage.stale(plural), "{name}: nothing says so");
                let (observed, reason, text) = stage.condition("Observed").expect("a condition");
                assert_eq!((observed, reason.as_str()), (false, "StaleWatch"), "{name}");
                assert!(text.contains(plural), "{name}: {text}");
                assert_eq!(stage.late_pods(), 4, "{name}");
            }
            watches.heal();
            stage.until(&old, |status| status.old_node == OldNodeState::Gone {}).await;
            assert_eq!(stage.late_pods(), 0, "{name}");
            stage.pass(60).await;
            assert!(!stage.stale(plural), "{name}");
            assert!(stage.condition("Observed").is_none_or(|(observed, ..)| observed), "{name}");
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_watch_that_is_refused_before_a_drain_ends_nothing() {
    for plural in DRAINS_LOOK_AT {
        fails_in(Phase::ScalingUp, plural, Way::Refused, Scenario::Rebalance);
    }
}

#[test]
fn a_watch_that_is_refused_in_the_middle_of_a_drain_ends_nothing() {
    for plural in DRAINS_LOOK_AT {
        fails_in(Phase::Draining, plural, Way::Refused, Scenario::PdbBlocked);
        fails_in(Phase::Draining, plural, Way::Refused, Scenario::Rebalance);
    }
}

#[test]
fn a_watch_that_is_refused_before_the_instance_is_ended_holds_its_end() {
    for plural in DRAINS_LOOK_AT {
        fails_in(Phase::Terminating, plural, Way::Refused, Scenario::Rebalance);
    }
}

/// The same watches say nothing: that is found late, or never, and the node is empty by what they said last.
/// Nodes and budgets hide no pods.
fn pods_are_silent_in(phase: Phase, scenario: Scenario) {
    let watches = Watches::of("pods");
    let gates = watches.gates();
    let name = format!("silent in {phase:?} of {scenario:?}");
    let played = Play::plot(&name.clone(), ends(scenario))
        .faults(gates)
        .beside(move |stage| async move {
            let old = stage.spot[0].clone();
            let node = stage.cloud.node_of(&old).expect("a node").node_name;
            // Nothing of it is left to be seen.
            let mut moved = stage.cluster.movable_pods_on(&node);
            stage.until_phase(&old, phase).await;
            while phase == Phase::Draining && !moved.is_empty() {
                stage.pass_millis(50).await;
                moved = stage.cluster.movable_pods_on(&node);
            }
            watches.fail(&stage, Way::Silent(150));
            stage.bind_four(&node);
            // Nobody can know yet; then the silence is found, and the pods are listed.
            stage.pass(8).await;
            assert!(stage.runs(&old), "{name}: it was ended");
            assert_eq!(stage.late_pods(), 4, "{name}");
            stage.until(&old, |status| status.old_node == OldNodeState::Gone {}).await;
            assert_eq!(stage.late_pods(), 0, "{name}");
            watches.heal();
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_watch_of_pods_that_says_nothing_ends_nothing() {
    pods_are_silent_in(Phase::ScalingUp, Scenario::Rebalance);
    pods_are_silent_in(Phase::Draining, Scenario::Rebalance);
}

#[test]
fn an_instance_that_looks_idle_by_a_silent_watch_is_not_ended_under_its_pods() {
    for (way, seconds) in [(Way::Silent(50), 40), (Way::Refused, 120)] {
        let watches = Watches::of("pods");
        let gates = watches.gates();
        let plot = Plot { steps: Vec::new(), ..ends(Scenario::Rebalance) };
        let played = Play::plot(&format!("idle by an old picture, {way:?}"), plot)
            .faults(gates)
            .beside(move |stage| async move {
                let old = stage.spot[0].clone();
                // Nothing moves to what the story brings, so it looks idle when the story is cancelled.
                stage.until_phase(&old, Phase::ScalingUp).await;
                stage.set_budgets(&["web", "api"], 0);
                stage.until_phase(&old, Phase::Draining).await;
                let new = stage.status(&old).capacity.taken().cloned().expect("a stand-in");
                stage.pass(1).await;
                watches.fail(&stage, way);
                stage.bind_four(&new.node_name);
                ask(&stage, "stop", json!({ "action": "Cancel", "replacement": old }));
                stage.pass(seconds).await;
                assert!(stage.runs(&new.instance_id), "{way:?}: it was ended");
                watches.heal();
                stage.pass(120).await;
                assert!(stage.runs(&new.instance_id), "{way:?}: it was ended");
                for number in 0..4 {
                    let done = |pod: &mut Value| pod["status"]["phase"] = json!("Succeeded");
                    stage.cluster.edit("pods", "default", &format!("late-{number}"), done);
                }
                stage.set_budgets(&["web", "api"], 1);
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn no_return_begins_while_a_watch_is_refused_that_it_is_judged_by() {
    for plural in [
        "pods",
        "nodes",
        "poddisruptionbudgets",
        "persistentvolumeclaims",
        "persistentvolumes",
        "csinodes",
        "volumeattachments",
        "csidrivers",
        "storageclasses",
        "namespaces",
        "spotpools",
        "interruptionnotices",
        "nodereplacements",
    ] {
        let watches = Watches::of(plural);
        let gates = watches.gates();
        let played = Play::plot(&format!("return without {plural}"), ends(Scenario::DrySpot))
            .faults(gates)
            .beside(move |stage| async move {
                let old = stage.spot[0].clone();
                stage.until_phase(&old, Phase::OnFallback).await;
                watches.fail(&stage, Way::Refused);
                stage.pass(700).await;
                let status = stage.status(&old);
                assert!(!status.fallback.is_returning(), "{plural}");
                let stale = |held: &BlockingReason| {
                    held.reason == ReasonCode::StaleWatch && held.message.contains(plural)
                };
                let says = status.blocking.iter().any(stale);
                // Without its node no Spot instance counts as Ready, and that is what it waits for first.
                assert!(says || plural == "nodes", "{plural}: {:?}", status.blocking);
                watches.heal();
                stage.until(&old, |status| status.fallback.is_returning()).await;
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn a_return_that_is_under_way_is_neither_ended_nor_given_up_while_a_watch_is_refused() {
    for plural in DRAINS_LOOK_AT {
        let watches = Watches::of(plural);
        let gates = watches.gates();
        let played = Play::plot(&format!("returning without {plural}"), ends(Scenario::DrySpot))
            .faults(gates)
            .beside(move |stage| async move {
                let old = stage.spot[0].clone();
                stage.until_phase(&old, Phase::Returning).await;
                watches.fail(&stage, Way::Refused);
                stage.pass(700).await;
                let status = stage.status(&old);
                assert!(matches!(*status.fallback, FallbackState::Draining(_)), "{plural}: {status:#?}");
                let on_demand = status.capacity.taken().cloned().expect("a stand-in").instance_id;
                assert!(stage.runs(&on_demand), "{plural}");
                watches.heal();
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn two_minutes_are_used_whatever_watch_fails() {
    for way in [Way::Refused, FOR_EVER] {
        for plural in DRAINS_LOOK_AT {
            let watches = Watches::of(plural);
            let gates = watches.gates();
            let name = format!("two minutes, {plural} {way:?}");
            let mut plot = ends(Scenario::TwoMinuteNotice);
            plot.script[0].0 = Duration::from_secs(30);
            let played = Play::plot(&name.clone(), plot)
                .faults(gates)
                .beside(move |stage| async move {
                    let old = stage.spot[0].clone();
                    let node = stage.cloud.node_of(&old).expect("a node").node_name;
                    stage.pass(25).await;
                    watches.fail(&stage, way);
                    let pods = stage.cluster.movable_pods_on(&node);
                    assert!(!pods.is_empty());
                    stage.until(&old, |status| status.old_node != OldNodeState::Kept {}).await;
                    let deadline = stage.status(&old).deadline.expect("a deadline");
                    stage.pass(90).await;
                    let gone = |pod: &&cluster::ObjectKey| {
                        stage.cluster.get_json("pods", &pod.namespace, &pod.name).is_none()
                    };
                    let blocking = stage.status(&old).blocking;
                    assert_eq!(pods.iter().filter(gone).count(), pods.len(), "{name}: {blocking:?}");
                    assert!(stage.cloud.now() < deadline);
                    stage.pass(60).await;
                    assert!(!stage.runs(&old), "{name}: it is gone by its deadline");
                    watches.heal();
                })
                .play();
            played.assert_ok();
        }
    }
}
