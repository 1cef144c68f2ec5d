//! Auto Scaling groups as they were last read. Nothing here is stored.

pub mod request_failure;

use crate::group_kind::GroupKind;
use crate::ids::{GroupName, InstanceId};
use crate::node_trouble::NodeTrouble;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An instance as its group lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// EC2's id.
    pub id: InstanceId,
    /// Availability Zone.
    pub zone: String,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
    /// Whether somebody protects it from scale-in.
    pub protected: bool,
}

/// Where an instance is in its life, as far as it matters here (EC2 Auto Scaling User Guide, "instance
/// lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// On its way in.
    Pending,
    /// On its way in, and held by a lifecycle hook (User Guide, "How lifecycle hooks work").
    Held,
    /// Serving.
    InService,
    /// In the group and counted as capacity, in a state of which nothing is known or that passes: it is never
    /// claimed, never terminated as spare, and never taken for gone.
    Other,
    /// Ended or stopped, as EC2 says, before its group has seen it. Like `Other`, but its place counts as
    /// empty.
    Ended,
    /// A person has put it aside, or is doing so (User Guide, "Temporarily remove instances"). It is in the
    /// group and not gone, and is no capacity.
    Standby,
    /// On its way out, in any way; also detached ones, which do not count as capacity.
    Leaving,
    /// On its way out, and held by a lifecycle hook.
    TerminationHeld,
    /// Its lifecycle hook was abandoned, and its group keeps it until somebody terminates it (User Guide,
    /// "Control instance retention"). It does not count as capacity.
    Retained,
}

impl Lifecycle {
    /// Whether an instance in this state counts towards the desired capacity.
    #[must_use]
    pub fn is_capacity(self) -> bool {
        self != Self::Standby && !self.is_leaving()
    }

    /// Whether an instance in this state is on its way out.
    #[must_use]
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Leaving | Self::TerminationHeld | Self::Retained)
    }

    /// Whether an instance in this state is on its way in.
    #[must_use]
    pub fn is_arriving(self) -> bool {
        matches!(self, Self::Pending | Self::Held)
    }

    /// Whether an instance in this state may be claimed, or terminated as spare.
    #[must_use]
    pub fn may_be_claimed(self) -> bool {
        self.is_arriving() || self == Self::InService
    }

    /// What AWS's LifecycleState and HealthStatus say (API Reference, Instance; the model has 30 states).
    ///
    /// An instance whose root volume is replaced keeps running (User Guide, "Replace root volumes during
    /// instance refresh"). One that is unhealthy does not serve; its group ends it.
    #[must_use]
    pub fn of(state: &str, health_status: Option<&str>) -> Self {
        match state {
            "InService" if health_status == Some("Unhealthy") => Self::Other,
            "InService" => Self::InService,
            "Pending" | "Pending:Proceed" => Self::Pending,
            "Pending:Wait" => Self::Held,
            "EnteringStandby" | "Standby" => Self::Standby,
            "Detached" | "Detaching" | "Quarantined" | "Terminated" => Self::Leaving,
            "Terminating" | "Terminating:Proceed" => Self::Leaving,
            "Terminating:Wait" => Self::TerminationHeld,
            "Terminating:Retained" => Self::Retained,
            // In the warm pool, which is no capacity.
            warmed if warmed.starts_with("Warmed:") => Self::Leaving,
            _ => Self::Other,
        }
    }
}

/// Why capacity could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureClass {
    /// No capacity, or the group at its maximum: fall back now.
    Capacity,
    /// A quota of the account: fall back now.
    Quota,
    /// The group cannot launch as it is configured: fall back now, and alert.
    Configuration,
    /// AWS refused the launch for a reason that is not known: fall back now, and alert.
    Refused,
    /// The instance came, and its node could not be used: request another one after a pause.
    Unusable,
    /// AWS throttles the call: wait, it is no failure.
    Throttle,
    /// Not known, and an instance may still come: wait until the timeout.
    Unknown,
}

impl FailureClass {
    /// Among several failures of one attempt the one that weighs most decides: see
    /// [`crate::classify::decisive`].
    #[must_use]
    pub fn weight(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Configuration => 1,
            Self::Refused => 2,
            Self::Throttle => 3,
            Self::Quota => 4,
            Self::Capacity | Self::Unusable => 5,
        }
    }
}

/// A failed launch as the scaling activities tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedActivity {
    /// When the launch began.
    pub started_at: Timestamp,
    /// The Availability Zone that was tried, if the activity says so.
    pub zone: Option<String>,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The activity's status message.
    pub message: String,
}

/// What the scaling activities of a group tell of its launches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchActivities {
    /// Those that failed, newest first.
    pub failed: Vec<FailedActivity>,
    /// Those that are under way: the instance, where there is one already.
    pub under_way: Vec<Option<InstanceId>>,
}

/// A group as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The group's name.
    pub name: GroupName,
    /// Desired capacity.
    pub desired: i32,
    /// Minimum size.
    pub min: i32,
    /// Maximum size.
    pub max: i32,
    /// Availability Zones, in the group's own order.
    pub zones: Vec<String>,
    /// Whether LaunchInstances can be used on it, as far as is known.
    pub can_launch: bool,
    /// How it is set up.
    pub setup: GroupSetup,
    /// All instances, in any state.
    pub instances: Vec<Instance>,
    /// Failed launches since the earliest open request, newest first.
    pub failures: Vec<FailedActivity>,
    /// How many launches are under way whose instance the group does not list yet, of those that began since
    /// the earliest open request.
    pub unlisted_launches: usize,
    /// When it was read.
    pub observed_at: Timestamp,
}

impl GroupView {
    /// The instance of that id.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// How many instances are in service.
    #[must_use]
    pub fn in_service(&self) -> usize {
        self.instances.iter().filter(|instance| instance.lifecycle == Lifecycle::InService).count()
    }

    /// Whether an instance is on its way in.
    #[must_use]
    pub fn is_launching(&self) -> bool {
        self.unlisted_launches > 0 || self.instances.iter().any(|instance| instance.lifecycle.is_arriving())
    }

    /// Takes in what the group's activities tell, which were read after the group.
    pub fn take_in(&mut self, launches: LaunchActivities) {
        let is_listed = |id: &Option<InstanceId>| id.as_ref().is_some_and(|id| self.instance(id).is_some());
        self.unlisted_launches = launches.under_way.iter().filter(|id| !is_listed(id)).count();
        self.failures = launches.failed;
    }

    /// How many instances count towards the desired capacity: pending or in service.
    #[must_use]
    pub fn active(&self) -> usize {
        self.instances.iter().filter(|instance| instance.lifecycle.is_capacity()).count()
    }

    /// How many of those EC2 has ended, which the group has not seen yet.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.instances.iter().filter(|instance| instance.lifecycle == Lifecycle::Ended).count()
    }

    /// Notes which instances EC2 has ended. What the group has seen itself stands.
    pub fn note_ended(&mut self, is_ended: impl Fn(&InstanceId) -> bool) {
        for instance in &mut self.instances {
            if instance.lifecycle.is_capacity() && is_ended(&instance.id) {
                instance.lifecycle = Lifecycle::Ended;
            }
        }
    }

    /// Whether nothing is wanted of the group.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        self.desired == 0
    }

    /// Whether the instance is there and counts towards the desired capacity.
    #[must_use]
    pub fn is_active(&self, id: &InstanceId) -> bool {
        self.instance(id).is_some_and(|instance| instance.lifecycle.is_capacity())
    }

    /// Whether the instance is in Standby.
    #[must_use]
    pub fn is_in_standby(&self, id: &InstanceId) -> bool {
        self.instance(id).is_some_and(|instance| instance.lifecycle == Lifecycle::Standby)
    }

    /// Whether the instance is there and may be claimed, or terminated as spare.
    #[must_use]
    pub fn may_be_claimed(&self, id: &InstanceId) -> bool {
        self.instance(id).is_some_and(|instance| instance.lifecycle.may_be_claimed())
    }

    /// Whether its zones are evened out by AWS, which may end instances for it (User Guide, "Rebalancing
    /// activities").
    #[must_use]
    pub fn evens_out_zones(&self) -> bool {
        self.zones.len() > 1 && !self.setup.suspended.contains_key("AZRebalance")
    }

    /// How many instances of the group in a zone are not on their way out.
    #[must_use]
    pub fn active_in(&self, zone: &str) -> usize {
        let here = self.instances.iter().filter(|held| held.zone == zone);
        here.filter(|held| held.lifecycle.is_capacity()).count()
    }

    /// Whether no zone of the group has fewer instances than this one.
    #[must_use]
    pub fn is_emptiest(&self, zone: &str) -> bool {
        self.zones.iter().map(|other| self.active_in(other)).min() == Some(self.active_in(zone))
    }

    /// The launches that have failed since then. A throttled one is made again, and is none.
    pub fn failed_since(&self, since: Timestamp) -> impl Iterator<Item = &FailedActivity> {
        let counts = move |failed: &&FailedActivity| {
            failed.started_at >= since && failed.class != FailureClass::Throttle
        };
        self.failures.iter().filter(counts)
    }

    /// Whether the instance is there and in service.
    #[must_use]
    pub fn is_in_service(&self, id: &InstanceId) -> bool {
        self.instance(id).is_some_and(|instance| instance.lifecycle == Lifecycle::InService)
    }
}

/// Both groups of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// The Spot group.
    pub spot: GroupView,
    /// The on-demand group.
    pub on_demand: GroupView,
}

impl PoolView {
    /// The group of that kind.
    #[must_use]
    pub fn group(&self, kind: GroupKind) -> &GroupView {
        match kind {
            GroupKind::Spot => &self.spot,
            GroupKind::OnDemand => &self.on_demand,
        }
    }

    /// Since when it may be out of date: the earlier of both readings.
    #[must_use]
    pub fn read_at(&self) -> Timestamp {
        self.spot.observed_at.min(self.on_demand.observed_at)
    }

    /// Takes in which instances of both groups EC2 has ended.
    pub fn note_ended(&mut self, is_ended: impl Fn(&InstanceId) -> bool) {
        self.spot.note_ended(&is_ended);
        self.on_demand.note_ended(&is_ended);
    }

    /// The instances of both groups, in any state.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.spot.instances.iter().chain(&self.on_demand.instances)
    }

    /// Whether the group of that kind has that name.
    #[must_use]
    pub fn names(&self, kind: GroupKind, name: &GroupName) -> bool {
        self.group(kind).name == name
    }
}

/// How a group is set up, as far as it decides what may be done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSetup {
    /// It launches from a launch configuration, which LaunchInstances does not know.
    pub launch_configuration: bool,
    /// What its mixed instances policy says of the markets, if it has one.
    pub mixed: Option<MixedMarkets>,
    /// It has a warm pool.
    pub warm_pool: bool,
    /// It replaces Spot instances at risk by itself.
    pub capacity_rebalance: bool,
    /// The AWS service that alone may change it.
    pub operator: Option<String>,
    /// The EKS managed node group that it belongs to.
    pub eks_node_group: Option<String>,
    /// In what its capacity is counted, if not in instances.
    pub counted_in: Option<CapacityUnit>,
    /// What AWS is doing with the whole group, if anything: `Delete in progress` (API Reference,
    /// AutoScalingGroup, Status).
    pub status: Option<String>,
    /// After how many seconds it replaces an instance by itself, if it does.
    pub max_instance_lifetime: Option<i32>,
    /// Suspended processes, and why.
    pub suspended: BTreeMap<String, String>,
    /// Not all its instances were launched from the version of the launch template that it launches from.
    pub mixed_versions: bool,
    /// What replaces all its instances just now, if anything does.
    pub rollout: Option<Rollout>,
    /// Whether a lifecycle hook holds what it terminates; `None` if that was not read.
    pub termination_hook: Option<bool>,
}

/// What replaces all instances of a group by new ones, and was begun by a person or a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rollout {
    /// An instance refresh, in this status (EC2 Auto Scaling User Guide, "Instance refresh").
    InstanceRefresh(String),
    /// An update of this EKS managed node group (EKS User Guide, "Understand each phase of node updates").
    NodeGroupUpdate(String),
}

impl GroupSetup {
    /// Whether AWS replaces its instances at risk without anybody's request.
    #[must_use]
    pub fn replaces_by_itself(&self) -> bool {
        self.capacity_rebalance || self.eks_node_group.is_some()
    }

    /// Whether a lifecycle hook has to hold what AWS terminates of it. EKS drains the nodes of its node
    /// groups, and has a hook of its own there.
    #[must_use]
    pub fn needs_termination_hook(&self) -> bool {
        self.capacity_rebalance && self.eks_node_group.is_none()
    }
}

/// Which groups LaunchInstances is used on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LaunchInstances {
    /// Those of one's own. EKS documents no other calls on the group of a managed node group than those
    /// of cluster-autoscaler: SetDesiredCapacity and terminations (EKS User Guide, "Managed node groups").
    #[default]
    Auto,
    /// The group of an EKS managed node group, too.
    Always,
}

impl LaunchInstances {
    /// Whether it is used on a group that is set up so.
    #[must_use]
    pub fn allows(self, setup: &GroupSetup) -> bool {
        self == Self::Always || setup.eks_node_group.is_none()
    }

    /// Takes LaunchInstances from the groups that it is not used on.
    pub fn limit(self, view: &mut PoolView) {
        for group in [&mut view.spot, &mut view.on_demand] {
            group.can_launch &= self.allows(&group.setup);
        }
    }
}

/// Whether an instance refresh with this status is under way (API Reference, InstanceRefresh, Status).
#[must_use]
pub fn is_refreshing(status: &str) -> bool {
    matches!(status, "Pending" | "InProgress" | "Cancelling" | "RollbackInProgress" | "Baking")
}

/// In what a group counts its desired capacity, if not in instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CapacityUnit {
    /// Its instance types have weights (User Guide, "Configure instance weighting").
    Weights,
    /// Its DesiredCapacityType: `vcpu` or `memory-mib` (API Reference, AutoScalingGroup).
    Type(String),
}

/// The share of on-demand instances of a mixed instances policy (API Reference, InstancesDistribution).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixedMarkets {
    /// So many instances are on-demand in any case.
    pub on_demand_base: i32,
    /// Of those above the base, so many per cent.
    pub on_demand_percentage: i32,
}

/// Why a group brings no instance, where AWS gives no words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoInstance {
    /// Its process Launch is suspended: why.
    LaunchSuspended(String),
    /// It is at its maximum: which.
    AtMaximum(i32),
    /// The answer to LaunchInstances was lost, and its token is too old to repeat the call.
    AnswerLost,
    /// LaunchInstances gave neither an instance nor a reason.
    NoAnswer,
    /// Somebody else lowered the desired capacity: to what.
    DesiredLowered(i32),
    /// The node of the instance could not be used, and the instance was terminated.
    Unusable {
        /// The instance.
        instance_id: InstanceId,
        /// Why.
        why: NodeTrouble,
        /// For how many seconds it was waited for.
        waited_seconds: u32,
    },
}

impl GroupSetup {
    /// Whether LaunchInstances can be used on it (User Guide, "Launch instances synchronously").
    #[must_use]
    pub fn can_launch(&self) -> bool {
        let one_market = self.mixed.is_none_or(|mixed| mixed.all_spot() || mixed.all_on_demand());
        !self.launch_configuration && !self.warm_pool && one_market
    }

    /// Why it launches nothing now, if so. AWS suspends Launch by itself after about a day of failures (User
    /// Guide, "Suspend and resume").
    #[must_use]
    pub fn launch_suspended(&self) -> Option<NoInstance> {
        self.suspended.get("Launch").cloned().map(NoInstance::LaunchSuspended)
    }
}

impl MixedMarkets {
    /// Whether every instance is a Spot instance.
    #[must_use]
    pub fn all_spot(self) -> bool {
        self.on_demand_base == 0 && self.on_demand_percentage == 0
    }

    /// Whether every instance is an on-demand instance.
    #[must_use]
    pub fn all_on_demand(self) -> bool {
        self.on_demand_percentage == 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifecycle_state_of_the_model_and_an_unknown_one_has_its_meaning() {
        use Lifecycle::{Held, InService, Leaving, Other, Pending, Retained, Standby, TerminationHeld};
        let states: [(Lifecycle, &[&str]); 8] = [
            (TerminationHeld, &["Terminating:Wait"]),
            (Retained, &["Terminating:Retained"]),
            (Standby, &["EnteringStandby", "Standby"]),
            (Pending, &["Pending", "Pending:Proceed"]),
            (Held, &["Pending:Wait"]),
            (InService, &["InService"]),
            (
                Other,
                &[
                    "ReplacingRootVolume",
                    "ReplacingRootVolume:Wait",
                    "ReplacingRootVolume:Proceed",
                    "RootVolumeReplaced",
                    "SomethingNew",
                    "",
                ],
            ),
            (
                Leaving,
                &[
                    "Quarantined",
                    "Terminating",
                    "Terminating:Proceed",
                    "Terminated",
                    "Detaching",
                    "Detached",
                    "Warmed:Pending",
                    "Warmed:Pending:Wait",
                    "Warmed:Pending:Proceed",
                    "Warmed:Pending:Retained",
                    "Warmed:Terminating",
                    "Warmed:Terminating:Wait",
                    "Warmed:Terminating:Proceed",
                    "Warmed:Terminating:Retained",
                    "Warmed:Terminated",
                    "Warmed:Stopped",
                    "Warmed:Running",
                    "Warmed:Hibernated",
                ],
            ),
        ];
        for (lifecycle, state) in
            states.iter().flat_map(|(held, all)| all.iter().map(|state| (*held, *state)))
        {
            assert_eq!(Lifecycle::of(state, Some("Healthy")), lifecycle, "{state}");
            assert_eq!(Lifecycle::of(state, None), lifecycle, "{state}");
        }
        assert_eq!(Lifecycle::of("InService", Some("Unhealthy")), Other);
        assert_eq!(Lifecycle::of("Pending", Some("Unhealthy")), Pending);
    }
}
