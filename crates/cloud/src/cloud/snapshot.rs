//! The cloud at one moment, as it is seen from outside.

use super::activity::Activity;
use super::spec::Market;
use super::state::{Instance, LifecycleState, State};
use jiff::Timestamp;

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
