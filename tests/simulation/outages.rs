//! Outages of what Spot Guard stands on: nothing is lost, nothing is done twice, readiness and metrics tell
//! the truth meanwhile, and it goes on by itself.

use crate::play::{Play, Stage};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{Gates, SPOT};
use spot_guard_cloud::cloud::{self, Supply};
use spot_guard_cloud::cluster::{self, RequestInfo};
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A plot of which no more is expected than that it ends. Long after that the world still has something to
/// do, which keeps the story going.
fn ends(scenario: Scenario) -> Plot {
    let mut plot = scenario.plot();
    plot.script.push((Duration::from_secs(1500), Act::SpotHas(Supply::Unlimited)));
    Plot { steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..plot }
}

/// Counts the lists that are asked for.
#[derive(Clone, Default)]
struct Lists(Arc<AtomicUsize>);

impl cluster::RequestGate for Lists {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        // The pods of one node are listed once more when it looks empty: that is no new beginning of a watch.
        let whole = request.verb == "list" && request.fields.is_none();
        self.0.fetch_add(usize::from(whole), Ordering::Relaxed);
        cluster::RequestFate::Pass
    }
}

/// What every call of the Auto Scaling API meets while it is set.
#[derive(Clone, Default)]
struct Aws(Arc<Mutex<Option<cloud::CallFate>>>);

impl Aws {
    fn set(&self, verdict: Option<cloud::CallFate>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
    }
}

impl cloud::CallGate for Aws {
    fn before(&self, _: &str, _: Option<&str>) -> cloud::CallFate {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or(cloud::CallFate::Pass)
    }
}

fn refuse(status: u16, code: &str) -> cloud::CallFate {
    cloud::CallFate::Refuse {
        status,
        code: code.to_owned(),
        message: "the simulated words of AWS".to_owned(),
    }
}

/// The phases of a fallback and its return in which AWS matters.
const PHASES: [Phase; 6] = [
    Phase::ScalingUp,
    Phase::FallingBack,
    Phase::Terminating,
    Phase::OnFallback,
    Phase::Returning,
    Phase::ScalingDown,
];

/// One before there is capacity, and one after.
const SOME: [Phase; 2] = [Phase::FallingBack, Phase::ScalingDown];

/// AWS is out for ten minutes from each of these phases on; `result` is what the calls are counted as.
fn aws_is_out(name: &'static str, verdict: &cloud::CallFate, result: &'static str, phases: &[Phase]) {
    for phase in phases.iter().copied() {
        let (aws, verdict) = (Aws::default(), verdict.clone());
        let gates = Gates { aws: Some(Arc::new(aws.clone())), ..Gates::default() };
        let played = Play::plot(&format!("{name} in {phase:?}"), ends(Scenario::DrySpot))
            .faults(gates)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, phase).await;
                aws.set(Some(verdict));
                stage.pass(90).await;
                let reasons = stage.controller.readiness.reasons();
                assert!(reasons.contains_key("auto-scaling"), "{name} in {phase:?}: {reasons:?}");
                assert!(
                    stage.controller.readiness.serves(),
                    "{name} takes the pod out of service: {reasons:?}"
                );
                let metrics = stage.metrics();
                assert!(metrics.contains("part_ready{part=\"auto-scaling\"} 0"), "{name}: {metrics}");
                let counted = format!("operation=\"DescribeAutoScalingGroups\",result=\"{result}\"");
                assert!(metrics.contains(&counted), "{name} in {phase:?}: no {counted} in {metrics}");
                stage.pass(510).await;
                aws.set(None);
                stage.pass(60).await;
                assert_works(&stage, name);
            })
            .play();
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1, "{name} in {phase:?}");
    }
}

/// Everything is ready, and no actor had to be started anew.
fn assert_works(stage: &Stage, name: &str) {
    let reasons = stage.controller.readiness.reasons();
    assert!(reasons.is_empty(), "{name}: {reasons:?}");
    let metrics = stage.metrics();
    let is_restart =
        |line: &str| line.starts_with("spot_guard_actor_restarts_total{") && !line.ends_with(" 0");
    assert!(!metrics.lines().any(is_restart), "{name}: {metrics}");
}

#[test]
fn aws_throttles_for_ten_minutes() {
    aws_is_out("throttling", &cloud::CallFate::throttling(), "Throttled", &PHASES);
}

#[test]
fn aws_answers_with_internal_errors() {
    aws_is_out("internal error", &refuse(500, "InternalFailure"), "Failed", &SOME);
}

#[test]
fn aws_is_unavailable() {
    aws_is_out("unavailable", &refuse(503, "ServiceUnavailable"), "Throttled", &SOME);
}

#[test]
fn the_credentials_are_expired() {
    aws_is_out("expired", &refuse(403, "ExpiredToken"), "Failed", &SOME);
}

#[test]
fn no_connection_to_aws_can_be_made() {
    aws_is_out("no connection", &cloud::CallFate::Drop, "Failed", &SOME);
}

#[test]
fn aws_does_not_answer() {
    aws_is_out("silence", &cloud::CallFate::Hang, "TimedOut", &SOME);
}

/// Breaks every connection to the Kubernetes API while it is on.
#[derive(Clone, Default)]
struct Kube(Arc<AtomicBool>);

impl Kube {
    fn verdict(&self) -> cluster::RequestFate {
        if self.0.load(Ordering::Relaxed) { cluster::RequestFate::Drop } else { cluster::RequestFate::Pass }
    }
}

impl cluster::RequestGate for Kube {
    fn before(&self, _: &RequestInfo) -> cluster::RequestFate {
        self.verdict()
    }

    fn after(&self, _: &RequestInfo, _: u16) -> cluster::RequestFate {
        self.verdict()
    }
}

/// The API server goes away for so many seconds; if its history is lost, every watch has to list anew.
async fn kube_is_out(stage: &Stage, switch: &Kube, seconds: u64, history_lost: bool) {
    switch.0.store(true, Ordering::Relaxed);
    stage.cluster.close_watches();
    stage.pass(seconds / 2).await;
    let reasons = stage.controller.readiness.reasons();
    for part in ["watch-nodes", "watch-pods", "watch-pools", "watch-notices", "watch-replacements"] {
        assert!(reasons.contains_key(part), "{part}: {reasons:?}");
    }
    assert!(stage.metrics().contains("part_ready{part=\"watch-nodes\"} 0"), "{}", stage.metrics());
    if history_lost {
        stage.cluster.compact();
    }
    stage.pass(seconds - seconds / 2).await;
    switch.0.store(false, Ordering::Relaxed);
}

#[test]
fn the_kubernetes_api_is_gone_for_a_minute_in_any_phase() {
    for (phase, history_lost) in [
        (Phase::ScalingUp, false),
        (Phase::FallingBack, true),
        (Phase::Draining, true),
        (Phase::Terminating, false),
        (Phase::OnFallback, true),
        (Phase::Returning, false),
        (Phase::ScalingDown, true),
    ] {
        let kube = Kube::default();
        let gates = Gates { kube: Some(Arc::new(kube.clone())), ..Gates::default() };
        let name = format!("API gone in {phase:?}, history lost: {history_lost}");
        let played = Play::plot(&name, ends(Scenario::DrySpot))
            .faults(gates)
            .beside(move |stage| async move {
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, phase).await;
                kube_is_out(&stage, &kube, 60, history_lost).await;
                stage.pass(60).await;
                assert_works(&stage, &format!("{phase:?}"));
            })
            .play();
        played.assert_ok();
        assert_eq!(played.report.replacements.len(), 1, "{name}");
    }
}

#[test]
fn a_new_list_replays_no_notice_into_a_new_story() {
    let kube = Kube::default();
    let gates = Gates { kube: Some(Arc::new(kube.clone())), ..Gates::default() };
    let played = Play::plot("etcd restarted", ends(Scenario::Rebalance))
        .faults(gates)
        .beside(move |stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::Completed).await;
            let (record, changes) = (stage.record(&instance).expect("a record"), stage.changes());
            for _ in 0..3 {
                kube_is_out(&stage, &kube, 10, true).await;
                stage.pass(60).await;
                assert_works(&stage, "after the restart");
                assert_eq!(stage.record(&instance).as_ref(), Some(&record), "the record was touched");
                assert_eq!(stage.changes(), changes, "a group was changed");
            }
        })
        .play();
    played.assert_ok();
    assert_eq!(played.report.replacements.len(), 1);
}

#[test]
fn a_deadline_is_met_by_a_new_leader_that_has_never_read_aws() {
    let mut plot = ends(Scenario::Rebalance);
    plot.script = vec![(Duration::from_secs(300), Act::SpotHas(Supply::Unlimited))];
    let played = Play::plot("unread deadline", plot)
        .standby()
        .beside(|stage| async move {
            // The groups were read and told of before.
            stage.pass(60).await;
            stage.cloud.throttle_for(Duration::from_secs(240));
            stage.end.trigger();
            stage.pass(10).await;
            stage.cloud.interrupt(&stage.spot[0]).expect("an instance");
            stage.pass(20).await;
            let status = stage.record(&stage.spot[0]).and_then(|record| record.status).expect("a record");
            assert!(status.old_node.is_past_drain(), "its pods run on other nodes: {status:#?}");
        })
        .play();
    assert!(played.has(FlowBox::Success, Outcome::InService), "the story has a pool, which is asked later");
    played.assert_ok();
}

/// Nobody knows whose the node is, since AWS has shown no group since it came.
#[test]
fn a_deadline_is_met_for_a_node_that_came_after_the_last_reading_of_aws() {
    let mut plot = ends(Scenario::FullCluster);
    // Else what may be a node of no pool is left alone.
    plot.start.drain_outside_pools = true;
    plot.script = vec![(Duration::from_secs(300), Act::SpotHas(Supply::Unlimited))];
    Play::plot("unread node", plot)
        .beside(|stage| async move {
            stage.pass(60).await;
            stage.cloud.throttle_for(Duration::from_secs(400));
            stage.cloud.take_now(&stage.spot[0]).expect("an instance");
            let others: BTreeSet<String> = stage.spot.iter().cloned().collect();
            let pods_on = |id: &str| {
                let node = stage.cloud.node_of(id).map(|join| join.node_name);
                node.map_or(0, |node| stage.cluster.movable_pods_on(&node).len())
            };
            let came = || stage.cloud.group(SPOT).expect("the group").instances.into_iter();
            let mut young = None;
            for _ in 0..60 {
                stage.pass(2).await;
                young = came().map(|instance| instance.id).find(|id| !others.contains(id));
                if young.as_deref().is_some_and(|id| pods_on(id) > 0) {
                    break;
                }
            }
            let young = young.expect("the group replaces what is gone");
            let before = pods_on(&young);
            assert!(before > 0, "pods run on it");
            stage.cloud.interrupt(&young).expect("an instance");
            stage.pass(60).await;
            // The cluster is full without it, so their budgets let go of some alone.
            assert!(pods_on(&young) < before, "{before} pods ran on it");
        })
        .play()
        .assert_ok();
}

#[test]
fn watches_that_end_are_resumed_from_where_they_were() {
    let lists = Lists::default();
    let seen = lists.0.clone();
    let mut plot = ends(Scenario::Rebalance);
    plot.script[0].0 = Duration::from_secs(100);
    let played = Play::plot("resumed", plot)
        .faults(Gates { kube: Some(Arc::new(lists)), ..Gates::default() })
        .beside(move |stage| async move {
            stage.pass(60).await;
            let before = seen.load(Ordering::Relaxed);
            assert!(before >= 10, "every kind was listed once: {before}");
            // The history is there: what happens meanwhile is told, and nothing is listed anew.
            stage.cluster.close_watches();
            stage.until_phase(&stage.spot[0], Phase::Completed).await;
            assert_eq!(seen.load(Ordering::Relaxed), before);
        })
        .play();
    played.assert_ok();
}
