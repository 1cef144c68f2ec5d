//! What a reading of the groups shows about the shares.

use super::calls::Call;
use super::inputs::Inputs;
use super::wants::Want;
use crate::classify::{decisive, has_tried_all};
use crate::group::{FailedActivity, FailureClass, GroupView, NoInstance};
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::{Balance, CLOCK_SKEW, DesiredSeen, Failure, Ledger, RequestState, Share};
use crate::record::{GroupKind, clipped};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// An instance that was claimed longer ago was no failed launch.
const BOOTS_WITHIN: SignedDuration = SignedDuration::from_secs(300);

/// A launch began at most so long before its instance was claimed.
const LAUNCHED_BEFORE: SignedDuration = SignedDuration::from_secs(30);

/// After a launch that failed, a group does not begin the next one for so long: the reported ones are about a
/// minute apart.
const PAUSES_FOR: SignedDuration = SignedDuration::from_secs(20);

/// Shares that claim nothing in this turn.
pub(super) type Pausing = BTreeSet<(GroupKind, ReplacementName)>;

/// Takes in what changed about the shares: attempts, urgency, lost instances, failed launches. Gives those
/// that claim nothing in this turn: why the last instance was lost is read before the next one counts, and
/// what failed is to be known before a further instance makes it forgotten.
pub(super) fn refresh_shares(ledger: &mut Ledger, inputs: &Inputs<'_>) -> Pausing {
    let now = inputs.now;
    let mut pausing = Pausing::new();
    // Whether its own termination has ended it decides whose place is owed: that comes first.
    let in_doubt = ledger.reduction.as_ref().and_then(|reduction| reduction.instance_id.clone());
    for request in &mut ledger.scaling_requests {
        let group = inputs.group(request.group);
        for share in &mut request.shares {
            if let Some(Want::Instance { attempt, deadline, stood_in_for, gone, .. }) =
                inputs.want(request.group, &share.replacement)
            {
                let settled = request.state == RequestState::Applied && share.balance == Balance::Even;
                if *gone && settled && share.instance_id.is_none() {
                    (share.balance, share.failure) = (Balance::OwedByGroup, None);
                }
                share.deadline = *deadline;
                share.stood_in_for = *stood_in_for;
                if share.attempt < *attempt {
                    share.attempt = *attempt;
                    if !share.rests(now) {
                        (share.since, share.failure) = (now, None);
                    }
                }
            }
            let is_counted = request.state == RequestState::Applied;
            let is_lost = |id: &InstanceId| !group.is_active(id) && in_doubt.as_ref() != Some(id);
            if is_counted && share.instance_id.as_ref().is_some_and(is_lost) {
                share.instance_id = None;
                share.since = lost_since(share, now);
                if share.since < now {
                    pausing.insert((request.group, share.replacement.clone()));
                }
            }
            if share.instance_id.is_some() {
                share.failure = None;
                continue;
            }
            // Of an unknown failure nothing follows: whatever says more later counts.
            let says_more = |class: FailureClass| match &share.failure {
                None => true,
                Some(held) => held.class == FailureClass::Unknown && class != FailureClass::Unknown,
            };
            if let Some(failed) = failed_launch(share, group, now).filter(|found| says_more(found.class)) {
                let (class, message) = (failed.class, clipped(failed.message.clone()));
                if class != FailureClass::Unknown {
                    pausing.insert((request.group, share.replacement.clone()));
                }
                share.failure = Some(Failure { class, message, at: now });
            }
            let is_open = share.failure.as_ref().is_none_or(|held| held.class == FailureClass::Unknown);
            if let Some(why) = group.setup.launch_suspended().filter(|_| is_open) {
                let message = why.to_string();
                share.failure = Some(Failure { class: FailureClass::Configuration, message, at: now });
            }
        }
    }
    pausing.retain(|(kind, replacement)| inputs.waits(*kind, replacement));
    pausing
}

/// From when on failed launches count for a share whose instance is lost. An instance that dies on its way in
/// makes its launch a failed one, which began before it was claimed.
fn lost_since(share: &Share, now: Timestamp) -> Timestamp {
    let claimed = share.claimed_at.filter(|at| now.duration_since(*at) < BOOTS_WITHIN);
    claimed.map_or(now, |at| (at - LAUNCHED_BEFORE).max(share.since))
}

/// The failure that decides about a share whose group launches by itself, once one does.
///
/// A group that fails in one zone tries the next (User Guide, "Availability Zone distribution"), so one zone
/// out of capacity is not the market. With a deadline nobody waits for the next zone.
fn failed_launch<'a>(share: &Share, group: &'a GroupView, now: Timestamp) -> Option<&'a FailedActivity> {
    let is_final = |found: &&FailedActivity| {
        share.deadline.is_some() || has_tried_all(group, found, share.since - CLOCK_SKEW, share.since, now)
    };
    decisive_failure(share, group).filter(is_final)
}

/// The failure that weighs most among those since a share asks for its instance.
fn decisive_failure<'a>(share: &Share, group: &'a GroupView) -> Option<&'a FailedActivity> {
    decisive(group.failed_since(share.since - CLOCK_SKEW), |failure| failure.class)
}

/// Whether the group launches nothing for a share just now, as far as can be seen.
///
/// While it launches, nobody may lower desired capacity without naming an instance: the group would end a
/// working one for the one that is about to come (kubernetes/autoscaler#9182).
pub(super) fn launches_nothing(share: &Share, group: &GroupView, now: Timestamp) -> bool {
    if group.unlisted_launches > 0 {
        return false;
    }
    let just_failed = |failed: &FailedActivity| now.duration_since(failed.started_at) <= PAUSES_FOR;
    group.setup.launch_suspended().is_some()
        || decisive_failure(share, group)
            .is_some_and(|found| has_tried_all(group, found, share.since - CLOCK_SKEW, share.since, now))
            && group.failed_since(share.since - CLOCK_SKEW).any(just_failed)
}

/// Finds shares whose raised desired capacity somebody else lowered again, as cluster-autoscaler does
/// when a node does not come. Their instances are requested again, after a backoff.
pub(super) fn take_in_erased(ledger: &mut Ledger, inputs: &Inputs<'_>) {
    let mut kept = Vec::new();
    for seen in std::mem::take(&mut ledger.desired_seen) {
        let group = inputs.group(seen.group);
        if seen.group_name != group.name {
            continue;
        }
        let mut waiting: Vec<&mut Share> =
            ledger.shares_mut(seen.group).filter(|share| share.awaits_in_group()).collect();
        let open = usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active());
        let lowered = usize::try_from(seen.desired - group.desired).unwrap_or(0);
        let erased = lowered.min(waiting.len().saturating_sub(open));
        waiting.sort_by_key(|share| share.urgency());
        for share in waiting.into_iter().rev().take(erased) {
            // Nothing is raised for it any more; only a place that the old instance left is owed. While the
            // old instance is still there it holds that place, and takes it out of desired with it when it is
            // ended.
            share.balance = if share.is_raised() { Balance::Even } else { Balance::OwedByUs };
            let message = NoInstance::DesiredLowered(group.desired).to_string();
            share.failure = Some(Failure { class: FailureClass::Capacity, message, at: inputs.now });
        }
        // AWS has not chosen its victim yet: it may still be an instance of ours.
        let rest = lowered - erased;
        if rest > 0 && i32::try_from(group.active()).unwrap_or(i32::MAX) > group.desired {
            let desired = group.desired + i32::try_from(rest).unwrap_or(0);
            kept.push(DesiredSeen { desired, ..seen });
        }
    }
    ledger.desired_seen = kept;
}

/// Remembers the desired capacity of groups that something is awaited from, unless we are about to change it.
pub(super) fn watch_desired(ledger: &mut Ledger, inputs: &Inputs<'_>, call: Option<&Call>) {
    let quiet = |kind: GroupKind| {
        call.is_none_or(|call| call.group() != kind)
            && !ledger.is_in_doubt(kind)
            && ledger.requests(kind).all(|request| request.state == RequestState::Applied)
            && ledger.shares(kind).any(Share::has_place)
    };
    let kinds = [GroupKind::Spot, GroupKind::OnDemand].into_iter().filter(|kind| quiet(*kind));
    let seen = kinds.map(|kind| {
        let group = inputs.group(kind);
        let kept = ledger.desired_seen.iter().find(|held| held.group == kind).map(|held| held.desired);
        let desired = kept.unwrap_or(group.desired);
        DesiredSeen { group: kind, group_name: group.name.clone(), desired }
    });
    ledger.desired_seen = seen.collect();
}
