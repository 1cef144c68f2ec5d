//! What AWS still knows of a group: the group as it is, and its scaling activities.

use super::gaps::Gap;
use crate::ids::{GroupName, InstanceId};
use jiff::Timestamp;

/// How far a scaling activity has come (API Reference, Activity, StatusCode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityStatus {
    /// It has done what it was to do.
    Successful,
    /// It has not: `Failed` or `Cancelled`.
    Failed,
    /// It is not over.
    UnderWay,
}

impl ActivityStatus {
    /// What AWS's StatusCode says.
    #[must_use]
    pub fn of(code: &str) -> Self {
        match code {
            "Successful" => Self::Successful,
            "Failed" | "Cancelled" => Self::Failed,
            _ => Self::UnderWay,
        }
    }
}

/// One scaling activity, in AWS's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingActivity {
    /// What was tried, and with which instance.
    pub description: String,
    /// Why.
    pub cause: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// How far it has come.
    pub status: ActivityStatus,
    /// Why it failed (StatusMessage).
    pub message: String,
}

/// A group as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupNow {
    /// Its minimum, in instances.
    pub min: u32,
    /// Its desired capacity, in instances.
    pub desired: u32,
    /// Whether it counts its capacity in something else than instances.
    pub is_weighted: bool,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Its instances in service.
    pub in_service: Vec<InstanceId>,
}

/// What was read of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its name.
    pub name: GroupName,
    /// The group now, if it could be read.
    pub now: Option<GroupNow>,
    /// Its activities, in any order.
    pub activities: Vec<ScalingActivity>,
    /// From when on no activity is missing.
    pub known_from: Timestamp,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookbackFacts {
    /// The group of Spot instances.
    pub spot: GroupRecord,
    /// The group that stands in.
    pub on_demand: GroupRecord,
    /// The beginning of the time that is asked for.
    pub since: Timestamp,
    /// The time now.
    pub now: Timestamp,
    /// On-demand instances that are no stand-ins, if it is said; else the minimum of their group.
    pub baseline: Option<u32>,
}
