//! What Spot Guard would have done at each interruption and at each failed launch, with its default settings.
//!
//! Pods and disruption budgets of the past are not known, nor the limits of a pool: this is what the market
//! allowed.

use super::history::{GroupHistory, Launch, Loss};
use super::market::{FAILS, LAUNCHES, answer};
use super::report::{Occasion, WouldDo, WouldHave};
use super::timeline::{Steps, time};
use crate::group::FailureClass;
use crate::policy::Policy;

/// Milliseconds from an interruption notice to the interruption (EC2 User Guide, "Spot Instance interruption
/// notices").
const NOTICE: i64 = 120_000;

/// Something that Spot Guard would have seen.
enum Seen<'a> {
    /// A launch came into service.
    Served,
    /// Desired capacity was lowered.
    Lowered,
    Lost(&'a Loss),
    Failed(FailureClass),
}

/// The pair of groups, and what stands in.
struct Judge<'a> {
    spot: &'a GroupHistory,
    on_demand: &'a GroupHistory,
    market: &'a Steps,
    policy: Policy,
    /// On-demand instances that would stand in.
    standing_in: i64,
    found: Vec<WouldHave>,
}

fn instances(count: i64) -> u32 {
    u32::try_from(count).unwrap_or_default()
}

impl Judge<'_> {
    fn add(&mut self, at: i64, occasion: Occasion, action: WouldDo, count: i64) -> &mut WouldHave {
        let (at, instances) = (time(at), instances(count));
        self.found.push(WouldHave {
            at,
            occasion,
            instance: None,
            reason: None,
            class: None,
            action,
            instances,
        });
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// What Spot gave to whoever asked from `from` on until a request of ours at `at` would have timed out.
    fn spot_gave(&self, from: i64, at: i64) -> Option<bool> {
        let timeout = i64::from(self.policy.spot_timeout_seconds) * 1000;
        answer(&self.spot.launches, from, at + timeout).or(match self.market.at(at) {
            LAUNCHES => Some(true),
            FAILS => Some(false),
            _ => None,
        })
    }

    /// What on-demand brings for what is missing and is not stood in for yet.
    fn stand_in(&mut self, at: i64) -> (WouldDo, i64) {
        if let Some(enough) = self.stands_in(at) {
            return enough;
        }
        let needed = self.spot.missing.at(at);
        let more = needed - self.standing_in;
        let timeout = i64::from(self.policy.on_demand_timeout_seconds) * 1000;
        if answer(&self.on_demand.launches, at, at + timeout) == Some(false) {
            return (WouldDo::KeepTrying, more);
        }
        self.standing_in = needed;
        (WouldDo::FallBackToOnDemand, more)
    }

    /// What is done if nothing is missing that on-demand does not stand in for.
    fn stands_in(&self, at: i64) -> Option<(WouldDo, i64)> {
        let is_enough = self.spot.missing.at(at) <= self.standing_in;
        let action = if self.standing_in > 0 { WouldDo::StayOnDemand } else { WouldDo::Nothing };
        is_enough.then_some((action, self.standing_in))
    }

    fn lost(&mut self, loss: &Loss) {
        let (action, count) = match self.spot_gave(loss.at - NOTICE, loss.at) {
            Some(true) => (WouldDo::ReplaceOnSpot, 1),
            Some(false) => self.stand_in(loss.at),
            None => (WouldDo::NotKnown, 1),
        };
        let found = self.add(loss.at, Occasion::Interruption, action, count);
        (found.instance, found.reason) = (Some(loss.instance.clone()), Some(loss.reason));
    }

    fn failed(&mut self, at: i64, class: FailureClass) {
        let (action, count) = if matches!(class, FailureClass::Throttle | FailureClass::Unknown) {
            (WouldDo::Wait, 0)
        } else if let Some(enough) = self.stands_in(at) {
            enough
        } else if self.spot_gave(at, at) == Some(true) {
            (WouldDo::ReplaceOnSpot, self.spot.missing.at(at))
        } else {
            self.stand_in(at)
        };
        self.add(at, Occasion::LaunchFailed, action, count).class = Some(class);
    }

    /// Of what stands in, what is not missing any more goes back.
    fn go_back(&mut self, at: i64, occasion: Occasion, to: i64) {
        let back = self.standing_in - self.spot.missing.at(at);
        if back <= 0 {
            return;
        }
        self.standing_in -= back;
        // A return waits until the Spot instance has been Ready for the stability time.
        let stability = i64::from(self.policy.stability_seconds) * 1000;
        let (at, action) = match occasion {
            Occasion::SpotInService => (at + stability, WouldDo::ReturnToSpot),
            _ => (at, WouldDo::EndFallback),
        };
        if at <= to {
            self.add(at, occasion, action, back);
        }
    }
}

/// What Spot Guard would have done between the beginning of the record and `to`, oldest first.
pub(super) fn would_have(
    spot: &GroupHistory,
    on_demand: &GroupHistory,
    market: &Steps,
    to: i64,
) -> Vec<WouldHave> {
    let served = |launch: &Launch| launch.served_at.map(|at| (at, Seen::Served));
    let failed = |launch: &Launch| launch.failed.map(|class| (launch.at, Seen::Failed(class)));
    let desired = spot.desired.changes();
    let lowered = desired.windows(2).filter(|pair| pair[1].1 < pair[0].1);
    let mut seen: Vec<(i64, Seen<'_>)> = spot.launches.iter().filter_map(served).collect();
    seen.extend(lowered.map(|pair| (pair[1].0, Seen::Lowered)));
    let interruptions = spot.losses.iter().filter(|loss| loss.reason.is_interruption());
    seen.extend(interruptions.map(|loss| (loss.at, Seen::Lost(loss))));
    seen.extend(spot.launches.iter().filter_map(failed));
    seen.retain(|(at, _)| (spot.from..=to).contains(at));
    seen.sort_by_key(|(at, _)| *at);
    let policy = Policy::default();
    let mut judge = Judge { spot, on_demand, market, policy, standing_in: 0, found: Vec::new() };
    for (at, what) in seen {
        match what {
            Seen::Served => judge.go_back(at, Occasion::SpotInService, to),
            Seen::Lowered => judge.go_back(at, Occasion::DesiredLowered, to),
            Seen::Lost(loss) => judge.lost(loss),
            Seen::Failed(class) => judge.failed(at, class),
        }
    }
    judge.found.sort_by_key(|found| found.at);
    judge.found
}
