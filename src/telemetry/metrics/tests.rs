use super::*;
use crate::actors::imds_poller::AgentMetrics;
use crate::actors::supervision::{Link, Shutdown};
use crate::agent::AgentHandle;
use crate::crd::{GroupStatus, NodeReplacementSpec, SpotPoolStatus};
use crate::telemetry::readiness::UnreadyCode;
use jiff::Timestamp;
use spot_guard_core::group::FailureClass;
use spot_guard_core::placement::PodName;
use spot_guard_core::reason::Reason;
use spot_guard_core::record::{
    Capacity, CapacityState, FallbackState, FlowBox, GroupKind, NoticeKind, OldNodeState, OpenFallback,
    Outcome, StepRecord, set_condition,
};
use spot_guard_core::savings::{NodeAccount, NodeSeconds};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const NONE: &[NodeReplacement] = &[];
const NO_POOLS: &[SpotPool] = &[];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn step(second: i64, flow_box: FlowBox, outcome: Outcome) -> StepRecord {
    StepRecord { flow_box, at: at(second), outcome, node: "n".into(), message: String::new() }
}

/// What the leader serves with nothing stored.
fn text(metrics: &Metrics) -> String {
    let pool = SpotPool::new("web", serde_json::from_str(POOL_SPEC).unwrap());
    metrics.encode(false, &Readiness::default(), NONE, &[pool]).unwrap()
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|held| held == line), "no line {line:?} in\n{text}");
}

fn on_fallback(name: &str) -> NodeReplacement {
    let spec = NodeReplacementSpec {
        pool: Some("web".into()),
        node_name: format!("node-{name}").into(),
        instance_id: name.into(),
        place: None,
        adopted: None,
    };
    let mut replacement = NodeReplacement::new(name, spec);
    replacement.status = Some(ReplacementStatus {
        old_node: OldNodeState::Gone {}.into(),
        fallback: FallbackState::OnFallback(OpenFallback::default()).into(),
        ..ReplacementStatus::default()
    });
    replacement
}

#[test]
fn a_stored_change_counts_its_new_steps_once() {
    let metrics = Metrics::new();
    let opened = ReplacementStatus {
        notice: Some(NoticeKind::SpotInterruption),
        started_at: Some(at(0)),
        steps: vec![step(0, FlowBox::Notice, Outcome::NoticeReceived)],
        ..ReplacementStatus::default()
    };
    metrics.record_stored(Some(&"web".into()), None, &opened);
    let mut asked = opened.clone();
    asked.capacity = CapacityState::SpotRequested { since: at(1) }.into();
    asked.steps.push(step(1, FlowBox::ScaleUp, Outcome::Requested));
    metrics.record_stored(Some(&"web".into()), Some(&opened), &asked);
    metrics.record_stored(Some(&"web".into()), Some(&asked), &asked);
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_replacements_started_total{pool="web",cause="SpotInterruption"} 1"#);
    assert_line(&text, r#"spot_guard_box_transitions_total{pool="",box="3",outcome="LaunchRefused"} 0"#);
    assert_line(&text, r#"spot_guard_replacements_started_total{pool="",cause="Manual"} 0"#);
    assert_line(&text, r#"spot_guard_notices_accepted_total{pool="web",kind="SpotInterruption"} 1"#);
    assert_line(&text, r#"spot_guard_box_transitions_total{pool="web",box="1",outcome="NoticeReceived"} 1"#);
    assert_line(&text, r#"spot_guard_box_transitions_total{pool="web",box="2",outcome="Requested"} 1"#);
    assert_line(&text, r#"spot_guard_notice_to_request_seconds_count{pool="web"} 1"#);
    assert_line(&text, r#"spot_guard_notice_to_request_seconds_sum{pool="web"} 1.0"#);
    assert_line(&text, "# UNIT spot_guard_notice_to_request_seconds seconds");
    assert_line(&text, r#"spot_guard_box_seconds_count{pool="web",box="2"} 1"#);
    assert_line(&text, r#"spot_guard_box_seconds_sum{pool="web",box="2"} 1.0"#);
    assert!(!text.contains(r#"spot_guard_box_seconds_count{pool="web",box="1"}"#), "no step before it");
}

/// The time between two notices of a node is no time of box 1.
#[test]
fn a_record_that_begins_anew_counts_no_box_from_the_time_before() {
    let metrics = Metrics::new();
    let cancelled = ReplacementStatus {
        started_at: Some(at(0)),
        steps: vec![step(0, FlowBox::CleanUp, Outcome::Cancelled)],
        ..ReplacementStatus::default()
    };
    let mut anew = ReplacementStatus { started_at: Some(at(5000)), ..cancelled.clone() };
    anew.steps.push(step(5000, FlowBox::Notice, Outcome::NoticeReceived));
    metrics.record_stored(Some(&"web".into()), Some(&cancelled), &anew);
    metrics.notice_waited(Some(&"web".into()), Duration::from_secs(2));
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_box_transitions_total{pool="web",box="1",outcome="NoticeReceived"} 1"#);
    assert_line(&text, r#"spot_guard_notice_to_record_seconds_sum{pool="web"} 2.0"#);
    assert!(!text.contains("spot_guard_box_seconds_count{"), "{text}");
}

#[test]
fn a_fallback_and_its_return_are_counted() {
    let metrics = Metrics::new();
    let waiting = ReplacementStatus::default();
    let fallen = ReplacementStatus {
        fallback: FallbackState::Pending(OpenFallback::default()).into(),
        ..ReplacementStatus::default()
    };
    metrics.record_stored(None, Some(&waiting), &fallen);
    metrics.record_stored(None, Some(&fallen), &fallen);
    let back = ReplacementStatus {
        steps: vec![step(9, FlowBox::ScaleDown, Outcome::ScaledDown)],
        ..ReplacementStatus::default()
    };
    metrics.record_stored(None, Some(&fallen), &back);
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_fallbacks_total{pool=""} 1"#);
    assert_line(&text, r#"spot_guard_returns_total{pool=""} 1"#);
}

/// How each of these ends is what people ask of a replacement first.
#[test]
fn the_way_of_a_notice_is_measured_to_its_end() {
    let metrics = Metrics::new();
    let pool = Some("web".into());
    let begun = ReplacementStatus {
        notice: Some(NoticeKind::RebalanceRecommendation),
        started_at: Some(at(0)),
        ..ReplacementStatus::default()
    };
    let mut escalated = begun.clone();
    escalated.notice = Some(NoticeKind::SpotInterruption);
    let taken = Capacity {
        group: GroupKind::Spot,
        instance_id: "i-2".into(),
        node_name: "n2".into(),
        ready_at: at(40),
    };
    let mut ready = escalated.clone();
    ready.capacity = CapacityState::Taken { instance: taken, on_demand_requested: false }.into();
    let mut drained = ready.clone();
    drained.steps.push(step(70, FlowBox::Drain, Outcome::Drained));
    let mut over = drained.clone();
    over.finished_at = Some(at(90));
    let mut cut_short = ready.clone();
    cut_short.steps.push(step(115, FlowBox::Drain, Outcome::TimedOut));
    for (before, after) in [
        (None, &begun),
        (Some(&begun), &escalated),
        (Some(&escalated), &ready),
        (Some(&ready), &drained),
        (Some(&drained), &over),
        (Some(&ready), &cut_short),
    ] {
        metrics.record_stored(pool.as_ref(), before, after);
    }
    let text = text(&metrics);
    for line in [
        r#"spot_guard_notices_accepted_total{pool="web",kind="RebalanceRecommendation"} 1"#,
        r#"spot_guard_notices_accepted_total{pool="web",kind="SpotInterruption"} 1"#,
        r#"spot_guard_replacements_started_total{pool="web",cause="RebalanceRecommendation"} 1"#,
        r#"spot_guard_notice_to_ready_seconds_sum{pool="web"} 40.0"#,
        r#"spot_guard_notice_to_ready_seconds_count{pool="web"} 1"#,
        r#"spot_guard_notice_to_drained_seconds_sum{pool="web"} 70.0"#,
        r#"spot_guard_notice_to_drained_seconds_count{pool="web"} 1"#,
        r#"spot_guard_drains_incomplete_total{pool="web",why="GivenUp"} 1"#,
    ] {
        assert_line(&text, line);
    }
    let finished = "spot_guard_replacements_finished_total";
    let labels = r#"pool="web",cause="SpotInterruption",phase="Completed",outcome="OnSpot""#;
    assert_line(&text, &format!("{finished}{{{labels}}} 1"));
}

/// LaunchInstances answers with success when it has launched nothing, too.
#[test]
fn a_launch_without_capacity_is_a_result_of_its_own() {
    for (class, result) in [
        (FailureClass::Capacity, AwsResult::OutOfCapacity),
        (FailureClass::Throttle, AwsResult::Throttled),
        (FailureClass::Quota, AwsResult::Refused),
        (FailureClass::Configuration, AwsResult::Refused),
    ] {
        assert_eq!(AwsResult::of(class), result, "{class:?}");
    }
    assert_line(&text(&Metrics::new()), &out_of_capacity(0));
}

#[test]
fn the_series_of_a_pool_go_with_it() {
    let metrics = Metrics::new();
    let pool = SpotPool::new("web", serde_json::from_str(POOL_SPEC).unwrap());
    let steps = [(0, FlowBox::Notice, Outcome::NoticeReceived), (1, FlowBox::ScaleUp, Outcome::Requested)];
    let status = ReplacementStatus {
        notice: Some(NoticeKind::SpotInterruption),
        started_at: Some(at(0)),
        steps: steps.map(|(second, flow_box, outcome)| step(second, flow_box, outcome)).to_vec(),
        ..ReplacementStatus::default()
    };
    metrics.record_stored(Some(&"web".into()), None, &status);
    metrics.eviction(Some(&"web".into()), EvictionResult::Accepted);
    let served = metrics.encode(false, &Readiness::default(), NONE, &[pool]).unwrap();
    assert_line(&served, r#"spot_guard_box_seconds_count{pool="web",box="2"} 1"#);
    // A replacement outlives its pool, and goes on.
    for goes_on in [false, true] {
        if goes_on {
            metrics.record_stored(Some(&"web".into()), None, &status);
            metrics.eviction(Some(&"web".into()), EvictionResult::Accepted);
            metrics.notice_waited(Some(&"web".into()), Duration::from_secs(2));
        }
        let deleted = metrics.encode(false, &Readiness::default(), NONE, NO_POOLS).unwrap();
        assert!(!deleted.contains(r#"pool="web""#), "{deleted}");
        assert_line(&deleted, r#"spot_guard_fallbacks_total{pool=""} 0"#);
    }
}

fn out_of_capacity(count: u32) -> String {
    let labels = r#"operation="LaunchInstances",result="OutOfCapacity""#;
    format!("spot_guard_aws_calls_total{{{labels}}} {count}")
}

#[test]
fn calls_evictions_and_restarts_carry_their_labels() {
    let metrics = Metrics::new();
    metrics.aws_call(AwsOperation::SetDesiredCapacity, AwsResult::Throttled, Duration::from_millis(20));
    metrics.eviction(Some(&"web".into()), EvictionResult::Budget);
    metrics.actor_restarted(ActorName::Drainer, RestartCause::Panicked);
    metrics.checks_given_up(BoundedCheck::Return, Spent::Work, 2);
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_aws_calls_total{operation="SetDesiredCapacity",result="Throttled"} 1"#);
    assert_line(&text, r#"spot_guard_aws_call_seconds_bucket{le="0.025",operation="SetDesiredCapacity"} 1"#);
    assert_line(&text, r#"spot_guard_evictions_total{pool="web",result="Budget"} 1"#);
    assert_line(&text, r#"spot_guard_actor_restarts_total{actor="Drainer",cause="Panicked"} 1"#);
    assert_line(&text, r#"spot_guard_checks_given_up_total{check="Return",spent="Work"} 2"#);
    assert_line(&text, r#"spot_guard_checks_given_up_total{check="Replacement",spent="Time"} 0"#);
}

#[test]
fn gauges_follow_the_stored_objects_and_go_with_them() {
    let metrics = Metrics::new();
    let mut pool = SpotPool::new("web", serde_json::from_str(POOL_SPEC).unwrap());
    let spot = GroupStatus { desired: 4, in_service: 3, ..GroupStatus::default() };
    let mut status =
        SpotPoolStatus { spot: Some(spot), unwatched_nodes: Some(3), ..SpotPoolStatus::default() };
    status.above_baseline = Some(2);
    status.node_account = Some(account());
    set_condition(&mut status.conditions, "Accepted", false, "NoSuchGroup", "", at(0));
    status.ledger = serde_json::from_str(LEDGER).unwrap();
    pool.status = Some(status);
    let pools = [pool];
    let mut held = [on_fallback("i-1"), on_fallback("i-2")];
    held[1].status.as_mut().unwrap().started_at = Some(at(7));
    held[0].status.as_mut().unwrap().started_at = Some(at(9));
    let terminating = ["web-1", "web-2"].map(|name| Reason::PodTerminating { pod: pod(name) });
    held[0].status.as_mut().unwrap().block(FlowBox::ScaleDown, terminating, at(0));
    let readiness = Readiness::default();
    readiness.ready("watch-pods");
    readiness.not_ready("auto-scaling", UnreadyCode::GroupsNotObserved, "throttled");
    metrics.ready_agents(&"web".into(), 2);
    metrics.ready_agents(&"gone".into(), 1);
    let full = metrics.encode(true, &readiness, &held, &pools).unwrap();
    assert_line(&full, r#"spot_guard_replacements{pool="web",phase="OnFallback"} 2"#);
    assert_line(&full, r#"spot_guard_replacements{pool="web",phase="Draining"} 0"#);
    assert_line(&full, r#"spot_guard_blocked_replacements{pool="web",box="10",reason="PodTerminating"} 1"#);
    let oldest = r#"spot_guard_oldest_block_timestamp_seconds{pool="web",box="10",reason="PodTerminating"}"#;
    assert_line(&full, &format!("{oldest} 1800000000"));
    assert_line(&full, r#"spot_guard_pool_desired{pool="web",group="Spot"} 4"#);
    assert_line(&full, r#"spot_guard_pool_in_service{pool="web",group="Spot"} 3"#);
    assert_line(&full, r#"spot_guard_pool_unwatched_nodes{pool="web"} 3"#);
    assert_line(&full, r#"spot_guard_pool_above_baseline{pool="web"} 2"#);
    assert_line(&full, r#"spot_guard_pool_node_seconds_total{pool="web",group="Spot"} 7200"#);
    assert_line(&full, r#"spot_guard_pool_node_seconds_total{pool="web",group="OnDemand"} 600"#);
    assert_line(&full, r#"spot_guard_pool_fallback_seconds_total{pool="web"} 300"#);
    // A twelfth of an hour, and two hours, at 0.75 an hour.
    assert_line(&full, r#"spot_guard_pool_fallback_cost_total{pool="web"} 0.0625"#);
    assert_line(&full, r#"spot_guard_pool_savings_total{pool="web"} 1.5"#);
    assert_line(&full, r#"spot_guard_pool_ready_agents{pool="web"} 2"#);
    assert_line(&full, "spot_guard_leader 1");
    assert_line(&full, r#"spot_guard_part_ready{part="watch-pods"} 1"#);
    assert_line(&full, r#"spot_guard_part_ready{part="auto-scaling"} 0"#);
    assert_line(&full, r#"spot_guard_pool_baseline{pool="web",group="Spot"} 3"#);
    assert_line(&full, r#"spot_guard_pool_owed{pool="web",group="Spot"} 1"#);
    assert_line(&full, r#"spot_guard_pool_fallbacks{pool="web"} 2"#);
    let oldest = r#"spot_guard_pool_oldest_fallback_timestamp_seconds{pool="web"} 1800000007"#;
    assert_line(&full, oldest);
    assert_line(&full, r#"spot_guard_pool_condition{pool="web",condition="Accepted"} 0"#);
    // With the pool its gauges go, and a replica that does not lead has none of them.
    let gone = metrics.encode(true, &Readiness::default(), NONE, NO_POOLS).unwrap();
    assert_line(&gone, r#"spot_guard_replacements{pool="",phase="OnFallback"} 0"#);
    for stored in ["spot_guard_pool_desired{", "spot_guard_pool_ready_agents{"] {
        assert!(!gone.contains(stored) && gone.ends_with("# EOF\n"), "{gone}");
    }
    let follower = metrics.encode(false, &readiness, &held, &pools).unwrap();
    for stored in ["spot_guard_pool_desired", "spot_guard_replacements{", "spot_guard_blocked"] {
        assert!(!follower.contains(stored), "{stored} in\n{follower}");
    }
    assert_line(&follower, "spot_guard_leader 0");
}

/// One share raised desired capacity, another one is owed by its group.
const LEDGER: &str = r#"{"scalingRequests": [{
    "id": "1", "group": "Spot", "groupName": "web-spot", "desiredBefore": 3, "target": 4, "instancesBefore": [],
    "requestedAt": "2027-01-15T08:00:00Z", "state": "Applied", "shares": [
        {"replacement": "i-1", "balance": "Raised", "attempt": 0, "since": "2027-01-15T08:00:00Z"},
        {"replacement": "i-2", "balance": "OwedByGroup", "attempt": 0, "since": "2027-01-15T08:00:00Z"}
    ]
}]}"#;

const POOL_SPEC: &str = r#"{
    "spotGroup": "web-spot", "onDemandGroup": "web-od", "hourlyPrices": {"spot": "0.25", "onDemand": "1"}
}"#;

/// Each metric that is served once: name, type, labels, and what it says.
#[derive(Default)]
struct Listed(BTreeMap<String, (String, BTreeSet<String>, String)>);

impl Listed {
    fn of(text: &str) -> Self {
        let mut listed = Self::default();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for line in text.lines() {
            let (kind, rest) =
                line.strip_prefix("# ").and_then(|it| it.split_once(' ')).unwrap_or(("", line));
            let name = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            match kind {
                "TYPE" => listed.0.entry(name).or_default().0 = words(rest)[1].clone(),
                "HELP" => listed.0.entry(name.clone()).or_default().2 = rest[name.len() + 1..].to_owned(),
                "" if !line.starts_with('#') => {
                    let family = listed.0.keys().filter(|held| name.starts_with(held.as_str())).max();
                    let (_, labels, _) = listed.0.get_mut(&family.unwrap().clone()).unwrap();
                    let inside = rest.split_once('{').and_then(|(_, it)| it.split_once('}'));
                    let pairs = inside.map_or("", |(inside, _)| inside).split(',');
                    let keys = pairs.filter_map(|pair| pair.split_once('=')).map(|(key, _)| key);
                    labels.extend(keys.filter(|key| *key != "le").map(str::to_owned));
                }
                _ => {}
            }
        }
        listed
    }

    /// The name as a query has it.
    fn name(family: &str, type_: &str) -> String {
        match type_ {
            "counter" => format!("{family}_total"),
            "info" => format!("{family}_info"),
            _ => family.to_owned(),
        }
    }
}

/// Every metric of a controller, each with a series.
fn all_of_controller(is_leader: bool) -> String {
    let metrics = Metrics::new();
    metrics.aws_call(AwsOperation::LaunchInstances, AwsResult::Ok, Duration::ZERO);
    metrics.marks_changed(MarkResult::Done);
    metrics.event(EventResult::Published);
    metrics.spot_action_answered(ActionKind::Replace, true);
    metrics.review(Review::Token, ReviewResult::Allowed);
    metrics.actor_restarted(ActorName::Drainer, RestartCause::Stuck);
    metrics.message_dropped(ActorName::Drainer);
    metrics.mailbox_waited(ActorName::Drainer, Duration::ZERO);
    let mut held = on_fallback("i-1");
    let status = held.status.as_mut().unwrap();
    status.started_at = Some(at(0));
    status.block(FlowBox::ScaleDown, [Reason::PodTerminating { pod: pod("web-1") }], at(0));
    status.steps = [(FlowBox::Notice, Outcome::NoticeReceived), (FlowBox::ScaleUp, Outcome::Requested)]
        .map(|(flow_box, outcome)| step(0, flow_box, outcome))
        .to_vec();
    metrics.record_stored(None, None, held.status.as_ref().unwrap());
    let mut pool = SpotPool::new("web", serde_json::from_str(POOL_SPEC).unwrap());
    let group = || Some(GroupStatus::default());
    let mut status = SpotPoolStatus { spot: group(), on_demand: group(), ..SpotPoolStatus::default() };
    (status.watched_nodes, status.unwatched_nodes) = (Some(1), Some(0));
    status.above_baseline = Some(0);
    status.node_account = Some(account());
    set_condition(&mut status.conditions, "Accepted", true, "Accepted", "", at(0));
    pool.status = Some(status);
    metrics.ready_agents(&"web".into(), 1);
    let readiness = Readiness::default();
    readiness.ready("watch-pods");
    metrics.encode(is_leader, &readiness, &[held], &[pool]).unwrap()
}

fn account() -> NodeAccount {
    let total = NodeSeconds { spot: 7200, on_demand: 600, fallbacks: 300 };
    NodeAccount { counted_at: at(0), total, days: Vec::new() }
}

fn all_of_agent() -> String {
    let agent = AgentHandle {
        poller: Link::new("ImdsPoller"),
        shutdown: Shutdown::new(),
        readiness: Readiness::default(),
        metrics: AgentMetrics::default(),
        process: ProcessMetrics::of_agent(),
        connections: Connections::default(),
    };
    agent.metrics.imds_request::<()>(&Ok(()), true);
    agent.process.mailbox_waited(ActorName::ImdsPoller, Duration::ZERO);
    agent.readiness.ready("imds");
    agent.encode_metrics().unwrap()
}

fn pod(name: &str) -> PodName {
    PodName { namespace: "default".to_owned(), name: name.to_owned() }
}

/// The rows of docs/telemetry.md, each with the stability that the page has for it.
fn rows(page: &str) -> String {
    let stability = |name: &str| {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let is_stable = row.is_some_and(|row| row.contains("| stable |"));
        if is_stable { "stable" } else { "beta" }
    };
    let (leader, follower) = (Listed::of(&all_of_controller(true)), Listed::of(&all_of_controller(false)));
    let agent = Listed::of(&all_of_agent());
    for (family, of_agent) in &agent.0 {
        let of_controller = leader.0.get(family).unwrap_or(of_agent);
        assert_eq!(of_controller, of_agent, "{family} is one metric, whoever serves it");
    }
    let mut rows = String::new();
    for (family, (type_, labels, help)) in leader.0.iter().chain(&agent.0).collect::<BTreeMap<_, _>>() {
        let by = match (follower.0.contains_key(family), agent.0.contains_key(family)) {
            (true, true) => "controller, agent",
            (true, false) => "controller",
            (false, true) => "agent",
            (false, false) => "leader",
        };
        let name = Listed::name(family, type_);
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (labels, stability) = (labels.join(", "), stability(&name));
        writeln!(rows, "| `{name}` | {type_} | {labels} | {by} | {stability} | {help} |").unwrap();
    }
    rows
}

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever adds a metric asks for a new table")]
fn the_page_lists_every_metric_with_type_labels_and_stability() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/telemetry.md");
    let page = std::fs::read_to_string(path).unwrap();
    let head =
        "| metric | type | labels | served by | stability | what it says |\n|---|---|---|---|---|---|\n";
    let (before, rest) = page.split_once(head).expect("the table of metrics");
    let (held, after) = rest.split_once("\n\n").expect("an empty line after the table");
    let rows = rows(&page);
    assert!(rows.lines().count() > 40, "{rows}");
    if std::env::var_os("UPDATE_TELEMETRY").is_some() {
        std::fs::write(path, format!("{before}{head}{rows}\n{after}")).unwrap();
        return;
    }
    assert!(held.lines().eq(rows.lines()), "run with UPDATE_TELEMETRY=1: the metrics are\n{rows}");
}

#[test]
fn every_metric_follows_the_conventions_of_names() {
    for text in [all_of_controller(true), all_of_agent()] {
        for (name, (type_, labels, help)) in Listed::of(&text).0 {
            assert!(name.starts_with("spot_guard_") && !help.is_empty(), "{name}: {help}");
            let is_snake = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(is_snake(&name) && labels.iter().all(|label| is_snake(label)), "{name} {labels:?}");
            assert!(type_ != "histogram" || name.ends_with("_seconds"), "{name} has no unit");
        }
    }
}
