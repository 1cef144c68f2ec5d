//! What the check works on: the nodes, the classes of pods, and the counters of the rules.

use super::options::ExcludedNodes;
use crate::cluster::{Claim, HostPort, Node, NodeSelectorTerm, Pod, Resources, Snapshot, VolumeReach};
use crate::effort::{Effort, TooMuch};
use crate::ids::NodeName;
use crate::reason::NodeReason;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The price of a number that is kept: the budget of a check bounds its memory, too, to some 40 MB.
pub(super) const KEPT: usize = 8;
pub(super) const NO_DOMAIN: u32 = u32::MAX;
pub(super) const CPU: usize = 0;
pub(super) const MEMORY: usize = 1;
pub(super) const PODS: usize = 3;

/// One thing that is counted per node: the four fixed ones, then what the pods to place ask for.
pub(super) enum Dimension {
    Resource(Arc<str>),
    Volumes(Arc<str>),
}

/// A node label, and which of its values each node has.
pub(super) struct Topology {
    pub(super) key: Arc<str>,
    /// By node; `NO_DOMAIN` without the label.
    pub(super) domain: Vec<u32>,
    pub(super) domains: usize,
    /// No two nodes share a value, so a pod placed on one changes nothing for another.
    pub(super) per_node: bool,
}

/// Matching pods by domain.
pub(super) struct Counter {
    pub(super) topology: usize,
    pub(super) counts: Vec<i64>,
    pub(super) total: i64,
    /// For topology spread: which nodes' pods count; `None`: all.
    pub(super) eligible: Option<Vec<bool>>,
    /// For topology spread: the domains that have an eligible node, and the lowest of their counts.
    pub(super) domains: Vec<u32>,
    pub(super) least: i64,
    /// How many domains have that.
    pub(super) at_least: usize,
}

impl Counter {
    /// One pod more (`by` is 1) or less (-1). Returns whether all domains had to be looked at.
    pub(super) fn change(&mut self, domain: u32, by: i64) -> bool {
        self.total += by;
        let count = &mut self.counts[domain as usize];
        self.at_least -= usize::from(*count == self.least && !self.domains.is_empty());
        *count += by;
        if *count < self.least {
            (self.least, self.at_least) = (*count, 1);
        } else if *count == self.least {
            self.at_least += 1;
        } else if self.at_least == 0 {
            self.find_least();
            return true;
        }
        false
    }

    pub(super) fn find_least(&mut self) {
        let counts = || self.domains.iter().map(|d| self.counts[*d as usize]);
        let least = counts().min().unwrap_or(0);
        self.at_least = counts().filter(|c| *c == least).count();
        self.least = least;
    }
}

#[derive(Clone, Copy)]
pub(super) struct Spread {
    pub(super) counter: usize,
    pub(super) max_skew: i64,
    pub(super) min_domains: i64,
    /// The pod is counted by its own constraint.
    pub(super) own: i64,
}

/// Pods to place that are alike.
pub(super) struct Class<'a> {
    pub(super) pod: &'a Pod,
    pub(super) moves: bool,
    pub(super) need: Vec<i64>,
    pub(super) spread: Vec<Spread>,
    pub(super) near: Vec<usize>,
    /// It meets its own affinity, so it may be the first of its kind.
    pub(super) near_itself: bool,
    /// Counters that must be zero: its own anti-affinity, and that of others against it.
    pub(super) apart: Vec<usize>,
    /// Counters that go up when one of these pods is placed.
    pub(super) raises: Vec<usize>,
    /// Where one could go at the start; enough of them, not all.
    pub(super) candidates: Vec<u32>,
    pub(super) certified: bool,
    /// The rules of kube-scheduler hold for it: another scheduler puts its pods wherever there is room.
    pub(super) ruled: bool,
    /// What it costs to compare what no placing of pods changes with one node, but for taints.
    pub(super) weight: usize,
}

/// Whether anything that no placing of pods changes keeps a class off a node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    NotAsked,
    Open,
    Closed,
}

/// A pod to place.
pub(super) struct Incoming<'a> {
    pub(super) pod: &'a Pod,
    pub(super) class: usize,
    pub(super) moves: bool,
}

/// The nodes, the pods to place on them, and how far one packing has come.
pub(super) struct Packer<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) nodes: Vec<&'a Node>,
    /// Why a node is out for every pod.
    pub(super) out: Vec<Option<NodeReason>>,
    pub(super) dimensions: Vec<Dimension>,
    /// By node and dimension.
    pub(super) free: Vec<i64>,
    /// One over what a node has of CPU and memory.
    pub(super) scale: Vec<[f64; 2]>,
    pub(super) ports: HashMap<u32, Vec<&'a HostPort>>,
    pub(super) topologies: Vec<Topology>,
    pub(super) counters: Vec<Counter>,
    pub(super) classes: Vec<Class<'a>>,
    pub(super) incoming: Vec<Incoming<'a>>,
    /// How many pods to place name a claim, by namespace and name.
    pub(super) claimed: HashMap<(&'a str, &'a str), usize>,
    /// Pods placed in the packing under way: class and node.
    pub(super) placed: Vec<(usize, u32)>,
    /// Pods there with a lower priority are as good as gone.
    pub(super) free_below: Option<i32>,
    /// By counter: whether some class wants to be near the pods that it counts.
    pub(super) attracts: Vec<bool>,
    /// By class and node; a class that was not asked about has none.
    pub(super) lasting: RefCell<Vec<Vec<Lasting>>>,
    pub(super) effort: &'a Effort,
}

impl<'a> Packer<'a> {
    /// `idle` leave with `pods` and need no place, but may take one.
    ///
    /// # Errors
    /// If it would be more work than `effort` has left.
    pub(super) fn new(
        pods: &[&'a Pod],
        idle: &[&'a Pod],
        snapshot: &'a Snapshot,
        excluded: &ExcludedNodes,
        free_below: Option<i32>,
        extra: Option<(&'a Node, Resources)>,
        effort: &'a Effort,
    ) -> Result<Self, TooMuch> {
        effort.spend(snapshot.nodes().len() + pods.len() + idle.len())?;
        let mut nodes: Vec<&Node> = snapshot.nodes().iter().map(|n| &**n).collect();
        let extra = extra.map(|(node, reserved)| match snapshot.node_index(&node.name) {
            Some(index) => (index, reserved),
            None => {
                nodes.push(node);
                (nodes.len() - 1, reserved)
            }
        });
        let kept: BTreeSet<&NodeName> = snapshot.waiting().filter_map(|pod| pod.nominated.as_ref()).collect();
        let out = nodes.iter().map(|node| out_of_use(node, excluded, &kept)).collect();
        let mut packer = Self {
            snapshot,
            nodes,
            out,
            dimensions: Vec::new(),
            free: Vec::new(),
            scale: Vec::new(),
            ports: HashMap::new(),
            topologies: Vec::new(),
            counters: Vec::new(),
            classes: Vec::new(),
            incoming: Vec::new(),
            claimed: HashMap::new(),
            placed: Vec::new(),
            free_below,
            attracts: Vec::new(),
            lasting: RefCell::default(),
            effort,
        };
        packer.take_in(pods, idle)?;
        let leaving = leaving(pods, idle, snapshot, effort)?;
        packer.count_room(&leaving, extra)?;
        packer.compile_rules(&leaving)?;
        Ok(packer)
    }

    /// The pods to place, and those that wait for a node, by classes.
    fn take_in(&mut self, pods: &[&'a Pod], idle: &[&'a Pod]) -> Result<(), TooMuch> {
        let (snapshot, effort, free_below) = (self.snapshot, self.effort, self.free_below);
        let uids: HashSet<&str> = pods.iter().chain(idle).map(|p| &*p.uid).collect();
        let moving = pods.iter().map(|p| (*p, true));
        let waiting = snapshot.waiting().filter(|p| !uids.contains(&*p.uid)).chain(idle.iter().copied());
        let waiting = waiting.filter(|p| !p.spec.is_placeholder(free_below)).map(|p| (p, false));
        let mut known: HashMap<_, usize> = HashMap::new();
        // Most pods that are alike share what they have in common.
        let mut shared: HashMap<_, usize> = HashMap::new();
        for (pod, moves) in moving.chain(waiting) {
            effort.spend(2)?;
            let next = self.classes.len();
            let template = (pod.template(), moves);
            let class = match shared.get(&template) {
                Some(class) => *class,
                None => {
                    // To compare all of a pod costs more than to go through it.
                    effort.spend(4 * (pod.spec.weight() + pod.labels.len()))?;
                    let alike = (&pod.namespace, &pod.labels, &pod.spec, moves);
                    *known.entry(alike).or_insert(next)
                }
            };
            shared.insert(template, class);
            if class == next {
                self.classes.push(Class::new(pod, moves, snapshot));
            }
            effort.spend(4 * pod.spec.claims.len())?;
            for claim in &pod.spec.claims {
                *self.claimed.entry((&*pod.namespace, &*claim.name)).or_default() += 1;
            }
            self.incoming.push(Incoming { pod, class, moves });
        }
        Ok(())
    }
}

impl<'a> Class<'a> {
    fn new(pod: &'a Pod, moves: bool, snapshot: &Snapshot) -> Self {
        Self {
            pod,
            moves,
            need: Vec::new(),
            spread: Vec::new(),
            near: Vec::new(),
            near_itself: false,
            apart: Vec::new(),
            raises: Vec::new(),
            candidates: Vec::new(),
            certified: false,
            ruled: moves || pod.spec.scheduler.is_none(),
            weight: lasting_weight(pod, snapshot),
        }
    }
}

/// Why a node is out for every pod.
fn out_of_use(node: &Node, excluded: &ExcludedNodes, kept: &BTreeSet<&NodeName>) -> Option<NodeReason> {
    if excluded.contains(&node.name) {
        Some(NodeReason::Excluded)
    } else if !node.ready {
        Some(NodeReason::NotReady)
    } else if node.unschedulable {
        Some(NodeReason::Cordoned)
    } else if kept.contains(&node.name) {
        Some(NodeReason::Nominated)
    } else {
        None
    }
}

/// The pods that leave, as indexes into those of the snapshot.
fn leaving(
    pods: &[&Pod],
    idle: &[&Pod],
    snapshot: &Snapshot,
    effort: &Effort,
) -> Result<HashSet<u32>, TooMuch> {
    let uids: HashSet<&str> = pods.iter().chain(idle).map(|pod| &*pod.uid).collect();
    let names: BTreeSet<&NodeName> = pods.iter().chain(idle).filter_map(|pod| pod.node.as_ref()).collect();
    let mut leaving = HashSet::new();
    for node in names.into_iter().filter_map(|name| snapshot.node_index(name)) {
        let there = snapshot.pod_indexes_on(node);
        effort.spend(there.len())?;
        let leave = |index: &&u32| uids.contains(&*snapshot.pods()[**index as usize].uid);
        leaving.extend(there.iter().filter(leave));
    }
    Ok(leaving)
}

/// What it costs to compare what no placing of pods changes with one node, but for taints.
fn lasting_weight(pod: &Pod, snapshot: &Snapshot) -> usize {
    let reach = |claim: &Claim| match &claim.reach {
        VolumeReach::Nodes(terms) => terms.iter().map(NodeSelectorTerm::weight).sum(),
        VolumeReach::Anywhere | VolumeReach::Unknown => 0,
    };
    let volumes = claims(snapshot, pod).map(reach).sum::<usize>();
    1 + pod.spec.node_weight() + 8 * pod.spec.required_features.len() + 4 * pod.spec.claims.len() + volumes
}

pub(super) fn claims<'s>(snapshot: &'s Snapshot, pod: &'s Pod) -> impl Iterator<Item = &'s Claim> {
    pod.spec.claims.iter().filter_map(|c| snapshot.claim(&pod.namespace, &c.name))
}
