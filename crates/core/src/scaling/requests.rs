//! Requests for capacity: boxes 2 and 3.2.

use super::answers::refuse;
use super::calls::Call;
use super::even_zones;
use super::inputs::Inputs;
use super::wants::Want;
use super::zones;
use crate::group::{FailureClass, GroupView, NoInstance};
use crate::ledger::unusable::Discarded;
use crate::ledger::{Balance, Ledger, Method, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;

/// Writes one request for all replacements that want an instance of a group and have no share in it yet.
pub(super) fn request_capacity(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Option<Call> {
    [GroupKind::Spot, GroupKind::OnDemand].into_iter().find_map(|kind| request_from(ledger, inputs, kind))
}

/// The request of one group.
pub(super) fn request_from(ledger: &mut Ledger, inputs: &Inputs<'_>, kind: GroupKind) -> Option<Call> {
    if !inputs.may_request(ledger, kind) {
        return None;
    }
    let group = inputs.group(kind);
    let NewShares { mut asking, replaced_by_group, zones } = new_shares(ledger, inputs, kind);
    let request = |suffix: &str, method: Method, shares: Vec<Share>| {
        let id = format!("{}-{}{suffix}", kind.slug(), inputs.now.as_millisecond());
        let raised = i32::try_from(shares.len()).unwrap_or(0);
        ScalingRequest { target: group.desired + raised, ..draft(inputs, kind, id, method, shares) }
    };
    let method = method(group, zones);
    if !replaced_by_group.is_empty() {
        let nothing = request("-replaced", method.clone(), replaced_by_group);
        let (target, state) = (nothing.desired_before, RequestState::Applied);
        ledger.scaling_requests.push(ScalingRequest { target, state, ..nothing });
    }
    for share in &asking {
        ledger.remove_share(kind, &share.replacement);
    }
    let suspended = group.setup.launch_suspended();
    let room = group.max - group.desired - ledger.uncounted(kind);
    let room = if suspended.is_some() { 0 } else { usize::try_from(room).unwrap_or(0) };
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
        desired_before: group.desired,
        target: group.desired,
        instances_before: group.instances.iter().map(|instance| instance.id.clone()).collect(),
        active: i32::try_from(group.active()).unwrap_or(i32::MAX),
        requested_at: inputs.now,
        answered_at: None,
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
    /// The zones in the order in which they are asked; none: the group is asked itself.
    zones: Vec<String>,
}

fn new_shares(ledger: &Ledger, inputs: &Inputs<'_>, kind: GroupKind) -> NewShares {
    let mut new = NewShares::default();
    let mut asking = Vec::new();
    let group = inputs.group(kind);
    for ((_, replacement), want) in inputs.wants.iter().filter(|((group, _), _)| *group == kind) {
        let Want::Instance { attempt, deadline, stood_in_for, gone, .. } = want else { continue };
        let held = ledger.share(kind, replacement);
        let asks = held.is_none_or(|share| share.is_due(inputs.now));
        let left_to_group = even_zones::is_left_to_group(ledger, inputs, kind, replacement, want);
        if !(asks || left_to_group) || ledger.is_left_behind(kind, replacement) {
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
        let order = || {
            let avoided: Vec<&str> = share.discarded.iter().flat_map(Discarded::zones).collect();
            let zones = zones::order(inputs, kind, replacement, want, &avoided);
            even_zones::permitted(group, want, zones, &avoided)
        };
        let zones = if left_to_group { Vec::new() } else { order() };
        asking.push((share, zones));
    }
    asking.sort_by_key(|(share, _)| share.urgency());
    // One zone goes first per call: replacements that need another one come in the next.
    for (share, zones) in asking {
        if new.asking.is_empty() {
            new.zones = zones;
        } else if group.can_launch && new.zones.first() != zones.first() {
            continue;
        }
        new.asking.push(share);
    }
    new
}

/// LaunchInstances where the group can.
fn method(group: &GroupView, zones: Vec<String>) -> Method {
    if !group.can_launch || zones.is_empty() {
        return Method::SetDesiredCapacity {};
    }
    Method::LaunchInstances { zones }
}
