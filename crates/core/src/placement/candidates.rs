//! Where the pods of each class can go at the start, and which classes that settles.

use super::obstacles::Rules;
use super::packer::Packer;
use crate::cluster::index32;
use crate::effort::TooMuch;
use std::collections::{BTreeMap, BTreeSet, HashSet};

impl Packer<'_> {
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
}
