//! The time in the simulated world.

use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// What time it is.
#[derive(Clone, Copy, Debug)]
pub enum CloudClock {
    /// The machine's clock.
    System,
    /// `epoch` plus what tokio's clock has run since `origin`.
    Simulated {
        /// What the clock showed at `origin`.
        epoch: Timestamp,
        /// The tokio instant at which the simulation began.
        origin: Instant,
    },
}

impl CloudClock {
    /// A clock that shows `epoch` now and follows tokio's clock from here on.
    ///
    /// Must be called inside a tokio runtime when its time is paused.
    #[must_use]
    pub fn simulated(epoch: Timestamp) -> Self {
        Self::Simulated { epoch, origin: Instant::now() }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "it is the one place that reads the machine's clock")]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Simulated { epoch, origin } => {
                let elapsed = Instant::now().saturating_duration_since(*origin);
                epoch.checked_add(elapsed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// How long ago `then` was at `now`; zero if it lies ahead.
#[must_use]
pub(crate) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}
