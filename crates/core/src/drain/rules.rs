//! Which pods of a drained node go, in what order, and what follows from each answer of the eviction API.

use super::look::overstayed;
use crate::cluster::{DisruptionBudget, Effect, OwnerKind, Pod, PodPhase, Taint, UnhealthyPods};
use crate::policy::{self, Policy, spread};
use crate::reason::{BlockedReason, EvictionAnswer};
use crate::record::DrainPurpose as Purpose;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::time::Duration;

/// What may be done to pods. One per [`Purpose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPolicy {
    /// Leave pods alone that ask for it: `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`
    /// (cluster-autoscaler's FAQ) or `karpenter.sh/do-not-disrupt` (Karpenter, "Disruption").
    pub spare_marked: bool,
    /// Evict pods without a controller, which nobody makes anew.
    pub evict_unmanaged: bool,
    /// Evict pods with an emptyDir, whose content is lost.
    pub evict_with_empty_dir: bool,
    /// Delete what is still there when the deadline leaves only its grace period.
    pub delete_at_deadline: bool,
}

impl DrainPolicy {
    /// The default for a purpose: nothing that cannot come back is lost for a return. On a node under notice
    /// it is lost anyway.
    #[must_use]
    pub fn default_for(purpose: Purpose) -> Self {
        Self {
            spare_marked: purpose == Purpose::Return,
            evict_unmanaged: purpose == Purpose::Replace,
            evict_with_empty_dir: true,
            delete_at_deadline: false,
        }
    }

    /// What a pool's settings allow. Before a deadline nothing is spared: what is not evicted is lost with
    /// the instance, and its end is less gentle.
    #[must_use]
    pub fn of(policy: &Policy, purpose: Purpose, deadline: bool) -> Self {
        let (unmanaged, empty_dir) = match purpose {
            Purpose::Replace => (policy.evict_unmanaged, policy.evict_empty_dir),
            Purpose::Return => (policy.return_unmanaged, policy.return_empty_dir),
        };
        Self {
            spare_marked: purpose == Purpose::Return,
            evict_unmanaged: unmanaged || deadline,
            evict_with_empty_dir: empty_dir || deadline,
            delete_at_deadline: policy.delete_at_deadline,
        }
    }

    /// The same as long as pods hold a replacement: those that ask to stay, and those that nobody makes anew.
    #[must_use]
    pub fn holding(self) -> Self {
        Self { spare_marked: true, evict_unmanaged: false, ..self }
    }
}

/// What becomes of a pod in a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodFate {
    /// It is evicted.
    Evictable,
    /// It stays, and the drain does not wait for it (`AlreadyTerminating`: it waits, without evicting).
    Skip(SkipReason),
    /// It must not be evicted, so the drain cannot end.
    Blocked(BlockedReason),
}

/// Why a pod is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The kubelet runs it; the API shows only its mirror.
    Mirror,
    /// It belongs to the node.
    DaemonSet,
    /// It has ended.
    Finished,
    /// It is on its way out.
    AlreadyTerminating,
}

/// What becomes of a pod in a drain, before any budget is looked at.
///
/// The order of the filters is that of kubectl (staging/src/k8s.io/kubectl/pkg/drain/filters.go). The
/// annotations are a wish not to be moved, which counts while there is a choice; one of them may end.
#[must_use]
pub fn classify(pod: &Pod, policy: &DrainPolicy, now: Timestamp) -> PodFate {
    if pod.owner.kind == OwnerKind::Mirror {
        return PodFate::Skip(SkipReason::Mirror);
    }
    if pod.owner.kind == OwnerKind::DaemonSet {
        return PodFate::Skip(SkipReason::DaemonSet);
    }
    if pod.phase.finished() {
        return PodFate::Skip(SkipReason::Finished);
    }
    if pod.terminating() {
        return PodFate::Skip(SkipReason::AlreadyTerminating);
    }
    if policy.spare_marked {
        if pod.safe_to_evict == Some(false) {
            return PodFate::Blocked(BlockedReason::NotSafeToEvict);
        }
        if pod.do_not_disrupt.is_some_and(|until| now < until) {
            return PodFate::Blocked(BlockedReason::DoNotDisrupt);
        }
    }
    if pod.owner.kind == OwnerKind::None && !policy.evict_unmanaged {
        return PodFate::Blocked(BlockedReason::Unmanaged);
    }
    if pod.spec.uses_empty_dir && !policy.evict_with_empty_dir {
        return PodFate::Blocked(BlockedReason::EmptyDir);
    }
    PodFate::Evictable
}

/// Whether the pod has to run elsewhere when its node goes.
#[must_use]
pub fn must_move(pod: &Pod) -> bool {
    fate_under_notice(pod) == PodFate::Evictable
}

/// What becomes of a pod on a node under notice, where no wish counts and no time matters.
pub(crate) fn fate_under_notice(pod: &Pod) -> PodFate {
    classify(pod, &DrainPolicy::default_for(Purpose::Replace), Timestamp::MIN)
}

/// Whether an instance is not to be ended under the pod: it has to run elsewhere, or has time left to end.
#[must_use]
pub fn holds_its_node(pod: &Pod, now: Timestamp) -> bool {
    match fate_under_notice(pod) {
        PodFate::Skip(SkipReason::AlreadyTerminating) => overstayed(pod, now).is_none(),
        verdict => verdict == PodFate::Evictable,
    }
}

/// The taint of a cordoned node.
pub(crate) const CORDON: &str = "node.kubernetes.io/unschedulable";

/// Whether the scheduler may place the pod's successor on the node that is drained: neither its cordon nor
/// its taint, of this key, keeps the pod away.
///
/// Rules: nodeunschedulable/node_unschedulable.go and tainttoleration/taint_toleration.go.
#[must_use]
pub fn ignores_marks(pod: &Pod, taint_key: &str) -> bool {
    [CORDON, taint_key].into_iter().all(|key| {
        let taint = Taint { key: key.into(), value: "".into(), effect: Effect::NoSchedule };
        pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&taint))
    })
}

/// What the eviction API would say of a pod's budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetView<'b> {
    /// No budget is asked.
    Free,
    /// One disruption of this budget is spent.
    Spends(&'b DisruptionBudget),
    /// The budget has no disruption left: 429.
    Exhausted(&'b DisruptionBudget),
    /// The status is older than the spec: 429.
    NotObserved(&'b DisruptionBudget),
    /// More than one budget covers the pod: 500, whatever they allow.
    Several(Vec<&'b DisruptionBudget>),
}

/// Foretells the eviction API's answer.
///
/// Rules: pkg/registry/core/pod/storage/eviction.go. Pending, finished and ending pods ask no budget; a pod
/// that is not ready may go without spending one if the budget says so.
/// `covering` are the budgets that cover the pod.
#[must_use]
pub fn budget_view<'b>(pod: &Pod, covering: Vec<&'b DisruptionBudget>) -> BudgetView<'b> {
    if pod.phase == PodPhase::Pending || pod.phase.finished() || pod.terminating() {
        return BudgetView::Free;
    }
    let budget = match covering[..] {
        [] => return BudgetView::Free,
        [one] => one,
        _ => return BudgetView::Several(covering),
    };
    let enough_healthy = budget.desired_healthy > 0 && budget.current_healthy >= budget.desired_healthy;
    let may_go_unready = match budget.unhealthy_pods {
        UnhealthyPods::AlwaysAllow => true,
        UnhealthyPods::IfHealthyBudget => enough_healthy,
        UnhealthyPods::Unknown => false,
    };
    if !pod.ready && may_go_unready {
        return BudgetView::Free;
    }
    if !budget.observed {
        BudgetView::NotObserved(budget)
    } else if budget.disruptions_allowed < 1 {
        BudgetView::Exhausted(budget)
    } else {
        BudgetView::Spends(budget)
    }
}

/// The order in which pods are evicted, as indexes into `pods`.
///
/// Lower priority first. Within a priority the budgets take turns, so that many pods of one budget do not
/// hold up the first pod of another. `covering` tells the budgets that cover a pod.
#[must_use]
pub fn eviction_order<'b>(pods: &[&Pod], covering: &dyn Fn(&Pod) -> Vec<&'b DisruptionBudget>) -> Vec<usize> {
    let mut by_name: Vec<usize> = (0..pods.len()).collect();
    by_name.sort_by_key(|i| (pods[*i].spec.priority, pods[*i].key()));
    let mut turns: HashMap<(i32, &str, &str), usize> = HashMap::new();
    let mut keyed: Vec<(i32, usize, usize)> = Vec::with_capacity(pods.len());
    for index in by_name {
        let priority = pods[index].spec.priority;
        let turn = match covering(pods[index]).first() {
            None => 0,
            Some(budget) => {
                let turn = turns.entry((priority, &budget.namespace, &budget.name)).or_default();
                *turn += 1;
                *turn - 1
            }
        };
        keyed.push((priority, turn, index));
    }
    keyed.sort_by_key(|(priority, turn, _)| (*priority, *turn));
    keyed.into_iter().map(|(_, _, index)| index).collect()
}

/// Whether a pod's eviction can be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<'b> {
    /// It can.
    Now,
    /// Its budget has to open first.
    AfterBudget(&'b DisruptionBudget),
    /// No eviction can succeed: several budgets cover it.
    Never(Vec<&'b DisruptionBudget>),
    /// Enough evictions are under way.
    AfterOthers,
}

/// Which evictions to send now, for the pods that are still to be evicted, in their order.
///
/// To be asked anew whenever a pod or a budget changes: the next eviction then goes out the moment its budget
/// has room. The evictions of `under_way`, of at most `parallel`, are not seen in the cluster yet: they have
/// their part of what the budgets allow. `covering` tells the budgets that cover a pod.
#[must_use]
pub fn turns<'b>(
    pods: &[&Pod],
    covering: &dyn Fn(&Pod) -> Vec<&'b DisruptionBudget>,
    under_way: &[&Pod],
    parallel: usize,
) -> Vec<Turn<'b>> {
    let mut room: HashMap<(&str, &str), i64> = HashMap::new();
    for pod in under_way {
        if let BudgetView::Spends(budget) = budget_view(pod, covering(pod)) {
            *room.entry((&budget.namespace, &budget.name)).or_insert(budget.disruptions_allowed) -= 1;
        }
    }
    let mut slots = parallel.saturating_sub(under_way.len());
    let mut take_slot = || {
        let free = slots > 0;
        slots = slots.saturating_sub(1);
        free
    };
    pods.iter()
        .map(|pod| match budget_view(pod, covering(pod)) {
            BudgetView::Several(budgets) => Turn::Never(budgets),
            BudgetView::Exhausted(budget) | BudgetView::NotObserved(budget) => Turn::AfterBudget(budget),
            BudgetView::Free if take_slot() => Turn::Now,
            BudgetView::Free => Turn::AfterOthers,
            BudgetView::Spends(budget) => {
                let room =
                    room.entry((&budget.namespace, &budget.name)).or_insert(budget.disruptions_allowed);
                if *room < 1 {
                    Turn::AfterBudget(budget)
                } else if take_slot() {
                    *room -= 1;
                    Turn::Now
                } else {
                    Turn::AfterOthers
                }
            }
        })
        .collect()
}

/// How much time a drain has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainClock {
    /// As long as the budgets need.
    Patient,
    /// The node is gone at this time.
    Deadline(Timestamp),
}

/// The delete that replaces evictions which no longer help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The grace period to ask for, in seconds: the pod's own, or what is left of the time.
    pub grace_period_seconds: i64,
}

/// Whether the pod is to be deleted now: the deadline leaves no more than its grace period.
///
/// Whether the pool allows it is asked apart ([`DrainPolicy::delete_at_deadline`]): if it does not, that is
/// why the pod stays.
#[must_use]
pub fn overdue(pod: &Pod, clock: DrainClock, now: Timestamp) -> Option<Deletion> {
    let DrainClock::Deadline(deadline) = clock else { return None };
    if pod.terminating() {
        return None;
    }
    let left = deadline.duration_since(now);
    let grace = SignedDuration::from_secs(pod.spec.grace_period_seconds);
    let grace_period_seconds = pod.spec.grace_period_seconds.min(left.as_secs()).max(1);
    (left <= grace).then_some(Deletion { grace_period_seconds })
}

/// The grace period for an eviction, in seconds, if the deadline leaves less than the pod's own: else it
/// would be cut off in the middle, without a word. After a deadline nobody knows what is left.
#[must_use]
pub fn cut_grace(pod: &Pod, clock: DrainClock, now: Timestamp) -> Option<i64> {
    let DrainClock::Deadline(deadline) = clock else { return None };
    let left = deadline.duration_since(now).as_secs();
    (left > 0 && pod.spec.grace_period_seconds > left).then_some(left)
}

/// What to do with a pod next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it ends, or is gone.
    Wait,
    /// Ask again after this time; at once if its budget, as the watch shows it, changes.
    RetryOnBudget(Duration),
    /// Ask again after this time.
    Retry(Duration),
    /// No eviction will succeed before somebody changes something. Ask again now and then.
    GiveUp,
}

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// What to do after an answer. `attempts` requests for this pod were answered before this one.
#[must_use]
pub fn next_step(answer: &EvictionAnswer, attempts: u32, pod: &Pod) -> NextStep {
    let retry = |after: &Option<Duration>| after.unwrap_or_default().max(backoff(attempts, pod));
    match answer {
        EvictionAnswer::Evicted | EvictionAnswer::Gone => NextStep::Wait,
        // The time that it asks to wait (0 s if exhausted, 10 s if not observed yet) is a guess; the watch
        // knows.
        EvictionAnswer::BudgetExhausted { .. } => NextStep::RetryOnBudget(backoff(attempts, pod)),
        EvictionAnswer::RateLimited { retry_after } => NextStep::Retry(retry(retry_after)),
        EvictionAnswer::SeveralBudgets
        | EvictionAnswer::Forbidden { .. }
        | EvictionAnswer::Failed { status: 400..=499, .. } => NextStep::GiveUp,
        EvictionAnswer::Conflict | EvictionAnswer::Failed { .. } => NextStep::Retry(retry(&None)),
    }
}

/// 0.5 s, 1 s, 2 s and so on, spread by the pod's UID.
fn backoff(attempts: u32, pod: &Pod) -> Duration {
    spread(policy::backoff(FIRST_RETRY, LONGEST_RETRY, attempts.saturating_add(1)), &pod.uid)
}
