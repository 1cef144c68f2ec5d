//! Whether the pods of a node fit on the cluster with its replacement counted; in a large cluster that is found
//! out beside the mailbox.

use crate::actors::heavy::{INLINE_PODS, off_thread};
use crate::core::cluster::{Pod, Snapshot};
use crate::core::drain;
use crate::core::placement::{self, ExcludedNodes, PlacementOptions};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer holds in a large cluster.
const HOLDS: Duration = Duration::from_secs(2);

/// The old node and the new one.
type Pair = (String, String);

/// What else an answer depends on.
#[derive(Clone, PartialEq)]
pub(super) struct Around {
    /// The other nodes that are being drained: their pods take room, too.
    pub(super) others: BTreeSet<String>,
    pub(super) options: PlacementOptions,
}

/// The answers so far, and the questions that are open.
#[derive(Default)]
pub(super) struct Fits {
    known: BTreeMap<Pair, (Instant, Around, Vec<String>)>,
    asked: RefCell<BTreeMap<Pair, Around>>,
    under_way: bool,
}

/// Answers found beside the mailbox.
pub(super) struct Found(Vec<(Pair, Around, Vec<String>)>);

impl Fits {
    /// What keeps the pods of `old` from fitting on the cluster with `new` counted and `old` not.
    pub(super) fn misfit(&self, old: &str, new: &str, snapshot: &Snapshot, around: &Around) -> Vec<String> {
        if snapshot.pods().len() <= INLINE_PODS {
            return misfit(old, new, snapshot, around);
        }
        let pair = (old.to_owned(), new.to_owned());
        match self.known.get(&pair) {
            Some((at, then, answer)) if at.elapsed() < HOLDS && then == around => answer.clone(),
            _ => {
                self.asked.borrow_mut().insert(pair, around.clone());
                vec![format!("whether the pods of {old} fit is being checked")]
            }
        }
    }

    /// The work on the open questions; none if there are none, or while it is under way.
    pub(super) fn open(&mut self, snapshot: &Arc<Snapshot>) -> Option<impl Future<Output = Found> + use<>> {
        if self.under_way || self.asked.borrow().is_empty() {
            return None;
        }
        self.under_way = true;
        let pairs = self.asked.take();
        let snapshot = snapshot.clone();
        Some(off_thread(snapshot.pods().len(), move || {
            let answer = |(pair, around): (Pair, Around)| {
                let answer = misfit(&pair.0, &pair.1, &snapshot, &around);
                (pair, around, answer)
            };
            Found(pairs.into_iter().map(answer).collect())
        }))
    }

    /// Takes in what was found.
    pub(super) fn learn(&mut self, found: Found) {
        self.under_way = false;
        self.known.retain(|_, (at, ..)| at.elapsed() < HOLDS);
        let now = Instant::now();
        self.known.extend(found.0.into_iter().map(|(pair, around, answer)| (pair, (now, around, answer))));
    }
}

fn misfit(old: &str, new: &str, snapshot: &Snapshot, around: &Around) -> Vec<String> {
    let Some(new_node) = snapshot.node(new) else { return vec![format!("node {new} is not there")] };
    let mut excluded = ExcludedNodes::default().and(old);
    let mut pods: Vec<&Pod> = snapshot.pods_on(old).collect();
    for node in &around.others {
        excluded = excluded.and(node);
        pods.extend(snapshot.pods_on(node).filter(|pod| drain::must_move(pod)));
    }
    let placement = placement::can_take(&pods, new_node, snapshot, &excluded, &around.options);
    placement
        .unplaced
        .iter()
        .map(|unplaced| format!("pod {} fits nowhere yet: {}", unplaced.pod, unplaced.reasons))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{cluster, node, pod};

    fn large(cpu: i64) -> Arc<Snapshot> {
        let nodes = (0..300).map(|i| node(&format!("n{i}"))).chain([node("old"), node("new")]).collect();
        let mut pods: Vec<Pod> =
            (0..3000).map(|i| pod(&format!("p-{i}"), &format!("n{}", i % 300), 390)).collect();
        pods.push(pod("web-1", "old", cpu));
        Arc::new(cluster(nodes, pods))
    }

    fn alone() -> Around {
        Around { others: BTreeSet::new(), options: PlacementOptions::default() }
    }

    async fn answer(fits: &mut Fits, snapshot: &Arc<Snapshot>) -> Vec<String> {
        let waiting = fits.misfit("old", "new", snapshot, &alone());
        assert_eq!(waiting, ["whether the pods of old fit is being checked"]);
        let work = fits.open(snapshot).expect("a question is open");
        assert!(fits.open(snapshot).is_none(), "one piece of work at a time");
        let found = work.await;
        fits.learn(found);
        fits.misfit("old", "new", snapshot, &alone())
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_large_cluster_the_answer_comes_later_and_holds_for_a_while() {
        let mut fits = Fits::default();
        let roomy = large(3900);
        assert!(answer(&mut fits, &roomy).await.is_empty());
        assert!(fits.open(&roomy).is_none());
        tokio::time::advance(HOLDS).await;
        let small = large(4100);
        assert!(answer(&mut fits, &small).await[0].contains("pod default/web-1 fits nowhere yet"));
    }

    #[test]
    fn in_a_small_cluster_it_comes_at_once() {
        let snapshot = cluster(vec![node("old"), node("new")], vec![pod("web-1", "old", 1)]);
        let answer = |new| Fits::default().misfit("old", new, &snapshot, &alone());
        assert!(answer("new").is_empty());
        assert_eq!(answer("none"), ["node none is not there"]);
    }
}
