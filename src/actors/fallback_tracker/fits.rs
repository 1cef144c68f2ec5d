//! Whether the pods of a node fit on the cluster with its replacement counted: found out beside the mailbox.

use crate::actors::heavy::{Heavy, NoPlace};
use crate::telemetry::metrics::{BoundedCheck, Metrics, Spent};
use spot_guard_core::cluster::{Pod, Snapshot};
use spot_guard_core::drain;
use spot_guard_core::ids::NodeName;
use spot_guard_core::placement::{self, ExcludedNodes, PlacementOptions, Unplaced};
use spot_guard_core::reason::Reason;
use spot_guard_core::replacement::Fit;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(2);
/// How long it is reported that pods did not fit while nothing newer is known.
const REPORTED: Duration = Duration::from_secs(60);
/// So many questions are one piece of work: an answer is to be of a cluster a few seconds old at the most.
const BATCH: usize = 4;

/// The old node and the new one.
type Pair = (NodeName, NodeName);

/// What else an answer depends on.
#[derive(Clone, PartialEq)]
pub(super) struct Around {
    /// The other nodes that are being drained: their pods take room, too.
    pub(super) others: BTreeSet<NodeName>,
    /// The idle nodes that go back once the new one is taken: no pod may count on them.
    pub(super) spare: BTreeSet<NodeName>,
    pub(super) options: PlacementOptions,
}

/// A question that is open.
pub(super) type FitQuestion = (Pair, Around);

/// The answers so far, and the questions that are open.
pub(super) struct Fits {
    heavy: Heavy,
    metrics: Arc<Metrics>,
    known: BTreeMap<Pair, (Instant, Around, Vec<Reason>)>,
    open: BTreeMap<Pair, Around>,
    under_way: bool,
}

/// Answers found beside the mailbox.
pub(super) struct Found(Vec<(Pair, Around, Vec<Reason>)>);

impl Fits {
    /// Nothing is known yet.
    pub(super) fn new(heavy: Heavy, metrics: Arc<Metrics>) -> Self {
        Self { heavy, metrics, known: BTreeMap::new(), open: BTreeMap::new(), under_way: false }
    }

    /// Whether the pods of `old` fit on the cluster with `new` counted and `old` not, as far as is known.
    pub(super) fn fit(&self, old: &NodeName, new: &NodeName, snapshot: &Snapshot, around: &Around) -> Fit {
        if matches!(self.heavy, Heavy::Inline) {
            let answer = misfit(old, new, snapshot, around);
            self.count(std::iter::once(&answer));
            return as_fit(answer);
        }
        let pair = (old.clone(), new.clone());
        match self.known.get(&pair) {
            // What is reported is not to change with every look.
            Some((.., answer)) if !answer.is_empty() || self.is_fresh(&pair, around) => {
                as_fit(answer.clone())
            }
            _ => Fit::Unknown,
        }
    }

    /// Whether the answer still holds.
    fn is_fresh(&self, pair: &Pair, around: &Around) -> bool {
        self.known.get(pair).is_some_and(|(at, then, _)| at.elapsed() < HOLDS && then == around)
    }

    /// Asks what is not known, or not any more.
    pub(super) fn ask(&mut self, questions: Vec<FitQuestion>) {
        if matches!(self.heavy, Heavy::Inline) {
            return;
        }
        let open = questions.into_iter().filter(|(pair, around)| !self.is_fresh(pair, around));
        self.open = open.collect();
    }

    /// The work on the open questions; none if there are none, or while it is under way.
    pub(super) fn open(
        &mut self,
        snapshot: &Arc<Snapshot>,
    ) -> Option<impl Future<Output = Result<Found, NoPlace>> + use<>> {
        if self.under_way || self.open.is_empty() {
            return None;
        }
        self.under_way = true;
        let mut pairs: Vec<FitQuestion> = std::mem::take(&mut self.open).into_iter().collect();
        // Each has its turn; what is left is asked again.
        pairs.sort_by_key(|(pair, _)| self.known.get(pair).map(|(at, ..)| *at));
        pairs.truncate(BATCH);
        let (heavy, snapshot) = (self.heavy.clone(), snapshot.clone());
        Some(async move {
            let answer = move |(pair, around): (Pair, Around)| {
                let answer = misfit(&pair.0, &pair.1, &snapshot, &around);
                (pair, around, answer)
            };
            heavy.run(move || Found(pairs.into_iter().map(answer).collect())).await
        })
    }

    /// Takes in what was found; nothing if there was no place to look.
    pub(super) fn learn(&mut self, found: Result<Found, NoPlace>) {
        self.under_way = false;
        self.known.retain(|_, (at, ..)| at.elapsed() < REPORTED);
        let now = Instant::now();
        let Ok(Found(found)) = found else {
            self.metrics.checks_given_up(BoundedCheck::Replacement, Spent::Time, 1);
            return;
        };
        self.count(found.iter().map(|(.., answer)| answer));
        self.known.extend(found.into_iter().map(|(pair, around, answer)| (pair, (now, around, answer))));
    }

    /// Counts the checks that were given up.
    fn count<'r>(&self, answers: impl Iterator<Item = &'r Vec<Reason>>) {
        let given_up = |answer: &&Vec<Reason>| matches!(answer[..], [Reason::CheckTooLarge { .. }]);
        self.metrics.checks_given_up(
            BoundedCheck::Replacement,
            Spent::Work,
            answers.filter(given_up).count(),
        );
    }
}

fn as_fit(misfit: Vec<Reason>) -> Fit {
    if misfit.is_empty() { Fit::Fits } else { Fit::Misfits(misfit) }
}

fn misfit(old: &NodeName, new: &NodeName, snapshot: &Snapshot, around: &Around) -> Vec<Reason> {
    let Some(new_node) = snapshot.node(new) else {
        return vec![Reason::NodeMissing { node: new.clone() }];
    };
    let mut excluded: ExcludedNodes = around.spare.iter().chain([old]).collect();
    let mut pods: Vec<&Pod> = snapshot.pods_on(old).collect();
    for node in &around.others {
        excluded = excluded.and(node);
        pods.extend(snapshot.pods_on(node).filter(|pod| drain::must_move(pod)));
    }
    let placement = placement::can_take(&pods, new_node, snapshot, &excluded, &around.options);
    if placement.gave_up.is_some() {
        return vec![Reason::CheckTooLarge { node: old.clone() }];
    }
    let no_room = |Unplaced { pod, reasons }| Reason::NoRoomYet { pod, reasons };
    placement.unplaced.into_iter().map(no_room).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::{NodeReplacement, SpotPool};
    use crate::telemetry::readiness::Readiness;
    use spot_guard_core::testing::{cluster, node, pod};

    const NO_RECORDS: &[NodeReplacement] = &[];
    const NO_POOLS: &[SpotPool] = &[];

    fn with_a_pod(cpu: i64) -> Arc<Snapshot> {
        let nodes = vec![node("n"), node("old"), node("new")];
        Arc::new(cluster(nodes, vec![pod("there-1", "n", 4000), pod("web-1", "old", cpu)]))
    }

    fn alone() -> Around {
        Around { others: BTreeSet::new(), spare: BTreeSet::new(), options: PlacementOptions::default() }
    }

    fn question(old: &str) -> FitQuestion {
        ((old.into(), "new".into()), alone())
    }

    /// What a turn learns, and what it asks.
    fn look(fits: &mut Fits, snapshot: &Snapshot) -> Fit {
        let fit = fits.fit(&"old".into(), &"new".into(), snapshot, &alone());
        fits.ask(vec![question("old")]);
        fit
    }

    async fn find_out(fits: &mut Fits, snapshot: &Arc<Snapshot>) {
        let work = fits.open(snapshot).expect("a question is open");
        assert!(fits.open(snapshot).is_none(), "one piece of work at a time");
        let found = work.await;
        fits.learn(found);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_comes_later_and_holds_for_a_while() {
        let mut fits = Fits::new(Heavy::threads(), Arc::default());
        let roomy = with_a_pod(3900);
        assert_eq!(look(&mut fits, &roomy), Fit::Unknown);
        find_out(&mut fits, &roomy).await;
        assert_eq!(look(&mut fits, &roomy), Fit::Fits);
        assert!(fits.open(&roomy).is_none());
        tokio::time::advance(HOLDS).await;
        let small = with_a_pod(4100);
        assert_eq!(look(&mut fits, &small), Fit::Unknown, "that they fitted once says nothing of now");
        find_out(&mut fits, &small).await;
        let no = look(&mut fits, &small);
        assert!(
            matches!(&no, Fit::Misfits(why) if matches!(&why[..], [Reason::NoRoomYet { pod, .. }] if pod.name == "web-1")),
            "{no:?}"
        );
        tokio::time::advance(HOLDS).await;
        assert_eq!(look(&mut fits, &roomy), no, "what is reported does not change with every look");
        find_out(&mut fits, &roomy).await;
        assert_eq!(look(&mut fits, &roomy), Fit::Fits);
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_have_their_turn_one_after_another() {
        let mut fits = Fits::new(Heavy::threads(), Arc::default());
        let snapshot = with_a_pod(1);
        let nodes: Vec<NodeName> = (0..10).map(|number| format!("old-{number}").into()).collect();
        let mut turns = 0;
        let mut left: BTreeSet<&NodeName> = nodes.iter().collect();
        while !left.is_empty() {
            left.retain(|old| fits.fit(old, &"new".into(), &snapshot, &alone()) != Fit::Fits);
            fits.ask(left.iter().map(|old| question(old)).collect());
            if let Some(work) = fits.open(&snapshot) {
                let found = work.await;
                fits.learn(found);
            }
            turns += 1;
            assert!(turns < 10, "{left:?}");
        }
    }

    #[test]
    fn in_a_simulation_it_comes_at_once() {
        let snapshot = cluster(vec![node("old"), node("new")], vec![pod("web-1", "old", 1)]);
        let answer = |new: &NodeName| {
            Fits::new(Heavy::Inline, Arc::default()).fit(&"old".into(), new, &snapshot, &alone())
        };
        assert_eq!(answer(&"new".into()), Fit::Fits);
        assert_eq!(answer(&"none".into()), Fit::Misfits(vec![Reason::NodeMissing { node: "none".into() }]));
    }

    #[test]
    fn what_is_too_much_to_compare_is_no_fit() {
        let snapshot = with_a_pod(1);
        let options = PlacementOptions { effort: 10, ..PlacementOptions::default() };
        let around = Around { options, ..alone() };
        let metrics = Arc::new(Metrics::new());
        let (old, new) = (NodeName::from("old"), NodeName::from("new"));
        let answer = Fits::new(Heavy::Inline, metrics.clone()).fit(&old, &new, &snapshot, &around);
        assert_eq!(answer, Fit::Misfits(vec![Reason::CheckTooLarge { node: old.clone() }]));
        let mut fits = Fits::new(Heavy::threads(), metrics.clone());
        fits.learn(Ok(Found(vec![
            (question("old").0, alone(), misfit(&old, &new, &snapshot, &around)),
            (question("other").0, alone(), misfit(&old, &new, &snapshot, &alone())),
        ])));
        fits.learn(Err(NoPlace));
        let text = metrics.encode(false, &Readiness::default(), NO_RECORDS, NO_POOLS).expect("text");
        for line in [
            r#"spot_guard_checks_given_up_total{check="Replacement",spent="Work"} 2"#,
            r#"spot_guard_checks_given_up_total{check="Replacement",spent="Time"} 1"#,
        ] {
            assert!(text.lines().any(|held| held == line), "no line {line:?} in\n{text}");
        }
    }
}
