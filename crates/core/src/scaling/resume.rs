//! What an earlier step, or an earlier life, left between the written intent and its outcome.

use super::answers::{applied, reduced, refuse};
use super::calls::{COUNTED_WITHIN, Call, SEEN_WITHIN};
use super::inputs::Inputs;
use crate::group::{FailureClass, GroupView, NoInstance};
use crate::ledger::{Ledger, Method, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;
use crate::time::since;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// AWS remembers a client token for 8 h; ours is not used again after 7.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(7);

impl Ledger {
    /// Whether a reduction of the group may have taken effect or not: nothing else is asked of it meanwhile.
    pub(super) fn is_in_doubt(&self, group: GroupKind) -> bool {
        self.reduction.as_ref().is_some_and(|reduction| reduction.group == group)
    }
}

/// Finishes what an earlier step, or an earlier life, left between the written intent and its outcome.
pub(super) fn resume(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Option<Call> {
    // A reduction without effect is forgotten, not repeated: whether it is still wanted is decided anew. So
    // is one whose instance went another way (AWS took it): the account stays open.
    if let Some(reduction) = ledger.reduction.take() {
        let group = inputs.group(reduction.group);
        let took_effect = group.desired < reduction.desired_before
            && reduction.instance_id.as_ref().is_none_or(|id| !group.is_active(id));
        // By the clock on the wall, or by one that nobody sets.
        let may_be_seen_later = is_within(SEEN_WITHIN, reduction.requested_at, inputs.now)
            || inputs.deferred.is_reduction_young();
        if took_effect {
            reduced(ledger, &reduction);
        } else if inputs.deferred.is_unanswered(&reduction) && may_be_seen_later {
            ledger.reduction = Some(reduction);
        }
    }
    let kinds = [GroupKind::Spot, GroupKind::OnDemand];
    repeat_requests(ledger, inputs, &kinds)
        .or_else(|| kinds.into_iter().find_map(|kind| count_launched(ledger, inputs, kind)))
}

/// The call of the first request of these groups that is not known to have taken effect.
pub(super) fn repeat_requests(ledger: &mut Ledger, inputs: &Inputs<'_>, kinds: &[GroupKind]) -> Option<Call> {
    let open: Vec<GroupKind> =
        kinds.iter().copied().filter(|kind| inputs.may_request(ledger, *kind)).collect();
    let is_open = |request: &&mut ScalingRequest| {
        request.state == RequestState::Intended && open.contains(&request.group)
    };
    let mut intended = ledger.scaling_requests.iter_mut().filter(is_open);
    intended.find_map(|request| {
        let group = inputs.group(request.group);
        intended_call(request, group, inputs.now)
    })
}

/// Whether it is not longer ago by the clock on the wall. What lies ahead of it is not: the clock was set.
fn is_within(limit: Duration, at: Timestamp, now: Timestamp) -> bool {
    at <= now && since(at, now) < limit
}

/// The call of a request that is not known to have taken effect, or what its effect shows.
fn intended_call(request: &mut ScalingRequest, group: &GroupView, now: Timestamp) -> Option<Call> {
    if let Method::LaunchInstances { zones } = &request.method {
        let too_old = now.duration_since(request.requested_at) > TOKEN_LIFE;
        if group.can_launch && !zones.is_empty() && !too_old {
            return Call::of(request);
        }
        if too_old {
            // AWS may have forgotten the token: what was launched since is claimed, the rest asks anew.
            refuse(request, FailureClass::Unknown, &NoInstance::AnswerLost.to_string(), now);
            return None;
        }
        request.method = Method::SetDesiredCapacity {};
    } else if group.desired >= request.target {
        applied(request);
        return None;
    }
    let count = request.missing();
    request.desired_before = group.desired;
    request.target = (group.desired + count).min(group.max);
    if request.target < group.desired + count {
        // Room for fewer than asked: they all ask again, each in its next attempt.
        let message = NoInstance::AtMaximum(group.max).to_string();
        refuse(request, FailureClass::Capacity, &message, now);
        return None;
    }
    Call::of(request)
}

/// Finds out whether desired capacity counts what LaunchInstances has launched, and sees to it if need be.
///
/// It may be raised at once, a moment later, or never, and somebody else may change it meanwhile. So it is
/// corrected after a while at the earliest, and only if there is more capacity than desired.
fn count_launched(ledger: &mut Ledger, inputs: &Inputs<'_>, kind: GroupKind) -> Option<Call> {
    if !inputs.may_request(ledger, kind) {
        return None;
    }
    let group = inputs.group(kind);
    let is_open = |request: &&mut ScalingRequest| request.state == RequestState::Launched;
    let mut open: Vec<&mut ScalingRequest> = ledger.requests_mut(kind).filter(is_open).collect();
    let desired_before = open.iter().min_by_key(|request| request.requested_at)?.desired_before;
    let launched: i32 = open.iter().map(|request| request.launched()).sum();
    let last_answer = open.iter().filter_map(|request| request.answered_at).max();
    if group.desired >= desired_before.saturating_add(launched) {
        open.into_iter().for_each(applied);
        return None;
    }
    // By the clock on the wall, and by one that nobody sets.
    let is_young = last_answer.is_some_and(|at| is_within(COUNTED_WITHIN, at, inputs.now));
    if is_young || inputs.deferred.is_launching(kind) {
        return None;
    }
    let is_there = |share: &&Share| share.instance_id.as_ref().is_some_and(|id| group.is_active(id));
    let there = open.iter().flat_map(|request| &request.shares).filter(is_there).count();
    let there = i32::try_from(there).unwrap_or(i32::MAX);
    let active = i32::try_from(group.active()).unwrap_or(i32::MAX);
    let target = active.min(group.desired.saturating_add(there)).min(group.max);
    if group.desired < target {
        for share in open.iter_mut().flat_map(|request| &mut request.shares) {
            if share.instance_id.as_ref().is_some_and(|id| !group.is_active(id)) {
                (share.instance_id, share.since) = (None, inputs.now);
            }
        }
        open.iter_mut().for_each(|request| request.target = target);
        let uncounted = take_uncounted(&mut open, there - (target - group.desired));
        ledger.scaling_requests.extend(uncounted);
        return Some(Call::SetDesired { group: kind, desired: target });
    }
    // Somebody else has lowered it: what was raised for us is still in it. If the group missed instances at
    // that time, ours have taken their places instead.
    let was_full = open.iter().all(|request| request.active >= request.desired_before);
    for request in open {
        if was_full {
            applied(request);
        } else {
            request.state = RequestState::Applied;
        }
    }
    None
}

/// Takes as many launched shares out of these requests: the group is at its maximum, and desired capacity
/// will never count them.
fn take_uncounted(requests: &mut [&mut ScalingRequest], count: i32) -> Option<ScalingRequest> {
    let last = requests.last().filter(|_| count > 0)?;
    let mut uncounted = ScalingRequest {
        id: format!("{}-uncounted", last.id),
        target: last.desired_before,
        state: RequestState::Applied,
        shares: Vec::new(),
        ..(**last).clone()
    };
    for request in requests.iter_mut().rev() {
        while uncounted.launched() < count
            && let Some(index) = request.shares.iter().rposition(|share| share.instance_id.is_some())
        {
            uncounted.shares.push(request.shares.remove(index));
        }
    }
    Some(uncounted)
}
