//! Whether the pods of a node fit on the cluster with its replacement counted; in a large cluster that is found
//! out beside the mailbox.

use crate::actors::heavy::{INLINE_PODS, off_thread};
use crate::core::cluster::{Pod, Snapshot};
use crate::core::drain;
use crate::core::placement::{self, ExcludedNodes, PlacementOptions};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer holds in a large cluster.
const HOLDS: Duration = Duration::from_secs(2);

/// The old node and the new one.
type Pair = (String, String);

/// The answers so far, and the questions that are open.
#[derive(Default)]
pub(super) struct Fits {
    known: BTreeMap<Pair, (Instant, Vec<String>)>,
    asked: RefCell<BTreeMap<Pair, PlacementOptions>>,
    under_way: bool,
}

/// Answers found beside the mailbox.
pub(super) struct Found(Vec<(Pair, Vec<String>)>);

impl Fits {
    /// What keeps the pods of `old` from fitting on the cluster with `new` counted and `old` not.
    pub(super) fn misfit(
        &self,
        old: &str,
        new: &str,
        snapshot: &Snapshot,
        options: PlacementOptions,
    ) -> Vec<String> {
        if snapshot.pods().len() <= INLINE_PODS {
            return misfit(old, new, snapshot, &options);
        }
        let pair = (old.to_owned(), new.to_owned());
        match self.known.get(&pair) {
            Some((at, answer)) if at.elapsed() < HOLDS => answer.clone(),
            _ => {
                self.asked.borrow_mut().insert(pair, options);
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
            let answer = |(pair, options): (Pair, PlacementOptions)| {
                let answer = misfit(&pair.0, &pair.1, &snapshot, &options);
                (pair, answer)
            };
            Found(pairs.into_iter().map(answer).collect())
        }))
    }

    /// Takes in what was found.
    pub(super) fn learn(&mut self, found: Found) {
        self.under_way = false;
        self.known.retain(|_, (at, _)| at.elapsed() < HOLDS);
        let now = Instant::now();
        self.known.extend(found.0.into_iter().map(|(pair, answer)| (pair, (now, answer))));
    }
}

fn misfit(old: &str, new: &str, snapshot: &Snapshot, options: &PlacementOptions) -> Vec<String> {
    let Some(new_node) = snapshot.node(new) else { return vec![format!("node {new} is not there")] };
    let pods: Vec<&Pod> = snapshot.pods_on(old).filter(|pod| drain::must_move(pod)).collect();
    let excluded = ExcludedNodes::default().and(old);
    let placement = placement::can_take(&pods, new_node, snapshot, &excluded, options);
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

    async fn answer(fits: &mut Fits, snapshot: &Arc<Snapshot>) -> Vec<String> {
        let waiting = fits.misfit("old", "new", snapshot, PlacementOptions::default());
        assert_eq!(waiting, ["whether the pods of old fit is being checked"]);
        let work = fits.open(snapshot).expect("a question is open");
        assert!(fits.open(snapshot).is_none(), "one piece of work at a time");
        let found = work.await;
        fits.learn(found);
        fits.misfit("old", "new", snapshot, PlacementOptions::default())
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
        let answer = |new| Fits::default().misfit("old", new, &snapshot, PlacementOptions::default());
        assert!(answer("new").is_empty());
        assert_eq!(answer("none"), ["node none is not there"]);
    }
}
