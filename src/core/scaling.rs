//! How a group is asked for capacity, and what became of it: boxes 2, 3, 3.2 and the ending of instances.
//!
//! The ledger (the open scaling requests of a SpotPool) is the one account of what we changed. [`plan`] takes
//! the ledger, what the groups look like, and what the stories want; it gives back the next ledger and at
//! most one call. The ledger is stored before the call is made, so a crash at any point is resumed here.

use crate::core::record::GroupKind;
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
    pub message: String,
    /// When it was seen.
    pub at: Timestamp,
}

/// Whether the call of a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RequestState {
    /// Written, not known to have taken effect.
    Intended,
    /// Known to have taken effect.
    Applied,
}

/// One story's share of a scaling request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestMember {
    /// The replacement that it is for.
    pub replacement: String,
    /// Whether the +1 is still in the group's desired capacity.
    pub surplus: bool,
    /// Which attempt of the story it serves.
    pub attempt: u32,
    /// Since when this attempt waits: older activities say nothing about it.
    pub since: Timestamp,
    /// The story's deadline: the most urgent member is served first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Set once another instance stands in for the story: it waits behind those that have none.
    #[serde(default)]
    pub owed: bool,
    /// The instance claimed for the story.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub id: String,
    /// Which group.
    pub group: GroupKind,
    /// Desired capacity before.
    pub baseline: i32,
    /// Desired capacity asked for; equal to the baseline if the request changed nothing.
    pub target: i32,
    /// The instances that were there before: none of them is claimed for this request.
    pub instances_before: Vec<String>,
    /// When it was written.
    pub requested_at: Timestamp,
    /// Whether the call took effect.
    pub state: RequestState,
    /// The stories that it is for.
    pub members: Vec<RequestMember>,
}

impl ScalingRequest {
    /// Whether a story's share of it may be asked for again: it changed nothing, and the story is in a new
    /// attempt, or Spot has owed it for a while. An open +1 is reused instead.
    fn may_be_asked_again(&self, member: &RequestMember, now: Timestamp) -> bool {
        let due = member
            .failure
            .as_ref()
            .is_none_or(|failure| member.owed && crate::clock::since(failure.at, now) >= ASK_FOR_DEBTS_EVERY);
        self.target == self.baseline && member.instance_id.is_none() && due
    }
}

/// A reduction of a group that is under way; written before the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reduction {
    /// Which group.
    pub group: GroupKind,
    /// The instance to end; without one the desired capacity alone is lowered, which ends nothing because
    /// fewer instances are there than desired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The replacement whose +1 leaves the desired capacity with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    pub scaling_requests: Vec<ScalingRequest>,
    /// The reduction under way, at most one per pool at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduction: Option<Reduction>,
}

impl Ledger {
    /// The share of a story in a group.
    #[must_use]
    pub fn member(&self, group: GroupKind, replacement: &str) -> Option<&RequestMember> {
        self.scaling_requests
            .iter()
            .filter(|request| request.group == group)
            .flat_map(|request| &request.members)
            .find(|member| member.replacement == replacement)
    }

    fn member_mut(&mut self, group: GroupKind, replacement: &str) -> Option<&mut RequestMember> {
        self.scaling_requests
            .iter_mut()
            .filter(|request| request.group == group)
            .flat_map(|request| &mut request.members)
            .find(|member| member.replacement == replacement)
    }

    /// All shares in a group.
    pub fn members(&self, group: GroupKind) -> impl Iterator<Item = &RequestMember> {
        self.scaling_requests
            .iter()
            .filter(move |request| request.group == group)
            .flat_map(|request| &request.members)
    }

    /// Whether some request still waits for an instance, or a call is under way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.reduction.is_some()
            || self.scaling_requests.iter().any(|request| {
                request.state == RequestState::Intended
                    || request.members.iter().any(|member| member.instance_id.is_none())
            })
    }

    /// The earliest moment from which failures matter to a request that is still open in `group`.
    #[must_use]
    pub fn failures_matter_since(&self, group: GroupKind) -> Option<Timestamp> {
        self.members(group).filter(|member| member.instance_id.is_none()).map(|member| member.since).min()
    }

    fn drop_empty(&mut self) {
        self.scaling_requests.retain(|request| !request.members.is_empty());
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
        owed: bool,
    },
    /// Nothing any more: take the +1 back and end the instance that was claimed for it, if any.
    Nothing,
    /// The story is over: the instance stays, the share is forgotten once nothing of it is in desired.
    Done,
}

/// A story's want of a group.
pub type Wants = BTreeMap<(GroupKind, String), Want>;

/// An instance to end for a story.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Its group.
    pub group: GroupKind,
    /// The instance.
    pub instance_id: String,
    /// The story.
    pub replacement: String,
}

/// What the stories and the cluster know about instances that a group's listing does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Stories stand on these (old nodes, capacity in use): they are never claimed again.
    pub taken: BTreeSet<String>,
    /// Their nodes run pods that would have to move: they are never ended as surplus.
    pub busy: BTreeSet<String>,
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

/// The next ledger, and the call that it announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// To be stored before the call.
    pub ledger: Ledger,
    /// To be made after the ledger is stored.
    pub call: Option<Call>,
}

/// How often a group that refused is asked again for what it owes.
const ASK_FOR_DEBTS_EVERY: Duration = Duration::from_secs(300);

/// Clocks of AWS and of ours may differ by this much when activities are compared with requests.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(2);

/// The next step for a pool.
///
/// Repeating the call that a plan names is without harm: it is planned from a fresh reading of the groups.
#[must_use]
pub fn plan(
    ledger: &Ledger,
    view: &PoolView,
    wants: &Wants,
    ends: &BTreeSet<End>,
    instances: &InstanceFacts,
    now: Timestamp,
) -> Plan {
    let mut ledger = ledger.clone();
    if let Some(call) = resume(&mut ledger, view, now) {
        return Plan { ledger, call: Some(call) };
    }
    refresh_members(&mut ledger, view, wants, now);
    claim(&mut ledger, view, wants, &instances.taken);
    bind_to_successors(&mut ledger, view, wants, instances);
    let call = request_capacity(&mut ledger, view, wants, now)
        .or_else(|| end_instances(&mut ledger, view, wants, ends, instances, now))
        .or_else(|| withdraw(&mut ledger, view, wants, instances, now));
    ledger.drop_empty();
    Plan { ledger, call }
}

/// Finishes what an earlier step, or an earlier life, left between the written intent and its outcome.
fn resume(ledger: &mut Ledger, view: &PoolView, now: Timestamp) -> Option<Call> {
    for request in &mut ledger.scaling_requests {
        if request.state == RequestState::Applied {
            continue;
        }
        let group = view.group(request.group);
        let count = request.target - request.baseline;
        if group.desired >= request.target {
            request.state = RequestState::Applied;
            for member in &mut request.members {
                member.surplus = true;
            }
            continue;
        }
        request.baseline = group.desired;
        request.target = (group.desired + count).min(group.max);
        if request.target <= group.desired {
            let message = format!("the group is at its maximum of {}", group.max);
            refuse(request, FailureClass::Capacity, &message, now);
            continue;
        }
        return Some(Call::SetDesired { group: request.group, desired: request.target });
    }
    // A reduction without effect is forgotten, not repeated: whether it is still wanted is decided anew. So is
    // one whose instance went another way (AWS took it): the account stays open.
    let reduction = ledger.reduction.take()?;
    let group = view.group(reduction.group);
    let took_effect = group.desired < reduction.baseline
        && reduction.instance_id.as_ref().is_none_or(|id| !group.is_active(id));
    if took_effect
        && let Some(replacement) = &reduction.settles
        && let Some(member) = ledger.member_mut(reduction.group, replacement)
    {
        member.surplus = false;
    }
    None
}

/// Marks the unclaimed members of a request as failed.
fn refuse(request: &mut ScalingRequest, class: FailureClass, message: &str, now: Timestamp) {
    request.state = RequestState::Applied;
    request.target = request.baseline;
    for member in &mut request.members {
        member.failure = Some(Failure { class, message: message.to_owned(), at: now });
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

/// Takes in what changed about the members: attempts, urgency, lost instances, failed launches.
fn refresh_members(ledger: &mut Ledger, view: &PoolView, wants: &Wants, now: Timestamp) {
    for request in &mut ledger.scaling_requests {
        let group = view.group(request.group);
        for member in &mut request.members {
            if let Some(Want::Instance { attempt, deadline, owed }) =
                wants.get(&(request.group, member.replacement.clone()))
            {
                member.deadline = *deadline;
                member.owed = *owed;
                if member.attempt < *attempt {
                    member.attempt = *attempt;
                    member.since = now;
                    member.failure = None;
                }
            }
            if member.instance_id.as_ref().is_some_and(|id| !group.is_active(id)) {
                member.instance_id = None;
                member.since = now;
            }
            if member.instance_id.is_some() {
                member.failure = None;
                continue;
            }
            let since = member.since - CLOCK_SKEW;
            let failed = group
                .failures
                .iter()
                .find(|failure| failure.started_at >= since && failure.class != FailureClass::Throttle);
            if let (None, Some(failed)) = (&member.failure, failed) {
                member.failure =
                    Some(Failure { class: failed.class, message: failed.message.clone(), at: now });
            }
        }
    }
}

/// Gives new instances to the members that want one and have none, the most urgent first. A share that is
/// being withdrawn claims nothing more: what it would end then belongs to somebody else.
fn claim(ledger: &mut Ledger, view: &PoolView, wants: &Wants, taken: &BTreeSet<String>) {
    let wants_one = |kind: GroupKind, member: &RequestMember| {
        matches!(wants.get(&(kind, member.replacement.clone())), Some(Want::Instance { .. }))
    };
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let claimed: BTreeSet<String> =
            ledger.members(kind).filter_map(|member| member.instance_id.clone()).collect();
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
                    let refused = request.target == request.baseline;
                    request.members.iter_mut().map(move |member| (refused, member))
                })
                .filter(|(_, member)| member.instance_id.is_none() && wants_one(kind, member))
                .min_by_key(|(refused, member)| {
                    (*refused, member.owed, member.deadline.is_none(), member.deadline, member.since)
                });
            if let Some((_, member)) = most_urgent {
                member.instance_id = Some(instance.id.clone());
                member.failure = None;
            }
        }
    }
}

/// Binds shares to instances that their request did not bring, because AWS replaced an instance itself: only
/// as many as the group is not missing.
///
/// A story whose +1 was settled already is owed one of those that serve; a +1 that is to be settled, and whose
/// instance was lost, goes with one of them.
fn bind_to_successors(ledger: &mut Ledger, view: &PoolView, wants: &Wants, instances: &InstanceFacts) {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = view.group(kind);
        let claimed: BTreeSet<String> =
            ledger.members(kind).filter_map(|member| member.instance_id.clone()).collect();
        let mut free: Vec<&str> = group.instances.iter().rev().map(|instance| instance.id.as_str()).collect();
        free.retain(|id| group.is_active(id) && !claimed.contains(*id) && !instances.taken.contains(*id));
        let (waiting, leaving): (Vec<_>, Vec<_>) = ledger
            .scaling_requests
            .iter_mut()
            .filter(|request| request.group == kind && request.target != request.baseline)
            .flat_map(|request| &mut request.members)
            .filter(|member| member.instance_id.is_none())
            .filter_map(|member| Some((wants.get(&(kind, member.replacement.clone()))?, member)))
            .partition(|(want, _)| matches!(want, Want::Instance { .. }));
        let missing = usize::try_from(group.desired).unwrap_or(0).saturating_sub(group.active());
        let excess = waiting.len().saturating_sub(missing);
        for (_, member) in waiting.into_iter().filter(|(_, member)| !member.surplus).take(excess) {
            if !free.is_empty() {
                member.instance_id = Some(free.remove(0).to_owned());
            }
        }
        if missing > 0 {
            continue;
        }
        free.sort_by_key(|id| instances.busy.contains(*id));
        for (_, member) in leaving.into_iter().filter(|(_, member)| member.surplus) {
            if !free.is_empty() {
                member.instance_id = Some(free.remove(0).to_owned());
            }
        }
    }
}

/// Writes one request for all stories that want an instance of a group and have no share in it yet.
fn request_capacity(ledger: &mut Ledger, view: &PoolView, wants: &Wants, now: Timestamp) -> Option<Call> {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = view.group(kind);
        let mut members = Vec::new();
        for ((_, replacement), want) in wants.iter().filter(|((group, _), _)| *group == kind) {
            let Want::Instance { attempt, deadline, owed } = want else { continue };
            let held =
                ledger.scaling_requests.iter().filter(|request| request.group == kind).find_map(|request| {
                    let mut members = request.members.iter();
                    Some((request, members.find(|member| member.replacement == *replacement)?))
                });
            if held.is_some_and(|(request, member)| !request.may_be_asked_again(member, now)) {
                continue;
            }
            members.push(RequestMember {
                replacement: replacement.clone(),
                surplus: false,
                attempt: *attempt,
                since: now,
                deadline: *deadline,
                owed: *owed,
                instance_id: None,
                failure: None,
            });
        }
        if members.is_empty() {
            continue;
        }
        members.sort_by_key(|member| (member.deadline.is_none(), member.deadline));
        for request in &mut ledger.scaling_requests {
            if request.group == kind {
                request
                    .members
                    .retain(|held| members.iter().all(|member| member.replacement != held.replacement));
            }
        }
        let room = usize::try_from(group.max - group.desired).unwrap_or(0);
        let refused_members = members.split_off(room.min(members.len()));
        let request = |members: Vec<RequestMember>, target: i32, suffix: &str| ScalingRequest {
            id: format!("{}-{}{suffix}", kind.slug(), now.as_millisecond()),
            group: kind,
            baseline: group.desired,
            target,
            instances_before: group.instances.iter().map(|instance| instance.id.clone()).collect(),
            requested_at: now,
            state: RequestState::Intended,
            members,
        };
        if !refused_members.is_empty() {
            let mut over = request(refused_members, group.desired, "-refused");
            refuse(
                &mut over,
                FailureClass::Capacity,
                &format!("the group is at its maximum of {}", group.max),
                now,
            );
            ledger.scaling_requests.push(over);
        }
        if !members.is_empty() {
            let target = group.desired + i32::try_from(members.len()).unwrap_or(0);
            ledger.scaling_requests.push(request(members, target, ""));
            return Some(Call::SetDesired { group: kind, desired: target });
        }
    }
    None
}

/// The next instance to end: with decrement if and only if the story's +1 is still in desired.
fn end_instances(
    ledger: &mut Ledger,
    view: &PoolView,
    wants: &Wants,
    ends: &BTreeSet<End>,
    instances: &InstanceFacts,
    now: Timestamp,
) -> Option<Call> {
    for end in ends {
        let group = view.group(end.group);
        let surplus = ledger.member(end.group, &end.replacement).is_some_and(|member| member.surplus);
        if group.is_active(&end.instance_id) {
            // At the minimum AWS refuses a decrement; the +1 then stays and is settled when there is room.
            let settles = surplus.then_some(end.replacement.as_str());
            return Some(terminate(ledger, group, end.group, &end.instance_id, settles, now));
        }
        if surplus
            && let Some(call) = settle(ledger, view, wants, (end.group, &end.replacement), instances, now)
        {
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
    instances: &InstanceFacts,
    now: Timestamp,
) -> Option<Call> {
    for ((kind, replacement), want) in wants {
        if matches!(want, Want::Instance { .. }) {
            continue;
        }
        let Some(member) = ledger.member(*kind, replacement).cloned() else { continue };
        let group = view.group(*kind);
        if *want == Want::Nothing
            && let Some(id) = member.instance_id.as_ref().filter(|id| group.is_active(id))
        {
            if instances.busy.contains(id) {
                continue;
            }
            let settles = member.surplus.then_some(replacement.as_str());
            return Some(terminate(ledger, group, *kind, id, settles, now));
        }
        if member.surplus {
            if let Some(call) = settle(ledger, view, wants, (*kind, replacement), instances, now) {
                return Some(call);
            }
            continue;
        }
        for request in &mut ledger.scaling_requests {
            if request.group == *kind {
                request.members.retain(|member| member.replacement != *replacement);
            }
        }
    }
    None
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
    // At the minimum AWS refuses a decrement; the +1 then stays and is settled when there is room.
    let settles = settles.filter(|_| group.desired > group.min);
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
    instances: &InstanceFacts,
    now: Timestamp,
) -> Option<Call> {
    let group = view.group(kind);
    if group.desired <= group.min {
        return None;
    }
    // What is missing may be what other stories wait for: it is not theirs that goes.
    let awaited = ledger
        .scaling_requests
        .iter()
        .filter(|request| request.group == kind && request.target != request.baseline)
        .flat_map(|request| &request.members)
        .filter(|member| member.replacement != replacement && member.instance_id.is_none())
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
        ledger.members(kind).filter_map(|member| member.instance_id.as_deref()).collect();
    let before: BTreeSet<&str> = ledger
        .scaling_requests
        .iter()
        .filter(|request| {
            request.group == kind && request.members.iter().any(|m| m.replacement == replacement)
        })
        .flat_map(|request| request.instances_before.iter().map(String::as_str))
        .collect();
    let may_end =
        |id: &str| group.is_active(id) && !instances.taken.contains(id) && !instances.busy.contains(id);
    let newest = group.instances.iter().rev().map(|instance| instance.id.as_str());
    let unclaimed = newest.filter(|id| !claimed.contains(id) && !before.contains(id)).find(|id| may_end(id));
    // Or what was claimed for the story itself, if it waits for it no longer and does not stand on it.
    let waits = matches!(wants.get(&(kind, replacement.to_owned())), Some(Want::Instance { .. }));
    let own = ledger.member(kind, replacement).and_then(|member| member.instance_id.as_deref());
    let own = own.filter(|_| !waits);
    let surplus = unclaimed.or(own.filter(|id| may_end(id)))?.to_owned();
    Some(terminate(ledger, group, kind, &surplus, Some(replacement), now))
}

/// Takes in that AWS accepted the call: the answer is the proof, no reading of the group is needed.
pub fn accepted(ledger: &mut Ledger, call: &Call) {
    let (Call::SetDesired { group, .. } | Call::Terminate { group, .. }) = call;
    if let Some(reduction) = ledger.reduction.take_if(|reduction| reduction.group == *group) {
        if let Some(replacement) = reduction.settles
            && let Some(member) = ledger.member_mut(reduction.group, &replacement)
        {
            member.surplus = false;
        }
        return;
    }
    for request in &mut ledger.scaling_requests {
        if request.group == *group && request.state == RequestState::Intended {
            request.state = RequestState::Applied;
            for member in &mut request.members {
                member.surplus = true;
            }
        }
    }
}
