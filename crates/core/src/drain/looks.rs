//! When the pods of which node are listed anew: once the node is cordoned, one node at a time or two, and
//! with a pause after a list that failed or that found pods.

use super::look::Look;
use super::orders::NodeInstance;
use crate::policy::{backoff, spread};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many lists are under way at the same time: each may be of some megabytes.
const PARALLEL: usize = 2;
/// First and longest pause before a list is repeated; the longer ones if it failed, or found pods.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(15);
/// A node that waits to be ended is listed again after this time.
const AGAIN_IF_EMPTY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Looking {
    in_flight: bool,
    failures: u32,
    /// As in [`super::Moment::up`].
    not_before: Duration,
    last: Option<Look>,
}

/// The lists of all nodes that are cordoned, each with its instance: what was found of a node says nothing
/// of a later one of its name.
#[derive(Debug, Default)]
pub struct Looks(BTreeMap<NodeInstance, Looking>);

impl Looks {
    /// Forgets the nodes that are not cordoned any more: what was found of them counts no longer.
    pub fn retain(&mut self, is_cordoned: impl Fn(&NodeInstance) -> bool) {
        self.0.retain(|node, _| is_cordoned(node));
    }

    /// Whether there is nothing to be repeated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found last.
    #[must_use]
    pub fn last(&self, node: &NodeInstance) -> Option<&Look> {
        self.0.get(node)?.last.as_ref()
    }

    /// Whether a node that waits to be ended is to be listed.
    #[must_use]
    pub fn is_outdated(&self, node: &NodeInstance, now: Timestamp, up: Duration) -> bool {
        let last = self.last(node).filter(|look| look.empty_at(now).is_some());
        last.is_none_or(|look| up.saturating_sub(look.asked.up) >= AGAIN_IF_EMPTY)
    }

    /// Whether the node may be listed now; it is under way then.
    pub fn begin(&mut self, node: &NodeInstance, up: Duration) -> bool {
        if self.0.values().filter(|held| held.in_flight).count() >= PARALLEL {
            return false;
        }
        let held = self.0.entry(node.to_owned()).or_default();
        let begins = !held.in_flight && up >= held.not_before;
        held.in_flight |= begins;
        begins
    }

    /// Takes in what was found, unless the node is not cordoned any more.
    pub fn answered(&mut self, node: &NodeInstance, look: Look, now: Timestamp, up: Duration) {
        let Some(held) = self.0.get_mut(node) else { return };
        held.in_flight = false;
        held.failures = if look.empty_at(now).is_some() { 0 } else { held.failures.saturating_add(1) };
        let pause = backoff(AGAIN_FIRST, AGAIN_MAX, held.failures.max(1));
        held.not_before = up + spread(pause, &node.node);
        held.last = Some(look);
    }

    /// When each node was found empty, of those that were.
    #[must_use]
    pub fn found_empty(&self, now: Timestamp) -> BTreeMap<NodeInstance, Timestamp> {
        let empty = |look: &Look| look.empty_at(now);
        let found = |(node, held): (&NodeInstance, &Looking)| {
            Some((node.clone(), held.last.as_ref().and_then(empty)?))
        };
        self.0.iter().filter_map(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{Listed, Moment};

    fn on(node: &str) -> NodeInstance {
        NodeInstance { node: node.into(), instance_id: "i-1".into() }
    }

    fn look(at: u64, found: Result<Vec<Listed>, String>) -> Look {
        Look { asked: Moment { at: Timestamp::UNIX_EPOCH, up: Duration::from_secs(at) }, found }
    }

    #[test]
    fn a_list_that_fails_or_finds_pods_is_repeated_after_a_pause_and_an_empty_one_after_a_while() {
        let (now, up) = (Timestamp::UNIX_EPOCH, Duration::from_secs);
        for found in [Err("no answer".to_owned()), Ok(vec![Listed::Unreadable])] {
            let mut looks = Looks::default();
            assert!(looks.begin(&on("n"), up(1)));
            assert!(!looks.begin(&on("n"), up(1)), "it is under way");
            looks.answered(&on("n"), look(1, found), now, up(1));
            assert!(looks.is_outdated(&on("n"), now, up(1)));
            assert!(!looks.begin(&on("n"), up(1)), "a pause comes first");
            assert!(looks.found_empty(now).is_empty());
            assert!(looks.begin(&on("n"), up(3)));
            looks.answered(&on("n"), look(3, Ok(vec![])), now, up(3));
            assert_eq!(looks.found_empty(now).into_keys().collect::<Vec<_>>(), [on("n")]);
            assert!(!looks.begin(&on("n"), up(3)), "nor is one that was empty repeated at once");
            assert!(!looks.is_outdated(&on("n"), now, up(32)) && looks.is_outdated(&on("n"), now, up(33)));
        }
    }

    #[test]
    fn what_was_found_of_a_node_says_nothing_of_a_later_one_of_its_name() {
        let (now, mut looks) = (Timestamp::UNIX_EPOCH, Looks::default());
        assert!(looks.begin(&on("n"), Duration::ZERO));
        looks.answered(&on("n"), look(0, Ok(vec![])), now, Duration::ZERO);
        let namesake = NodeInstance { instance_id: "i-2".into(), ..on("n") };
        assert!(looks.last(&namesake).is_none());
        assert_eq!(looks.found_empty(now).into_keys().collect::<Vec<_>>(), [on("n")]);
    }

    #[test]
    fn few_lists_are_under_way_and_what_was_found_before_the_marks_came_off_counts_no_longer() {
        let mut looks = Looks::default();
        assert!(looks.begin(&on("a"), Duration::ZERO) && looks.begin(&on("b"), Duration::ZERO));
        assert!(!looks.begin(&on("n"), Duration::ZERO));
        looks.retain(|node| node.node == "b");
        looks.answered(&on("a"), look(0, Ok(vec![])), Timestamp::UNIX_EPOCH, Duration::ZERO);
        assert!(looks.last(&on("a")).is_none());
        assert!(looks.begin(&on("n"), Duration::ZERO));
    }
}
