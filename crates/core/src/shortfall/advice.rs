//! What a rebalance recommendation begins where the Spot group replaces its nodes by itself: nothing, or an
//! on-demand instance that stands in once a launch of the group has failed.

use super::{OwnRecord, ShortfallSpec, places_left, room};
use crate::flow::Event;
use crate::group::PoolView;
use crate::ids::NodeName;
use crate::ledger::CLOCK_SKEW;
use crate::limits::{self, Starts};
use crate::policy::Policy;
use crate::preflight;
use crate::record::{CapacityState, NoticeKind, ReplacedBy, ReplacementStatus};
use crate::replacement::RebalanceMode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A failed launch says nothing of a recommendation after this time.
const FAILURE_IS_OLD: Duration = Duration::from_secs(600);

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
    /// What the pool says of recommendations.
    pub rebalance: RebalanceMode,
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
    if inputs.cover.on_advice == OnAdvice::Never || inputs.rebalance == RebalanceMode::Ignore {
        return None;
    }
    let kind = Some(NoticeKind::RebalanceRecommendation);
    let is_held = limits::start_held(inputs.starts, policy, kind, inputs.node_created, now).is_some()
        || preflight::rollout(view).is_some()
        || places_left(inputs.spec, view, inputs.known) == 0
        || room(view, inputs.known) == 0;
    let on_advice = inputs.known.iter().filter(|own| own.status.notice == kind);
    let answered = on_advice.filter_map(|own| own.status.started_at).max();
    let since = (inputs.noticed_at - CLOCK_SKEW).max(now - FAILURE_IS_OLD);
    let failed = view.spot.failed_since(since).map(|failed| failed.started_at);
    failed.filter(|at| !is_held && answered.is_none_or(|answered| *at > answered)).max()
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
