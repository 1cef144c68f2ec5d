//! Readings of a pool's groups that are never older than what is known.
//!
//! A Describe call may give an older picture than the call before it, or than the answer to a change (EC2 API
//! Reference, "Eventual consistency"); up to ten seconds are counted with. So for that long after something
//! was first read, or said by an answer, an older picture of it is not believed.

#[cfg(test)]
mod tests;

use crate::group::{GroupView, Instance, Lifecycle, PoolView, Rollout};
use crate::ids::{GroupName, InstanceId};
use crate::ledger::{Ledger, Reduction, RequestState};
use crate::record::GroupKind;
use crate::scaling::answers::Answer;
use crate::scaling::calls::{COUNTED_WITHIN, Call, SEEN_WITHIN, Uncertain};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So long after a change a picture from before it may be given.
pub const LAG: Duration = Duration::from_secs(10);

/// Instance refreshes take minutes to hours, and are read this often. So are lifecycle hooks.
const REFRESHES_EVERY: Duration = Duration::from_secs(120);

/// So long after somebody else moved the size of a managed node group of two versions, it counts as in an
/// update. EKS also leaves two versions where an update failed.
const MOVED_WITHIN: Duration = Duration::from_secs(900);

/// So long without any sign of progress a raised maximum counts as the sign of an update.
const RAISED_WITHIN: Duration = Duration::from_secs(7200);

/// What is known of the groups of a pool. It is lost with the process, but for what the ledger holds.
///
/// Times are how long it has been kept: the machine's clock may be set meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    groups: BTreeMap<GroupName, Known>,
    /// The reduction that the ledger held when it was last looked at, and since when.
    reduction: Option<(Reduction, Duration)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Desired capacity in the order in which it was known, and since when; the last one counts.
    desired: Vec<(i32, Duration)>,
    /// Where each instance is in its life, and since when that is known; `None` is out of the group.
    instances: BTreeMap<InstanceId, (Option<Instance>, Duration)>,
    /// The status of the instance refresh that is under way, and when this was last asked.
    refresh: Option<String>,
    refresh_asked: Option<Duration>,
    /// Whether a lifecycle hook holds what the group terminates.
    termination_hook: Option<bool>,
    /// When LaunchInstances was answered last.
    launched_at: Option<Duration>,
    /// The maximum when all its instances were of one version of its launch template.
    max_of_one_version: Option<i32>,
    /// The maximum as it was last read.
    max: Option<i32>,
    /// When it was moved last, or first read.
    max_moved_at: Option<Duration>,
    /// When others moved desired capacity last.
    moved_at: Option<Duration>,
}

impl Readings {
    /// What the ledger of an earlier life tells.
    #[must_use]
    pub fn of(ledger: &Ledger, now: Duration) -> Self {
        let mut readings = Self::default();
        for seen in &ledger.desired_seen {
            let known = readings.groups.entry(seen.group_name.clone()).or_default();
            // Whatever is less may be what was there before.
            known.desired = (0..=seen.desired).map(|desired| (desired, now)).collect();
        }
        for request in ledger.scaling_requests.iter().filter(|held| held.state == RequestState::Launched) {
            let known = readings.groups.entry(request.group_name.clone()).or_default();
            known.launched_at = Some(now);
        }
        readings
    }

    /// Replaces what is older in a reading than what is known by what is known. `asked` is when the reading
    /// was requested, `ledger` as it is stored.
    pub fn correct(&mut self, view: &mut PoolView, ledger: &Ledger, asked: Duration) -> Uncertain {
        let mut uncertain =
            Uncertain { reduction: self.is_young(ledger.reduction.as_ref(), asked), ..Uncertain::default() };
        for (kind, group) in [(GroupKind::Spot, &mut view.spot), (GroupKind::OnDemand, &mut view.on_demand)] {
            let read = group.desired;
            let known = self.groups.entry(group.name.clone()).or_default();
            known.correct(group, asked);
            if group.desired != read {
                uncertain.desired.insert(kind);
            }
            if known.launched_at.is_some_and(|at| asked.saturating_sub(at) < COUNTED_WITHIN) {
                uncertain.launches.insert(kind);
            }
        }
        self.groups.retain(|name, _| [&view.spot.name, &view.on_demand.name].contains(&name));
        uncertain
    }

    /// Whether it is not long that the ledger holds this reduction, as far as this life knows.
    fn is_young(&mut self, reduction: Option<&Reduction>, now: Duration) -> bool {
        if self.reduction.as_ref().map(|(held, _)| held) != reduction {
            self.reduction = reduction.cloned().map(|reduction| (reduction, now));
        }
        self.reduction.as_ref().is_some_and(|(_, since)| now.saturating_sub(*since) < SEEN_WITHIN)
    }

    /// The groups whose instance refreshes and hooks are to be asked for now. They count as asked.
    pub fn ask_for_refreshes(&mut self, groups: &[&GroupName], now: Duration) -> Vec<GroupName> {
        let mut due = Vec::new();
        for group in groups {
            let known = self.groups.entry((*group).clone()).or_default();
            if known.refresh_asked.is_none_or(|at| now.saturating_sub(at) >= REFRESHES_EVERY) {
                known.refresh_asked = Some(now);
                due.push((*group).clone());
            }
        }
        due
    }

    /// Takes in the status of a group's instance refresh; `None`: none is under way.
    pub fn note_refresh(&mut self, group: &GroupName, status: Option<String>) {
        self.groups.entry(group.clone()).or_default().refresh = status;
    }

    /// Takes in whether a lifecycle hook holds what the group terminates.
    pub fn note_hook(&mut self, group: &GroupName, found: bool) {
        self.groups.entry(group.clone()).or_default().termination_hook = Some(found);
    }

    /// Puts the rollouts and hooks that are known into a reading.
    pub fn show_rollouts(&mut self, view: &mut PoolView, now: Duration) {
        for group in [&mut view.spot, &mut view.on_demand] {
            let known = self.groups.entry(group.name.clone()).or_default();
            group.setup.rollout = known.rollout(group, now);
            group.setup.termination_hook = known.termination_hook;
        }
    }

    /// Takes in what AWS said to a call. `view` is the reading that the call was planned from.
    pub fn told(&mut self, view: &PoolView, call: &Call, answer: &Answer, now: Duration) {
        let group = view.group(call.group());
        let known = self.groups.entry(group.name.clone()).or_default();
        match (call, answer) {
            (Call::SetDesired { desired, .. }, _) => known.note_desired(*desired, now),
            (Call::Launch { zone, .. }, Answer::Launched { instance_ids, .. }) => {
                known.launched_at = Some(now);
                for id in instance_ids {
                    let new = Instance {
                        id: id.clone(),
                        zone: zone.clone(),
                        lifecycle: Lifecycle::Pending,
                        protected: false,
                    };
                    known.instances.entry(id.clone()).or_insert((Some(new), now));
                }
            }
            (Call::Terminate { instance_id, decrement, .. }, Answer::Terminated { says_shrunk }) => {
                if let Some(instance) = group.instance(instance_id).cloned() {
                    let leaving = Instance { lifecycle: Lifecycle::Leaving, ..instance };
                    known.instances.insert(instance_id.clone(), (Some(leaving), now));
                }
                if *decrement && *says_shrunk {
                    known.note_desired(group.desired - 1, now);
                }
            }
            (Call::Launch { .. } | Call::Terminate { .. }, _) => {}
        }
    }
}

impl Known {
    /// What replaces all instances of a group as it was just read.
    ///
    /// An update of a node group first brings a new version of its launch template, then raises its maximum
    /// and desired capacity until it is over (EKS User Guide, "Understand each phase of node updates"). Two
    /// versions alone may be what an update that failed has left.
    fn rollout(&mut self, group: &GroupView, now: Duration) -> Option<Rollout> {
        if self.max.replace(group.max) != Some(group.max) {
            self.max_moved_at = Some(now);
        }
        if !group.setup.mixed_versions {
            self.max_of_one_version = Some(group.max);
        }
        let is_raised = self.max_of_one_version.is_some_and(|max| group.max > max);
        let within = if is_raised { RAISED_WITHIN } else { MOVED_WITHIN };
        // Whoever scales the group moves its desired capacity all the time.
        let moved_at = match self.max_of_one_version {
            Some(_) if !is_raised => self.max_moved_at,
            _ => self.moved_at.max(self.max_moved_at),
        };
        let moves = moved_at.is_some_and(|at| now.saturating_sub(at) < within);
        let updated = group.setup.eks_node_group.as_ref().filter(|_| group.setup.mixed_versions && moves);
        let refresh = self.refresh.clone().map(Rollout::InstanceRefresh);
        refresh.or_else(|| updated.cloned().map(Rollout::NodeGroupUpdate))
    }

    fn note_desired(&mut self, desired: i32, now: Duration) {
        self.desired.retain(|(held, _)| *held != desired);
        self.desired.push((desired, now));
    }

    fn correct(&mut self, group: &mut GroupView, now: Duration) {
        match self.desired.last().copied() {
            Some((current, _)) if current == group.desired => {}
            Some((current, since))
                if is_young(since, now) && self.desired.iter().any(|(held, _)| *held == group.desired) =>
            {
                group.desired = current;
            }
            _ => {
                let may_be_ours = self.launched_at.is_some_and(|at| now.saturating_sub(at) < COUNTED_WITHIN);
                if !may_be_ours {
                    self.moved_at = Some(now);
                }
                self.note_desired(group.desired, now);
            }
        }
        // What was followed by something else long ago is not shown any more.
        let last = self.desired.last().map(|(_, since)| *since);
        if last.is_some_and(|since| !is_young(since, now)) {
            self.desired.drain(..self.desired.len() - 1);
        }
        self.correct_instances(group, now);
    }

    fn correct_instances(&mut self, group: &mut GroupView, now: Duration) {
        let mut instances = Vec::with_capacity(group.instances.len());
        for listed in std::mem::take(&mut group.instances) {
            match self.instances.get(&listed.id) {
                Some((known, since))
                    if stage(known.as_ref()) > stage(Some(&listed)) && is_young(*since, now) =>
                {
                    instances.extend(known.clone());
                }
                Some((Some(known), _)) if stage(Some(known)) == stage(Some(&listed)) => {
                    instances.push(listed)
                }
                _ => {
                    self.instances.insert(listed.id.clone(), (Some(listed.clone()), now));
                    instances.push(listed);
                }
            }
        }
        let listed: BTreeSet<&InstanceId> = instances.iter().map(|held| &held.id).collect();
        let missing = self.instances.keys().filter(|id| !listed.contains(id));
        let missing: Vec<InstanceId> = missing.cloned().collect();
        for id in missing {
            match self.instances.get_mut(&id) {
                Some((Some(known), since)) if !known.lifecycle.is_leaving() && is_young(*since, now) => {
                    instances.push(known.clone());
                }
                Some((known @ Some(_), since)) => (*known, *since) = (None, now),
                Some((None, since)) if is_young(*since, now) => {}
                _ => {
                    self.instances.remove(&id);
                }
            }
        }
        group.instances = instances;
    }
}

/// Whether a picture from before that moment may still be given.
fn is_young(since: Duration, now: Duration) -> bool {
    now.saturating_sub(since) < LAG
}

/// How far an instance is in its life: it does not go back. One that is replaced in place or unhealthy may be
/// in service again.
fn stage(instance: Option<&Instance>) -> u8 {
    match instance.map(|held| held.lifecycle) {
        Some(Lifecycle::Pending | Lifecycle::Held) => 0,
        Some(Lifecycle::InService | Lifecycle::Other | Lifecycle::Ended | Lifecycle::Standby) => 1,
        Some(Lifecycle::Leaving | Lifecycle::TerminationHeld | Lifecycle::Retained) => 2,
        None => 3,
    }
}
