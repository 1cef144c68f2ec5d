use super::rules::CORDON;
use super::*;
use crate::cluster::{
    DisruptionBudget, Effect, LabelSelector, Node, Operator, Owner, OwnerKind, Parts, Pod, PodPhase,
    Requirement, Snapshot, Toleration, TolerationOperator, UnhealthyPods,
};
use crate::freshness::{Freshness, StaleWatch, Step, WatchedKind};
use crate::placement::PodName;
use crate::policy::Policy;
use crate::reason::{Blocker, Reason, ReasonCode};
use crate::testing::{app, node, parts, pod, spec};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

fn budget(app_name: &str, allowed: i64) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: app_name.into(),
        selector: app(app_name),
        disruptions_allowed: allowed,
        observed: true,
        current_healthy: 2 + allowed,
        desired_healthy: 2,
        expected_pods: 3,
        unhealthy_pods: UnhealthyPods::IfHealthyBudget,
    }
}

/// Those of the budgets that cover the pod.
fn covering<'b, B: std::borrow::Borrow<DisruptionBudget>>(
    budgets: &'b [B],
    pod: &Pod,
) -> Vec<&'b DisruptionBudget> {
    budgets.iter().map(std::borrow::Borrow::borrow).filter(|budget| budget.covers(pod)).collect()
}

fn owned(kind: OwnerKind) -> Pod {
    Pod { owner: Owner { kind, name: "x".into() }, ..pod("web-1", "n", 1) }
}

const STRICT: DrainPolicy = DrainPolicy {
    spare_marked: false,
    evict_unmanaged: false,
    evict_with_empty_dir: false,
    delete_at_deadline: false,
};
const LAX: DrainPolicy = DrainPolicy {
    spare_marked: false,
    evict_unmanaged: true,
    evict_with_empty_dir: true,
    delete_at_deadline: true,
};

#[track_caller]
fn classified(pod: &Pod, policy: DrainPolicy, on_return: PodFate, on_replace: PodFate) {
    let spare_marked = |purpose| DrainPolicy::default_for(purpose).spare_marked;
    let of = |purpose| DrainPolicy { spare_marked: spare_marked(purpose), ..policy };
    assert_eq!(classify(pod, &of(Purpose::Return), Timestamp::UNIX_EPOCH), on_return, "on return");
    assert_eq!(classify(pod, &of(Purpose::Replace), Timestamp::UNIX_EPOCH), on_replace, "on replace");
}

#[test]
fn pods_are_skipped_blocked_or_evicted() {
    use BlockedReason::{DoNotDisrupt, EmptyDir, NotSafeToEvict, Unmanaged};
    use PodFate::{Blocked, Evictable, Skip};
    use SkipReason::{AlreadyTerminating, DaemonSet, Finished, Mirror};
    let web = || pod("web-1", "n", 1);
    classified(&web(), STRICT, Evictable, Evictable);
    classified(&owned(OwnerKind::Mirror), LAX, Skip(Mirror), Skip(Mirror));
    classified(&owned(OwnerKind::DaemonSet), LAX, Skip(DaemonSet), Skip(DaemonSet));
    let failed = Pod { phase: PodPhase::Failed, ..owned(OwnerKind::None) };
    classified(&failed, STRICT, Skip(Finished), Skip(Finished));
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), safe_to_evict: Some(false), ..web() };
    classified(&ending, STRICT, Skip(AlreadyTerminating), Skip(AlreadyTerminating));
    let fixed = Pod { safe_to_evict: Some(false), ..web() };
    classified(&fixed, LAX, Blocked(NotSafeToEvict), Evictable);
    let calm = Pod { do_not_disrupt: Some(Timestamp::MAX), ..web() };
    classified(&calm, LAX, Blocked(DoNotDisrupt), Evictable);
    classified(&owned(OwnerKind::None), STRICT, Blocked(Unmanaged), Blocked(Unmanaged));
    classified(&owned(OwnerKind::None), LAX, Evictable, Evictable);
    let scratch = spec(web(), |s| s.uses_empty_dir = true);
    classified(&scratch, STRICT, Blocked(EmptyDir), Blocked(EmptyDir));
    classified(&scratch, LAX, Evictable, Evictable);
}

#[test]
fn a_wish_not_to_be_disrupted_for_a_while_ends() {
    let calm = Pod { do_not_disrupt: Some(at(600)), ..pod("web-1", "n", 1) };
    let policy = DrainPolicy { spare_marked: true, ..LAX };
    assert_eq!(classify(&calm, &policy, at(599)), PodFate::Blocked(BlockedReason::DoNotDisrupt));
    assert_eq!(classify(&calm, &policy, at(600)), PodFate::Evictable);
}

#[test]
fn a_pod_holds_its_node_until_it_has_ended_or_was_to_have_ended() {
    let now = at(1_000);
    assert!(holds_its_node(&pod("web-1", "n", 1), now));
    assert!(!holds_its_node(&owned(OwnerKind::DaemonSet), now));
    let ending = |due: i64| Pod { deletion: Some(at(due)), ..pod("web-1", "n", 1) };
    assert!(holds_its_node(&ending(1_020), now), "it has its grace period");
    assert!(holds_its_node(&ending(990), now), "its kubelet may be late");
    assert!(!holds_its_node(&ending(970), now), "nobody ends it any more");
}

#[test]
fn by_default_only_a_return_spares_pods_that_nobody_makes_anew() {
    assert!(!DrainPolicy::default_for(Purpose::Return).evict_unmanaged);
    assert!(DrainPolicy::default_for(Purpose::Replace).evict_unmanaged);
}

#[test]
fn the_answer_of_the_eviction_api_is_foretold() {
    let open = budget("web", 1);
    let shut = budget("web", 0);
    let stale = DisruptionBudget { observed: false, ..open.clone() };
    let second = DisruptionBudget { name: "also".into(), ..open.clone() };
    let web = || pod("web-1", "n", 1);
    let view = |pod: &Pod, budgets: &[&DisruptionBudget]| match budget_view(pod, covering(budgets, pod)) {
        BudgetView::Free => "free",
        BudgetView::Spends(_) => "spends",
        BudgetView::Exhausted(_) => "exhausted",
        BudgetView::NotObserved(_) => "not observed",
        BudgetView::Several(_) => "several",
    };
    assert_eq!(view(&web(), &[]), "free");
    assert_eq!(view(&web(), &[&open]), "spends");
    assert_eq!(view(&web(), &[&shut]), "exhausted");
    assert_eq!(view(&web(), &[&stale]), "not observed");
    assert_eq!(view(&web(), &[&open, &second]), "several");
    assert_eq!(view(&pod("db-1", "n", 1), &[&shut]), "free");
    let elsewhere = Pod { namespace: "other".into(), ..web() };
    assert_eq!(view(&elsewhere, &[&shut]), "free");
    let pending = Pod { phase: PodPhase::Pending, ready: false, ..web() };
    assert_eq!(view(&pending, &[&shut, &second]), "free", "a pending pod asks no budget");
}

#[test]
fn a_pod_that_is_not_ready_goes_if_its_budget_says_so() {
    let sick = Pod { ready: false, ..pod("web-1", "n", 1) };
    let with = |current, policy| {
        let budget =
            DisruptionBudget { current_healthy: current, unhealthy_pods: policy, ..budget("web", 0) };
        matches!(budget_view(&sick, vec![&budget]), BudgetView::Free)
    };
    assert!(with(2, UnhealthyPods::IfHealthyBudget));
    assert!(!with(1, UnhealthyPods::IfHealthyBudget), "a broken application holds its pods");
    assert!(with(1, UnhealthyPods::AlwaysAllow));
}

#[test]
fn budgets_take_turns_and_high_priority_goes_last() {
    let names = ["web-1", "web-2", "web-3", "db-1", "db-2", "free-1"];
    let mut pods: Vec<Pod> = names.iter().map(|n| pod(n, "n", 1)).collect();
    pods.push(spec(pod("vip-1", "n", 1), |s| s.priority = 1000));
    let refs: Vec<&Pod> = pods.iter().collect();
    let budgets = [budget("web", 1), budget("db", 1)];
    let order = eviction_order(&refs, &|pod| covering(&budgets, pod));
    let order: Vec<&str> = order.into_iter().map(|i| &*refs[i].name).collect();
    assert_eq!(order, ["db-1", "free-1", "web-1", "db-2", "web-2", "web-3", "vip-1"]);
}

#[test]
fn evictions_go_out_as_far_as_budgets_and_parallelism_allow() {
    let pods: Vec<Pod> = ["web-1", "web-2", "db-1", "free-1"].iter().map(|n| pod(n, "n", 1)).collect();
    let refs: Vec<&Pod> = pods.iter().collect();
    let budgets = [budget("web", 1), budget("db", 0)];
    let (web, db) = (&budgets[0], &budgets[1]);
    let all = turns(&refs, &|pod| covering(&budgets, pod), &[], 10);
    assert_eq!(all, [Turn::Now, Turn::AfterBudget(web), Turn::AfterBudget(db), Turn::Now]);
    let others: Vec<Pod> = (0..9).map(|number| pod(&format!("other-{number}"), "n", 1)).collect();
    let others: Vec<&Pod> = others.iter().collect();
    let one = turns(&refs, &|pod| covering(&budgets, pod), &others, 10);
    assert_eq!(one, [Turn::Now, Turn::AfterBudget(web), Turn::AfterBudget(db), Turn::AfterOthers]);
    let spent = turns(&refs[1..2], &|pod| covering(&budgets, pod), &refs[..1], 10);
    assert_eq!(spent, [Turn::AfterBudget(web)], "what is under way has its part of the budget");
    let twice = [budget("web", 1), DisruptionBudget { name: "also".into(), ..budget("web", 1) }];
    assert!(matches!(turns(&refs[..1], &|pod| covering(&twice, pod), &[], 10)[..], [Turn::Never(_)]));
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[test]
fn each_answer_has_its_next_step() {
    use EvictionAnswer::{
        BudgetExhausted, Conflict, Evicted, Failed, Forbidden, Gone, RateLimited, SeveralBudgets,
    };
    let web = pod("web-1", "n", 1);
    let said = |status| Failed { status, message: "no".into() };
    for (answer, expected) in [
        (Evicted, NextStep::Wait),
        (Gone, NextStep::Wait),
        (SeveralBudgets, NextStep::GiveUp),
        (Forbidden { message: "no".into() }, NextStep::GiveUp),
        (said(422), NextStep::GiveUp),
    ] {
        assert_eq!(next_step(&answer, 0, &web), expected, "{answer:?}");
    }
    // Seconds, of which a fifth may come on top.
    let secs = |seconds| Some(Duration::from_secs(seconds));
    for (answer, attempts, on_budget, at_least) in [
        (BudgetExhausted { retry_after: None }, 0, true, 0.5),
        (BudgetExhausted { retry_after: secs(10) }, 1, true, 1.0),
        (RateLimited { retry_after: secs(7) }, 0, false, 7.0),
        (RateLimited { retry_after: None }, 2, false, 2.0),
        (Conflict, 0, false, 0.5),
        (said(503), 1, false, 1.0),
        (said(0), 60, false, 15.0),
    ] {
        let (wait, waits_for_budget) = match next_step(&answer, attempts, &web) {
            NextStep::RetryOnBudget(wait) => (wait, true),
            NextStep::Retry(wait) => (wait, false),
            other => panic!("{answer:?}: {other:?}"),
        };
        assert_eq!(waits_for_budget, on_budget, "{answer:?}");
        let range = at_least..=at_least * 1.2;
        assert!(range.contains(&wait.as_secs_f64()), "{answer:?}: {wait:?} is not in {range:?}");
    }
}

#[test]
fn at_deadline_minus_grace_period_a_pod_is_overdue() {
    let web = pod("web-1", "n", 1);
    let deadline = DrainClock::Deadline(at(120));
    let grace = |now| overdue(&web, deadline, at(now)).map(|deletion| deletion.grace_period_seconds);
    for (now, expected) in [(0, None), (89, None), (90, Some(30)), (110, Some(10)), (130, Some(1))] {
        assert_eq!(grace(now), expected, "after {now} s");
    }
    let ending = Pod { deletion: Some(at(100)), ..web.clone() };
    assert_eq!(overdue(&ending, deadline, at(119)), None, "not twice");
    assert_eq!(overdue(&web, DrainClock::Patient, at(119)), None, "never without a deadline");
}

#[test]
fn a_deadline_spares_nothing_and_settings_say_what_else_is_spared() {
    let strict = Policy {
        evict_unmanaged: false,
        evict_empty_dir: false,
        return_unmanaged: false,
        return_empty_dir: false,
        ..Policy::default()
    };
    let lax = Policy { return_unmanaged: true, ..Policy::default() };
    for (policy, purpose, deadline, unmanaged, empty_dir) in [
        (&strict, Purpose::Replace, false, false, false),
        (&strict, Purpose::Replace, true, true, true),
        (&strict, Purpose::Return, false, false, false),
        (&Policy::default(), Purpose::Replace, false, true, true),
        (&Policy::default(), Purpose::Return, false, false, true),
        (&lax, Purpose::Return, false, true, true),
    ] {
        let found = DrainPolicy::of(policy, purpose, deadline);
        assert_eq!(
            (found.evict_unmanaged, found.evict_with_empty_dir),
            (unmanaged, empty_dir),
            "{purpose:?}"
        );
    }
}

/// A drain of node `n` that began at 0 s, in a cluster with another node; the test plays the API.
struct Stage {
    now: i64,
    pods: Vec<Pod>,
    budgets: Vec<DisruptionBudget>,
    command: DrainCommand,
    policy: Policy,
    drain: Option<Drain>,
    freshness: Freshness,
    /// What the API server lists on the node each time; `None`: it is not asked.
    listed: Option<Result<Vec<Listed>, String>>,
    /// How long ago it did, in seconds.
    listed_ago: u64,
    /// Whether the API server refuses the marks of the node.
    marks_refused: bool,
}

impl Stage {
    fn of(names: &[&str]) -> Self {
        let command = DrainCommand {
            replacement: "r".into(),
            node: "n".into(),
            instance_id: "i-n".into(),
            node_uid: None,
            purpose: Purpose::Replace,
            deadline: None,
            is_announced: true,
            is_held: false,
            since: Some(at(0)),
        };
        let made = |name: &&str| Pod { created: Some(at(-3600)), ..pod(name, "n", 1) };
        let pods = names.iter().map(made).collect();
        Self {
            now: 0,
            pods,
            budgets: vec![],
            command,
            policy: Policy { wait_before_termination_seconds: 0, ..Policy::default() },
            drain: None,
            freshness: Freshness::default(),
            listed: Some(Ok(vec![])),
            listed_ago: 0,
            marks_refused: false,
        }
    }

    fn deadline(mut self, seconds: i64) -> Self {
        self.command.deadline = Some(at(seconds));
        self
    }

    fn returning(mut self) -> Self {
        self.command.purpose = Purpose::Return;
        self
    }

    fn moment(&self) -> Moment {
        Moment { at: at(self.now), up: Duration::from_secs(u64::try_from(self.now).unwrap()) }
    }

    fn step(&mut self) -> Vec<Order> {
        let parts =
            Parts { budgets: self.budgets.clone(), ..parts(vec![node("n"), node("m")], self.pods.clone()) };
        let (snapshot, now) = (Snapshot::new(parts), self.moment());
        let command = self.command.clone();
        let drain =
            self.drain.get_or_insert_with(|| Drain::new(command, self.policy.clone(), &snapshot, now));
        assert!(drain.renew(&self.command, self.policy.clone()));
        let up = now.up.saturating_sub(Duration::from_secs(self.listed_ago));
        let look = self.listed.clone().map(|found| Look { asked: Moment { up, ..now }, found });
        let (freshness, look) = (&self.freshness, look.as_ref());
        let (marked, unmarkable) = (!self.marks_refused, self.marks_refused);
        drain.step(&Sight { snapshot: &snapshot, freshness, marked, unmarkable, look }, now)
    }

    /// Lets time pass, and shows what is asked then, sorted: `-name` is an eviction, `!name 30` a deletion
    /// with its grace period.
    fn asks(&mut self, after: i64) -> Vec<String> {
        self.now += after;
        let mut asked: Vec<String> = self.step().iter().map(told).collect();
        asked.sort_unstable();
        asked
    }

    /// Lets the API give this answer to everything that is asked now.
    fn answer(&mut self, answer: &EvictionAnswer) -> &mut Self {
        let orders = self.step();
        assert!(!orders.is_empty(), "nothing is asked");
        let now = self.moment();
        let drain = self.drain.as_mut().unwrap();
        for order in &orders {
            drain.sent(order);
            drain.answered(order, answer, now);
        }
        self
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Pod)) -> &mut Self {
        change(self.pods.iter_mut().find(|pod| &*pod.name == name).unwrap());
        self
    }

    /// The pod goes, and its successor comes to the node.
    fn succeed(&mut self, old: &str, new: &str, node: &str, ready: bool) -> &mut Self {
        self.pods.retain(|pod| &*pod.name != old);
        let phase = if ready { PodPhase::Running } else { PodPhase::Pending };
        let uid: Arc<str> = format!("{new} at {}", self.now).into();
        self.pods.push(Pod { ready, phase, uid, created: Some(at(self.now)), ..pod(new, node, 1) });
        self
    }

    fn blocked(&mut self) -> Vec<Reason> {
        self.step();
        self.drain.as_ref().unwrap().report().blocked.clone()
    }

    fn codes(&mut self) -> Vec<ReasonCode> {
        self.blocked().iter().map(Reason::code).collect()
    }

    fn end(&mut self, after: i64) -> Option<DrainEnd> {
        self.now += after;
        self.step();
        self.drain.as_ref().unwrap().report().end.clone()
    }
}

fn named(name: &str) -> PodName {
    PodName { namespace: "default".to_owned(), name: name.to_owned() }
}

fn told(order: &Order) -> String {
    match order {
        Order::Evict(pod, None) => format!("-{}", pod.name),
        Order::Evict(pod, Some(grace)) => format!("-{} {grace}", pod.name),
        Order::Delete(pod, deletion) => format!("!{} {}", pod.name, deletion.grace_period_seconds),
    }
}

const SHUT: EvictionAnswer = EvictionAnswer::BudgetExhausted { retry_after: None };

#[test]
fn a_shut_budget_does_not_hold_up_the_pods_of_others() {
    let mut stage = Stage::of(&["web-1", "web-2", "db-1", "db-2", "free-1"]);
    stage.budgets = vec![budget("web", 0), budget("db", 1)];
    assert_eq!(stage.asks(0), ["-db-1", "-free-1"]);
    stage.answer(&EvictionAnswer::Evicted);
    assert_eq!(
        stage.asks(0),
        [""; 0],
        "what was granted has spent the budget, though the watch does not show it yet"
    );
    let shut = Reason::BudgetShut { budget: named("web"), healthy: 2, required: 2 };
    assert!(stage.blocked().contains(&shut), "{:?}", stage.blocked());
    stage.budgets[0].disruptions_allowed = 2;
    assert_eq!(stage.asks(0), ["-web-1", "-web-2"], "the moment it opens");
}

#[test]
fn after_a_refusal_the_budget_is_asked_again_as_soon_as_it_changes() {
    let mut stage = Stage::of(&["web-1"]);
    stage.budgets = vec![budget("web", 1)];
    // Somebody else was faster, and the watch does not show it yet.
    stage.answer(&SHUT);
    assert_eq!(stage.asks(0), [""; 0]);
    stage.budgets[0].disruptions_allowed = 0;
    assert_eq!(stage.asks(0), [""; 0]);
    stage.budgets[0].disruptions_allowed = 1;
    assert_eq!(stage.asks(0), ["-web-1"], "without waiting for the time of its next try");
    stage.answer(&SHUT);
    assert_eq!(stage.asks(3), ["-web-1"], "or after a while, if the event got lost");
}

#[test]
fn a_rate_limit_is_waited_for_whatever_the_budget_does() {
    let mut stage = Stage::of(&["web-1"]);
    stage.budgets = vec![budget("web", 1)];
    stage.answer(&EvictionAnswer::RateLimited { retry_after: Some(Duration::from_secs(7)) });
    stage.budgets[0].disruptions_allowed = 2;
    assert_eq!(stage.asks(6), [""; 0]);
    assert!(matches!(&stage.blocked()[..], [Reason::EvictionRefused { pod, answer }]
        if *pod == named("web-1") && matches!(answer, EvictionAnswer::RateLimited { .. })));
    assert_eq!(stage.asks(1), ["-web-1"]);
}

#[test]
fn several_budgets_are_told_as_they_are_and_end_with_one_of_them() {
    let mut stage = Stage::of(&["web-1", "free-1"]);
    stage.budgets = vec![budget("web", 1), DisruptionBudget { name: "also".into(), ..budget("web", 1) }];
    assert_eq!(stage.asks(0), ["-free-1"], "no request that would be answered with 500");
    let several = Blocker::SeveralBudgets { pod: named("web-1"), budgets: vec![named("also"), named("web")] };
    assert_eq!(stage.blocked(), [Reason::Undrainable(several)]);
    stage.budgets.pop();
    assert_eq!(stage.asks(0), ["-free-1", "-web-1"]);
    // It came between the look and the request.
    stage.pods.pop();
    stage.answer(&EvictionAnswer::SeveralBudgets);
    assert_eq!(stage.codes(), [ReasonCode::SeveralBudgets]);
    assert_eq!(stage.asks(29), [""; 0]);
    assert_eq!(stage.asks(1), ["-web-1"], "now and then");
}

#[test]
fn before_a_deadline_what_a_budget_holds_is_deleted_with_the_grace_period_that_is_left() {
    let mut stage = Stage::of(&["web-1", "db-1", "db-2"]).deadline(120);
    stage.budgets =
        vec![budget("web", 0), budget("db", 1), DisruptionBudget { name: "also".into(), ..budget("db", 1) }];
    stage.change("db-2", |pod| Arc::make_mut(&mut pod.spec).grace_period_seconds = 50);
    // The instance is ended 10 s ahead of the deadline.
    assert_eq!(stage.asks(59), [""; 0]);
    assert_eq!(stage.asks(1), ["!db-2 50"]);
    assert_eq!(stage.asks(20), ["!db-1 30", "!db-2 30", "!web-1 30"]);
    stage.answer(&EvictionAnswer::Failed { status: 0, message: "reset".into() });
    assert_eq!(stage.asks(0), [""; 0], "a deletion that fails is repeated with backoff");
    assert_eq!(stage.asks(1), ["!db-1 29", "!db-2 29", "!web-1 29"]);
    stage.answer(&EvictionAnswer::Evicted);
    assert_eq!(stage.asks(1), [""; 0]);
}

#[test]
fn a_deletion_does_not_wait_for_the_time_of_the_next_eviction() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    stage.budgets = vec![budget("web", 1)];
    assert_eq!(stage.asks(79), ["-web-1"]);
    stage.answer(&EvictionAnswer::RateLimited { retry_after: Some(Duration::from_secs(60)) });
    assert_eq!(stage.asks(1), ["!web-1 30"]);
}

#[test]
fn with_little_time_from_the_start_an_open_budget_is_spent_first() {
    let mut stage = Stage::of(&["web-1", "web-2"]).deadline(30);
    stage.budgets = vec![budget("web", 1)];
    assert_eq!(stage.asks(0), ["!web-2 20", "-web-1 20"], "and cut to what is left");
    stage.answer(&EvictionAnswer::Conflict);
    assert_eq!(stage.asks(1), ["!web-1 19", "!web-2 19"]);
}

#[test]
fn a_pool_that_allows_no_deletion_says_so_at_the_deadline() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    stage.policy.delete_at_deadline = false;
    stage.budgets = vec![budget("web", 0)];
    assert_eq!(stage.asks(79), [""; 0]);
    assert_eq!(stage.codes(), [ReasonCode::BudgetExhausted]);
    assert_eq!(stage.asks(1), [""; 0]);
    assert_eq!(stage.codes(), [ReasonCode::BudgetExhausted, ReasonCode::DeletionNotAllowed]);
    stage.policy.delete_at_deadline = true;
    assert_eq!(stage.asks(0), ["!web-1 30"], "a person has changed it meanwhile");
}

#[test]
fn no_more_than_twenty_requests_are_under_way() {
    let names: Vec<String> = (0..30).map(|number| format!("web-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for deadline in [None, Some(20)] {
        let mut stage = Stage::of(&names);
        if let Some(seconds) = deadline {
            stage = stage.deadline(seconds);
            stage.budgets = vec![budget("web", 0)];
        }
        assert_eq!(stage.step().len(), 20, "{deadline:?}");
        let orders = stage.step();
        orders.iter().take(15).for_each(|order| stage.drain.as_mut().unwrap().sent(order));
        assert_eq!(stage.step().len(), 5, "{deadline:?}");
    }
}

#[test]
fn a_drain_is_over_when_as_many_pods_are_ready_elsewhere() {
    let mut stage = Stage::of(&["web-1", "web-2"]);
    stage.pods.push(Pod { created: Some(at(-3600)), ..pod("web-3", "m", 1) });
    stage.answer(&EvictionAnswer::Evicted);
    stage.succeed("web-1", "web-4", "m", true).succeed("web-2", "web-5", "m", false);
    assert_eq!(stage.end(1), None);
    let missing = Reason::SuccessorsNotReady { controller: named("web"), ready: 2, expected: 3 };
    assert_eq!(stage.blocked(), [missing]);
    stage.change("web-5", |pod| pod.ready = true);
    assert_eq!(stage.end(0), Some(DrainEnd::Moved));
}

#[test]
fn another_process_expects_the_same_successors() {
    let mut stage = Stage::of(&["web-1", "web-2"]);
    stage.answer(&EvictionAnswer::Evicted);
    stage.now = 5;
    stage.succeed("web-1", "web-4", "m", true).succeed("web-2", "web-5", "m", false);
    stage.drain = None;
    assert_eq!(stage.end(5), None, "the node is empty, but a pod that was made meanwhile is not ready");
    stage.change("web-5", |pod| pod.ready = true);
    assert_eq!(stage.end(0), Some(DrainEnd::Moved));
}

#[test]
fn pods_that_were_broken_or_end_by_themselves_are_not_waited_for() {
    let mut stage = Stage::of(&["web-1", "job-1"]);
    stage.change("job-1", |pod| pod.owner.kind = OwnerKind::Job);
    stage.pods.push(Pod { created: Some(at(-3600)), ready: false, ..pod("web-2", "m", 1) });
    stage.answer(&EvictionAnswer::Evicted);
    stage.succeed("web-1", "web-3", "m", true).pods.retain(|pod| &*pod.name != "job-1");
    assert_eq!(stage.end(1), Some(DrainEnd::Moved));
}

#[test]
fn successors_that_do_not_get_ready_end_the_wait_for_a_return_it_is_given_up() {
    for (stage, given_up) in [(Stage::of(&["web-1"]), false), (Stage::of(&["web-1"]).returning(), true)] {
        let mut stage = stage;
        stage.answer(&EvictionAnswer::Evicted);
        stage.succeed("web-1", "web-2", "", false);
        assert_eq!(stage.end(0), None);
        assert_eq!(stage.end(299), None);
        let reasons = vec![Reason::SuccessorsNotReady { controller: named("web"), ready: 0, expected: 1 }];
        let expected = if given_up { DrainEnd::GivenUp(reasons) } else { DrainEnd::Without(reasons) };
        assert_eq!(stage.end(1), Some(expected));
    }
}

#[test]
fn successors_that_nobody_makes_are_not_waited_for_as_long() {
    let mut stage = Stage::of(&["web-1"]).returning();
    stage.answer(&EvictionAnswer::Evicted);
    stage.pods.clear();
    assert_eq!(stage.end(0), None);
    assert_eq!(stage.end(29), None);
    assert!(matches!(stage.end(1), Some(DrainEnd::Without(_))), "scaled down meanwhile");
}

#[test]
fn a_pod_that_its_finalizers_hold_is_waited_for_until_its_grace_period_is_well_over() {
    let mut stage = Stage::of(&["web-1"]);
    stage.answer(&EvictionAnswer::Evicted);
    stage.succeed("", "web-2", "m", true);
    stage.change("web-1", |pod| (pod.deletion, pod.finalizers) = (Some(at(30)), true));
    assert_eq!(stage.end(59), None);
    assert_eq!(stage.blocked(), [Reason::PodTerminating { pod: named("web-1") }]);
    let Some(DrainEnd::Without(left)) = stage.end(1) else { panic!("it goes on without it") };
    assert_eq!(left, [Reason::PodOverstayed { pod: named("web-1"), due: at(30), finalizers: true }]);
}

#[test]
fn pods_that_come_meanwhile_go_too_but_not_for_ever() {
    let mut stage = Stage::of(&["web-1"]);
    assert_eq!(stage.asks(0), ["-web-1"]);
    stage.answer(&EvictionAnswer::Evicted);
    for number in 2..5 {
        stage.now += 10;
        stage.succeed(&format!("web-{}", number - 1), &format!("web-{number}"), "n", true);
        assert_eq!(stage.asks(0), [format!("-web-{number}")]);
        stage.answer(&EvictionAnswer::Evicted);
    }
    stage.now += 10;
    stage.succeed("web-4", "web-5", "n", true);
    assert_eq!(stage.asks(0), [""; 0]);
    stage.now += 30;
    let Some(DrainEnd::Without(left)) = stage.end(0) else { panic!("it goes on without it") };
    assert!(left.contains(&Reason::PodComesBack { pod: named("web-5") }), "{left:?}");
}

#[test]
fn pods_that_come_together_have_come_back_once_and_are_waited_for_until_they_are_gone() {
    let mut stage = Stage::of(&["web-1"]);
    stage.answer(&EvictionAnswer::Evicted);
    stage.now += 10;
    stage.succeed("web-1", "web-2", "n", true);
    let came = stage.pods.last().cloned().expect("a pod");
    for name in ["web-3", "web-4", "web-5"] {
        stage.pods.push(Pod { name: name.into(), uid: format!("{name}-uid").into(), ..came.clone() });
    }
    stage.now += 1;
    assert_eq!(stage.asks(0).len(), 4);
    stage.answer(&EvictionAnswer::Evicted);
    assert_eq!(stage.end(1), None, "they are on their way");
    assert!(!stage.codes().contains(&ReasonCode::PodComesBack), "{:?}", stage.blocked());
}

#[test]
fn a_return_is_given_up_if_a_pod_comes_back_to_the_node_each_time() {
    let mut stage = Stage::of(&["web-1"]).returning();
    stage.answer(&EvictionAnswer::Evicted);
    for number in 2..5 {
        stage.now += 10;
        stage.succeed(&format!("web-{}", number - 1), &format!("web-{number}"), "n", true);
        stage.answer(&EvictionAnswer::Evicted);
    }
    stage.now += 10;
    stage.succeed("web-4", "web-5", "n", true);
    let Some(DrainEnd::GivenUp(why)) = stage.end(0) else { panic!("its node must not end: it runs there") };
    assert_eq!(why[0], Reason::PodComesBack { pod: named("web-5") });
}

/// Seeds 3147 and 3304: such pods counted as if they tolerated the taint, and were left on the node.
#[test]
fn a_pod_that_came_before_the_node_was_tainted_has_not_come_back_to_it() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    stage.marks_refused = true;
    stage.answer(&EvictionAnswer::Evicted);
    for number in 2..6 {
        stage.now += 1;
        stage.succeed(&format!("web-{}", number - 1), &format!("web-{number}"), "n", true);
        stage.answer(&EvictionAnswer::Evicted);
    }
    stage.marks_refused = false;
    stage.now += 1;
    stage.succeed("web-5", "web-6", "n", true);
    assert_eq!(stage.asks(0), ["-web-6"]);
    assert!(!stage.codes().contains(&ReasonCode::PodComesBack), "{:?}", stage.blocked());
}

#[test]
fn a_placeholder_that_finds_no_place_is_not_waited_for() {
    let mut stage = Stage::of(&["web-1", "filler-1"]).returning();
    stage.policy.placeholders_are_free = true;
    stage.change("filler-1", |pod| Arc::make_mut(&mut pod.spec).priority = -100);
    stage.answer(&EvictionAnswer::Evicted);
    stage.succeed("web-1", "web-2", "m", true).pods.retain(|pod| &*pod.name != "filler-1");
    let made = Pod { created: Some(at(1)), phase: PodPhase::Pending, ready: false, ..pod("filler-2", "", 1) };
    stage.pods.push(spec(made, |s| s.priority = -100));
    assert_eq!(stage.end(1), Some(DrainEnd::Moved));
}

#[test]
fn who_tolerates_cordon_and_taint_is_not_kept_away_by_them() {
    let exists = |key: Option<&str>, effect| Toleration {
        key: key.map(Into::into),
        operator: TolerationOperator::Exists,
        effect,
    };
    let ignores = |tolerations: Vec<Toleration>| {
        let pod = spec(pod("web-1", "n", 1), |s| s.tolerations = tolerations.into());
        ignores_marks(&pod, "leaving")
    };
    assert!(ignores(vec![exists(None, None)]));
    assert!(ignores(vec![exists(None, Some(Effect::NoSchedule))]));
    assert!(!ignores(vec![exists(None, Some(Effect::NoExecute))]), "as many controllers do");
    assert!(ignores(vec![exists(Some("leaving"), None), exists(Some(CORDON), None)]));
    assert!(!ignores(vec![exists(Some("leaving"), None)]));
    assert!(!ignores(vec![exists(Some(CORDON), None)]));
}

#[test]
fn a_pod_that_policy_spares_holds_a_patient_drain_until_there_is_a_deadline() {
    let mut stage = Stage::of(&["web-1"]);
    stage.change("web-1", |pod| pod.owner = Owner::default());
    stage.policy.evict_unmanaged = false;
    assert_eq!(stage.asks(0), [""; 0]);
    assert_eq!(stage.codes(), [ReasonCode::PodUnmanaged]);
    stage.now = 600;
    assert_eq!(stage.codes(), [ReasonCode::PodUnmanaged]);
    stage = stage.deadline(720);
    assert_eq!(stage.asks(0), ["-web-1"]);
}

#[test]
fn a_drain_is_stuck_when_nothing_left_for_ten_seconds() {
    let mut stage = Stage::of(&["web-1", "free-1"]);
    stage.budgets = vec![budget("web", 0)];
    let stuck = |stage: &mut Stage, after: i64| {
        stage.now += after;
        stage.step();
        stage.drain.as_ref().unwrap().report().stuck
    };
    assert!(!stuck(&mut stage, 9));
    stage.answer(&EvictionAnswer::Evicted);
    assert!(!stuck(&mut stage, 9));
    assert!(stuck(&mut stage, 1));
    stage.pods.retain(|pod| &*pod.name != "free-1");
    assert!(!stuck(&mut stage, 0));
}

#[test]
fn nothing_is_asked_before_the_node_is_marked_and_a_node_that_is_gone_is_drained() {
    let mut stage = Stage::of(&["web-1"]);
    stage.step();
    let snapshot = |nodes| Snapshot::new(parts(nodes, vec![pod("web-1", "n", 1)]));
    let now = stage.moment();
    let mut drain = Drain::new(stage.command.clone(), Policy::default(), &snapshot(vec![node("n")]), now);
    let freshness = Freshness::default();
    let mut step = |nodes, marked, look| {
        let (snapshot, freshness) = (&snapshot(nodes), &freshness);
        let orders = drain.step(&Sight { snapshot, freshness, marked, unmarkable: false, look }, now);
        (orders.len(), drain.report().tainted, drain.report().end.clone())
    };
    assert_eq!(step(vec![node("n")], false, None), (0, false, None));
    assert_eq!(step(vec![node("n")], true, None), (1, true, None));
    assert_eq!(step(vec![node("m")], false, None), (0, true, None), "it may not have been shown yet");
    let look = Look { asked: now, found: Ok(vec![]) };
    assert_eq!(step(vec![node("m")], false, Some(&look)), (0, true, Some(DrainEnd::Moved)));
    let other = DrainCommand { purpose: Purpose::Return, ..stage.command.clone() };
    assert!(!drain.renew(&other, Policy::default()), "another drain");
}

#[test]
fn twenty_pods_whose_evictions_are_refused_keep_nobody_else_on_the_node() {
    let names: Vec<String> = (10..50).map(|number| format!("web-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let refused = EvictionAnswer::Forbidden { message: "a policy".to_owned() };
    for mut stage in [Stage::of(&names), Stage::of(&names).deadline(120)] {
        stage.answer(&refused);
        let first: Vec<String> = names[..20].iter().map(|name| format!("-{name}")).collect();
        let others = stage.asks(0);
        assert_eq!(others.len(), 20, "{others:?}");
        assert!(others.iter().all(|name| !first.contains(name)), "{others:?}");
    }
}

#[test]
fn a_watch_that_shows_nothing_lets_every_pod_have_its_eviction_before_a_second_one() {
    let names: Vec<String> = (10..50).map(|number| format!("web-{number}")).collect();
    let mut stage = Stage::of(&names.iter().map(String::as_str).collect::<Vec<_>>()).deadline(120);
    stage.freshness = old(WatchedKind::Pod);
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.extend(stage.asks(0));
        stage.answer(&EvictionAnswer::Evicted);
        // By then the watch should have shown it.
        stage.now += 6;
    }
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 40, "{asked:?}");
}

#[test]
fn before_a_deadline_marks_that_are_refused_keep_no_eviction_back_and_the_drain_does_not_end() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    let begun = stage.moment();
    stage.now += 10;
    let now = stage.moment();
    for (deadline, unmarkable, asked) in [(true, true, 1), (true, false, 0), (false, true, 0)] {
        let deadline = stage.command.deadline.filter(|_| deadline);
        let command = DrainCommand { deadline, ..stage.command.clone() };
        let cluster = |pods| Snapshot::new(parts(vec![node("n"), node("m")], pods));
        let mut drain = Drain::new(command, stage.policy.clone(), &cluster(stage.pods.clone()), begun);
        let (freshness, look) = (Freshness::default(), Look { asked: now, found: Ok(vec![]) });
        let mut step = |pods| {
            let snapshot = &cluster(pods);
            let look = Some(&look);
            let sight = Sight { snapshot, freshness: &freshness, marked: false, unmarkable, look };
            let asked = drain.step(&sight, now).len();
            (asked, drain.report().blocked.iter().any(|reason| reason.code() == ReasonCode::NodeNotTainted))
        };
        let refused = deadline.is_none() && unmarkable;
        assert_eq!(step(stage.pods.clone()), (asked, refused), "{deadline:?}, {unmarkable}");
        assert_eq!(step(vec![]).0, 0);
        assert_eq!((drain.report().end.clone(), drain.report().tainted), (None, false), "pods may come");
    }
}

#[test]
fn another_node_of_that_name_is_not_drained() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    stage.command.instance_id = "i-before".into();
    assert_eq!(stage.step(), [], "its pods are another node's");
    assert_eq!(Stage::of(&["web-1"]).deadline(120).step().len(), 1);
}

#[test]
fn a_node_without_an_instance_is_the_one_to_drain_by_its_uid() {
    let stage = Stage::of(&[]);
    for provider_id in ["", "k3s://n"] {
        let late = Node { provider_id: provider_id.into(), ..node("n") };
        let named = |uid: &str| DrainCommand { node_uid: Some(uid.into()), ..stage.command.clone() };
        assert!(named("uid-n").is_about(&late));
        assert!(!named("uid-before").is_about(&late), "it has only got the name");
        assert!(!stage.command.is_about(&late), "nothing says that it is");
        // Once it says what it runs on, that decides: its kubelet may have registered it anew.
        let said = Node { provider_id: "aws:///a/i-n".into(), ..late };
        assert!(named("uid-before").is_about(&said));
        assert!(!named("uid-n").is_about(&Node { provider_id: "aws:///a/i-other".into(), ..said }));
    }
}

#[test]
fn a_drain_does_not_wait_until_very_many_budgets_are_compared() {
    let names: Vec<String> = (0..100).map(|i| format!("web-{i}")).collect();
    let mut stage = Stage::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let odd = Requirement { key: "app".into(), operator: Operator::NotIn([Arc::from("odd")].into()) };
    stage.budgets = (0..2_000)
        .map(|i| DisruptionBudget {
            name: format!("b{i}").into(),
            selector: Some(LabelSelector { requirements: [odd.clone()].into() }),
            ..budget("web", 0)
        })
        .collect();
    let orders = stage.step();
    assert!(!orders.is_empty(), "the eviction API has the last word on the rest");
}

fn old(kind: WatchedKind) -> Freshness {
    Freshness { stale: vec![StaleWatch { kind, since: at(0) }] }
}

fn listed(name: &str) -> ListedPod {
    ListedPod {
        namespace: "default".into(),
        name: name.into(),
        uid: format!("{name}-uid"),
        ..ListedPod::default()
    }
}

#[test]
fn on_an_old_picture_no_drain_ends_and_without_a_deadline_nothing_is_asked() {
    for kind in Step::End.looks_at() {
        for mut stage in [Stage::of(&["web-1"]), Stage::of(&["web-1"]).returning()] {
            stage.freshness = old(*kind);
            assert_eq!(stage.asks(0), [""; 0], "{kind:?}");
            assert_eq!(stage.codes(), [ReasonCode::StaleWatch], "{kind:?}");
            stage.pods.clear();
            assert_eq!(stage.end(3600), None, "{kind:?}");
            stage.freshness = Freshness::default();
            assert_eq!(stage.end(0), Some(DrainEnd::Moved), "{kind:?}");
        }
    }
}

#[test]
fn what_was_found_on_an_old_picture_is_found_anew_on_a_current_one() {
    let mut stage = Stage::of(&[]);
    assert_eq!(stage.end(0), Some(DrainEnd::Moved));
    stage.freshness = old(WatchedKind::Pod);
    assert_eq!(stage.end(1), None);
    stage.freshness = Freshness::default();
    stage.pods = Stage::of(&["web-1"]).pods;
    assert_eq!(stage.asks(0), ["-web-1"], "it was bound meanwhile");
    assert_eq!(stage.end(0), None);
    // Its successor is waited for, though the drain knew of none when it began.
    stage.succeed("web-1", "web-2", "m", false);
    stage.now += 1;
    let missing = Reason::SuccessorsNotReady { controller: named("web"), ready: 0, expected: 1 };
    assert_eq!(stage.blocked(), [missing]);
}

#[test]
fn before_a_deadline_it_goes_on_by_evictions_and_ends_on_no_old_picture() {
    for kind in Step::End.looks_at() {
        let mut stage = Stage::of(&["web-1"]).deadline(120);
        stage.freshness = old(*kind);
        assert_eq!(stage.asks(0), ["-web-1"], "{kind:?}");
        stage.pods.clear();
        assert_eq!(stage.end(60), None, "{kind:?}");
        assert!(stage.codes().contains(&ReasonCode::StaleWatch), "{kind:?}: {:?}", stage.blocked());
    }
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    stage.budgets = vec![budget("web", 0)];
    stage.freshness = old(WatchedKind::Pod);
    assert_eq!(stage.asks(0), [""; 0], "the budget is known to be shut");
    stage.freshness = old(WatchedKind::DisruptionBudget);
    assert_eq!(stage.asks(0), ["-web-1"], "it may have opened: the API server knows");
}

#[test]
fn after_a_deadline_nothing_is_asked_on_an_old_picture_of_the_nodes_for_another_one_may_have_the_name() {
    for (kind, asked) in [(WatchedKind::Node, None), (WatchedKind::Pod, Some("-web-1"))] {
        let mut stage = Stage::of(&["web-1"]).deadline(120);
        stage.freshness = old(kind);
        assert_eq!(stage.asks(119), ["-web-1"]);
        assert_eq!(stage.asks(1), Vec::from_iter(asked), "{kind:?}");
        assert!(stage.codes().contains(&ReasonCode::StaleWatch), "{kind:?}: {:?}", stage.blocked());
        stage.freshness = Freshness::default();
        assert_eq!(stage.asks(1), ["-web-1"]);
    }
}

#[test]
fn what_a_hook_may_hold_is_not_deleted_past_its_budget_and_goes_on_being_evicted() {
    let mut stage = Stage::of(&["web-1"]).deadline(120);
    (stage.command.is_announced, stage.command.is_held) = (false, true);
    stage.answer(&SHUT);
    stage.budgets = vec![budget("web", 0)];
    assert_eq!(stage.asks(115), Vec::<String>::new(), "the budget is shut");
    stage.command.is_held = false;
    assert_eq!(stage.asks(1), ["!web-1 1"], "the group lists it as on its way out");
}

#[test]
fn of_two_drains_of_a_node_the_one_with_the_next_deadline_goes_on() {
    let of = |replacement: &str, deadline: Option<i64>| DrainCommand {
        replacement: replacement.into(),
        deadline: deadline.map(at),
        ..Stage::of(&[]).command
    };
    let chosen = |commands: &[DrainCommand]| {
        let chosen: Vec<_> =
            one_for_each_node(commands).iter().map(|command| command.replacement.to_string()).collect();
        chosen.join(" ")
    };
    assert_eq!(chosen(&[of("return", None), of("replace", Some(120))]), "replace");
    assert_eq!(chosen(&[of("later", Some(300)), of("sooner", Some(120))]), "sooner");
    assert_eq!(chosen(&[of("first", None), of("second", None)]), "first");
    let other = DrainCommand { instance_id: "i-m".into(), node: "m".into(), ..of("other", None) };
    assert_eq!(chosen(&[other, of("return", None)]), "other return");
}

#[test]
fn before_an_announced_deadline_a_long_grace_period_is_cut_to_what_is_left() {
    let slow = || spec(pod("web-1", "n", 1), |s| s.grace_period_seconds = 600);
    let mut stage = Stage::of(&[]).deadline(120);
    stage.pods = vec![slow()];
    assert_eq!(stage.asks(0), ["-web-1 110"], "the instance is ended ten seconds before");
    let mut guessed = Stage::of(&[]).deadline(120);
    (guessed.pods, guessed.command.is_announced) = (vec![slow()], false);
    assert_eq!(guessed.asks(0), ["-web-1"], "a hook may hold it for longer");
    let mut over = Stage::of(&[]).deadline(120);
    over.pods = vec![slow()];
    assert_eq!(over.asks(115), ["-web-1"], "nobody knows what is left");
    let mut patient = Stage::of(&[]);
    patient.pods = vec![slow()];
    assert_eq!(patient.asks(5), ["-web-1"]);
}

#[test]
fn a_node_is_not_taken_for_empty_before_the_api_server_lists_it_so() {
    let pods = |pod: ListedPod| Ok(vec![Listed::Pod(pod)]);
    let unwatched = |name: &str| Reason::PodNotWatched { pod: Some(named(name)) };
    let error = "no answer in time".to_owned();
    for (found, reason) in [
        (Err(error.clone()), Reason::PodsNotListed { error }),
        (pods(listed("unseen")), unwatched("unseen")),
        (Ok(vec![Listed::Unreadable]), Reason::PodNotWatched { pod: None }),
        (pods(ListedPod { deletion: Some(at(3600)), ..listed("ends") }), unwatched("ends")),
    ] {
        let mut stage = Stage::of(&[]);
        stage.listed = None;
        assert_eq!(stage.end(0), None);
        assert!(stage.drain.as_ref().unwrap().wants_look());
        stage.listed = Some(found);
        assert_eq!(stage.end(1), None, "{reason}");
        assert_eq!(stage.blocked(), std::slice::from_ref(&reason));
        assert!(stage.drain.as_ref().unwrap().wants_look());
        stage.listed = Some(Ok(vec![
            Listed::Pod(ListedPod { of_node: true, ..listed("daemon") }),
            Listed::Pod(ListedPod { finished: true, ..listed("job") }),
            Listed::Pod(ListedPod { deletion: Some(at(-60)), ..listed("overstayed") }),
        ]));
        assert_eq!(stage.end(1), Some(DrainEnd::Moved), "{reason}");
        assert!(!stage.drain.as_ref().unwrap().wants_look());
    }
}

#[test]
fn a_list_from_before_the_node_was_empty_says_nothing() {
    let mut stage = Stage::of(&["free-1"]);
    stage.listed_ago = 1;
    assert_eq!(stage.end(10), None);
    stage.pods[0].owner.kind = OwnerKind::None;
    stage.pods.clear();
    for _ in 0..3 {
        stage.listed_ago += 30;
        assert_eq!(stage.end(30), None);
    }
    stage.listed_ago = 0;
    assert!(stage.end(1).is_some());
}

#[test]
fn before_a_deadline_pods_go_that_only_the_api_server_knows_of() {
    let mut stage = Stage::of(&[]).deadline(120);
    stage.listed = Some(Ok(vec![Listed::Pod(listed("unseen"))]));
    assert_eq!(stage.asks(0), ["-unseen"]);
    assert!(stage.drain.as_ref().unwrap().wants_look());
    stage.answer(&EvictionAnswer::Evicted);
    assert_eq!(stage.asks(0), [""; 0]);
    stage.listed = Some(Ok(vec![]));
    assert_eq!(stage.end(1), Some(DrainEnd::Moved));
    let mut patient = Stage::of(&[]);
    patient.listed = Some(Ok(vec![Listed::Pod(listed("unseen"))]));
    assert_eq!(patient.asks(0), [""; 0], "without one, the watch has time to tell of it");
}

#[test]
fn without_a_deadline_pods_that_ask_to_stay_hold_the_drain_until_the_limit() {
    type Mark = fn(&mut Pod);
    let marks: [(Mark, ReasonCode); 3] = [
        (|pod| pod.safe_to_evict = Some(false), ReasonCode::NotSafeToEvict),
        (|pod| pod.do_not_disrupt = Some(Timestamp::MAX), ReasonCode::DoNotDisrupt),
        (|pod| pod.owner = Owner::default(), ReasonCode::PodUnmanaged),
    ];
    for (mark, code) in marks {
        let held = || {
            let mut stage = Stage::of(&["web-1", "free-1"]);
            stage.policy.pod_hold_seconds = 900;
            stage.change("web-1", mark);
            stage
        };
        let mut stage = held();
        assert_eq!(stage.asks(0), ["-free-1"], "{code}: the others go");
        stage.pods.retain(|pod| &*pod.name == "web-1");
        assert_eq!(stage.asks(899), [""; 0], "{code}");
        assert_eq!(stage.codes(), [code]);
        assert!(matches!(&stage.blocked()[..], [Reason::PodHolds { pod, until, .. }]
            if *pod == named("web-1") && *until == at(900)));
        assert_eq!(stage.drain.as_ref().unwrap().report().held_until, Some(at(900)));
        assert_eq!(stage.asks(1), ["-web-1"], "{code}: at the limit it goes");
        assert_eq!(stage.drain.as_ref().unwrap().report().held_until, None);
        assert_eq!(held().deadline(120).asks(0), ["-free-1", "-web-1"], "{code}: and at a deadline");
        let mut at_once = held();
        at_once.policy.pod_hold_seconds = 0;
        assert_eq!(at_once.asks(0), ["-free-1", "-web-1"], "{code}: a pool without a limit");
    }
}

#[test]
fn an_empty_node_serves_its_connections_as_long_as_the_pool_says_or_the_deadline_allows() {
    let empty = |returns: bool| {
        let mut stage = Stage::of(&[]);
        stage.policy.wait_before_termination_seconds = 300;
        if returns { stage.returning() } else { stage }
    };
    for returns in [false, true] {
        let mut stage = empty(returns);
        stage.now = 10;
        assert_eq!(stage.end(0), None);
        assert_eq!(stage.blocked(), [Reason::ConnectionsEnd { until: at(310) }]);
        assert!(!stage.drain.as_ref().unwrap().report().stuck);
        assert_eq!(stage.end(299), None);
        assert_eq!(stage.end(1), Some(DrainEnd::Moved));
    }
    // The instance is ended 10 s ahead of the deadline, and its node is listed once more before.
    let mut stage = empty(false).deadline(120);
    assert_eq!(stage.end(0), None);
    assert_eq!(stage.end(104), None);
    assert_eq!(stage.end(1), Some(DrainEnd::Moved));
    let mut stage = empty(false).deadline(2000);
    assert_eq!(stage.end(0), None);
    assert_eq!(stage.end(300), Some(DrainEnd::Moved), "no longer than the pool says");
}
