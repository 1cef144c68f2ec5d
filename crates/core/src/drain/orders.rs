//! What a drain is ordered to do, and what is reported of it.

use super::rules::Deletion;
use crate::cluster::{Node, Pod};
use crate::ids::{InstanceId, NodeName, NodeUid, ReplacementName};
use crate::reason::Reason;
use crate::record::DrainPurpose;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A drain that must be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainCommand {
    /// The replacement.
    pub replacement: ReplacementName,
    /// The node.
    pub node: NodeName,
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its UID, if it was noted.
    pub node_uid: Option<NodeUid>,
    /// Why.
    pub purpose: DrainPurpose,
    /// When the instance is taken, if a deadline presses.
    pub deadline: Option<Timestamp>,
    /// Whether EC2 itself gave that deadline: a lifecycle hook may hold what a group ends for longer.
    pub is_announced: bool,
    /// Whether a lifecycle hook may hold what its group ends: then the budgets count for as long.
    pub is_held: bool,
    /// When the drain began.
    pub since: Option<Timestamp>,
}

impl DrainCommand {
    /// Whether this is the node to drain, and not another one of its name.
    #[must_use]
    pub fn is_about(&self, node: &Node) -> bool {
        *node.name == *self.node && node.is(&self.instance_id, self.node_uid.as_ref())
    }

    /// The node with its instance.
    #[must_use]
    pub fn place(&self) -> NodeInstance {
        NodeInstance { node: self.node.clone(), instance_id: self.instance_id.clone() }
    }
}

/// One command for each node: of several the one whose deadline is next, else the first.
#[must_use]
pub fn one_for_each_node(commands: &[DrainCommand]) -> Vec<&DrainCommand> {
    let mut chosen: BTreeMap<NodeInstance, &DrainCommand> = BTreeMap::new();
    for command in commands {
        let held = chosen.entry(command.place()).or_insert(command);
        let presses = |command: &DrainCommand| (command.deadline.is_none(), command.deadline);
        if presses(command) < presses(held) {
            *held = command;
        }
    }
    chosen.into_values().collect()
}

/// A node with its instance: a later node of the same name is another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeInstance {
    /// The node.
    pub node: NodeName,
    /// Its instance.
    pub instance_id: InstanceId,
}

/// How a drain stands, as the Drainer last reported.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainReport {
    /// The node.
    pub node: NodeName,
    /// Whether the taint is on it.
    pub tainted: bool,
    /// How it ended, once it has.
    pub end: Option<DrainEnd>,
    /// What it waits for, in plain words.
    pub blocked: Vec<Reason>,
    /// Whether it has waited for that so long that people should know.
    pub stuck: bool,
    /// Until when it waits by the pool's settings, if it does: pods may stay, or connections end. That is no
    /// trouble.
    pub held_until: Option<Timestamp>,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq)]
pub enum DrainEnd {
    /// The pods run and are ready elsewhere, or the node is gone.
    Moved,
    /// Nothing on the node is waited for any longer, though this is not as it should be.
    Without(Vec<Reason>),
    /// A return that came to nothing, and why: its pods may need the node.
    GivenUp(Vec<Reason>),
}

/// A request to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask the eviction API, with the pod's own grace period or this one, in seconds.
    Evict(Arc<Pod>, Option<i64>),
    /// Delete past the budgets.
    Delete(Arc<Pod>, Deletion),
}

impl Order {
    /// The pod that it is about.
    #[must_use]
    pub fn pod(&self) -> &Arc<Pod> {
        match self {
            Self::Evict(pod, _) | Self::Delete(pod, _) => pod,
        }
    }
}
