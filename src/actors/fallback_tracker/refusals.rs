//! Refused notices go at once: a node that floods the cluster with them costs it little, and a name that was taken
//! is free for who has a right to it.

use super::notices::Refused;
use crate::actors::deps::Deps;
use crate::crd::InterruptionNotice;
use crate::kube::problem::RequestProblem;
use crate::telemetry::events::{self, Told};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use spot_guard_core::notices::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// So many are removed at a time.
const BATCH: usize = 400;
/// After a batch that was the last, or of which some could not be removed.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How many deletions are under way at the same time.
const PARALLEL: usize = 32;
/// So many events are told of a batch: one for each node and reason, and no flood of them.
const EVENTS: usize = 4;

/// Which refused notices are being removed.
#[derive(Default)]
pub(super) struct Removals {
    /// Whether a batch is under way, or was until a moment ago.
    busy: bool,
    /// Whether more were to be removed than the batch has.
    surplus: bool,
    /// By UID: removed, and perhaps shown by the watch for a moment yet.
    removed: BTreeSet<String>,
    /// The same for notices that cannot be read, by name: the next one of that name may be a good one.
    unread: BTreeSet<String>,
}

/// What is removed at a time.
pub(super) struct Batch {
    refused: Vec<Refused>,
    /// The names of notices that cannot be read.
    unread: Vec<String>,
}

impl Removals {
    /// The notices to remove now, if it is time for some.
    pub(super) fn next(
        &mut self,
        refused: Vec<Refused>,
        seen: &[Arc<InterruptionNotice>],
        unread: &BTreeSet<String>,
    ) -> Option<Batch> {
        self.unread.retain(|name| unread.contains(name));
        if !self.removed.is_empty() {
            let there: BTreeSet<String> = seen.iter().filter_map(|notice| notice.uid()).collect();
            self.removed.retain(|uid| there.contains(uid));
        }
        let known = |notice: &InterruptionNotice| notice.uid().is_some_and(|uid| self.removed.contains(&uid));
        let mut refused: Vec<Refused> =
            refused.into_iter().filter(|(notice, _)| !known(notice)).take(BATCH + 1).collect();
        let mut unread: Vec<String> = unread.difference(&self.unread).take(BATCH + 1).cloned().collect();
        if self.busy || refused.is_empty() && unread.is_empty() {
            return None;
        }
        self.busy = true;
        self.surplus = refused.len() > BATCH || unread.len() > BATCH;
        refused.truncate(BATCH);
        unread.truncate(BATCH);
        Some(Batch { refused, unread })
    }

    /// A batch ended; these are gone. Whether the next one is to begin at once: who creates notices does not rest.
    pub(super) fn ended(&mut self, gone: Gone) -> bool {
        self.removed.extend(gone.refused);
        self.unread.extend(gone.unread);
        self.surplus && gone.all
    }

    /// The pause after a batch is over.
    pub(super) fn rested(&mut self) {
        self.busy = false;
    }
}

/// What of a batch is gone.
pub(super) struct Gone {
    /// By UID.
    refused: Vec<String>,
    /// By name.
    unread: Vec<String>,
    /// Whether that is the whole batch.
    all: bool,
}

/// Removes the notices and tells of them.
pub(super) async fn remove(deps: Deps, batch: Batch) -> Gone {
    tell(&deps, &batch.refused);
    let count = batch.refused.len() + batch.unread.len();
    let refused = futures::stream::iter(batch.refused).map(|(notice, refusal)| {
        let deps = &deps;
        async move { remove_one(deps, &notice.name_any(), notice.uid(), refusal).await.then(|| notice.uid()) }
    });
    let refused: Vec<String> =
        refused.buffer_unordered(PARALLEL).filter_map(async |uid| uid.flatten()).collect().await;
    let unread = futures::stream::iter(batch.unread).map(|name| {
        let deps = &deps;
        async move { remove_one(deps, &name, None, Refusal::NotUnderstood).await.then_some(name) }
    });
    let unread: Vec<String> =
        unread.buffer_unordered(PARALLEL).filter_map(std::future::ready).collect().await;
    let all = refused.len() + unread.len() == count;
    Gone { refused, unread, all }
}

/// Removes the notice and counts it; whether it is gone.
async fn remove_one(deps: &Deps, name: &str, uid: Option<String>, refusal: Refusal) -> bool {
    match delete(deps, name, uid).await {
        Ok(()) => {
            deps.metrics.notice_refused(refusal);
            true
        }
        Err(error) => {
            tracing::warn!(notice = name, error, "a refused notice could not be removed");
            false
        }
    }
}

/// Deletes the notice of that name; with a UID, that one only.
async fn delete(deps: &Deps, name: &str, uid: Option<String>) -> Result<(), String> {
    let notices: Api<InterruptionNotice> = Api::all(deps.client.clone());
    let exactly = Preconditions { uid, resource_version: None };
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
    let mut by_node: BTreeMap<(&str, Refusal), usize> = BTreeMap::new();
    for (notice, refusal) in batch {
        *by_node.entry((&notice.spec.node_name, *refusal)).or_default() += 1;
    }
    let snapshot = deps.view.snapshot();
    let mut events = 0;
    for ((node, refusal), count) in by_node {
        tracing::warn!(node, reason = ?refusal, count, "notices are refused: {}", refusal.describe());
        if events < EVENTS && snapshot.node(node).is_some() {
            events += 1;
            let note = format!("refused and removed, {count} in this moment: {}", refusal.describe());
            let told = Told {
                warning: true,
                reason: "NoticeRefused",
                action: "Box1".to_owned(),
                note: &note,
                secondary: None,
            };
            deps.events.tell(events::node(node), told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::InterruptionNoticeSpec;
    use jiff::Timestamp;
    use spot_guard_core::record::NoticeKind;

    fn refused(number: usize) -> Refused {
        let spec = InterruptionNoticeSpec {
            node_name: "n".to_owned(),
            instance_id: format!("i-{number:017x}"),
            kind: NoticeKind::SpotInterruption,
            notice_time: None,
            deadline: None,
            detected_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
        };
        let mut notice = InterruptionNotice::new(&format!("n{number}"), spec);
        notice.metadata.uid = Some(format!("u{number}"));
        (Arc::new(notice), Refusal::TooMany)
    }

    #[test]
    fn who_creates_notices_faster_than_a_batch_a_second_is_not_waited_for() {
        let flood: Vec<Refused> = (0..BATCH + 1).map(refused).collect();
        let seen: Vec<_> = flood.iter().map(|(notice, _)| notice.clone()).collect();
        let none = BTreeSet::new();
        let gone = |batch: &Batch, all| Gone {
            refused: batch.refused.iter().filter_map(|(notice, _)| notice.uid()).collect(),
            unread: Vec::new(),
            all,
        };
        let mut removals = Removals::default();
        let batch = removals.next(flood.clone(), &seen, &none).expect("a batch");
        assert_eq!(batch.refused.len(), BATCH);
        assert!(removals.next(flood.clone(), &seen, &none).is_none(), "one at a time");
        assert!(removals.ended(gone(&batch, true)), "more wait");
        removals.rested();
        let rest = removals.next(flood, &seen, &none).expect("the rest");
        assert_eq!(rest.refused.len(), 1);
        assert!(!removals.ended(gone(&rest, true)), "nothing waits");

        let flood: Vec<Refused> = (0..BATCH + 1).map(refused).collect();
        let mut removals = Removals::default();
        let batch = removals.next(flood, &seen, &none).expect("a batch");
        assert!(!removals.ended(gone(&batch, false)), "the API server has enough to do");
    }
}
