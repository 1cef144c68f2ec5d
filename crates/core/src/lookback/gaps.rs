//! What the record does not show.

use super::timeline::{hours, millis};
use crate::ids::GroupName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Kinds of gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GapKind {
    /// More was asked for than the six weeks for which AWS keeps activities (API Reference,
    /// DescribeScalingActivities).
    OlderThanSixWeeks,
    /// The group did not exist at the beginning.
    GroupIsYounger,
    /// A call was denied or failed.
    CallFailed,
    /// AWS asked to slow down, until the reading was given up.
    Throttled,
    /// AWS asked to slow down; the calls were repeated, and nothing is missing.
    ThrottledAndRepeated,
    /// There were more pages than are read.
    TooManyPages,
    /// Causes that say nothing that is known.
    UnreadableCause,
    /// Activities of a kind that is not known.
    UnknownActivity,
    /// Desired capacity was changed, and no activity shows when.
    DesiredUnknown,
    /// The group counts its capacity in weights: whether desired capacity was met is not known.
    Weighted,
    /// In service now, while the launch is not over: since when is not known.
    ServiceUnknown,
    /// A health check found an instance terminated or stopped, by AWS or by somebody in EC2.
    LossUnexplained,
}

/// One thing that the record does not show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// What kind of thing.
    pub kind: GapKind,
    /// Of which group, if of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// How many there are.
    pub count: u32,
    /// How many hours they cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// How many instance-hours more may have been missing meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_hours: Option<f64>,
    /// The first one, in AWS's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

// Hours are made of whole milliseconds: no gap has a number that is none.
impl Eq for Gap {}

impl Gap {
    /// So many of a kind, in a group.
    #[must_use]
    pub fn new(kind: GapKind, group: Option<&GroupName>, count: u32) -> Self {
        Self { kind, group: group.cloned(), count, hours: None, instance_hours: None, example: None }
    }

    /// The same with the first one, in AWS's words.
    #[must_use]
    pub fn with_example(self, example: &str) -> Self {
        Self { example: Some(example.to_owned()), ..self }
    }

    /// The same with the hours that it covers.
    #[must_use]
    pub fn covering(self, from: Timestamp, to: Timestamp) -> Self {
        self.with_hours(hours((millis(to) - millis(from)).max(0)))
    }

    pub(super) fn with_hours(self, hours: f64) -> Self {
        Self { hours: Some(hours), ..self }
    }
}
