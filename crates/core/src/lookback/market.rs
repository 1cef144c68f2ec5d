//! Whether Spot launched: what its group's own launches show.

use super::history::{GroupHistory, Launch};
use super::timeline::{HOUR, Steps};

/// Spot launched, or has not failed.
pub(super) const LAUNCHES: i64 = 0;
/// The last launch failed.
pub(super) const FAILS: i64 = 1;
/// The last launch failed, and nobody has tried for an hour although nothing was missing.
pub(super) const UNTRIED: i64 = 2;

/// How the Spot market was in time, up to `to`.
///
/// A failure holds until a launch succeeds. While capacity is missing the group would have tried, so silence
/// is no sign that Spot is back. Where nothing is missing nobody tries, and after an hour nothing is known.
pub(super) fn market(spot: &GroupHistory, to: i64) -> Steps {
    let spoken: Vec<&Launch> = spot.launches.iter().filter(|launch| launch.speaks()).collect();
    let nexts = spoken.iter().skip(1).map(|next| next.at).chain([to]);
    let mut changes = Vec::new();
    for (launch, next) in spoken.iter().zip(nexts) {
        if launch.failed.is_none() {
            changes.push((launch.at, LAUNCHES));
            continue;
        }
        changes.push((launch.at, FAILS));
        let silent = launch.at + HOUR;
        let state = |missing: i64| if missing > 0 { FAILS } else { UNTRIED };
        if silent < next {
            changes.push((silent, state(spot.missing.at(silent))));
            let later = spot.missing.changes().iter().filter(|(at, _)| (silent..next).contains(at));
            changes.extend(later.map(|(at, missing)| (*at, state(*missing))));
        }
    }
    Steps::of(LAUNCHES, changes)
}

/// Whether a launch that began in this time came, or else whether one failed; nothing if none says anything.
pub(super) fn answer(launches: &[Launch], from: i64, to: i64) -> Option<bool> {
    let begin = launches.partition_point(|launch| launch.at < from);
    let within = launches[begin..].iter().take_while(|launch| launch.at <= to);
    let within: Vec<_> = within.filter(|launch| launch.speaks()).collect();
    (!within.is_empty()).then(|| within.iter().any(|launch| launch.failed.is_none()))
}
