//! Faults on the way to the cloud and back.

use http::StatusCode;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What happens to a call at a gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFate {
    /// It goes on.
    Pass,
    /// An error answer instead. At `after` the call has taken effect all the same.
    Refuse {
        /// HTTP status.
        status: u16,
        /// `Error.Code`.
        code: String,
        /// `Error.Message`.
        message: String,
    },
    /// The connection breaks. At `before` the call never arrived, at `after` only its answer is lost.
    Drop,
    /// It goes on after this long, unless the caller's timeout is shorter.
    Delay(Duration),
    /// It never goes on: the caller's timeout, or its death, ends it.
    Hang,
}

impl CallFate {
    /// Request throttling, as Auto Scaling answers it.
    #[must_use]
    pub fn throttling() -> Self {
        Self::Refuse { status: 400, code: "Throttling".into(), message: "Rate exceeded".into() }
    }
}

/// A call as a gate sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateCall {
    /// The API action, or `GET /path` for IMDS.
    pub operation: String,
    /// The one group that it is about.
    pub group: Option<String>,
    /// `InstanceId`.
    pub instance: Option<String>,
    /// `DesiredCapacity`.
    pub desired: Option<u32>,
    /// `ShouldDecrementDesiredCapacity`.
    pub decrement: bool,
}

impl GateCall {
    /// Whether it changes a group.
    #[must_use]
    pub fn changes(&self) -> bool {
        !self.operation.starts_with("Describe")
    }
}

/// Sees every call of a client before and after the cloud does: the place for lost answers and crash points.
///
/// A gate has either the short pair of methods or the pair that sees the whole call.
pub trait CallGate: Send + Sync {
    /// [`CallGate::before`] with all that is known of the call.
    fn before_call(&self, call: &GateCall) -> CallFate {
        self.before(&call.operation, call.group.as_deref())
    }
    /// [`CallGate::after`] with all that is known of the call.
    fn after_call(&self, call: &GateCall) -> CallFate {
        self.after(&call.operation, call.group.as_deref())
    }
    /// Before the cloud sees the call. `operation` is the API action, or `GET /path` for IMDS.
    fn before(&self, operation: &str, group: Option<&str>) -> CallFate {
        let _ = (operation, group);
        CallFate::Pass
    }
    /// After the call took effect, before its answer goes back.
    fn after(&self, operation: &str, group: Option<&str>) -> CallFate {
        let _ = (operation, group);
        CallFate::Pass
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// A gate that follows a script: each entry is used once, by the next call of its operation.
#[derive(Debug, Default)]
pub struct ScriptedGate {
    script: Mutex<VecDeque<(Side, String, CallFate)>>,
}

impl ScriptedGate {
    /// The next call of `operation` meets `verdict` on its way in.
    pub fn next_request(&self, operation: &str, verdict: CallFate) {
        self.push(Side::Before, operation, verdict);
    }

    /// The next call of `operation` takes effect, and its answer meets `verdict`.
    pub fn next_answer(&self, operation: &str, verdict: CallFate) {
        self.push(Side::After, operation, verdict);
    }

    fn push(&self, side: Side, operation: &str, verdict: CallFate) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        script.push_back((side, operation.to_owned(), verdict));
    }

    fn take(&self, side: Side, operation: &str) -> CallFate {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let found = script.iter().position(|entry| entry.0 == side && entry.1 == operation);
        found.and_then(|index| script.remove(index)).map_or(CallFate::Pass, |entry| entry.2)
    }
}

impl CallGate for ScriptedGate {
    fn before(&self, operation: &str, _group: Option<&str>) -> CallFate {
        self.take(Side::Before, operation)
    }

    fn after(&self, operation: &str, _group: Option<&str>) -> CallFate {
        self.take(Side::After, operation)
    }
}

/// An error answer of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Error.Code`.
    pub code: String,
    /// `Error.Message`.
    pub message: String,
}

impl ErrorAnswer {
    /// An error with status 400, as nearly all of Auto Scaling's are.
    #[must_use]
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: code.into(), message: message.into() }
    }

    /// `ValidationError`.
    #[must_use]
    pub fn validation(message: impl Into<String>) -> Self {
        Self::bad_request("ValidationError", message)
    }

    /// `ScalingActivityInProgress` (API_SetDesiredCapacity).
    #[must_use]
    pub fn scaling_activity_in_progress(activity: &str) -> Self {
        let message = format!("Scaling activity {activity} is in progress and blocks this action");
        Self::bad_request("ScalingActivityInProgress", message)
    }

    /// `ResourceContention` (CommonErrors): a pending change to a resource of the group.
    #[must_use]
    pub fn resource_contention() -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "ResourceContention".into(),
            message: "You already have a pending update to an Amazon EC2 Auto Scaling resource.".into(),
        }
    }

    /// `AccessDenied`: the role has no permission for the action.
    #[must_use]
    pub fn access_denied(operation: &str) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            code: "AccessDenied".into(),
            message: format!(
                "User: arn:aws:sts::111122223333:assumed-role/simulated/session is not authorized to perform: \
                 autoscaling:{operation} because no identity-based policy allows the autoscaling:{operation} action"
            ),
        }
    }

    /// Request throttling.
    #[must_use]
    pub fn throttling() -> Self {
        Self::bad_request("Throttling", "Rate exceeded")
    }
}

/// The faults that the cloud itself was told to make.
#[derive(Default)]
pub(super) struct Faults {
    /// Operation, what its next calls are refused with, and how many of them.
    next: VecDeque<(String, ErrorAnswer, u32)>,
    /// All Auto Scaling calls share one bucket per account and Region.
    throttled_until: Option<Timestamp>,
}

impl Faults {
    pub(super) fn fail_next(&mut self, operation: &str, times: u32, refusal: &ErrorAnswer) {
        self.next.push_back((operation.to_owned(), refusal.clone(), times));
    }

    pub(super) fn throttle_until(&mut self, until: Timestamp) {
        self.throttled_until = Some(until);
    }

    /// What this call is refused with, if it is.
    pub(super) fn refuse(&mut self, operation: &str, now: Timestamp) -> Option<ErrorAnswer> {
        if self.throttled_until.is_some_and(|until| now < until) {
            return Some(ErrorAnswer::throttling());
        }
        self.next.retain(|(_, _, left)| *left > 0);
        let (_, refusal, left) = self.next.iter_mut().find(|(name, _, _)| name == operation)?;
        *left -= 1;
        Some(refusal.clone())
    }
}
