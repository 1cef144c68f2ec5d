//! The ledger: every change that Spot Guard made to the groups of a pool and has not settled. It is stored in
//! the status of the SpotPool, before the call that it announces.

pub mod unusable;
pub mod wants;

use crate::group::{FailureClass, PoolView};
use crate::ids::{GroupName, InstanceId, ReplacementName};
use crate::record::{Excess, GroupKind, MAX_MESSAGE};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use unusable::{Discarded, Unusable};

/// A failure that a replacement's request met.
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

/// The call that requests capacity of a group. In the schema of a custom resource every case has to be an
/// object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// SetDesiredCapacity: the group launches by itself, and goes on trying.
    SetDesiredCapacity {},
    /// LaunchInstances: instances or errors come with the answer, and nothing is tried again.
    LaunchInstances {
        /// The zones still to be tried, in order; the first one is tried now.
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
    /// LaunchInstances gave its answer; whether and when it raises desired capacity is still to be read. AWS
    /// does not document it.
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
    /// Desired capacity was lowered with the old instance: capacity is to be requested again.
    OwedByUs,
}

/// One replacement's share of a scaling request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// The replacement that it is for.
    #[schemars(length(max = 253))]
    pub replacement: ReplacementName,
    /// How it stands with the group's desired capacity.
    #[serde(default)]
    pub balance: Balance,
    /// Which attempt of the replacement it serves.
    pub attempt: u32,
    /// Since when this attempt waits: older activities say nothing about it.
    pub since: Timestamp,
    /// The replacement's deadline: the most urgent share is served first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Set once another instance stands in for the old one: the share waits behind those that have none.
    #[serde(default)]
    pub stood_in_for: bool,
    /// The instance claimed for the replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub instance_id: Option<InstanceId>,
    /// When it was claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<Timestamp>,
    /// Set while it is in service and its node cannot be used, and for a while after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unusable: Option<Unusable>,
    /// The last one that was terminated because its node could not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discarded: Option<Discarded>,
    /// Why there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Share {
    /// Whether an instance that the group lists may be its own: one is missing, and desired capacity has a
    /// place for it. What is owed in the record has none: it comes by a request of ours alone.
    pub(crate) fn awaits(&self) -> bool {
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

    /// Its turn among the shares of its group: the least one is served first.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        Urgency {
            stood_in_for: self.stood_in_for,
            without_deadline: self.deadline.is_none(),
            deadline: self.deadline,
            since: self.since,
        }
    }

    /// Whether it waits for an instance that the group launches by itself.
    pub(crate) fn awaits_in_group(&self) -> bool {
        self.instance_id.is_none() && self.has_place()
    }

    /// Whether its group rests after an instance whose node could not be used.
    pub(crate) fn rests(&self, now: Timestamp) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.class == FailureClass::Unusable)
            && self.discarded.as_ref().is_some_and(|last| last.rests(now))
    }

    /// Whether its instance is to be requested (again): it was not, or the group refused and the replacement
    /// is in a new attempt, or AWS throttled the launch a while ago.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let is_over = |failure: &Failure| {
            failure.class == FailureClass::Throttle && now.duration_since(failure.at) >= THROTTLE_PAUSE
        };
        !self.has_place() && self.instance_id.is_none() && self.failure.as_ref().is_none_or(is_over)
    }
}

/// The order in which shares are served, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency {
    /// Who has an instance that stands in waits behind those that have none.
    stood_in_for: bool,
    without_deadline: bool,
    deadline: Option<Timestamp>,
    since: Timestamp,
}

/// One requested change of a group; written before the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRequest {
    /// Unique in the pool.
    #[schemars(length(max = 128))]
    pub id: String,
    /// Which group.
    pub group: GroupKind,
    /// The name of that group.
    #[schemars(length(max = 255))]
    pub group_name: GroupName,
    /// Desired capacity before.
    pub desired_before: i32,
    /// Desired capacity requested; as before if the request changed nothing.
    pub target: i32,
    /// The instances that were there before: none of them is claimed for this request.
    #[schemars(length(max = 20_000), inner(length(max = 32)))]
    pub instances_before: Vec<InstanceId>,
    /// How many instances counted as capacity before.
    #[serde(default)]
    pub active: i32,
    /// When it was written.
    pub requested_at: Timestamp,
    /// When LaunchInstances gave its last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// By which call.
    #[serde(default)]
    pub method: Method,
    /// Whether the call took effect.
    pub state: RequestState,
    /// The failure that decides among the zones that were tried, while others are still to be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The replacements that it is for.
    #[schemars(length(max = 5_000))]
    pub shares: Vec<Share>,
}

/// A client token has at most so many characters (API Reference, LaunchInstances).
const MAX_TOKEN: usize = 64;

/// FNV-1a with 128 bits: every version of Spot Guard has to give the same token to the same request.
fn hash(text: &str) -> u128 {
    text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

impl ScalingRequest {
    /// How many instances came with the answer.
    pub(crate) fn launched(&self) -> i32 {
        let came = self.shares.iter().filter(|share| share.instance_id.is_some()).count();
        i32::try_from(came).unwrap_or(i32::MAX)
    }

    /// How many instances it still waits for.
    pub(crate) fn missing(&self) -> i32 {
        let open = self.shares.iter().filter(|share| share.instance_id.is_none()).count();
        i32::try_from(open).unwrap_or(i32::MAX)
    }

    /// The token by which AWS knows a call again: one per request, zone and count. A changed request under
    /// an old token is an error, and so is a dot in it (API Reference, LaunchInstances).
    pub(crate) fn token(&self, zones_left: usize) -> String {
        let story = self.shares.first().map_or("none", |share| share.replacement.as_str());
        let token = format!("{story}-{}-{zones_left}-{}", self.id, self.missing());
        let fits = token.len() <= MAX_TOKEN && !token.contains('.');
        if fits { token } else { format!("{:032x}", hash(&token)) }
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
    /// The name of that group.
    #[schemars(length(max = 255))]
    pub group_name: GroupName,
    /// The instance to terminate; without one desired capacity alone is lowered. That terminates nothing,
    /// because fewer instances are there than desired.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub instance_id: Option<InstanceId>,
    /// The replacement whose share of desired capacity goes with it.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub settles: Option<ReplacementName>,
    /// Desired capacity before.
    pub desired_before: i32,
    /// When it was written.
    pub requested_at: Timestamp,
}

/// The desired capacity of a group while something is awaited from it and no call of ours is under way: if it
/// falls, somebody else has lowered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DesiredSeen {
    /// Which group.
    pub group: GroupKind,
    /// The name of that group.
    #[schemars(length(max = 255))]
    pub group_name: GroupName,
    /// Its desired capacity.
    pub desired: i32,
}

/// A group, an endpoint or a role that does not support LaunchInstances: it is served by
/// SetDesiredCapacity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CannotLaunch {
    /// The name of the group.
    #[schemars(length(max = 255))]
    pub group_name: GroupName,
    /// When it refused last.
    pub since: Timestamp,
    /// AWS's words.
    #[schemars(length(max = MAX_MESSAGE))]
    pub message: String,
}

/// A SetDesiredCapacity of which nobody knows whether it is still to arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Doubt {
    /// Which group.
    pub group: GroupKind,
    /// The name of that group.
    #[schemars(length(max = 255))]
    pub group_name: GroupName,
    /// The capacity that it requests.
    pub desired: i32,
    /// Since when it is in doubt.
    pub since: Timestamp,
    /// Whether the group was read since, and the call had not arrived.
    #[serde(default)]
    pub missing: bool,
    /// Desired capacity as it was last read and accounted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<i32>,
}
/// A request to a group that the pool no longer names.
///
/// No call is made for it, and its replacements request nothing again in the group that the pool names
/// instead. If the pool names its group again, it goes on. What the request raised stays in the group
/// until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftBehind {
    /// Since when the pool does not name the group.
    pub since: Timestamp,
    /// The request as it was.
    pub request: ScalingRequest,
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
    /// Requests to groups that the pool no longer names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5_000))]
    pub left_behind: Vec<LeftBehind>,
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
    /// Since when each place of the Spot group is empty that no request waits for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_EMPTY_PLACES))]
    pub empty_places: Vec<Timestamp>,
    /// The on-demand instances above the baseline that nobody of ours requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excess: Option<Excess>,
}

/// Of more empty places nobody needs to know.
pub const MAX_EMPTY_PLACES: usize = 1000;

/// Clocks of AWS and of ours may differ by this much when activities are compared with requests.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// After this time a group is asked again for an instance whose launch was throttled.
const THROTTLE_PAUSE: SignedDuration = SignedDuration::from_secs(5);

/// After this time LaunchInstances is tried again on a group that refused it: permissions and groups change.
const LAUNCH_AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(24);

impl Ledger {
    /// Whether something is still to be taken back, terminated or repaid, so that the pool has to stay.
    #[must_use]
    pub fn is_owing(&self) -> bool {
        !self.scaling_requests.is_empty() || self.reduction.is_some() || !self.doubts.is_empty()
    }

    /// Whether a group is known to refuse LaunchInstances.
    #[must_use]
    pub fn cannot_launch(&self, group_name: &GroupName, now: Timestamp) -> bool {
        let refused = |held: &&CannotLaunch| now.duration_since(held.since) < LAUNCH_AGAIN_AFTER;
        self.cannot_launch.iter().filter(refused).any(|held| held.group_name == group_name)
    }

    /// Takes LaunchInstances from the groups that are known to refuse it.
    pub fn limit_launches(&self, view: &mut PoolView, now: Timestamp) {
        for group in [&mut view.spot, &mut view.on_demand] {
            group.can_launch &= !self.cannot_launch(&group.name, now);
        }
    }

    /// Whether nothing that we changed is open.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.scaling_requests.is_empty() && self.reduction.is_none() && self.left_behind.is_empty()
    }

    /// The share of a replacement in a group.
    #[must_use]
    pub fn share(&self, group: GroupKind, replacement: &ReplacementName) -> Option<&Share> {
        self.shares(group).find(|share| share.replacement == replacement)
    }

    /// All shares in a group.
    pub fn shares(&self, group: GroupKind) -> impl Iterator<Item = &Share> {
        self.requests(group).flat_map(|request| &request.shares)
    }

    /// The open requests of a group.
    pub(crate) fn requests(&self, group: GroupKind) -> impl Iterator<Item = &ScalingRequest> {
        self.scaling_requests.iter().filter(move |request| request.group == group)
    }

    pub(crate) fn requests_mut(&mut self, group: GroupKind) -> impl Iterator<Item = &mut ScalingRequest> {
        self.scaling_requests.iter_mut().filter(move |request| request.group == group)
    }

    pub(crate) fn shares_mut(&mut self, group: GroupKind) -> impl Iterator<Item = &mut Share> {
        self.requests_mut(group).flat_map(|request| &mut request.shares)
    }

    /// The requests of which it is not known yet whether desired capacity counts what they launched.
    fn uncounted_requests(&self, group: GroupKind) -> impl Iterator<Item = &ScalingRequest> {
        self.requests(group).filter(|request| request.state == RequestState::Launched)
    }

    /// How many instances desired capacity may still be raised for by the calls that brought them.
    pub(crate) fn uncounted(&self, group: GroupKind) -> i32 {
        self.uncounted_requests(group).map(ScalingRequest::launched).sum()
    }

    /// Whether desired capacity may still be raised for the replacement by the call that brought its
    /// instance.
    pub(crate) fn is_uncounted(&self, group: GroupKind, replacement: &ReplacementName) -> bool {
        let mut open = self.uncounted_requests(group);
        open.any(|request| request.shares.iter().any(|share| share.replacement == replacement))
    }

    /// Takes the share of a replacement out of its requests.
    pub(crate) fn remove_share(&mut self, group: GroupKind, replacement: &ReplacementName) {
        for request in self.requests_mut(group) {
            request.shares.retain(|share| share.replacement != replacement);
        }
    }

    /// The instances that shares in a group have claimed.
    pub(crate) fn claimed(&self, group: GroupKind) -> BTreeSet<InstanceId> {
        self.shares(group).filter_map(|share| share.instance_id.clone()).collect()
    }

    /// Whether something is under way that the next reading of the groups may show: a call, an instance
    /// that is requested or on its way in.
    #[must_use]
    pub fn is_waiting(&self, view: &PoolView) -> bool {
        let arriving = |kind: GroupKind, share: &Share| match &share.instance_id {
            Some(id) => !view.group(kind).is_in_service(id),
            None => share.balance != Balance::OwedByUs,
        };
        self.reduction.is_some()
            || !self.empty_places.is_empty()
            || self.scaling_requests.iter().any(|request| {
                request.state != RequestState::Applied
                    || request.shares.iter().any(|share| arriving(request.group, share))
            })
    }

    /// The earliest moment from which failed launches of `group` matter: to a request that is still open; to
    /// box 7, as long as an on-demand instance stands in, those within `recent`.
    #[must_use]
    pub fn failures_matter_since(
        &self,
        group: GroupKind,
        recent: Duration,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let open = self.shares(group).filter(|share| share.instance_id.is_none());
        let assessed = group == GroupKind::Spot
            && self.shares(GroupKind::OnDemand).any(|share| share.instance_id.is_some());
        open.map(|share| share.since).min().or(assessed.then(|| now - recent))
    }

    pub(crate) fn drop_empty(&mut self) {
        self.scaling_requests.retain(|request| !request.shares.is_empty());
    }
}
