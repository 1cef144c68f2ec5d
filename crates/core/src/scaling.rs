//! How a group is asked for capacity, and what became of it: boxes 2, 3, 3.2 and the ending of instances.
//!
//! The ledger (the open scaling requests of a SpotPool) is the one account of what we changed. [`plan`] takes
//! the ledger, what the groups look like, and what the stories want; it gives back the next ledger and at
//! most one call. The ledger is stored before the call is made, so a crash at any point is resumed here.

mod stale;
#[cfg(test)]
mod tests;

pub use stale::Doubt;

use crate::cluster::Snapshot;
use crate::drain;
use crate::freshness::{Freshness, Step};
use crate::preflight::GroupSetup;
use crate::record::{GroupKind, MAX_MESSAGE, clipped};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An instance as its group lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// EC2's id.
    pub id: String,
    /// Availability Zone.
    pub zone: String,
    /// Where it is in its life.
    pub lifecycle: Lifecycle,
}

/// The lifecycle states that matter here (EC2 Auto Scaling User Guide, "instance lifecycle").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// On its way in.
    Pending,
    /// Serving.
    InService,
    /// On its way out, in any way; also detached, standby and retained ones, which do not count as capacity.
    Leaving,
}

/// A failed launch as the scaling activities tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedActivity {
    /// When the launch began.
    pub started_at: Timestamp,
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The activity's status message.
    pub message: String,
}

/// A group as it was last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// The group's name.
    pub name: String,
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
    /// When it was read.
    pub observed_at: Timestamp,
}

impl GroupView {
    /// The instance of that id.
    #[must_use]
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// How many instances are in service.
    #[must_use]
    pub fn in_service(&self) -> usize {
        self.instances.iter().filter(|instance| instance.lifecycle == Lifecycle::InService).count()
    }

    /// How many instances count towards the desired capacity: pending or in service.
    #[must_use]
    pub fn active(&self) -> usize {
        self.instances.iter().filter(|instance| instance.lifecycle != Lifecycle::Leaving).count()
    }

    /// Whether the instance is there and not on its way out.
    #[must_use]
    pub fn is_active(&self, id: &str) -> bool {
        self.instance(id).is_some_and(|instance| instance.lifecycle != Lifecycle::Leaving)
    }

    /// Whether the instance is there and in service.
    #[must_use]
    pub fn is_in_service(&self, id: &str) -> bool {
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
}

/// Why capacity could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum FailureClass {
    /// No capacity, a quota, or the group at its maximum: fall back now.
    Capacity,
    /// The group cannot launch as it is configured: fall back now, and alert.
    Configuration,
    /// AWS asked us to slow down: wait, never a failure.
    Throttle,
    /// Not known: wait until the timeout.
    Unknown,
}

/// A failure that a story's request met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What kind it was.
    pub class: FailureClass,
    /// AWS's words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
    /// When it was seen.
    pub at: Timestamp,
}

/// By which call a group is asked. In the schema of a custom resource every case has to be an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// SetDesiredCapacity: the group launches by itself, and goes on trying.
    SetDesiredCapacity {},
    /// LaunchInstances: instances or errors come with the answer, and nothing is tried again.
    LaunchInstances {
        /// The zones still to be tried, in order; the first one is being asked.
        #[schemars(length(max = 64), inner(length(max = 64)))]
        zones: Vec<String>,
    },
}

impl Default for Method {
    fn default() -> Self {
        Self::SetDesiredCapacity {}
    }
}

/// Whether the call of a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestState {
    /// Written, not known to have taken effect.
    Intended,
    /// LaunchInstances gave its answer; whether it raised desired capacity is still to be read. AWS does not
    /// document it.
    Launched,
    /// Known to have taken effect.
    Applied,
}

/// How a share stands with the desired capacity of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Balance {
    /// Desired capacity holds nothing for the share, and nothing is owed to it.
    #[default]
    Even,
    /// Desired capacity is raised by 1 for the share.
    Raised,
    /// The old instance left its place in desired capacity: the group goes on trying by itself.
    OwedByGroup,
    /// Desired capacity was lowered with the old instance: the group is to be asked again.
    OwedByUs,
}

/// One story's share of a scaling request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The replacement that it is for.
    #[schemars(length(max = 253))]
    pub replacement: String,
    /// How it stands with the group's desired capacity.
    #[serde(default)]
    pub balance: Balance,
    /// Which attempt of the story it serves.
    pub attempt: u32,
    /// Since when this attempt waits: older activities say nothing about it.
    pub since: Timestamp,
    /// The story's deadline: the most urgent share is served first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Set once another instance stands in for the story: it waits behind those that have none.
    #[serde(default)]
    pub stood_in_for: bool,
    /// The instance claimed for the story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub instance_id: Option<String>,
    /// Why there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// One change that we asked of a group; written before the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRequest {
    /// Unique in the pool.
    #[schemars(length(max = 128))]
    pub id: String,
    /// Which group.
    pub group: GroupKind,
    /// Desired capacity before.
    pub baseline: i32,
    /// Desired capacity asked for; equal to the baseline if the request changed nothing.
    pub target: i32,
    /// The instances that were there before: none of them is claimed for this request.
    #[schemars(length(max = 20_000), inner(length(max = 32)))]
    pub instances_before: Vec<String>,
    /// When it was written.
    pub requested_at: Timestamp,
    /// By which call.
    #[serde(default)]
    pub method: Method,
    /// Whether the call took effect.
    pub state: RequestState,
    /// The stories that it is for.
    #[schemars(length(max = 5_000))]
    pub shares: Vec<Share>,
}

impl ScalingRequest {
    /// How many instances it still waits for.
    fn missing(&self) -> i32 {
        let open = self.shares.iter().filter(|share| share.instance_id.is_none()).count();
        i32::try_from(open).unwrap_or(i32::MAX)
    }

    /// The token by which AWS knows a call again: one per request, zone and count. A changed request under
    /// an old token is an error (API Reference, LaunchInstances).
    fn token(&self, zones_left: usize) -> String {
        let story = self.shares.first().map_or("none", |share| share.replacement.as_str());
        format!("{story}-{}-{zones_left}-{}", self.id, self.missing())
    }

    /// The call that this request is about, if it is still to be made.
    fn call(&self) -> Option<Call> {
        match &self.method {
            Method::SetDesiredCapacity {} => {
                Some(Call::SetDesired { group: self.group, desired: self.target })
            }
            Method::LaunchInstances { zones } => Some(Call::Launch {
                group: self.group,
                zone: zones.first()?.clone(),
                count: self.missing(),
                token: self.token(zones.len()),
            }),
        }
    }
}

impl Share {
    /// Whether an instance that the group lists may be its own: one is missing, and desired capacity has a
    /// place for it. What is owed in the record has none: it comes by a request of ours alone.
    fn awaits(&self) -> bool {
        self.instance_id.is_none() && self.balance != Balance::OwedByUs
    }

    /// Whether desired capacity is still raised by 1 for it.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.balance == Balance::Raised
    }

    /// Whether desired capacity has a place for it: raised for it, or left by its old instance.
    #[must_use]
    pub fn has_place(&self) -> bool {
        matches!(self.balance, Balance::Raised | Balance::OwedByGroup)
    }

    /// Whether it waits for an instance that the group launches by itself.
    fn awaits_in_group(&self) -> bool {
        self.instance_id.is_none() && self.has_place()
    }

    /// Whether the group is to be asked (again): it was not, or refused and the story is in a new attempt.
    fn asks(&self) -> bool {
        !self.has_place() && self.instance_id.is_none() && self.failure.is_none()
    }
}

/// A reduction of a group that is under way; written before the call.
///
/// It is stored by a merge patch, which keeps what it does not name: so nothing is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reduction {
    /// Which group.
    pub group: GroupKind,
    /// The instance to end; without one the desired capacity alone is lowered, which ends nothing because
    /// fewer instances are there than desired.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub instance_id: Option<String>,
    /// The replacement whose +1 leaves the desired capacity with it.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub settles: Option<String>,
    /// Desired capacity before.
    pub baseline: i32,
    /// When it was written.
    pub requested_at: Timestamp,
}

/// What we changed in a pool's groups and have not settled yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The open requests for capacity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5_000))]
    pub scaling_requests: Vec<ScalingRequest>,
    /// The reduction under way, at most one per pool at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduction: Option<Reduction>,
    /// Groups that refused LaunchInstances as such.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub cannot_launch: Vec<CannotLaunch>,
    /// Desired capacity as it was last read, of groups that something is awaited from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub desired_seen: Vec<DesiredSeen>,
    /// Calls of an earlier life that may still arrive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5_000))]
    pub doubts: Vec<Doubt>,
}

/// The desired capacity of a group while something is awaited from it and no call of ours is under way: if it
/// falls, somebody else has lowered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DesiredSeen {
    /// Which group.
    pub group: GroupKind,
    /// Its desired capacity.
    pub desired: i32,
}

/// A group that cannot be asked by LaunchInstances, or an endpoint or a role that cannot: it is served by
/// SetDesiredCapacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CannotLaunch {
    /// Which group.
    pub group: GroupKind,
    /// When it refused last.
    pub since: Timestamp,
    /// AWS's words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub reason: String,
}

/// After this time LaunchInstances is tried again on a group that refused it: permissions and groups change.
const LAUNCH_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(24);

impl Ledger {
    /// Whether a group is known to refuse LaunchInstances.
    #[must_use]
    pub fn cannot_launch(&self, group: GroupKind, now: Timestamp) -> bool {
        let refused = |held: &&CannotLaunch| now.duration_since(held.since) < LAUNCH_AGAIN_AFTER;
        self.cannot_launch.iter().filter(refused).any(|held| held.group == group)
    }

    /// Whether nothing that we changed is open.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.scaling_requests.is_empty() && self.reduction.is_none()
    }

    /// The share of a story in a group.
    #[must_use]
    pub fn share(&self, group: GroupKind, replacement: &str) -> Option<&Share> {
        self.scaling_requests
            .iter()
            .filter(|request| request.group == group)
            .flat_map(|request| &request.shares)
            .find(|share| share.replacement == replacement)
    }

    fn member_mut(&mut self, group: GroupKind, replacement: &str) -> Option<&mut Share> {
        self.scaling_requests
            .iter_mut()
            .filter(|request| request.group == group)
            .flat_map(|request| &mut request.shares)
            .find(|share| share.replacement == replacement)
    }

    /// All shares in a group.
    pub fn shares(&self, group: GroupKind) -> impl Iterator<Item = &Share> {
        self.scaling_requests
            .iter()
            .filter(move |request| request.group == group)
            .flat_map(|request| &request.shares)
    }

    /// Whether something is under way that the next reading of the groups may show: a call, an instance that
    /// is asked for or on its way in.
    #[must_use]
    pub fn is_waiting(&self, view: &PoolView) -> bool {
        let arriving = |kind: GroupKind, share: &Share| match &share.instance_id {
            Some(id) => !view.group(kind).is_in_service(id),
            None => share.balance != Balance::OwedByUs,
        };
        self.reduction.is_some()
            || self.scaling_requests.iter().any(|request| {
                request.state != RequestState::Applied
                    || request.shares.iter().any(|share| arriving(request.group, share))
            })
    }

    /// The earliest moment from which failures matter to a request that is still open in `group`.
    #[must_use]
    pub fn failures_matter_since(&self, group: GroupKind) -> Option<Timestamp> {
        self.shares(group).filter(|share| share.instance_id.is_none()).map(|share| share.since).min()
    }

    fn drop_empty(&mut self) {
        self.scaling_requests.retain(|request| !request.shares.is_empty());
    }
}

/// What a story wants of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// One instance, in this attempt.
    Instance {
        /// Counts the story's attempts; a new one forgets the failure of the last.
        attempt: u32,
        /// The story's deadline.
        deadline: Option<Timestamp>,
        /// Whether another instance stands in meanwhile.
        stood_in_for: bool,
        /// The zone that the pods' volumes are in, to be tried first.
        zone: Option<String>,
        /// Whether the old instance is out of its group: unless we ended it, the group replaces it by itself.
        gone: bool,
    },
    /// Nothing any more: take the +1 back and end the instance that was claimed for it, if any.
    Nothing,
    /// The story is over: the instance stays, the share is forgotten once nothing of it is in desired.
    Done,
}

/// A story's want of a group.
pub type Wants = BTreeMap<(GroupKind, String), Want>;

/// The stories that are known to want nothing of the Spot group any more.
#[must_use]
pub fn withdrawn(wants: &Wants) -> BTreeSet<String> {
    let over = |want: &Want| !matches!(want, Want::Instance { .. });
    let spot = wants.iter().filter(|((kind, _), want)| *kind == GroupKind::Spot && over(want));
    spot.map(|((_, replacement), _)| replacement.clone()).collect()
}

/// An instance to end for a story.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Its group.
    pub group: GroupKind,
    /// The instance.
    pub instance_id: String,
    /// The story.
    pub replacement: String,
    /// Whether its deadline leaves no choice: it is ended even if the picture of its pods is old.
    pub pressed: bool,
}

/// What the stories and the cluster know about instances that a group's listing does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Stories stand on these (old nodes, capacity in use): they are never claimed again.
    pub taken: BTreeSet<String>,
    /// Their nodes run pods that would have to move, or that are still ending: they are never ended as surplus.
    pub with_pods: BTreeSet<String>,
    /// Their nodes take new pods, or were not listed as empty since they do not: they are cordoned and looked at before
    /// they are ended as surplus, or a pod could be bound to them at the last moment, or have been unseen.
    pub schedulable: BTreeSet<String>,
    /// When the API server listed the instance's node as empty, since it is cordoned.
    pub found_empty: BTreeMap<String, Timestamp>,
    /// Whether all of this comes from an old picture: nothing is ended by it but at its deadline.
    pub stale: bool,
}

/// For so long a node that is cordoned and was listed as empty counts as empty, if no watch says otherwise.
const EMPTY_FOR: Duration = Duration::from_secs(60);

impl InstanceFacts {
    /// Takes in what the cluster knows about the instances of a pool. `freshness` is to be read before the snapshot is
    /// taken.
    pub fn look_at(&mut self, view: &PoolView, cluster: &Snapshot, freshness: &Freshness, now: Timestamp) {
        self.stale |= !freshness.allows(Step::End);
        for Instance { id, .. } in view.spot.instances.iter().chain(&view.on_demand.instances) {
            if cluster.nodes_of_instance(id).nth(1).is_some() {
                // Nobody knows whose pods run on it.
                self.with_pods.insert(id.clone());
            }
            let Some(node) = cluster.node_of_instance(id) else { continue };
            if cluster.pods_on(&node.name).any(|pod| drain::holds_its_node(pod, now)) {
                self.with_pods.insert(id.clone());
            }
            let found_empty =
                self.found_empty.get(id).is_some_and(|at| crate::time::since(*at, now) < EMPTY_FOR);
            if !node.unschedulable || !found_empty {
                self.schedulable.insert(id.clone());
            }
        }
    }
}

/// The next call to make on a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// SetDesiredCapacity.
    SetDesired {
        /// Which group.
        group: GroupKind,
        /// The capacity to ask for.
        desired: i32,
    },
    /// LaunchInstances.
    Launch {
        /// Which group.
        group: GroupKind,
        /// The zone: one per call.
        zone: String,
        /// How many instances.
        count: i32,
        /// The client token.
        token: String,
    },
    /// TerminateInstanceInAutoScalingGroup.
    Terminate {
        /// Which group.
        group: GroupKind,
        /// Exactly this instance.
        instance_id: String,
        /// Whether desired capacity goes down with it.
        decrement: bool,
    },
}

impl Call {
    /// The group that it changes.
    #[must_use]
    pub fn group(&self) -> GroupKind {
        let (Self::SetDesired { group, .. } | Self::Terminate { group, .. } | Self::Launch { group, .. }) =
            self;
        *group
    }
}

/// The next ledger, and the call that it announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be stored before the call.
    pub ledger: Ledger,
    /// To be made after the ledger is stored.
    pub call: Option<Call>,
    /// Idle instances that are ended once they are cordoned; complete only in a plan without a call.
    pub cordon: BTreeSet<String>,
}

/// Clocks of AWS and of ours may differ by this much when activities are compared with requests.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// AWS remembers a client token for 8 h; ours is not used again after 7.
const TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(7);

/// Changes that AWS would not take in this turn, because another one of the same group is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    requests: BTreeSet<GroupKind>,
    reductions: BTreeSet<(GroupKind, Option<String>)>,
}

impl Deferred {
    /// Takes in that AWS would not take this call now.
    pub fn add(&mut self, ledger: &mut Ledger, call: &Call) {
        let group = call.group();
        match ledger.reduction.take() {
            Some(reduction) => {
                self.reductions.insert((group, reduction.instance_id));
            }
            None => {
                self.requests.insert(group);
            }
        }
    }

    fn ending(&self, group: GroupKind, instance_id: &str) -> bool {
        self.reductions.contains(&(group, Some(instance_id.to_owned())))
    }
}

/// The choice of idle instances that are ended as surplus.
struct SpareInstances<'a> {
    instances: &'a InstanceFacts,
    deferred: &'a Deferred,
    cordon: BTreeSet<String>,
}

impl SpareInstances<'_> {
    fn may_end(&self, group: &GroupView, kind: GroupKind, id: &str) -> bool {
        group.is_active(id)
            && !self.instances.stale
            && !self.instances.with_pods.contains(id)
            && !self.deferred.ending(kind, id)
            && !self.cordon.contains(id)
    }

    /// Ends the instance, or has its node cordoned first.
    fn end(
        &mut self,
        ledger: &mut Ledger,
        (group, kind): (&GroupView, GroupKind),
        id: &str,
        replacement: &str,
        now: Timestamp,
    ) -> Option<Call> {
        if self.instances.schedulable.contains(id) {
            self.cordon.insert(id.to_owned());
            return None;
        }
        Some(terminate(ledger, group, kind, id, Some(replacement), now))
    }
}

/// The next step for a pool.
///
/// Repeating the call that a plan names is without harm: it is planned from a fresh reading of the groups.
/// Changes that `deferred` names are left alone: another change is under way, and what else can be done is done.
#[must_use]
pub fn plan(
    ledger: &Ledger,
    view: &PoolView,
    wants: &Wants,
    ends: &BTreeSet<End>,
    instances: &InstanceFacts,
    deferred: &Deferred,
    now: Timestamp,
) -> Plan {
    let mut ledger = ledger.clone();
    ledger.take_in_arrived(view);
    let moved = ledger.in_motion();
    if let Some(call) = resume(&mut ledger, view, deferred, now) {
        return Plan { ledger, call: Some(call), ..Plan::default() };
    }
    if let Some(call) = stale::find_late_calls(&mut ledger, view, &moved, now) {
        return Plan { ledger, call: Some(call), ..Plan::default() };
    }
    refresh_members(&mut ledger, view, wants, now);
    take_in_erased(&mut ledger, view, now);
    claim(&mut ledger, view, wants, &instances.taken);
    bind_to_successors(&mut ledger, view, wants, instances);
    let mut spare = SpareInstances { instances, deferred, cordon: BTreeSet::new() };
    let call = request_capacity(&mut ledger, view, wants, deferred, now)
        .or_else(|| end_instances(&mut ledger, view, wants, ends, &mut spare, now))
        .or_else(|| withdraw(&mut ledger, view, wants, &mut spare, now));
    let cordon = spare.cordon;
    ledger.drop_empty();
    watch_desired(&mut ledger, view, call.as_ref());
    Plan { ledger, call, cordon }
}

/// Remembers the desired capacity of groups that something is awaited from, unless we are about to change it.
fn watch_desired(ledger: &mut Ledger, view: &PoolView, call: Option<&Call>) {
    let quiet = |kind: GroupKind| {
        let mut requests = ledger.scaling_requests.iter().filter(|request| request.group == kind);
        call.is_none_or(|call| call.group() != kind)
            && requests.clone().all(|request| request.state == RequestState::Applied)
            && requests.any(|request| request.shares.iter().any(Share::awaits_in_group))
    };
    let kinds = [GroupKind::Spot, GroupKind::OnDemand].into_iter().filter(|kind| quiet(*kind));
    ledger.desired_seen =
        kinds.map(|group| DesiredSeen { group, desired: view.group(group).desired }).collect();
}

/// Takes in that somebody else lowered a desired capacity in which places of ours were open, as cluster-autoscaler
/// does when it gives up a node that does not come: what waited there is asked for again, after its backoff.
fn take_in_erased(ledger: &mut Ledger, view: &PoolView, now: Timestamp) {
    for seen in std::mem::take(&mut ledger.desired_seen) {
        let group = view.group(seen.group);
        let mut waiting: Vec<&mut Share> = ledger
            .scaling_requests
            .iter_mut()
            .filter(|request| request.group == seen.group)
            .flat_map(|request| &mut request.shares)
            .filter(|share| share.awaits_in_group())
            .collect();
        let open = usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active());
        let lowered = usize::try_from(seen.desired - group.desired).unwrap_or(0);
        let erased = lowered.min(waiting.len().saturating_sub(open));
        waiting
            .sort_by_key(|share| (share.stood_in_for, share.deadline.is_none(), share.deadline, share.since));
        for share in waiting.into_iter().rev().take(erased) {
            // Its +1 is gone; only a place that the old instance left is owed. While the old instance is still
            // there it holds that place, and takes it out of desired with it when it is ended.
            share.balance = if share.is_raised() { Balance::Even } else { Balance::OwedByUs };
            let message = format!("somebody else lowered the desired capacity to {}", group.desired);
            share.failure = Some(Failure { class: FailureClass::Capacity, message, at: now });
        }
    }
}

/// Finishes what an earlier step, or an earlier life, left between the written intent and its outcome.
fn resume(ledger: &mut Ledger, view: &PoolView, deferred: &Deferred, now: Timestamp) -> Option<Call> {
    for request in ledger.scaling_requests.iter_mut().filter(|held| !deferred.requests.contains(&held.group))
    {
        let group = view.group(request.group);
        let call = match request.state {
            RequestState::Applied => None,
            RequestState::Launched => match_desired(request, group),
            RequestState::Intended => intended_call(request, group, now),
        };
        if call.is_some() {
            return call;
        }
    }
    // A reduction without effect is forgotten, not repeated: whether it is still wanted is decided anew. So is
    // one whose instance went another way (AWS took it): the account stays open.
    let reduction = ledger.reduction.take()?;
    let group = view.group(reduction.group);
    let took_effect = group.desired < reduction.baseline
        && reduction.instance_id.as_ref().is_none_or(|id| !group.is_active(id));
    if took_effect {
        reduced(ledger, &reduction);
    }
    None
}

/// The call of a request that is not known to have taken effect, or what its effect shows.
fn intended_call(request: &mut ScalingRequest, group: &GroupView, now: Timestamp) -> Option<Call> {
    if let Method::LaunchInstances { zones } = &request.method {
        let too_old = now.duration_since(request.requested_at) > TOKEN_LIFE;
        if group.can_launch && !zones.is_empty() && !too_old {
            return request.call();
        }
        if too_old {
            // AWS may have forgotten the token: what was launched since is claimed, the rest asks anew.
            refuse(request, FailureClass::Unknown, "the answer to LaunchInstances was lost", now);
            return None;
        }
        request.method = Method::SetDesiredCapacity {};
    } else if group.desired >= request.target {
        applied(request);
        return None;
    }
    let count = request.missing();
    request.baseline = group.desired;
    request.target = (group.desired + count).min(group.max);
    if request.target < group.desired + count {
        // Room for fewer than asked: they all ask again, each in its next attempt.
        let message = format!("the group is at its maximum of {}", group.max);
        refuse(request, FailureClass::Capacity, &message, now);
        return None;
    }
    request.call()
}

/// After LaunchInstances, desired capacity is made to count what was launched, if AWS did not see to it.
fn match_desired(request: &mut ScalingRequest, group: &GroupView) -> Option<Call> {
    let launched = request.shares.iter().filter(|share| share.instance_id.is_some()).count();
    let expected = request.baseline + i32::try_from(launched).unwrap_or(0);
    request.target = expected;
    if group.desired < expected {
        return Some(Call::SetDesired { group: request.group, desired: expected });
    }
    applied(request);
    None
}

/// The call took effect: a +1 for each share that it served.
fn applied(request: &mut ScalingRequest) {
    request.state = RequestState::Applied;
    let by_launch = matches!(request.method, Method::LaunchInstances { .. });
    for share in &mut request.shares {
        if by_launch && share.instance_id.is_none() {
            continue;
        }
        // An instance that was owed makes up for the desired capacity that was lowered for it.
        share.balance = if share.balance == Balance::OwedByUs { Balance::Even } else { Balance::Raised };
    }
}

/// Marks the unclaimed shares of a request as failed.
fn refuse(request: &mut ScalingRequest, class: FailureClass, message: &str, now: Timestamp) {
    request.state = RequestState::Applied;
    request.target = request.baseline;
    for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
        share.failure = Some(Failure { class, message: clipped(message.to_owned()), at: now });
    }
}

/// The outcome of a request's call that AWS refused: nothing changed in the group.
///
/// A throttled or unknown answer is not a refusal: the request stays as intended and is tried again.
pub fn refused(ledger: &mut Ledger, group: GroupKind, class: FailureClass, message: &str, now: Timestamp) {
    for request in &mut ledger.scaling_requests {
        if request.group == group && request.state == RequestState::Intended {
            refuse(request, class, message, now);
        }
    }
}

/// Takes in that a group cannot be asked by LaunchInstances: what was to be asked so goes on as
/// SetDesiredCapacity. If it cannot at all, that is remembered.
pub fn launch_refused(ledger: &mut Ledger, group: GroupKind, reason: &str, at_all: bool, now: Timestamp) {
    if at_all {
        ledger.cannot_launch.retain(|held| held.group != group);
        ledger.cannot_launch.push(CannotLaunch { group, since: now, reason: clipped(reason.to_owned()) });
    }
    for request in &mut ledger.scaling_requests {
        if request.group == group && request.state == RequestState::Intended {
            request.method = Method::SetDesiredCapacity {};
        }
    }
}

/// Takes in the answer of LaunchInstances: instances for the most urgent shares; for the rest the next zone
/// is asked, or they failed. An answer without instances is no fault but says "no capacity".
pub fn launched(
    ledger: &mut Ledger,
    group: GroupKind,
    instance_ids: Vec<String>,
    errors: &[(FailureClass, String)],
    now: Timestamp,
) {
    let Some(request) = ledger
        .scaling_requests
        .iter_mut()
        .find(|request| request.group == group && request.state == RequestState::Intended)
    else {
        return;
    };
    request
        .shares
        .sort_by_key(|share| (share.stood_in_for, share.deadline.is_none(), share.deadline, share.since));
    let mut free = instance_ids.into_iter();
    for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
        let Some(id) = free.next() else { break };
        share.instance_id = Some(id);
        share.failure = None;
    }
    let Method::LaunchInstances { zones } = &mut request.method else { return };
    if !zones.is_empty() {
        zones.remove(0);
    }
    if request.shares.iter().all(|share| share.instance_id.is_some()) {
        request.state = RequestState::Launched;
    } else if zones.is_empty() {
        request.state = RequestState::Launched;
        let worst = errors.iter().max_by_key(|(class, _)| *class == FailureClass::Configuration);
        let (class, message) = worst.cloned().unwrap_or_else(|| {
            (FailureClass::Capacity, "LaunchInstances gave no instance and no reason".to_owned())
        });
        for share in request.shares.iter_mut().filter(|share| share.instance_id.is_none()) {
            share.failure = Some(Failure { class, message: clipped(message.clone()), at: now });
        }
    }
}

/// Takes in what changed about the shares: attempts, urgency, lost instances, failed launches.
fn refresh_members(ledger: &mut Ledger, view: &PoolView, wants: &Wants, now: Timestamp) {
    for request in &mut ledger.scaling_requests {
        let group = view.group(request.group);
        for share in &mut request.shares {
            if let Some(Want::Instance { attempt, deadline, stood_in_for, gone, .. }) =
                wants.get(&(request.group, share.replacement.clone()))
            {
                let settled = request.state == RequestState::Applied && share.balance == Balance::Even;
                if *gone && settled && share.instance_id.is_none() {
                    (share.balance, share.failure) = (Balance::OwedByGroup, None);
                }
                share.deadline = *deadline;
                share.stood_in_for = *stood_in_for;
                if share.attempt < *attempt {
                    share.attempt = *attempt;
                    share.since = now;
                    share.failure = None;
                }
            }
            if share.instance_id.as_ref().is_some_and(|id| !group.is_active(id)) {
                share.instance_id = None;
                share.since = now;
            }
            if share.instance_id.is_some() {
                share.failure = None;
                continue;
            }
            let since = share.since - CLOCK_SKEW;
            let failed = group
                .failures
                .iter()
                .find(|failure| failure.started_at >= since && failure.class != FailureClass::Throttle);
            if let (None, Some(failed)) = (&share.failure, failed) {
                share.failure =
                    Some(Failure { class: failed.class, message: clipped(failed.message.clone()), at: now });
            }
            if let (None, Some(message)) = (&share.failure, group.setup.launch_suspended()) {
                share.failure = Some(Failure { class: FailureClass::Configuration, message, at: now });
            }
        }
    }
}

/// Gives new instances to the shares that want one and have none, the most urgent first. A share that is
/// being withdrawn claims nothing more: what it would end then belongs to somebody else.
fn claim(ledger: &mut Ledger, view: &PoolView, wants: &Wants, taken: &BTreeSet<String>) {
    let wants_one = |kind: GroupKind, share: &Share| {
        matches!(wants.get(&(kind, share.replacement.clone())), Some(Want::Instance { .. }))
    };
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let claimed: BTreeSet<String> =
            ledger.shares(kind).filter_map(|share| share.instance_id.clone()).collect();
        let free = view.group(kind).instances.iter().filter(|instance| {
            instance.lifecycle != Lifecycle::Leaving
                && !claimed.contains(&instance.id)
                && !taken.contains(&instance.id)
        });
        for instance in free {
            // A share that the group refused brought nothing: it comes after all that did.
            let most_urgent = ledger
                .scaling_requests
                .iter_mut()
                .filter(|request| request.group == kind && !request.instances_before.contains(&instance.id))
                .flat_map(|request| {
                    let unchanged = request.target == request.baseline;
                    request
                        .shares
                        .iter_mut()
                        .map(move |share| (unchanged && share.balance != Balance::OwedByGroup, share))
                })
                .filter(|(_, share)| share.awaits() && wants_one(kind, share))
                .min_by_key(|(refused, share)| {
                    (*refused, share.stood_in_for, share.deadline.is_none(), share.deadline, share.since)
                });
            if let Some((_, share)) = most_urgent {
                share.instance_id = Some(instance.id.clone());
                share.failure = None;
            }
        }
    }
}

/// Binds shares to instances that their request did not bring, because AWS replaced an instance itself: only
/// as many as the group is not missing.
///
/// A story whose +1 was settled already is owed one of those that serve; so is one whose own instance a more
/// urgent story has claimed, or whose +1 somebody else took out of desired. A +1 that is to be settled, and
/// whose instance was lost, goes with one of them.
fn bind_to_successors(ledger: &mut Ledger, view: &PoolView, wants: &Wants, instances: &InstanceFacts) {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = view.group(kind);
        let claimed: BTreeSet<String> =
            ledger.shares(kind).filter_map(|share| share.instance_id.clone()).collect();
        let mut free: Vec<&str> = group.instances.iter().rev().map(|instance| instance.id.as_str()).collect();
        free.retain(|id| group.is_active(id) && !claimed.contains(*id) && !instances.taken.contains(*id));
        let (mut waiting, leaving): (Vec<_>, Vec<_>) = ledger
            .scaling_requests
            .iter_mut()
            .filter(|request| request.group == kind)
            .flat_map(|request| &mut request.shares)
            .filter(|share| share.instance_id.is_none() && share.has_place())
            .filter_map(|share| Some((wants.get(&(kind, share.replacement.clone()))?, share)))
            .partition(|(want, _)| matches!(want, Want::Instance { .. }));
        let missing = usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active());
        let excess = waiting.len().saturating_sub(missing);
        waiting.sort_by_key(|(_, share)| share.is_raised());
        for (_, share) in waiting.into_iter().take(excess) {
            if !free.is_empty() {
                share.instance_id = Some(free.remove(0).to_owned());
            }
        }
        if missing > 0 {
            continue;
        }
        free.sort_by_key(|id| instances.with_pods.contains(*id));
        for (_, share) in leaving.into_iter().filter(|(_, share)| share.is_raised()) {
            if !free.is_empty() {
                share.instance_id = Some(free.remove(0).to_owned());
            }
        }
    }
}

/// Writes one request for all stories that want an instance of a group and have no share in it yet.
fn request_capacity(
    ledger: &mut Ledger,
    view: &PoolView,
    wants: &Wants,
    deferred: &Deferred,
    now: Timestamp,
) -> Option<Call> {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        if deferred.requests.contains(&kind) {
            continue;
        }
        let group = view.group(kind);
        let (mut shares, mut replaced_by_group) = (Vec::new(), Vec::new());
        let mut first_zone = None;
        for ((_, replacement), want) in wants.iter().filter(|((group, _), _)| *group == kind) {
            let Want::Instance { attempt, deadline, stood_in_for, zone, gone } = want else { continue };
            let held = ledger.share(kind, replacement);
            if held.is_some_and(|share| !share.asks()) {
                continue;
            }
            let share = Share {
                replacement: replacement.clone(),
                balance: held.map_or(Balance::Even, |share| share.balance),
                attempt: *attempt,
                since: now,
                deadline: *deadline,
                stood_in_for: *stood_in_for,
                instance_id: None,
                failure: None,
            };
            if *gone && held.is_none() {
                replaced_by_group.push(Share { balance: Balance::OwedByGroup, ..share });
                continue;
            }
            // One zone goes first per call: stories that need another one come in the next.
            if shares.is_empty() {
                first_zone.clone_from(zone);
            } else if group.can_launch && first_zone != *zone {
                continue;
            }
            shares.push(share);
        }
        let request = |shares: Vec<Share>, suffix: &str| ScalingRequest {
            id: format!("{}-{}{suffix}", kind.slug(), now.as_millisecond()),
            group: kind,
            baseline: group.desired,
            target: group.desired + i32::try_from(shares.len()).unwrap_or(0),
            instances_before: group.instances.iter().map(|instance| instance.id.clone()).collect(),
            requested_at: now,
            method: method(group, first_zone.as_deref()),
            state: RequestState::Intended,
            shares,
        };
        if !replaced_by_group.is_empty() {
            let nothing = request(replaced_by_group, "-replaced");
            let (target, state) = (nothing.baseline, RequestState::Applied);
            ledger.scaling_requests.push(ScalingRequest { target, state, ..nothing });
        }
        if shares.is_empty() {
            continue;
        }
        shares.sort_by_key(|share| (share.deadline.is_none(), share.deadline));
        for request in ledger.scaling_requests.iter_mut().filter(|request| request.group == kind) {
            request.shares.retain(|held| shares.iter().all(|share| share.replacement != held.replacement));
        }
        let suspended = group.setup.launch_suspended();
        let room =
            if suspended.is_some() { 0 } else { usize::try_from(group.max - group.desired).unwrap_or(0) };
        let over = shares.split_off(room.min(shares.len()));
        if !over.is_empty() {
            let mut over = request(over, "-refused");
            let at_maximum =
                || (FailureClass::Capacity, format!("the group is at its maximum of {}", group.max));
            let (class, message) =
                suspended.map_or_else(at_maximum, |reason| (FailureClass::Configuration, reason));
            refuse(&mut over, class, &message, now);
            ledger.scaling_requests.push(over);
        }
        if !shares.is_empty() {
            let request = request(shares, "");
            let call = request.call();
            ledger.scaling_requests.push(request);
            return call;
        }
    }
    None
}

/// LaunchInstances where the group can, the volumes' zone first and then the group's own order.
fn method(group: &GroupView, first_zone: Option<&str>) -> Method {
    if !group.can_launch || group.zones.is_empty() {
        return Method::SetDesiredCapacity {};
    }
    let mut zones = group.zones.clone();
    zones.sort_by_key(|zone| Some(zone.as_str()) != first_zone);
    Method::LaunchInstances { zones }
}

/// The next instance to end: with decrement if and only if the story's +1 is still in desired.
fn end_instances(
    ledger: &mut Ledger,
    view: &PoolView,
    wants: &Wants,
    ends: &BTreeSet<End>,
    spare: &mut SpareInstances<'_>,
    now: Timestamp,
) -> Option<Call> {
    for end in ends.iter().filter(|end| !spare.deferred.ending(end.group, &end.instance_id)) {
        let group = view.group(end.group);
        let share = ledger.share(end.group, &end.replacement);
        let raised = share.is_some_and(Share::is_raised);
        if group.is_active(&end.instance_id) {
            if spare.instances.stale && !end.pressed {
                continue;
            }
            // Without a +1 of the story, what the group owes it moves out of the group into the record.
            let owes =
                share.is_some_and(|share| share.instance_id.is_none() && share.balance == Balance::Even);
            // At the minimum AWS refuses a decrement; a +1 then stays and is settled when there is room.
            let settles = (group.desired > group.min && (raised || owes)).then_some(end.replacement.as_str());
            return Some(terminate(ledger, group, end.group, &end.instance_id, settles, now));
        }
        if raised && let Some(call) = settle(ledger, view, wants, (end.group, &end.replacement), spare, now) {
            return Some(call);
        }
    }
    None
}

/// Takes back what stories no longer want.
fn withdraw(
    ledger: &mut Ledger,
    view: &PoolView,
    wants: &Wants,
    spare: &mut SpareInstances<'_>,
    now: Timestamp,
) -> Option<Call> {
    for ((kind, replacement), want) in wants {
        if matches!(want, Want::Instance { .. }) || spare.deferred.requests.contains(kind) {
            continue;
        }
        let Some(share) = ledger.share(*kind, replacement).cloned() else { continue };
        let group = view.group(*kind);
        // Without a +1 the instance is the group's own by now: the share is forgotten.
        if *want == Want::Nothing
            && share.is_raised()
            && let Some(id) = share.instance_id.as_ref().filter(|id| group.is_active(id))
        {
            // At the minimum it would come back each time it is ended: it stays until there is room.
            if group.desired > group.min
                && spare.may_end(group, *kind, id)
                && let Some(call) = spare.end(ledger, (group, *kind), id, replacement, now)
            {
                return Some(call);
            }
            continue;
        }
        if share.is_raised() {
            if let Some(call) = settle(ledger, view, wants, (*kind, replacement), spare, now) {
                return Some(call);
            }
            continue;
        }
        // Who takes everything back is owed nothing: the old instance stays.
        if *want == Want::Done && share.balance == Balance::OwedByUs && share.instance_id.is_none() {
            if let Some(call) = give_back(ledger, group, *kind, &share, now) {
                return Some(call);
            }
            continue;
        }
        forget(ledger, *kind, &share);
    }
    None
}

/// Raises desired capacity again by what it was lowered for a story that waits for nothing any more: the
/// group launches by itself what it was owed.
fn give_back(
    ledger: &mut Ledger,
    group: &GroupView,
    kind: GroupKind,
    share: &Share,
    now: Timestamp,
) -> Option<Call> {
    if group.desired >= group.max {
        return None;
    }
    for request in ledger.scaling_requests.iter_mut().filter(|request| request.group == kind) {
        request.shares.retain(|held| held.replacement != share.replacement);
    }
    let request = ScalingRequest {
        id: format!("{}-{}-given-back", kind.slug(), now.as_millisecond()),
        group: kind,
        baseline: group.desired,
        target: group.desired + 1,
        instances_before: group.instances.iter().map(|instance| instance.id.clone()).collect(),
        requested_at: now,
        method: Method::SetDesiredCapacity {},
        state: RequestState::Intended,
        shares: vec![Share { failure: None, ..share.clone() }],
    };
    let call = request.call();
    ledger.scaling_requests.push(request);
    call
}

/// The share leaves the ledger. Its instance belongs to the group from now on: no other story claims it.
fn forget(ledger: &mut Ledger, kind: GroupKind, share: &Share) {
    for request in ledger.scaling_requests.iter_mut().filter(|request| request.group == kind) {
        request.shares.retain(|held| held.replacement != share.replacement);
        request.instances_before.extend(share.instance_id.clone());
    }
}

/// Writes the intent to end exactly this instance; desired goes down with it if a story's +1 is settled by it.
fn terminate(
    ledger: &mut Ledger,
    group: &GroupView,
    kind: GroupKind,
    instance_id: &str,
    settles: Option<&str>,
    now: Timestamp,
) -> Call {
    ledger.reduction = Some(Reduction {
        group: kind,
        instance_id: Some(instance_id.to_owned()),
        settles: settles.map(str::to_owned),
        baseline: group.desired,
        requested_at: now,
    });
    Call::Terminate { group: kind, instance_id: instance_id.to_owned(), decrement: settles.is_some() }
}

/// Lowers desired by the story's +1 without ending a working instance: only when fewer instances are there
/// than desired, so that AWS has no victim to choose; or by ending the newest instance that nobody claimed
/// and nothing runs on.
fn settle(
    ledger: &mut Ledger,
    view: &PoolView,
    wants: &Wants,
    (kind, replacement): (GroupKind, &str),
    spare: &mut SpareInstances<'_>,
    now: Timestamp,
) -> Option<Call> {
    let group = view.group(kind);
    if group.desired <= group.min || spare.deferred.reductions.contains(&(kind, None)) {
        return None;
    }
    // What is missing may be what other stories wait for: it is not theirs that goes.
    let awaited = ledger
        .scaling_requests
        .iter()
        .filter(|request| request.group == kind)
        .flat_map(|request| &request.shares)
        .filter(|share| share.replacement != replacement && share.instance_id.is_none())
        .filter(|share| share.has_place())
        .count();
    if i32::try_from(group.active() + awaited).unwrap_or(i32::MAX) < group.desired {
        ledger.reduction = Some(Reduction {
            group: kind,
            instance_id: None,
            settles: Some(replacement.to_owned()),
            baseline: group.desired,
            requested_at: now,
        });
        return Some(Call::SetDesired { group: kind, desired: group.desired - 1 });
    }
    let claimed: BTreeSet<&str> =
        ledger.shares(kind).filter_map(|share| share.instance_id.as_deref()).collect();
    let before: BTreeSet<&str> = ledger
        .scaling_requests
        .iter()
        .filter(|request| {
            request.group == kind && request.shares.iter().any(|m| m.replacement == replacement)
        })
        .flat_map(|request| request.instances_before.iter().map(String::as_str))
        .collect();
    let may_end = |id: &str| !spare.instances.taken.contains(id) && spare.may_end(group, kind, id);
    let newest = group.instances.iter().rev().map(|instance| instance.id.as_str());
    let unclaimed = newest.filter(|id| !claimed.contains(id) && !before.contains(id)).find(|id| may_end(id));
    // Or what was claimed for the story itself, if it waits for it no longer and does not stand on it.
    let waits = matches!(wants.get(&(kind, replacement.to_owned())), Some(Want::Instance { .. }));
    let own = ledger.share(kind, replacement).and_then(|share| share.instance_id.as_deref());
    let own = own.filter(|_| !waits);
    let surplus = unclaimed.or(own.filter(|id| may_end(id)))?.to_owned();
    spare.end(ledger, (group, kind), &surplus, replacement, now)
}

/// The desired capacity went down by a story's share: its +1, or what the group owed it.
fn reduced(ledger: &mut Ledger, reduction: &Reduction) {
    ledger.reduction = None;
    let Some(replacement) = &reduction.settles else { return };
    let Some(share) = ledger.member_mut(reduction.group, replacement) else { return };
    share.balance = match (share.is_raised(), &share.instance_id) {
        (true, Some(_)) => Balance::Even,
        // The old instance was never in the on-demand group: nothing there is owed for it, and a story that was
        // cancelled and begins anew asks again.
        (true, None) if reduction.group == GroupKind::OnDemand => Balance::Even,
        (true, None) => Balance::OwedByGroup,
        (false, _) => Balance::OwedByUs,
    };
}

/// Takes in that AWS accepted the call: the answer is the proof, no reading of the group is needed.
pub fn accepted(ledger: &mut Ledger, call: &Call) {
    let group = call.group();
    ledger.has_moved(group);
    if let Some(reduction) = ledger.reduction.clone().filter(|reduction| reduction.group == group) {
        reduced(ledger, &reduction);
        return;
    }
    for request in &mut ledger.scaling_requests {
        if request.group == group && request.state != RequestState::Applied {
            applied(request);
        }
    }
}
