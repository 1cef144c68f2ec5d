use super::*;
use crate::crd::NodeReplacementSpec;
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::NoticeKind;
use std::collections::BTreeSet;
use std::time::Duration;

const NOTICE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_RECORDED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const ALL: Sampling = Sampling::Ratio(1.0);
const NONE_OF_THE_SHARE: Sampling = Sampling::Ratio(0.0);

fn at(seconds: u64) -> Timestamp {
    "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(seconds)
}

fn time(seconds: u64) -> SystemTime {
    at(seconds).into()
}

fn step(flow_box: FlowBox, outcome: Outcome, seconds: u64) -> StepRecord {
    let (node, message) = ("node-1".into(), format!("{outcome:?}."));
    StepRecord { flow_box, at: at(seconds), outcome, node, message }
}

/// A replacement that needs no fallback.
fn smooth() -> NodeReplacement {
    let spec = NodeReplacementSpec {
        pool: Some("web".into()),
        node_name: "node-1".into(),
        instance_id: "i-0000000000000000a".into(),
        place: None,
        adopted: None,
    };
    let mut record = NodeReplacement::new("i-0000000000000000a", spec);
    record.metadata.uid = Some("8f7c".to_owned());
    record.status = Some(ReplacementStatus {
        notice: Some(NoticeKind::SpotInterruption),
        started_at: Some(at(0)),
        steps: vec![
            step(FlowBox::Notice, Outcome::NoticeReceived, 0),
            step(FlowBox::ScaleUp, Outcome::Requested, 1),
            step(FlowBox::Success, Outcome::InService, 61),
            step(FlowBox::Taint, Outcome::Tainted, 62),
            step(FlowBox::Drain, Outcome::Drained, 90),
            step(FlowBox::CleanUp, Outcome::CleanedUp, 120),
        ],
        finished_at: Some(at(120)),
        ..ReplacementStatus::default()
    });
    record
}

/// The same with no capacity at first.
fn rough() -> NodeReplacement {
    let mut record = smooth();
    status(&mut record).steps.insert(2, step(FlowBox::Wait, Outcome::NoCapacity, 10));
    record
}

fn status(record: &mut NodeReplacement) -> &mut ReplacementStatus {
    record.status.as_mut().unwrap()
}

/// How it was when it had this many steps.
fn earlier(record: &NodeReplacement, steps: usize) -> NodeReplacement {
    let mut record = record.clone();
    status(&mut record).steps.truncate(steps);
    status(&mut record).finished_at = None;
    record
}

/// What is told when a record is stored step by step.
fn one_by_one(record: &NodeReplacement, sampling: Sampling) -> Vec<SpanData> {
    let count = record.status.as_ref().unwrap().steps.len();
    let mut before: Option<NodeReplacement> = None;
    let mut spans = Vec::new();
    for steps in 1..=count {
        let after = if steps == count { record.clone() } else { earlier(record, steps) };
        let known = before.as_ref().and_then(|record| record.status.as_ref());
        spans.extend(spans_of(&after, Part::After(known), sampling));
        before = Some(after);
    }
    spans
}

fn whole(record: &NodeReplacement) -> Vec<SpanData> {
    spans_of(record, Part::After(None), ALL)
}

fn ids(spans: &[SpanData]) -> BTreeSet<String> {
    spans.iter().map(|span| span.span_context.span_id().to_string()).collect()
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn value(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|held| held.key.as_str() == key).map(|held| held.value.to_string())
}

#[test]
fn a_replacement_is_one_tree_with_a_span_for_each_step() {
    let spans = whole(&smooth());
    assert_eq!(
        names(&spans),
        [
            "box 1 notice",
            "box 2 scale up",
            "box 3.1 success",
            "box 4 taint",
            "box 5 drain",
            "box 11 clean up",
            "replacement"
        ]
    );
    assert_eq!(ids(&spans).len(), spans.len(), "no two spans have one id");
    let (root, boxes) = spans.split_last().unwrap();
    assert_eq!(root.span_context, super::root(&smooth()));
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert!(boxes.iter().all(|span| span.parent_span_id == root.span_context.span_id()));
    assert!(spans.iter().all(|span| span.span_context.trace_id() == trace_id(&smooth())));
    assert!(spans.iter().all(|span| span.span_context.is_valid() && span.span_context.is_sampled()));
    for (span, next) in boxes.iter().zip(&boxes[1..]) {
        assert_eq!(span.end_time, next.start_time, "{}", next.name);
    }
    assert_eq!((root.start_time, root.end_time), (time(0), time(120)));
    let in_service = &boxes[2];
    assert_eq!((in_service.start_time, in_service.end_time), (time(1), time(61)));
    for (key, expected) in [
        ("spot_guard.replacement", "i-0000000000000000a"),
        ("spot_guard.pool", "web"),
        ("spot_guard.box", "3.1"),
        ("spot_guard.outcome", "InService"),
        ("spot_guard.attempt", "1"),
        ("k8s.node.name", "node-1"),
        ("host.id", "i-0000000000000000a"),
    ] {
        assert_eq!(value(in_service, key).as_deref(), Some(expected), "{key}");
    }
    assert_eq!(value(root, "spot_guard.outcome").as_deref(), Some("Completed"));
    assert_eq!(value(root, "spot_guard.notice").as_deref(), Some("SpotInterruption"));
    assert!(spans.iter().all(|span| span.status == Status::Unset));
}

#[test]
fn the_trace_of_a_notice_goes_on_below_its_span_if_that_was_recorded() {
    let mut record = smooth();
    status(&mut record).traceparent = Some(NOTICE.to_owned());
    let spans = whole(&record);
    let trace: BTreeSet<_> = spans.iter().map(|span| span.span_context.trace_id().to_string()).collect();
    assert_eq!(trace, BTreeSet::from(["0af7651916cd43dd8448eb211c80319c".to_owned()]));
    let root = spans.last().unwrap();
    assert_eq!(root.parent_span_id.to_string(), "b7ad6b7169203331");
    status(&mut record).traceparent = Some(NOT_RECORDED.to_owned());
    let spans = whole(&record);
    assert_eq!(spans.last().unwrap().parent_span_id, SpanId::INVALID, "nobody has that span");
    assert_eq!(spans[0].span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    status(&mut record).traceparent = Some("garbage".to_owned());
    assert_eq!(trace_id(&record), trace_id(&smooth()));
}

#[test]
fn what_is_told_step_by_step_or_twice_are_the_same_spans() {
    for record in [smooth(), rough()] {
        let spans = one_by_one(&record, ALL);
        assert_eq!(names(&spans), names(&whole(&record)), "none is missing and none comes twice");
        assert_eq!(ids(&spans), ids(&whole(&record)));
        let again = spans_of(&record, Part::Since(at(61)), ALL);
        assert_eq!(names(&again), ["box 4 taint", "box 5 drain", "box 11 clean up", "replacement"]);
        assert_eq!(again, spans[spans.len() - 4..], "a new leader tells the same");
    }
    let unchanged = rough();
    assert_eq!(spans_of(&unchanged, Part::After(unchanged.status.as_ref()), ALL), []);
}

#[test]
fn a_failure_is_an_error_with_its_reason_and_a_wait_is_an_event() {
    let blocked = |since, message: &str| BlockingReason {
        flow_box: FlowBox::Drain,
        reason: ReasonCode::PodDoesNotFit,
        message: message.to_owned(),
        since: at(since),
    };
    let mut held_up = earlier(&smooth(), 4);
    status(&mut held_up).steps.push(step(FlowBox::Drain, Outcome::Blocked, 70));
    status(&mut held_up).blocking = vec![blocked(70, "no room")];
    let before = earlier(&smooth(), 4);
    let spans = spans_of(&held_up, Part::After(before.status.as_ref()), ALL);
    assert_eq!(names(&spans), ["box 5 drain"]);
    assert_eq!(spans[0].status, Status::error("Blocked."));
    assert_eq!(value(&spans[0], "spot_guard.reason").as_deref(), Some("PodDoesNotFit"));
    let mut drained = held_up.clone();
    status(&mut drained).blocking.clear();
    status(&mut drained).steps.push(step(FlowBox::Drain, Outcome::Drained, 95));
    let spans = spans_of(&drained, Part::After(held_up.status.as_ref()), ALL);
    assert_eq!((names(&spans), &spans[0].status), (vec!["box 5 drain"], &Status::Unset));
    let events: Vec<_> = spans[0].events.iter().map(|event| (&*event.name, event.timestamp)).collect();
    assert_eq!(events, [("wait", time(70))]);
    assert_eq!(value(&spans[0], "spot_guard.reason").as_deref(), Some("PodDoesNotFit"));
}

#[test]
fn an_attempt_is_counted_by_box_and_outcome() {
    let mut record = rough();
    status(&mut record).steps.insert(3, step(FlowBox::ScaleUp, Outcome::Requested, 40));
    let spans = whole(&record);
    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "box 2 scale up")
        .map(|span| value(span, "spot_guard.attempt").unwrap())
        .collect();
    assert_eq!(attempts, ["1", "2"]);
    let again: Vec<_> = spans.iter().filter(|span| !span.events.is_empty()).collect();
    assert_eq!(again.len(), 1, "a failure is no retry, and neither is what is done once");
    let events: Vec<_> = again[0].events.iter().map(|event| (&*event.name, event.timestamp)).collect();
    assert_eq!(events, [("retry", time(10))]);
    assert_eq!(value(again[0], "spot_guard.attempt").as_deref(), Some("2"));
}

#[test]
fn a_failure_or_a_fallback_is_told_from_its_beginning_whatever_the_share_is() {
    assert_eq!(one_by_one(&smooth(), NONE_OF_THE_SHARE), []);
    let all = whole(&rough());
    let expected = names(&all);
    assert_eq!(names(&one_by_one(&rough(), NONE_OF_THE_SHARE)), expected, "the earlier steps come late");
    let mut fallback = smooth();
    status(&mut fallback).steps[2] = step(FlowBox::Fallback, Outcome::InService, 61);
    let told = one_by_one(&fallback, NONE_OF_THE_SHARE);
    assert_eq!(names(&told)[..3], ["box 1 notice", "box 2 scale up", "box 3.2 fallback"]);
    // The leader was killed just as it decided that, and the one after it tells it once more.
    let again = spans_of(&rough(), Part::Since(at(5)), NONE_OF_THE_SHARE);
    assert_eq!(names(&again), expected);
    assert_eq!(spans_of(&rough(), Part::Since(at(61)), NONE_OF_THE_SHARE).len(), 4, "decided long ago");
    assert_eq!(one_by_one(&rough(), Sampling::Off), []);
}

#[test]
fn the_share_is_what_the_variables_say() {
    let of = |sampler: Option<&'static str>, argument: Option<&'static str>| {
        let set = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        Sampling::of(move |name| set.iter().find(|(key, _)| *key == name)?.1.map(str::to_owned))
    };
    assert_eq!(of(None, None), Sampling::Ratio(1.0));
    assert_eq!(of(None, Some("0.1")), Sampling::Ratio(1.0), "an argument of no sampler");
    assert_eq!(of(Some("always_off"), None), Sampling::Off);
    assert_eq!(of(Some("traceidratio"), Some("0.25")), Sampling::Ratio(0.25));
    assert_eq!(of(Some("parentbased_traceidratio"), Some("a lot")), Sampling::Ratio(1.0));
    let low = |low: u64| TraceId::from(u128::from(low));
    assert!(Sampling::Ratio(0.5).keeps(low(1)) && !Sampling::Ratio(0.5).keeps(low(u64::MAX)));
    assert!(!Sampling::Ratio(f64::NAN).keeps(low(1)) && !Sampling::Ratio(-1.0).keeps(low(1)));
    assert!(Sampling::Ratio(1.0).keeps(low(u64::MAX)));
}

#[test]
fn a_record_that_begins_anew_has_a_trace_of_its_own() {
    let cancelled = smooth();
    let mut anew = cancelled.clone();
    status(&mut anew).started_at = Some(at(500));
    status(&mut anew).finished_at = None;
    status(&mut anew).steps.push(step(FlowBox::Notice, Outcome::NoticeReceived, 500));
    let spans = spans_of(&anew, Part::After(cancelled.status.as_ref()), ALL);
    assert_eq!(names(&spans), ["box 1 notice"]);
    assert_eq!(names(&whole(&anew)), ["box 1 notice"], "the former life is none of its own");
    assert_ne!(trace_id(&anew), trace_id(&cancelled));
    assert_ne!(super::root(&anew).span_id(), super::root(&cancelled).span_id());
}
