//! Refused notices go at once: a node that floods the cluster with them costs it little, and a name that was
//! taken is free for who has a right to it.

use crate::actors::deps::Deps;
use crate::clock::jittered;
use crate::crd::InterruptionNotice;
use crate::kube::problem::RequestProblem;
use crate::kube::view::View;
use crate::telemetry::events::{self, Told};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::notices::NoticeRefusal;
use spot_guard_core::policy::backoff;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many are removed at a time.
const BATCH: usize = 400;
/// After a batch that was the last, or of which some could not be removed. In the second case it doubles with
/// each batch, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How many deletions are under way at the same time.
const PARALLEL: usize = 32;
/// So many events are told of a batch: one for each node and reason, and no flood of them.
const EVENTS: usize = 4;

/// A notice that is to be removed, and why.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    id: NoticeId,
    refusal: NoticeRefusal,
}

/// Name and UID of a notice. One that cannot be read has no UID: the next one of that name may be a good one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct NoticeId {
    name: String,
    uid: Option<String>,
}

impl Refused {
    pub(super) fn of(notice: &InterruptionNotice, refusal: NoticeRefusal) -> Self {
        Self { id: NoticeId { name: notice.name_any(), uid: notice.uid() }, refusal }
    }

    /// The node that reports: the notice's name begins with it.
    fn node(&self) -> &str {
        self.id.name.rsplit_once('.').map_or("", |(node, _)| node)
    }
}

/// Which refused notices are being removed.
#[derive(Default)]
pub(super) struct Removals {
    /// Whether a batch is under way, or was until a moment ago.
    under_way: bool,
    /// Whether more were to be removed than the batch has.
    surplus: bool,
    /// Removed, and perhaps shown by the watch for a moment yet.
    removed: BTreeSet<NoticeId>,
    /// How many batches in a row could not be removed as a whole.
    failures: u32,
}

impl Removals {
    /// The notices to remove now, if it is time for some: those that were refused, those that are too many of
    /// their node, and those that cannot be read.
    pub(super) fn next(&mut self, refused: Vec<Refused>, view: &View) -> Option<Vec<Refused>> {
        let not_understood = view.not_understood();
        self.removed.retain(|NoticeId { name, uid }| match uid {
            None => not_understood.names(WatchedKind::Notice).any(|unread| unread == name),
            Some(uid) => {
                let held = view.notices.get(&ObjectRef::new(name));
                held.is_some_and(|held| held.metadata.uid.as_ref() == Some(uid))
                    || view.crowded_out.has(name, uid)
            }
        });
        if self.under_way {
            return None;
        }
        let places = BATCH + 1 + self.removed.len();
        let crowded_out = view.crowded_out.some(places, |_, _| true).into_iter().map(|(name, uid)| {
            let id = NoticeId { name, uid: Some(uid) };
            Refused { id, refusal: NoticeRefusal::TooMany }
        });
        let unread = not_understood.names(WatchedKind::Notice).map(|name| {
            let id = NoticeId { name: name.to_owned(), uid: None };
            Refused { id, refusal: NoticeRefusal::NotUnderstood }
        });
        self.begin(refused.into_iter().chain(unread).chain(crowded_out))
    }

    fn begin(&mut self, refused: impl Iterator<Item = Refused>) -> Option<Vec<Refused>> {
        let mut batch: Vec<Refused> =
            refused.filter(|held| !self.removed.contains(&held.id)).take(BATCH + 1).collect();
        self.surplus = batch.len() > BATCH;
        batch.truncate(BATCH);
        self.under_way = !batch.is_empty();
        self.under_way.then_some(batch)
    }

    /// A batch ended. How long to wait for the next one: not at all if more is left, for who creates notices
    /// does not rest.
    pub(super) fn ended(&mut self, gone: Gone) -> Duration {
        self.removed.extend(gone.removed);
        self.failures = if gone.all { 0 } else { self.failures.saturating_add(1) };
        match (self.surplus, gone.all) {
            (true, true) => Duration::ZERO,
            (false, true) => jittered(PAUSE),
            (_, false) => jittered(backoff(PAUSE, LONGEST_PAUSE, self.failures)),
        }
    }

    /// The pause after a batch is over.
    pub(super) fn rested(&mut self) {
        self.under_way = false;
    }
}

/// What of a batch is gone.
pub(super) struct Gone {
    removed: Vec<NoticeId>,
    /// Whether that is the whole batch.
    all: bool,
}

/// Removes the notices and tells of them.
pub(super) async fn remove(deps: Deps, batch: Vec<Refused>) -> Gone {
    tell(&deps, &batch);
    let (count, deps) = (batch.len(), &deps);
    let answers: Vec<Result<NoticeId, String>> = futures::stream::iter(batch)
        .map(|refused| async move {
            delete(deps, &refused.id).await?;
            deps.metrics.notice_refused(refused.refusal);
            Ok(refused.id)
        })
        .buffer_unordered(PARALLEL)
        .collect()
        .await;
    let (mut removed, mut errors) = (Vec::new(), Vec::new());
    for answer in answers {
        match answer {
            Ok(id) => removed.push(id),
            Err(error) => errors.push(error),
        }
    }
    if let Some(error) = errors.first() {
        tracing::warn!(
            count = errors.len(),
            error,
            "refused notices could not be removed; the next attempt follows"
        );
    }
    Gone { all: removed.len() == count, removed }
}

/// Deletes the notice of that name; with a UID, that one only.
async fn delete(deps: &Deps, NoticeId { name, uid }: &NoticeId) -> Result<(), String> {
    let notices: Api<InterruptionNotice> = Api::all(deps.client.clone());
    let exactly = Preconditions { uid: uid.clone(), resource_version: None };
    let parameters = DeleteParams::default().preconditions(exactly);
    match tokio::time::timeout(deps.call_timeout, notices.delete(name, &parameters)).await {
        // Gone, or another one has the name by now.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(answer) => answer.map(drop).map_err(|error| RequestProblem(&error).to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// One line for each node and reason, and events at those nodes that there are.
fn tell(deps: &Deps, batch: &[Refused]) {
    let mut by_node: BTreeMap<(&str, NoticeRefusal), usize> = BTreeMap::new();
    // Of one that cannot be read nobody knows who reports it.
    let untold = [NoticeRefusal::NotUnderstood, NoticeRefusal::EndedByItsGroup];
    for refused in batch.iter().filter(|held| !untold.contains(&held.refusal)) {
        *by_node.entry((refused.node(), refused.refusal)).or_default() += 1;
    }
    let snapshot = deps.view.snapshot();
    let mut events = 0;
    for ((node, refusal), count) in by_node {
        tracing::warn!(node, reason = refusal.as_str(), count, "notices are refused: {refusal}");
        if events < EVENTS && snapshot.node(&node.into()).is_some() {
            events += 1;
            let note = format!("{count} notices refused and removed: {}", refusal);
            deps.events.tell(events::node(node), event(refusal, &note));
        }
    }
}

/// The event of a refusal: its code is the reason.
fn event(refusal: NoticeRefusal, note: &str) -> Told<'_> {
    let (reason, action) = (refusal.as_str(), "Box1".to_owned());
    Told { warning: true, reason, action, note, secondary: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_the_event_is_the_code_of_the_refusal() {
        let told = event(NoticeRefusal::NodeHasAnotherInstance, "1 notices refused and removed");
        assert_eq!((told.reason, &*told.action, told.warning), ("NodeHasAnotherInstance", "Box1", true));
    }

    fn refused(number: usize) -> Refused {
        let id = NoticeId { name: format!("n{number}"), uid: Some(format!("u{number}")) };
        Refused { id, refusal: NoticeRefusal::TooMany }
    }

    #[test]
    fn who_creates_notices_faster_than_a_batch_a_second_is_not_waited_for() {
        let flood: Vec<Refused> = (0..BATCH + 1).map(refused).collect();
        let gone = |batch: &[Refused], all| Gone {
            removed: batch.iter().map(|refused| refused.id.clone()).collect(),
            all,
        };
        let mut removals = Removals::default();
        let batch = removals.begin(flood.clone().into_iter()).expect("a batch");
        assert_eq!(batch.len(), BATCH);
        assert_eq!(removals.ended(gone(&batch, true)), Duration::ZERO, "more wait");
        removals.rested();
        let rest = removals.begin(flood.into_iter()).expect("the rest");
        assert_eq!(rest.len(), 1);
        assert!(removals.ended(gone(&rest, true)) >= PAUSE / 2, "nothing waits");

        let flood: Vec<Refused> = (0..BATCH + 1).map(refused).collect();
        let mut removals = Removals::default();
        let batch = removals.begin(flood.into_iter()).expect("a batch");
        let pauses: Vec<Duration> = (0..10).map(|_| removals.ended(gone(&batch, false))).collect();
        assert!(pauses[0] >= PAUSE / 2, "the API server has enough to do");
        assert!(pauses[9] >= LONGEST_PAUSE / 2 && pauses[9] <= LONGEST_PAUSE, "{pauses:?}");
        assert!(removals.ended(gone(&[], true)) <= PAUSE, "it can be removed again");
    }
}
