//! Refused notices go at once: a node that floods the cluster with them costs it little, and a name that was taken
//! is free for who has a right to it.

use super::notices::Refused;
use crate::actors::deps::Deps;
use crate::core::notices::Refusal;
use crate::crd::InterruptionNotice;
use crate::telemetry::events::{self, Told};
use futures::StreamExt;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// So many are removed at a time, and no more within [`PAUSE`].
const BATCH: usize = 400;
/// Between the beginnings of two batches.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// How many deletions are under way at the same time.
const PARALLEL: usize = 6;
/// So many events are told of a batch: one for each node and reason, and no flood of them.
const EVENTS: usize = 4;

/// Which refused notices are being removed.
#[derive(Default)]
pub(super) struct Removals {
    /// Whether a batch is under way, or was until a moment ago.
    busy: bool,
    /// By UID: removed, and perhaps shown by the watch for a moment yet.
    removed: BTreeSet<String>,
}

impl Removals {
    /// The notices to remove now, if it is time for some.
    pub(super) fn next(
        &mut self,
        refused: Vec<Refused>,
        seen: &[Arc<InterruptionNotice>],
    ) -> Option<Vec<Refused>> {
        if !self.removed.is_empty() {
            let there: BTreeSet<String> = seen.iter().filter_map(|notice| notice.uid()).collect();
            self.removed.retain(|uid| there.contains(uid));
        }
        let known = |notice: &InterruptionNotice| notice.uid().is_some_and(|uid| self.removed.contains(&uid));
        let batch: Vec<Refused> =
            refused.into_iter().filter(|(notice, _)| !known(notice)).take(BATCH).collect();
        if self.busy || batch.is_empty() {
            return None;
        }
        self.busy = true;
        Some(batch)
    }

    /// A batch ended; these are gone.
    pub(super) fn ended(&mut self, gone: Vec<String>) {
        self.removed.extend(gone);
    }

    /// The pause after a batch is over.
    pub(super) fn rested(&mut self) {
        self.busy = false;
    }
}

/// Removes the notices and tells of them; the UIDs of those that are gone.
pub(super) async fn remove(deps: Deps, batch: Vec<Refused>) -> Vec<String> {
    tell(&deps, &batch);
    let removed = futures::stream::iter(batch).map(|(notice, refusal)| {
        let deps = &deps;
        async move {
            let name = notice.name_any();
            match remove_one(deps, &name, notice.uid()).await {
                Ok(()) => {
                    deps.metrics.notice_refused(refusal);
                    notice.uid()
                }
                Err(error) => {
                    tracing::warn!(notice = name, error, "a refused notice could not be removed");
                    None
                }
            }
        }
    });
    removed.buffer_unordered(PARALLEL).filter_map(std::future::ready).collect().await
}

/// Removes the notice of that name; with a UID, that one only.
async fn remove_one(deps: &Deps, name: &str, uid: Option<String>) -> Result<(), String> {
    let notices: Api<InterruptionNotice> = Api::all(deps.client.clone());
    let exactly = Preconditions { uid, resource_version: None };
    let parameters = DeleteParams::default().preconditions(exactly);
    match tokio::time::timeout(deps.call_timeout, notices.delete(name, &parameters)).await {
        // Gone, or another one has the name by now.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
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
