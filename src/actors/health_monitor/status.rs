//! The parts of a pool's status that sum up the rest.

use crate::crd::GroupStatus;
use jiff::Timestamp;
use spot_guard_core::group::GroupView;
use spot_guard_core::ids::InstanceId;
use spot_guard_core::record::{Condition, set_condition};
use std::collections::BTreeSet;

/// A pool is `Ready` if it is accepted, what is decided by is no old picture, and what Spot lacks is stood in
/// for. What is owed stands in `OnSpot`: a pool on its fallbacks is in order.
const SUMMED_UP: [&str; 3] = ["Accepted", "Observed", "Covered"];

/// Sets `Ready` by the other conditions.
pub(super) fn sum_up(conditions: &mut Vec<Condition>, now: Timestamp) {
    let is_met = |type_: &&str| {
        let held = conditions.iter().find(|held| held.type_ == *type_);
        held.is_none_or(|held| held.status == "True")
    };
    let unmet = SUMMED_UP.iter().find(|type_| !is_met(type_));
    let unmet = unmet.and_then(|type_| conditions.iter().find(|held| held.type_ == *type_)).cloned();
    let (reason, message) = match &unmet {
        Some(held) => (&*held.reason, &*held.message),
        None => ("Ready", ""),
    };
    set_condition(conditions, "Ready", unmet.is_none(), reason, message, now);
}

/// The counts of a group; `above` are the instances above the baseline.
pub(super) fn of_group(group: &GroupView, above: u32) -> GroupStatus {
    let in_service = i32::try_from(group.in_service()).unwrap_or(i32::MAX);
    let above = if above > 0 { format!(" (+{above})") } else { String::new() };
    GroupStatus {
        desired: group.desired,
        in_service,
        min: group.min,
        max: group.max,
        summary: format!("{in_service}/{}{above}", group.desired),
        instances: group
            .instances
            .iter()
            .map(|instance| instance.id.clone())
            .collect::<BTreeSet<InstanceId>>()
            .into_iter()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_ready_unless_one_of_three_conditions_is_not_met() {
        let now = Timestamp::UNIX_EPOCH;
        let ready = |held: &[(&str, bool)]| {
            let mut conditions = Vec::new();
            for (type_, status) in held {
                set_condition(&mut conditions, type_, *status, "Why", "text", now);
            }
            sum_up(&mut conditions, now);
            let found = conditions.into_iter().find(|held| held.type_ == "Ready").expect("a condition");
            (found.status == "True", found.reason)
        };
        let met = (true, "Ready".to_owned());
        assert_eq!(ready(&[("Accepted", true)]), met);
        assert_eq!(ready(&[("Accepted", true), ("OnSpot", false), ("Healthy", false)]), met);
        for unmet in SUMMED_UP {
            assert_eq!(ready(&[("Accepted", true), (unmet, false)]), (false, "Why".to_owned()), "{unmet}");
        }
    }
}
