//! On-demand instances that stand in without an interruption notice: what a pool says of them, their limits,
//! and those that a rebalance recommendation begins where the Spot group replaces its nodes by itself.

#[cfg(test)]
mod tests;

use crate::classify;
use crate::flow::Event;
use crate::group::{GroupView, PoolView};
use crate::ids::{InstanceId, NodeName};
use crate::ledger::CLOCK_SKEW;
use crate::limits::{self, Starts};
use crate::policy::Policy;
use crate::preflight;
use crate::record::{CapacityState, NoticeKind, ReplacedBy, ReplacementStatus};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A failed launch says nothing of a recommendation after this time.
const FAILURE_IS_OLD: Duration = Duration::from_secs(600);

/// What is done about Spot capacity that is missing without an interruption notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ShortfallMode {
    /// On-demand instances stand in.
    Act,
    /// A condition of the pool says what would be done.
    Observe,
    /// Nothing; it is not looked for.
    Off,
}

/// Why a mode of shortfalls is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModeOrigin {
    /// `spec.shortfall.mode` says so.
    ShortfallSpec,
    /// `spec.mode` of the pool allows no more.
    PoolMode,
    /// A cluster-autoscaler leads, which answers the same shortfall.
    AutoscalerLeads,
    /// No cluster-autoscaler leads.
    NoAutoscaler,
    /// Nobody knows whether a cluster-autoscaler leads.
    AutoscalerUnknown,
}

/// What a pool does about Spot capacity that is missing without an interruption notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModeInForce {
    /// The mode.
    pub mode: ShortfallMode,
    /// Why.
    pub because: ModeOrigin,
    /// Since when.
    pub since: Timestamp,
    /// Since when a cluster-autoscaler has come or gone; the mode follows after 10 min.
    #[serde(default)]
    pub other_since: Option<Timestamp>,
}

/// What is done about Spot capacity that is missing without an interruption notice: an instance died, or
/// somebody raised the desired capacity and Spot cannot give it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShortfallSpec {
    /// What is done. By default `Observe` while a cluster-autoscaler runs, which answers the same shortfall,
    /// else `Act`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ShortfallMode>,
    /// For how many seconds launches of the Spot group must have failed in all its zones; by default 10.
    /// Without a failed launch `spotTimeoutSeconds` counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 3600))]
    pub after_seconds: Option<u32>,
    /// How many on-demand instances may stand in at a time; by default the larger of 2 and a quarter of the
    /// Spot group's desired capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_stand_ins: Option<u32>,
}

impl ShortfallSpec {
    /// How many instances may stand in at a time.
    pub(crate) fn at_most(&self, spot: &GroupView) -> usize {
        let quarter = usize::try_from(spot.desired).unwrap_or(0) / 4;
        self.max_stand_ins.map_or(quarter.max(2), |limit| usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

/// An open or finished replacement of the pool.
#[derive(Clone, Copy, Debug)]
pub struct OwnRecord<'a> {
    /// Whether it is about a place, and not about a node.
    pub is_place: bool,
    /// Its record.
    pub status: &'a ReplacementStatus,
}

impl OwnRecord<'_> {
    /// Whether it looks after a place that the Spot group does not fill.
    pub(crate) fn covers(&self) -> bool {
        let withdrawn = matches!(*self.status.capacity, CapacityState::Withdrawn { .. });
        // On advice the old instance is still there.
        let on_advice = self.status.is_advice_of_group() && !self.status.old_node.is_over();
        let requested = self.status.capacity.is_requested() && !self.status.fallback.is_returning();
        let open = !self.status.is_finished() && self.status.is_replaced_by_group();
        open && requested && !withdrawn && !on_advice
    }

    /// Whether its instance is still to come.
    pub(crate) fn arrives(&self) -> bool {
        !self.status.is_finished()
            && self.status.capacity.is_on_demand_requested()
            && self.status.capacity.taken().is_none()
    }
}

/// How many instances more may stand in, for places or on advice.
pub(crate) fn places_left(spec: &ShortfallSpec, view: &PoolView, known: &[OwnRecord<'_>]) -> usize {
    let stands_in =
        |own: &&OwnRecord<'_>| own.is_place && !own.status.is_finished() || own.status.stands_in_on_advice();
    spec.at_most(&view.spot).saturating_sub(known.iter().filter(stands_in).count())
}

/// How many instances more the on-demand group has room for.
pub(crate) fn room(view: &PoolView, known: &[OwnRecord<'_>]) -> usize {
    let arriving = known.iter().filter(|own| own.arrives()).count();
    let group = &view.on_demand;
    let there = group.active().max(usize::try_from(group.desired).unwrap_or(0));
    // What was requested may have its place in desired capacity already.
    let on_the_way = there.saturating_sub(group.in_service());
    let taken = there + arriving.saturating_sub(on_the_way);
    usize::try_from(group.max).unwrap_or(0).saturating_sub(taken)
}

/// What a rebalance recommendation starts where the Spot group replaces its nodes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnAdvice {
    /// Nothing: AWS may hold back for hours.
    #[default]
    Never,
    /// An on-demand instance stands in for each launch of the group that failed since.
    Failure,
}

/// What on-demand stands in for in a pool whose Spot group replaces its nodes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoverSpec {
    /// What a rebalance recommendation starts. What stands in goes back without Spot if the old instance is
    /// still in service 30 minutes later.
    #[serde(default)]
    pub on_advice: OnAdvice,
}

/// What [`advised`] looks at.
pub struct Advice<'a> {
    /// Whether the pool ignores recommendations.
    pub ignored: bool,
    /// What on-demand stands in for.
    pub cover: CoverSpec,
    /// The pool's settings of shortfalls.
    pub spec: &'a ShortfallSpec,
    /// The pool's other settings.
    pub policy: &'a Policy,
    /// Its groups.
    pub view: &'a PoolView,
    /// Its replacements, finished ones too.
    pub known: &'a [OwnRecord<'a>],
    /// What stands against beginning a replacement in the pool.
    pub starts: &'a Starts,
    /// The instance that the notice names.
    pub instance_id: &'a InstanceId,
    /// When the notice was stored.
    pub noticed_at: Timestamp,
    /// When the node was created.
    pub node_created: Option<Timestamp>,
    /// The time.
    pub now: Timestamp,
}

/// When the launch failed that a stand-in for the recommended instance answers, if one begins now. Each
/// failed launch is answered once: by the first record that begins after it.
#[must_use]
pub fn advised(inputs: &Advice<'_>) -> Option<Timestamp> {
    let Advice { view, policy, now, .. } = *inputs;
    if inputs.cover.on_advice == OnAdvice::Never || inputs.ignored {
        return None;
    }
    let kind = Some(NoticeKind::RebalanceRecommendation);
    let is_held = limits::start_held(inputs.starts, policy, kind, inputs.node_created, now).is_some()
        || preflight::rollout(view).is_some()
        || !view.spot.is_in_service(inputs.instance_id)
        || places_left(inputs.spec, view, inputs.known) == 0
        || room(view, inputs.known) == 0;
    // An interruption that came since makes no difference to what was answered.
    let answers = |own: &&OwnRecord<'_>| {
        !own.is_place && own.status.is_replaced_by_group() && own.status.capacity.is_requested()
    };
    let answered = inputs.known.iter().filter(answers).filter_map(|own| own.status.started_at).max();
    let since = (inputs.noticed_at - CLOCK_SKEW).max(now - FAILURE_IS_OLD);
    let failed = || view.spot.failed_since(since);
    let last = failed().map(|failed| failed.started_at).max()?;
    // One zone is not the market: the group tries the next one, if nothing presses.
    let decisive = classify::decisive(failed(), |failed| failed.class)?;
    let is_final = classify::has_tried_all(&view.spot, decisive, since, last, now);
    let is_answered = answered.is_some_and(|answered| last <= answered);
    (is_final && !is_held && !is_answered).then_some(last)
}

/// From when on failed launches of the Spot group are read for recommendations that stand. It changes every
/// ten minutes, so that nothing is read anew for it.
#[must_use]
pub fn failures_matter_to_advice_since(now: Timestamp) -> Timestamp {
    let period = i64::try_from(FAILURE_IS_OLD.as_millis()).unwrap_or(i64::MAX);
    let into = now.as_millisecond().rem_euclid(period).unsigned_abs();
    now - Duration::from_millis(into) - FAILURE_IS_OLD
}

/// The record of a stand-in on advice, from that of the notice: the group could not follow it.
#[must_use]
pub fn open_on_advice(
    fresh: ReplacementStatus,
    node: &NodeName,
    failed_at: Timestamp,
    view: &PoolView,
    now: Timestamp,
) -> ReplacementStatus {
    let mut status = ReplacementStatus {
        replaced_by: Some(ReplacedBy::Group),
        spot_group: Some(view.spot.name.clone()),
        ..fresh
    };
    status.capacity.enter(CapacityState::SpotRequested { since: failed_at });
    Event::LeftToGroup.add_to(&mut status, node, now);
    status.settle_phase(now);
    status
}
