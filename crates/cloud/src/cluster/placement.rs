//! Where a pod can run: the filters of the scheduler.

use super::json::{Labels, ObjectKey, at, items, strings, text};
use super::selector::LabelSelector;
use super::view::{AntiAffinity, NodeView, PodView, Taint, View};
use super::world::World;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Why a pod does not fit a node, in the words of the scheduler.
pub(super) type Misfit = &'static str;

/// What of a pod's wishes depends on the other pods: worked out once per pod, not once per node.
pub(super) struct Surroundings {
    /// Topology key and value where the pod must not go.
    forbidden: BTreeSet<(String, String)>,
    /// For each affinity term: its topology key, and the values where it is met.
    required: Vec<(String, BTreeSet<String>)>,
    /// For each spread constraint: its topology key, and how many more pods each value may take.
    spread: Vec<(String, BTreeMap<String, i64>)>,
    /// For each volume that is bound to a place: the nodes that reach it.
    volumes: Vec<Value>,
    host_ports: BTreeSet<i64>,
    nodes: NodeChoice,
    tolerations: Vec<Value>,
}

impl World {
    /// What decides where the pod can run, as the pods stand in `view`.
    pub(super) fn surroundings(&self, view: &View, pod: &PodView) -> Surroundings {
        let spec = &pod.object["spec"];
        Surroundings {
            forbidden: forbidden(view, pod),
            required: required(view, pod),
            spread: spread(view, pod),
            volumes: self.volume_affinities(&pod.key.namespace, spec),
            host_ports: host_ports(spec),
            nodes: NodeChoice::of(spec),
            tolerations: items(spec, "/tolerations").to_vec(),
        }
    }

    fn volume_affinities(&self, namespace: &str, spec: &Value) -> Vec<Value> {
        items(spec, "/volumes")
            .iter()
            .filter_map(|volume| {
                let claim = text(volume, "/persistentVolumeClaim/claimName")?;
                let claim = self.store.get("persistentvolumeclaims", &ObjectKey::new(namespace, claim))?;
                let volume = text(claim, "/spec/volumeName")?;
                let volume = self.store.get("persistentvolumes", &ObjectKey::new("", volume))?;
                volume.pointer("/spec/nodeAffinity/required").cloned()
            })
            .collect()
    }
}

impl Surroundings {
    /// Whether the pod can run on the node.
    pub(super) fn fits(&self, view: &View, pod: &PodView, node: &NodeView) -> Result<(), Misfit> {
        tolerates(&self.tolerations, node, false)?;
        if !self.nodes.allows(node) {
            return Err("node(s) didn't match Pod's node affinity/selector");
        }
        for volume in &self.volumes {
            if !matches_terms(items(volume, "/nodeSelectorTerms"), node) {
                return Err("node(s) had volume node affinity conflict");
            }
        }
        room(pod, node)?;
        let value_of = |topology: &String| node.labels.get(topology);
        if self.forbidden.iter().any(|(topology, value)| value_of(topology) == Some(value)) {
            return Err("node(s) didn't satisfy pod anti-affinity rules");
        }
        if !self
            .required
            .iter()
            .all(|(topology, values)| value_of(topology).is_some_and(|v| values.contains(v)))
        {
            return Err("node(s) didn't match pod affinity rules");
        }
        for (topology, room) in &self.spread {
            if value_of(topology).is_none_or(|value| room.get(value).copied().unwrap_or(1) <= 0) {
                return Err("node(s) didn't match pod topology spread constraints");
            }
        }
        let taken = || {
            view.pods_on(&node.name)
                .filter(|other| !other.finished())
                .any(|other| !host_ports(&other.object["spec"]).is_disjoint(&self.host_ports))
        };
        if !self.host_ports.is_empty() && taken() {
            return Err("node(s) didn't have free ports for the requested pod ports");
        }
        Ok(())
    }
}

fn room(pod: &PodView, node: &NodeView) -> Result<(), Misfit> {
    let allocatable = |name: &str| node.allocatable.get(name).copied().unwrap_or(0);
    let used = |name: &str| node.used.get(name).copied().unwrap_or(0);
    let pods = i64::try_from(node.pods.len()).unwrap_or(i64::MAX);
    if (pods + 1).saturating_mul(1000) > allocatable("pods") {
        return Err("Too many pods");
    }
    for (name, amount) in &pod.requests {
        if *amount > 0 && used(name) + amount > allocatable(name) {
            return Err(match name.as_str() {
                "cpu" => "Insufficient cpu",
                "memory" => "Insufficient memory",
                _ => "Insufficient extended resources",
            });
        }
    }
    Ok(())
}

/// Whether the pod may go to a node with these taints, and, for daemons, whether it belongs there at all.
pub(super) fn tolerates(tolerations: &[Value], node: &NodeView, as_daemon: bool) -> Result<(), Misfit> {
    let hard = |taint: &&Taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute";
    for taint in node.taints.iter().filter(hard) {
        if !tolerations.iter().any(|toleration| tolerated(toleration, taint)) {
            return Err(match taint.key.as_str() {
                "node.kubernetes.io/unschedulable" => "node(s) were unschedulable",
                _ => "node(s) had untolerated taint(s)",
            });
        }
    }
    // The taint of a node that is not ready comes a moment after its condition.
    let not_ready = || Taint {
        key: "node.kubernetes.io/not-ready".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
        added: None,
    };
    if !node.ready && !as_daemon && !tolerations.iter().any(|toleration| tolerated(toleration, &not_ready()))
    {
        return Err("node(s) were not ready");
    }
    Ok(())
}

pub(super) fn tolerated(toleration: &Value, taint: &Taint) -> bool {
    let field = |name: &str| toleration[name].as_str().unwrap_or_default();
    let effect = field("effect").is_empty() || field("effect") == taint.effect;
    let exists = field("operator") == "Exists";
    let key = field("key") == taint.key || (field("key").is_empty() && exists);
    effect && key && (exists || field("value") == taint.value)
}

/// Node selector and required node affinity of a pod.
pub(super) struct NodeChoice {
    labels: Labels,
    terms: Option<Vec<Value>>,
}

impl NodeChoice {
    pub(super) fn of(spec: &Value) -> Self {
        let required = at(spec, "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        let required = required.filter(|required| required.is_object());
        Self {
            labels: strings(spec, "/nodeSelector"),
            terms: required.map(|required| items(required, "/nodeSelectorTerms").to_vec()),
        }
    }

    pub(super) fn allows(&self, node: &NodeView) -> bool {
        self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| matches_terms(terms, node))
    }
}

/// One of the terms must match, an empty one matches nothing.
fn matches_terms(terms: &[Value], node: &NodeView) -> bool {
    let fields: Labels = [("metadata.name".to_owned(), node.name.clone())].into();
    terms.iter().any(|term| {
        let (labels, names) = (items(term, "/matchExpressions"), items(term, "/matchFields"));
        let met = |expressions: &[Value], of: &Labels| {
            LabelSelector::from_expressions(expressions).is_some_and(|selector| selector.matches(of))
        };
        !(labels.is_empty() && names.is_empty()) && met(labels, &node.labels) && met(names, &fields)
    })
}

/// Where the pod's own anti-affinity and that of the pods already there keep it away from.
fn forbidden(view: &View, pod: &PodView) -> BTreeSet<(String, String)> {
    let covers = |term: &AntiAffinity, other: &PodView| {
        term.namespaces.contains(&other.key.namespace) && term.selector.matches(&other.labels)
    };
    let place = |other: &PodView, term: &AntiAffinity| {
        let value = view.nodes.get(&other.node)?.labels.get(&term.topology)?;
        Some((term.topology.clone(), value.clone()))
    };
    let mut places = BTreeSet::new();
    for term in &pod.anti_affinity {
        let there = view.pods.values().filter(|other| !other.finished() && covers(term, other));
        places.extend(there.filter_map(|other| place(other, term)));
    }
    for other in view.aloof_pods() {
        let theirs = other.anti_affinity.iter().filter(|term| covers(term, pod));
        places.extend(theirs.filter_map(|term| place(other, term)));
    }
    places
}

fn required(view: &View, pod: &PodView) -> Vec<(String, BTreeSet<String>)> {
    items(&pod.object, "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution")
        .iter()
        .filter_map(|term| {
            let topology = term["topologyKey"].as_str()?;
            let selector = LabelSelector::from_object(&term["labelSelector"])?;
            let matching =
                |other: &PodView| other.key.namespace == pod.key.namespace && selector.matches(&other.labels);
            let met = |node: &&NodeView| node.pods.iter().filter_map(|key| view.pods.get(key)).any(matching);
            let mut values: BTreeSet<String> = view
                .nodes
                .values()
                .filter(met)
                .filter_map(|node| node.labels.get(topology).cloned())
                .collect();
            // The first of a group that wants to be together may go anywhere.
            if values.is_empty() && selector.matches(&pod.labels) {
                values = view.nodes.values().filter_map(|node| node.labels.get(topology).cloned()).collect();
            }
            Some((topology.to_owned(), values))
        })
        .collect()
}

fn spread(view: &View, pod: &PodView) -> Vec<(String, BTreeMap<String, i64>)> {
    let spec = &pod.object["spec"];
    let choice = NodeChoice::of(spec);
    items(spec, "/topologySpreadConstraints")
        .iter()
        .filter(|constraint| constraint["whenUnsatisfiable"].as_str() != Some("ScheduleAnyway"))
        .filter_map(|constraint| {
            let topology = constraint["topologyKey"].as_str()?;
            let selector = LabelSelector::from_object(&constraint["labelSelector"])?;
            let max_skew = constraint["maxSkew"].as_i64().unwrap_or(1);
            let mut counts: BTreeMap<String, i64> = BTreeMap::new();
            // Nodes that the pod could never choose are no domains; tainted ones are, by default.
            for node in view.nodes.values().filter(|node| choice.allows(node)) {
                let Some(value) = node.labels.get(topology) else { continue };
                let here = node
                    .pods
                    .iter()
                    .filter_map(|key| view.pods.get(key))
                    .filter(|other| {
                        !other.terminating
                            && other.key.namespace == pod.key.namespace
                            && selector.matches(&other.labels)
                    })
                    .count();
                *counts.entry(value.clone()).or_default() += i64::try_from(here).unwrap_or(i64::MAX);
            }
            let least = counts.values().copied().min().unwrap_or(0);
            let own = i64::from(selector.matches(&pod.labels));
            let room = counts.into_iter().map(|(value, here)| (value, max_skew - (here + own - least) + 1));
            Some((topology.to_owned(), room.collect()))
        })
        .collect()
}

fn host_ports(spec: &Value) -> BTreeSet<i64> {
    items(spec, "/containers")
        .iter()
        .flat_map(|container| items(container, "/ports"))
        .filter_map(|port| port["hostPort"].as_i64())
        .filter(|port| *port > 0)
        .collect()
}
