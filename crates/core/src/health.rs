//! Boxes 7 and 8: is the Spot group healthy, and has it been so for long enough?

#[cfg(test)]
mod tests;

use crate::group::{FailureClass, PoolView};
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::{Ledger, Share};
use crate::limits;
use crate::policy::{Policy, seconds};
use crate::reason::{NodeTrouble, Reason, ReasonCode, ReturnAssessment};
use crate::record::{Capacity, FallbackState, GroupKind, ReplacementStatus};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A failed launch says nothing of the market after this time.
const FAILURE_IS_OLD: Duration = Duration::from_secs(600);

/// For so many fallbacks in one assessment it is found out whether a Spot instance would be of use. The
/// others ask Spot as they are.
const MOST_LOOKS: usize = 8;

/// For how long a failed launch of the Spot group makes it unhealthy: for the time of stability, if that is
/// short. A long one is about nodes that stay Ready.
#[must_use]
pub fn failure_counts_for(policy: &Policy) -> Duration {
    seconds(policy.stability_seconds).min(FAILURE_IS_OLD)
}

/// A replacement of the pool, as the assessment needs it.
#[derive(Clone, Debug)]
pub struct PoolReplacement<'a> {
    /// The replacement's name.
    pub name: ReplacementName,
    /// The old instance.
    pub instance_id: &'a InstanceId,
    /// The record.
    pub status: &'a ReplacementStatus,
}

impl PoolReplacement<'_> {
    /// Whether its return drains a node now.
    #[must_use]
    pub fn is_returning(&self) -> bool {
        matches!(*self.status.fallback, FallbackState::Draining(_))
    }
}

/// What was found about a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolAssessment {
    /// Why the Spot group is not healthy; empty: it is.
    pub unhealthy: Vec<Reason>,
    /// Why it is not stable, apart from the claimed nodes; empty: it is.
    pub unstable: Vec<Reason>,
    /// What was found about each open fallback.
    pub returns: BTreeMap<ReplacementName, ReturnAssessment>,
}

impl PoolAssessment {
    /// After what time a Spot node that takes over has been Ready for long enough, if a return waits for it.
    #[must_use]
    pub fn stable_in(&self) -> Option<Duration> {
        let waits = self.returns.values().flat_map(|found| &found.unstable);
        let left = waits.filter_map(|reason| match reason {
            Reason::NotStable { ready_for, required, .. } => Some(required.saturating_sub(*ready_for)),
            _ => None,
        });
        left.min()
    }
}

/// Box 7: what makes the Spot group unhealthy.
///
/// Nodes whose replacement is under way do not count, nor do the instances that Spot still owes: their
/// failing launches are our own probes, or those of a group for which on-demand stands in.
#[must_use]
pub fn unhealthy(
    view: &PoolView,
    ledger: &Ledger,
    stories: &[PoolReplacement<'_>],
    policy: &Policy,
    now: Timestamp,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let group = &view.spot;
    let surplus = ledger.shares(GroupKind::Spot).filter(|share| share.is_raised()).count();
    let awaited = ledger
        .shares(GroupKind::Spot)
        .filter(|share| share.instance_id.as_ref().is_none_or(|id| !group.is_in_service(id)))
        .count();
    // An instance that another replacement sends back is counted there.
    let spare: Vec<&InstanceId> =
        stories.iter().filter_map(|story| Some(&story.status.goes_back()?.instance_id)).collect();
    let leaving = stories
        .iter()
        .filter(|story| !story.status.old_node.is_over() && group.is_in_service(story.instance_id))
        .filter(|story| !spare.contains(&story.instance_id))
        .count();
    // A replacement whose old instance left before its share was settled holds one place more than
    // instances are there; one that was cancelled has one instance more until then.
    let unsettled = stories
        .iter()
        .filter(|story| {
            ledger.share(GroupKind::Spot, &story.name).is_some_and(Share::is_raised)
                && (story.status.old_node.is_retained() || !group.is_active(story.instance_id))
        })
        .count();
    let desired = i64::from(group.desired);
    let expected = desired - to_i64(surplus) - to_i64(awaited);
    let serving = to_i64(group.in_service()) - to_i64(leaving) - to_i64(unsettled);
    let stand_ins = stories.iter().filter(|story| stands_in(story.status, view)).count();
    let stood_in_for = to_i64(stand_ins).min(expected - serving).max(0);
    let expected = expected - stood_in_for;
    if serving < expected {
        let group = group.name.clone();
        reasons.push(Reason::InstancesMissing { group, in_service: serving, expected, desired });
    }
    // What failed before our last instance came was our own request, or one that it made up for.
    let last_came = ledger.shares(GroupKind::Spot).filter_map(|share| share.claimed_at).max();
    let recent = group.failures.iter().find(|failure| {
        failure.class != FailureClass::Throttle
            && last_came.is_none_or(|at| failure.started_at > at)
            && crate::time::since(failure.started_at, now) < failure_counts_for(policy)
    });
    if let Some(failure) = recent.filter(|_| awaited == 0 && stood_in_for == 0) {
        let message = failure.message.clone();
        reasons.push(Reason::LaunchFailed { group: group.name.clone(), message });
    }
    reasons
}

/// Whether on-demand stands in for what a group that replaces by itself does not bring. An adopted instance,
/// and what a cancelled replacement brought, stand in for nothing.
fn stands_in(status: &ReplacementStatus, view: &PoolView) -> bool {
    let serves =
        |held: &Capacity| held.group == GroupKind::OnDemand && view.on_demand.is_active(&held.instance_id);
    status.is_replaced_by_group()
        && status.capacity.taken().is_some_and(serves)
        && matches!(*status.fallback, FallbackState::OnFallback(_))
        && !status.old_node.is_retained()
        && !status.is_adopted()
}

/// Box 8: what makes the Spot nodes that stay unstable; `ready` says whether an instance's node is Ready, if
/// it has joined.
///
/// An instance whose node has not joined is no node. A return waits for its own Spot node in any case: see
/// [`Reason::NoSpotInstance`]. What a group launched for somebody else may never join, and
/// nobody but its owner may end it.
#[must_use]
pub fn unready_nodes(
    view: &PoolView,
    stories: &[PoolReplacement<'_>],
    ready: &dyn Fn(&InstanceId) -> Option<bool>,
    policy: &Policy,
) -> Vec<Reason> {
    let old = stories.iter().filter(|story| !story.status.old_node.is_over()).map(|story| story.instance_id);
    // What is one too many goes back, too.
    let spare = stories.iter().filter_map(|story| story.status.goes_back());
    let leaving: BTreeSet<&InstanceId> = old.chain(spare.map(|capacity| &capacity.instance_id)).collect();
    let ids = view.spot.instances.iter().map(|instance| &instance.id);
    let staying: Vec<(&InstanceId, bool)> = ids
        .filter(|id| view.spot.is_in_service(id) && !leaving.contains(id))
        .filter_map(|id| Some((id, ready(id)?)))
        .collect();
    let unready: Vec<&InstanceId> = staying.iter().filter(|(_, ready)| !ready).map(|(id, _)| *id).collect();
    let allowed = staying.len() * usize::try_from(policy.not_ready_percent).unwrap_or(0) / 100;
    if unready.len() <= allowed {
        return Vec::new();
    }
    let instances = unready.into_iter().cloned().collect();
    vec![Reason::NodesNotReady { instances, of: staying.len() }]
}

/// What the assessment asks of the cluster.
pub struct Questions<'a> {
    /// Whether an instance's node is Ready, if it has joined.
    pub ready: &'a dyn Fn(&InstanceId) -> Option<bool>,
    /// Box 9: what stands against draining a fallback's node now.
    pub unsafe_: &'a dyn Fn(&PoolReplacement<'_>) -> Vec<Reason>,
    /// What stands against it if Spot gave one more node.
    pub unsafe_with_spot: &'a dyn Fn(&PoolReplacement<'_>) -> Vec<Reason>,
}

/// Boxes 7 to 9 for every open fallback of a pool, those first whose return a person requested, then oldest
/// first. Box 9 is asked while fewer returns are under way than may be, and until one more may begin: the
/// next assessment counts with its pods.
#[must_use]
pub fn assess(
    view: &PoolView,
    ledger: &Ledger,
    stories: &[PoolReplacement<'_>],
    questions: &Questions<'_>,
    policy: &Policy,
    now: Timestamp,
) -> PoolAssessment {
    let mut found = PoolAssessment {
        unhealthy: unhealthy(view, ledger, stories, policy, now),
        unstable: unready_nodes(view, stories, questions.ready, policy),
        returns: BTreeMap::new(),
    };
    let mut open: Vec<&PoolReplacement<'_>> = stories
        .iter()
        .filter(|story| story.status.fallback.is_open() && story.status.old_node.is_over())
        .collect();
    open.sort_by_key(|story| {
        (story.status.fallback.requested_at().is_none(), story.status.started_at, story.name.clone())
    });
    let mut returning: Vec<&ReplacementName> =
        open.iter().filter(|story| story.is_returning()).map(|story| &story.name).collect();
    let mut places = limits::returns_at_most(policy, view).saturating_sub(returning.len());
    let mut looks = MOST_LOOKS;
    for story in open {
        let mut result = before_safety(story, &found, view.spot.wants_nothing(), policy, now);
        // One that terminates has had its turn.
        let may_begin = matches!(*story.status.fallback, FallbackState::OnFallback(_));
        if result.unhealthy.is_empty() && result.unstable.is_empty() {
            match returning.first() {
                Some(other) if places == 0 && may_begin => {
                    result.unsafe_.push(Reason::ReturnUnderWay { replacement: (*other).clone() });
                }
                _ => result.unsafe_ = (questions.unsafe_)(story),
            }
            let open = story.status.fallback.open();
            let waits = open.is_some_and(|open| open.not_before.is_some_and(|at| now < at));
            if result.unsafe_.is_empty() && !waits && may_begin {
                returning.insert(0, &story.name);
                places = 0;
            }
        } else if looks > 0 && result.unhealthy.contains(&Reason::NoSpotInstance) && is_owed(story, ledger) {
            result.unsafe_with_spot = (questions.unsafe_with_spot)(story);
            looks = if is_too_large(&result.unsafe_with_spot) { 0 } else { looks - 1 };
        }
        found.returns.insert(story.name.clone(), result);
    }
    found
}

/// What stands against a return with any node that Spot may give: what the first one meets, or nothing if
/// another one does. A check that is too large is not made again.
#[must_use]
pub fn of_any_node(blockers: impl Iterator<Item = Vec<Reason>>) -> Vec<Reason> {
    let mut first = None;
    for found in blockers {
        if found.is_empty() {
            return found;
        }
        let is_over = is_too_large(&found);
        first.get_or_insert(found);
        if is_over {
            break;
        }
    }
    first.unwrap_or_default()
}

/// What of these blockers one more Spot node would not cure. With the Spot nodes of the other fallbacks the
/// pool may be less full, unless one of them has stood idle already. A node that nobody knows (`is_unknown`)
/// may take any pod.
#[must_use]
pub fn with_more_spot(
    found: Vec<Reason>,
    story: &PoolReplacement<'_>,
    ledger: &Ledger,
    is_unknown: bool,
) -> Vec<Reason> {
    let share = ledger.share(GroupKind::Spot, &story.name);
    let last = share.and_then(|share| share.discarded.as_ref());
    let stood_idle = last.is_some_and(|last| last.why == NodeTrouble::StandsIdle);
    let is_cured = |reason: &Reason| match reason.code() {
        ReasonCode::BufferExceeded => !stood_idle,
        ReasonCode::PodDoesNotFit => is_unknown,
        _ => false,
    };
    found.into_iter().filter(|reason| !is_cured(reason)).collect()
}

fn is_too_large(found: &[Reason]) -> bool {
    found.iter().any(|reason| reason.code() == ReasonCode::CheckTooLarge)
}

/// Whether the Spot instance of a fallback has to be requested once more.
fn is_owed(story: &PoolReplacement<'_>, ledger: &Ledger) -> bool {
    let share = ledger.share(GroupKind::Spot, &story.name);
    share.is_some_and(|share| share.instance_id.is_none() && !share.has_place())
}

/// What was found about a fallback before box 9.
fn before_safety(
    story: &PoolReplacement<'_>,
    found: &PoolAssessment,
    wants_no_spot: bool,
    policy: &Policy,
    now: Timestamp,
) -> ReturnAssessment {
    let back = story.status.capacity.taken();
    let of = back.map(|held| held.instance_id.clone());
    let successor = story.status.fallback.successor().map(|held| held.instance_id.clone());
    let unhealthy = found.unhealthy.clone();
    let mut result = ReturnAssessment { of, successor, unhealthy, ..ReturnAssessment::default() };
    let stability = seconds(policy.stability_seconds);
    let own = back.is_some_and(|held| held.group == GroupKind::Spot);
    match story.status.fallback.successor() {
        // A Spot node that is one too many waits for no other, nor does what a cancelled replacement
        // brought.
        // A group with a desired capacity of 0 brings none.
        None if own || story.status.old_node.is_retained() => {}
        None if wants_no_spot && story.status.is_replaced_by_group() => {}
        None => result.unhealthy.push(Reason::NoSpotInstance),
        Some(capacity) => {
            let held = crate::time::since(capacity.ready_at, now);
            if held < stability {
                result.unstable.push(Reason::NotStable {
                    node: capacity.node_name.clone(),
                    ready_for: held,
                    required: stability,
                });
            }
        }
    }
    result.unstable.extend(found.unstable.iter().cloned());
    if story.status.old_node.is_retained() && story.status.is_replaced_by_group() {
        // What stood in on advice goes back without Spot.
        (result.unhealthy, result.unstable) = Default::default();
    }
    if story.status.fallback.requested_at().is_some() {
        // Box 8 is skipped: a person requested the return now.
        result.unstable.clear();
    }
    result
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
