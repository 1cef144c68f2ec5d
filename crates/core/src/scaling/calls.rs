//! The calls that change a group.

use crate::ids::InstanceId;
use crate::ledger::{Ledger, Method, Reduction, ScalingRequest};
use crate::record::GroupKind;
use std::collections::BTreeSet;
use std::time::Duration;

/// The next call to make on a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// SetDesiredCapacity.
    SetDesired {
        /// Which group.
        group: GroupKind,
        /// The capacity to ask for.
        desired: i32,
    },
    /// LaunchInstances.
    Launch {
        /// Which group.
        group: GroupKind,
        /// The zone: one per call.
        zone: String,
        /// How many instances.
        count: i32,
        /// The client token.
        token: String,
    },
    /// TerminateInstanceInAutoScalingGroup.
    Terminate {
        /// Which group.
        group: GroupKind,
        /// Exactly this instance.
        instance_id: InstanceId,
        /// Whether desired capacity goes down with it.
        decrement: bool,
    },
}

impl Call {
    /// The call that a request is about, if it is still to be made.
    #[must_use]
    pub fn of(request: &ScalingRequest) -> Option<Self> {
        match &request.method {
            Method::SetDesiredCapacity {} => {
                Some(Self::SetDesired { group: request.group, desired: request.target })
            }
            Method::LaunchInstances { zones } => Some(Self::Launch {
                group: request.group,
                zone: zones.first()?.clone(),
                count: request.missing(),
                token: request.token(zones.len()),
            }),
        }
    }

    /// The group that it changes.
    #[must_use]
    pub fn group(&self) -> GroupKind {
        let (Self::SetDesired { group, .. } | Self::Terminate { group, .. } | Self::Launch { group, .. }) =
            self;
        *group
    }
}

/// A change may be missing from the listings for ten seconds, and [`crate::readings`] may take it for an
/// older picture for ten more.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// What LaunchInstances has launched is in desired capacity after so long, or never will be.
pub(crate) const COUNTED_WITHIN: Duration = Duration::from_secs(30);

/// What the readings do not tell for certain yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncertain {
    /// Groups whose reading was behind in desired capacity, or in which somebody else has just set it to what
    /// it was.
    pub desired: BTreeSet<GroupKind>,
    /// Groups whose desired capacity may still be raised by what LaunchInstances has launched.
    pub launches: BTreeSet<GroupKind>,
    /// Whether the reduction that was written last may still come to be seen.
    pub reduction: bool,
}

/// Changes that wait in this turn: AWS would not take them, because another one of the same group is under
/// way, or what became of the last one is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    unanswered: Option<Reduction>,
    uncertain: Uncertain,
    requests: BTreeSet<GroupKind>,
    reductions: BTreeSet<(GroupKind, Option<InstanceId>)>,
}

impl Deferred {
    /// What waits as a turn begins, with the ledger as it is stored.
    #[must_use]
    pub fn begin(ledger: &Ledger) -> Self {
        Self { unanswered: ledger.reduction.clone(), ..Self::default() }
    }

    /// Takes in what the last reading does not tell for certain.
    pub fn note_uncertain(&mut self, uncertain: Uncertain) {
        self.uncertain = uncertain;
    }

    /// Whether the desired capacity of the group is not known for certain: an absolute number from it would
    /// undo what somebody else may have changed.
    #[must_use]
    pub fn is_behind(&self, group: GroupKind) -> bool {
        self.uncertain.desired.contains(&group)
    }

    /// Whether LaunchInstances may still raise the desired capacity of the group.
    #[must_use]
    pub fn is_launching(&self, group: GroupKind) -> bool {
        self.uncertain.launches.contains(&group)
    }

    /// Whether the reduction that was written last may still come to be seen in a listing.
    #[must_use]
    pub fn is_reduction_young(&self) -> bool {
        self.uncertain.reduction
    }

    /// Whether the answer to this reduction's call was lost, so that a listing tells what became of it.
    #[must_use]
    pub fn is_unanswered(&self, reduction: &Reduction) -> bool {
        self.unanswered.as_ref() == Some(reduction)
    }

    /// Takes in that AWS would not take this call now.
    pub fn add(&mut self, ledger: &mut Ledger, call: &Call) {
        self.hold(ledger, call);
        ledger.reduction.take_if(|reduction| reduction.group == call.group());
    }

    /// Takes in that this call is not to be repeated in this turn. What it announced stays in the ledger.
    pub fn hold(&mut self, ledger: &Ledger, call: &Call) {
        let group = call.group();
        match ledger.reduction.as_ref().filter(|reduction| reduction.group == group) {
            Some(reduction) => {
                self.reductions.insert((group, reduction.instance_id.clone()));
            }
            None => {
                self.requests.insert(group);
            }
        }
    }

    /// Whether no request is to be made of the group in this turn.
    #[must_use]
    pub fn requests_of(&self, group: GroupKind) -> bool {
        self.requests.contains(&group)
    }

    /// Whether the desired capacity of the group is not to be lowered in this turn.
    #[must_use]
    pub fn lowering(&self, group: GroupKind) -> bool {
        self.reductions.contains(&(group, None)) || self.is_behind(group)
    }

    /// Whether the instance is not to be terminated in this turn.
    #[must_use]
    pub fn ending(&self, group: GroupKind, instance_id: &InstanceId) -> bool {
        self.reductions.contains(&(group, Some(instance_id.clone())))
    }
}
