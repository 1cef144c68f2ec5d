//! Instances that are in service and whose nodes never become usable: they do not join, are not Ready, stay
//! cordoned, keep a start-up taint, the pods do not fit with them, or they stand idle. After a limit each is
//! terminated by its id, and another one requested.
//!
//! Desired capacity goes down with the instance, so the group launches no successor by itself: the share asks
//! anew, in another zone, after a pause. Only at its minimum size the group replaces the instance.

use super::calls::Call;
use super::inputs::Inputs;
use super::releases::{SpareInstances, terminate};
use super::wants::Want;
use crate::group::{FailureClass, NoInstance};
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::unusable::{Discarded, Unusable};
use crate::ledger::{Failure, Ledger, ScalingRequest, Share};
use crate::reason::NodeTrouble;
use crate::record::GroupKind;
use std::time::Duration;

/// Notes since when the nodes of claimed instances cannot be used. On an old picture nothing is noted.
pub(super) fn watch(ledger: &mut Ledger, inputs: &Inputs<'_>) {
    let now = inputs.now;
    for request in &mut ledger.scaling_requests {
        let group = inputs.group(request.group);
        for share in &mut request.shares {
            let Some(id) = &share.instance_id else {
                (share.claimed_at, share.unusable) = (None, None);
                continue;
            };
            share.claimed_at.get_or_insert(now);
            if inputs.instances.stale {
                continue;
            }
            let before = share.unusable.as_ref().map(|held| held.why);
            let why = inputs.instances.trouble(id, before);
            let why = why.filter(|_| group.is_in_service(id));
            if why.is_none() && share.discarded.as_ref().is_some_and(|last| last.instance_id == *id) {
                // It became usable before the call.
                share.discarded = None;
            }
            let time = match inputs.want(request.group, &share.replacement) {
                Some(Want::Instance { join_timeout, .. }) => *join_timeout,
                _ => Duration::ZERO,
            };
            share.unusable = Unusable::next(share.unusable.take(), why, time, now);
        }
    }
}

/// Terminates the next instance whose node had its time: never one that runs pods, or that a replacement
/// stands on.
pub(super) fn end(ledger: &mut Ledger, inputs: &Inputs<'_>, spare: &mut SpareInstances<'_>) -> Option<Call> {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        if ledger.uncounted(kind) > 0 {
            continue;
        }
        let due: Vec<(InstanceId, ReplacementName, Unusable)> =
            ledger.requests(kind).flat_map(|request| due(inputs, request)).collect();
        for (id, replacement, unusable) in due {
            if spare.may_end(kind, &id) && !spare.is_to_be_cordoned(&id) {
                return Some(discard(ledger, inputs, (kind, &id, &replacement), &unusable));
            }
        }
    }
    None
}

/// The instances of a request whose time is over.
fn due(inputs: &Inputs<'_>, request: &ScalingRequest) -> Vec<(InstanceId, ReplacementName, Unusable)> {
    let facts = inputs.instances;
    let is_due = |share: &Share| {
        let Want::Instance { join_timeout, .. } = inputs.want(request.group, &share.replacement)? else {
            return None;
        };
        let (id, unusable) = (share.instance_id.as_ref()?, share.unusable.as_ref()?);
        // What stands idle has had its time.
        let time = if unusable.why == NodeTrouble::StandsIdle { Duration::ZERO } else { *join_timeout };
        let is_over = unusable.is_now() && crate::time::since(unusable.since, inputs.now) >= time;
        let is_hidden = unusable.why == NodeTrouble::NotJoined && facts.may_have_joined(request.requested_at);
        let is_final = match unusable.why {
            NodeTrouble::PodsDoNotFit => !another_zone_may_do(inputs, request, share),
            // At its minimum the group would launch the next one at once.
            NodeTrouble::StandsIdle => {
                let group = inputs.group(request.group);
                group.desired <= group.min
            }
            _ => false,
        };
        (is_over && !is_hidden && !is_final && !facts.taken.contains(id))
            .then(|| (id.clone(), share.replacement.clone(), unusable.clone()))
    };
    request.shares.iter().filter_map(is_due).collect()
}

/// Whether the group can be asked for a zone that was not tried yet. What does not fit in any of them is
/// kept: the rules of the pods may change, or others leave.
fn another_zone_may_do(inputs: &Inputs<'_>, request: &ScalingRequest, share: &Share) -> bool {
    let group = inputs.group(request.group);
    let own = share.instance_id.as_ref().and_then(|id| group.instance(id)).map(|held| held.zone.as_str());
    let tried: Vec<&str> = share.discarded.iter().flat_map(Discarded::zones).chain(own).collect();
    group.can_launch && group.zones.iter().any(|zone| !tried.contains(&zone.as_str()))
}

fn discard(
    ledger: &mut Ledger,
    inputs: &Inputs<'_>,
    (kind, id, replacement): (GroupKind, &InstanceId, &ReplacementName),
    unusable: &Unusable,
) -> Call {
    let (group, now) = (inputs.group(kind), inputs.now);
    // At its minimum the group refuses a decrement, and launches the successor by itself. So it does for an
    // on-demand instance that came for somebody else.
    let share = ledger.share(kind, replacement);
    let is_ours = kind == GroupKind::Spot || share.is_some_and(Share::is_raised);
    let settles = (is_ours && group.desired > group.min).then_some(replacement);
    let why = unusable.why;
    // Of a node that stands idle the zone is as good as any.
    let is_idle = why == NodeTrouble::StandsIdle;
    let since = share.filter(|_| is_idle).and_then(|share| share.claimed_at).unwrap_or(unusable.since);
    let waited_seconds = u32::try_from(crate::time::since(since, now).as_secs()).unwrap_or(u32::MAX);
    if let Some(share) = ledger.shares_mut(kind).find(|share| share.replacement == replacement) {
        // A call that is made again counts once.
        let again = |last: &Discarded| u32::from(last.instance_id == *id);
        let last = share.discarded.take();
        let zone = group.instance(id).filter(|_| !is_idle).map_or_else(String::new, |held| held.zone.clone());
        let earlier_zones = last.as_ref().map_or_else(Vec::new, |last| last.zones_but(&zone));
        let times = last.map_or(1, |last| last.times.saturating_add(1 - again(&last)));
        share.discarded = Some(Discarded {
            instance_id: id.clone(),
            zone,
            earlier_zones,
            why,
            waited_seconds,
            at: now,
            times,
        });
        let message = NoInstance::Unusable { instance_id: id.clone(), why, waited_seconds }.to_string();
        share.failure = settles.map(|_| Failure { class: FailureClass::Unusable, message, at: now });
    }
    terminate(ledger, inputs, kind, id, settles)
}
