//! In which order the zones of a group are asked for an instance.

use super::inputs::Inputs;
use super::wants::Want;
use crate::ids::ReplacementName;
use crate::record::GroupKind;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;

/// Interruptions of one instance type in one zone come together: in over 92 % of cases within three minutes
/// (arXiv 2604.16457). The notice comes two minutes before the deadline (EC2 User Guide, "Spot Instance
/// interruption notices").
const TOGETHER_PAST_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

/// Whether the interruption with this deadline was announced so lately that others of its zone may follow.
#[must_use]
pub fn may_be_followed(deadline: Timestamp, now: Timestamp) -> bool {
    now.duration_since(deadline) < TOGETHER_PAST_DEADLINE
}

/// The zones of a group in the order in which they are asked for a replacement: that of the pods' volumes,
/// then those whose Spot instances were not interrupted lately, then the old node's own, then the emptiest.
/// Last are the zones to be avoided, where the nodes of the instances before could not be used. Among equals
/// the group's own order holds.
pub(super) fn order(
    inputs: &Inputs<'_>,
    kind: GroupKind,
    replacement: &ReplacementName,
    want: &Want,
    avoided: &[&str],
) -> Vec<String> {
    let volume_zone = match want {
        Want::Instance { zone, .. } => zone.as_deref(),
        Want::Adopted { .. } | Want::Left | Want::Nothing | Want::Done => None,
    };
    let (group, spot) = (inputs.group(kind), inputs.group(GroupKind::Spot));
    let interrupted: BTreeSet<&str> = spot
        .instances
        .iter()
        .filter(|held| kind == GroupKind::Spot && inputs.instances.interrupted.contains(&held.id))
        .map(|held| held.zone.as_str())
        .collect();
    // A replacement has the name of its old instance.
    let old = spot.instances.iter().find(|held| *held.id == **replacement);
    let own = old.map(|held| held.zone.as_str());
    let mut zones = group.zones.clone();
    zones.sort_by_key(|zone| {
        let zone = zone.as_str();
        let (is_bad, is_own) = (avoided.contains(&zone), own == Some(zone));
        (Some(zone) != volume_zone, is_bad, interrupted.contains(zone), !is_own, group.active_in(zone))
    });
    zones
}
