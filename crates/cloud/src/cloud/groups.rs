//! What an Auto Scaling group does by itself: it brings its instances to its desired capacity.

use super::activity::seconds;
use super::event::EventKind;
use super::spec::{CloudSettings, GroupSpec, LaunchFailure};
use super::state::{Group, Instance, LifecycleState, State, Timer, after};
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

impl Group {
    /// Others are about to change desired capacity by so much.
    pub(super) fn note_change_by_others(&mut self, change: i64) {
        self.added_by_others += change;
        self.lowered_by_others += (-change).max(0);
    }

    /// Scripts the next launches in a zone, or in any.
    pub(super) fn set_failure(
        &mut self,
        zone: Option<&str>,
        failure: Option<LaunchFailure>,
        times: Option<u32>,
    ) {
        let key = zone.map(str::to_owned);
        match failure.filter(|_| times != Some(0)) {
            Some(failure) => self.failures.insert(key, (failure, times)),
            None => self.failures.remove(&key),
        };
    }

    /// The scripted failure of a launch in a zone, or of one in any; it holds for one launch fewer then.
    pub(super) fn take_failure(&mut self, zone: Option<&str>) -> Option<LaunchFailure> {
        let key = zone.map(str::to_owned);
        let (failure, times) = self.failures.get_mut(&key)?;
        let failure = failure.clone();
        *times = times.map(|times| times.saturating_sub(1));
        if *times == Some(0) {
            self.failures.remove(&key);
        }
        Some(failure)
    }
}

impl State {
    /// Creates a group whose instances run since `at`.
    pub(super) fn add_group(&mut self, spec: GroupSpec, at: Timestamp) {
        let (name, desired) = (spec.name.clone(), spec.desired);
        let zones = spec.zones.clone();
        let suspended = spec.suspended.iter().cloned().collect();
        self.groups.insert(
            name.clone(),
            Group {
                spec,
                created: at,
                desired,
                added_by_others: 0,
                lowered_by_others: 0,
                capacity: BTreeMap::new(),
                failures: BTreeMap::new(),
                boot_faults: VecDeque::new(),
                launching: Vec::new(),
                suspended,
                failing_since: None,
                retry_pause: Duration::ZERO,
                retry_at: None,
                refresh: None,
                change_cause: None,
            },
        );
        for zone in zones.iter().cycle().take(desired as usize) {
            let market = self.next_market(&name);
            let id = self.add_instance(&name, zone, market, at);
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.state = LifecycleState::InService;
            }
            self.register_node(&id, at);
            self.ready_node(&id, at);
        }
    }

    /// Changes desired capacity as somebody who is no client of the API.
    pub(super) fn change_for_others(&mut self, group: &str, desired: u32, at: Timestamp) {
        if let Some(entry) = self.groups.get_mut(group) {
            entry.note_change_by_others(i64::from(desired) - i64::from(entry.desired));
        }
        self.change_desired(group, desired, "another user", at);
        // SetDesiredCapacity is absolute. Whoever calls it from an older picture undoes the change of another
        // one, and nothing in the API prevents that: stories do not have it.
        self.pictures.clear();
    }

    /// Changes desired capacity in the name of `who` and lets the group react.
    pub(super) fn change_desired(&mut self, group: &str, desired: u32, who: &str, at: Timestamp) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        let before = entry.desired;
        entry.desired = desired;
        // What was launched beyond the desired capacity is what a raise finds there already.
        self.count_beyond(group, desired.saturating_sub(before));
        let Some(entry) = self.groups.get_mut(group) else { return };
        if before != desired {
            entry.change_cause = Some(format!(
                "At {} {who} changing the desired capacity from {before} to {desired}.",
                seconds(at)
            ));
            // A changed group tries at once, however long the pause after the last failure.
            entry.retry_at = None;
            self.tell(at, EventKind::DesiredChanged, group, None, format!("desired {before} → {desired}"));
        }
        let soon = after(at, self.settings.reaction);
        self.at(soon, Timer::Reconcile(group.to_owned()));
    }

    /// Counts as many of the instances that were launched beyond the desired capacity.
    fn count_beyond(&mut self, group: &str, count: u32) {
        let is_beyond = |i: &&mut Instance| i.group == group && i.beyond_desired && !i.state.is_ending();
        let beyond = self.instances.values_mut().filter(is_beyond);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        beyond.take(count).for_each(|instance| instance.beyond_desired = false);
    }

    /// Desired capacity goes up by what `LaunchInstances` has launched before.
    pub(super) fn count_launched(&mut self, group: &str, launched: u32, at: Timestamp) {
        let Some(entry) = self.groups.get(group) else { return };
        let desired = entry.desired.saturating_add(launched);
        self.change_desired(group, desired, "a user request launched instances synchronously,", at);
    }

    /// One look of the group at itself.
    pub(super) fn reconcile(&mut self, group: &str, at: Timestamp) {
        let missing =
            self.groups.get(group).map_or(0, |held| held.desired.saturating_sub(self.counted(group)));
        self.count_beyond(group, missing);
        let counted = self.counted(group);
        let Some(entry) = self.groups.get(group) else { return };
        if counted < entry.desired {
            self.scale_out(group, entry.desired - counted, at);
        } else if counted > entry.desired {
            self.scale_in(group, counted - entry.desired, at);
        } else if entry.spec.az_rebalance {
            self.rebalance_zones(group, at);
        }
    }

    fn scale_out(&mut self, group: &str, missing: u32, at: Timestamp) {
        let counted = self.counted(group);
        let Some(entry) = self.groups.get(group) else { return };
        if entry.suspended.contains_key("Launch") || entry.retry_at.is_some_and(|retry_at| at < retry_at) {
            return;
        }
        let cause = format!(
            "{}At {} an instance was started in response to a difference between desired and actual capacity, \
             increasing the capacity from {counted} to {}.",
            entry.change_cause.as_ref().map(|cause| format!("{cause}  ")).unwrap_or_default(),
            seconds(at),
            entry.desired
        );
        let takes = self.settings.launch_takes;
        for _ in 0..missing {
            if takes.is_zero() {
                if !self.try_launch(group, &cause, None, at) {
                    return;
                }
                continue;
            }
            let activity = self.launch_activity(None, group, &cause, at);
            if let Some(entry) = self.groups.get_mut(group) {
                entry.launching.push(activity.clone());
            }
            self.at(after(at, takes), Timer::Launch(group.to_owned(), activity));
        }
    }

    /// A launch that was under way has its instance, or has failed.
    pub(super) fn end_launch(&mut self, group: &str, activity: String, at: Timestamp) {
        let Some(entry) = self.groups.get_mut(group) else { return };
        entry.launching.retain(|other| *other != activity);
        let cause = self.activity_mut(&activity).map(|entry| entry.cause.clone()).unwrap_or_default();
        self.try_launch(group, &cause, Some(activity), at);
    }

    fn try_launch(&mut self, group: &str, cause: &str, under_way: Option<String>, at: Timestamp) -> bool {
        let launched = self.launch(group, None, cause, under_way, at).is_ok();
        if launched {
            self.note_success(group);
        } else {
            self.note_failure(group, at);
        }
        launched
    }

    fn note_success(&mut self, group: &str) {
        if let Some(entry) = self.groups.get_mut(group) {
            entry.failing_since = None;
            entry.retry_at = None;
            entry.retry_pause = Duration::ZERO;
        }
    }

    /// Records when the group tries again after a failed launch.
    fn note_failure(&mut self, group: &str, at: Timestamp) {
        let CloudSettings { retry_first, retry_max, suspend_launch_after, .. } = self.settings;
        let Some(entry) = self.groups.get_mut(group) else { return };
        if entry.retry_at.is_some_and(|retry_at| at < retry_at) {
            return;
        }
        let since = *entry.failing_since.get_or_insert(at);
        if crate::clock::since(since, at) >= suspend_launch_after {
            let reason = format!("Administrative suspension at {}: launches keep failing", seconds(at));
            entry.suspended.insert("Launch".into(), reason.clone());
            self.tell(at, EventKind::LaunchSuspended, group, None, reason);
            return;
        }
        entry.retry_pause = (entry.retry_pause * 2).clamp(retry_first, retry_max.max(retry_first));
        let retry_at = after(at, entry.retry_pause);
        entry.retry_at = Some(retry_at);
        self.at(retry_at, Timer::Reconcile(group.to_owned()));
    }

    /// Ends the activity of a launch that failed in a zone.
    pub(super) fn fail_launch(
        &mut self,
        group: &str,
        zone: &str,
        failure: &LaunchFailure,
        activity: &str,
        at: Timestamp,
    ) {
        if let Some(entry) = self.activity_mut(activity) {
            entry.zone = Some(zone.to_owned());
        }
        self.finish_activity(activity, at, failure.status_code, Some(&failure.status_message));
        self.tell(at, EventKind::LaunchFailed, group, None, failure.status_message.clone());
    }

    /// Ends instances as the default termination policy chooses: in the fullest zone, the oldest first (User
    /// Guide, "Default termination policy"). Nobody asks which one was drained. The cause reads as in "Verify a
    /// scaling activity for an Auto Scaling group".
    fn scale_in(&mut self, group: &str, excess: u32, at: Timestamp) {
        let Some(entry) = self.groups.get(group) else { return };
        if entry.suspended.contains_key("Terminate") {
            return;
        }
        let cause = format!(
            "{}At {} an instance was taken out of service in response to a difference between desired and actual \
             capacity, shrinking the capacity from {} to {}.",
            entry.change_cause.as_ref().map(|cause| format!("{cause}  ")).unwrap_or_default(),
            seconds(at),
            entry.desired + excess,
            entry.desired
        );
        for _ in 0..excess {
            let Some(victim) = self.victim(group) else { return };
            let chosen = format!("  At {} instance {victim} was selected for termination.", seconds(at));
            self.terminate(&victim, &format!("{cause}{chosen}"), at);
        }
    }

    fn victim(&self, group: &str) -> Option<String> {
        let members = self.members(group);
        let mut by_zone: BTreeMap<&str, u32> = BTreeMap::new();
        for instance in members.iter().filter(|i| self.counts(i)) {
            *by_zone.entry(&instance.zone).or_default() += 1;
        }
        let eligible =
            members.iter().filter(|i| self.counts(i) && i.state == LifecycleState::InService && !i.protected);
        let fullest_then_oldest = |i: &&&super::state::Instance| {
            let crowd = by_zone.get(i.zone.as_str()).copied().unwrap_or(0);
            (std::cmp::Reverse(crowd), i.order)
        };
        eligible.min_by_key(fullest_then_oldest).map(|i| i.id.clone())
    }

    /// AZRebalance: launches in the emptiest zone first and ends one of the fullest when that is in service.
    fn rebalance_zones(&mut self, group: &str, at: Timestamp) {
        let Some(entry) = self.groups.get(group) else { return };
        let stopped = ["AZRebalance", "Launch", "Terminate"];
        if stopped.iter().any(|process| entry.suspended.contains_key(*process)) {
            return;
        }
        let members = self.members(group);
        if !entry.launching.is_empty() || members.iter().any(|i| i.state != LifecycleState::InService) {
            return;
        }
        let crowd = |zone: &str| members.iter().filter(|i| i.zone == zone).count();
        let zones = &entry.spec.zones;
        let emptiest = zones.iter().min_by_key(|zone| crowd(zone));
        let fullest = zones.iter().max_by_key(|zone| crowd(zone));
        let (Some(emptiest), Some(fullest)) = (emptiest, fullest) else { return };
        if crowd(fullest) < crowd(emptiest) + 2 {
            return;
        }
        let old = members.iter().find(|i| &i.zone == fullest && !i.protected).map(|i| i.id.clone());
        let (zone, Some(old)) = (emptiest.clone(), old) else { return };
        let cause = format!(
            "At {} an instance was launched to even out the Availability Zones ({zone}).",
            seconds(at)
        );
        if let Ok(id) = self.launch(group, Some(&zone), &cause, None, at) {
            self.set_replaces(&id, &old);
        }
    }

    fn set_replaces(&mut self, id: &str, old: &str) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.replaces = Some(old.to_owned());
        }
    }

    /// Capacity Rebalancing: launches the successor of an instance that is at risk, and goes on trying; the
    /// old one ends when the new one is in service. May exceed the maximum by 10 % of desired capacity (User
    /// Guide, "Capacity Rebalancing").
    pub(super) fn replace_at_risk(&mut self, old: &str, at: Timestamp) {
        let at_risk = self.instances.get(old).filter(|instance| !instance.state.is_ending());
        let Some(group) = at_risk.map(|instance| instance.group.clone()) else { return };
        let is_replaced = self.instances.values().any(|i| i.replaces.as_deref() == Some(old));
        let counted = self.counted(&group);
        let Some(entry) = self.groups.get(&group) else { return };
        if is_replaced || !entry.spec.capacity_rebalance || entry.suspended.contains_key("Launch") {
            return;
        }
        let most = entry.spec.max + entry.desired.div_ceil(10);
        let cause = format!(
            "At {} an instance was launched in response to a rebalance recommendation for {old}.",
            seconds(at)
        );
        let launched = if counted < most { self.launch(&group, None, &cause, None, at).ok() } else { None };
        match launched {
            Some(id) => self.set_replaces(&id, old),
            None => self.at(after(at, self.settings.retry_first), Timer::ReplaceAtRisk(old.to_owned())),
        }
    }
}
