//! Whether the pods that left a node run, and are ready, elsewhere.

use super::rules::must_move;
use crate::cluster::{Owner, OwnerKind, Pod, Snapshot};
use crate::placement::PodName;
use crate::reason::Reason;
use jiff::Timestamp;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A controller that makes pods anew, with its namespace.
pub(super) type OwnerKey = (Arc<str>, Owner);

/// The controller of a pod.
pub(super) fn owner(pod: &Pod) -> OwnerKey {
    (pod.namespace.clone(), pod.owner.clone())
}

/// How many pods each controller is to have again once those of the node have moved.
#[derive(Debug, Default)]
pub(super) struct Expected(HashMap<OwnerKey, usize>);

/// What a look for the successors showed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Unmet {
    /// What is missing; empty: all run and are ready elsewhere.
    pub reasons: Vec<Reason>,
    /// Whether some are there and not ready yet. If not, nobody has made them so far.
    pub coming: bool,
}

impl Expected {
    /// What is to be met when the node is drained.
    ///
    /// Counted are pods that are ready, and those so young that they may still become so: one that has been
    /// broken for long will not be ready elsewhere either. What was made since the drain began belongs to it
    /// too, so that another process that goes on with the drain expects the same. The pods of a job come and
    /// end by themselves. `counted` says which pods are to be ready elsewhere at all: placeholders need not.
    pub(super) fn of(
        node: &str,
        since: Option<Timestamp>,
        young: Duration,
        snapshot: &Snapshot,
        now: Timestamp,
        counted: &dyn Fn(&Pod) -> bool,
    ) -> Self {
        let younger_than = |pod: &Pod, than: Timestamp| pod.created.is_some_and(|created| created >= than);
        let successor = |pod: &&Pod| must_move(pod) && since.is_some_and(|since| younger_than(pod, since));
        let leaving = snapshot.pods_on(node).filter(|pod| must_move(pod) || pod.terminating());
        let owners: HashSet<OwnerKey> = leaving
            .chain(snapshot.unready().filter(successor))
            .filter(|pod| {
                !matches!(
                    pod.owner.kind,
                    OwnerKind::None | OwnerKind::Job | OwnerKind::DaemonSet | OwnerKind::Mirror
                )
            })
            .filter(|pod| counted(pod))
            .map(owner)
            .collect();
        let mut expected = HashMap::new();
        for key in owners {
            let meant = |pod: &&Pod| lives(pod) && (pod.ready || younger_than(pod, now - young));
            let count = snapshot.pods_of(&key).filter(meant).count();
            if count > 0 {
                expected.insert(key, count);
            }
        }
        Self(expected)
    }

    /// What is still missing elsewhere than on the node.
    pub(super) fn unmet(&self, node: &str, snapshot: &Snapshot) -> Unmet {
        let mut unmet = Unmet::default();
        for (key, expected) in &self.0 {
            let elsewhere = |pod: &&Pod| lives(pod) && pod.node.as_deref() != Some(node);
            let all = snapshot.pods_of(key).filter(elsewhere).count();
            let ready = snapshot.pods_of(key).filter(elsewhere).filter(|pod| pod.ready).count();
            if ready < *expected {
                let (namespace, owner) = key;
                let controller = PodName { namespace: namespace.to_string(), name: owner.name.to_string() };
                unmet.reasons.push(Reason::SuccessorsNotReady { controller, ready, expected: *expected });
                unmet.coming |= all > ready;
            }
        }
        unmet.reasons.sort_by_cached_key(ToString::to_string);
        unmet
    }
}

/// Whether the pod is there to stay.
fn lives(pod: &Pod) -> bool {
    !pod.phase.finished() && !pod.terminating()
}
