//! What happened in the cloud, and the calls that it was asked by.

use jiff::Timestamp;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Desired capacity changed.
    DesiredChanged,
    /// An instance was launched.
    Launching,
    /// A launch failed.
    LaunchFailed,
    /// AWS suspended the Launch process.
    LaunchSuspended,
    /// An instance is in service.
    InService,
    /// Its node has registered.
    NodeJoined,
    /// Its node is Ready.
    NodeReady,
    /// EC2 recommends to rebalance it.
    RebalanceRecommended,
    /// It got its interruption notice.
    InterruptionNoticed,
    /// AWS has taken it back.
    Taken,
    /// Its group ends it.
    Terminating,
    /// Its group no longer lists it.
    Terminated,
}

/// Something that happened in the cloud.
#[derive(Clone, Debug)]
pub struct CloudEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// In which group.
    pub group: String,
    /// To which instance, if to one.
    pub instance: Option<String>,
    /// The same for people.
    pub text: String,
}

/// One call of the Auto Scaling API.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// When it arrived.
    pub at: Timestamp,
    /// The access key that it was signed with.
    pub caller: String,
    /// The API action.
    pub operation: String,
    /// `AutoScalingGroupName`, where the action takes one.
    pub group: Option<String>,
    /// Whether it was answered with success.
    pub ok: bool,
}
