//! The drain of a node: which pods go, in what order, and what follows from each answer of the eviction API.
//! [`Drain`] puts the rules together for one drain on its way.

mod budgets;
mod look;
mod looks;
mod marking;
mod moment;
mod orders;
mod progress;
mod requests;
mod rescheduled;
mod rules;
#[cfg(test)]
mod tests;

pub use crate::reason::{BlockedReason, EvictionAnswer};
pub use crate::record::DrainPurpose as Purpose;
pub use look::{Listed, ListedPod, Look, Sight};
pub use looks::Looks;
pub use marking::{Marking, MarksSet};
pub use moment::Moment;
pub use orders::{DrainCommand, DrainEnd, DrainReport, NodeInstance, Order, one_for_each_node};
pub use progress::Drain;
pub use rules::{
    BudgetView, Deletion, DrainClock, DrainPolicy, NextStep, PodFate, SkipReason, Turn, budget_view,
    classify, eviction_order, holds_its_node, ignores_marks, must_move, next_step, overdue, turns,
};
pub(crate) use rules::{CORDON, fate_under_notice};
