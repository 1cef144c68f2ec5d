//! The API server's own word on the pods of a node.
//!
//! A watch that has lost its connection without a word shows an old picture and does not know it. So no node
//! is taken for empty on a watch's word alone: its pods are listed once more, when its cordon keeps new ones
//! away.

use super::moment::Moment;
use crate::cluster::{Pod, Snapshot};
use crate::freshness::Freshness;
use crate::placement::PodName;
use crate::reason::Reason;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// A pod that is still there so long after the end of its grace period is not waited for: by then its
/// containers have been killed, or its kubelet answers nobody.
const OVERSTAYED_AFTER: Duration = Duration::from_secs(30);

/// A pod as it was listed: only what decides whether its node may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether it belongs to the node: a mirror of a static pod, or a pod of a DaemonSet.
    pub of_node: bool,
    /// Whether it has ended.
    pub finished: bool,
    /// When it is to be gone, if it was deleted.
    pub deletion: Option<Timestamp>,
}

/// What the list has of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// It could be read.
    Pod(ListedPod),
    /// It could not: it counts as a pod that is there.
    Unreadable,
}

impl Listed {
    /// Whether the instance is not to be ended under it: the same rule as [`super::holds_its_node`].
    #[must_use]
    pub fn holds_its_node(&self, now: Timestamp) -> bool {
        match self {
            Self::Unreadable => true,
            Self::Pod(pod) if pod.of_node || pod.finished => false,
            Self::Pod(pod) => pod.deletion.is_none_or(|due| !is_overstayed(due, now)),
        }
    }
}

/// What came of asking for the pods of a node.
#[derive(Clone, Debug)]
pub struct Look {
    /// When it was asked: it knows nothing of what came later.
    pub asked: Moment,
    /// The pods, or why there was no answer.
    pub found: Result<Vec<Listed>, String>,
}

impl Look {
    /// When the node was found empty, if it was.
    #[must_use]
    pub fn empty_at(&self, now: Timestamp) -> Option<Timestamp> {
        let holds = |pod: &Listed| pod.holds_its_node(now);
        self.found.as_ref().ok().filter(|pods| !pods.iter().any(holds)).map(|_| self.asked.at)
    }

    /// Why the node is not empty though the watch shows it so; `known` says of which pods, by their UID, the
    /// watch has told.
    pub(super) fn against(&self, known: &dyn Fn(&str) -> bool, now: Timestamp) -> Vec<Reason> {
        let pods = match &self.found {
            Ok(pods) => pods,
            Err(error) => return vec![Reason::PodsNotListed { error: error.clone() }],
        };
        let unseen = |pod: &Listed| match pod {
            Listed::Pod(found) => {
                let name = PodName { namespace: found.namespace.clone(), name: found.name.clone() };
                (pod.holds_its_node(now) && !known(&found.uid)).then_some(Some(name))
            }
            Listed::Unreadable => Some(None),
        };
        pods.iter().filter_map(unseen).map(|pod| Reason::PodNotWatched { pod }).collect()
    }

    /// The pods that the watch has not told of and that may be asked to leave: as much of them as an eviction
    /// needs.
    pub(super) fn unseen(&self, known: &dyn Fn(&str) -> bool, now: Timestamp) -> Vec<Arc<Pod>> {
        let listed = self.found.iter().flatten().filter(|pod| pod.holds_its_node(now));
        let asked = |pod: &Listed| match pod {
            Listed::Pod(pod) if pod.deletion.is_none() && !known(&pod.uid) => Some(Arc::new(Pod {
                namespace: pod.namespace.as_str().into(),
                name: pod.name.as_str().into(),
                uid: pod.uid.as_str().into(),
                ..Pod::default()
            })),
            Listed::Pod(_) | Listed::Unreadable => None,
        };
        listed.filter_map(asked).collect()
    }
}

/// What a drain goes by.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The cluster as the watches show it.
    pub snapshot: &'a Snapshot,
    /// Which of them show an old picture; to be read before the snapshot is taken.
    pub freshness: &'a Freshness,
    /// Whether the node takes no new pods.
    pub marked: bool,
    /// Whether the last attempt to mark it so has failed.
    pub unmarkable: bool,
    /// What the API server said last of the node's pods, since the node is marked.
    pub look: Option<&'a Look>,
}

/// Whether a pod that was to be gone at `due` is not waited for any longer.
fn is_overstayed(due: Timestamp, now: Timestamp) -> bool {
    crate::time::since(due, now) >= OVERSTAYED_AFTER
}

/// Why a pod that is to terminate is not waited for any longer, if so.
pub(super) fn overstayed(pod: &Pod, now: Timestamp) -> Option<Reason> {
    let due = pod.deletion?;
    let finalizers = pod.finalizers;
    is_overstayed(due, now).then(|| Reason::PodOverstayed { pod: pod.into(), due, finalizers })
}
