//! What keeps a pod off a node, by the rules of the scheduler's filters.

use super::packer::{Class, Dimension, Lasting, PODS, Packer};
use crate::cluster::{ClaimRef, KNOWN_FEATURES, Node, PodSpec, VolumeReach};
use crate::effort::TooMuch;
use crate::reason::NodeReason;
use std::sync::Arc;

/// Which rules are asked.
#[derive(Clone, Copy)]
pub(super) enum Rules {
    All,
    /// Those that placing more pods never lifts: all but affinity and spread.
    Lasting,
}

impl Packer<'_> {
    /// Whether nothing keeps a pod off a node.
    pub(super) fn can_use(&self, class: usize, node: u32, rules: Rules) -> Result<bool, TooMuch> {
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
    pub(super) fn price(&self, class: usize, node: u32) -> usize {
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
    pub(super) fn obstacle(&self, class: usize, node: u32, rules: Rules) -> Option<NodeReason> {
        self.never(class, node).or_else(|| match rules {
            Rules::All => self.blocked_now(class, node),
            Rules::Lasting => self.full(class, node).or_else(|| self.too_near(class, node)),
        })
    }

    /// What no placing of pods changes: nodeunschedulable, tainttoleration, nodeaffinity,
    /// nodedeclaredfeatures, volumebinding, volumezone.
    fn never(&self, class: usize, node: u32) -> Option<NodeReason> {
        if let Some(reason) = &self.out[node as usize] {
            return Some(reason.clone());
        }
        let class = &self.classes[class];
        let spec = &*class.pod.spec;
        let node = self.nodes[node as usize];
        if !class.ruled {
            return None;
        }
        if class.moves
            && let Some(reason) = not_checked(spec, node).or_else(|| self.lost_feature(class, node))
        {
            return Some(reason);
        }
        if let Some(taint) = spec.untolerated(node) {
            return Some(NodeReason::Taint(taint.to_string()));
        }
        if !spec.selects(node) {
            return Some(NodeReason::NodeAffinity);
        }
        spec.claims.iter().find_map(|claim| self.out_of_reach(class, claim, node))
    }

    /// A feature that the pod's own node declares and the other does not, if nobody here knows who needs it
    /// (KEP-5328).
    fn lost_feature(&self, class: &Class<'_>, node: &Node) -> Option<NodeReason> {
        let own = class.pod.node.as_ref().and_then(|name| self.snapshot.node(name))?;
        let is_lost = |feature: &&Arc<str>| {
            !KNOWN_FEATURES.contains(&&***feature) && node.features.binary_search(feature).is_err()
        };
        own.features.iter().find(is_lost).map(|feature| NodeReason::Feature(feature.to_string()))
    }

    /// Why a pod cannot have its volume on a node: volumebinding, volumezone, volumerestrictions, and of
    /// nodevolumelimits that the driver may be missing.
    fn out_of_reach(&self, class: &Class<'_>, claim: &ClaimRef, node: &Node) -> Option<NodeReason> {
        let storage = self.snapshot.storage();
        let known = self.snapshot.claim(&class.pod.namespace, &claim.name);
        if class.moves
            && let Some(driver) = known.and_then(|known| known.driver.as_ref())
            && storage.must_be_installed(driver)
            && !node.volume_limits.iter().any(|(installed, _)| installed == driver)
        {
            return Some(NodeReason::DriverMissing(driver.to_string()));
        }
        let unclear = match known {
            // It is made anew.
            Some(known) if claim.ephemeral => !storage.follows_pod(&known.class),
            Some(known) => match &known.reach {
                VolumeReach::Nodes(terms) if !terms.iter().any(|t| t.matches(node)) => {
                    return Some(NodeReason::Volume(claim.name.to_string()));
                }
                VolumeReach::Anywhere | VolumeReach::Nodes(_) => {
                    (known.one_pod || known.one_node) && self.is_shared(class, claim)
                }
                VolumeReach::Unknown => true,
            },
            None => true,
        };
        // A pod that waits may get its volume anywhere: the cautious view is that it takes room.
        (unclear && class.moves).then(|| NodeReason::VolumeUnknown(claim.name.to_string()))
    }

    /// Whether another pod to place, which may be the first, names the claim of a class, too.
    fn is_shared(&self, class: &Class<'_>, claim: &ClaimRef) -> bool {
        self.claimed.get(&(&*class.pod.namespace, &*claim.name)).is_some_and(|pods| *pods > 1)
    }

    pub(super) fn blocked_now(&self, class: usize, node: u32) -> Option<NodeReason> {
        self.full(class, node)
            .or_else(|| self.uneven(class, node))
            .or_else(|| self.too_far(class, node))
            .or_else(|| self.too_near(class, node))
    }

    /// noderesources/fit.go, nodeports/node_ports.go, nodevolumelimits/csi.go.
    fn full(&self, class: usize, node: u32) -> Option<NodeReason> {
        let width = self.dimensions.len();
        let free = &self.free[node as usize * width..][..width];
        let class = &self.classes[class];
        if let Some(d) = (0..width).find(|d| class.need[*d] > 0 && class.need[*d] > free[*d]) {
            return Some(match &self.dimensions[d] {
                Dimension::Resource(_) if d == PODS => NodeReason::TooManyPods,
                Dimension::Resource(name) => NodeReason::Insufficient(name.to_string()),
                Dimension::Volumes(driver) => NodeReason::VolumeLimit(driver.to_string()),
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
        conflict.map(|p| NodeReason::HostPort(p.port))
    }

    fn uneven(&self, class: usize, node: u32) -> Option<NodeReason> {
        for spread in &self.classes[class].spread {
            let counter = &self.counters[spread.counter];
            let topology = &self.topologies[counter.topology];
            let domain = topology.domain[node as usize];
            let few = i64::try_from(counter.domains.len()).is_ok_and(|d| d < spread.min_domains);
            let least = if few { 0 } else { counter.least };
            let here = counter.counts.get(domain as usize);
            if here.is_none_or(|here| here + spread.own - least > spread.max_skew) {
                return Some(NodeReason::TopologySpread(topology.key.to_string()));
            }
        }
        None
    }

    fn too_far(&self, class: usize, node: u32) -> Option<NodeReason> {
        let class = &self.classes[class];
        if class.near.is_empty() {
            return None;
        }
        let mut all_there = true;
        for counter in class.near.iter().map(|c| &self.counters[*c]) {
            let domain = self.topologies[counter.topology].domain[node as usize];
            match counter.counts.get(domain as usize) {
                None => return Some(NodeReason::PodAffinity),
                Some(count) => all_there &= *count > 0,
            }
        }
        let first = class.near_itself && class.near.iter().all(|c| self.counters[*c].total == 0);
        (!all_there && !first).then_some(NodeReason::PodAffinity)
    }

    fn too_near(&self, class: usize, node: u32) -> Option<NodeReason> {
        let taken = self.classes[class].apart.iter().map(|c| &self.counters[*c]).any(|counter| {
            let domain = self.topologies[counter.topology].domain[node as usize];
            counter.counts.get(domain as usize).is_some_and(|count| *count > 0)
        });
        taken.then_some(NodeReason::PodAntiAffinity)
    }
}

/// Why a pod that moves is not said to fit on a node, whatever its rules are.
fn not_checked(spec: &PodSpec, node: &Node) -> Option<NodeReason> {
    if let Some(scheduler) = &spec.scheduler {
        return Some(NodeReason::OtherScheduler(scheduler.to_string()));
    }
    if let Some(field) = spec.not_understood.as_ref().or(node.not_understood.as_ref()) {
        return Some(NodeReason::NotUnderstood(field.to_string()));
    }
    let missing = spec.required_features.iter().find(|feature| node.features.binary_search(feature).is_err());
    missing.map(|feature| NodeReason::Feature(feature.to_string()))
}
