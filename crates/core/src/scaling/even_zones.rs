//! LaunchInstances in a group whose zones AWS evens out.
//!
//! AWS advises to suspend AZRebalance, since calls in several zones can trigger further launches (EC2 Auto
//! Scaling User Guide, "Launch instances synchronously"). So only the emptiest zones are asked. When they
//! have nothing, the group itself is asked and chooses the zone. Volumes and a deadline leave no choice.

use super::inputs::Inputs;
use super::wants::Want;
use crate::classify::is_of_one_zone;
use crate::group::{FailureClass, GroupView};
use crate::ids::ReplacementName;
use crate::ledger::{Failure, Ledger, Method};
use crate::record::GroupKind;

/// The zones that LaunchInstances may ask for a replacement, in this order: the emptiest of those that are
/// not to be avoided. Where all of them are, the emptiest of all.
pub(super) fn permitted(
    group: &GroupView,
    want: &Want,
    mut zones: Vec<String>,
    avoided: &[&str],
) -> Vec<String> {
    let Want::Instance { deadline: None, zone: volumes, .. } = want else { return zones };
    if group.evens_out_zones() {
        let is_avoided = |zone: &String| avoided.contains(&zone.as_str());
        let all_are = group.zones.iter().all(is_avoided);
        let counts = |zone: &&String| all_are || !is_avoided(zone);
        let least = group.zones.iter().filter(counts).map(|zone| group.active_in(zone)).min();
        let is_least = |zone: &String| counts(&zone) && Some(group.active_in(zone)) == least;
        zones.retain(|zone| volumes.as_ref() == Some(zone) || is_least(zone));
    }
    zones
}

/// Whether the group itself is to be asked for a replacement by now: its emptiest zones have nothing, and it
/// has others.
pub(super) fn is_left_to_group(
    ledger: &Ledger,
    inputs: &Inputs<'_>,
    kind: GroupKind,
    replacement: &ReplacementName,
    want: &Want,
) -> bool {
    let group = inputs.group(kind);
    let has_choice = matches!(want, Want::Instance { deadline: None, zone: None, .. });
    if !has_choice || !group.evens_out_zones() || group.zones.iter().all(|zone| group.is_emptiest(zone)) {
        return false;
    }
    let out = |failure: &Failure| {
        failure.class == FailureClass::Refused || is_of_one_zone(failure.class, &failure.message)
    };
    ledger.requests(kind).any(|request| {
        let is_exhausted = matches!(&request.method, Method::LaunchInstances { zones } if zones.is_empty());
        let mut shares = request.shares.iter().filter(|share| share.replacement == *replacement);
        let refused = shares.any(|share| share.failure.as_ref().is_some_and(out));
        is_exhausted && refused
    })
}
