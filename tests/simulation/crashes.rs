//! The controller is killed before and after each of its writes; another takes over, and the story ends as it
//! should all the same.

use crate::play::{Play, Played, Stage};
use crate::rights;
use crate::spot_actions::{answered, ask};
use serde_json::{Value, json};
use spot_guard::crd::{NodeReplacement, notice_name};
use spot_guard::sim::crash::{CrashPoint, CrashSide};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::cloud::{BootFault, Supply};
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, Phase, StepRecord};
use spot_guard_core::spot_action::ActionReason;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SEED: u64 = 1;

/// Every kind of write that a controller makes: a new one has to come in a story here.
const WRITES: [&str; 14] = [
    "LaunchInstances",
    "SetDesiredCapacity",
    "TerminateInstanceInAutoScalingGroup",
    "create nodereplacements/",
    "create pods/eviction",
    "delete interruptionnotices/",
    "delete nodereplacements/",
    "delete pods/",
    "delete spotactions/",
    "patch nodes/",
    "patch spotpools/",
    "patch spotpools/status",
    "patch spotactions/status",
    "update nodereplacements/status",
];

/// A story whose crash points are tried.
#[derive(Clone, Copy, Debug)]
enum Tale {
    /// One of the demo.
    Demo(Scenario),
    /// Everything that they do not show: a notice that is refused, pods that a budget holds back until the
    /// deadline, finished records that are removed.
    Odd,
    /// The first instance of each group never has a usable node.
    Unusable,
    /// What people ask for: everything that a SpotAction can lead to.
    Asked,
}

impl Tale {
    fn play(self) -> Play {
        match self {
            Self::Demo(scenario) => Play::of(scenario),
            Self::Odd => Play::plot("odd", odd()).beside(|stage| async move {
                let node = stage.cloud.node_of(&stage.spot[1]).expect("a node").node_name;
                let (now, wrong) = (stage.cloud.now(), "i-0123456789abcdef0");
                let notice = json!({
                    "apiVersion": "spotguard.dev/v1alpha1",
                    "kind": "InterruptionNotice",
                    "metadata": { "name": notice_name(&node.as_str().into(), &wrong.into(), NoticeKind::RebalanceRecommendation) },
                    "spec": { "nodeName": node, "instanceId": wrong, "noticeTime": now,
                        "kind": "RebalanceRecommendation", "detectedAt": now },
                });
                stage.cluster.create_json(notice).expect("a notice");
                // Notices of the last hour count for the brake, so the record is kept for as long.
                stage.until_phase(&stage.spot[0], Phase::Completed).await;
                while stage.record(&stage.spot[0]).is_some() {
                    stage.pass(1).await;
                }
            }),
            Self::Unusable => Play::plot("unusable", unusable()),
            Self::Asked => Play::plot("asked", asked()).beside(people_ask),
        }
    }
}

fn odd() -> Plot {
    let usual = Scenario::TwoMinuteNotice.plot();
    let mut start = usual.start;
    start.policy =
        PolicySpec { cleanup_seconds: Some(10), keep_finished_seconds: Some(60), ..PolicySpec::default() };
    start.apps.iter_mut().for_each(|app| app.max_unavailable = Some(0));
    Plot {
        start,
        script: vec![
            (Duration::from_secs(5), Act::Interrupt(0)),
            (Duration::from_secs(4000), Act::SpotHas(Supply::Unlimited)),
        ],
        replacements: 0,
        steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)],
        ..usual
    }
}

/// The Spot node never joins, and the on-demand node keeps its start-up taint.
fn unusable() -> Plot {
    let usual = Scenario::Rebalance.plot();
    let mut start = usual.start;
    start.policy = PolicySpec { join_timeout_seconds: Some(120), ..PolicySpec::default() };
    let mut script = usual.script;
    script.push((Duration::ZERO, Act::NodesFail(SPOT, BootFault::NeverJoins, 1)));
    script.push((Duration::ZERO, Act::NodesFail(ON_DEMAND, BootFault::KeepsTaint, 1)));
    script.sort_by_key(|(at, _)| *at);
    Plot { start, script, steps: vec![(FlowBox::CleanUp, Outcome::CleanedUp)], ..usual }
}

/// Spot is dry for a while, nothing is moved unless somebody asks.
fn asked() -> Plot {
    let usual = Scenario::DrySpot.plot();
    let mut start = usual.start;
    let policy = PolicySpec { min_node_age_seconds: Some(86_400), ..PolicySpec::default() };
    start.policy = PolicySpec {
        stability_seconds: Some(7200),
        keep_finished_seconds: Some(60),
        cleanup_seconds: Some(10),
        ..policy
    };
    Plot {
        start,
        // The story goes on until its SpotActions are removed.
        script: vec![
            (Duration::ZERO, Act::SpotHas(Supply::None)),
            (Duration::from_secs(1500), Act::SpotHas(Supply::Unlimited)),
        ],
        replacements: 2,
        steps: Vec::new(),
        ..usual
    }
}

/// One node falls back and returns before its time, a pause holds it meanwhile; the drain of another one is
/// cancelled.
async fn people_ask(stage: Stage) {
    let node = |instance: &str| stage.cloud.node_of(instance).expect("a node").node_name;
    let replace = |instance: &str| json!({ "action": "Replace", "node": node(instance) });
    let (first, second) = (stage.spot[0].clone(), stage.spot[1].clone());
    ask(&stage, "pause", json!({ "action": "Pause" }));
    ask(&stage, "nobody", json!({ "action": "Replace", "node": "nobody" }));
    ask(&stage, "first", replace(&first));
    for name in ["pause", "nobody", "first"] {
        answered(&stage, name).await;
    }
    ask(&stage, "resume", json!({ "action": "Resume" }));
    stage.until_phase(&first, Phase::OnFallback).await;
    ask(&stage, "second", replace(&second));
    stage.until_phase(&second, Phase::Draining).await;
    stage.pass(2).await;
    ask(&stage, "stop", json!({ "action": "Cancel", "replacement": second }));
    stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
    ask(&stage, "return", json!({ "action": "Return", "replacement": first }));
    for name in ["resume", "second", "stop", "return"] {
        let (accepted, reason, message) = answered(&stage, name).await;
        let too_late = [ActionReason::OldInstanceTerminating, ActionReason::OldInstanceGone];
        let is_too_late = too_late.iter().any(|late| late.to_string() == reason);
        assert!(accepted || is_too_late, "{name}: {reason}: {message}");
    }
    while !stage.cluster.list_json("spotactions.spotguard.dev").is_empty() {
        stage.pass(60).await;
    }
}

/// The points of a story: before and after each write that it makes when nobody is killed.
fn points(writes: usize) -> Vec<CrashPoint> {
    (0..writes)
        .flat_map(|number| [CrashSide::Before, CrashSide::After].map(|moment| CrashPoint { number, moment }))
        .collect()
}

/// Plays the story once per point, on all cores.
fn try_points(tale: Tale, points: &[CrashPoint]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(number) else { return };
                    if number > 0 && number.is_multiple_of(100) {
                        println!("{tale:?}: {number} points begun");
                    }
                    if let Some(complaint) = complaint(&tale.play().seed(SEED).crash(*point).play()) {
                        let text = format!("killed at {point:?}: {complaint}");
                        println!("{text}");
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tale:?}: {} points tried, {} failed", points.len(), failures.len());
    failures
}

fn complaint(played: &Played) -> Option<String> {
    if !played.crashed {
        return Some("the point was not reached".to_owned());
    }
    let write = played.writes.last().cloned().unwrap_or_default();
    let untold = untold_steps(&played.stage);
    let untold = (!untold.is_empty()).then(|| format!("steps without exactly one event: {untold:#?}"));
    played.complaints().or(untold).map(|text| format!("{write}: {text}"))
}

/// The steps of the stored records that `kubectl describe node` does not show, or shows more than once.
fn untold_steps(stage: &Stage) -> Vec<String> {
    let events = stage.cluster.list_json("events.events.k8s.io");
    let told = |step: &StepRecord| {
        let is_it = |event: &&Arc<Value>| {
            // What has no node is told of the pool.
            let about = if step.node.is_empty() { POOL } else { step.node.as_str() };
            event["regarding"]["name"] == about
                && event["regarding"]["uid"].is_string()
                && event["reason"] == format!("SpotGuard{:?}", step.outcome)
                && event["action"] == format!("Box{}", step.flow_box.number())
                && event["note"] == step.message.as_str()
                && event["eventTime"].as_str().and_then(|at| at.parse().ok()) == Some(step.at)
        };
        events.iter().filter(is_it).count()
    };
    let records = stage.cluster.list::<NodeReplacement>();
    let steps = records.iter().filter_map(|record| record.status.as_ref()).flat_map(|status| &status.steps);
    steps.filter(|step| told(step) != 1).map(|step| format!("{step:?}")).collect()
}

/// How many of its points a story is tried at, each time that the tests run: each, or every n-th.
fn every(tale: Tale) -> usize {
    match tale {
        Tale::Demo(Scenario::Rebalance | Scenario::DrySpot | Scenario::TwoMinuteNotice) => 1,
        Tale::Demo(Scenario::AllDry | Scenario::PdbBlocked | Scenario::DrySpotSetDesired) => 3,
        Tale::Demo(Scenario::ManagedNodeGroup | Scenario::SilentLoss | Scenario::Adoption) => 3,
        Tale::Asked | Tale::Unusable => 3,
        Tale::Demo(Scenario::FullCluster) | Tale::Odd => 5,
        Tale::Demo(Scenario::Autoscaler) => 9,
        Tale::Demo(Scenario::ThreeFallbacks) => 17,
        Tale::Demo(Scenario::Storm) => 401,
    }
}

/// Kills the controller at every n-th point of a story.
fn try_some(tale: Tale, every: usize) {
    let writes = tale.play().seed(SEED).play().writes.len();
    let some: Vec<CrashPoint> = points(writes).into_iter().step_by(every).collect();
    let failures = try_points(tale, &some);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whether SIMULATE_CRASHES names the story, by a part of its name; without it every story is meant.
fn is_meant(tale: &&Tale) -> bool {
    let named = std::env::var("SIMULATE_CRASHES").ok().filter(|text| !text.is_empty());
    named.is_none_or(|named| named.split(',').any(|part| format!("{tale:?}").contains(part.trim())))
}

#[test]
#[ignore = "takes many minutes: every point of every story"]
fn every_story_survives_a_crash_at_every_point() {
    TALES.iter().filter(is_meant).for_each(|tale| try_some(*tale, 1));
}

macro_rules! stories {
    ($($name:ident: $tale:expr,)*) => {
        /// Every story.
        const TALES: &[Tale] = &[$($tale,)*];

        $(#[test]
        fn $name() {
            try_some($tale, every($tale));
        })*
    };
}

stories! {
    rebalance_survives_a_crash: Tale::Demo(Scenario::Rebalance),
    dry_spot_survives_a_crash: Tale::Demo(Scenario::DrySpot),
    dry_spot_by_desired_capacity_survives_a_crash: Tale::Demo(Scenario::DrySpotSetDesired),
    all_dry_survives_a_crash: Tale::Demo(Scenario::AllDry),
    two_minute_notice_survives_a_crash: Tale::Demo(Scenario::TwoMinuteNotice),
    pdb_blocked_survives_a_crash: Tale::Demo(Scenario::PdbBlocked),
    full_cluster_survives_a_crash: Tale::Demo(Scenario::FullCluster),
    three_fallbacks_survive_a_crash: Tale::Demo(Scenario::ThreeFallbacks),
    a_storm_survives_a_crash: Tale::Demo(Scenario::Storm),
    refusals_deletions_and_removals_survive_a_crash: Tale::Odd,
    unusable_instances_survive_a_crash: Tale::Unusable,
    a_silent_loss_survives_a_crash: Tale::Demo(Scenario::SilentLoss),
    managed_node_groups_survive_a_crash: Tale::Demo(Scenario::ManagedNodeGroup),
    a_story_beside_cluster_autoscaler_survives_a_crash: Tale::Demo(Scenario::Autoscaler),
    an_adoption_survives_a_crash: Tale::Demo(Scenario::Adoption),
    what_people_ask_for_survives_a_crash: Tale::Asked,
}

#[test]
fn every_kind_of_write_is_a_crash_point_and_every_right_of_the_controller_is_used() {
    let (mut reached, mut requests) = (BTreeSet::new(), BTreeSet::new());
    for tale in TALES {
        let played = tale.play().seed(SEED).play();
        let kind = |write: &String| write.split(' ').take(2).collect::<Vec<_>>().join(" ");
        reached.extend(played.writes.iter().map(kind));
        requests.extend(played.requests);
    }
    rights::are_used(&requests);
    assert_eq!(
        reached,
        WRITES.map(str::to_owned).into(),
        "a write that no story reaches, or one that is new"
    );
}
