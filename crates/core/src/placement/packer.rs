//! Packs pods onto nodes, one packing after another, by the rules of the scheduler's filters.

use super::{ExcludedNodes, PlacementOptions, PodName, Reason, ReasonCount, Reasons, Unplaced};
use crate::cluster::{Claim, HostPort, Node, NodeSelectorTerm, Pod, Resources, Snapshot, VolumeReach};
use crate::effort::{Effort, TooMuch};
use rules::Counted;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

mod rules;

/// The price of a number that is kept: the budget of a check bounds its memory, too, to some 40 MB.
const KEPT: usize = 8;
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
    /// One pod more (`by` is 1) or less (-1). Returns whether all domains had to be looked at.
    fn change(&mut self, domain: u32, by: i64) -> bool {
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

    fn find_least(&mut self) {
        let counts = || self.domains.iter().map(|d| self.counts[*d as usize]);
        let least = counts().min().unwrap_or(0);
        self.at_least = counts().filter(|c| *c == least).count();
        self.least = least;
    }
}

#[derive(Clone, Copy)]
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
    /// What it costs to compare what no placing of pods changes with one node, but for taints.
    weight: usize,
}

/// Whether anything that no placing of pods changes keeps a class off a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    NotAsked,
    Open,
    Closed,
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
    /// By counter: whether some class wants to be near the pods that it counts.
    attracts: Vec<bool>,
    /// By class and node; a class that was not asked about has none.
    lasting: RefCell<Vec<Vec<Lasting>>>,
    effort: &'a Effort,
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
            attracts: Vec::new(),
            lasting: RefCell::default(),
            effort,
        };
        let mut known: HashMap<_, usize> = HashMap::new();
        // Most pods that are alike share what they have in common.
        let mut shared: HashMap<_, usize> = HashMap::new();
        for (pod, moves) in moving.chain(waiting) {
            effort.spend(2)?;
            let next = packer.classes.len();
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
                    weight: lasting_weight(pod, snapshot),
                });
            }
            packer.incoming.push(Incoming { pod, class, moves });
        }
        let leaving = leaving(pods, idle, snapshot, effort)?;
        packer.count_room(&leaving, extra)?;
        packer.compile_rules(&leaving)?;
        Ok(packer)
    }

    /// What each node has left, without the pods that leave.
    fn count_room(
        &mut self,
        leaving: &HashSet<u32>,
        extra: Option<(usize, Resources)>,
    ) -> Result<(), TooMuch> {
        let effort = self.effort;
        let resource = |name: &str| Dimension::Resource(name.into());
        let mut dimensions =
            vec![resource("cpu"), resource("memory"), resource("ephemeral-storage"), resource("pods")];
        let mut extended = BTreeSet::new();
        let mut drivers = BTreeSet::new();
        for class in &self.classes {
            effort.spend(1 + 4 * class.pod.spec.claims.len() + class.pod.spec.requests.extended.len())?;
            extended.extend(class.pod.spec.requests.extended.iter().map(|(name, _)| name.clone()));
            drivers.extend(claims(self.snapshot, class.pod).filter_map(|c| c.driver.clone()));
        }
        dimensions.extend(extended.into_iter().map(Dimension::Resource));
        dimensions.extend(drivers.iter().cloned().map(Dimension::Volumes));
        self.dimensions = dimensions;
        let width = self.dimensions.len();
        effort.spend(self.nodes.len().saturating_mul(KEPT * width))?;
        for class in 0..self.classes.len() {
            effort.spend(4 * (self.dimensions.len() + self.classes[class].pod.spec.claims.len()))?;
            self.classes[class].need = self.needs(self.classes[class].pod);
        }

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
                    effort.spend(1)?;
                    let pod = &*self.snapshot.pods()[*index as usize];
                    if pod.phase.finished() {
                        continue;
                    }
                    let claims_looked_at = if drivers.is_empty() { 0 } else { pod.spec.claims.len() };
                    effort.spend(
                        pod.spec.host_ports.len() + claims_looked_at.saturating_mul(2 + drivers.len()),
                    )?;
                    if leaving.contains(index) || pod.spec.is_placeholder(self.free_below) {
                        effort.spend(width)?;
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
        Ok(())
    }

    fn needs(&self, pod: &Pod) -> Vec<i64> {
        let asks = &pod.spec.requests;
        let mut volumes: HashMap<&Arc<str>, i64> = HashMap::new();
        for driver in claims(self.snapshot, pod).filter_map(|claim| claim.driver.as_ref()) {
            *volumes.entry(driver).or_default() += 1;
        }
        let of = |dimension: &Dimension| match dimension {
            Dimension::Resource(name) => asks.extended(name),
            Dimension::Volumes(driver) => volumes.get(driver).copied().unwrap_or(0),
        };
        let mut need = vec![asks.cpu_millis, asks.memory, asks.ephemeral_storage, 1];
        need.extend(self.dimensions.iter().skip(4).map(of));
        need
    }

    fn count_members(
        &mut self,
        counter: usize,
        counted: Counted,
        members: &[u32],
        leaving: &HashSet<u32>,
    ) -> Result<(), TooMuch> {
        self.effort.spend(members.len())?;
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
            if pod.terminating() && counted == Counted::Spread {
                continue;
            }
            counter.total += 1;
            // A placeholder gives way on its own node. What it forbids in a whole zone it may go on to forbid.
            let gives_way = pod.spec.is_placeholder(self.free_below);
            if gives_way && (*per_node || counted == Counted::Near) {
                continue;
            }
            if !(pod.terminating() && counted == Counted::Near) {
                counter.counts[domain[node] as usize] += 1;
            }
        }
        Ok(())
    }

    fn topology(&mut self, key: &Arc<str>) -> Result<usize, TooMuch> {
        // With many keys, it is the nodes that cost more.
        self.effort.spend(1 + self.topologies.len() / 8)?;
        if let Some(known) = self.topologies.iter().position(|t| t.key == *key) {
            return Ok(known);
        }
        self.effort.spend(2 * self.nodes.len())?;
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
        Ok(self.topologies.len() - 1)
    }

    fn counter(&mut self, topology: usize, eligible: Option<Vec<bool>>) -> Result<usize, TooMuch> {
        let looked_at = eligible.as_ref().map_or(0, Vec::len);
        self.effort.spend(KEPT * (1 + self.topologies[topology].domains) + 2 * looked_at)?;
        let counts = vec![0; self.topologies[topology].domains];
        let domain = self.topologies[topology].domain.iter();
        let domains: BTreeSet<u32> =
            domain.zip(eligible.iter().flatten()).filter(|(_, e)| **e).map(|(d, _)| *d).collect();
        let domains = domains.into_iter().collect();
        self.counters.push(Counter { topology, counts, total: 0, eligible, domains, least: 0, at_least: 0 });
        Ok(self.counters.len() - 1)
    }

    /// Where the pods of each class can go at the start, and whether that settles the matter.
    pub(super) fn find_candidates(&mut self) -> Result<(), TooMuch> {
        // Waiting pods that fit nowhere take no room.
        let mut useless: HashSet<usize> = HashSet::new();
        for c in (0..self.classes.len()).filter(|c| !self.classes[*c].moves) {
            if !self.fits_somewhere(c)? {
                useless.insert(c);
            }
        }
        self.incoming.retain(|i| !useless.contains(&i.class));
        for c in (0..self.classes.len()).filter(|c| !useless.contains(c)) {
            self.find_candidates_of(c)?;
        }
        // Whoever could take a node that is in question must be able to do so in a packing.
        let mut in_question: BTreeSet<u32> = BTreeSet::new();
        for class in self.classes.iter().filter(|c| c.moves && !c.certified) {
            self.effort.spend(class.candidates.len())?;
            in_question.extend(&class.candidates);
        }
        for c in (0..self.classes.len()).filter(|c| !useless.contains(c)) {
            self.effort.spend(self.classes[c].candidates.len() + in_question.len())?;
            let known: HashSet<u32> = self.classes[c].candidates.iter().copied().collect();
            let mut more = Vec::new();
            for n in in_question.iter().copied().filter(|n| !known.contains(n)) {
                if self.can_use(c, n, Rules::Lasting)? {
                    more.push(n);
                }
            }
            self.classes[c].candidates.extend(more);
        }
        Ok(())
    }

    fn fits_somewhere(&self, class: usize) -> Result<bool, TooMuch> {
        for n in 0..index32(self.nodes.len()) {
            if self.can_use(class, n, Rules::Lasting)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find_candidates_of(&mut self, c: usize) -> Result<(), TooMuch> {
        let enough = self.incoming.len();
        let class = &self.classes[c];
        self.effort.spend(class.near.len() + class.apart.len() + class.raises.len())?;
        let per_node = |counter: &usize| self.topologies[self.counters[*counter].topology].per_node;
        let certifiable =
            class.spread.is_empty() && class.near.is_empty() && class.apart.iter().all(per_node);
        // Per combination of shared domains as many nodes as there are pods: the others can spoil all
        // but one of them. With spread over single nodes, the emptiest first.
        let spread_over_nodes = class.spread.iter().find(|s| per_node(&s.counter)).map(|s| s.counter);
        // Where its pods go matters to the pods that they attract or repel, too.
        let near_on_node = class.near.iter().chain(&class.raises).any(|c| per_node(c) && self.attracts[*c]);
        let rules = class.spread.iter().map(|s| s.counter);
        let rules = rules.chain(class.near.iter().chain(&class.apart).chain(&class.raises).copied());
        let shared: BTreeSet<usize> = rules
            .filter(|counter| !per_node(counter))
            .map(|counter| self.counters[counter].topology)
            .collect();
        let mut order: Vec<u32> = (0..index32(self.nodes.len())).collect();
        self.effort.spend(order.len() / 4)?;
        if let Some(counter) = spread_over_nodes {
            let counter = &self.counters[counter];
            let domain = &self.topologies[counter.topology].domain;
            self.effort.spend(2 * order.len())?;
            order.sort_by_key(|n| counter.counts.get(domain[*n as usize] as usize).copied());
        }
        let mut seen: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        let mut candidates = Vec::new();
        for n in order {
            self.effort.spend(1 + shared.len())?;
            let places = shared.iter().map(|t| self.topologies[*t].domain[n as usize]).collect();
            let count = seen.entry(places).or_default();
            if (*count >= enough && !near_on_node) || !self.can_use(c, n, Rules::Lasting)? {
                continue;
            }
            *count += 1;
            candidates.push(n);
            let all_alike = shared.is_empty() && spread_over_nodes.is_none() && !near_on_node;
            if all_alike && candidates.len() >= enough {
                break;
            }
        }
        let class = &mut self.classes[c];
        class.certified = certifiable && candidates.len() >= enough;
        class.candidates = candidates;
        Ok(())
    }

    pub(super) fn packings(
        &self,
        certain: bool,
        options: &PlacementOptions,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<Packing>, TooMuch> {
        self.effort.spend(8 * self.incoming.len())?;
        let size = |i: &usize| self.size(self.incoming[*i].class);
        let waiting: Vec<usize> = (0..self.incoming.len()).filter(|i| !self.incoming[*i].moves).collect();
        let mut movers: Vec<usize> = (0..self.incoming.len()).filter(|i| self.incoming[*i].moves).collect();
        movers.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let order = |movers: &[usize]| waiting.iter().chain(movers).copied().collect::<Vec<_>>();
        let largest = order(&movers);
        let mut packings = vec![Packing::new(largest.clone(), Pick::Emptiest)];
        if certain {
            return Ok(packings);
        }
        packings.push(Packing::new(largest, Pick::Tightest));
        let more = 4 + options.adversaries.saturating_mul(2) + options.shuffles;
        self.effort.spend(KEPT * more.saturating_mul(self.incoming.len()))?;
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
        Ok(packings)
    }

    #[allow(clippy::cast_precision_loss, reason = "a score")]
    fn size(&self, class: usize) -> f64 {
        let scale = self.scale.first().copied().unwrap_or([0.0; 2]);
        let need = &self.classes[class].need;
        need[CPU] as f64 * scale[0] + need[MEMORY] as f64 * scale[1]
    }

    /// Places the pods one by one, and those that found nothing again as long as that helps. Leaves the
    /// result in `self` for [`Self::explain`], until the next packing.
    ///
    /// # Errors
    /// If it would be more work than is left for the check.
    pub(super) fn pack(
        &mut self,
        packing: &Packing,
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<Option<u32>>, TooMuch> {
        self.clear();
        let mut found = vec![None; self.incoming.len()];
        let mut left = Vec::new();
        for some in [&packing.order, &packing.last] {
            left.extend_from_slice(some);
            while self.pack_once(&mut left, &mut found, packing.pick, rng)? {}
        }
        Ok(found)
    }

    pub(super) fn clear(&mut self) {
        while let Some((class, node)) = self.placed.pop() {
            self.change(class, node, -1);
        }
    }

    /// Searches for an order and a choice of nodes that leaves pods without one. `None`: gave up before
    /// everything was tried. Otherwise the pods left over, in `self` as it is then; none if there is no way.
    ///
    /// # Errors
    /// If it would be more work than is left for the check.
    pub(super) fn search(
        &mut self,
        left: &mut Vec<usize>,
        steps: &mut usize,
    ) -> Result<Option<Vec<usize>>, TooMuch> {
        let mut stuck = true;
        let mut tried: HashSet<usize> = HashSet::new();
        for at in 0..left.len() {
            self.effort.spend(1)?;
            let class = self.incoming[left[at]].class;
            if !tried.insert(class) {
                continue;
            }
            for c in 0..self.classes[class].candidates.len() {
                let node = self.classes[class].candidates[c];
                let Some(fewer) = steps.checked_sub(1) else { return Ok(None) };
                *steps = fewer;
                self.effort.spend(self.price(class, node))?;
                if self.blocked_now(class, node).is_some() {
                    continue;
                }
                stuck = false;
                self.change(class, node, 1);
                self.placed.push((class, node));
                let pod = left.swap_remove(at);
                let found = self.search(left, steps)?;
                left.push(pod);
                let last = left.len() - 1;
                left.swap(at, last);
                if found.as_ref().is_none_or(|f| !f.is_empty()) {
                    return Ok(found);
                }
                self.placed.pop();
                self.change(class, node, -1);
            }
        }
        let movers = left.iter().copied().filter(|i| self.incoming[*i].moves);
        Ok(Some(if stuck { movers.collect() } else { Vec::new() }))
    }

    /// Gives each pod that is left one chance. Returns whether another could do something.
    fn pack_once(
        &mut self,
        left: &mut Vec<usize>,
        found: &mut [Option<u32>],
        pick: Pick,
        rng: &mut fastrand::Rng,
    ) -> Result<bool, TooMuch> {
        let before = left.len();
        for i in std::mem::take(left) {
            let class = self.incoming[i].class;
            let Some(node) = self.choose(class, pick, rng)? else {
                left.push(i);
                continue;
            };
            self.change(class, node, 1);
            self.placed.push((class, node));
            found[i] = Some(node);
        }
        // Only affinity and spread can open a node when a pod is placed.
        let hopeful = |i: &usize| {
            let class = &self.classes[self.incoming[*i].class];
            !class.near.is_empty() || !class.spread.is_empty()
        };
        Ok(left.len() < before && left.iter().any(hopeful))
    }

    fn choose(&self, class: usize, pick: Pick, rng: &mut fastrand::Rng) -> Result<Option<u32>, TooMuch> {
        let mut best: Option<(f64, u32)> = None;
        self.effort.spend(1 + self.classes[class].candidates.len())?;
        for &n in &self.classes[class].candidates {
            let score = match pick {
                Pick::Tightest => -self.left(class, n),
                Pick::Emptiest => self.left(class, n),
                Pick::Random => rng.f64(),
                Pick::Against(victim) if victim != class => {
                    self.harm(class, victim, n)? - self.left(class, n)
                }
                Pick::LooselyAgainst(victim) if victim != class => self.harm(class, victim, n)? + rng.f64(),
                Pick::Against(_) | Pick::LooselyAgainst(_) => self.left(class, n),
            };
            let better = best.is_none_or(|(top, _)| score > top);
            if better {
                self.effort.spend(self.price(class, n))?;
                if self.blocked_now(class, n).is_none() {
                    best = Some((score, n));
                }
            }
        }
        if let Some((_, n)) = best {
            return Ok(Some(n));
        }
        // The candidates are enough by construction; if they were not, the rest of the cluster is looked at.
        for n in 0..index32(self.nodes.len()) {
            if self.can_use(class, n, Rules::All)? {
                return Ok(Some(n));
            }
        }
        Ok(None)
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
    fn harm(&self, class: usize, victim: usize, node: u32) -> Result<f64, TooMuch> {
        let usable = self.can_use(victim, node, Rules::All)?;
        let width = self.dimensions.len();
        let rules = self.classes[victim].apart.len() + self.classes[victim].spread.len();
        self.effort.spend(1 + width / 8 + rules)?;
        let free = &self.free[node as usize * width..][..width];
        let (takes, wants) = (&self.classes[class].need, &self.classes[victim].need);
        let fills = || (0..width).any(|d| wants[d] > 0 && free[d].saturating_sub(takes[d]) < wants[d]);
        let closes = usable && (fills() || self.repels(class, victim, node));
        Ok(f64::from(u8::from(usable)) * 10.0 + f64::from(u8::from(closes)) * 10.0)
    }

    /// Whether a pod of `class` on this node would keep `victim` off it by anti-affinity or spread.
    fn repels(&self, class: usize, victim: usize, node: u32) -> bool {
        let (class, victim) = (&self.classes[class], &self.classes[victim]);
        let raises = |counter: &usize| class.raises.binary_search(counter).is_ok();
        let uneven = |spread: &Spread| {
            let counter = &self.counters[spread.counter];
            let domain = self.topologies[counter.topology].domain[node as usize];
            let here = counter.counts.get(domain as usize).copied().unwrap_or(0);
            raises(&spread.counter) && here + 1 + spread.own - counter.least > spread.max_skew
        };
        victim.apart.iter().any(raises) || victim.spread.iter().any(uneven)
    }

    pub(super) fn change(&mut self, class: usize, node: u32, by: i64) {
        let width = self.dimensions.len();
        let class = &self.classes[class];
        // If that was too much, whatever comes next says so.
        let _ = self.effort.spend(width / 8 + class.raises.len());
        let free = &mut self.free[node as usize * width..][..width];
        for (free, need) in free.iter_mut().zip(&class.need) {
            *free = free.saturating_sub(by * need);
        }
        for counter in &class.raises {
            let counter = &mut self.counters[*counter];
            let domain = self.topologies[counter.topology].domain[node as usize];
            let counted = counter.eligible.as_ref().is_none_or(|e| e[node as usize]);
            if domain != NO_DOMAIN && counted && counter.change(domain, by) {
                let _ = self.effort.spend(counter.domains.len() / 4);
            }
        }
    }

    /// Whether nothing keeps a pod off a node.
    fn can_use(&self, class: usize, node: u32, rules: Rules) -> Result<bool, TooMuch> {
        self.effort.spend(self.price(class, node))?;
        if !self.stays_open(class, node)? {
            return Ok(false);
        }
        let obstacle = match rules {
            Rules::All => self.blocked_now(class, node),
            Rules::Lasting => self.full(class, node).or_else(|| self.too_near(class, node)),
        };
        Ok(obstacle.is_none())
    }

    /// What it costs to see whether what is there now keeps a pod off a node.
    fn price(&self, class: usize, node: u32) -> usize {
        let class = &self.classes[class];
        let rules = class.spread.len() + class.near.len() + class.apart.len();
        let ports = match class.pod.spec.host_ports.len() {
            0 => 0,
            own => {
                let placed = self.placed.iter().filter(|(_, n)| *n == node);
                let placed = placed.map(|(c, _)| self.classes[*c].pod.spec.host_ports.len());
                let there = self.ports.get(&node).map_or(0, Vec::len) + placed.sum::<usize>();
                self.placed.len() / 4 + own.saturating_mul(there)
            }
        };
        1 + self.dimensions.len() / 4 + rules + ports
    }

    /// Whether nothing keeps a pod off a node that no placing of pods changes; found out once.
    fn stays_open(&self, class: usize, node: u32) -> Result<bool, TooMuch> {
        let mut lasting = self.lasting.borrow_mut();
        if lasting.len() <= class {
            lasting.resize(self.classes.len(), Vec::new());
        }
        let known = &mut lasting[class];
        if known.is_empty() {
            self.effort.spend(self.nodes.len() / 4)?;
            known.resize(self.nodes.len(), Lasting::NotAsked);
        }
        let known = &mut known[node as usize];
        if *known == Lasting::NotAsked {
            let tolerations = self.classes[class].pod.spec.tolerations.len();
            let taints = self.nodes[node as usize].taints.len();
            self.effort.spend(self.classes[class].weight + tolerations.saturating_mul(taints))?;
            *known = if self.never(class, node).is_none() { Lasting::Open } else { Lasting::Closed };
        }
        Ok(*known == Lasting::Open)
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

    /// Why each of these pods finds no node now.
    ///
    /// # Errors
    /// If it would be more work than is left for the check.
    pub(super) fn explain(&self, missing: &[usize]) -> Result<Vec<Unplaced>, TooMuch> {
        let mut known: HashMap<usize, Reasons> = HashMap::new();
        let mut unplaced = Vec::new();
        for incoming in missing {
            let Incoming { pod, class, .. } = self.incoming[*incoming];
            let reasons = match known.entry(class) {
                Entry::Occupied(held) => held.into_mut(),
                Entry::Vacant(free) => free.insert(self.reasons(class)?),
            };
            let reasons = reasons.clone();
            self.effort.spend(4 * KEPT * reasons.0.len())?;
            unplaced.push(Unplaced { pod: pod.into(), reasons });
        }
        Ok(unplaced)
    }

    fn reasons(&self, class: usize) -> Result<Reasons, TooMuch> {
        let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
        let tolerations = self.classes[class].pod.spec.tolerations.len();
        for n in 0..index32(self.nodes.len()) {
            let taints = self.nodes[n as usize].taints.len();
            let lasting = self.classes[class].weight + tolerations.saturating_mul(taints);
            self.effort.spend(4 + self.price(class, n) + lasting)?;
            if let Some(reason) = self.obstacle(class, n, Rules::All) {
                *counts.entry(reason).or_default() += 1;
            }
        }
        let counts = counts.into_iter().map(|(reason, nodes)| ReasonCount { reason, nodes });
        let mut reasons: Vec<ReasonCount> = counts.collect();
        reasons.sort_by_key(|count| std::cmp::Reverse(count.nodes));
        Ok(Reasons(reasons))
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

/// The pods that leave, as indexes into those of the snapshot.
fn leaving(
    pods: &[&Pod],
    idle: &[&Pod],
    snapshot: &Snapshot,
    effort: &Effort,
) -> Result<HashSet<u32>, TooMuch> {
    let uids: HashSet<&str> = pods.iter().chain(idle).map(|pod| &*pod.uid).collect();
    let names: BTreeSet<&str> = pods.iter().chain(idle).filter_map(|pod| pod.node.as_deref()).collect();
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
    1 + pod.spec.node_weight() + 4 * pod.spec.claims.len() + volumes
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
