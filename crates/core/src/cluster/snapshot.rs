//! The cluster at one moment with its indexes, and how it is kept up to date.

use super::budget::DisruptionBudget;
use super::budgets::Budgets;
use super::labels::Labels;
use super::node::Node;
use super::parts::Parts;
use super::pod::{Owner, OwnerKind, Pod};
use super::resources::{Resources, change};
use super::storage::Storage;
use super::volume::Claim;
use crate::effort::{Effort, TooMuch};
use crate::ids::{InstanceId, NodeName, NodeUid};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Pods of the same namespace with the same labels and spec: of one template, usually.
#[derive(Clone, Debug)]
pub struct PodGroup {
    /// Indexes of its pods, never empty. Finished pods are not in it.
    pub members: Vec<u32>,
}

/// A claim's namespace and name.
type ClaimKey = (Arc<str>, Arc<str>);

/// The cluster at one moment, with its indexes. Does not change.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<Arc<Node>>,
    by_name: HashMap<NodeName, u32>,
    /// All nodes that say that they run on the instance: each says it of itself, so one of two does not.
    by_instance: HashMap<InstanceId, Vec<u32>>,
    pods: Vec<Arc<Pod>>,
    /// Indexes of pods by node, finished ones included.
    on_node: Vec<Vec<u32>>,
    waiting: Vec<u32>,
    /// Indexes of pods that are there to stay and not ready.
    unready: BTreeSet<u32>,
    /// Indexes of pods by namespace and controller, finished ones included.
    of_owner: HashMap<(Arc<str>, Owner), Vec<u32>>,
    groups: Vec<PodGroup>,
    used: Vec<Resources>,
    // Each is copied only if it changes while an older snapshot is in use.
    budgets: Arc<Budgets>,
    claims: Arc<HashMap<ClaimKey, Claim>>,
    storage: Arc<Storage>,
    namespaces: Arc<HashMap<Arc<str>, Labels>>,
}

impl Snapshot {
    /// Builds the indexes.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let mut live = Live::default();
        parts.nodes.into_iter().for_each(|node| live.set_node(node));
        parts.pods.into_iter().for_each(|pod| live.set_pod(pod));
        parts.budgets.into_iter().for_each(|budget| live.set_budget(budget));
        let mut snapshot = live.into_snapshot();
        snapshot.claims = Arc::new(parts.claims);
        snapshot.storage = Arc::new(parts.storage);
        snapshot.namespaces = Arc::new(parts.namespaces);
        snapshot
    }

    /// The same with one more node, which has no pods.
    #[must_use]
    pub fn with_node(&self, node: Node) -> Self {
        let mut live = Live { snapshot: Arc::new(self.clone()), ..Live::default() };
        live.set_node(Arc::new(node));
        live.into_snapshot()
    }

    /// All nodes; their indexes are used elsewhere.
    #[must_use]
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The index of the node called `name`.
    #[must_use]
    pub fn node_index(&self, name: &NodeName) -> Option<usize> {
        self.by_name.get(name).map(|i| *i as usize)
    }

    /// The node called `name`.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        Some(&self.nodes[self.node_index(name)?])
    }

    /// The node called `name`, if it is the one that runs on the instance ([`Node::is`]).
    #[must_use]
    pub fn node_on(&self, name: &NodeName, instance: &InstanceId, uid: Option<&NodeUid>) -> Option<&Node> {
        self.node(name).filter(|node| node.is(instance, uid))
    }

    /// The node that runs on this EC2 instance; `None` if several say so, for nobody knows which of them
    /// does.
    #[must_use]
    pub fn node_of_instance(&self, id: &InstanceId) -> Option<&Node> {
        let mut nodes = self.nodes_of_instance(id);
        nodes.next().filter(|_| nodes.next().is_none())
    }

    /// All nodes that say that they run on this EC2 instance.
    pub fn nodes_of_instance<'a>(&'a self, id: &InstanceId) -> impl Iterator<Item = &'a Node> + use<'a> {
        self.by_instance.get(id).into_iter().flatten().map(|i| &*self.nodes[*i as usize])
    }

    /// All pods; their indexes are used elsewhere.
    #[must_use]
    pub fn pods(&self) -> &[Arc<Pod>] {
        &self.pods
    }

    /// The indexes of the pods bound to a node, finished ones included.
    #[must_use]
    pub fn pod_indexes_on(&self, node: usize) -> &[u32] {
        &self.on_node[node]
    }

    /// The pods bound to the node called `name`, finished ones included; none if there is no such node.
    pub fn pods_on(&self, name: &NodeName) -> impl Iterator<Item = &Pod> {
        let indexes = self.node_index(name).map_or(&[][..], |i| &self.on_node[i]);
        indexes.iter().map(|i| &*self.pods[*i as usize])
    }

    /// The pods that wait for a node: they take room before pods that move.
    pub fn waiting(&self) -> impl Iterator<Item = &Pod> {
        self.waiting.iter().map(|i| &*self.pods[*i as usize])
    }

    /// The pods that are neither ready, finished nor ending.
    pub fn unready(&self) -> impl Iterator<Item = &Pod> {
        self.unready.iter().map(|i| &*self.pods[*i as usize])
    }

    /// The pods of a controller, given with its namespace; finished ones included.
    pub fn pods_of(&self, owner: &(Arc<str>, Owner)) -> impl Iterator<Item = &Pod> {
        self.of_owner.get(owner).into_iter().flatten().map(|i| &*self.pods[*i as usize])
    }

    /// The pods grouped by template, without finished ones.
    #[must_use]
    pub fn groups(&self) -> &[PodGroup] {
        &self.groups
    }

    /// What the pods on a node have reserved, in total. `pods` is their number.
    #[must_use]
    pub fn used(&self, node: usize) -> &Resources {
        &self.used[node]
    }

    /// All budgets, by namespace and name.
    #[must_use]
    pub fn budgets(&self) -> &[DisruptionBudget] {
        self.budgets.all()
    }

    /// The budgets that hold for the pod, by name.
    ///
    /// # Errors
    /// If finding them is more work than `effort` has left.
    pub fn budgets_of(&self, pod: &Pod, effort: &Effort) -> Result<Vec<&DisruptionBudget>, TooMuch> {
        self.budgets.of(pod, effort)
    }

    /// The pod whose rules are most to compare: whoever has to do with it may be why a check was given up.
    #[must_use]
    pub fn heaviest(&self) -> Option<&Pod> {
        let groups = self.groups.iter().map(|group| &*self.pods[group.members[0] as usize]);
        groups.max_by_key(|pod| (pod.spec.weight(), std::cmp::Reverse(pod.key())))
    }

    /// A claim; `None` if it is not known.
    #[must_use]
    pub fn claim(&self, namespace: &Arc<str>, name: &Arc<str>) -> Option<&Claim> {
        self.claims.get(&(namespace.clone(), name.clone()))
    }

    /// What is attached where, drivers and classes.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The labels of a namespace; `None` if they are not known.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }
}

/// What makes pods members of one group: namespace, and where labels and spec lie in memory. A group's pods
/// keep both alive, so an address means one thing as long as the group is there.
type Template = (Arc<str>, usize, usize);

fn template(pod: &Pod) -> Template {
    (pod.namespace.clone(), pod.labels.address(), Arc::as_ptr(&pod.spec).cast::<u8>() as usize)
}

/// A namespace, and the name of a pod in it.
type PodKey = (Arc<str>, Arc<str>);

/// Keeps a [`Snapshot`] up to date. A change costs what it touches; only while somebody still uses the
/// snapshot before it, everything is copied first (some milliseconds for 150,000 pods).
#[derive(Debug, Default)]
pub struct Live {
    snapshot: Arc<Snapshot>,
    /// Indexes of pods by namespace and name.
    pods: HashMap<Arc<str>, HashMap<Arc<str>, u32>>,
    groups: HashMap<Template, u32>,
    /// Pods by the name of their node, while it is not known.
    early: HashMap<NodeName, Vec<PodKey>>,
}

impl Live {
    /// The cluster now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    fn into_snapshot(self) -> Snapshot {
        Arc::unwrap_or_clone(self.snapshot)
    }

    /// Adds the node, or puts it in the place of the one of that name.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        if let Some(index) = snapshot.node_index(&node.name) {
            forget_instance(snapshot, index);
            know_instance(snapshot, &node, index);
            snapshot.nodes[index] = node;
            return;
        }
        let index = snapshot.nodes.len();
        know_instance(snapshot, &node, index);
        snapshot.by_name.insert(node.name.clone(), index32(index));
        snapshot.on_node.push(Vec::new());
        snapshot.used.push(Resources::default());
        let early = self.early.remove(&node.name).unwrap_or_default();
        snapshot.nodes.push(node);
        for (namespace, name) in early {
            if let Some(at) = self.pods.get(&namespace).and_then(|names| names.get(&name)) {
                settle(snapshot, *at, index);
            }
        }
    }

    /// Removes the node. Its pods stay, on a node that is not known.
    pub fn remove_node(&mut self, name: &NodeName) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        let Some(index) = snapshot.node_index(name) else { return };
        forget_instance(snapshot, index);
        let last = snapshot.nodes.len() - 1;
        if last != index {
            forget_instance(snapshot, last);
        }
        let node = snapshot.nodes.swap_remove(index);
        snapshot.by_name.remove(name);
        snapshot.used.swap_remove(index);
        let pods = snapshot.on_node.swap_remove(index);
        if let Some(moved) = snapshot.nodes.get(index).cloned() {
            snapshot.by_name.insert(moved.name.clone(), index32(index));
            know_instance(snapshot, &moved, index);
        }
        let keys = pods.into_iter().map(|at| &snapshot.pods[at as usize]);
        let keys: Vec<_> = keys.map(|pod| (pod.namespace.clone(), pod.name.clone())).collect();
        if !keys.is_empty() {
            self.early.insert(node.name.clone(), keys);
        }
    }

    /// Adds the pod, or puts it in the place of the one of that name.
    pub fn set_pod(&mut self, pod: Arc<Pod>) {
        let known = self.pods.get(&pod.namespace).and_then(|names| names.get(&pod.name)).copied();
        let at = if let Some(at) = known {
            self.unlink(at);
            let snapshot = Arc::make_mut(&mut self.snapshot);
            snapshot.pods[at as usize] = pod.clone();
            at
        } else {
            let snapshot = Arc::make_mut(&mut self.snapshot);
            let at = index32(snapshot.pods.len());
            snapshot.pods.push(pod.clone());
            self.pods.entry(pod.namespace.clone()).or_default().insert(pod.name.clone(), at);
            at
        };
        self.link(at, &pod);
    }

    /// Removes the pod.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let Some(names) = self.pods.get_mut(namespace) else { return };
        let Some(at) = names.remove(name) else { return };
        if names.is_empty() {
            self.pods.remove(namespace);
        }
        self.unlink(at);
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.pods.swap_remove(at as usize);
        let Some(moved) = snapshot.pods.get(at as usize).cloned() else { return };
        // The last pod has a new index now.
        let last = index32(snapshot.pods.len());
        let replace = |list: &mut Vec<u32>| {
            if let Some(index) = list.iter_mut().find(|index| **index == last) {
                *index = at;
            }
        };
        if snapshot.unready.remove(&last) {
            snapshot.unready.insert(at);
        }
        match moved.node.as_ref().and_then(|node| snapshot.node_index(node)) {
            Some(node) => replace(&mut snapshot.on_node[node]),
            None => replace(&mut snapshot.waiting),
        }
        if let Some(pods) = snapshot.of_owner.get_mut(&owner(&moved)) {
            replace(pods);
        }
        if let Some(group) = self.groups.get(&template(&moved)).filter(|_| !moved.phase.finished()) {
            replace(&mut snapshot.groups[*group as usize].members);
        }
        if let Some(index) = self.pods.get_mut(&moved.namespace).and_then(|names| names.get_mut(&moved.name))
        {
            *index = at;
        }
    }

    /// Enters a pod that is in its place into the indexes.
    fn link(&mut self, at: u32, pod: &Pod) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        match &pod.node {
            Some(name) => match snapshot.node_index(name) {
                Some(node) => settle(snapshot, at, node),
                None => {
                    let key = (pod.namespace.clone(), pod.name.clone());
                    self.early.entry(name.clone()).or_default().push(key);
                }
            },
            None if waits(pod) => snapshot.waiting.push(at),
            None => {}
        }
        if !pod.ready && !pod.phase.finished() && !pod.terminating() {
            snapshot.unready.insert(at);
        }
        if pod.owner.kind != OwnerKind::None {
            snapshot.of_owner.entry(owner(pod)).or_default().push(at);
        }
        if !pod.phase.finished() {
            let group = *self.groups.entry(template(pod)).or_insert_with(|| {
                snapshot.groups.push(PodGroup { members: Vec::new() });
                index32(snapshot.groups.len() - 1)
            });
            snapshot.groups[group as usize].members.push(at);
        }
    }

    /// Takes the pod out of all indexes.
    fn unlink(&mut self, at: u32) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        let pod = snapshot.pods[at as usize].clone();
        snapshot.unready.remove(&at);
        let remove = |list: &mut Vec<u32>| {
            if let Some(position) = list.iter().position(|index| *index == at) {
                list.remove(position);
            }
        };
        match &pod.node {
            Some(name) => {
                if let Some(node) = snapshot.node_index(name) {
                    remove(&mut snapshot.on_node[node]);
                    if !pod.phase.finished() {
                        change(&mut snapshot.used[node], &pod.spec.requests, -1);
                    }
                } else if let Some(early) = self.early.get_mut(name) {
                    early.retain(|(namespace, name)| *namespace != pod.namespace || *name != pod.name);
                    if early.is_empty() {
                        self.early.remove(name);
                    }
                }
            }
            None => remove(&mut snapshot.waiting),
        }
        let owner = owner(&pod);
        if let Some(pods) = snapshot.of_owner.get_mut(&owner) {
            remove(pods);
            if pods.is_empty() {
                snapshot.of_owner.remove(&owner);
            }
        }
        let template = template(&pod);
        let Some(group) = self.groups.get(&template).copied().filter(|_| !pod.phase.finished()) else {
            return;
        };
        let members = &mut snapshot.groups[group as usize].members;
        remove(members);
        if !members.is_empty() {
            return;
        }
        self.groups.remove(&template);
        snapshot.groups.swap_remove(group as usize);
        if let Some(moved) = snapshot.groups.get(group as usize) {
            let pod = &snapshot.pods[moved.members[0] as usize];
            self.groups.insert(self::template(pod), group);
        }
    }

    /// Adds the budget, or puts it in the place of the one of that name.
    pub fn set_budget(&mut self, budget: DisruptionBudget) {
        Arc::make_mut(&mut Arc::make_mut(&mut self.snapshot).budgets).set(budget);
    }

    /// Removes the budget.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        Arc::make_mut(&mut Arc::make_mut(&mut self.snapshot).budgets).remove(namespace, name);
    }

    /// Says what a claim is bound to; `None`: there is no such claim.
    pub fn set_claim(&mut self, namespace: Arc<str>, name: Arc<str>, claim: Option<Claim>) {
        let claims = Arc::make_mut(&mut Arc::make_mut(&mut self.snapshot).claims);
        match claim {
            Some(claim) => claims.insert((namespace, name), claim),
            None => claims.remove(&(namespace, name)),
        };
    }

    /// What is attached where, drivers and classes, to be changed.
    pub fn storage_mut(&mut self) -> &mut Storage {
        Arc::make_mut(&mut Arc::make_mut(&mut self.snapshot).storage)
    }

    /// Says which labels a namespace has; `None`: there is no such namespace.
    pub fn set_namespace(&mut self, name: Arc<str>, labels: Option<Labels>) {
        let namespaces = Arc::make_mut(&mut Arc::make_mut(&mut self.snapshot).namespaces);
        match labels {
            Some(labels) => namespaces.insert(name, labels),
            None => namespaces.remove(&name),
        };
    }
}

fn owner(pod: &Pod) -> (Arc<str>, Owner) {
    (pod.namespace.clone(), pod.owner.clone())
}

/// Only pods that the scheduler looks at.
fn waits(pod: &Pod) -> bool {
    !pod.phase.finished() && !pod.terminating() && !pod.gated
}

/// Notes the pod at its node.
fn settle(snapshot: &mut Snapshot, at: u32, node: usize) {
    snapshot.on_node[node].push(at);
    let pod = &snapshot.pods[at as usize];
    if !pod.phase.finished() {
        change(&mut snapshot.used[node], &pod.spec.requests, 1);
    }
}

fn know_instance(snapshot: &mut Snapshot, node: &Node, index: usize) {
    if let Some(id) = node.instance_id() {
        snapshot.by_instance.entry(id).or_default().push(index32(index));
    }
}

fn forget_instance(snapshot: &mut Snapshot, index: usize) {
    let node = snapshot.nodes[index].clone();
    let Some(id) = node.instance_id() else { return };
    let Some(nodes) = snapshot.by_instance.get_mut(&id) else { return };
    nodes.retain(|held| *held != index32(index));
    if nodes.is_empty() {
        snapshot.by_instance.remove(&id);
    }
}

/// An index as the snapshot and the placement check keep it: half as wide.
#[expect(clippy::expect_used, reason = "no cluster has 2^32 objects")]
pub(crate) fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 objects")
}

#[cfg(test)]
mod tests;
