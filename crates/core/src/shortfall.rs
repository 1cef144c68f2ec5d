//! Spot capacity that a pool lacks without an interruption notice, and how much on-demand stands in for it.
//!
//! [`watch`] keeps in the ledger since when each place of the Spot group is empty, so that a new leader does
//! not begin anew. [`judge`] says how many stand-ins are wanted. A stand-in is a replacement of a place: it
//! has no old node, and goes back like any other fallback as the Spot group brings instances.

mod in_force;
#[cfg(test)]
mod tests;
mod waiting;

pub use crate::stand_ins::{ModeInForce, ModeOrigin, OwnRecord, ShortfallMode, ShortfallSpec};
pub use waiting::{HYPOTHETICAL, Need, Shapes};

use crate::group::{GroupSetup, GroupView, PoolView};
use crate::ids::{InstanceId, PoolName, ReplacementName, name_stem};
use crate::ledger::{Balance, Ledger, MAX_EMPTY_PLACES, RequestState};
use crate::policy::{Policy, backoff, seconds};
use crate::reason::Reason;
use crate::record::{CapacityState, GroupKind, OldNodeState, ReplacedBy, ReplacementStatus};
use crate::replacement::Mode;
use crate::stand_ins::{places_left, room};
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// A place counts as empty when two readings so far apart have shown it.
const READ_TWICE: Duration = Duration::from_secs(5);
/// A launch that failed so long before a place was first seen empty was a launch for that place.
const SEEN_LATE: Duration = Duration::from_secs(60);
/// A pod that still waits so long after an idle stand-in was Ready waits for something else.
const SERVES_WITHIN: Duration = Duration::from_secs(600);
/// So many stand-ins may begin within a minute.
const A_MINUTE: usize = 5;
/// So long after the end of a stand-in the next one waits, doubled for each that ended within the hour.
const REST: Duration = Duration::from_secs(60);
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_secs(1800);
/// What the rest looks back at.
const REST_PERIOD: Duration = Duration::from_secs(3600);

impl ShortfallMode {
    /// The mode where the pool leaves it open: beside a cluster-autoscaler, or while nobody knows of one, a
    /// pool only observes.
    #[must_use]
    pub fn beside(autoscaler_lives: Option<bool>) -> Self {
        if autoscaler_lives == Some(false) { Self::Act } else { Self::Observe }
    }
}

impl ShortfallSpec {
    /// The mode as far as the pool says it; `None`: whether a cluster-autoscaler runs decides.
    #[must_use]
    pub fn mode_said(&self, pool: Mode) -> Option<ShortfallMode> {
        match (pool, self.mode) {
            (_, Some(ShortfallMode::Off)) => Some(ShortfallMode::Off),
            (Mode::Observe | Mode::DrainOnly, _) => Some(ShortfallMode::Observe),
            (Mode::Act, said) => said,
        }
    }

    /// Whether the empty places of the Spot group are to be known at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.mode != Some(ShortfallMode::Off)
    }

    fn after(&self) -> Duration {
        seconds(self.after_seconds.unwrap_or(10))
    }
}

/// Keeps in the ledger since when each place of the Spot group is empty. While a call of ours is under way
/// nothing can be said, and what was seen stands.
pub fn watch(ledger: &mut Ledger, spot: &GroupView, now: Timestamp) {
    let Some(missing) = missing(ledger, spot) else { return };
    ledger.empty_places.truncate(missing);
    ledger.empty_places.resize(missing, now);
}

/// How many places of the Spot group are empty that no replacement waits for; `None` while a call of ours is
/// under way.
///
/// A share that raised desired capacity counts as one that waits until it is settled. That may hide an empty
/// place for a while, and never shows one too many.
fn missing(ledger: &Ledger, spot: &GroupView) -> Option<usize> {
    let applied = ledger.requests(GroupKind::Spot).all(|request| request.state == RequestState::Applied);
    if !applied || ledger.reduction.is_some() || !ledger.left_behind.is_empty() {
        return None;
    }
    let awaited = ledger.shares(GroupKind::Spot).filter(|share| match share.balance {
        Balance::Raised => true,
        Balance::OwedByGroup => share.instance_id.is_none(),
        Balance::Even | Balance::OwedByUs => false,
    });
    let desired = usize::try_from(spot.desired).unwrap_or(0);
    let there = spot.active().saturating_sub(spot.ended());
    Some(desired.saturating_sub(there + awaited.count()).min(MAX_EMPTY_PLACES))
}

/// Since when each place is empty that no replacement looks after, oldest first.
#[must_use]
pub fn uncovered<'a>(
    ledger: &Ledger,
    spot: &GroupView,
    known: impl Iterator<Item = OwnRecord<'a>>,
    now: Timestamp,
) -> Vec<Timestamp> {
    let seen_twice = |at: &&Timestamp| since(**at, now) >= READ_TWICE;
    let standing = ledger.empty_places.iter().filter(seen_twice).copied();
    let missing = missing(ledger, spot).unwrap_or(0);
    standing.take(missing).skip(known.filter(OwnRecord::covers).count()).collect()
}

/// The stand-ins for places that have been Ready for long enough to be used, and since when.
#[must_use]
pub fn standing(known: &[OwnRecord<'_>], now: Timestamp) -> Vec<(InstanceId, Timestamp)> {
    let open = known.iter().filter(|known| known.is_place && !known.status.is_finished());
    let ready = open.filter_map(|known| known.status.capacity.taken());
    let known_to_serve = ready.filter(|instance| since(instance.ready_at, now) >= SERVES_WITHIN);
    known_to_serve.map(|instance| (instance.instance_id.clone(), instance.ready_at)).collect()
}

/// What [`judge`] looks at.
pub struct Circumstances<'a> {
    /// The pool's settings of shortfalls.
    pub spec: &'a ShortfallSpec,
    /// The mode in force.
    pub mode: ShortfallMode,
    /// The pool's other settings.
    pub policy: &'a Policy,
    /// Its groups.
    pub view: &'a PoolView,
    /// Its ledger.
    pub ledger: &'a Ledger,
    /// Its replacements, finished ones too.
    pub known: &'a [OwnRecord<'a>],
    /// What the pods that wait need.
    pub need: &'a dyn Fn() -> Need,
    /// What holds all voluntary work: a pause, an old picture.
    pub held: &'a [Reason],
    /// The time.
    pub now: Timestamp,
}

/// How many stand-ins are to begin, and what holds others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shortfall {
    /// So many may begin.
    pub wanted: usize,
    /// Why those that are missed do not begin.
    pub held: Vec<Reason>,
}

/// How many stand-ins are to begin.
#[must_use]
pub fn judge(inputs: &Circumstances<'_>) -> Shortfall {
    let spot = &inputs.view.spot;
    let empty = uncovered(inputs.ledger, spot, inputs.known.iter().copied(), inputs.now);
    let Some(oldest) = empty.first().filter(|_| inputs.mode != ShortfallMode::Off) else {
        return Shortfall::default();
    };
    if is_frozen(&spot.setup) {
        let held = vec![Reason::LaunchFrozen { group: spot.name.clone() }];
        return Shortfall { wanted: 0, held };
    }
    if !is_out_of_capacity(inputs, *oldest) {
        return Shortfall::default();
    }
    let requested = inputs.known.iter().filter(|known| known.arrives()).count();
    let Need { nodes, spot_arrives, on_demand_arrives } = (inputs.need)();
    let arriving = spot_arrives + on_demand_arrives.max(requested);
    let missed = empty.len().min(nodes.saturating_sub(arriving));
    if missed == 0 {
        return Shortfall::default();
    }
    if !inputs.held.is_empty() || inputs.mode == ShortfallMode::Observe {
        let observed = Reason::ShortfallObserved { instances: missed };
        let held = if inputs.held.is_empty() { vec![observed] } else { inputs.held.to_vec() };
        return Shortfall { wanted: 0, held };
    }
    limited(inputs, missed)
}

/// What the limits leave.
fn limited(inputs: &Circumstances<'_>, missed: usize) -> Shortfall {
    let (view, now) = (inputs.view, inputs.now);
    let places = || inputs.known.iter().filter(|known| known.is_place).map(|known| known.status);
    let limit = inputs.spec.at_most(&view.spot);
    let begun = places().filter(|status| is_within(status.started_at, Duration::from_secs(60), now)).count();
    let ended = || places().filter(|status| is_within(status.finished_at, REST_PERIOD, now));
    let rest = backoff(REST, LONGEST_REST, u32::try_from(ended().count()).unwrap_or(u32::MAX));
    let rests = ended().any(|status| is_within(status.finished_at, rest, now));
    let (places_left, room) = (places_left(inputs.spec, view, inputs.known), room(view, inputs.known));
    let wanted = missed.min(places_left).min(room).min(A_MINUTE.saturating_sub(begun));
    let wanted = if rests { 0 } else { wanted };
    let held = if room < missed.min(places_left) {
        let group = &view.on_demand;
        vec![Reason::AtMaximum { group: group.name.clone(), max: group.max }]
    } else if wanted < missed {
        vec![Reason::StandInLimit { limit }]
    } else {
        Vec::new()
    };
    Shortfall { wanted, held }
}

fn is_within(at: Option<Timestamp>, period: Duration, now: Timestamp) -> bool {
    at.is_some_and(|at| since(at, now) < period)
}

/// Whether a person has suspended Launch: AWS notes "User suspended" then (API Reference, `SuspendedProcess`).
fn is_frozen(setup: &GroupSetup) -> bool {
    setup.suspended.get("Launch").is_some_and(|reason| reason.starts_with("User suspended"))
}

/// Whether Spot is known not to bring what is missing: AWS has suspended Launch, launches fail in all zones,
/// or nothing came within the time that Spot has.
fn is_out_of_capacity(inputs: &Circumstances<'_>, oldest: Timestamp) -> bool {
    let (spot, now) = (&inputs.view.spot, inputs.now);
    let (waited, after) = (since(oldest, now), inputs.spec.after());
    if waited >= seconds(inputs.policy.spot_timeout_seconds) {
        return true;
    }
    if spot.setup.launch_suspended().is_some() {
        return waited >= after;
    }
    let first_failure = |zone: &String| {
        let tried = spot.failed_since(oldest - SEEN_LATE);
        let here = tried.filter(|failed| failed.zone.as_ref().is_none_or(|held| held == zone));
        here.map(|failed| failed.started_at).min()
    };
    let fails = |zone| first_failure(zone).is_some_and(|at| since(at, now) >= after);
    !spot.zones.is_empty() && spot.zones.iter().all(fails)
}

/// From when on failed launches of the Spot group matter to a place that is empty. Once the time that Spot
/// has is over they tell nothing new.
#[must_use]
pub fn failures_matter_since(ledger: &Ledger, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    let patience = seconds(policy.spot_timeout_seconds);
    let young = ledger.empty_places.iter().find(|at| since(**at, now) < patience);
    young.map(|at| *at - SEEN_LATE)
}

/// The record of a stand-in that begins: there is no old node, and the Spot group looks after its place.
#[must_use]
pub fn open(empty_since: Timestamp, spot: &GroupView, now: Timestamp) -> ReplacementStatus {
    let mut status = ReplacementStatus {
        started_at: Some(now),
        replaced_by: Some(ReplacedBy::Group),
        spot_group: Some(spot.name.clone()),
        ..ReplacementStatus::default()
    };
    status.capacity.enter(CapacityState::SpotRequested { since: empty_since });
    status.old_node.enter(OldNodeState::Gone {});
    status.settle_phase(now);
    status
}

/// What a stand-in may be called, the first choice first: the same for every leader.
pub fn names(pool: &PoolName, empty_since: Timestamp) -> impl Iterator<Item = ReplacementName> + use<> {
    let stem = format!("{}.place-{}", name_stem(pool), empty_since.as_second());
    (0..MAX_EMPTY_PLACES).map(move |number| ReplacementName::from(format!("{stem}-{number}")))
}
