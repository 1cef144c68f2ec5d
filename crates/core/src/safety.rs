//! Box 9: may this on-demand node be drained?
//!
//! Yes if all its pods find a place together on the rest of the cluster, every PodDisruptionBudget lets them
//! go, and the pool keeps its buffer. If not, the report says what is in the way and what would clear it.

mod budgets;
mod buffer;
mod check;
mod context;
mod policy;
mod utilisation;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;

pub use crate::reason::Blocker;
pub use buffer::pool_utilisation;
pub use check::{SafetyReport, budgets_that_never_open, check_return, drained_beside, moving, shut_budgets};
pub use policy::{Drains, SafetyContext, SafetyPolicy};
pub use utilisation::Utilisation;
