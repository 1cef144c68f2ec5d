//! The labels of the metrics: enums, so that the number of series is bounded.

use super::ending::{CutShort, Ending};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use serde::Serialize;
use spot_guard_core::group::FailureClass;
use spot_guard_core::notices::NoticeRefusal;
use spot_guard_core::queue::{MessageKind, MessageResult};
use spot_guard_core::record::{FlowBox, NoticeKind, Outcome, Phase};
use spot_guard_core::spot_action::ActionKind;
use std::fmt::Write;

/// A call to AWS: to the Auto Scaling API, or to SQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AwsOperation {
    /// Reads groups and their instances.
    DescribeAutoScalingGroups,
    /// Reads scaling activities.
    DescribeScalingActivities,
    /// Reads instance refreshes.
    DescribeInstanceRefreshes,
    /// Reads lifecycle hooks.
    DescribeLifecycleHooks,
    /// Sets the desired capacity.
    SetDesiredCapacity,
    /// Ends one instance.
    TerminateInstanceInAutoScalingGroup,
    /// Launches instances at once.
    LaunchInstances,
    /// Prolongs a lifecycle action.
    RecordLifecycleActionHeartbeat,
    /// Ends a lifecycle action.
    CompleteLifecycleAction,
    /// Reads the notice queue.
    ReceiveMessage,
    /// Deletes a message of the notice queue.
    DeleteMessage,
    /// Hides a message of the notice queue for longer.
    ChangeMessageVisibility,
    /// Reads whether the notice queue has a dead-letter queue.
    GetQueueAttributes,
}

impl AwsOperation {
    /// All of them.
    pub(super) const ALL: [Self; 13] = [
        Self::DescribeAutoScalingGroups,
        Self::DescribeScalingActivities,
        Self::DescribeInstanceRefreshes,
        Self::DescribeLifecycleHooks,
        Self::SetDesiredCapacity,
        Self::TerminateInstanceInAutoScalingGroup,
        Self::LaunchInstances,
        Self::RecordLifecycleActionHeartbeat,
        Self::CompleteLifecycleAction,
        Self::ReceiveMessage,
        Self::DeleteMessage,
        Self::ChangeMessageVisibility,
        Self::GetQueueAttributes,
    ];
}

/// How a call to AWS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AwsResult {
    /// It was accepted.
    Ok,
    /// AWS asked to slow down.
    Throttled,
    /// The market is out of capacity: nothing was launched.
    OutOfCapacity,
    /// AWS refused it, for any other reason.
    Refused,
    /// No answer within the time limit.
    TimedOut,
    /// No usable answer: connection, credentials, an answer that cannot be read.
    Failed,
}

impl AwsResult {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Ok, Self::Throttled, Self::OutOfCapacity, Self::Refused, Self::TimedOut, Self::Failed];

    /// The result of a launch that brought nothing, by the class of its failure.
    #[must_use]
    pub fn of(class: FailureClass) -> Self {
        match class {
            FailureClass::Capacity => Self::OutOfCapacity,
            FailureClass::Throttle => Self::Throttled,
            FailureClass::Quota
            | FailureClass::Configuration
            | FailureClass::Refused
            | FailureClass::Unusable
            | FailureClass::Unknown => Self::Refused,
        }
    }
}

/// What is requested of the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KubeVerb {
    /// Reads one object.
    Get,
    /// Reads a page of a list.
    List,
    /// Begins a watch.
    Watch,
    /// Creates an object, an eviction or a review.
    Create,
    /// Changes an object: a patch, or an update.
    Change,
    /// Deletes an object.
    Delete,
}

impl KubeVerb {
    /// All of them.
    pub(super) const ALL: [Self; 6] =
        [Self::Get, Self::List, Self::Watch, Self::Create, Self::Change, Self::Delete];
}

/// How a request to the Kubernetes API ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum KubeResult {
    /// It was accepted.
    Ok,
    /// Somebody else was faster (409).
    Conflict,
    /// The API server asked to slow down, or a disruption budget has no room (429).
    Throttled,
    /// The API server refused it, for any other reason (4xx).
    Refused,
    /// No answer in time, no connection, or an error of the API server (5xx).
    Failed,
}

impl KubeResult {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Ok, Self::Conflict, Self::Throttled, Self::Refused, Self::Failed];
}

/// What the Kubernetes API answered to an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum EvictionResult {
    /// The pod goes.
    Accepted,
    /// A PodDisruptionBudget has no room.
    Budget,
    /// The API server asked to slow down.
    Throttled,
    /// The pod is not there any more, or another one has its name.
    Gone,
    /// Anything else.
    Failed,
}

impl EvictionResult {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Accepted, Self::Budget, Self::Throttled, Self::Gone, Self::Failed];
}

/// What became of a change of a node's marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum MarkResult {
    /// They are as they should be.
    Done,
    /// The API server refused, or did not answer in time.
    Failed,
}

/// What came of a list of one node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PodsListed {
    /// Nothing on the node has to move.
    Empty,
    /// Something has.
    Held,
    /// There was no answer in time, or an error.
    Failed,
}

/// A check that may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum BoundedCheck {
    /// Box 9: whether a fallback's node can be drained.
    Return,
    /// Box 9 once more just before a return begins: its disruption budgets alone.
    ReturnBudgets,
    /// Boxes 3.1 and 3.2: whether the pods of a node fit on the cluster with its replacement.
    Replacement,
    /// The safety check that the HTTP API makes of any node.
    Request,
}

impl BoundedCheck {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Return, Self::ReturnBudgets, Self::Replacement, Self::Request];
}

/// What a check had too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Spent {
    /// It would have been more work than it may be.
    Work,
    /// Other checks had all places for too long.
    Time,
}

impl Spent {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Work, Self::Time];
}

/// What became of a Kubernetes event, or of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum EventResult {
    /// Its receiver has it.
    Published,
    /// It could not be published in time, or was refused.
    Failed,
    /// Too many others waited.
    Dropped,
}

impl EventResult {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Published, Self::Failed, Self::Dropped];
}

/// What became of a SpotAction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum ActionResult {
    Accepted,
    Refused,
}

/// A question to the API server about a caller of the HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Review {
    /// Whose token it is.
    Token,
    /// Whether they may.
    Access,
}

/// What the API server answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ReviewResult {
    /// The token is valid, the right is there.
    Allowed,
    /// It is not.
    Denied,
    /// There was no answer in time, or an error.
    Failed,
}

/// An actor, as in the map of the architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ActorName {
    /// Boxes 1 and 12.
    ImdsPoller,
    /// Boxes 1 and 12, in the controller.
    QueuePoller,
    /// Boxes 2, 3 and 3.2.
    AsgScaler,
    /// Boxes 6 and 11.
    FallbackTracker,
    /// Boxes 6 to 9.
    HealthMonitor,
    /// Boxes 4, 5 and 10.
    Drainer,
    /// Box 11.
    Janitor,
}

impl ActorName {
    /// Those of the controller.
    pub(super) const OF_CONTROLLER: [Self; 6] = [
        Self::QueuePoller,
        Self::AsgScaler,
        Self::FallbackTracker,
        Self::HealthMonitor,
        Self::Drainer,
        Self::Janitor,
    ];
}

/// Why an actor was built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelValue)]
pub enum RestartCause {
    /// A handler, a future of its context, or its factory panicked.
    Panicked,
    /// It stopped itself.
    Stopped,
    /// It did not answer its supervisor in time.
    Stuck,
}

impl RestartCause {
    /// All causes.
    pub const ALL: [Self; 3] = [Self::Panicked, Self::Stopped, Self::Stuck];

    /// The cause as a verb, for texts.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Stopped => "stopped",
            Self::Stuck => "stuck",
        }
    }
}

/// A value of the records as a label, in the same word as the API and `kubectl` show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Word<T>(pub(super) T);

impl<T: Serialize> EncodeLabelValue for Word<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        let value = serde_json::to_value(&self.0).map_err(|_| std::fmt::Error)?;
        encoder.write_str(value.as_str().ok_or(std::fmt::Error)?)
    }
}

/// The name of a SpotPool; of what is in no pool it is empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PoolLabels {
    pub(super) pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct NoticeLabels {
    pub(super) pool: String,
    pub(super) kind: Word<NoticeKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CauseLabels {
    pub(super) pool: String,
    pub(super) cause: Word<NoticeKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct FinishLabels {
    pub(super) pool: String,
    pub(super) cause: Word<NoticeKind>,
    pub(super) phase: Word<Phase>,
    pub(super) outcome: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CutLabels {
    pub(super) pool: String,
    pub(super) why: CutShort,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PassLabels {
    pub(super) pool: String,
    pub(super) r#box: Word<FlowBox>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    pub(super) reason: Word<NoticeRefusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MessageLabels {
    pub(super) kind: Word<MessageKind>,
    pub(super) result: Word<MessageResult>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabels {
    pub(super) kind: Word<NoticeKind>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MarkLabels {
    pub(super) result: MarkResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ListLabels {
    pub(super) result: PodsListed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CheckLabels {
    pub(super) check: BoundedCheck,
    pub(super) spent: Spent,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResourceLabels {
    pub(super) resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResultLabels {
    pub(super) result: EventResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ActionLabels {
    pub(super) action: Word<ActionKind>,
    pub(super) result: ActionResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct BoxLabels {
    pub(super) pool: String,
    pub(super) r#box: Word<FlowBox>,
    pub(super) outcome: Word<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AwsLabels {
    pub(super) operation: AwsOperation,
    pub(super) result: AwsResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KubeLabels {
    pub(super) verb: KubeVerb,
    pub(super) result: KubeResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OperationLabels {
    pub(super) operation: AwsOperation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EvictionLabels {
    pub(super) pool: String,
    pub(super) result: EvictionResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReviewLabels {
    pub(super) review: Review,
    pub(super) result: ReviewResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ActorLabels {
    pub(super) actor: ActorName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RestartLabels {
    pub(super) actor: ActorName,
    pub(super) cause: RestartCause,
}
