//! Pods and nodes as the built-in controllers need them: read from JSON once per change, not once per look.

use super::json::{
    Labels, ObjectKey, annotation, condition_true, controller_of, flag, items, quantity, strings, text, uid,
};
use super::selector::LabelSelector;
use super::store::{ChangeKind, Event};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Amounts in thousandths by resource name.
pub(super) type Amounts = BTreeMap<String, i64>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Required anti-affinity of a pod.
#[derive(Clone, Debug)]
pub(super) struct AntiAffinity {
    pub(super) topology: String,
    pub(super) selector: LabelSelector,
    pub(super) namespaces: BTreeSet<String>,
}

#[derive(Clone, Debug)]
pub(super) struct PodView {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) labels: Labels,
    /// Empty until it is scheduled.
    pub(super) node: String,
    pub(super) phase: String,
    pub(super) ready: bool,
    pub(super) terminating: bool,
    pub(super) owner: Option<Owner>,
    pub(super) mirror: bool,
    pub(super) requests: Amounts,
    pub(super) priority: i64,
    pub(super) anti_affinity: Vec<AntiAffinity>,
    /// In the order of arrival.
    pub(super) born: u64,
    pub(super) object: Arc<Value>,
}

impl PodView {
    fn read(object: &Arc<Value>, born: u64) -> Self {
        let spec = &object["spec"];
        let key = ObjectKey::of(object);
        let anti_affinity =
            items(spec, "/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .filter_map(|term| {
                    let mut namespaces: BTreeSet<String> = items(term, "/namespaces")
                        .iter()
                        .filter_map(|n| n.as_str().map(str::to_owned))
                        .collect();
                    if namespaces.is_empty() {
                        namespaces.insert(key.namespace.clone());
                    }
                    Some(AntiAffinity {
                        topology: term["topologyKey"].as_str()?.to_owned(),
                        selector: LabelSelector::from_object(&term["labelSelector"])?,
                        namespaces,
                    })
                })
                .collect();
        Self {
            uid: uid(object).to_owned(),
            labels: strings(object, "/metadata/labels"),
            node: text(spec, "/nodeName").unwrap_or_default().to_owned(),
            phase: text(object, "/status/phase").unwrap_or("Pending").to_owned(),
            ready: condition_true(object, "Ready"),
            terminating: object["metadata"]["deletionTimestamp"].is_string(),
            owner: controller_of(object).map(|owner| Owner {
                kind: owner["kind"].as_str().unwrap_or_default().to_owned(),
                name: owner["name"].as_str().unwrap_or_default().to_owned(),
                uid: owner["uid"].as_str().unwrap_or_default().to_owned(),
            }),
            mirror: annotation(object, "kubernetes.io/config.mirror").is_some(),
            requests: requests(spec),
            priority: spec["priority"].as_i64().unwrap_or(0),
            anti_affinity,
            born,
            object: Arc::clone(object),
            key,
        }
    }

    /// Succeeded or failed: it holds nothing on its node any more.
    pub(super) fn finished(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }

    /// Counts for a disruption budget.
    pub(super) fn healthy(&self) -> bool {
        self.ready && !self.terminating
    }
}

/// What a pod asks for: the larger of its containers together and its largest init container, plus overhead.
fn requests(spec: &Value) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"]["requests"]);
    let mut total = Amounts::new();
    for container in items(spec, "/containers") {
        add(&mut total, &of(container));
    }
    let mut first = Amounts::new();
    for container in items(spec, "/initContainers") {
        if container["restartPolicy"].as_str() == Some("Always") {
            add(&mut total, &of(container));
        } else {
            for (name, amount) in of(container) {
                let slot = first.entry(name).or_default();
                *slot = (*slot).max(amount);
            }
        }
    }
    for (name, amount) in first {
        let slot = total.entry(name).or_default();
        *slot = (*slot).max(amount);
    }
    add(&mut total, &amounts(&spec["overhead"]));
    total
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount;
    }
}

fn amounts(map: &Value) -> Amounts {
    let Some(map) = map.as_object() else { return Amounts::new() };
    map.iter().filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) effect: String,
    pub(super) added: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) taints: Vec<Taint>,
    pub(super) ready: bool,
    pub(super) allocatable: Amounts,
    /// What its pods ask for.
    pub(super) used: Amounts,
    pub(super) pods: BTreeSet<ObjectKey>,
}

/// What the built-in controllers know of pods and nodes.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) pods: BTreeMap<ObjectKey, PodView>,
    pub(super) nodes: BTreeMap<String, NodeView>,
    /// The bound pods that keep others away.
    aloof: BTreeSet<ObjectKey>,
    /// Pods by the node they are bound to, also of nodes that are gone.
    by_node: BTreeMap<String, BTreeSet<ObjectKey>>,
}

impl View {
    pub(super) fn pods_on(&self, node: &str) -> impl Iterator<Item = &PodView> {
        self.by_node.get(node).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }

    /// The bound pods whose anti-affinity others have to respect.
    pub(super) fn aloof_pods(&self) -> impl Iterator<Item = &PodView> {
        self.aloof.iter().filter_map(|key| self.pods.get(key))
    }

    pub(super) fn in_namespace<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a PodView> + use<'a> {
        let first = ObjectKey::new(namespace, "");
        self.pods
            .range(first.clone()..)
            .take_while(move |(key, _)| key.namespace == first.namespace)
            .map(|(_, pod)| pod)
    }

    pub(super) fn apply_pod(&mut self, event: &Event) {
        let key = ObjectKey::of(&event.object);
        let born = match self.pods.remove(&key) {
            None => event.revision,
            Some(old) => {
                self.release(&old);
                old.born
            }
        };
        if event.kind != ChangeKind::Deleted {
            let pod = PodView::read(&event.object, born);
            self.occupy(&pod);
            self.pods.insert(key, pod);
        }
    }

    /// Takes a pod off its node. The pod, without a node.
    pub(super) fn unbind(&mut self, key: &ObjectKey) -> Option<PodView> {
        let pod = self.pods.remove(key)?;
        self.release(&pod);
        let unbound = PodView { node: String::new(), ..pod };
        self.pods.insert(key.clone(), unbound.clone());
        Some(unbound)
    }

    /// Puts a pod on a node.
    pub(super) fn bind(&mut self, pod: PodView, node: &str) {
        let bound = PodView { node: node.to_owned(), ..pod };
        self.occupy(&bound);
        self.pods.insert(bound.key.clone(), bound);
    }

    pub(super) fn apply_node(&mut self, event: &Event) {
        let name = text(&event.object, "/metadata/name").unwrap_or_default().to_owned();
        if event.kind == ChangeKind::Deleted {
            self.nodes.remove(&name);
            return;
        }
        let object = &*event.object;
        let mut taints: Vec<Taint> = items(object, "/spec/taints")
            .iter()
            .map(|taint| Taint {
                key: taint["key"].as_str().unwrap_or_default().to_owned(),
                value: taint["value"].as_str().unwrap_or_default().to_owned(),
                effect: taint["effect"].as_str().unwrap_or_default().to_owned(),
                added: taint["timeAdded"].as_str().map(str::to_owned),
            })
            .collect();
        // Cordoned: what the node lifecycle controller expresses as a taint.
        if flag(object, "/spec/unschedulable") {
            taints.push(Taint {
                key: "node.kubernetes.io/unschedulable".to_owned(),
                value: String::new(),
                effect: "NoSchedule".to_owned(),
                added: None,
            });
        }
        let (used, pods) = match self.nodes.remove(&name) {
            Some(old) => (old.used, old.pods),
            None => self.load_of(&name),
        };
        let node = NodeView {
            labels: strings(object, "/metadata/labels"),
            taints,
            ready: condition_true(object, "Ready"),
            allocatable: amounts(&object["status"]["allocatable"]),
            used,
            pods,
            name: name.clone(),
        };
        self.nodes.insert(name, node);
    }

    /// What the pods bound to a name ask for, for a node that comes after its pods.
    fn load_of(&self, node: &str) -> (Amounts, BTreeSet<ObjectKey>) {
        let (mut used, mut pods) = (Amounts::new(), BTreeSet::new());
        for pod in self.pods_on(node).filter(|pod| !pod.finished()) {
            add(&mut used, &pod.requests);
            pods.insert(pod.key.clone());
        }
        (used, pods)
    }

    fn occupy(&mut self, pod: &PodView) {
        if pod.node.is_empty() {
            return;
        }
        self.by_node.entry(pod.node.clone()).or_default().insert(pod.key.clone());
        if pod.finished() {
            return;
        }
        if !pod.anti_affinity.is_empty() {
            self.aloof.insert(pod.key.clone());
        }
        if let Some(node) = self.nodes.get_mut(&pod.node) {
            add(&mut node.used, &pod.requests);
            node.pods.insert(pod.key.clone());
        }
    }

    fn release(&mut self, pod: &PodView) {
        self.aloof.remove(&pod.key);
        if let Some(keys) = self.by_node.get_mut(&pod.node) {
            keys.remove(&pod.key);
            if keys.is_empty() {
                self.by_node.remove(&pod.node);
            }
        }
        if let Some(node) = self.nodes.get_mut(&pod.node)
            && node.pods.remove(&pod.key)
        {
            for (name, amount) in &pod.requests {
                *node.used.entry(name.clone()).or_default() -= amount;
            }
        }
    }
}
