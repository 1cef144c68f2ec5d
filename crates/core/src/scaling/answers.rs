//! What the answers of AWS mean for the ledger.

use super::calls::{Call, Deferred};
use crate::classify::{CallFailure, decisive};
use crate::group::{FailureClass, NoInstance};
use crate::ids::InstanceId;
use crate::ledger::{
    Balance, CannotLaunch, Failure, Ledger, Method, Reduction, RequestState, ScalingRequest, Share,
};
use crate::record::{GroupKind, clipped};
use jiff::Timestamp;

/// What AWS said to a call that it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The instance is on its way out.
    Terminated {
        /// Whether the answer says that desired capacity goes down with it.
        says_shrunk: bool,
    },
    /// What was launched, and what was not.
    Launched {
        /// The new instances.
        instance_ids: Vec<InstanceId>,
        /// Why there are not more.
        errors: Vec<(FailureClass, String)>,
    },
}

/// What follows from a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// It is in the ledger: the turn goes on.
    GoOn,
    /// The call is made again in a later turn; the turn goes on with what else there is to do.
    Later,
    /// It may have taken effect: nothing more is done with the group before it is read again.
    ReadAgain,
}

/// Takes in that AWS took the call.
pub fn taken(ledger: &mut Ledger, call: &Call, answer: Answer, now: Timestamp) {
    match (answer, call) {
        // Nothing says that desired capacity went down: the instance may have been on its way out already.
        // The next reading tells.
        (Answer::Terminated { says_shrunk: false }, Call::Terminate { decrement: true, .. }) => {}
        (Answer::Done | Answer::Terminated { .. }, _) => accepted(ledger, call),
        (Answer::Launched { instance_ids, errors }, _) => {
            launched(ledger, call.group(), instance_ids, &errors, now);
        }
    }
}

/// Takes in that a call failed.
pub fn failed(
    ledger: &mut Ledger,
    deferred: &mut Deferred,
    call: &Call,
    (failure, reason): (CallFailure, &str),
    now: Timestamp,
) -> AfterFailure {
    let group = call.group();
    let requests = ledger.requests(group).any(|request| {
        request.state == RequestState::Intended && request.method == Method::SetDesiredCapacity {}
    });
    match (failure, call) {
        (CallFailure::Unclear, _) => return AfterFailure::ReadAgain,
        // A later reading tells what became of it: the instance may be listed for a while.
        (CallFailure::NotFound, _) => deferred.hold(ledger, call),
        (
            CallFailure::Refused(class @ (FailureClass::Capacity | FailureClass::Quota)),
            Call::Launch { .. },
        ) => {
            refused(ledger, group, class, reason, now);
        }
        (CallFailure::Refused(_), Call::Launch { .. }) => launch_refused(ledger, group, reason, false, now),
        (CallFailure::Unsupported, Call::Launch { .. }) => launch_refused(ledger, group, reason, true, now),
        (CallFailure::Refused(class), Call::SetDesired { .. }) if requests => {
            refused(ledger, group, class, reason, now);
        }
        (CallFailure::Unsupported, Call::SetDesired { .. }) if requests => {
            refused(ledger, group, FailureClass::Configuration, reason, now);
        }
        (CallFailure::Busy | CallFailure::Refused(_) | CallFailure::Unsupported, _) => {
            deferred.add(ledger, call);
            return AfterFailure::Later;
        }
    }
    AfterFailure::GoOn
}

/// Takes in that AWS accepted the call: the answer is the proof, no reading of the group is needed.
pub fn accepted(ledger: &mut Ledger, call: &Call) {
    let group = call.group();
    ledger.has_moved(group);
    if let Some(reduction) = ledger.reduction.clone().filter(|reduction| reduction.group == group) {
        reduced(ledger, &reduction);
        return;
    }
    let Call::SetDesired { desired, .. } = call else { return };
    for request in ledger.requests_mut(group) {
        let is_open = request.state == RequestState::Launched
            || request.state == RequestState::Intended && request.method == Method::SetDesiredCapacity {};
        if is_open && request.target == *desired {
            applied(request);
        }
    }
}

/// Takes in the answer of LaunchInstances: instances for the most urgent shares; for the rest the next zone
/// is asked, or they failed. An answer without instances is no fault but says "no capacity".
pub fn launched(
    ledger: &mut Ledger,
    group: GroupKind,
    instance_ids: Vec<InstanceId>,
    errors: &[(FailureClass, String)],
    now: Timestamp,
) {
    let open = ledger.requests_mut(group).find(|request| request.state == RequestState::Intended);
    let Some(request) = open else { return };
    request.shares.sort_by_key(Share::urgency);
    let mut free = instance_ids.into_iter();
    for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
        let Some(id) = free.next() else { break };
        share.instance_id = Some(id);
        share.failure = None;
    }
    let Method::LaunchInstances { zones } = &mut request.method else { return };
    if !zones.is_empty() {
        zones.remove(0);
    }
    let here = errors.iter().map(|(class, message)| (*class, message.clone()));
    let earlier = request.failure.take().map(|failure| (failure.class, failure.message));
    let failure = decisive(here.chain(earlier), |(class, _)| *class).map(|(class, message)| Failure {
        class,
        message: clipped(message),
        at: now,
    });
    request.answered_at = Some(now);
    if request.shares.iter().all(|share| share.instance_id.is_some()) {
        request.state = RequestState::Launched;
    } else if zones.is_empty() {
        request.state = RequestState::Launched;
        let failure = failure.unwrap_or_else(|| Failure {
            class: FailureClass::Capacity,
            message: NoInstance::NoAnswer.to_string(),
            at: now,
        });
        for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
            share.failure = Some(failure.clone());
        }
    } else {
        request.failure = failure;
    }
}

/// The outcome of a request's call that AWS refused: nothing changed in the group.
///
/// A throttled or unknown answer is not a refusal: the request stays as intended and is tried again.
pub fn refused(ledger: &mut Ledger, group: GroupKind, class: FailureClass, message: &str, now: Timestamp) {
    for request in ledger.requests_mut(group) {
        if request.state == RequestState::Intended {
            refuse(request, class, message, now);
        }
    }
}

/// A group does not support LaunchInstances: its open request goes on as
/// SetDesiredCapacity. If it cannot at all, that is remembered.
pub fn launch_refused(ledger: &mut Ledger, group: GroupKind, reason: &str, at_all: bool, now: Timestamp) {
    let mut refusing = None;
    for request in ledger.requests_mut(group) {
        if request.state == RequestState::Intended {
            request.method = Method::SetDesiredCapacity {};
            // No such call was made yet: desired capacity that somebody else has raised is not ours.
            request.target = i32::MAX;
            refusing = Some(request.group_name.clone());
        }
    }
    if let Some(group_name) = refusing.filter(|_| at_all) {
        ledger.cannot_launch.retain(|refused| refused.group_name != group_name);
        let message = clipped(reason.to_owned());
        ledger.cannot_launch.push(CannotLaunch { group_name, since: now, message });
    }
}

/// The call took effect: desired capacity is raised by 1 for each share that it served.
pub(super) fn applied(request: &mut ScalingRequest) {
    request.state = RequestState::Applied;
    let by_launch = matches!(request.method, Method::LaunchInstances { .. });
    for share in &mut request.shares {
        if by_launch && share.instance_id.is_none() {
            continue;
        }
        // An instance that was owed makes up for the desired capacity that was lowered for it.
        share.balance = if share.balance == Balance::OwedByUs { Balance::Even } else { Balance::Raised };
    }
}

/// Marks the unclaimed shares of a request as failed.
pub(super) fn refuse(request: &mut ScalingRequest, class: FailureClass, message: &str, now: Timestamp) {
    request.state = RequestState::Applied;
    request.target = request.desired_before;
    for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
        share.failure = Some(Failure { class, message: clipped(message.to_owned()), at: now });
    }
}

/// The desired capacity went down by what was raised for a replacement, or by what the group owed it.
pub(super) fn reduced(ledger: &mut Ledger, reduction: &Reduction) {
    ledger.reduction = None;
    let Some(replacement) = &reduction.settles else { return };
    // What is awaited from LaunchInstances comes on top of what is left.
    let launched = |request: &&mut ScalingRequest| request.state == RequestState::Launched;
    ledger.requests_mut(reduction.group).filter(launched).for_each(|request| request.desired_before -= 1);
    let share = ledger.shares_mut(reduction.group).find(|share| share.replacement == *replacement);
    let Some(share) = share else { return };
    share.balance = match (share.is_raised(), &share.instance_id) {
        (true, Some(_)) => Balance::Even,
        // The old instance was never in the on-demand group: nothing there is owed for it, and a
        // replacement that was cancelled and begins anew asks again.
        (true, None) if reduction.group == GroupKind::OnDemand => Balance::Even,
        (true, None) => Balance::OwedByGroup,
        (false, _) => Balance::OwedByUs,
    };
}
