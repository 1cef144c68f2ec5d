//! Why pods find no node, and where they were placed.

use super::obstacles::Rules;
use super::packer::{Incoming, KEPT, Packer};
use crate::cluster::index32;
use crate::effort::TooMuch;
use crate::ids::NodeName;
use crate::reason::{NodeReason, PodName, ReasonCount, Reasons, Unplaced};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

impl Packer<'_> {
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
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(free) => free.insert(self.reasons(class)?),
            };
            let reasons = reasons.clone();
            self.effort.spend(4 * KEPT * reasons.0.len())?;
            unplaced.push(Unplaced { pod: pod.into(), reasons });
        }
        Ok(unplaced)
    }

    fn reasons(&self, class: usize) -> Result<Reasons, TooMuch> {
        let mut counts: BTreeMap<NodeReason, usize> = BTreeMap::new();
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

    pub(super) fn named(&self, placed: &[Option<u32>]) -> Vec<(PodName, NodeName)> {
        let movers = self.incoming.iter().zip(placed).filter(|(i, _)| i.moves);
        movers.filter_map(|(i, n)| Some((i.pod.into(), self.nodes[(*n)? as usize].name.clone()))).collect()
    }
}
