//! Requests for capacity: boxes 2 and 3.2.

use super::answers::refuse;
use super::calls::Call;
use super::inputs::Inputs;
use super::wants::Want;
use crate::group::{FailureClass, GroupView, NoInstance};
use crate::ledger::{Balance, Ledger, Method, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;
use std::collections::BTreeSet;

/// Writes one request for all replacements that want an instance of a group and have no share in it yet.
pub(super) fn request_capacity(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Option<Call> {
    [GroupKind::Spot, GroupKind::OnDemand].into_iter().find_map(|kind| request_from(ledger, inputs, kind))
}

fn request_from(ledger: &mut Ledger, inputs: &Inputs<'_>, kind: GroupKind) -> Option<Call> {
    if inputs.deferred.requests_of(kind) {
        return None;
    }
    let group = inputs.group(kind);
    let NewShares { mut asking, replaced_by_group, first_zone } = new_shares(ledger, inputs, kind);
    let request = |suffix: &str, method: Method, shares: Vec<Share>| {
        let id = format!("{}-{}{suffix}", kind.slug(), inputs.now.as_millisecond());
        let raised = i32::try_from(shares.len()).unwrap_or(0);
        ScalingRequest { target: group.desired + raised, ..draft(inputs, kind, id, method, shares) }
    };
    let avoided = asking.iter().filter_map(|share| share.discarded.as_ref());
    let avoided: BTreeSet<&str> = avoided.map(|last| last.zone.as_str()).collect();
    let method = method(group, first_zone.as_deref(), &avoided);
    if !replaced_by_group.is_empty() {
        let nothing = request("-replaced", method.clone(), replaced_by_group);
        let (target, state) = (nothing.baseline, RequestState::Applied);
        ledger.scaling_requests.push(ScalingRequest { target, state, ..nothing });
    }
    asking.sort_by_key(Share::urgency);
    for share in &asking {
        ledger.remove_share(kind, &share.replacement);
    }
    let suspended = group.setup.launch_suspended();
    let room = if suspended.is_some() { 0 } else { usize::try_from(group.max - group.desired).unwrap_or(0) };
    let over = asking.split_off(room.min(asking.len()));
    if !over.is_empty() {
        let mut over = request("-refused", method.clone(), over);
        let at_maximum = || (FailureClass::Capacity, NoInstance::AtMaximum(group.max));
        let (class, message) =
            suspended.map_or_else(at_maximum, |reason| (FailureClass::Configuration, reason));
        refuse(&mut over, class, &message.to_string(), inputs.now);
        ledger.scaling_requests.push(over);
    }
    if asking.is_empty() {
        return None;
    }
    let request = request("", method, asking);
    let call = Call::of(&request);
    ledger.scaling_requests.push(request);
    call
}

/// A request that changes nothing yet.
pub(super) fn draft(
    inputs: &Inputs<'_>,
    kind: GroupKind,
    id: String,
    method: Method,
    shares: Vec<Share>,
) -> ScalingRequest {
    let group = inputs.group(kind);
    ScalingRequest {
        id,
        group: kind,
        group_name: group.name.clone(),
        baseline: group.desired,
        target: group.desired,
        instances_before: group.instances.iter().map(|instance| instance.id.clone()).collect(),
        requested_at: inputs.now,
        method,
        state: RequestState::Intended,
        failure: None,
        shares,
    }
}

/// The shares that a group is to be asked for, or that it serves by itself.
#[derive(Default)]
struct NewShares {
    asking: Vec<Share>,
    /// The group replaces the old instance by itself: desired capacity has a place for it.
    replaced_by_group: Vec<Share>,
    /// The zone that is tried first.
    first_zone: Option<String>,
}

fn new_shares(ledger: &Ledger, inputs: &Inputs<'_>, kind: GroupKind) -> NewShares {
    let mut new = NewShares::default();
    for ((_, replacement), want) in inputs.wants.iter().filter(|((group, _), _)| *group == kind) {
        let Want::Instance { attempt, deadline, stood_in_for, zone, gone, .. } = want else { continue };
        let held = ledger.share(kind, replacement);
        if held.is_some_and(|share| !share.asks(inputs.now)) || ledger.is_left_behind(kind, replacement) {
            continue;
        }
        let share = Share {
            replacement: replacement.clone(),
            balance: held.map_or(Balance::Even, |share| share.balance),
            attempt: *attempt,
            since: inputs.now,
            deadline: *deadline,
            stood_in_for: *stood_in_for,
            instance_id: None,
            claimed_at: None,
            unusable: None,
            discarded: held.and_then(|share| share.discarded.clone()),
            failure: None,
        };
        if *gone && held.is_none() {
            new.replaced_by_group.push(Share { balance: Balance::OwedByGroup, ..share });
            continue;
        }
        // One zone goes first per call: replacements that need another one come in the next.
        if new.asking.is_empty() {
            new.first_zone.clone_from(zone);
        } else if inputs.group(kind).can_launch && new.first_zone != *zone {
            continue;
        }
        new.asking.push(share);
    }
    new
}

/// LaunchInstances where the group can, the volumes' zone first and then the group's own order; last are the
/// zones whose last instance had a node that could not be used.
fn method(group: &GroupView, first_zone: Option<&str>, avoided: &BTreeSet<&str>) -> Method {
    if !group.can_launch || group.zones.is_empty() {
        return Method::SetDesiredCapacity {};
    }
    let mut zones = group.zones.clone();
    zones.sort_by_key(|zone| (Some(zone.as_str()) != first_zone, avoided.contains(zone.as_str())));
    Method::LaunchInstances { zones }
}
