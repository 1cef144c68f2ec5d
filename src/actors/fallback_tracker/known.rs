//! What the FallbackTracker knows: what the other actors report, what is read of the cluster, which notices
//! it believes.

use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::messages::{Revision, ScaleGroups};
use crate::crd::{InterruptionNotice, NodeReplacement};
use jiff::Timestamp;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::drain::NodeInstance;
use spot_guard_core::freshness::Freshness;
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::{InstanceId, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::notices::Proof;
use spot_guard_core::reason::Finding;
use spot_guard_core::replacement::{DrainPurpose, DrainReport, ReturnAssessment};
use spot_guard_core::scaling::{wants, zones};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is known of a pool's groups.
pub(super) enum PoolFacts {
    Observed {
        view: Arc<PoolView>,
        ledger: Arc<Ledger>,
        /// The replacements of which the ledger was written when the AsgScaler knew that they want nothing
        /// more of the Spot group.
        withdrawn: BTreeSet<ReplacementName>,
        /// Spare instances to be cordoned, and those that were and are on their way out or gone.
        cordon: BTreeSet<InstanceId>,
    },
    /// They cannot be used, for this reason.
    Refused(Finding),
}

impl PoolFacts {
    pub(super) fn view(&self) -> Option<&PoolView> {
        match self {
            Self::Observed { view, .. } => Some(view),
            Self::Refused(_) => None,
        }
    }

    pub(super) fn has_withdrawn(&self, replacement: &ReplacementName) -> bool {
        matches!(self, Self::Observed { withdrawn, .. } if withdrawn.contains(replacement))
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Observed { ledger, .. } => Some(ledger),
            Self::Refused(_) => None,
        }
    }
}

/// What the actor knows beside the cluster: its own records, and what the other actors report.
#[derive(Default)]
pub(super) struct Known {
    /// The records as this actor stored them last: newer than the watch.
    pub(super) records: BTreeMap<ReplacementName, NodeReplacement>,
    pub(super) pools: BTreeMap<PoolName, PoolFacts>,
    pub(super) drains: BTreeMap<(ReplacementName, DrainPurpose), DrainReport>,
    pub(super) assessments: BTreeMap<ReplacementName, ReturnAssessment>,
    /// When the API server listed each node as empty that is cordoned to be ended.
    pub(super) found_empty: BTreeMap<NodeInstance, Timestamp>,
}

impl Known {
    /// The zones of a pool whose Spot instances were interrupted so lately that others may follow.
    pub(super) fn interrupted_zones(&self, pool: &PoolName, now: Timestamp) -> BTreeSet<String> {
        let of_pool = self.records.values().filter(|record| record.spec.pool.as_ref() == Some(pool));
        let statuses = of_pool.filter_map(|record| record.status.as_ref());
        statuses.filter_map(|status| zones::interrupted_lately(status, now)).map(str::to_owned).collect()
    }
}

/// What the AsgScaler was sent last of a pool.
#[derive(Default)]
pub(super) struct SentWants {
    last: ScaleGroups,
    /// Since which revision each replacement wants nothing more of the Spot group.
    withdrawn: BTreeMap<ReplacementName, Revision>,
}

impl SentWants {
    /// Gives the picture its revision: a new one if anything in it has changed.
    pub(super) fn revise(&mut self, mut wanted: ScaleGroups, life: u64) -> ScaleGroups {
        wanted.revision = self.last.revision;
        if wanted == self.last && wanted.revision != Revision::default() {
            return wanted;
        }
        wanted.revision = wanted.revision.next_of(life);
        let withdrawn = wants::withdrawn(&wanted.wants);
        self.withdrawn.retain(|replacement, _| withdrawn.contains(replacement));
        for replacement in withdrawn {
            self.withdrawn.entry(replacement).or_insert(wanted.revision);
        }
        self.last = wanted.clone();
        wanted
    }

    /// The replacements that were known to want nothing more of the Spot group by whoever knew that revision.
    pub(super) fn withdrawn_by(&self, revision: Revision) -> BTreeSet<ReplacementName> {
        let known = self.withdrawn.iter().filter(|(_, since)| **since <= revision);
        known.map(|(replacement, _)| replacement.clone()).collect()
    }
}

/// What is read of the world once a turn. The records that the turn stores are told of by the same reading.
pub(super) struct Reading {
    /// Which watches showed an old picture before the snapshot was taken.
    pub(super) freshness: Freshness,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) configs: BTreeMap<PoolName, PoolConfig>,
}

impl Reading {
    pub(super) fn of(deps: &Deps) -> Self {
        // In this order: what is current now is so in the snapshot, too.
        let freshness = deps.view.freshness();
        Self { freshness, snapshot: deps.view.snapshot(), configs: deps.pools() }
    }
}

/// A notice that is believed.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) notice: Arc<InterruptionNotice>,
    /// Its deadline, if EC2 may have given it.
    pub(super) deadline: Option<Timestamp>,
    pub(super) proof: Proof,
}

#[cfg(test)]
mod tests {
    use super::*;
    use spot_guard_core::record::GroupKind;
    use spot_guard_core::scaling::wants::Want;

    fn picture(wants: &[(&str, Want)]) -> ScaleGroups {
        let wants = wants.iter().map(|(name, want)| ((GroupKind::Spot, (*name).into()), want.clone()));
        ScaleGroups { wants: wants.collect(), ..ScaleGroups::default() }
    }

    #[test]
    fn a_replacement_counts_as_withdrawn_by_who_knows_the_picture_that_says_so() {
        let mut sent = SentWants::default();
        let first = sent.revise(picture(&[("a", Want::Nothing)]), 0).revision;
        assert_eq!(sent.revise(picture(&[("a", Want::Nothing)]), 0).revision, first, "nothing has changed");
        let second = sent.revise(picture(&[("a", Want::Done), ("b", Want::Nothing)]), 0).revision;
        assert!(second > first && first > Revision::default());
        assert!(sent.withdrawn_by(Revision::default()).is_empty());
        assert_eq!(sent.withdrawn_by(first).into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(sent.withdrawn_by(second).into_iter().collect::<Vec<_>>(), ["a", "b"]);
        sent.revise(picture(&[("b", Want::Nothing)]), 0);
        assert_eq!(sent.withdrawn_by(second).into_iter().collect::<Vec<_>>(), ["b"]);

        let later = SentWants::default().revise(picture(&[]), 1).revision;
        assert!(later > second, "what an earlier life has sent says nothing of a later one");
    }
}
