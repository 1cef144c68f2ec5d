//! Packs pods onto nodes, one packing after another, by the rules of the scheduler's filters.

use super::{ExcludedNodes, PlacementOptions, PodName, Reason, ReasonCount, Reasons, Unplaced};
use crate::core::cluster::{
    AffinityTerm, Claim, HostPort, LabelSelector, Labels, Node, Pod, Resources, Snapshot, VolumeReach,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

const NO_DOMAIN: u32 = u32::MAX;
const CPU: usize = 0;
const MEMORY: usize = 1;
const PODS: usize = 3;

/// One thing that is counted per node: the four fixed ones, then what the pods to place ask for.
enum Dimension {
    Resource(Arc<str>),
    Volumes(Arc<str>),
}

/// A node label, and which of its values each node has.
struct Topology {
    key: Arc<str>,
    /// By node; `NO_DOMAIN` without the label.
    domain: Vec<u32>,
    domains: usize,
    /// No two nodes share a value, so a pod placed on one changes nothing for another.
    per_node: bool,
}

/// Matching pods by domain.
struct Counter {
    topology: usize,
    counts: Vec<i64>,
    total: i64,
    /// For topology spread: which nodes' pods count; `None`: all.
    eligible: Option<Vec<bool>>,
    /// For topology spread: the domains that have an eligible node, and the lowest of their counts.
    domains: Vec<u32>,
    least: i64,
    /// How many domains have that.
    at_least: usize,
}

impl Counter {
    /// One pod more (`by` is 1) or less (-1).
    fn change(&mut self, domain: u32, by: i64) {
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
        }
    }

    fn find_least(&mut self) {
        let counts = || self.domains.iter().map(|d| self.counts[*d as usize]);
        let least = counts().min().unwrap_or(0);
        self.at_least = counts().filter(|c| *c == least).count();
        self.least = least;
    }
}

struct Spread {
    counter: usize,
    max_skew: i64,
    min_domains: i64,
    /// The pod is counted by its own constraint.
    own: i64,
}

/// Pods to place that are alike.
pub(super) struct Class<'a> {
    pod: &'a Pod,
    moves: bool,
    need: Vec<i64>,
    spread: Vec<Spread>,
    near: Vec<usize>,
    /// It meets its own affinity, so it may be the first of its kind.
    near_itself: bool,
    /// Counters that must be zero: its own anti-affinity, and that of others against it.
    apart: Vec<usize>,
    /// Counters that go up when one of these pods is placed.
    raises: Vec<usize>,
    /// Where one could go at the start; enough of them, not all.
    candidates: Vec<u32>,
    pub(super) certified: bool,
}

pub(super) struct Incoming<'a> {
    pod: &'a Pod,
    pub(super) class: usize,
    pub(super) moves: bool,
}

#[derive(Clone, Copy)]
enum Pick {
    /// The node with least left.
    Tightest,
    /// The node with most left, as the scheduler's LeastAllocated.
    Emptiest,
    Random,
    /// The node whose loss hurts this class most; among equals the tightest.
    Against(usize),
    /// The same, with chance among equals.
    LooselyAgainst(usize),
}

pub(super) struct Packing {
    order: Vec<usize>,
    /// The pods whose turn comes when no other can be placed any more.
    last: Vec<usize>,
    pick: Pick,
}

impl Packing {
    fn new(order: Vec<usize>, pick: Pick) -> Self {
        Self { order, last: Vec::new(), pick }
    }
}

pub(super) struct Packer<'a> {
    snapshot: &'a Snapshot,
    pub(super) nodes: Vec<&'a Node>,
    /// Why a node is out for every pod.
    out: Vec<Option<Reason>>,
    dimensions: Vec<Dimension>,
    /// By node and dimension.
    free: Vec<i64>,
    /// One over what a node has of CPU and memory.
    scale: Vec<[f64; 2]>,
    ports: HashMap<u32, Vec<&'a HostPort>>,
    topologies: Vec<Topology>,
    counters: Vec<Counter>,
    pub(super) classes: Vec<Class<'a>>,
    pub(super) incoming: Vec<Incoming<'a>>,
    /// Pods placed in the packing under way: class and node.
    pub(super) placed: Vec<(usize, u32)>,
    /// Pods there with a lower priority are as good as gone.
    free_below: Option<i32>,
}

impl<'a> Packer<'a> {
    /// `idle` leave with `pods` and need no place, but may take one.
    pub(super) fn new(
        pods: &[&'a Pod],
        idle: &[&'a Pod],
        snapshot: &'a Snapshot,
        excluded: &ExcludedNodes,
        free_below: Option<i32>,
        extra: Option<(&'a Node, Resources)>,
    ) -> Self {
        let mut nodes: Vec<&Node> = snapshot.nodes().iter().map(|n| &**n).collect();
        let extra = extra.map(|(node, reserved)| match snapshot.node_index(&node.name) {
            Some(index) => (index, reserved),
            None => {
                nodes.push(node);
                (nodes.len() - 1, reserved)
            }
        });
        let out = nodes.iter().map(|n| {
            if excluded.contains(&n.name) {
                Some(Reason::Excluded)
            } else if !n.ready {
                Some(Reason::NotReady)
            } else if n.unschedulable {
                Some(Reason::Cordoned)
            } else {
                None
            }
        });
        let out = out.collect();
        let uids: HashSet<&str> = pods.iter().chain(idle).map(|p| &*p.uid).collect();
        let moving = pods.iter().map(|p| (*p, true));
        let waiting = snapshot.waiting().filter(|p| !uids.contains(&*p.uid)).chain(idle.iter().copied());
        let waiting = waiting.filter(|p| !p.spec.is_placeholder(free_below)).map(|p| (p, false));
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
            placed: Vec::new(),
            free_below,
        };
        let mut known: HashMap<_, usize> = HashMap::new();
        for (pod, moves) in moving.chain(waiting) {
            let alike = (&pod.namespace, &pod.labels, &pod.spec, moves);
            let next = packer.classes.len();
            let class = *known.entry(alike).or_insert(next);
            if class == next {
                packer.classes.push(Class {
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
                });
            }
            packer.incoming.push(Incoming { pod, class, moves });
        }
        let leaving: HashSet<u32> = pods
            .iter()
            .chain(idle)
            .filter_map(|p| Some((*p, snapshot.node_index(p.node.as_deref()?)?)))
            .flat_map(|(p, node)| {
                let there = snapshot.pod_indexes_on(node).iter();
                there.copied().filter(move |i| snapshot.pods()[*i as usize].uid == p.uid)
            })
            .collect();
        packer.count_room(&leaving, extra);
        packer.compile_rules(&leaving);
        packer
    }

    /// What each node has left, without the pods that leave.
    fn count_room(&mut self, leaving: &HashSet<u32>, extra: Option<(usize, Resources)>) {
        let resource = |name: &str| Dimension::Resource(name.into());
        let mut dimensions =
            vec![resource("cpu"), resource("memory"), resource("ephemeral-storage"), resource("pods")];
        let mut extended = BTreeSet::new();
        let mut drivers = BTreeSet::new();
        for class in &self.classes {
            extended.extend(class.pod.spec.requests.extended.iter().map(|(name, _)| name.clone()));
            drivers.extend(claims(self.snapshot, class.pod).filter_map(|c| c.driver.clone()));
        }
        dimensions.extend(extended.into_iter().map(Dimension::Resource));
        dimensions.extend(drivers.iter().cloned().map(Dimension::Volumes));
        self.dimensions = dimensions;
        for class in 0..self.classes.len() {
            self.classes[class].need = self.needs(self.classes[class].pod);
        }

        let width = self.dimensions.len();
        self.free = vec![0; self.nodes.len() * width];
        let reaches = self.classes.iter().any(|c| !c.pod.spec.host_ports.is_empty());
        let nothing = Resources::default();
        for (n, node) in self.nodes.iter().enumerate() {
            let has = &node.allocatable;
            #[allow(clippy::cast_precision_loss, reason = "a score")]
            self.scale.push([1.0 / has.cpu_millis.max(1) as f64, 1.0 / has.memory.max(1) as f64]);
            if self.out[n].is_some() {
                continue;
            }
            let known = n < self.snapshot.nodes().len();
            let used = if known { self.snapshot.used(n) } else { &nothing };
            let free = &mut self.free[n * width..(n + 1) * width];
            free[CPU] = has.cpu_millis.saturating_sub(used.cpu_millis);
            free[MEMORY] = has.memory.saturating_sub(used.memory);
            free[2] = has.ephemeral_storage.saturating_sub(used.ephemeral_storage);
            free[PODS] = has.pods.saturating_sub(used.pods);
            for (d, dimension) in self.dimensions.iter().enumerate().skip(4) {
                free[d] = match dimension {
                    Dimension::Resource(name) => has.extended(name).saturating_sub(used.extended(name)),
                    Dimension::Volumes(driver) => {
                        node.volume_limits.iter().find(|(d, _)| d == driver).map_or(i64::MAX, |(_, l)| *l)
                    }
                };
            }
            let there = if known { self.snapshot.pod_indexes_on(n) } else { &[] };
            let look = reaches || !drivers.is_empty() || self.free_below.is_some();
            let any_leaves = !leaving.is_empty() && there.iter().any(|i| leaving.contains(i));
            if look || any_leaves {
                let mut attached: HashSet<&str> = HashSet::new();
                for index in there {
                    let pod = &*self.snapshot.pods()[*index as usize];
                    if pod.phase.finished() {
                        continue;
                    }
                    if leaving.contains(index) || pod.spec.is_placeholder(self.free_below) {
                        give_back(&self.dimensions, free, pod);
                        continue;
                    }
                    if reaches && !pod.spec.host_ports.is_empty() {
                        let ports = self.ports.entry(index32(n)).or_default();
                        ports.extend(pod.spec.host_ports.iter());
                    }
                    for claim in claims(self.snapshot, pod).filter(|_| !drivers.is_empty()) {
                        if !attached.insert(&claim.volume) {
                            continue;
                        }
                        for (d, dimension) in self.dimensions.iter().enumerate().skip(4) {
                            if matches!(dimension, Dimension::Volumes(x) if claim.driver.as_ref() == Some(x))
                            {
                                free[d] = free[d].saturating_sub(1);
                            }
                        }
                    }
                }
            }
        }
        if let Some((node, reserved)) = extra {
            let free = &mut self.free[node * width..(node + 1) * width];
            free[CPU] = free[CPU].saturating_sub(reserved.cpu_millis);
            free[MEMORY] = free[MEMORY].saturating_sub(reserved.memory);
            free[2] = free[2].saturating_sub(reserved.ephemeral_storage);
            free[PODS] = free[PODS].saturating_sub(reserved.pods);
        }
    }

    fn needs(&self, pod: &Pod) -> Vec<i64> {
        let asks = &pod.spec.requests;
        let of = |dimension: &Dimension| match dimension {
            Dimension::Resource(name) => asks.extended(name),
            Dimension::Volumes(driver) => {
                let same = claims(self.snapshot, pod).filter(|c| c.driver.as_ref() == Some(driver));
                i64::try_from(same.count()).unwrap_or(i64::MAX)
            }
        };
        let mut need = vec![asks.cpu_millis, asks.memory, asks.ephemeral_storage, 1];
        need.extend(self.dimensions.iter().skip(4).map(of));
        need
    }

    /// Inter-pod affinity, anti-affinity and topology spread become counters by domain.
    ///
    /// Rules: interpodaffinity/filtering.go and podtopologyspread/{common,filtering}.go.
    fn compile_rules(&mut self, leaving: &HashSet<u32>) {
        let snapshot = self.snapshot;
        // Which group or class raises which counter: by class, the rule that decides it.
        let mut rules: Vec<(usize, Rule<'a>)> = Vec::new();
        for c in 0..self.classes.len() {
            let pod = self.classes[c].pod;
            let spec = &*pod.spec;
            for constraint in &spec.topology_spread {
                let topology = self.topology(&constraint.topology_key);
                let eligible: Vec<bool> = self
                    .nodes
                    .iter()
                    .map(|n| {
                        spec.topology_spread.iter().all(|s| n.labels.get(&s.topology_key).is_some())
                            && (!constraint.honour_node_affinity || spec.selects(n))
                            && (!constraint.honour_taints || spec.untolerated(n).is_none())
                    })
                    .collect();
                let matches_own = constraint.selector.as_ref().is_some_and(|s| s.matches(&pod.labels));
                let counter = self.counter(topology, Some(eligible));
                self.classes[c].spread.push(Spread {
                    counter,
                    max_skew: constraint.max_skew,
                    min_domains: constraint.min_domains,
                    own: i64::from(matches_own),
                });
                if let Some(selector) = &constraint.selector {
                    rules.push((counter, Rule::Spread { namespace: &pod.namespace, selector }));
                }
            }
            if !spec.pod_affinity.is_empty() {
                let all: Rule<'a> = Rule::Near { of: pod };
                self.classes[c].near_itself = all.counts(pod, snapshot);
                for term in &spec.pod_affinity {
                    let topology = self.topology(&term.topology_key);
                    let counter = self.counter(topology, None);
                    self.classes[c].near.push(counter);
                    rules.push((counter, Rule::Near { of: pod }));
                }
            }
            for term in &spec.pod_anti_affinity {
                let topology = self.topology(&term.topology_key);
                let counter = self.counter(topology, None);
                self.classes[c].apart.push(counter);
                rules.push((counter, Rule::Apart { of: pod, term }));
            }
        }
        // The anti-affinity of others against these pods, by label key.
        let others: Vec<&'a Pod> = {
            let groups = snapshot.groups().iter().map(|g| &*snapshot.pods()[g.members[0] as usize]);
            let classes = self.classes.iter().map(|c| c.pod);
            groups.chain(classes).filter(|p| !p.spec.pod_anti_affinity.is_empty()).collect()
        };
        for c in 0..self.classes.len() {
            let pod = self.classes[c].pod;
            let mut keys: BTreeSet<&Arc<str>> = BTreeSet::new();
            for other in &others {
                for term in &other.spec.pod_anti_affinity {
                    if !keys.contains(&term.topology_key) && means(term, other, pod, snapshot, true) {
                        keys.insert(&term.topology_key);
                    }
                }
            }
            for key in keys {
                let topology = self.topology(key);
                let counter = self.counter(topology, None);
                self.classes[c].apart.push(counter);
                rules.push((counter, Rule::Against { pod, key }));
            }
        }
        for (counter, rule) in &rules {
            for group in snapshot.groups() {
                if rule.counts(&snapshot.pods()[group.members[0] as usize], snapshot) {
                    self.count_members(*counter, rule, &group.members, leaving);
                }
            }
            for class in &mut self.classes {
                if rule.counts(class.pod, snapshot) {
                    class.raises.push(*counter);
                }
            }
        }
        self.counters.iter_mut().for_each(Counter::find_least);
    }

    fn count_members(&mut self, counter: usize, rule: &Rule<'_>, members: &[u32], leaving: &HashSet<u32>) {
        let counter = &mut self.counters[counter];
        let Topology { domain, per_node, .. } = &self.topologies[counter.topology];
        for member in members.iter().filter(|m| !leaving.contains(m)) {
            let pod = &*self.snapshot.pods()[*member as usize];
            let Some(node) = pod.node.as_deref().and_then(|name| self.snapshot.node_index(name)) else {
                continue;
            };
            let eligible = counter.eligible.as_ref().is_none_or(|e| e[node]);
            if domain[node] == NO_DOMAIN || !eligible {
                continue;
            }
            // A pod that ends is not counted for spread. For affinity it still is, but it may be gone by
            // the time it is needed; it only forbids others to be the first of their kind.
            if pod.terminating() && matches!(rule, Rule::Spread { .. }) {
                continue;
            }
            counter.total += 1;
            // A placeholder gives way on its own node. What it forbids in a whole zone it may go on to forbid.
            let gives_way = pod.spec.is_placeholder(self.free_below);
            if gives_way && (*per_node || matches!(rule, Rule::Near { .. })) {
                continue;
            }
            if !(pod.terminating() && matches!(rule, Rule::Near { .. })) {
                counter.counts[domain[node] as usize] += 1;
            }
        }
    }

    fn topology(&mut self, key: &Arc<str>) -> usize {
        if let Some(known) = self.topologies.iter().position(|t| t.key == *key) {
            return known;
        }
        let mut ids: HashMap<&str, u32> = HashMap::new();
        let mut labelled = 0;
        let domain = self
            .nodes
            .iter()
            .map(|n| {
                n.labels.get(key).map_or(NO_DOMAIN, |value| {
                    labelled += 1;
                    let next = index32(ids.len());
                    *ids.entry(value).or_insert(next)
                })
            })
            .collect();
        let per_node = ids.len() == labelled;
        self.topologies.push(Topology { key: key.clone(), domain, domains: ids.len(), per_node });
        self.topologies.len() - 1
    }

    fn counter(&mut self, topology: usize, eligible: Option<Vec<bool>>) -> usize {
        let counts = vec![0; self.topologies[topology].domains];
        let domain = self.topologies[topology].domain.iter();
        let domains: BTreeSet<u32> =
            domain.zip(eligible.iter().flatten()).filter(|(_, e)| **e).map(|(d, _)| *d).collect();
        let domains = domains.into_iter().collect();
        self.counters.push(Counter { topology, counts, total: 0, eligible, domains, least: 0, at_least: 0 });
        self.counters.len() - 1
    }

    /// Where the pods of each class can go at the start, and whether that settles the matter.
    pub(super) fn find_candidates(&mut self) {
        // Waiting pods that fit nowhere take no room.
        let useless: HashSet<usize> = (0..self.classes.len())
            .filter(|c| !self.classes[*c].moves)
            .filter(|c| {
                !(0..index32(self.nodes.len())).any(|n| self.obstacle(*c, n, Rules::Lasting).is_none())
            })
            .collect();
        self.incoming.retain(|i| !useless.contains(&i.class));
        let enough = self.incoming.len();
        for c in 0..self.classes.len() {
            if useless.contains(&c) {
                continue;
            }
            let class = &self.classes[c];
            let per_node = |counter: &usize| self.topologies[self.counters[*counter].topology].per_node;
            let certifiable =
                class.spread.is_empty() && class.near.is_empty() && class.apart.iter().all(per_node);
            // Per combination of shared domains as many nodes as there are pods: the others can spoil all
            // but one of them. With spread over single nodes, the emptiest first.
            let spread_over_nodes = class.spread.iter().find(|s| per_node(&s.counter)).map(|s| s.counter);
            // Where its pods go matters to the pods that they attract or repel, too.
            let near_on_node = class
                .near
                .iter()
                .chain(&class.raises)
                .any(|c| per_node(c) && self.classes.iter().any(|other| other.near.contains(c)));
            let rules = class.spread.iter().map(|s| s.counter);
            let rules = rules.chain(class.near.iter().chain(&class.apart).chain(&class.raises).copied());
            let shared: BTreeSet<usize> = rules
                .filter(|counter| !per_node(counter))
                .map(|counter| self.counters[counter].topology)
                .collect();
            let mut order: Vec<u32> = (0..index32(self.nodes.len())).collect();
            if let Some(counter) = spread_over_nodes {
                let counter = &self.counters[counter];
                let domain = &self.topologies[counter.topology].domain;
                order.sort_by_key(|n| counter.counts.get(domain[*n as usize] as usize).copied());
            }
            let mut seen: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
            let mut candidates = Vec::new();
            for n in order {
                let places = shared.iter().map(|t| self.topologies[*t].domain[n as usize]).collect();
                let count = seen.entry(places).or_default();
                if (*count >= enough && !near_on_node) || self.obstacle(c, n, Rules::Lasting).is_some() {
                    continue;
                }
                *count += 1;
                candidates.push(n);
                if shared.is_empty()
                    && spread_over_nodes.is_none()
                    && !near_on_node
                    && candidates.len() >= enough
                {
                    break;
                }
            }
            let class = &mut self.classes[c];
            class.certified = certifiable && candidates.len() >= enough;
            class.candidates = candidates;
        }
        // Whoever could take a node that is in question must be able to do so in a packing.
        let in_question: BTreeSet<u32> = {
            let uncertain = self.classes.iter().filter(|c| c.moves && !c.certified);
            uncertain.flat_map(|c| c.candidates.iter().copied()).collect()
        };
        for c in (0..self.classes.len()).filter(|c| !useless.contains(c)) {
            let known: HashSet<u32> = self.classes[c].candidates.iter().copied().collect();
            let more = in_question.iter().copied().filter(|n| !known.contains(n));
            let more: Vec<u32> = more.filter(|n| self.obstacle(c, *n, Rules::Lasting).is_none()).collect();
            self.classes[c].candidates.extend(more);
        }
    }

    pub(super) fn packings(
        &self,
        certain: bool,
        options: &PlacementOptions,
        rng: &mut fastrand::Rng,
    ) -> Vec<Packing> {
        let size = |i: &usize| self.size(self.incoming[*i].class);
        let waiting: Vec<usize> = (0..self.incoming.len()).filter(|i| !self.incoming[*i].moves).collect();
        let mut movers: Vec<usize> = (0..self.incoming.len()).filter(|i| self.incoming[*i].moves).collect();
        movers.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let order = |movers: &[usize]| waiting.iter().chain(movers).copied().collect::<Vec<_>>();
        let largest = order(&movers);
        let mut packings = vec![Packing::new(largest.clone(), Pick::Emptiest)];
        if certain {
            return packings;
        }
        packings.push(Packing::new(largest, Pick::Tightest));
        let mut uncertain: Vec<usize> =
            movers.iter().map(|i| self.incoming[*i].class).filter(|c| !self.classes[*c].certified).collect();
        uncertain.dedup();
        movers.reverse();
        packings.push(Packing::new(order(&movers), Pick::Emptiest));
        packings.push(Packing::new(order(&movers), Pick::Tightest));
        let each = options.adversaries.checked_div(uncertain.len()).unwrap_or(0).clamp(1, 8);
        for class in uncertain.into_iter().take(options.adversaries) {
            // The waiting pods, then the others, and the pods in question last.
            let (last, mut others): (Vec<_>, Vec<_>) =
                movers.iter().copied().partition(|i| self.incoming[*i].class == class);
            for round in 0..each {
                let pick = if round < 2 { Pick::Against(class) } else { Pick::LooselyAgainst(class) };
                packings.push(Packing { order: order(&others), last: last.clone(), pick });
                if round == 0 { others.reverse() } else { rng.shuffle(&mut others) }
            }
        }
        for shuffle in 0..options.shuffles {
            rng.shuffle(&mut movers);
            let pick = [Pick::Random, Pick::Emptiest, Pick::Random, Pick::Tightest][shuffle % 4];
            packings.push(Packing::new(order(&movers), pick));
        }
        packings
    }

    #[allow(clippy::cast_precision_loss, reason = "a score")]
    fn size(&self, class: usize) -> f64 {
        let scale = self.scale.first().copied().unwrap_or([0.0; 2]);
        let need = &self.classes[class].need;
        need[CPU] as f64 * scale[0] + need[MEMORY] as f64 * scale[1]
    }

    /// Places the pods one by one, and those that found nothing again as long as that helps. Leaves the
    /// result in `self` for [`Self::explain`], until the next packing.
    pub(super) fn pack(&mut self, packing: &Packing, rng: &mut fastrand::Rng) -> Vec<Option<u32>> {
        self.clear();
        let mut found = vec![None; self.incoming.len()];
        let mut left = Vec::new();
        for some in [&packing.order, &packing.last] {
            left.extend_from_slice(some);
            while self.pack_once(&mut left, &mut found, packing.pick, rng) {}
        }
        found
    }

    pub(super) fn clear(&mut self) {
        while let Some((class, node)) = self.placed.pop() {
            self.change(class, node, -1);
        }
    }

    /// Searches for an order and a choice of nodes that leaves pods without one. `None`: gave up before
    /// everything was tried. Otherwise the pods left over, in `self` as it is then; none if there is no way.
    pub(super) fn search(&mut self, left: &mut Vec<usize>, steps: &mut usize) -> Option<Vec<usize>> {
        let mut stuck = true;
        let mut tried: HashSet<usize> = HashSet::new();
        for at in 0..left.len() {
            let class = self.incoming[left[at]].class;
            if !tried.insert(class) {
                continue;
            }
            for c in 0..self.classes[class].candidates.len() {
                let node = self.classes[class].candidates[c];
                *steps = steps.checked_sub(1)?;
                if self.blocked_now(class, node).is_some() {
                    continue;
                }
                stuck = false;
                self.change(class, node, 1);
                self.placed.push((class, node));
                let pod = left.swap_remove(at);
                let found = self.search(left, steps);
                left.push(pod);
                let last = left.len() - 1;
                left.swap(at, last);
                if found.as_ref().is_none_or(|f| !f.is_empty()) {
                    return found;
                }
                self.placed.pop();
                self.change(class, node, -1);
            }
        }
        let movers = left.iter().copied().filter(|i| self.incoming[*i].moves);
        Some(if stuck { movers.collect() } else { Vec::new() })
    }

    /// Gives each pod that is left one chance. Returns whether another could do something.
    fn pack_once(
        &mut self,
        left: &mut Vec<usize>,
        found: &mut [Option<u32>],
        pick: Pick,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let before = left.len();
        left.retain(|i| {
            let class = self.incoming[*i].class;
            let Some(node) = self.choose(class, pick, rng) else { return true };
            self.change(class, node, 1);
            self.placed.push((class, node));
            found[*i] = Some(node);
            false
        });
        // Only affinity and spread can open a node when a pod is placed.
        let hopeful = |i: &usize| {
            let class = &self.classes[self.incoming[*i].class];
            !class.near.is_empty() || !class.spread.is_empty()
        };
        left.len() < before && left.iter().any(hopeful)
    }

    fn choose(&self, class: usize, pick: Pick, rng: &mut fastrand::Rng) -> Option<u32> {
        let mut best: Option<(f64, u32)> = None;
        for &n in &self.classes[class].candidates {
            let score = match pick {
                Pick::Tightest => -self.left(class, n),
                Pick::Emptiest => self.left(class, n),
                Pick::Random => rng.f64(),
                Pick::Against(victim) if victim != class => self.harm(class, victim, n) - self.left(class, n),
                Pick::LooselyAgainst(victim) if victim != class => self.harm(class, victim, n) + rng.f64(),
                Pick::Against(_) | Pick::LooselyAgainst(_) => self.left(class, n),
            };
            let better = best.is_none_or(|(top, _)| score > top);
            if better && self.blocked_now(class, n).is_none() {
                best = Some((score, n));
            }
        }
        // The candidates are enough by construction; if they were not, the rest of the cluster is looked at.
        let rest = || (0..index32(self.nodes.len())).find(|n| self.obstacle(class, *n, Rules::All).is_none());
        best.map(|(_, n)| n).or_else(rest)
    }

    /// How much of a node is left with one more pod, as shares of CPU and memory.
    #[allow(clippy::cast_precision_loss, reason = "a score")]
    fn left(&self, class: usize, node: u32) -> f64 {
        let n = node as usize;
        let free = &self.free[n * self.dimensions.len()..];
        let need = &self.classes[class].need;
        (free[CPU] - need[CPU]) as f64 * self.scale[n][0]
            + (free[MEMORY] - need[MEMORY]) as f64 * self.scale[n][1]
    }

    /// How bad it is for `victim` if a pod of `class` takes this node: worst if that closes it, bad if it
    /// could use it now. The steps are larger than what a whole node leaves.
    fn harm(&self, class: usize, victim: usize, node: u32) -> f64 {
        let usable = self.obstacle(victim, node, Rules::All).is_none();
        let width = self.dimensions.len();
        let free = &self.free[node as usize * width..][..width];
        let (takes, wants) = (&self.classes[class].need, &self.classes[victim].need);
        let fills = || (0..width).any(|d| wants[d] > 0 && free[d].saturating_sub(takes[d]) < wants[d]);
        let closes = usable && (fills() || self.repels(class, victim, node));
        f64::from(u8::from(usable)) * 10.0 + f64::from(u8::from(closes)) * 10.0
    }

    /// Whether a pod of `class` on this node would keep `victim` off it by anti-affinity or spread.
    fn repels(&self, class: usize, victim: usize, node: u32) -> bool {
        let (class, victim) = (&self.classes[class], &self.classes[victim]);
        let uneven = |spread: &Spread| {
            let counter = &self.counters[spread.counter];
            let domain = self.topologies[counter.topology].domain[node as usize];
            let here = counter.counts.get(domain as usize).copied().unwrap_or(0);
            class.raises.contains(&spread.counter) && here + 1 + spread.own - counter.least > spread.max_skew
        };
        victim.apart.iter().any(|counter| class.raises.contains(counter)) || victim.spread.iter().any(uneven)
    }

    pub(super) fn change(&mut self, class: usize, node: u32, by: i64) {
        let width = self.dimensions.len();
        let class = &self.classes[class];
        let free = &mut self.free[node as usize * width..][..width];
        for (free, need) in free.iter_mut().zip(&class.need) {
            *free = free.saturating_sub(by * need);
        }
        for counter in &class.raises {
            let counter = &mut self.counters[*counter];
            let domain = self.topologies[counter.topology].domain[node as usize];
            let counted = counter.eligible.as_ref().is_none_or(|e| e[node as usize]);
            if domain != NO_DOMAIN && counted {
                counter.change(domain, by);
            }
        }
    }

    /// The first thing that keeps a pod off a node.
    pub(super) fn obstacle(&self, class: usize, node: u32, rules: Rules) -> Option<Reason> {
        self.never(class, node).or_else(|| match rules {
            Rules::All => self.blocked_now(class, node),
            Rules::Lasting => self.full(class, node).or_else(|| self.too_near(class, node)),
        })
    }

    /// What no placing of pods changes: nodeunschedulable, tainttoleration, nodeaffinity, volumebinding,
    /// volumezone.
    fn never(&self, class: usize, node: u32) -> Option<Reason> {
        if let Some(reason) = &self.out[node as usize] {
            return Some(reason.clone());
        }
        let class = &self.classes[class];
        let spec = &*class.pod.spec;
        let node = self.nodes[node as usize];
        if let Some(what) = spec.not_understood.as_ref().filter(|_| class.moves) {
            return Some(Reason::NotUnderstood(what.to_string()));
        }
        if let Some(taint) = spec.untolerated(node) {
            return Some(Reason::Taint(taint.to_string()));
        }
        if !spec.selects(node) {
            return Some(Reason::NodeAffinity);
        }
        for claim in spec.claims.iter().filter(|c| !c.ephemeral) {
            match self.snapshot.claim(&class.pod.namespace, &claim.name).map(|c| &c.reach) {
                Some(VolumeReach::Anywhere) => {}
                Some(VolumeReach::Nodes(terms)) if terms.iter().any(|t| t.matches(node)) => {}
                Some(VolumeReach::Nodes(_)) => return Some(Reason::Volume(claim.name.to_string())),
                // A pod that waits may get its volume anywhere: the cautious view is that it takes room.
                Some(VolumeReach::Unknown) | None if class.moves => {
                    return Some(Reason::VolumeUnknown(claim.name.to_string()));
                }
                Some(VolumeReach::Unknown) | None => {}
            }
        }
        None
    }

    fn blocked_now(&self, class: usize, node: u32) -> Option<Reason> {
        self.full(class, node)
            .or_else(|| self.uneven(class, node))
            .or_else(|| self.too_far(class, node))
            .or_else(|| self.too_near(class, node))
    }

    /// noderesources/fit.go, nodeports/node_ports.go, nodevolumelimits/csi.go.
    fn full(&self, class: usize, node: u32) -> Option<Reason> {
        let width = self.dimensions.len();
        let free = &self.free[node as usize * width..][..width];
        let class = &self.classes[class];
        if let Some(d) = (0..width).find(|d| class.need[*d] > 0 && class.need[*d] > free[*d]) {
            return Some(match &self.dimensions[d] {
                Dimension::Resource(_) if d == PODS => Reason::TooManyPods,
                Dimension::Resource(name) => Reason::Insufficient(name.to_string()),
                Dimension::Volumes(driver) => Reason::VolumeLimit(driver.to_string()),
            });
        }
        let ports = &class.pod.spec.host_ports;
        if ports.is_empty() {
            return None;
        }
        let there = self.ports.get(&node).into_iter().flatten().copied();
        let placed = self.placed.iter().filter(|(_, n)| *n == node);
        let placed = placed.flat_map(|(c, _)| self.classes[*c].pod.spec.host_ports.iter());
        let mut taken = there.chain(placed);
        let conflict = taken.find_map(|t| ports.iter().find(|p| p.conflicts(t)));
        conflict.map(|p| Reason::HostPort(p.port))
    }

    fn uneven(&self, class: usize, node: u32) -> Option<Reason> {
        for spread in &self.classes[class].spread {
            let counter = &self.counters[spread.counter];
            let topology = &self.topologies[counter.topology];
            let domain = topology.domain[node as usize];
            let few = i64::try_from(counter.domains.len()).is_ok_and(|d| d < spread.min_domains);
            let least = if few { 0 } else { counter.least };
            let here = counter.counts.get(domain as usize);
            if here.is_none_or(|here| here + spread.own - least > spread.max_skew) {
                return Some(Reason::TopologySpread(topology.key.to_string()));
            }
        }
        None
    }

    fn too_far(&self, class: usize, node: u32) -> Option<Reason> {
        let class = &self.classes[class];
        if class.near.is_empty() {
            return None;
        }
        let mut all_there = true;
        for counter in class.near.iter().map(|c| &self.counters[*c]) {
            let domain = self.topologies[counter.topology].domain[node as usize];
            match counter.counts.get(domain as usize) {
                None => return Some(Reason::PodAffinity),
                Some(count) => all_there &= *count > 0,
            }
        }
        let first = class.near_itself && class.near.iter().all(|c| self.counters[*c].total == 0);
        (!all_there && !first).then_some(Reason::PodAffinity)
    }

    fn too_near(&self, class: usize, node: u32) -> Option<Reason> {
        let taken = self.classes[class].apart.iter().map(|c| &self.counters[*c]).any(|counter| {
            let domain = self.topologies[counter.topology].domain[node as usize];
            counter.counts.get(domain as usize).is_some_and(|count| *count > 0)
        });
        taken.then_some(Reason::PodAntiAffinity)
    }

    pub(super) fn explain(&self, incoming: usize) -> Unplaced {
        let Incoming { pod, class, .. } = self.incoming[incoming];
        let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
        for n in 0..index32(self.nodes.len()) {
            if let Some(reason) = self.obstacle(class, n, Rules::All) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let counts = counts.into_iter().map(|(reason, nodes)| ReasonCount { reason, nodes });
        let mut reasons: Vec<ReasonCount> = counts.collect();
        reasons.sort_by_key(|count| std::cmp::Reverse(count.nodes));
        Unplaced { pod: pod.into(), reasons: Reasons(reasons) }
    }

    pub(super) fn named(&self, placed: &[Option<u32>]) -> Vec<(PodName, Arc<str>)> {
        let movers = self.incoming.iter().zip(placed).filter(|(i, _)| i.moves);
        movers.filter_map(|(i, n)| Some((i.pod.into(), self.nodes[(*n)? as usize].name.clone()))).collect()
    }
}

#[derive(Clone, Copy)]
pub(super) enum Rules {
    All,
    /// Those that placing more pods never lifts: all but affinity and spread.
    Lasting,
}

/// Which pods a counter counts.
enum Rule<'a> {
    Spread {
        namespace: &'a Arc<str>,
        selector: &'a LabelSelector,
    },
    /// Pods that meet all affinity terms of this pod.
    Near {
        of: &'a Pod,
    },
    /// Pods that meet this anti-affinity term.
    Apart {
        of: &'a Pod,
        term: &'a AffinityTerm,
    },
    /// Pods with an anti-affinity term over `key` that this pod meets.
    Against {
        pod: &'a Pod,
        key: &'a Arc<str>,
    },
}

impl Rule<'_> {
    fn counts(&self, other: &Pod, snapshot: &Snapshot) -> bool {
        match self {
            Self::Spread { namespace, selector } => {
                other.namespace == **namespace && selector.matches(&other.labels)
            }
            Self::Near { of } => of.spec.pod_affinity.iter().all(|t| means(t, of, other, snapshot, false)),
            Self::Apart { of, term } => means(term, of, other, snapshot, true),
            Self::Against { pod, key } => {
                let terms = other.spec.pod_anti_affinity.iter().filter(|t| t.topology_key == **key);
                terms.into_iter().any(|t| means(t, other, pod, snapshot, true))
            }
        }
    }
}

/// Whether an affinity term of `owner` means `pod`; `unknown` is the answer where it depends on labels of a
/// namespace that are not known.
fn means(term: &AffinityTerm, owner: &Pod, pod: &Pod, snapshot: &Snapshot, unknown: bool) -> bool {
    let by_label = |selector: &LabelSelector| {
        selector.requirements.is_empty()
            || snapshot
                .namespace_labels(&pod.namespace)
                .map_or(unknown, |labels: &Labels| selector.matches(labels))
    };
    let namespace = if term.namespaces.is_empty() && term.namespace_selector.is_none() {
        owner.namespace == pod.namespace
    } else {
        term.namespaces.contains(&pod.namespace) || term.namespace_selector.as_ref().is_some_and(by_label)
    };
    namespace && term.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
}

fn claims<'s>(snapshot: &'s Snapshot, pod: &'s Pod) -> impl Iterator<Item = &'s Claim> {
    pod.spec.claims.iter().filter_map(|c| snapshot.claim(&pod.namespace, &c.name))
}

fn give_back(dimensions: &[Dimension], free: &mut [i64], pod: &Pod) {
    let asks = &pod.spec.requests;
    free[CPU] = free[CPU].saturating_add(asks.cpu_millis);
    free[MEMORY] = free[MEMORY].saturating_add(asks.memory);
    free[2] = free[2].saturating_add(asks.ephemeral_storage);
    free[PODS] = free[PODS].saturating_add(1);
    for (free, dimension) in free.iter_mut().zip(dimensions).skip(4) {
        if let Dimension::Resource(name) = dimension {
            *free = free.saturating_add(asks.extended(name));
        }
    }
}

pub(super) fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 nodes")
}
