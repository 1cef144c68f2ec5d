//! Spot Guard replaces a Spot node before AWS takes it, falls back to on-demand when Spot is dry, and brings
//! the cluster back to Spot when that is safe.

pub mod clock;
#[cfg(feature = "sim")]
pub mod sim;
