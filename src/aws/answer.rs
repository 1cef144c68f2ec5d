//! What comes of a call.

use crate::telemetry::metrics::{AwsOperation, AwsResult};
use spot_guard_core::classify::{self, CallFailure};
use spot_guard_core::group::{FailureClass, GroupView};
use spot_guard_core::ids::{GroupName, InstanceId};
use std::collections::BTreeMap;
use thiserror::Error;

/// A call that did not succeed.
#[derive(Clone, Debug, Error)]
#[error("{operation:?}: {code}: {message}")]
pub struct CallError {
    /// The API's name of the call.
    pub operation: AwsOperation,
    /// AWS's code, or what kind of transport failure it was.
    pub code: String,
    /// AWS's words.
    pub message: String,
    /// What follows from it.
    pub outcome: CallFailure,
}

impl CallError {
    /// Whether the same call may succeed a little later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.outcome, CallFailure::Busy | CallFailure::Unclear)
    }

    pub(super) fn result(&self) -> AwsResult {
        match (self.outcome, self.code.as_str()) {
            (_, "Timeout") => AwsResult::TimedOut,
            (CallFailure::Busy, _) => AwsResult::Throttled,
            (CallFailure::Unclear, code) if classify::by_code(code).is_some() => AwsResult::Throttled,
            (CallFailure::Unclear, _) => AwsResult::Failed,
            (CallFailure::Refused(class), _) => AwsResult::of(class),
            (CallFailure::Unsupported | CallFailure::NotFound, _) => AwsResult::Refused,
        }
    }
}

/// What LaunchInstances answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// The new instances.
    pub instance_ids: Vec<InstanceId>,
    /// Why there are not more, by class and in AWS's words.
    pub errors: Vec<(FailureClass, String)>,
}

impl Launched {
    /// AWS answers with success when it has launched nothing, too.
    pub(super) fn result(&self) -> AwsResult {
        match classify::decisive(self.errors.iter().map(|(class, _)| *class), |class| *class) {
            Some(class) if self.instance_ids.is_empty() => AwsResult::of(class),
            _ => AwsResult::Ok,
        }
    }
}

/// What TerminateInstanceInAutoScalingGroup answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminated {
    /// Whether the activity's cause says that desired capacity went down: "shrinking the capacity from 2 to
    /// 1" (User Guide, "Verify a scaling activity"). Of an instance that was on its way out already it does
    /// not.
    pub says_shrunk: bool,
}

/// A group as the API describes it, before activities are read.
pub type Described = BTreeMap<GroupName, GroupView>;
