//! Which instance belongs to which share.

use super::inputs::Inputs;
use super::observe::Pausing;
use super::requests::draft;
use super::wants::Want;
use crate::baseline::may_adopt;
use crate::ids::InstanceId;
use crate::ledger::{Balance, Ledger, Method, RequestState, ScalingRequest, Share};
use crate::record::GroupKind;

/// Gives new instances to the shares that want one and have none, the most urgent first. A share that is
/// being withdrawn claims nothing more: what it would end then belongs to somebody else.
pub(super) fn claim(ledger: &mut Ledger, inputs: &Inputs<'_>, pausing: &Pausing) {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        claim_from(ledger, inputs, kind, pausing);
    }
}

/// The same of one group.
pub(super) fn claim_from(ledger: &mut Ledger, inputs: &Inputs<'_>, kind: GroupKind, pausing: &Pausing) {
    let claimed = ledger.claimed(kind);
    let free = inputs.group(kind).instances.iter().filter(|instance| {
        instance.lifecycle.may_be_claimed()
            && !claimed.contains(&instance.id)
            && !inputs.instances.taken.contains(&instance.id)
    });
    for instance in free {
        // A share that the group refused brought nothing: it comes after all that did.
        let most_urgent = ledger
            .requests_mut(kind)
            // Of one whose launch is not counted yet nobody else's instance is to be counted.
            .filter(|request| request.state != RequestState::Launched)
            .filter(|request| !request.instances_before.contains(&instance.id))
            .flat_map(|request| {
                let unchanged = request.target == request.desired_before;
                request
                    .shares
                    .iter_mut()
                    .map(move |share| (unchanged && share.balance != Balance::OwedByGroup, share))
            })
            .filter(|(_, share)| share.awaits() && inputs.waits(kind, &share.replacement))
            .filter(|(_, share)| !pausing.contains(&(kind, share.replacement.clone())))
            .min_by_key(|(refused, share)| (*refused, share.urgency()));
        if let Some((_, share)) = most_urgent {
            share.instance_id = Some(instance.id.clone());
            share.failure = None;
        }
    }
}

/// Writes down what others raised for an adopted instance as raised for its replacement.
pub(super) fn adopt(ledger: &mut Ledger, inputs: &Inputs<'_>) {
    let (kind, group) = (GroupKind::OnDemand, &inputs.view.on_demand);
    if inputs.deferred.requests_of(kind) || inputs.deferred.is_behind(kind) {
        return;
    }
    for ((of, replacement), want) in inputs.wants {
        let Want::Adopted { instance_id, baseline } = want else { continue };
        let is_new = *of == kind && ledger.share(kind, replacement).is_none();
        if !is_new || may_adopt(ledger, group, instance_id, Some(*baseline)) != Some(true) {
            continue;
        }
        let share = Share {
            replacement: replacement.clone(),
            balance: Balance::Raised,
            attempt: 0,
            since: inputs.now,
            deadline: None,
            stood_in_for: false,
            instance_id: Some(instance_id.clone()),
            claimed_at: Some(inputs.now),
            unusable: None,
            discarded: None,
            failure: None,
        };
        let id = format!("{}-{}-adopted", kind.slug(), inputs.now.as_millisecond());
        let request = draft(inputs, kind, id, Method::SetDesiredCapacity {}, vec![share]);
        let (desired_before, state) = (group.desired - 1, RequestState::Applied);
        ledger.scaling_requests.push(ScalingRequest { desired_before, state, ..request });
    }
}

/// Binds shares to instances that their request did not bring, because AWS replaced an instance itself: only
/// as many as the group is not missing.
///
/// A replacement is owed one of those that serve if its old instance went with what was raised for it, if
/// a more urgent replacement has claimed its own instance, or if somebody else lowered desired capacity.
/// What is still raised for a replacement that waits no longer, and whose instance was lost, goes with
/// one of them.
pub(super) fn bind_to_successors(ledger: &mut Ledger, inputs: &Inputs<'_>, pausing: &Pausing) {
    let instances = inputs.instances;
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = inputs.group(kind);
        let claimed = ledger.claimed(kind);
        let mut free: Vec<&InstanceId> = group.instances.iter().rev().map(|instance| &instance.id).collect();
        free.retain(|id| {
            group.may_be_claimed(id) && !claimed.contains(*id) && !instances.taken.contains(*id)
        });
        let (mut waiting, leaving): (Vec<_>, Vec<_>) = ledger
            .requests_mut(kind)
            .filter(|request| request.state != RequestState::Launched)
            .flat_map(|request| &mut request.shares)
            .filter(|share| share.awaits_in_group())
            .filter(|share| !pausing.contains(&(kind, share.replacement.clone())))
            .filter_map(|share| Some((inputs.want(kind, &share.replacement)?, share)))
            .partition(|(want, _)| matches!(want, Want::Instance { .. }));
        let missing = usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active());
        let excess = waiting.len().saturating_sub(missing);
        waiting.sort_by_key(|(_, share)| share.is_raised());
        for (_, share) in waiting.into_iter().take(excess) {
            if !free.is_empty() {
                share.instance_id = Some(free.remove(0).clone());
            }
        }
        if missing > 0 {
            continue;
        }
        free.sort_by_key(|id| instances.with_pods.contains(*id));
        for (_, share) in leaving.into_iter().filter(|(_, share)| share.is_raised()) {
            if !free.is_empty() {
                share.instance_id = Some(free.remove(0).clone());
            }
        }
    }
}
