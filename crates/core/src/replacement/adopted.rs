//! What the replacement of an adopted instance, which is above the on-demand baseline, wants of the groups.

use super::close::is_settled;
use super::facts::{Facts, Subject};
use crate::ledger::wants::{Want, Wants};
use crate::record::{FallbackState, GroupKind, ReplacementStatus};

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
