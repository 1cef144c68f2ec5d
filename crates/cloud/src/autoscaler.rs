//! cluster-autoscaler beside the product, by the rules of its AWS provider: it reads groups once a minute,
//! writes desired capacity as an absolute number, and gives a group up for a while after any failed launch
//! (kubernetes/autoscaler, `cluster-autoscaler/cloudprovider/aws` and `FAQ.md`).

mod room;

use crate::clock::since;
use crate::cloud::{Cloud, GroupSnapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{Api, EvictParams, ListParams, Patch, PatchParams};
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use room::{Load, Room};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Its mark on a node that it is about to remove.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// A node that carries this annotation is not scaled down.
const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";

/// A group that it may scale, and what one of its nodes holds.
#[derive(Clone, Debug)]
pub struct ScaledGroup {
    /// `AutoScalingGroupName`.
    pub name: String,
    /// Its priority for the priority expander: the highest one grows first.
    pub priority: i32,
    /// Thousandths of a core of a new node.
    pub cpu_millis: i64,
    /// Bytes of a new node.
    pub memory_bytes: i64,
}

impl ScaledGroup {
    fn room(&self) -> Room {
        Room::new(self.cpu_millis, self.memory_bytes.saturating_mul(1000))
    }
}

/// Its flags, with the defaults of cluster-autoscaler.
#[derive(Clone, Copy, Debug)]
pub struct AutoscalerTimes {
    /// `--scan-interval`.
    pub scan: Duration,
    /// How old its picture of a group may be.
    pub refresh: Duration,
    /// `--max-node-provision-time`.
    pub provision: Duration,
    /// `--scale-down-unneeded-time`.
    pub unneeded: Duration,
    /// `--scale-down-delay-after-add`.
    pub after_add: Duration,
    /// `--initial-node-group-backoff-duration`.
    pub backoff_first: Duration,
    /// `--max-node-group-backoff-duration`.
    pub backoff_max: Duration,
    /// How long it tries to evict the pods of a node that it removes.
    pub eviction: Duration,
}

impl Default for AutoscalerTimes {
    fn default() -> Self {
        Self {
            scan: Duration::from_secs(10),
            refresh: Duration::from_secs(60),
            provision: Duration::from_secs(900),
            unneeded: Duration::from_secs(600),
            after_add: Duration::from_secs(600),
            backoff_first: Duration::from_secs(300),
            backoff_max: Duration::from_secs(1800),
            eviction: Duration::from_secs(120),
        }
    }
}

/// What it remembers of a group.
struct Known {
    group: ScaledGroup,
    /// The group as it was read last.
    seen: Option<GroupSnapshot>,
    read_at: Timestamp,
    /// When it changed the group last: failures before count no more.
    changed_at: Timestamp,
    backoff: Duration,
    backoff_until: Timestamp,
}

impl Known {
    /// The instances that desired capacity promises and that are not there: its placeholders.
    fn placeholders(&self) -> u32 {
        let Some(seen) = &self.seen else { return 0 };
        seen.desired.saturating_sub(u32::try_from(seen.instances.len()).unwrap_or(u32::MAX))
    }
}

/// Whether it may set a group's desired capacity to a number now.
type MayChange = Box<dyn Fn(&str, u32) -> bool>;

/// cluster-autoscaler.
pub struct Autoscaler {
    cloud: Cloud,
    may_change: MayChange,
    client: Client,
    times: AutoscalerTimes,
    groups: Vec<Known>,
    /// Since when a node is not needed.
    unneeded: BTreeMap<String, Timestamp>,
    /// Since when an instance has no node.
    unregistered: BTreeMap<String, Timestamp>,
    added_at: Timestamp,
}

impl Autoscaler {
    /// One that scales these groups. It has just begun: nothing is known to it.
    #[must_use]
    pub fn new(cloud: Cloud, client: Client, groups: Vec<ScaledGroup>, times: AutoscalerTimes) -> Self {
        let now = cloud.now();
        let known = |group| Known {
            group,
            seen: None,
            read_at: now,
            changed_at: now,
            backoff: Duration::ZERO,
            backoff_until: now,
        };
        let groups = groups.into_iter().map(known).collect();
        let (unneeded, unregistered) = (BTreeMap::new(), BTreeMap::new());
        let may_change: MayChange = Box::new(|_, _| true);
        Self { cloud, may_change, client, times, groups, unneeded, unregistered, added_at: now }
    }

    /// The same, which changes a group only when `may_change` says so of its name and the number to come.
    #[must_use]
    pub fn when(mut self, may_change: impl Fn(&str, u32) -> bool + 'static) -> Self {
        self.may_change = Box::new(may_change);
        self
    }

    /// Works until dropped. What an earlier run has left behind is removed first.
    pub async fn run(mut self) {
        if let Err(error) = clean_up(&self.client).await {
            tracing::debug!(%error, "cluster-autoscaler left its marks");
        }
        loop {
            if let Err(error) = self.turn().await {
                tracing::debug!(%error, "cluster-autoscaler missed a turn");
            }
            tokio::time::sleep(self.times.scan).await;
        }
    }

    /// One turn of its loop.
    async fn turn(&mut self) -> Result<(), kube::Error> {
        self.read_groups();
        self.give_up_failed_launches();
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        let pods = Api::<Pod>::all(self.client.clone()).list(&ListParams::default()).await?.items;
        self.give_up_removals(&nodes).await?;
        if self.remove_unregistered(&nodes) {
            return Ok(());
        }
        if !self.scale_up(&nodes, &pods) {
            self.scale_down(&nodes, &pods).await?;
        }
        Ok(())
    }

    fn read_groups(&mut self) {
        let now = self.cloud.now();
        for known in &mut self.groups {
            if known.seen.is_none() || since(known.read_at, now) >= self.times.refresh {
                known.seen = self.cloud.group(&known.group.name);
                known.read_at = now;
            }
        }
    }

    /// After a failed activity since its last change of the group the placeholders are deleted: desired
    /// capacity becomes the number of the instances, those on their way out included. The group is left alone
    /// for a while.
    fn give_up_failed_launches(&mut self) {
        let now = self.cloud.now();
        let activities = self.cloud.snapshot().activities;
        for known in self.groups.iter_mut().filter(|known| known.placeholders() > 0) {
            let failed = activities.iter().any(|activity| {
                activity.group == known.group.name
                    && activity.status_code == "Failed"
                    && activity.start >= known.changed_at
            });
            let Some(seen) = known.seen.as_mut().filter(|_| failed) else { continue };
            let there = u32::try_from(seen.instances.len()).unwrap_or(u32::MAX).max(seen.min);
            if there < seen.desired {
                let name = &known.group.name;
                if !(self.may_change)(name, there) || self.cloud.set_desired(name, there).is_err() {
                    continue;
                }
                seen.desired = there;
                known.changed_at = now;
            }
            known.backoff = (known.backoff * 2).clamp(self.times.backoff_first, self.times.backoff_max);
            known.backoff_until = now.checked_add(known.backoff).unwrap_or(Timestamp::MAX);
        }
    }

    /// Removes one instance whose node has not registered in time since it was first missed; whether there
    /// was one.
    fn remove_unregistered(&mut self, nodes: &[Node]) -> bool {
        let now = self.cloud.now();
        let joined = |node_name: &str| nodes.iter().any(|node| node.name_any() == node_name);
        let before = std::mem::take(&mut self.unregistered);
        let listed =
            self.groups.iter().filter_map(|known| known.seen.as_ref()).flat_map(|seen| &seen.instances);
        for instance in listed.filter(|held| !held.state.is_ending() && !joined(&held.node_name)) {
            let since = before.get(&instance.id).copied().unwrap_or(now);
            self.unregistered.insert(instance.id.clone(), since);
        }
        for known in &mut self.groups {
            let Some(seen) = &mut known.seen else { continue };
            let is_late = |id: &str| {
                self.unregistered.get(id).is_some_and(|at| since(*at, now) >= self.times.provision)
            };
            if let Some(index) = seen.instances.iter().position(|instance| is_late(&instance.id)) {
                if !may_lower(&self.cloud, &self.may_change, &known.group.name) {
                    return false;
                }
                let instance = seen.instances.remove(index);
                seen.desired = seen.desired.saturating_sub(1);
                known.changed_at = now;
                return self.cloud.scale_down(&instance.id).is_ok();
            }
        }
        false
    }

    /// Raises the group of the highest priority for the pods that fit nowhere; whether there were any.
    fn scale_up(&mut self, nodes: &[Node], pods: &[Pod]) -> bool {
        let now = self.cloud.now();
        let mut waiting: Vec<Load> = pods.iter().filter(|pod| room::waits(pod)).map(Load::of).collect();
        if waiting.is_empty() {
            return false;
        }
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        let mut rooms = self.rooms(nodes, pods, |_| true);
        for known in &self.groups {
            let coming = known.seen.iter().flat_map(|seen| &seen.instances);
            let unregistered = coming.filter(|instance| {
                !instance.state.is_ending() && !nodes.iter().any(|node| node.name_any() == instance.node_name)
            });
            let upcoming = known.placeholders() as usize + unregistered.count();
            rooms.extend(std::iter::repeat_n(known.group.room(), upcoming));
        }
        waiting.retain(|load| !room::place(*load, &mut rooms));
        let Some(best) = self.best_group(&waiting, now) else { return !waiting.is_empty() };
        let known = &mut self.groups[best];
        let mut fresh: Vec<Room> = Vec::new();
        for load in waiting {
            if !room::place(load, &mut fresh) {
                fresh.push(known.group.room().without(load));
            }
        }
        let Some(seen) = &mut known.seen else { return true };
        let wanted = seen.desired + u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let desired = wanted.min(seen.max);
        let name = &known.group.name;
        if (self.may_change)(name, desired) && self.cloud.set_desired(name, desired).is_ok() {
            seen.desired = desired;
            known.changed_at = now;
            self.added_at = now;
        }
        true
    }

    /// The group of the highest priority that may grow and whose nodes would hold one of the pods.
    fn best_group(&self, waiting: &[Load], now: Timestamp) -> Option<usize> {
        let may_grow = |known: &Known| {
            let fits = waiting.iter().any(|load| known.group.room().holds(*load));
            let below = known.seen.as_ref().is_some_and(|seen| seen.desired < seen.max);
            fits && below && now >= known.backoff_until
        };
        let growing = (0..self.groups.len()).filter(|index| may_grow(&self.groups[*index]));
        growing.max_by_key(|index| self.groups[*index].group.priority)
    }

    /// What is free on the groups' nodes that take pods.
    fn rooms(&self, nodes: &[Node], pods: &[Pod], counts: impl Fn(&Node) -> bool) -> Vec<Room> {
        let own = |node: &&Node| self.instance_of(node).is_some() && room::takes_pods(node) && counts(node);
        nodes.iter().filter(own).map(|node| Room::left_on(node, pods)).collect()
    }

    /// The instance of a node of its groups, with the index of the group.
    fn instance_of(&self, node: &Node) -> Option<(usize, String)> {
        let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
        let id = provider_id.rsplit('/').next()?;
        let lists = |known: &Known| {
            known.seen.as_ref().is_some_and(|seen| seen.instances.iter().any(|held| held.id == id))
        };
        Some((self.groups.iter().position(lists)?, id.to_owned()))
    }

    /// Removes one node that has not been needed for long: less than half full, and its pods fit elsewhere.
    async fn scale_down(&mut self, nodes: &[Node], pods: &[Pod]) -> Result<(), kube::Error> {
        let now = self.cloud.now();
        let is_unneeded = |node: &&Node| {
            let name = node.name_any();
            let disabled = node.annotations().get(SCALE_DOWN_DISABLED).map(String::as_str) == Some("true");
            let moves: Vec<&Pod> = pods.iter().filter(|pod| room::moves_from(pod, &name)).collect();
            let mut elsewhere = self.rooms(nodes, pods, |other| other.name_any() != name);
            self.instance_of(node).is_some()
                && room::is_ready(node)
                && !disabled
                && room::is_half_empty(node, pods)
                && !moves.iter().any(|pod| room::holds_its_node(pod))
                && moves.iter().all(|pod| room::place(Load::of(pod), &mut elsewhere))
        };
        let unneeded: Vec<&Node> = nodes.iter().filter(is_unneeded).collect();
        let before = std::mem::take(&mut self.unneeded);
        for node in &unneeded {
            let name = node.name_any();
            let since = before.get(&name).copied().unwrap_or(now);
            self.unneeded.insert(name, since);
        }
        if since(self.added_at, now) < self.times.after_add {
            return Ok(());
        }
        let is_due = |node: &&&Node| {
            let at = self.unneeded.get(&node.name_any());
            at.is_some_and(|at| since(*at, now) >= self.times.unneeded) && self.is_above_minimum(node)
        };
        let Some(node) = unneeded.iter().find(is_due) else { return Ok(()) };
        self.remove(node, pods).await
    }

    /// A node whose pods could not be evicted in time is kept, and counts as needed again.
    async fn give_up_removals(&mut self, nodes: &[Node]) -> Result<(), kube::Error> {
        let now = self.cloud.now();
        for node in nodes {
            let late = marked_at(node).is_some_and(|at| since(at, now) >= self.times.eviction);
            if late && self.instance_of(node).is_some() {
                unmark(&self.client, node).await?;
                self.unneeded.remove(&node.name_any());
            }
        }
        Ok(())
    }

    fn is_above_minimum(&self, node: &Node) -> bool {
        let seen = self.instance_of(node).and_then(|(index, _)| self.groups[index].seen.as_ref());
        seen.is_some_and(|seen| seen.desired > seen.min)
    }

    /// Taints a node, evicts its pods, and ends its instance once they are gone; a pod that a budget holds
    /// keeps the node until a later turn, or until the removal is given up.
    async fn remove(&mut self, node: &Node, pods: &[Pod]) -> Result<(), kube::Error> {
        let now = self.cloud.now();
        let name = node.name_any();
        let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        if marked_at(node).is_none() {
            let mark =
                json!({ "key": TO_BE_DELETED, "effect": "NoSchedule", "value": now.as_second().to_string() });
            taints.extend(serde_json::from_value(mark));
            set_taints(&self.client, node, &taints).await?;
        }
        let is_empty = evict_from(&self.client, pods, &name).await;
        if let (true, Some((index, id))) = (is_empty, self.instance_of(node)) {
            let may_lower = may_lower(&self.cloud, &self.may_change, &self.groups[index].group.name);
            if may_lower && self.cloud.scale_down(&id).is_ok() {
                self.groups[index].changed_at = now;
                self.groups[index].seen = None;
            }
        }
        Ok(())
    }
}

/// Evicts the pods that would have to move from a node; whether there is none. One that a budget holds is
/// asked again in a later turn.
pub(crate) async fn evict_from(client: &Client, pods: &[Pod], node: &str) -> bool {
    let mut is_empty = true;
    for pod in pods.iter().filter(|pod| room::moves_from(pod, node)) {
        is_empty = false;
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        if let Err(error) = api.evict(&pod.name_any(), &EvictParams::default()).await {
            tracing::debug!(%error, pod = pod.name_any(), "a pod could not be evicted");
        }
    }
    is_empty
}

/// Since when a node carries its mark.
fn marked_at(node: &Node) -> Option<Timestamp> {
    let mark = node.spec.as_ref()?.taints.as_ref()?.iter().find(|taint| taint.key == TO_BE_DELETED)?;
    Timestamp::from_second(mark.value.as_deref()?.parse().ok()?).ok()
}

/// Takes its mark off a node.
async fn unmark(client: &Client, node: &Node) -> Result<(), kube::Error> {
    let mut taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.retain(|taint| taint.key != TO_BE_DELETED);
    set_taints(client, node, &taints).await
}

/// Gives a node these taints, unless it has changed since it was read.
async fn set_taints(client: &Client, node: &Node, taints: &[Taint]) -> Result<(), kube::Error> {
    let patch = json!({
        "metadata": { "resourceVersion": node.resource_version() },
        "spec": { "taints": taints },
    });
    let api: Api<Node> = Api::all(client.clone());
    api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

/// Takes its marks off all nodes, as it does whenever it starts.
///
/// # Errors
/// When the cluster does not answer, or a node has just changed.
pub async fn clean_up(client: &Client) -> Result<(), kube::Error> {
    // An object that is no node is left alone, and hides no other.
    let list = Request::new(Node::url_path(&(), None)).list(&ListParams::default());
    let mut list: Value = client.request(list.map_err(kube::Error::BuildRequest)?).await?;
    let Value::Array(nodes) = list["items"].take() else { return Ok(()) };
    for node in nodes.into_iter().filter_map(|node| serde_json::from_value::<Node>(node).ok()) {
        if marked_at(&node).is_some() {
            unmark(client, &node).await?;
        }
    }
    Ok(())
}

/// Whether it may lower a group's desired capacity by one now.
fn may_lower(cloud: &Cloud, may_change: &MayChange, group: &str) -> bool {
    cloud.group(group).is_some_and(|found| may_change(group, found.desired.saturating_sub(1)))
}
