//! Instances that are terminated, and desired capacity that is lowered again: boxes 5 and 10.

use super::calls::Call;
use super::inputs::Inputs;
use super::observe::{Pausing, launches_nothing};
use super::requests::draft;
use super::wants::Want;
use crate::group::GroupView;
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::{Balance, Ledger, Method, Reduction, ScalingRequest, Share};
use crate::reason::NodeTrouble;
use crate::record::GroupKind;
use std::collections::BTreeSet;

/// The choice of instances that are terminated because nothing runs on them.
pub(super) struct SpareInstances<'a> {
    inputs: &'a Inputs<'a>,
    /// What has just come may be that of one of these.
    pausing: &'a Pausing,
    /// Their nodes are cordoned before they are terminated.
    pub(super) cordon: BTreeSet<InstanceId>,
}

impl<'a> SpareInstances<'a> {
    pub(super) fn new(inputs: &'a Inputs<'a>, pausing: &'a Pausing) -> Self {
        Self { inputs, pausing, cordon: BTreeSet::new() }
    }

    /// Whether the instance may be terminated as idle.
    pub(super) fn may_end(&self, kind: GroupKind, id: &InstanceId) -> bool {
        let Inputs { instances, deferred, .. } = self.inputs;
        self.inputs.group(kind).may_be_claimed(id)
            && !instances.stale
            && self.pausing.iter().all(|(of, _)| *of != kind)
            && !instances.with_pods.contains(id)
            && !self.may_run_unseen(kind, id)
            && !deferred.ending(kind, id)
            && !self.cordon.contains(id)
    }

    /// Whether the node of the instance may have joined, with pods, without a word of its instance.
    fn may_run_unseen(&self, kind: GroupKind, id: &InstanceId) -> bool {
        let Inputs { instances, ledger, .. } = self.inputs;
        let trouble = instances.troubles.get(id).map(|trouble| trouble.why);
        let has = |share: &Share| share.instance_id.as_ref() == Some(id);
        let mut requests = ledger.requests(kind).filter(|request| request.shares.iter().any(has));
        trouble == Some(NodeTrouble::NotJoined)
            && requests.any(|request| instances.may_have_joined(request.requested_at))
    }

    /// Has the node cordoned first, if pods could still come to it unseen.
    pub(super) fn is_to_be_cordoned(&mut self, id: &InstanceId) -> bool {
        let takes_pods = self.inputs.instances.schedulable.contains(id);
        if takes_pods {
            self.cordon.insert(id.to_owned());
        }
        takes_pods
    }

    /// Terminates the instance, or has its node cordoned first.
    fn end(
        &mut self,
        ledger: &mut Ledger,
        kind: GroupKind,
        id: &InstanceId,
        replacement: &ReplacementName,
    ) -> Option<Call> {
        if self.is_to_be_cordoned(id) {
            return None;
        }
        Some(terminate(ledger, self.inputs, kind, id, Some(replacement)))
    }
}

/// The next instance to terminate for a story: with decrement if and only if desired capacity is still raised
/// for it.
pub(super) fn end_instances(
    ledger: &mut Ledger,
    inputs: &Inputs<'_>,
    spare: &mut SpareInstances<'_>,
) -> Option<Call> {
    for end in inputs.ends.iter().filter(|end| !inputs.deferred.ending(end.group, &end.instance_id)) {
        // A raise that is still to come would hide from us whether desired capacity was lowered.
        let is_uncounted = ledger.uncounted(end.group) > 0;
        if is_uncounted && !end.pressed {
            continue;
        }
        let group = inputs.group(end.group);
        let share = ledger.share(end.group, &end.replacement);
        let raised = share.is_some_and(Share::is_raised);
        if group.is_active(&end.instance_id) {
            if inputs.instances.stale && !end.pressed {
                continue;
            }
            if end.group == GroupKind::OnDemand && raised && group.desired <= group.min {
                // AWS refuses the decrement, and without it the group would launch another one.
                continue;
            }
            // Where nothing was raised, what the group owes the replacement is owed by us from now on.
            let owes =
                share.is_some_and(|share| share.instance_id.is_none() && share.balance == Balance::Even);
            // At the minimum AWS refuses a decrement; desired capacity is then lowered when there is room.
            let settles = group.desired > group.min && (raised || owes) && !is_uncounted;
            let settles = settles.then_some(&end.replacement);
            return Some(terminate(ledger, inputs, end.group, &end.instance_id, settles));
        }
        if raised && let Some(call) = settle(ledger, inputs, (end.group, &end.replacement), spare) {
            return Some(call);
        }
    }
    None
}

/// Takes back what replacements no longer want.
pub(super) fn withdraw(
    ledger: &mut Ledger,
    inputs: &Inputs<'_>,
    spare: &mut SpareInstances<'_>,
) -> Option<Call> {
    for ((kind, replacement), want) in inputs.wants {
        let is_wanted = matches!(want, Want::Instance { .. } | Want::Adopted { .. });
        if is_wanted || inputs.deferred.requests_of(*kind) || ledger.uncounted(*kind) > 0 {
            continue;
        }
        let Some(share) = ledger.share(*kind, replacement).cloned() else { continue };
        if *want == Want::Left {
            forget(ledger, *kind, &share);
            continue;
        }
        let group = inputs.group(*kind);
        if *want == Want::Nothing
            && share.is_raised()
            && let Some(id) = share.instance_id.as_ref().filter(|id| group.is_active(id))
        {
            // At the minimum it would come back each time it is ended: it stays until there is room.
            if group.desired > group.min
                && spare.may_end(*kind, id)
                && let Some(call) = spare.end(ledger, *kind, id, replacement)
            {
                return Some(call);
            }
            continue;
        }
        // AWS would not end it just now: no other one goes in its place.
        let is_held = |id: &InstanceId| group.is_active(id) && inputs.deferred.ending(*kind, id);
        if share.instance_id.as_ref().is_some_and(is_held) {
            continue;
        }
        if share.is_raised() {
            if let Some(call) = settle(ledger, inputs, (*kind, replacement), spare) {
                return Some(call);
            }
            continue;
        }
        // The old instance was never in the on-demand group, so nothing there is owed to who takes all back.
        let is_owed = *want != Want::Nothing || *kind == GroupKind::Spot;
        if is_owed && share.balance == Balance::OwedByUs && share.instance_id.is_none() {
            if let Some(call) = give_back(ledger, inputs, *kind, &share) {
                return Some(call);
            }
            continue;
        }
        forget(ledger, *kind, &share);
    }
    None
}

/// Raises desired capacity again by what it was lowered for a replacement that waits for nothing any
/// more: the group launches by itself what it was owed.
fn give_back(ledger: &mut Ledger, inputs: &Inputs<'_>, kind: GroupKind, share: &Share) -> Option<Call> {
    let group = inputs.group(kind);
    if group.desired >= group.max {
        return None;
    }
    ledger.remove_share(kind, &share.replacement);
    let id = format!("{}-{}-given-back", kind.slug(), inputs.now.as_millisecond());
    let shares = vec![Share { failure: None, ..share.clone() }];
    let nothing = draft(inputs, kind, id, Method::SetDesiredCapacity {}, shares);
    let request = ScalingRequest { target: group.desired + 1, ..nothing };
    let call = Call::of(&request);
    ledger.scaling_requests.push(request);
    call
}

/// The share leaves the ledger. Its instance belongs to the group from now on: no other replacement
/// claims it.
fn forget(ledger: &mut Ledger, kind: GroupKind, share: &Share) {
    ledger.remove_share(kind, &share.replacement);
    for request in ledger.requests_mut(kind) {
        request.instances_before.extend(share.instance_id.clone());
    }
}

/// Writes the intent to terminate exactly this instance; with the replacement that it settles, desired
/// capacity goes down.
pub(super) fn terminate(
    ledger: &mut Ledger,
    inputs: &Inputs<'_>,
    kind: GroupKind,
    instance_id: &InstanceId,
    settles: Option<&ReplacementName>,
) -> Call {
    ledger.reduction = Some(reduction(inputs, kind, Some(instance_id), settles));
    Call::Terminate { group: kind, instance_id: instance_id.to_owned(), decrement: settles.is_some() }
}

fn reduction(
    inputs: &Inputs<'_>,
    kind: GroupKind,
    instance_id: Option<&InstanceId>,
    settles: Option<&ReplacementName>,
) -> Reduction {
    let group = inputs.group(kind);
    Reduction {
        group: kind,
        group_name: group.name.clone(),
        instance_id: instance_id.cloned(),
        settles: settles.cloned(),
        desired_before: group.desired,
        requested_at: inputs.now,
    }
}

/// Lowers desired capacity by what it was raised for a replacement, without ending a working instance.
///
/// If fewer instances are there than desired, it is lowered alone, once the group launches nothing: AWS has
/// no victim to choose. Else the newest instance that nobody claimed and nothing runs on is terminated.
fn settle(
    ledger: &mut Ledger,
    inputs: &Inputs<'_>,
    (kind, replacement): (GroupKind, &ReplacementName),
    spare: &mut SpareInstances<'_>,
) -> Option<Call> {
    let group = inputs.group(kind);
    if group.desired <= group.min || inputs.deferred.lowering(kind) || ledger.uncounted(kind) > 0 {
        return None;
    }
    if is_one_missing(ledger, group, kind, replacement) {
        if !ledger.share(kind, replacement).is_some_and(|share| launches_nothing(share, group, inputs.now)) {
            return None;
        }
        ledger.reduction = Some(reduction(inputs, kind, None, Some(replacement)));
        return Some(Call::SetDesired { group: kind, desired: group.desired - 1 });
    }
    let claimed = ledger.claimed(kind);
    let before: BTreeSet<&InstanceId> = ledger
        .requests(kind)
        .filter(|request| request.shares.iter().any(|share| share.replacement == replacement))
        .flat_map(|request| request.instances_before.iter())
        .collect();
    let may_end = |id: &InstanceId| !inputs.instances.taken.contains(id) && spare.may_end(kind, id);
    let newest = group.instances.iter().rev().map(|instance| &instance.id);
    let unclaimed = newest.filter(|id| !claimed.contains(*id) && !before.contains(id)).find(|id| may_end(id));
    // Or what was claimed for the replacement itself, if it waits for it no longer and does not stand on
    // it.
    let own = ledger.share(kind, replacement).and_then(|share| share.instance_id.as_ref());
    let own = own.filter(|_| !inputs.waits(kind, replacement));
    let id = unclaimed.or(own.filter(|id| may_end(id)))?.to_owned();
    spare.end(ledger, kind, &id, replacement)
}

/// Whether the group has an instance fewer than desired that no other replacement waits for.
fn is_one_missing(
    ledger: &Ledger,
    group: &GroupView,
    kind: GroupKind,
    replacement: &ReplacementName,
) -> bool {
    let awaited = ledger
        .shares(kind)
        .filter(|share| share.replacement != replacement && share.awaits_in_group())
        .count();
    i32::try_from(group.active() + awaited).unwrap_or(i32::MAX) < group.desired
}
