//! The life of an instance: launch, boot, interruption, termination.

use super::activity::seconds;
use super::event::EventKind;
use super::host::{HostCall, NodeJoin};
use super::spec::{BootFault, ImdsMode, LaunchFailure, Market, Supply};
use super::state::{Instance, LifecycleState, State, Timer, after, region_of};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

impl State {
    pub(super) fn fire(&mut self, timer: Timer, at: Timestamp) {
        match timer {
            Timer::Reconcile(group) => self.reconcile(&group, at),
            Timer::CountLaunched(group, launched) => self.count_launched(&group, launched, at),
            Timer::Launch(group, activity) => self.end_launch(&group, activity, at),
            Timer::InService(id) => self.enter_service(&id, at),
            Timer::LaunchHookOver(id) => self.end_launch_hook(&id, at),
            Timer::Join(id) => self.join_node(&id, at),
            Timer::Identify(id) => self.identify_node(&id),
            Timer::Ready(id) => self.ready_node(&id, at),
            Timer::Interrupt(id) => self.take(&id, at),
            Timer::ReplaceAtRisk(id) => self.replace_at_risk(&id, at),
            Timer::LossSeen(id) => self.see_loss(&id, at),
            Timer::HookOver(id) => {
                let over = |i: &Instance| {
                    i.state == LifecycleState::TerminatingWait
                        && i.hook_until.is_some_and(|until| until <= at)
                };
                if self.instances.get(&id).is_some_and(over) {
                    self.end_hook(&id, at);
                }
            }
            Timer::MachineStops(id) => self.stop_machine(&id, at),
            Timer::NodeRemoved(node_name) => {
                self.free_names.push_back(node_name.clone());
                self.outbox.push(HostCall::Leave(node_name));
            }
            Timer::Gone(id) => self.remove(&id, at),
        }
    }

    /// Takes one place in a zone's market, if there is one.
    fn take_capacity(&mut self, group: &str, zone: &str) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        let key = Some(zone.to_owned());
        let key = if group.capacity.contains_key(&key) { key } else { None };
        match group.capacity.get_mut(&key) {
            None | Some(Supply::Unlimited) => true,
            Some(Supply::None | Supply::Left(0)) => false,
            Some(Supply::Left(left)) => {
                *left -= 1;
                true
            }
        }
    }

    /// What the next instance of a group is bought as.
    pub(super) fn next_market(&self, group: &str) -> Market {
        let Some(spec) = self.groups.get(group).map(|group| &group.spec) else { return Market::OnDemand };
        let Some(mixed) = &spec.mixed else { return spec.market };
        let members = self.members(group);
        let alive = members.iter().filter(|i| !i.state.is_ending());
        let (total, on_demand) = alive.fold((1_u32, 0_u32), |(total, on_demand), instance| {
            (total + 1, on_demand + u32::from(instance.market == Market::OnDemand))
        });
        let above_base = total.saturating_sub(mixed.on_demand_base);
        let wanted = mixed.on_demand_base.min(total)
            + (above_base * mixed.on_demand_percentage_above_base).div_ceil(100);
        if on_demand < wanted { Market::OnDemand } else { Market::Spot }
    }

    /// Asks the market for one instance, in `zone` or in the zone that has fewest, then in the others. Each
    /// zone that fails leaves an activity (User Guide, "Availability Zone distribution"). The first one goes on
    /// with the activity that is under way, if there is one.
    pub(super) fn launch(
        &mut self,
        group: &str,
        zone: Option<&str>,
        cause: &str,
        mut under_way: Option<String>,
        at: Timestamp,
    ) -> Result<String, LaunchFailure> {
        let market = self.next_market(group);
        let Some(entry) = self.groups.get_mut(group) else {
            return Err(LaunchFailure::text("ValidationError", "AutoScalingGroup name not found"));
        };
        let scripted = entry.take_failure(None);
        let instance_type = entry.spec.instance_type.clone();
        let mut zones: Vec<String> = match zone {
            Some(zone) => vec![zone.to_owned()],
            None => entry.spec.zones.clone(),
        };
        let members = self.members(group);
        zones.sort_by_cached_key(|zone| {
            members.iter().filter(|i| &i.zone == zone && !i.state.is_ending()).count()
        });
        if scripted.is_some() {
            // What is wrong with the request is wrong in every zone: the group tries no other one.
            zones.truncate(1);
        }
        let mut failed = None;
        for zone in zones {
            let of_zone = || self.groups.get_mut(group).and_then(|entry| entry.take_failure(Some(&zone)));
            let failure = match scripted.clone().or_else(of_zone) {
                Some(failure) => failure,
                None if self.take_capacity(group, &zone) => {
                    let activity = self.launch_activity(under_way, group, cause, at);
                    return Ok(self.create(group, &zone, market, activity, at));
                }
                None => LaunchFailure::dry(market, &instance_type, &zone),
            };
            let activity = self.launch_activity(under_way.take(), group, cause, at);
            self.fail_launch(group, &zone, &failure, &activity, at);
            failed.get_or_insert(failure);
        }
        Err(failed.unwrap_or_else(|| LaunchFailure::text("ValidationError", "The group has no zone.")))
    }

    /// The activity that is under way, or a new one, of a launch.
    pub(super) fn launch_activity(
        &mut self,
        under_way: Option<String>,
        group: &str,
        cause: &str,
        at: Timestamp,
    ) -> String {
        under_way.unwrap_or_else(|| {
            let description = "Launching a new EC2 instance".to_owned();
            self.begin_activity(group, description, cause.to_owned(), "InProgress", None, at)
        })
    }

    /// Creates an instance that boots; the activity is about it from now on.
    fn create(&mut self, group: &str, zone: &str, market: Market, activity: String, at: Timestamp) -> String {
        let id = self.add_instance(group, zone, market, at);
        if let Some(entry) = self.activity_mut(&activity) {
            entry.description = format!("Launching a new EC2 instance: {id}");
            entry.status_code = "PreInService";
            entry.instance = Some(id.clone());
            entry.progress = 30;
            entry.zone = Some(zone.to_owned());
        }
        let (boot, fault) = match self.groups.get_mut(group) {
            Some(group) => (group.spec.boot, group.boot_faults.pop_front()),
            None => return id,
        };
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.launch_activity = activity;
            instance.boot_fault = fault;
        }
        self.at(after(at, boot.launch), Timer::InService(id.clone()));
        self.tell(at, EventKind::Launching, group, Some(&id), format!("launching in {zone}"));
        id
    }

    /// Puts a new `Pending` instance on record.
    pub(super) fn add_instance(&mut self, group: &str, zone: &str, market: Market, at: Timestamp) -> String {
        let id = format!("i-0{}", self.hex(16));
        let order = self.next_seq();
        // AWS keeps the first four addresses and the last one of a subnet for itself.
        let (block, low) = (self.hosts / 250, self.hosts % 250 + 4);
        let (high, middle) = (block / 256 % 256, block % 256);
        self.hosts += 1;
        let region = region_of(zone);
        let domain = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        let (mut node_name, mut address) =
            (format!("ip-10-{high}-{middle}-{low}.{domain}"), format!("10.{high}.{middle}.{low}"));
        if let Some(free) = self.free_name(&domain) {
            let host = free.split('.').next().unwrap_or_default();
            address = host.trim_start_matches("ip-").replace('-', ".");
            node_name = free;
        }
        let spec = self.groups.get(group).map(|group| &group.spec);
        let protected = spec.is_some_and(|spec| spec.protect_new_instances);
        let template_version = spec.map_or(1, |spec| spec.template_version);
        self.instances.insert(
            id.clone(),
            Instance {
                id: id.clone(),
                order,
                group: group.to_owned(),
                zone: zone.to_owned(),
                market,
                node_name,
                address,
                launched_at: at,
                state: LifecycleState::Pending,
                healthy: true,
                protected,
                template_version,
                machine_runs: true,
                joined: false,
                boot_fault: None,
                replaces: None,
                beyond_desired: false,
                rebalance_at: None,
                interrupt_at: None,
                maintenance_at: None,
                hook_until: None,
                shown: None,
                launch_activity: String::new(),
                end_activity: None,
                imds_mode: ImdsMode::Normal,
                imds_tokens: BTreeMap::new(),
            },
        );
        id
    }

    /// The name of a node that is gone, if names come back and no instance has it.
    fn free_name(&mut self, domain: &str) -> Option<String> {
        if !self.settings.names_come_back {
            return None;
        }
        let is_free = |name: &String| {
            name.ends_with(domain) && self.instances.values().all(|instance| instance.node_name != *name)
        };
        let at = self.free_names.iter().position(is_free)?;
        self.free_names.remove(at)
    }

    fn enter_service(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        if !matches!(instance.state, LifecycleState::Pending | LifecycleState::PendingProceed) {
            return;
        }
        let (group, activity) = (instance.group.clone(), instance.launch_activity.clone());
        if instance.boot_fault == Some(BootFault::DiesPending) || !instance.machine_runs {
            self.fail_boot(id, &group, &activity, at);
            return;
        }
        let was_held = instance.state == LifecycleState::PendingProceed;
        if let Some(BootFault::HookHolds(wait) | BootFault::HookAbandons(wait)) = instance.boot_fault
            && !was_held
        {
            self.hold_launch(id, wait, at);
            return;
        }
        instance.state = LifecycleState::InService;
        let replaces = instance.replaces.clone();
        let joins = instance.boot_fault != Some(BootFault::NeverJoins) && !was_held;
        self.finish_activity(&activity, at, "Successful", None);
        self.tell(at, EventKind::InService, &group, Some(id), "in service");
        let boot = self.groups.get(&group).map(|group| group.spec.boot).unwrap_or_default();
        if joins {
            self.at(after(at, boot.node_join), Timer::Join(id.to_owned()));
        }
        if let Some(old) = replaces {
            let cause = format!("At {} an instance was taken out of service to rebalance.", seconds(at));
            self.terminate(&old, &cause, at);
        }
        self.reconcile(&group, at);
    }

    /// A lifecycle hook holds a launched instance; its kubelet knows nothing of that.
    fn hold_launch(&mut self, id: &str, wait: Duration, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.state = LifecycleState::PendingWait;
        let (group, activity) = (instance.group.clone(), instance.launch_activity.clone());
        if let Some(entry) = self.activity_mut(&activity) {
            entry.status_code = "MidLifecycleAction";
        }
        let boot = self.groups.get(&group).map(|group| group.spec.boot).unwrap_or_default();
        self.at(after(at, boot.node_join), Timer::Join(id.to_owned()));
        self.at(after(at, wait), Timer::LaunchHookOver(id.to_owned()));
    }

    /// `ABANDON` terminates the instance, and its group launches another one (User Guide, "How lifecycle hooks
    /// work").
    fn end_launch_hook(&mut self, id: &str, at: Timestamp) {
        let held = self.instances.get_mut(id).filter(|held| held.state == LifecycleState::PendingWait);
        let Some(instance) = held else { return };
        if !matches!(instance.boot_fault, Some(BootFault::HookAbandons(_))) {
            instance.state = LifecycleState::PendingProceed;
            let soon = after(at, self.settings.reaction);
            self.at(soon, Timer::InService(id.to_owned()));
            return;
        }
        let (group, activity) = (instance.group.clone(), instance.launch_activity.clone());
        let text = "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token \
                    00000000-0000-4000-8000-000000000000 was abandoned: Lifecycle Action Completed with ABANDON \
                    Result";
        self.finish_activity(&activity, at, "Cancelled", Some(text));
        self.tell(at, EventKind::LaunchFailed, &group, Some(id), text);
        self.terminate(id, "a lifecycle action was abandoned", at);
        self.reconcile(&group, at);
    }

    fn fail_boot(&mut self, id: &str, group: &str, activity: &str, at: Timestamp) {
        let text = "Instance became unhealthy while waiting for instance to be in InService state. Termination \
                    Reason: Client.InternalError: Client error on launch";
        self.finish_activity(activity, at, "Failed", Some(text));
        self.tell(at, EventKind::LaunchFailed, group, Some(id), text);
        self.stop_machine(id, at);
        self.instances.remove(id);
        let next = after(at, self.settings.reaction);
        self.at(next, Timer::Reconcile(group.to_owned()));
    }

    fn join_node(&mut self, id: &str, at: Timestamp) {
        self.register_node(id, at);
        let Some(instance) = self.instances.get(id).filter(|i| i.joined) else { return };
        if instance.boot_fault != Some(BootFault::NeverReady) {
            let boot = self.groups.get(&instance.group).map(|group| group.spec.boot).unwrap_or_default();
            self.at(after(at, boot.node_ready), Timer::Ready(id.to_owned()));
        }
    }

    /// The kubelet of a running instance registers its node.
    pub(super) fn register_node(&mut self, id: &str, at: Timestamp) {
        let Some(mut node) = self.node_of(id) else { return };
        let Some(instance) = self.instances.get_mut(id).filter(|i| i.machine_runs && !i.joined) else {
            return;
        };
        instance.joined = true;
        let delay = self.settings.provider_id_delay;
        if !delay.is_zero() {
            node.provider_id.clear();
        }
        let (group, text) = (instance.group.clone(), format!("node {} joined", node.node_name));
        self.outbox.push(HostCall::Join(Box::new(node)));
        if !delay.is_zero() {
            self.at(after(at, delay), Timer::Identify(id.to_owned()));
        }
        self.tell(at, EventKind::NodeJoined, &group, Some(id), text);
    }

    fn identify_node(&mut self, id: &str) {
        if self.instances.get(id).is_some_and(|instance| instance.machine_runs)
            && let Some(node) = self.node_of(id)
        {
            self.outbox.push(HostCall::Identify(Box::new(node)));
        }
    }

    pub(super) fn ready_node(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get(id).filter(|i| i.machine_runs && i.joined) else { return };
        let (group, node_name) = (instance.group.clone(), instance.node_name.clone());
        let text = format!("node {node_name} is ready");
        self.outbox.push(HostCall::Ready(node_name));
        self.tell(at, EventKind::NodeReady, &group, Some(id), text);
    }

    /// The node that an instance registers.
    pub(super) fn node_of(&self, id: &str) -> Option<NodeJoin> {
        let instance = self.instances.get(id)?;
        let spec = &self.groups.get(&instance.group)?.spec;
        let region = region_of(&instance.zone).to_owned();
        let taints = match instance.boot_fault {
            Some(BootFault::KeepsTaint) => vec![taint("node.example.com/agent-not-ready", "true")],
            Some(BootFault::StaysCordoned) => vec![taint("node.kubernetes.io/unschedulable", "")],
            _ => Vec::new(),
        };
        let well_known = [
            ("kubernetes.io/hostname", instance.node_name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", "amd64"),
            ("node.kubernetes.io/instance-type", spec.instance_type.as_str()),
            ("topology.kubernetes.io/region", region.as_str()),
            ("topology.kubernetes.io/zone", instance.zone.as_str()),
        ];
        let labels = well_known.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let labels = labels.chain(spec.node_labels.iter().cloned()).collect();
        Some(NodeJoin {
            node_name: instance.node_name.clone(),
            instance_id: instance.id.clone(),
            provider_id: format!("aws:///{}/{}", instance.zone, instance.id),
            group: instance.group.clone(),
            zone: instance.zone.clone(),
            region,
            instance_type: spec.instance_type.clone(),
            market: instance.market,
            address: instance.address.clone(),
            labels,
            taints,
            cordoned: instance.boot_fault == Some(BootFault::StaysCordoned),
            cpu_millis: spec.cpu_millis,
            memory_bytes: spec.memory_bytes,
            pods: spec.pods_per_node,
        })
    }

    /// Starts the end of an instance and gives the activity; one that is ending keeps its activity.
    pub(super) fn terminate(&mut self, id: &str, cause: &str, at: Timestamp) -> Option<String> {
        let instance = self.instances.get(id)?;
        if let Some(activity) = instance.end_activity.clone() {
            self.end_retained(id, at);
            return Some(activity);
        }
        let (group, launch) = (instance.group.clone(), instance.launch_activity.clone());
        let hook = self.groups.get(&group).and_then(|group| group.spec.termination_hook);
        let hook = hook.filter(|_| instance.machine_runs && instance.state == LifecycleState::InService);
        self.finish_activity(&launch, at, "Cancelled", None);
        let status = if hook.is_some() { "MidLifecycleAction" } else { "InProgress" };
        let description = format!("Terminating EC2 instance: {id}");
        let activity = self.begin_activity(&group, description, cause.to_owned(), status, Some(id), at);
        let instance = self.instances.get_mut(id)?;
        instance.end_activity = Some(activity.clone());
        match hook {
            Some(wait) => {
                let until = after(at, wait);
                instance.state = LifecycleState::TerminatingWait;
                instance.hook_until = Some(until);
                self.at(until, Timer::HookOver(id.to_owned()));
                self.tell_hook(id, &group, at);
            }
            None => self.end_machine(id, at),
        }
        self.tell(at, EventKind::Terminating, &group, Some(id), cause);
        Some(activity)
    }

    /// Sends a terminating instance on to its end.
    pub(super) fn end_machine(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.state = LifecycleState::Terminating;
        let runs = instance.machine_runs;
        let (stop, gone) = (self.settings.machine_stop, self.settings.termination);
        self.at(after(at, stop.min(gone)), Timer::MachineStops(id.to_owned()));
        self.at(after(at, gone), Timer::Gone(id.to_owned()));
        if runs {
            self.tell_state(id, "shutting-down", at);
        }
    }

    fn stop_machine(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id).filter(|i| i.machine_runs) else { return };
        instance.machine_runs = false;
        if instance.joined {
            let node_name = instance.node_name.clone();
            self.outbox.push(HostCall::Stopped(node_name.clone()));
            if !self.settings.nodes_stay {
                let removed = after(at, self.settings.node_removal);
                self.at(removed, Timer::NodeRemoved(node_name));
            }
        }
    }

    /// AWS takes the instance back, notice or not.
    pub(super) fn take(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get(id).filter(|i| i.machine_runs) else { return };
        let (group, state) = (instance.group.clone(), instance.state);
        self.stop_machine(id, at);
        self.tell_state(id, "shutting-down", at);
        self.tell(at, EventKind::Taken, &group, Some(id), "taken back by AWS");
        if matches!(state, LifecycleState::TerminatingWait | LifecycleState::TerminatingRetained) {
            self.end_machine(id, at);
        } else {
            let seen = after(at, self.settings.loss_detection);
            self.at(seen, Timer::LossSeen(id.to_owned()));
        }
    }

    /// The group's health check finds that an instance is not there any more.
    fn see_loss(&mut self, id: &str, at: Timestamp) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        let group = instance.group.clone();
        if instance.state.is_ending() {
            return;
        }
        instance.healthy = false;
        let cause = format!(
            "At {} an instance was taken out of service in response to an EC2 health check indicating it has been \
             terminated or stopped.",
            seconds(at)
        );
        self.terminate(id, &cause, at);
        self.reconcile(&group, at);
    }

    pub(super) fn remove(&mut self, id: &str, at: Timestamp) {
        self.stop_machine(id, at);
        let Some(instance) = self.instances.remove(id) else { return };
        if let Some(activity) = &instance.end_activity {
            self.finish_activity(activity, at, "Successful", None);
        }
        self.tell(at, EventKind::Terminated, &instance.group, Some(id), "gone");
        self.reconcile(&instance.group, at);
    }
}

/// A taint with which a node joins: that of an agent that is to take it off, or that of a cordon.
fn taint(key: &str, value: &str) -> (String, String, String) {
    (key.to_owned(), value.to_owned(), "NoSchedule".to_owned())
}
