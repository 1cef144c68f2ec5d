//! What can be seen of the cloud from outside: its state at one moment, its events, its calls.

use super::activity::Activity;
use super::spec::Market;
use super::state::{Instance, LifecycleState, State};
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

/// The cloud at one moment.
#[derive(Clone, Debug)]
pub struct CloudSnapshot {
    /// Groups by name.
    pub groups: Vec<GroupSnapshot>,
    /// All scaling activities, oldest first.
    pub activities: Vec<Activity>,
}

/// A group at one moment.
#[derive(Clone, Debug)]
pub struct GroupSnapshot {
    /// `AutoScalingGroupName`.
    pub name: String,
    /// `MinSize`.
    pub min: u32,
    /// `MaxSize`.
    pub max: u32,
    /// `DesiredCapacity`.
    pub desired: u32,
    /// How much of it people and other controllers have added since the beginning, not the API's clients.
    pub added_by_others: i64,
    /// By how much they have lowered it in all.
    pub lowered_by_others: i64,
    /// Its instances, oldest first.
    pub instances: Vec<InstanceSnapshot>,
}

/// An instance at one moment.
#[derive(Clone, Debug)]
pub struct InstanceSnapshot {
    /// EC2 instance id.
    pub id: String,
    /// Availability Zone.
    pub zone: String,
    /// State in its group.
    pub state: LifecycleState,
    /// How it is bought.
    pub market: Market,
    /// Name of its node, which may not have joined yet.
    pub node_name: String,
    /// Launch time.
    pub launched_at: Timestamp,
    /// Protected from scale-in.
    pub protected: bool,
    /// Whether the machine runs; a lost one stays listed until the group sees it.
    pub machine_runs: bool,
}

impl GroupSnapshot {
    pub(super) fn of(state: &State, name: &str) -> Option<Self> {
        let group = state.groups.get(name)?;
        let instance = |instance: &&Instance| InstanceSnapshot {
            id: instance.id.clone(),
            zone: instance.zone.clone(),
            state: instance.state,
            market: instance.market,
            node_name: instance.node_name.clone(),
            launched_at: instance.launched_at,
            protected: instance.protected,
            machine_runs: instance.machine_runs,
        };
        Some(Self {
            name: name.to_owned(),
            min: group.spec.min,
            max: group.spec.max,
            desired: group.desired,
            added_by_others: group.added_by_others,
            lowered_by_others: group.lowered_by_others,
            instances: state.members(name).iter().map(instance).collect(),
        })
    }
}
