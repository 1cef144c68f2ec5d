//! All that a plan is made from.

use super::calls::Deferred;
use super::instances::InstanceFacts;
use super::wants::{End, Want, Wants};
use crate::group::{GroupView, PoolView};
use crate::ids::ReplacementName;
use crate::ledger::Ledger;
use crate::record::GroupKind;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The ledger as it is stored.
    pub ledger: &'a Ledger,
    /// The groups as they were just read.
    pub view: &'a PoolView,
    /// What the replacements want of the groups.
    pub wants: &'a Wants,
    /// The instances to terminate for replacements.
    pub ends: &'a BTreeSet<End>,
    /// What is known about instances.
    pub instances: &'a InstanceFacts,
    /// Changes that are left alone in this turn: another one of the same group is under way.
    pub deferred: &'a Deferred,
    /// The time.
    pub now: Timestamp,
}

impl Inputs<'_> {
    pub(super) fn group(&self, kind: GroupKind) -> &GroupView {
        self.view.group(kind)
    }

    pub(super) fn want(&self, kind: GroupKind, replacement: &ReplacementName) -> Option<&Want> {
        self.wants.get(&(kind, replacement.to_owned()))
    }

    /// Whether something may be requested of the group in this turn, with the ledger as it is by now. With a
    /// deadline nobody waits until its desired capacity is known for certain.
    pub(super) fn may_request(&self, ledger: &Ledger, kind: GroupKind) -> bool {
        let is_certain = !self.deferred.is_behind(kind) || self.is_pressed(ledger, kind);
        is_certain && !self.deferred.requests_of(kind) && !ledger.is_in_doubt(kind)
    }

    /// Whether an instance of the group is to be requested before a deadline.
    fn is_pressed(&self, ledger: &Ledger, kind: GroupKind) -> bool {
        let asks = |replacement: &ReplacementName| {
            ledger.share(kind, replacement).is_none_or(|share| share.is_due(self.now))
        };
        let has_deadline = |want: &Want| matches!(want, Want::Instance { deadline: Some(_), .. });
        let mut of_group = self.wants.iter().filter(|((group, _), _)| *group == kind);
        of_group.any(|((_, replacement), want)| has_deadline(want) && asks(replacement))
    }

    /// Whether the replacement waits for an instance of the group.
    pub(super) fn waits(&self, kind: GroupKind, replacement: &ReplacementName) -> bool {
        matches!(self.want(kind, replacement), Some(Want::Instance { .. }))
    }
}
