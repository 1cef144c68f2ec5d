//! What the replacements of a pool want of its groups.

use super::Ledger;
use crate::ids::{InstanceId, ReplacementName};
use crate::record::GroupKind;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a replacement wants of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// One instance, in this attempt.
    Instance {
        /// Counts the replacement's attempts; a new one forgets the failure of the last.
        attempt: u32,
        /// The replacement's deadline.
        deadline: Option<Timestamp>,
        /// Whether another instance stands in meanwhile.
        stood_in_for: bool,
        /// The zone that the pods' volumes are in, to be tried first.
        zone: Option<String>,
        /// Whether the old instance is out of its group: unless we ended it, the group replaces it by itself.
        gone: bool,
        /// How long the node of an instance in service may take until it can be used.
        join_timeout: Duration,
    },
    /// This instance of the on-demand group, which is above the baseline: what others raised for it counts as
    /// raised for the replacement from then on.
    Adopted {
        /// The instance.
        instance_id: InstanceId,
        /// The pool's baseline.
        baseline: u32,
    },
    /// Nothing any more, and all stays as it is: the share is forgotten, what was raised for it is others'.
    Left,
    /// Nothing any more: desired capacity is lowered again, and the instance that was claimed for it is
    /// terminated.
    Nothing,
    /// The replacement is over: the instance stays, the share is forgotten once nothing of it is in
    /// desired.
    Done,
}

/// A replacement's want of a group.
pub type Wants = BTreeMap<(GroupKind, ReplacementName), Want>;

/// The replacements that are known to want nothing of the Spot group any more.
#[must_use]
pub fn withdrawn(wants: &Wants) -> BTreeSet<ReplacementName> {
    let over = |want: &Want| !matches!(want, Want::Instance { .. });
    let spot = wants.iter().filter(|((kind, _), want)| *kind == GroupKind::Spot && over(want));
    spot.map(|((_, replacement), _)| replacement.clone()).collect()
}

/// Ends the shares of nobody: their record was finished or deleted, so nothing is wanted for them.
///
/// A record that is there and cannot be read (`is_unreadable`) keeps what it holds.
pub fn end_orphans(wants: &mut Wants, ledger: &Ledger, is_unreadable: &dyn Fn(&str) -> bool) {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let left_behind = ledger.left_behind.iter().map(|left| &left.request);
        let left_behind = left_behind.filter(|request| request.group == kind).flat_map(|held| &held.shares);
        let shares = ledger.shares(kind).chain(left_behind);
        for share in shares.filter(|share| !is_unreadable(&share.replacement)) {
            wants.entry((kind, share.replacement.clone())).or_insert(Want::Done);
        }
    }
}

/// An instance to end for a replacement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Its group.
    pub group: GroupKind,
    /// The instance.
    pub instance_id: InstanceId,
    /// The replacement.
    pub replacement: ReplacementName,
    /// Whether its deadline leaves no choice: it is ended even if the picture of its pods is old.
    pub pressed: bool,
}
