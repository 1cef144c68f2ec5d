//! What a look back says. The names of the fields are stable.

use super::gaps::Gap;
use crate::group::FailureClass;
use crate::ids::{GroupName, InstanceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a Spot instance was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LossReason {
    /// AWS took it back, as the record says.
    SpotInterruption,
    /// Its group replaced it after a rebalance recommendation or an interruption notice.
    Rebalance,
    /// A health check found it terminated or stopped: nearly always an interruption.
    TerminatedOrStopped,
    /// Another health check failed: no interruption.
    Unhealthy,
}

impl LossReason {
    /// Whether it counts as an interruption.
    #[must_use]
    pub fn is_interruption(self) -> bool {
        self != Self::Unhealthy
    }
}

/// Time in which desired capacity was not met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmet {
    /// Hours in which any instance was missing.
    pub hours: f64,
    /// Hours times missing instances.
    pub instance_hours: f64,
}

/// Instance-hours of on-demand above the baseline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AboveBaseline {
    /// While Spot launched, or had not failed: Spot could have served them.
    pub spot_could_serve: f64,
    /// While Spot's launches failed.
    pub spot_failed: f64,
    /// Spot had failed, and nobody had tried again for an hour: not known.
    pub not_known: f64,
}

/// What happened in a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Spot instances that AWS took.
    pub interruptions: u32,
    /// Spot instances that were lost, interrupted or not, by reason.
    pub lost_by_reason: BTreeMap<LossReason, u32>,
    /// Failed launches of the Spot group: activities, of which each zone that was tried leaves one.
    pub spot_launches_failed: BTreeMap<FailureClass, u32>,
    /// Failed launches of the on-demand group.
    pub on_demand_launches_failed: BTreeMap<FailureClass, u32>,
    /// Desired capacity of the Spot group that was not met.
    pub spot_unmet: Unmet,
    /// Desired capacity of the on-demand group that was not met.
    pub on_demand_unmet: Unmet,
    /// On-demand instances above the baseline.
    pub on_demand_above_baseline: AboveBaseline,
}

/// A week, from Monday 00:00 UTC, as far as it was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeekReport {
    /// Its Monday.
    pub monday: Timestamp,
    /// From when it was looked at.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// How many hours of it are on the record of the Spot group.
    pub spot_known_hours: f64,
    /// How many hours of it are on the record of the on-demand group.
    pub on_demand_known_hours: f64,
    /// What happened in it.
    #[serde(flatten)]
    pub figures: Figures,
    /// The same in steps of three hours, for a plot.
    #[serde(skip)]
    pub cells: Vec<PlotCell>,
}

/// Three hours of a week.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PlotCell {
    /// Whether any of it was looked at.
    pub is_known: bool,
    /// Interruptions.
    pub interruptions: u32,
    /// Failed launches of both groups.
    pub launches_failed: u32,
    /// Instances missing in the Spot group, on average.
    pub missing: f64,
    /// On-demand instances above the baseline, on average.
    pub above_baseline: AboveBaseline,
}

/// What Spot Guard begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Occasion {
    /// A Spot instance was interrupted.
    Interruption,
    /// A launch of the Spot group failed.
    LaunchFailed,
    /// A launch of the Spot group came into service.
    SpotInService,
    /// Desired capacity of the Spot group was lowered.
    DesiredLowered,
}

/// What Spot Guard would have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WouldDo {
    /// A replacement on Spot, which launched.
    ReplaceOnSpot,
    /// Spot did not launch: a fallback to on-demand.
    FallBackToOnDemand,
    /// Neither launched: the node stays until its deadline, and both are tried again.
    KeepTrying,
    /// On-demand stands in already.
    StayOnDemand,
    /// No failure that says anything of Spot: it waits.
    Wait,
    /// Nothing was missing.
    Nothing,
    /// Spot would have been requested first; the record does not show whether it would have launched.
    NotKnown,
    /// A fallback goes back: Spot serves again.
    ReturnToSpot,
    /// A fallback goes back: its place is not wanted any more.
    EndFallback,
}

/// What Spot Guard would have done at one occasion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WouldHave {
    /// When.
    pub at: Timestamp,
    /// At what.
    pub occasion: Occasion,
    /// The instance that was interrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Why it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<LossReason>,
    /// Why the launch failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// What.
    pub action: WouldDo,
    /// For how many instances.
    pub instances: u32,
}

/// A look back at a pair of groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LookbackReport {
    /// The Spot group.
    pub spot_group: GroupName,
    /// The on-demand group.
    pub on_demand_group: GroupName,
    /// The beginning of what was looked at.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// On-demand instances that are no stand-ins.
    pub baseline: u32,
    /// All weeks together.
    pub total: Figures,
    /// The weeks, oldest first.
    pub weeks: Vec<WeekReport>,
    /// What Spot Guard would have done, oldest first.
    pub would_have: Vec<WouldHave>,
    /// What the record does not show.
    pub gaps: Vec<Gap>,
}
