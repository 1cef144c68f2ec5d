//! What an earlier step, or an earlier life, left between the written intent and its outcome.

use super::answers::{applied, reduced, refuse};
use super::calls::Call;
use super::inputs::Inputs;
use crate::group::{FailureClass, GroupView, NoInstance};
use crate::ledger::{Ledger, Method, RequestState, ScalingRequest};
use jiff::{SignedDuration, Timestamp};

/// AWS remembers a client token for 8 h; ours is not used again after 7.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(7);

/// Finishes what an earlier step, or an earlier life, left between the written intent and its outcome.
pub(super) fn resume(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Option<Call> {
    for request in &mut ledger.scaling_requests {
        if inputs.deferred.requests_of(request.group) {
            continue;
        }
        let group = inputs.group(request.group);
        let call = match request.state {
            RequestState::Applied => None,
            RequestState::Launched => match_desired(request, group),
            RequestState::Intended => intended_call(request, group, inputs.now),
        };
        if call.is_some() {
            return call;
        }
    }
    // A reduction without effect is forgotten, not repeated: whether it is still wanted is decided anew. So
    // is one whose instance went another way (AWS took it): the account stays open.
    let reduction = ledger.reduction.take()?;
    let group = inputs.group(reduction.group);
    let took_effect = group.desired < reduction.baseline
        && reduction.instance_id.as_ref().is_none_or(|id| !group.is_active(id));
    if took_effect {
        reduced(ledger, &reduction);
    }
    None
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
    request.baseline = group.desired;
    request.target = (group.desired + count).min(group.max);
    if request.target < group.desired + count {
        // Room for fewer than asked: they all ask again, each in its next attempt.
        let message = NoInstance::AtMaximum(group.max).to_string();
        refuse(request, FailureClass::Capacity, &message, now);
        return None;
    }
    Call::of(request)
}

/// After LaunchInstances, desired capacity is made to count what was launched, if AWS did not see to it.
fn match_desired(request: &mut ScalingRequest, group: &GroupView) -> Option<Call> {
    let launched = request.shares.iter().filter(|share| share.instance_id.is_some()).count();
    let expected = request.baseline + i32::try_from(launched).unwrap_or(0);
    request.target = expected;
    if group.desired < expected {
        return Some(Call::SetDesired { group: request.group, desired: expected });
    }
    applied(request);
    None
}
