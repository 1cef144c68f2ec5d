use super::*;
use crate::crd::{GroupStatus, NodeReplacementSpec, SpotPoolStatus};
use crate::telemetry::readiness::UnreadyCode;
use jiff::Timestamp;
use spot_guard_core::placement::PodName;
use spot_guard_core::reason::Reason;
use spot_guard_core::record::{
    CapacityState, FallbackState, FlowBox, OldNodeState, OpenFallback, StepRecord,
};

const NONE: &[NodeReplacement] = &[];
const NO_POOLS: &[SpotPool] = &[];

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn step(second: i64, flow_box: FlowBox, outcome: Outcome) -> StepRecord {
    StepRecord { flow_box, at: at(second), outcome, node: "n".into(), message: String::new() }
}

fn text(metrics: &Metrics) -> String {
    metrics.encode(false, &Readiness::default(), NONE, NO_POOLS).unwrap()
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
    metrics.record_stored(None, &opened);
    let mut asked = opened.clone();
    asked.capacity = CapacityState::SpotRequested { since: at(1) }.into();
    asked.steps.push(step(1, FlowBox::ScaleUp, Outcome::Requested));
    metrics.record_stored(Some(&opened), &asked);
    metrics.record_stored(Some(&asked), &asked);
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_replacements_started_total{kind="SpotInterruption"} 1"#);
    assert_line(&text, r#"spot_guard_replacements_started_total{kind="Manual"} 0"#);
    assert_line(&text, r#"spot_guard_box_transitions_total{box="1",outcome="NoticeReceived"} 1"#);
    assert_line(&text, r#"spot_guard_box_transitions_total{box="2",outcome="Requested"} 1"#);
    assert_line(&text, "spot_guard_notice_to_request_seconds_count 1");
    assert_line(&text, "spot_guard_notice_to_request_seconds_sum 1.0");
    assert_line(&text, "# UNIT spot_guard_notice_to_request_seconds seconds");
}

#[test]
fn a_fallback_and_its_return_are_counted() {
    let metrics = Metrics::new();
    let waiting = ReplacementStatus::default();
    let fallen = ReplacementStatus {
        fallback: FallbackState::Pending(OpenFallback::default()).into(),
        ..ReplacementStatus::default()
    };
    metrics.record_stored(Some(&waiting), &fallen);
    metrics.record_stored(Some(&fallen), &fallen);
    let back = ReplacementStatus {
        steps: vec![step(9, FlowBox::ScaleDown, Outcome::ScaledDown)],
        ..ReplacementStatus::default()
    };
    metrics.record_stored(Some(&fallen), &back);
    let text = text(&metrics);
    assert_line(&text, "spot_guard_fallbacks_total 1");
    assert_line(&text, "spot_guard_returns_total 1");
}

#[test]
fn calls_evictions_and_restarts_carry_their_labels() {
    let metrics = Metrics::new();
    metrics.aws_call(AwsOperation::SetDesiredCapacity, AwsResult::Throttled, Duration::from_millis(20));
    metrics.eviction(EvictionResult::Budget);
    metrics.actor_restarted(ActorName::Drainer, RestartCause::Panicked);
    metrics.checks_given_up(BoundedCheck::Return, Spent::Work, 2);
    let text = text(&metrics);
    assert_line(&text, r#"spot_guard_aws_calls_total{operation="SetDesiredCapacity",result="Throttled"} 1"#);
    assert_line(&text, r#"spot_guard_aws_call_seconds_bucket{le="0.025",operation="SetDesiredCapacity"} 1"#);
    assert_line(&text, r#"spot_guard_evictions_total{answer="Budget"} 1"#);
    assert_line(&text, r#"spot_guard_actor_restarts_total{actor="Drainer",cause="panicked"} 1"#);
    assert_line(&text, r#"spot_guard_checks_given_up_total{check="Return",spent="Work"} 2"#);
    assert_line(&text, r#"spot_guard_checks_given_up_total{check="Replacement",spent="Time"} 0"#);
}

#[test]
fn gauges_follow_the_stored_objects_and_go_with_them() {
    let metrics = Metrics::new();
    let mut pool = SpotPool::new("web", serde_json::from_str(POOL_SPEC).unwrap());
    let spot = GroupStatus { desired: 4, in_service: 3, ..GroupStatus::default() };
    pool.status =
        Some(SpotPoolStatus { spot: Some(spot), unwatched_nodes: Some(3), ..SpotPoolStatus::default() });
    let mut held = [on_fallback("i-1"), on_fallback("i-2")];
    let pods =
        ["web-1", "web-2"].map(|name| PodName { namespace: "default".to_owned(), name: name.to_owned() });
    let terminating = pods.map(|pod| Reason::PodTerminating { pod });
    held[0].status.as_mut().unwrap().block(FlowBox::ScaleDown, terminating, at(0));
    let readiness = Readiness::default();
    readiness.ready("watch-pods");
    readiness.not_ready("auto-scaling", UnreadyCode::GroupsNotObserved, "throttled");
    let full = metrics.encode(true, &readiness, &held, &[pool]).unwrap();
    assert_line(&full, r#"spot_guard_replacements{phase="OnFallback"} 2"#);
    assert_line(&full, r#"spot_guard_replacements{phase="Draining"} 0"#);
    assert_line(&full, r#"spot_guard_blocked_replacements{reason="PodTerminating"} 1"#);
    assert_line(&full, r#"spot_guard_pool_desired{pool="web",group="Spot"} 4"#);
    assert_line(&full, r#"spot_guard_pool_in_service{pool="web",group="Spot"} 3"#);
    assert_line(&full, r#"spot_guard_pool_unwatched_nodes{pool="web"} 3"#);
    assert_line(&full, "spot_guard_leader 1");
    assert_line(&full, r#"spot_guard_part_ready{part="watch-pods"} 1"#);
    assert_line(&full, r#"spot_guard_part_ready{part="auto-scaling"} 0"#);
    let empty = text(&metrics);
    assert!(!empty.contains("pool=") && empty.ends_with("# EOF\n"), "{empty}");
    assert_line(&empty, r#"spot_guard_replacements{phase="OnFallback"} 0"#);
}

const POOL_SPEC: &str = r#"{"spotGroup": "web-spot", "onDemandGroup": "web-od"}"#;

#[test]
fn every_metric_says_what_it_is() {
    let metrics = Metrics::new();
    metrics.aws_call(AwsOperation::LaunchInstances, AwsResult::Ok, Duration::ZERO);
    let text = text(&metrics);
    let types = text.lines().filter(|line| line.starts_with("# TYPE"));
    for line in types {
        let name = line.split(' ').nth(2).unwrap();
        assert!(name.starts_with("spot_guard_"), "{line}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help");
    }
}
