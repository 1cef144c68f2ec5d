//! In which order the zones of a group are asked for an instance.

use super::inputs::Inputs;
use super::wants::Want;
use crate::ids::ReplacementName;
use crate::record::{GroupKind, NoticeKind, ReplacementStatus};
use jiff::{SignedDuration, Timestamp};

/// Interruptions of one instance type in one zone come together: in over 92 % of cases within three minutes
/// (arXiv 2604.16457). The notice comes two minutes before the deadline (EC2 User Guide, "Spot Instance
/// interruption notices").
const TOGETHER_PAST_DEADLINE: SignedDuration = SignedDuration::from_secs(60);

/// The zone of an interruption that was announced so lately that others of its zone may follow. What a group
/// ends and what EC2 maintains says nothing about the market of a zone.
#[must_use]
pub fn interrupted_lately(status: &ReplacementStatus, now: Timestamp) -> Option<&str> {
    let is_interruption = status.notice == Some(NoticeKind::SpotInterruption);
    let lately = status.deadline.is_some_and(|at| now.duration_since(at) < TOGETHER_PAST_DEADLINE);
    status.zone.as_deref().filter(|_| is_interruption && lately)
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
    let interrupted =
        |zone: &str| kind == GroupKind::Spot && inputs.instances.interrupted_zones.contains(zone);
    // A replacement has the name of its old instance.
    let old = spot.instances.iter().find(|held| *held.id == **replacement);
    let own = old.map(|held| held.zone.as_str());
    let mut zones = group.zones.clone();
    zones.sort_by_key(|zone| {
        let zone = zone.as_str();
        let (is_bad, is_own) = (avoided.contains(&zone), own == Some(zone));
        (Some(zone) != volume_zone, is_bad, interrupted(zone), !is_own, group.active_in(zone))
    });
    zones
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_speaks_of_its_zone_for_three_minutes_and_nothing_else_does() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let status = |notice, left: i64| ReplacementStatus {
            notice: Some(notice),
            deadline: Some(now + SignedDuration::from_secs(left)),
            zone: Some("a".to_owned()),
            ..ReplacementStatus::default()
        };
        for (notice, left, expected) in [
            (NoticeKind::SpotInterruption, 120, Some("a")),
            // The instance is gone by now.
            (NoticeKind::SpotInterruption, -59, Some("a")),
            (NoticeKind::SpotInterruption, -60, None),
            (NoticeKind::GroupTermination, 120, None),
            (NoticeKind::ScheduledMaintenance, 120, None),
        ] {
            assert_eq!(interrupted_lately(&status(notice, left), now), expected, "{notice:?} {left}");
        }
    }
}
