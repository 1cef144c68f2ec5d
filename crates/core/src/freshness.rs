//! How far the watches can be relied on: no irreversible step is taken on a picture that is known to be old.

use jiff::Timestamp;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WatchedKind {
    /// Nodes.
    Node,
    /// CSINodes.
    CsiNode,
    /// Pods.
    Pod,
    /// PodDisruptionBudgets.
    DisruptionBudget,
    /// PersistentVolumeClaims.
    Claim,
    /// PersistentVolumes.
    Volume,
    /// VolumeAttachments.
    Attachment,
    /// CSIDrivers.
    Driver,
    /// StorageClasses.
    StorageClass,
    /// Namespaces.
    Namespace,
    /// SpotPools.
    Pool,
    /// InterruptionNotices.
    Notice,
    /// NodeReplacements.
    Replacement,
    /// SpotActions.
    SpotAction,
}

impl WatchedKind {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::Node,
        Self::CsiNode,
        Self::Pod,
        Self::DisruptionBudget,
        Self::Claim,
        Self::Volume,
        Self::Attachment,
        Self::Driver,
        Self::StorageClass,
        Self::Namespace,
        Self::Pool,
        Self::Notice,
        Self::Replacement,
        Self::SpotAction,
    ];

    /// The plural by which the Kubernetes API knows the kind.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::CsiNode => "csinodes",
            Self::Pod => "pods",
            Self::DisruptionBudget => "poddisruptionbudgets",
            Self::Claim => "persistentvolumeclaims",
            Self::Volume => "persistentvolumes",
            Self::Attachment => "volumeattachments",
            Self::Driver => "csidrivers",
            Self::StorageClass => "storageclasses",
            Self::Namespace => "namespaces",
            Self::Pool => "spotpools",
            Self::Notice => "interruptionnotices",
            Self::Replacement => "nodereplacements",
            Self::SpotAction => "spotactions",
        }
    }
}

/// A watch whose picture is old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleWatch {
    /// What it watches.
    pub kind: WatchedKind,
    /// When its picture was last known to be current.
    pub since: Timestamp,
}

/// The watches whose picture is old; none: everything is current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// In the order of their kinds.
    pub stale: Vec<StaleWatch>,
}

/// A step that is not to be taken on an old picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A drain counts as finished, an instance is ended before its deadline, a return is given up.
    End,
    /// A return begins: its pods have to find their place elsewhere, with their volumes.
    Return,
    /// A mark that no record accounts for is taken off.
    Undo,
}

impl Step {
    /// What it is judged by. SpotActions are none of it: they only ask, and what they ask for is judged like
    /// the rest.
    #[must_use]
    pub fn looks_at(self) -> &'static [WatchedKind] {
        use WatchedKind::*;
        match self {
            Self::End => &[Node, Pod, DisruptionBudget, Pool, Notice, Replacement],
            Self::Return => &[
                Node,
                CsiNode,
                Pod,
                DisruptionBudget,
                Claim,
                Volume,
                Attachment,
                Driver,
                StorageClass,
                Namespace,
                Pool,
                Notice,
                Replacement,
            ],
            Self::Undo => &[Node, Pool, Replacement],
        }
    }
}

impl Freshness {
    /// The watches that a step looks at and that show an old picture; none: the step may be taken.
    #[must_use]
    pub fn against(&self, step: Step) -> Vec<StaleWatch> {
        let looked_at = |watch: &&StaleWatch| step.looks_at().contains(&watch.kind);
        self.stale.iter().filter(looked_at).cloned().collect()
    }

    /// Whether everything that a step looks at is current.
    #[must_use]
    pub fn allows(&self, step: Step) -> bool {
        !self.stale.iter().any(|watch| step.looks_at().contains(&watch.kind))
    }

    /// Whether the picture of this kind is current.
    #[must_use]
    pub fn is_current(&self, kind: WatchedKind) -> bool {
        !self.stale.iter().any(|watch| watch.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_waits_for_what_it_is_judged_by_and_for_nothing_else() {
        let since: Timestamp = "2026-01-01T03:00:00Z".parse().expect("a time");
        let of = |kind| Freshness { stale: vec![StaleWatch { kind, since }] };
        for (kind, end, begin, undo) in [
            (WatchedKind::Pod, false, false, true),
            (WatchedKind::Node, false, false, false),
            (WatchedKind::DisruptionBudget, false, false, true),
            (WatchedKind::Claim, true, false, true),
            (WatchedKind::Volume, true, false, true),
            (WatchedKind::CsiNode, true, false, true),
            (WatchedKind::Attachment, true, false, true),
            (WatchedKind::Driver, true, false, true),
            (WatchedKind::StorageClass, true, false, true),
            (WatchedKind::Namespace, true, false, true),
            (WatchedKind::Notice, false, false, true),
            (WatchedKind::Pool, false, false, false),
            (WatchedKind::Replacement, false, false, false),
            (WatchedKind::SpotAction, true, true, true),
        ] {
            let freshness = of(kind);
            let allowed = [Step::End, Step::Return, Step::Undo].map(|step| freshness.allows(step));
            assert_eq!(allowed, [end, begin, undo], "{kind:?}");
            assert!(!freshness.is_current(kind));
        }
        assert_eq!(of(WatchedKind::Pod).against(Step::End), [StaleWatch { kind: WatchedKind::Pod, since }]);
        assert!(Freshness::default().against(Step::Return).is_empty());
    }
}
