//! Boxes 3, 3.2 and 6: what the record says of instances whose nodes cannot be used. They are terminated by
//! [`crate::scaling::unusable`].

use super::facts::{Facts, Turn};
use crate::flow::Event;
use crate::group::Lifecycle;
use crate::ledger::Share;
use crate::reason::Reason;
use crate::record::{GroupKind, ReplacementStatus};

/// Reports the instances that were terminated because their nodes could not be used, each once.
pub(super) fn report(next: &mut ReplacementStatus, turn: &Turn<'_>) {
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        let Some(share) = turn.facts.share(group, turn.subject) else { continue };
        let Some(last) = &share.discarded else { continue };
        let is_there = share.instance_id.as_ref() == Some(&last.instance_id);
        if is_there || !next.note_discarded(&last.instance_id) {
            continue;
        }
        let (instance_id, why) = (last.instance_id.clone(), last.why);
        let waited_seconds = last.waited_seconds;
        let event = Event::Discarded { group, instance_id, why, waited_seconds };
        event.add_to(next, &turn.subject.node, turn.facts.now);
    }
}

/// Why a share's instance does not serve, if that is known: its node cannot be used, or a lifecycle hook
/// holds it on its way in.
pub(super) fn reason(share: Option<&Share>, group: GroupKind, facts: &Facts<'_>) -> Option<Reason> {
    let share = share?;
    let instance_id = share.instance_id.clone()?;
    if let Some(unusable) = share.unusable.as_ref().filter(|unusable| unusable.is_now()) {
        return Some(Reason::InstanceUnusable { instance_id, why: unusable.why, since: unusable.since });
    }
    let listed = facts.view?.group(group).instance(&instance_id)?;
    let since = share.claimed_at.unwrap_or(share.since);
    (listed.lifecycle == Lifecycle::Held).then_some(Reason::LaunchHeld { instance_id, since })
}
