//! When the marks of a node are changed: taint, cordon and label, or the annotation against
//! cluster-autoscaler. And what the API server's word on them counts before a watch shows it.

use crate::ids::NodeUid;
use crate::policy::{backoff, spread};
use std::collections::BTreeMap;
use std::time::Duration;

/// First and longest pause before a change is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// So long a watch has to show marks that were set; after that they are set anew.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// Marks that the API server has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarksSet {
    /// Taint, cordon and label of a node that is drained.
    Drain,
    /// The annotation that keeps cluster-autoscaler off the node.
    Protection,
}

/// A change of a node's marks that is under way, or is to be tried again.
#[derive(Debug, Default)]
struct Change {
    in_flight: bool,
    failures: u32,
    /// As in [`super::Moment::up`].
    not_before: Duration,
}

/// The changes of all nodes' marks. Nodes go by their UID: a later node of the same name has no mark yet.
#[derive(Debug, Default)]
pub struct Marking {
    changes: BTreeMap<NodeUid, Change>,
    /// Since when the API server has said of a node that it carries the marks of a drain.
    set: BTreeMap<NodeUid, Duration>,
    /// The same of the annotation.
    protected: BTreeMap<NodeUid, Duration>,
}

impl Marking {
    /// Forgets nodes that do not exist any more, and marks that are not wanted any more.
    pub fn retain(
        &mut self,
        exists: impl Fn(&NodeUid) -> bool,
        is_drained: impl Fn(&NodeUid) -> bool,
        is_protected: impl Fn(&NodeUid) -> bool,
    ) {
        self.changes.retain(|node, change| change.in_flight || exists(node));
        self.set.retain(|node, _| is_drained(node));
        self.protected.retain(|node, _| is_protected(node));
    }

    /// Whether no change is under way or to be tried again.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether a change of the node's marks may begin; it is under way then.
    pub fn begin(&mut self, node: &NodeUid, up: Duration) -> bool {
        let change = self.changes.entry(node.to_owned()).or_default();
        let begins = !change.in_flight && up >= change.not_before;
        change.in_flight |= begins;
        begins
    }

    /// A change was made. `set` are the marks that the node carries now and that are still wanted.
    pub fn done(&mut self, node: &NodeUid, set: Option<MarksSet>, up: Duration) {
        // The watch shows it.
        self.changes.remove(node);
        match set {
            Some(MarksSet::Drain) => drop(self.set.insert(node.to_owned(), up)),
            Some(MarksSet::Protection) => drop(self.protected.insert(node.to_owned(), up)),
            None => {}
        }
    }

    /// A change could not be made: it is tried again after a pause.
    pub fn failed(&mut self, node: &NodeUid, up: Duration) {
        let change = self.changes.entry(node.to_owned()).or_default();
        change.in_flight = false;
        change.failures = change.failures.saturating_add(1);
        change.not_before = up + spread(backoff(RETRY_FIRST, RETRY_MAX, change.failures), node);
    }

    /// Whether the marks of a drain are to be set. `shown` says whether the watch shows them.
    #[must_use]
    pub fn is_due(&self, node: &NodeUid, shown: bool, up: Duration) -> bool {
        let has_time = self.set.get(node).is_some_and(|at| up.saturating_sub(*at) < SHOWN_WITHIN);
        !shown && !has_time
    }

    /// Whether the node counts as one that takes no new pods. A deadline does not wait until a watch shows
    /// what the API server has said.
    #[must_use]
    pub fn counts(&self, node: &NodeUid, shown: bool, deadline: bool) -> bool {
        shown || deadline && self.set.contains_key(node)
    }

    /// Whether the last attempt to change the node's marks has failed.
    #[must_use]
    pub fn is_failing(&self, node: &NodeUid) -> bool {
        self.changes.get(node).is_some_and(|change| change.failures > 0)
    }

    /// Whether the annotation was set a moment ago, and a watch has time to show it.
    #[must_use]
    pub fn is_protected(&self, node: &NodeUid, up: Duration) -> bool {
        self.protected.get(node).is_some_and(|at| up.saturating_sub(*at) < SHOWN_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_change_of_a_node_is_under_way_and_a_failed_one_is_repeated_after_longer_pauses() {
        let mut marking = Marking::default();
        assert!(
            marking.begin(&"n".into(), up(0))
                && !marking.begin(&"n".into(), up(9))
                && marking.begin(&"m".into(), up(0))
        );
        marking.retain(|_| false, |_| false, |_| false);
        assert!(!marking.is_empty(), "what is under way is not forgotten");
        marking.done(&"m".into(), None, up(0));
        let mut at = up(0);
        for _ in 0..9 {
            marking.failed(&"n".into(), at);
            assert!(!marking.begin(&"n".into(), at + RETRY_FIRST / 4), "a pause comes first");
            at += RETRY_MAX * 2;
            assert!(marking.begin(&"n".into(), at), "and ends");
        }
        marking.failed(&"n".into(), at);
        assert!(!marking.begin(&"n".into(), at + up(1)), "by now the pause is longer");
        marking.done(&"n".into(), None, at);
        assert!(marking.is_empty() && marking.begin(&"n".into(), at));
        marking.failed(&"n".into(), at);
        marking.retain(|_| false, |_| true, |_| true);
        assert!(marking.is_empty(), "the node is gone");
    }

    #[test]
    fn marks_that_were_set_count_at_a_deadline_and_are_set_anew_if_no_watch_shows_them() {
        let mut marking = Marking::default();
        for shown in [false, true] {
            assert_eq!(marking.is_due(&"n".into(), shown, up(0)), !shown);
            assert_eq!(
                [true, false].map(|deadline| marking.counts(&"n".into(), shown, deadline)),
                [shown; 2]
            );
        }
        marking.done(&"n".into(), Some(MarksSet::Drain), up(1));
        assert_eq!([5, 6].map(|at| marking.is_due(&"n".into(), false, up(at))), [false, true]);
        assert_eq!([true, false].map(|deadline| marking.counts(&"n".into(), false, deadline)), [true, false]);
        assert!(!marking.counts(&"m".into(), false, true), "another node of its name may come");
        assert!(!marking.is_protected(&"n".into(), up(1)), "that is another mark");
        marking.retain(|_| true, |_| false, |_| true);
        assert!(marking.is_due(&"n".into(), false, up(5)), "another drain begins anew");
    }

    #[test]
    fn the_annotation_has_its_time_to_be_shown() {
        let mut marking = Marking::default();
        marking.done(&"n".into(), Some(MarksSet::Protection), up(1));
        assert_eq!([1, 5, 6].map(|at| marking.is_protected(&"n".into(), up(at))), [true, true, false]);
        assert!(!marking.counts(&"n".into(), false, true));
        marking.retain(|_| true, |_| true, |_| false);
        assert!(!marking.is_protected(&"n".into(), up(1)));
    }
}
