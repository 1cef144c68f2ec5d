//! One packing after another: large and small pods first, spread and packed, shuffled, and against the pods
//! in question.

use super::obstacles::Rules;
use super::options::PlacementOptions;
use super::packer::{CPU, KEPT, MEMORY, NO_DOMAIN, Packer, Spread};
use crate::cluster::index32;
use crate::effort::TooMuch;

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

/// An order of the pods, and how they pick their nodes.
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

impl Packer<'_> {
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

    /// Places a pod on a node (`by` is 1), or takes it away (-1).
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
}
