//! The search through all orders and choices, as far as its steps reach.

use super::packer::Packer;
use crate::effort::TooMuch;
use std::collections::HashSet;

impl Packer<'_> {
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
}
