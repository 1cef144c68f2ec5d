//! How many notices of a node are kept: a node that floods the API with them takes no more memory than
//! another one.

use super::judge::{Seen, was_implausible};
use crate::ids::{InstanceId, NodeName};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// So many notices of one node are kept. An honest node has one of each kind, and some more if its
/// maintenance is moved.
pub const KEPT: usize = 16;

#[derive(Clone, Debug)]
struct Kept {
    name: Box<str>,
    instance_id: InstanceId,
    /// If EC2 may have given it.
    deadline: Option<Timestamp>,
    created: Timestamp,
}

/// The notices that are kept, by the node that reports.
#[derive(Clone, Debug, Default)]
pub struct NoticeRoom(BTreeMap<NodeName, Vec<Kept>>);

impl NoticeRoom {
    /// Takes in a notice, and gives the name of the one that has no room then, which may be that notice.
    /// Those about the node's own instance stay, then those with the earliest deadlines. `instance_of` is
    /// what the node has.
    pub fn take(
        &mut self,
        seen: &Seen<'_>,
        instance_of: impl FnOnce(&NodeName) -> Option<InstanceId>,
    ) -> Option<String> {
        self.leave(seen.node, seen.name);
        let held = self.0.entry(seen.node.into()).or_default();
        held.push(Kept {
            name: seen.name.into(),
            instance_id: seen.instance_id.into(),
            deadline: seen.deadline.filter(|_| !was_implausible(seen)),
            created: seen.created,
        });
        if held.len() <= KEPT {
            return None;
        }
        let own = instance_of(seen.node);
        let rank = |kept: &Kept| {
            let is_own = own.as_ref() == Some(&kept.instance_id);
            // The earliest deadline stays longest, and advice, which has none, leaves first.
            (!is_own, kept.deadline.is_none(), kept.deadline, kept.created, kept.name.clone())
        };
        held.sort_by_key(rank);
        held.pop().map(|last| last.name.into())
    }

    /// Forgets a notice of that node.
    pub fn leave(&mut self, node: &NodeName, name: &str) {
        let Some(held) = self.0.get_mut(node) else { return };
        held.retain(|kept| *kept.name != *name);
        if held.is_empty() {
            self.0.remove(node);
        }
    }

    /// How many are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
