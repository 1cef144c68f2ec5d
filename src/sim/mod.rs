//! The simulated cloud: a world in memory that speaks the real protocols. Demos and tests run the product
//! against it unchanged.

pub mod audit;
pub mod crash;
pub mod demo;
pub mod kubelet;
pub mod nodes;
pub mod outcome;
pub mod run;
pub mod scenario;
mod start;
pub mod world;

use crate::clock::Clock;

/// The simulated cloud has the true time, also when the product's clock is set wrong.
impl From<Clock> for spot_guard_cloud::clock::CloudClock {
    fn from(clock: Clock) -> Self {
        match clock {
            Clock::System => Self::System,
            Clock::Simulated { epoch, origin } | Clock::Skewed { epoch, origin, .. } => {
                Self::Simulated { epoch, origin }
            }
            Clock::SetRight { own, .. } => (*own).into(),
        }
    }
}
