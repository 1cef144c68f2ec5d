//! What is remembered of a replacement.

mod regions;
mod status;
mod words;

pub use crate::group_kind::GroupKind;
#[cfg(test)]
pub(crate) use regions::diagram::not_taken;
pub use regions::{
    CapacityState, FallbackState, Guarded, OldDrain, OldNodeState, OpenFallback, Region, Transition,
};
pub use status::{MAX_STEPS, ReplacementStatus};
pub use words::{
    BlockingReason, Capacity, Condition, DrainPurpose, Excess, FlowBox, MAX_MESSAGE, NoticeKind, Outcome,
    Phase, ReplacedBy, StepRecord, UtilisationPercent, clipped, set_condition,
};
