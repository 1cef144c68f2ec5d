use super::*;
use crate::flow::{Event, Wish};
use crate::ids::{NodeName, ReplacementName};
use crate::record::{Capacity, CapacityState, FallbackState, GroupKind, OldDrain, OpenFallback};
use crate::testing::leaked;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn ask(action: ActionKind) -> RequestedAction {
    RequestedAction {
        name: "t-1".to_owned(),
        action,
        pool: None,
        node: None,
        replacement: None,
        by: Some("ann".to_owned()),
        reason: Some("maintenance".to_owned()),
        order: (Some(now()), 7),
        stage: ActionStage::Pending,
    }
}

fn of_node(action: ActionKind, node: &str) -> RequestedAction {
    RequestedAction { node: Some(node.into()), ..ask(action) }
}

fn of_replacement(action: ActionKind, name: &str) -> RequestedAction {
    RequestedAction { replacement: Some(name.into()), ..ask(action) }
}

fn of_pool(action: ActionKind, pool: &str) -> RequestedAction {
    RequestedAction { pool: Some(pool.into()), ..ask(action) }
}

fn subject() -> Subject {
    Subject {
        name: "i-1".into(),
        node: "n-1".into(),
        instance_id: "i-1".into(),
        in_pool: true,
        adopted: false,
    }
}

/// A story that advice began, in this phase.
fn status(phase: Phase) -> ReplacementStatus {
    let advice = NoticeKind::RebalanceRecommendation;
    let mut status = replacement::open(&subject(), advice, None, None, None, now());
    match phase {
        Phase::ScalingUp => {
            status.capacity = CapacityState::SpotRequested { since: now() }.into();
        }
        Phase::Draining => status.old_node = OldNodeState::Draining(OldDrain::begun(now())).into(),
        Phase::Terminating => {
            let instance = instance(GroupKind::Spot);
            status.old_node = OldNodeState::Terminating(OldDrain::begun(now())).into();
            status.capacity = CapacityState::Taken { instance, on_demand_requested: false }.into();
        }
        Phase::Cancelling | Phase::Cancelled => status.old_node = OldNodeState::Retained {}.into(),
        _ => {}
    }
    status.finished_at = phase.is_finished().then(now);
    status.settle_phase(now());
    status
}

fn instance(group: GroupKind) -> Capacity {
    Capacity { group, instance_id: "i-9".into(), node_name: "n-9".into(), ready_at: now() }
}

/// An on-demand node stands in for the old one, which is gone.
fn fallback() -> ReplacementStatus {
    let instance = instance(GroupKind::OnDemand);
    ReplacementStatus {
        old_node: OldNodeState::Gone {}.into(),
        capacity: CapacityState::Taken { instance, on_demand_requested: true }.into(),
        fallback: FallbackState::OnFallback(OpenFallback::default()).into(),
        ..status(Phase::Received)
    }
}

/// What comes of it in a pool `p` with the Spot nodes n-1 and n-2, where `i-1` is the story of n-1.
fn decided(
    ask: &RequestedAction,
    story: Option<&ReplacementStatus>,
    spot_actions: &[RequestedAction],
) -> Decision {
    let story = story.map(|status| StoredReplacement {
        name: "i-1".into(),
        node: leaked("n-1"),
        instance_id: leaked("i-1"),
        pool: Some(leaked("p")),
        status,
    });
    let stories: Vec<StoredReplacement<'_>> = story.into_iter().collect();
    let spot = |id: &str| Membership::Spot { pool: "p".into(), instance_id: id.into() };
    let place = |node: &NodeName| match node.as_str() {
        "n-1" => spot("i-1"),
        "n-2" => spot("i-2"),
        "n-9" => Membership::OnDemand { pool: "p".into() },
        "new" => Membership::Unread,
        "other" => Membership::Nowhere,
        "karpenter" => Membership::Neighbour(Neighbour::Karpenter),
        _ => Membership::Missing,
    };
    decide(
        ask,
        &ActionFacts {
            stories: &stories,
            spot_actions,
            is_pool: &|name| name == "p",
            place: &place,
            otherwise_paused: &|scope| scope.map(|_| Pause::Pool),
        },
    )
}

/// What a refused SpotAction is told.
#[track_caller]
fn refusal(decision: Decision) -> ActionAnswer {
    match decision {
        Decision::Tell(ActionUpdate { accepted: Some((false, reason)), complete: None, answer, .. }) => {
            assert_eq!(reason, answer.reason());
            answer
        }
        other => panic!("this should be refused: {other:?}"),
    }
}

/// What a SpotAction is told that is accepted and complete, and its replacements.
#[track_caller]
fn acceptance(decision: Decision) -> (ActionAnswer, Vec<ReplacementName>) {
    match decision {
        Decision::Tell(ActionUpdate {
            accepted: Some((true, reason)),
            complete: Some((true, _)),
            answer,
            replacements,
        }) => {
            assert_eq!(reason, answer.reason());
            (answer, replacements)
        }
        other => panic!("this should be accepted: {other:?}"),
    }
}

#[test]
fn what_cannot_be_followed_is_refused_with_what_is_wrong() {
    use ActionKind::{Cancel, Pause, Replace, Resume, Return};
    let deadline = ReplacementStatus { deadline: Some(now()), ..status(Phase::Draining) };
    let ending = status(Phase::Terminating);
    let gone = ReplacementStatus { old_node: OldNodeState::Gone {}.into(), ..status(Phase::Terminating) };
    let released = status(Phase::Cancelling);
    let over = status(Phase::Completed);
    let node = |node: &str| node.to_owned();
    let id = |id: &str| id.to_owned();
    let bad = |action, needs| ActionAnswer::BadTarget { action, needs };
    let no_pool = || ActionAnswer::NoSuchPool { pool: "q".into() };
    let no_replacement = || ActionAnswer::NoSuchReplacement { replacement: id("i-7").into() };
    let (n1, i1) = (|| node("n-1"), || id("i-1"));
    let rows = [
        (of_node(Replace, "nobody"), None, ActionAnswer::NoSuchNode { node: node("nobody").into() }),
        (of_node(Replace, "other"), None, ActionAnswer::NotInPool { node: node("other").into() }),
        (
            of_node(Replace, "karpenter"),
            None,
            ActionAnswer::LeftToNeighbour { node: node("karpenter").into(), neighbour: Neighbour::Karpenter },
        ),
        (
            of_node(Replace, "n-9"),
            None,
            ActionAnswer::OnDemandInstance { node: node("n-9").into(), pool: "p".into() },
        ),
        (
            of_node(Replace, "n-1"),
            Some(&released),
            ActionAnswer::BeingCancelled { node: n1().into(), replacement: i1().into() },
        ),
        (
            of_node(Replace, "n-1"),
            Some(&over),
            ActionAnswer::ReplacedAlready { node: n1().into(), replacement: i1().into() },
        ),
        (ask(Replace), None, bad(Replace, "spec.node")),
        (of_replacement(Return, "i-7"), None, no_replacement()),
        (
            of_replacement(Return, "i-1"),
            Some(&ending),
            ActionAnswer::NoFallback { replacement: i1().into(), phase: Phase::Terminating },
        ),
        (of_node(Return, "n-1"), Some(&ending), ActionAnswer::NoFallbackOfNode { node: n1().into() }),
        (of_pool(Return, "q"), None, no_pool()),
        (ask(Return), None, bad(Return, "spec.replacement, spec.node or spec.pool")),
        (of_replacement(Cancel, "i-7"), None, no_replacement()),
        (
            of_node(Cancel, "n-2"),
            Some(&ending),
            ActionAnswer::NoReplacementOfNode { node: node("n-2").into() },
        ),
        (
            of_node(Cancel, "n-1"),
            Some(&deadline),
            ActionAnswer::DeadlinePresses {
                replacement: i1().into(),
                instance_id: i1().into(),
                deadline: now(),
            },
        ),
        (
            of_node(Cancel, "n-1"),
            Some(&ending),
            ActionAnswer::OldInstanceTerminating { instance_id: i1().into() },
        ),
        (of_node(Cancel, "n-1"), Some(&gone), ActionAnswer::OldInstanceGone { instance_id: i1().into() }),
        (
            of_node(Cancel, "n-1"),
            Some(&fallback()),
            ActionAnswer::FallbackStandsIn { replacement: i1().into(), instance_id: i1().into() },
        ),
        (of_node(Cancel, "n-1"), Some(&over), ActionAnswer::ReplacementOver { replacement: i1().into() }),
        (ask(Cancel), None, bad(Cancel, "spec.replacement or spec.node")),
        (of_pool(Pause, "q"), None, no_pool()),
        (of_pool(Resume, "q"), None, no_pool()),
    ];
    for (ask, story, answer) in rows {
        assert_eq!(refusal(decided(&ask, story, &[])), answer, "{ask:?}");
    }
}

#[test]
fn the_record_takes_it_in_before_it_is_told() {
    use ActionKind::{Cancel, Replace, Return};
    let rows = [
        (of_node(Replace, "n-1"), status(Phase::Received)),
        (of_node(Replace, "n-1"), status(Phase::Draining)),
        (of_node(Replace, "n-1"), status(Phase::Cancelled)),
        (of_replacement(Return, "i-1"), fallback()),
        (of_node(Return, "n-1"), fallback()),
        (of_node(Return, "n-9"), fallback()),
        (of_pool(Return, "p"), fallback()),
        (of_node(Cancel, "n-1"), status(Phase::Received)),
        (of_replacement(Cancel, "i-1"), status(Phase::Draining)),
    ];
    for (ask, before) in rows {
        assert_eq!(decided(&ask, Some(&before), &[]), Decision::Record(vec!["i-1".into()]), "{ask:?}");
        let mut after = before.clone();
        if before.phase() == Phase::Cancelled {
            after = replacement::reopen(&before, open(&ask, &subject(), None, None, now()));
        } else {
            take_in(&ask, &subject(), &mut after, now());
        }
        let message = after.steps.last().map(|step| step.message.clone()).unwrap_or_default();
        let wish = match ask.action {
            Return => Wish::Return,
            Cancel => Wish::Cancellation,
            _ => Wish::Replacement,
        };
        let action_followed = Event::ActionFollowed {
            wish,
            spot_action: "t-1".to_owned(),
            by: Some("ann".to_owned()),
            reason: Some("maintenance".to_owned()),
        };
        assert_eq!(message, action_followed.to_string(), "{ask:?}");
        let (answer, replacements) = acceptance(decided(&ask, Some(&after), &[]));
        assert_eq!((answer.reason(), replacements), (ActionReason::Accepted, vec!["i-1".into()]), "{ask:?}");
        let once = after.clone();
        take_in(&ask, &subject(), &mut after, now());
        assert_eq!(after, once, "{ask:?}: once is enough");
        // However quickly the story ends, the SpotAction has led to it.
        after.finished_at = Some(now());
        acceptance(decided(&ask, Some(&after), &[]));
    }
}

#[test]
fn a_node_without_a_story_gets_one_when_its_group_is_known() {
    let begin = Decision::Begin { pool: "p".into(), instance_id: "i-2".into() };
    assert_eq!(decided(&of_node(ActionKind::Replace, "n-2"), None, &[]), begin);
    assert_eq!(decided(&of_node(ActionKind::Replace, "new"), None, &[]), Decision::Wait);
    let status = open(&of_node(ActionKind::Replace, "n-1"), &subject(), None, None, now());
    assert_eq!((status.notice, status.deadline), (Some(NoticeKind::Manual), None));
}

#[test]
fn what_is_so_already_is_accepted() {
    let rows = [
        (
            of_pool(ActionKind::Return, "p"),
            status(Phase::Draining),
            ActionAnswer::NoFallbackInPool { pool: "p".into() },
        ),
        (
            of_node(ActionKind::Cancel, "n-1"),
            ReplacementStatus { old_node: OldNodeState::Retained {}.into(), ..status(Phase::Cancelled) },
            ActionAnswer::CancelledAlready { replacement: "i-1".into() },
        ),
    ];
    for (ask, story, expected) in rows {
        let (answer, _) = acceptance(decided(&ask, Some(&story), &[]));
        assert_eq!((answer.reason(), answer), (ActionReason::NothingToDo, expected));
    }
}

#[test]
fn what_a_record_can_no_longer_follow_is_not_taken_in() {
    let late = [
        (ActionKind::Cancel, ReplacementStatus { deadline: Some(now()), ..status(Phase::Draining) }),
        (
            ActionKind::Cancel,
            ReplacementStatus {
                old_node: OldNodeState::Terminating(OldDrain::begun(now())).into(),
                ..status(Phase::Terminating)
            },
        ),
        (ActionKind::Return, status(Phase::Draining)),
        (ActionKind::Replace, status(Phase::Completed)),
    ];
    for (action, before) in late {
        let mut after = before.clone();
        take_in(&ask(action), &subject(), &mut after, now());
        assert_eq!(after, before, "{action}");
    }
}

#[test]
fn what_waits_for_a_limit_of_advice_goes_on_as_what_a_person_asked_for() {
    for (phase, kind) in
        [(Phase::Received, NoticeKind::Manual), (Phase::ScalingUp, NoticeKind::RebalanceRecommendation)]
    {
        let mut story = status(phase);
        take_in(&ask(ActionKind::Replace), &subject(), &mut story, now());
        assert_eq!(story.notice, Some(kind), "{phase:?}");
    }
}

#[test]
fn a_return_is_tried_at_once_and_fails_with_backoff() {
    let later = now() + Duration::from_secs(300);
    let mut story = fallback();
    let waits =
        OpenFallback { not_before: Some(later), next_probe_at: Some(later), ..OpenFallback::default() };
    story.fallback = FallbackState::OnFallback(waits).into();
    take_in(&ask(ActionKind::Return), &subject(), &mut story, now());
    let open = story.fallback.open().expect("an open fallback");
    assert_eq!(open.requested_at, Some(now()));
    assert_eq!((open.not_before, open.next_probe_at), (None, Some(now())));
}

#[test]
fn pauses_hold_until_a_resume_for_the_same_that_came_later() {
    let pause = |name: &str, pool: Option<&str>, second: i64, version, stage| RequestedAction {
        name: name.to_owned(),
        pool: pool.map(Into::into),
        order: (Some(now() + jiff::SignedDuration::from_secs(second)), version),
        stage,
        ..ask(ActionKind::Pause)
    };
    let spot_actions = [
        pause("earlier", Some("p"), -5, 90, ActionStage::Accepted),
        pause("not-seen", Some("p"), -5, 2, ActionStage::Pending),
        pause("same-second", Some("p"), 0, 90, ActionStage::Accepted),
        pause("same-second-before", Some("p"), 0, 6, ActionStage::Pending),
        pause("same-second-after", Some("p"), 0, 8, ActionStage::Pending),
        pause("later", Some("p"), 5, 9, ActionStage::Accepted),
        pause("over", Some("p"), -5, 90, ActionStage::Over),
        pause("everything", None, -5, 90, ActionStage::Accepted),
    ];
    let resume = of_pool(ActionKind::Resume, "p");
    let ended = ["earlier", "not-seen", "same-second", "same-second-before"];
    let Decision::Tell(first) = decided(&resume, None, &spot_actions) else { panic!("it is told first") };
    assert_eq!((first.accepted, first.complete), (Some((true, ActionReason::Accepted)), None));
    let still = Some(crate::reason::Pause::Pool);
    assert_eq!(
        first.answer,
        ActionAnswer::Ends { pauses: ended.map(str::to_owned).into(), still: still.clone() }
    );
    let accepted = RequestedAction { stage: ActionStage::Accepted, ..resume };
    let names = ended.map(str::to_owned).into();
    assert_eq!(decided(&accepted, None, &spot_actions), Decision::EndPauses(names));
    let Decision::Tell(last) = decided(&accepted, None, &spot_actions[4..]) else { panic!("it is complete") };
    assert_eq!(last.complete, Some((true, ActionReason::Resumed)));

    let all = RequestedAction { stage: ActionStage::Accepted, ..ask(ActionKind::Resume) };
    assert_eq!(decided(&all, None, &spot_actions), Decision::EndPauses(vec!["everything".to_owned()]));
    let (answer, _) = acceptance(decided(&of_pool(ActionKind::Resume, "p"), None, &[]));
    assert_eq!(answer, ActionAnswer::NotPaused { pool: Some("p".into()), still });
}

#[test]
fn a_pause_is_accepted_and_complete_only_when_it_is_over() {
    let pause = of_pool(ActionKind::Pause, "p");
    let Decision::Tell(told) = decided(&pause, None, &[]) else { panic!("it is told") };
    assert_eq!(told.answer, ActionAnswer::Paused { pool: Some("p".into()) });
    let mut conditions = Vec::new();
    told.tell(&mut conditions, now());
    assert_eq!(ActionStage::of(&conditions), ActionStage::Accepted);
    assert_eq!(
        decided(&RequestedAction { stage: ActionStage::Accepted, ..pause.clone() }, None, &[]),
        Decision::Wait
    );
    let ended = ActionUpdate::ended_by("t-1".to_owned(), Some("ann".to_owned()));
    assert_eq!(
        ended.answer,
        ActionAnswer::EndedBy { spot_action: "t-1".to_owned(), by: Some("ann".to_owned()) }
    );
    ended.tell(&mut conditions, now());
    assert_eq!(ActionStage::of(&conditions), ActionStage::Over);
    let messages: Vec<&String> = conditions.iter().map(|held| &held.message).collect();
    assert_eq!(messages, [&told.answer.to_string(), &ended.answer.to_string()]);
    assert!(
        [ActionStage::Pending, ActionStage::Accepted]
            .map(|stage| RequestedAction { stage, ..pause.clone() }.pauses())[1]
    );
    assert!(!RequestedAction { stage: ActionStage::Over, ..pause }.pauses());
}

#[test]
fn what_is_over_for_a_day_is_removed_and_a_pause_in_force_never() {
    let day = Duration::from_secs(24 * 3600);
    let told = |decision: Decision| {
        let Decision::Tell(verdict) = decision else { panic!("a verdict") };
        let mut conditions = Vec::new();
        verdict.tell(&mut conditions, now());
        conditions
    };
    let refused = told(decided(&of_node(ActionKind::Replace, "nobody"), None, &[]));
    let complete = told(decided(&of_pool(ActionKind::Return, "p"), None, &[]));
    let in_force = told(decided(&of_pool(ActionKind::Pause, "p"), None, &[]));
    for (conditions, removable) in [(refused, true), (complete, true), (in_force, false), (Vec::new(), false)]
    {
        assert!(!is_removable(&conditions, day, now() + day - Duration::from_secs(1)));
        assert_eq!(is_removable(&conditions, day, now() + day), removable, "{conditions:?}");
        assert!(!is_removable(&conditions, Duration::ZERO, now() + Duration::from_secs(599)), "a replay");
    }
}
