use super::*;
use crate::core::cluster::Owner;
use crate::core::testing::{app, pod, spec};

fn budget(app_name: &str, allowed: i64) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: app_name.into(),
        selector: app(app_name),
        disruptions_allowed: allowed,
        observed: true,
        current_healthy: 2 + allowed,
        desired_healthy: 2,
        unhealthy_pods: UnhealthyPods::IfHealthyBudget,
    }
}

fn owned(kind: OwnerKind) -> Pod {
    Pod { owner: Owner { kind, name: "x".into() }, ..pod("web-1", "n", 1) }
}

const STRICT: DrainPolicy =
    DrainPolicy { evict_unmanaged: false, evict_with_empty_dir: false, delete_at_deadline: false };
const LAX: DrainPolicy =
    DrainPolicy { evict_unmanaged: true, evict_with_empty_dir: true, delete_at_deadline: true };

#[track_caller]
fn classified(pod: &Pod, policy: DrainPolicy, on_return: Verdict, on_replace: Verdict) {
    assert_eq!(classify(pod, &policy, Purpose::Return), on_return, "on return");
    assert_eq!(classify(pod, &policy, Purpose::Replace), on_replace, "on replace");
}

#[test]
fn pods_are_skipped_blocked_or_evicted() {
    use BlockedReason::{DoNotDisrupt, EmptyDir, NotSafeToEvict, Unmanaged};
    use SkipReason::{AlreadyTerminating, DaemonSet, Finished, Mirror};
    use Verdict::{Blocked, Evictable, Skip};
    let web = || pod("web-1", "n", 1);
    classified(&web(), STRICT, Evictable, Evictable);
    classified(&owned(OwnerKind::Mirror), LAX, Skip(Mirror), Skip(Mirror));
    classified(&owned(OwnerKind::DaemonSet), LAX, Skip(DaemonSet), Skip(DaemonSet));
    let failed = Pod { phase: Phase::Failed, ..owned(OwnerKind::None) };
    classified(&failed, STRICT, Skip(Finished), Skip(Finished));
    let ending = Pod { deletion: Some(Timestamp::UNIX_EPOCH), safe_to_evict: Some(false), ..web() };
    classified(&ending, STRICT, Skip(AlreadyTerminating), Skip(AlreadyTerminating));
    let fixed = Pod { safe_to_evict: Some(false), ..web() };
    classified(&fixed, LAX, Blocked(NotSafeToEvict), Evictable);
    let calm = Pod { do_not_disrupt: true, ..web() };
    classified(&calm, LAX, Blocked(DoNotDisrupt), Evictable);
    classified(&owned(OwnerKind::None), STRICT, Blocked(Unmanaged), Blocked(Unmanaged));
    classified(&owned(OwnerKind::None), LAX, Evictable, Evictable);
    let scratch = spec(web(), |s| s.uses_empty_dir = true);
    classified(&scratch, STRICT, Blocked(EmptyDir), Blocked(EmptyDir));
    classified(&scratch, LAX, Evictable, Evictable);
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
    let view = |pod: &Pod, budgets: &[&DisruptionBudget]| match budget_view(pod, budgets.iter().copied()) {
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
    let pending = Pod { phase: Phase::Pending, ready: false, ..web() };
    assert_eq!(view(&pending, &[&shut, &second]), "free", "a pending pod asks no budget");
}

#[test]
fn a_pod_that_is_not_ready_goes_if_its_budget_says_so() {
    let sick = Pod { ready: false, ..pod("web-1", "n", 1) };
    let with = |current, policy| {
        let budget =
            DisruptionBudget { current_healthy: current, unhealthy_pods: policy, ..budget("web", 0) };
        matches!(budget_view(&sick, [&budget].into_iter()), BudgetView::Free)
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
    let order = eviction_order(&refs, &[budget("web", 1), budget("db", 1)]);
    let order: Vec<&str> = order.into_iter().map(|i| &*refs[i].name).collect();
    assert_eq!(order, ["db-1", "free-1", "web-1", "db-2", "web-2", "web-3", "vip-1"]);
}

#[test]
fn evictions_go_out_as_far_as_budgets_and_parallelism_allow() {
    let pods: Vec<Pod> = ["web-1", "web-2", "db-1", "free-1"].iter().map(|n| pod(n, "n", 1)).collect();
    let refs: Vec<&Pod> = pods.iter().collect();
    let budgets = [budget("web", 1), budget("db", 0)];
    let (web, db) = (&budgets[0], &budgets[1]);
    let all = turns(&refs, &budgets, 0, 10);
    assert_eq!(all, [Turn::Now, Turn::AfterBudget(web), Turn::AfterBudget(db), Turn::Now]);
    let one = turns(&refs, &budgets, 9, 10);
    assert_eq!(one, [Turn::Now, Turn::AfterBudget(web), Turn::AfterBudget(db), Turn::AfterOthers]);
    let twice = [budget("web", 1), DisruptionBudget { name: "also".into(), ..budget("web", 1) }];
    assert!(matches!(turns(&refs[..1], &twice, 0, 10)[..], [Turn::Never(_)]));
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[track_caller]
fn after(answer: EvictionAnswer, attempts: u32, expected: NextStep) {
    let step = next_step(&answer, attempts, &pod("web-1", "n", 1), &LAX, DrainClock::Patient, at(0));
    assert_eq!(step, expected, "{answer:?}");
}

#[test]
fn each_answer_has_its_next_step() {
    use EvictionAnswer::{
        BudgetExhausted, Conflict, Evicted, Failed, Forbidden, Gone, RateLimited, SeveralBudgets,
    };
    let secs = Duration::from_secs;
    let said = |status| Failed { status, message: "no".into() };
    after(Evicted, 0, NextStep::WaitUntilGone);
    after(Gone, 0, NextStep::Done);
    after(BudgetExhausted { retry_after: None }, 0, NextStep::WaitForBudget(secs(15)));
    after(BudgetExhausted { retry_after: Some(secs(0)) }, 9, NextStep::WaitForBudget(secs(15)));
    after(RateLimited { retry_after: Some(secs(7)) }, 0, NextStep::RetryAfter(secs(7)));
    after(RateLimited { retry_after: None }, 2, NextStep::RetryAfter(secs(2)));
    after(SeveralBudgets, 0, NextStep::GiveUp(GiveUp::SeveralBudgets));
    after(Forbidden, 0, NextStep::GiveUp(GiveUp::Forbidden));
    after(Conflict, 0, NextStep::RetryAfter(Duration::from_millis(500)));
    after(said(503), 1, NextStep::RetryAfter(secs(1)));
    after(said(0), 60, NextStep::RetryAfter(secs(15)));
    after(said(422), 0, NextStep::GiveUp(GiveUp::Rejected { status: 422, message: "no".into() }));
}

#[test]
fn at_deadline_minus_grace_period_a_stuck_pod_is_deleted_if_the_policy_says_so() {
    let web = pod("web-1", "n", 1);
    let deadline = DrainClock::Deadline(at(120));
    let shut = EvictionAnswer::BudgetExhausted { retry_after: None };
    let step = |policy, now| next_step(&shut, 3, &web, &policy, deadline, now);
    assert_eq!(step(LAX, at(0)), NextStep::WaitForBudget(Duration::from_secs(15)));
    assert_eq!(step(LAX, at(85)), NextStep::WaitForBudget(Duration::from_secs(5)), "no longer than it may");
    assert_eq!(step(LAX, at(90)), NextStep::Delete(Deletion { grace_period_seconds: 30 }));
    assert_eq!(step(LAX, at(110)), NextStep::Delete(Deletion { grace_period_seconds: 10 }));
    assert_eq!(step(LAX, at(130)), NextStep::Delete(Deletion { grace_period_seconds: 1 }));
    assert!(matches!(step(STRICT, at(110)), NextStep::WaitForBudget(_)));
    let several = next_step(&EvictionAnswer::SeveralBudgets, 0, &web, &LAX, deadline, at(100));
    assert!(matches!(several, NextStep::Delete(_)));
}

#[test]
fn a_pod_that_ends_already_is_not_deleted_again_and_a_patient_drain_never_deletes() {
    let ending = Pod { deletion: Some(at(100)), ..pod("web-1", "n", 1) };
    assert_eq!(overdue(&ending, &LAX, DrainClock::Deadline(at(120)), at(119)), None);
    assert_eq!(overdue(&pod("web-1", "n", 1), &LAX, DrainClock::Patient, at(119)), None);
}
