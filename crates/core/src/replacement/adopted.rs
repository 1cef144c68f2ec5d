//! Boxes 6 to 11 of an on-demand instance above the baseline, which was adopted: what it wants of the groups,
//! and how it is released. Its return is that of any other fallback.

use super::close::is_settled;
use super::facts::{Facts, Subject, Turn};
use super::go_back::nothing_to_return;
use crate::adoption;
use crate::flow::Event;
use crate::ledger::wants::{Want, Wants};
use crate::record::{Capacity, FallbackState, FlowBox, GroupKind, ReplacementStatus};

/// Whether the ledger does not hold yet what was raised for the instance. Nothing is done with it before.
pub(super) fn is_awaited(capacity: &Capacity, turn: &Turn<'_>) -> bool {
    let held = turn.facts.share(GroupKind::OnDemand, turn.subject);
    turn.subject.adopted && capacity.group == GroupKind::OnDemand && held.is_none()
}

/// Waits for the ledger. If nothing is above the baseline by now, the instance is released.
pub(super) fn wait(next: &mut ReplacementStatus, capacity: &Capacity, turn: &Turn<'_>) {
    let Facts { view: Some(view), ledger, baseline, .. } = turn.facts else { return };
    match adoption::may_adopt(ledger, &view.on_demand, &capacity.instance_id, *baseline) {
        Some(false) => release(next, capacity, turn),
        _ => next.block(FlowBox::Monitor, [turn.facts.not_settled(GroupKind::OnDemand)], turn.facts.now),
    }
}

/// The instance is left to its owner again.
pub(super) fn release(next: &mut ReplacementStatus, capacity: &Capacity, turn: &Turn<'_>) {
    nothing_to_return(next);
    Event::Released.add_to(next, &capacity.node_name, turn.facts.now);
}

/// What is wanted of each group. `instance` is one more, for a replacement that another instance stands in
/// for or not.
pub(super) fn want(
    subject: &Subject,
    status: &ReplacementStatus,
    facts: &Facts<'_>,
    instance: &dyn Fn(bool) -> Want,
) -> Wants {
    let Some(capacity) = status.capacity.taken() else { return Wants::new() };
    let (settled, goes) = (is_settled(status), status.fallback.is_past_drain());
    let is_gone = matches!(*status.fallback, FallbackState::Gone { .. });
    let returned = matches!(*status.fallback, FallbackState::Gone { successor: Some(_) });
    let is_spot = capacity.group == GroupKind::Spot;
    let of_spot = match () {
        () if returned => Want::Left,
        () if settled => Want::Nothing,
        () if goes && is_spot => Want::Done,
        () => instance(!is_spot),
    };
    let is_held = facts.share(GroupKind::OnDemand, subject).is_some();
    let of_on_demand = match facts.baseline {
        _ if is_spot || settled && !is_gone => Want::Left,
        _ if settled || goes => Want::Done,
        Some(baseline) if !is_held => Want::Adopted { instance_id: capacity.instance_id.clone(), baseline },
        None if !is_held => Want::Left,
        _ => instance(false),
    };
    let mut wants = Wants::new();
    // A group that replaces by itself is asked for nothing.
    if !status.is_replaced_by_group() {
        wants.insert((GroupKind::Spot, subject.name.clone()), of_spot);
    }
    wants.insert((GroupKind::OnDemand, subject.name.clone()), of_on_demand);
    wants
}
