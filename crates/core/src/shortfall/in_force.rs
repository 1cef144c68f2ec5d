//! The mode of shortfalls that is in force, and why.

use super::{ModeInForce, ModeOrigin, ShortfallMode, ShortfallSpec};
use crate::replacement::Mode;
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// A cluster-autoscaler that comes or goes changes the mode after this time: a restart of it changes nothing.
const SETTLES_AFTER: Duration = Duration::from_secs(600);

impl ModeInForce {
    /// What is in force now. `held` was in force before; `leads` is whether a cluster-autoscaler leads, and
    /// `None` if that could not be read or was not asked.
    ///
    /// What a person wrote holds at once.
    #[must_use]
    pub fn next(
        held: Option<Self>,
        spec: &ShortfallSpec,
        pool: Mode,
        leads: Option<bool>,
        now: Timestamp,
    ) -> Self {
        let said = spec.mode_said(pool);
        let mode = said.unwrap_or_else(|| ShortfallMode::beside(leads));
        let because = match (said, leads) {
            (Some(_), _) if said == spec.mode => ModeOrigin::ShortfallSpec,
            (Some(_), _) => ModeOrigin::PoolMode,
            (None, Some(true)) => ModeOrigin::AutoscalerLeads,
            (None, Some(false)) => ModeOrigin::NoAutoscaler,
            (None, None) => ModeOrigin::AutoscalerUnknown,
        };
        let fresh = Self { mode, because, since: now, other_since: None };
        let Some(held) = held else { return fresh };
        let by_autoscaler = matches!(held.because, ModeOrigin::AutoscalerLeads | ModeOrigin::NoAutoscaler);
        if because == ModeOrigin::AutoscalerUnknown && by_autoscaler {
            // An outage of the API server renews no Lease either.
            return held;
        }
        if held.mode == mode {
            return Self { since: held.since, ..fresh };
        }
        let other_since = held.other_since.unwrap_or(now);
        if said.is_some() || !by_autoscaler || since(other_since, now) >= SETTLES_AFTER {
            return fresh;
        }
        Self { other_since: Some(other_since), ..held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn spec(mode: Option<ShortfallMode>) -> ShortfallSpec {
        ShortfallSpec { mode, ..ShortfallSpec::default() }
    }

    #[test]
    fn a_cluster_autoscaler_that_restarts_changes_nothing_and_one_that_stays_does() {
        let next =
            |held, leads, second| ModeInForce::next(Some(held), &spec(None), Mode::Act, leads, at(second));
        let first = ModeInForce::next(None, &spec(None), Mode::Act, Some(true), at(0));
        assert_eq!((first.mode, first.because), (ShortfallMode::Observe, ModeOrigin::AutoscalerLeads));
        let away = next(first, Some(false), 60);
        assert_eq!((away.mode, away.since, away.other_since), (first.mode, at(0), Some(at(60))));
        let back = next(away, Some(true), 500);
        assert_eq!(back, first, "it was only restarted");
        let away = next(next(back, Some(false), 1000), Some(false), 1599);
        assert_eq!((away.mode, away.other_since), (ShortfallMode::Observe, Some(at(1000))));
        let gone = next(away, Some(false), 1600);
        assert_eq!((gone.mode, gone.because), (ShortfallMode::Act, ModeOrigin::NoAutoscaler));
        assert_eq!((gone.since, gone.other_since), (at(1600), None));
        assert_eq!(next(gone, None, 1700), gone, "an answer that failed says nothing");
        assert_eq!(next(next(first, None, 10), Some(false), 20).mode, ShortfallMode::Observe);
        let unknown = ModeInForce::next(None, &spec(None), Mode::Act, None, at(0));
        assert_eq!((unknown.mode, unknown.because), (ShortfallMode::Observe, ModeOrigin::AutoscalerUnknown));
        assert_eq!(
            next(unknown, Some(false), 10).mode,
            ShortfallMode::Act,
            "what is known then holds at once"
        );
    }

    #[test]
    fn what_a_person_wrote_holds_at_once() {
        let held = ModeInForce::next(None, &spec(None), Mode::Act, Some(true), at(0));
        let said = ModeInForce::next(Some(held), &spec(Some(ShortfallMode::Act)), Mode::Act, None, at(1));
        assert_eq!(
            (said.mode, said.because, said.since),
            (ShortfallMode::Act, ModeOrigin::ShortfallSpec, at(1))
        );
        let observed = ModeInForce::next(Some(said), &spec(said.mode.into()), Mode::Observe, None, at(2));
        assert_eq!((observed.mode, observed.because), (ShortfallMode::Observe, ModeOrigin::PoolMode));
        let left_open = ModeInForce::next(Some(observed), &spec(None), Mode::Act, Some(false), at(3));
        assert_eq!((left_open.mode, left_open.because), (ShortfallMode::Act, ModeOrigin::NoAutoscaler));
    }
}
