//! What a notice begins that is believed, and whose instance it is about.

use super::judge::{CLOCKS_DIFFER, Holder, NodeState, NoticeRefusal, Proof};
use crate::cluster::{Node, Snapshot};
use crate::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use crate::record::{NoticeKind, ReplacementStatus};
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// So long a notice with a deadline waits for the reading that shows whose its instance is. EC2 gives two
/// minutes (EC2 User Guide, "Spot Instance interruption notices"), and the pods need them.
const OWNER_PATIENCE: Duration = Duration::from_secs(15);

/// A pool that names a group, or whose group has an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupClaim<'a> {
    /// When the pool was made.
    pub created: Option<Timestamp>,
    /// The pool's name.
    pub pool: &'a PoolName,
}

/// The pool that owns what several claim: the oldest, so that a pool that is added takes nothing from another
/// one.
#[must_use]
pub fn owner_of<'a>(claims: impl IntoIterator<Item = GroupClaim<'a>>) -> Option<&'a PoolName> {
    claims.into_iter().min().map(|claim| claim.pool)
}

impl NodeState {
    /// What the cluster shows of the node.
    #[must_use]
    pub fn of(cluster: &Snapshot, node: &NodeName) -> Self {
        match cluster.node(node) {
            None => Self::Missing,
            Some(node) if node.provider_id.is_empty() => Self::WithoutInstance,
            Some(node) => node.instance_id().map_or(Self::Foreign, Self::Has),
        }
    }
}

impl<'a> Holder<'a> {
    /// What the Nodes of the cluster say about the instance.
    #[must_use]
    pub fn of(cluster: &'a Snapshot, instance_id: &InstanceId) -> Self {
        let mut holders = cluster.nodes_of_instance(instance_id);
        match (holders.next(), holders.next()) {
            (None, _) => Self::Nobody,
            (Some(node), None) => Self::One(&node.name),
            (Some(_), Some(_)) => Self::Several,
        }
    }
}

/// Whether the node may belong to a group that launched it after a reading, as when AWS cannot be read: the
/// next reading shows it. `read_at` are the times at which the Spot groups were read last.
#[must_use]
pub fn may_be_unread(node: &Node, read_at: impl IntoIterator<Item = Timestamp>) -> bool {
    node.created.is_some_and(|created| read_at.into_iter().any(|at| at < created + CLOCKS_DIFFER))
}

/// A notice that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Believed<'a> {
    /// The node that reports.
    pub node: &'a NodeName,
    /// The instance that it has.
    pub instance_id: &'a InstanceId,
    /// What is announced.
    pub kind: NoticeKind,
    /// What shows that the node has the instance.
    pub proof: Proof,
    /// Whether the Node of that name says that it runs on the instance.
    pub says_so: bool,
    /// When EC2 takes the instance, if EC2 may have given that deadline.
    pub deadline: Option<Timestamp>,
    /// When the notice was stored.
    pub created: Option<Timestamp>,
}

/// What is known of the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownPools<'a> {
    /// The pool whose Spot group has the instance, as it was read by this process.
    pub owner: Option<&'a PoolName>,
    /// The same as an earlier process has read it.
    pub owner_last_seen: Option<&'a PoolName>,
    /// Whether the groups of every pool were read by this process.
    pub all_read: bool,
    /// Whether every pool that there is is known.
    pub all_known: bool,
    /// Whether the node may have come since the groups were read.
    pub may_be_unread: bool,
    /// Whether nodes outside all pools are drained.
    pub drain_outside: bool,
    /// Whether a pool only observes: a node of it is left alone.
    pub some_observe: bool,
    /// Whether another replacement sends the instance back, so that its node is drained in any case.
    pub goes_back: bool,
}

/// What comes of a notice that is believed and has no open record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning<'a> {
    /// A replacement in this pool, or outside all pools.
    Replacement(Option<&'a PoolName>),
    /// Nobody knows yet whose the instance is, and the pods cannot wait for it: they are moved, by a record
    /// that says nothing about the instance. Its replacement begins when the pools were read.
    Drain,
    /// The answer is not known yet.
    Wait,
    /// The notice is to be removed.
    Refused(NoticeRefusal),
}

impl Believed<'_> {
    /// What the notice begins. `name` is that of the record.
    #[must_use]
    pub fn begins<'a>(
        &self,
        name: &ReplacementName,
        pools: &KnownPools<'a>,
        now: Timestamp,
    ) -> Beginning<'a> {
        let claimed = if pools.all_read {
            // A pool whose groups cannot be used has its nodes, too.
            pools.owner.or(pools.owner_last_seen)
        } else {
            // Before every pool was read, nobody knows whose instance it is, but from what an earlier process
            // has read. Advice waits. Before a deadline the pods have to leave, whether AWS can be read or
            // not.
            match pools.owner_last_seen.filter(|_| self.deadline.is_some()) {
                None => return self.until_read(pools, now),
                owner => owner,
            }
        };
        if pools.goes_back && self.deadline.is_none() {
            // Two drains of one node would wait for each other. A deadline does not wait.
            return Beginning::Wait;
        }
        // What nothing but the notice says puts no node into a pool. Of several nodes that say they run on
        // its instance each may be its member. A node whose `spec.providerID` comes late may be one, too, so
        // that its pods are moved, whether nodes outside the pools are drained or not.
        let bound = self.proof != Proof::Reporter || self.says_so;
        let owner = claimed.filter(|_| bound);
        if claimed.is_none() && (bound || !pools.drain_outside) && pools.may_be_unread {
            return self.until_read(pools, now);
        }
        if claimed.is_none() && !pools.drain_outside {
            return match pools.all_known {
                true => Beginning::Refused(NoticeRefusal::OutsidePools),
                false => Beginning::Wait,
            };
        }
        // Without a proof that the instance is the node's, its pods are moved and nothing is terminated.
        Beginning::Replacement(owner.filter(|_| **name == **self.instance_id))
    }

    /// What is done before the pools were read: advice waits. So does what may be a node that is left alone,
    /// outside the pools or in one that only observes.
    fn until_read<'a>(&self, pools: &KnownPools<'_>, now: Timestamp) -> Beginning<'a> {
        let waited = self.created.is_some_and(|created| since(created, now) >= OWNER_PATIENCE);
        let may_drain = pools.drain_outside && !pools.some_observe;
        match waited && may_drain && self.deadline.is_some() {
            true => Beginning::Drain,
            false => Beginning::Wait,
        }
    }

    /// The name of the record that the notice begins: that of the instance, which only such a node gets that
    /// has shown that the instance is its own, before another one has. `taken` is whether there is a record
    /// of that name.
    #[must_use]
    pub fn record_name(&self, taken: bool) -> ReplacementName {
        match self.proof {
            Proof::Node | Proof::Record if !taken => proven(self.instance_id),
            _ => unproven(self.node, self.instance_id),
        }
    }

    /// Whether the notice begins a replacement of its node anew that was cancelled. One with a deadline does,
    /// for a replacement that had one cannot be cancelled, and advice that came after the end. The node must
    /// be there, with the instance of the record. What its group ends is drained then, and not replaced.
    #[must_use]
    pub fn begins_anew(&self, cancelled_at: Option<Timestamp>) -> bool {
        self.proof == Proof::Node && (self.deadline.is_some() || self.created > cancelled_at)
    }
}

/// The name of a record whose instance is proven to be the node's.
fn proven(instance_id: &InstanceId) -> ReplacementName {
    instance_id.as_str().into()
}

/// The name of a record that was begun without a proof that the instance is the node's alone.
fn unproven(node: &NodeName, instance_id: &InstanceId) -> ReplacementName {
    format!("{node}.{instance_id}").into()
}

/// Whether the record with the name of an instance goes on with what another one of the same node has begun,
/// before anybody knew whose the instance is. Its drain begins at once, or is not to begin.
#[must_use]
pub fn takes_over(proven: &ReplacementStatus, now: Timestamp) -> bool {
    let is_known = proven.started_at.is_some_and(|at| since(at, now) >= OWNER_PATIENCE);
    proven.old_node.drain().is_some() || is_known
}

/// The record that a notice is about: its own, or that of another node which has the instance. `find` looks a
/// record up by its name, and `node_of` is the node of one.
pub fn record_of<'a, R>(
    node: &NodeName,
    instance_id: &InstanceId,
    find: impl Fn(&ReplacementName) -> Option<&'a R>,
    node_of: impl Fn(&R) -> &NodeName,
) -> Option<&'a R> {
    let own = find(&proven(instance_id));
    let is_others = own.is_none_or(|held| node_of(held) != node);
    is_others.then(|| find(&unproven(node, instance_id))).flatten().or(own)
}
