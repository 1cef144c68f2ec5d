//! Counters of pods by domain, for affinity, anti-affinity and topology spread.

use super::packer::{Counter, KEPT, NO_DOMAIN, Packer, Topology};
use crate::cluster::index32;
use crate::effort::TooMuch;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// What pods a counter counts decides which of them count in special cases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// For topology spread.
    Spread,
    /// For affinity.
    Near,
    /// For anti-affinity, of either side.
    Apart,
}

impl Packer<'_> {
    pub(super) fn count_members(
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
            let Some(node) = pod.node.as_ref().and_then(|name| self.snapshot.node_index(name)) else {
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
            // A placeholder gives way on its own node. What it forbids in a whole zone it may go on to
            // forbid.
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

    pub(super) fn topology(&mut self, key: &Arc<str>) -> Result<usize, TooMuch> {
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

    pub(super) fn counter(&mut self, topology: usize, eligible: Option<Vec<bool>>) -> Result<usize, TooMuch> {
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
}
