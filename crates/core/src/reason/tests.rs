//! The codes, their list in the docs, and the whole catalogue of English.

use super::*;
use crate::freshness::WatchedKind;
use crate::group::{CapacityUnit, Rollout};
use crate::notices::NoticeRefusal;
use crate::placement::{NodeReason, ReasonCount};
use crate::record::{GroupKind, Phase};
use crate::spot_action::{ActionAnswer, ActionKind, ActionReason};
use std::collections::BTreeSet;
use std::fmt::Write;

fn pod() -> PodName {
    PodName { namespace: "default".to_owned(), name: "web-1".to_owned() }
}

fn budget() -> PodName {
    PodName { namespace: "default".to_owned(), name: "web".to_owned() }
}

fn at() -> Timestamp {
    "2026-01-01T03:00:00Z".parse().expect("a time")
}

fn nodes() -> Reasons {
    Reasons(vec![ReasonCount { reason: NodeReason::Insufficient("cpu".to_owned()), nodes: 2 }])
}

fn shut(
    for_good: usize,
    needed: i64,
    allowed: i64,
    (healthy, required, expected): (i64, i64, i64),
) -> Blocker {
    Blocker::BudgetExhausted(ShutBudget {
        budget: budget(),
        pods: vec![pod()],
        for_good,
        needed,
        allowed,
        current_healthy: healthy,
        desired_healthy: required,
        expected_pods: expected,
    })
}

fn pauses_and_limits() -> Vec<Reason> {
    let spot_action = |by: Option<&str>, everything| Pause::SpotAction {
        spot_action: "t-1".to_owned(),
        by: by.map(str::to_owned),
        everything,
    };
    let pauses = [Pause::Pool, Pause::Everything, spot_action(Some("ann"), false), spot_action(None, true)];
    let limits = [
        Reason::NodeTooYoung { seconds: 600 },
        Reason::ConcurrencyLimit { limit: 5 },
        Reason::ObserveOnly { at_once: false },
        Reason::ObserveOnly { at_once: true },
        Reason::TerminationHandlerRuns { workload: pod() },
        Reason::NotInPool,
        Reason::NoSuchPool { pool: "web".into() },
        Reason::RebalanceIgnored,
        Reason::ReplacedByGroup,
        Reason::InterruptionBrake { limit: 10 },
        Reason::ReturnsLost { until: "2026-01-01T03:10:00Z".parse().expect("a time") },
        Reason::ReplacementsUnderWay { count: 2 },
        Reason::ReturnBudget { budget: 2, period: Duration::from_secs(3600) },
        Reason::ReturnWindow,
        Reason::BadReturnWindow("durationSeconds 0 is not between 60 and 604800".to_owned()),
        Reason::ReturnRetry { until: at() },
    ];
    let neighbours = [
        Neighbour::Karpenter,
        Neighbour::EksManagedNodeGroup,
        Neighbour::NodeTerminationHandler,
        Neighbour::ClusterAutoscaler,
    ];
    let neighbours = neighbours.map(Reason::LeftToNeighbour);
    pauses.map(Reason::Paused).into_iter().chain(limits).chain(neighbours).collect()
}

fn findings() -> Vec<Reason> {
    [
        GroupProblem::NoSuchGroup,
        GroupProblem::OtherPool("other".into()),
        GroupProblem::CapacityRebalance,
        GroupProblem::DoesNotReplace,
        GroupProblem::NoTerminationHook,
        GroupProblem::SameNodeGroup("workers".to_owned()),
        GroupProblem::Operator("eks.amazonaws.com".to_owned()),
        GroupProblem::EksManaged("workers".to_owned()),
        GroupProblem::NotAllSpot,
        GroupProblem::NotAllOnDemand,
        GroupProblem::CountedInUnits(CapacityUnit::Weights),
        GroupProblem::CountedInUnits(CapacityUnit::Type("vcpu".to_owned())),
        GroupProblem::BeingDeleted,
        GroupProblem::AzRebalance,
        GroupProblem::TerminateSuspended,
        GroupProblem::ReplaceUnhealthySuspended("HealthCheck"),
        GroupProblem::MaxInstanceLifetime(86_400),
        GroupProblem::LaunchSuspended("its process Launch is suspended: User suspended".to_owned()),
        GroupProblem::NoRoom(9),
        GroupProblem::NoLaunchInstances(NoLaunch::LaunchConfiguration),
        GroupProblem::NoLaunchInstances(NoLaunch::WarmPool),
        GroupProblem::NoLaunchInstances(NoLaunch::ManagedNodeGroup("workers".to_owned())),
        GroupProblem::NoLaunchInstances(NoLaunch::Refused("UnsupportedOperation".to_owned())),
        GroupProblem::AtMinimum(3),
        GroupProblem::BaselineOutOfRange { baseline: 9, min: 0, max: 5 },
        GroupProblem::ForeignProviderIds { node: "node-1".into(), provider_id: "k3s://node-1".to_owned() },
    ]
    .map(|problem| Reason::PoolRefused(Finding { group: "spot".into(), problem }))
    .into()
}

fn capacity_and_health() -> Vec<Reason> {
    let node = || "ip-10-0-0-1".to_owned();
    vec![
        Reason::InStandby { instance_id: "i-1".into() },
        Reason::NodeCordoned { node: node().into() },
        Reason::NodeMissing { node: node().into() },
        Reason::NodeNotTainted { node: node().into() },
        Reason::CheckPending { node: node().into() },
        Reason::CheckTooLarge { node: node().into() },
        Reason::NoRoomYet { pod: pod(), reasons: nodes() },
        Reason::BothGroupsFailed { on_demand: RequestFailure::TimedOut(Duration::from_secs(300)) },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::NotJoined, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::NotReady, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::Cordoned, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::Tainted, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::Disputed, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::PodsDoNotFit, since: at() },
        Reason::InstanceUnusable { instance_id: "i-4".into(), why: NodeTrouble::StandsIdle, since: at() },
        Reason::LaunchHeld { instance_id: "i-4".into(), since: at() },
        Reason::StaleWatch(StaleWatch { kind: WatchedKind::Pod, since: at() }),
        Reason::InstanceDisputed { instance_id: "i-1".into(), node: node().into() },
        Reason::Rollout { group: "spot".into(), rollout: Rollout::InstanceRefresh("InProgress".to_owned()) },
        Reason::Rollout { group: "spot".into(), rollout: Rollout::NodeGroupUpdate("workers".to_owned()) },
        Reason::TerminatedByOther { instance_id: "i-1".into(), replacement: "i-2".into() },
        Reason::NoSpotInstance,
        Reason::AtMinimum { group: "spot".into() },
        Reason::InstancesMissing { group: "spot".into(), in_service: 2, expected: 3, desired: 4 },
        Reason::LaunchFailed { group: "spot".into(), message: "no Spot capacity".to_owned() },
        Reason::NodesNotReady { instances: vec!["i-1".into(), "i-2".into()], of: 4 },
        Reason::NotStable {
            node: node().into(),
            ready_for: Duration::from_secs(30),
            required: Duration::from_secs(120),
        },
        Reason::ReturnUnderWay { replacement: "i-2".into() },
        Reason::LaunchFrozen { group: "spot".into() },
        Reason::ShortfallObserved { instances: 2 },
        Reason::StandInLimit { limit: 2 },
        Reason::AtMaximum { group: "on-demand".into(), max: 5 },
        Reason::OnFallback { instances: 2 },
        Reason::AboveBaseline { group: "on-demand".into(), instances: 2, baseline: 1 },
        Reason::More(101),
    ]
}

fn blockers() -> Vec<Reason> {
    let not_evictable = [
        BlockedReason::NotSafeToEvict,
        BlockedReason::DoNotDisrupt,
        BlockedReason::Unmanaged,
        BlockedReason::EmptyDir,
    ]
    .map(|reason| Blocker::NotEvictable { pod: pod(), reason });
    let rest = [
        Blocker::NodeUnknown { node: "ip-10-0-0-1".into() },
        Blocker::PodDoesNotFit { pod: pod(), reasons: nodes(), fits_in_some_order: false },
        Blocker::PodDoesNotFit { pod: pod(), reasons: nodes(), fits_in_some_order: true },
        shut(0, 1, 0, (2, 2, 3)),
        shut(0, 1, 0, (2, 2, 2)),
        shut(1, 3, 2, (5, 3, 5)),
        shut(1, 2, 1, (3, 2, 3)),
        Blocker::BudgetNotObserved { budget: budget() },
        Blocker::SeveralBudgets { pod: pod(), budgets: vec![budget(), budget()] },
        Blocker::ToleratesDrain { pod: pod() },
        Blocker::BufferExceeded { resource: "cpu".to_owned(), after: 0.8, limit: 0.75 },
        Blocker::CheckTooLarge { heaviest: Some(pod()) },
        Blocker::CheckTooLarge { heaviest: None },
    ];
    not_evictable.into_iter().chain(rest).map(Reason::from).collect()
}

fn drains() -> Vec<Reason> {
    let refused = |answer| Reason::EvictionRefused { pod: pod(), answer };
    let failed = |status| EvictionAnswer::Failed { status, message: "no".to_owned() };
    vec![
        Reason::BudgetShut { budget: budget(), healthy: 2, required: 2 },
        refused(EvictionAnswer::BudgetExhausted { retry_after: None }),
        refused(EvictionAnswer::RateLimited { retry_after: None }),
        refused(EvictionAnswer::SeveralBudgets),
        refused(EvictionAnswer::Forbidden { message: "no".to_owned() }),
        refused(EvictionAnswer::Conflict),
        refused(failed(0)),
        refused(failed(422)),
        Reason::DeletionNotAllowed { pod: pod() },
        Reason::PodHolds { pod: pod(), reason: BlockedReason::NotSafeToEvict, until: at() },
        Reason::ConnectionsEnd { until: at() },
        Reason::PodTerminating { pod: pod() },
        Reason::PodOverstayed { pod: pod(), due: at(), finalizers: true },
        Reason::PodOverstayed { pod: pod(), due: at(), finalizers: false },
        Reason::PodComesBack { pod: pod() },
        Reason::SuccessorsNotReady { controller: budget(), ready: 1, expected: 3 },
        Reason::PodsNotListed { error: "no answer in time".to_owned() },
        Reason::PodNotWatched { pod: Some(pod()) },
        Reason::PodNotWatched { pod: None },
        Reason::InstanceNotGone { instance_id: "i-1".into() },
        Reason::TerminationHeld { instance_id: "i-1".into(), retained: false },
        Reason::TerminationHeld { instance_id: "i-1".into(), retained: true },
        Reason::NodeNotGone { node: "node-1".into(), group: None },
        Reason::NodeNotGone { node: "node-1".into(), group: Some("spot".into()) },
        Reason::CapacityNotSettled { group: GroupKind::OnDemand },
    ]
}

/// At least one of each answer to a SpotAction.
fn answers() -> Vec<ActionAnswer> {
    let (node, pool, replacement) = (|| "node-1".to_owned(), || "web".to_owned(), || "i-1".to_owned());
    let instance_id = replacement;
    let still = || Some(Pause::Everything);
    vec![
        ActionAnswer::BadTarget { action: ActionKind::Replace, needs: "spec.node" },
        ActionAnswer::NoSuchNode { node: node().into() },
        ActionAnswer::NoSuchPool { pool: pool().into() },
        ActionAnswer::NoSuchReplacement { replacement: replacement().into() },
        ActionAnswer::NoReplacementOfNode { node: node().into() },
        ActionAnswer::NotInPool { node: node().into() },
        ActionAnswer::LeftToNeighbour { node: node().into(), neighbour: Neighbour::Karpenter },
        ActionAnswer::OnDemandInstance { node: node().into(), pool: pool().into() },
        ActionAnswer::BeingCancelled { node: node().into(), replacement: replacement().into() },
        ActionAnswer::ReplacedAlready { node: node().into(), replacement: replacement().into() },
        ActionAnswer::ReplacementOver { replacement: replacement().into() },
        ActionAnswer::NoFallback { replacement: replacement().into(), phase: Phase::Draining },
        ActionAnswer::NoFallbackOfNode { node: node().into() },
        ActionAnswer::NoFallbackInPool { pool: pool().into() },
        ActionAnswer::DeadlinePresses {
            replacement: replacement().into(),
            instance_id: instance_id().into(),
            deadline: at(),
        },
        ActionAnswer::OldInstanceTerminating { instance_id: instance_id().into() },
        ActionAnswer::OldInstanceGone { instance_id: instance_id().into() },
        ActionAnswer::FallbackStandsIn {
            replacement: replacement().into(),
            instance_id: instance_id().into(),
        },
        ActionAnswer::Replacing { node: node().into(), replacement: replacement().into() },
        ActionAnswer::Returning,
        ActionAnswer::Cancelling { replacement: replacement().into() },
        ActionAnswer::CancelledAlready { replacement: replacement().into() },
        ActionAnswer::Paused { pool: None },
        ActionAnswer::NotPaused { pool: Some(pool().into()), still: still() },
        ActionAnswer::Ends { pauses: vec!["t-1".to_owned(), "t-2".to_owned()], still: still() },
        ActionAnswer::PausesOver { still: None },
        ActionAnswer::EndedBy { spot_action: "t-3".to_owned(), by: Some("ann".to_owned()) },
    ]
}

/// At least one of each reason.
fn catalogue() -> Vec<Reason> {
    [pauses_and_limits(), findings(), capacity_and_health(), blockers(), drains()].concat()
}

#[test]
fn the_english_of_all_reasons() {
    let mut text = String::new();
    for reason in catalogue() {
        writeln!(text, "{}: {reason}", reason.code()).expect("a string takes all");
    }
    for answer in answers() {
        writeln!(text, "{}: {answer}", answer.reason()).expect("a string takes all");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn every_code_is_that_of_a_reason_and_fits_a_condition() {
    let found: BTreeSet<ReasonCode> = catalogue().iter().map(Reason::code).collect();
    assert_eq!(found, ReasonCode::ALL.iter().copied().collect());
    for code in ReasonCode::ALL {
        let text = code.as_str();
        assert!(text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(serde_json::to_value(code).expect("JSON"), text);
    }
    for refusal in NoticeRefusal::ALL {
        assert_eq!(serde_json::to_value(refusal).expect("JSON"), refusal.as_str());
    }
}

#[test]
fn the_docs_list_every_code_in_this_order() {
    let docs = include_str!("../../../../docs/reasons.md");
    // What the root package adds stands behind, and is compared there.
    let docs = docs.split("\n## Refusing a request").next().expect("a first part");
    let listed = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let codes = ReasonCode::ALL.iter().map(ToString::to_string);
    let codes = codes.chain(ActionReason::ALL.iter().map(ToString::to_string));
    let codes = codes.chain(NoticeRefusal::ALL.map(|refusal| refusal.as_str().to_owned()));
    assert!(listed.eq(codes), "docs/reasons.md is not up to date");
}

#[test]
fn every_code_has_the_hint_of_the_docs() {
    let docs = include_str!("../../../../docs/reasons.md");
    // The same code may stand among the answers to a SpotAction, with another hint.
    let docs = docs.split("\n## Answering a SpotAction").next().expect("a first part");
    let rows = docs.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    let listed: Vec<(String, String)> =
        cells.map(|row| (row[0].replace('`', ""), row[2].replace('`', ""))).collect();
    let told: Vec<(String, String)> =
        ReasonCode::ALL.iter().map(|code| (code.to_string(), code.hint().to_owned())).collect();
    assert_eq!(listed, told, "crates/core/src/wording/hints.rs and docs/reasons.md differ");
}
