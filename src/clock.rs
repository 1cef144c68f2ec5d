//! Where the time comes from.

use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The one source of wall-clock time of the whole process.
///
/// Decisions take the time as an argument; only actors and adapters read it here. `Simulated` follows
/// tokio's clock, so that a paused runtime moves the product and the simulated cloud together.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// `epoch` plus what tokio's clock has run since `origin`.
    Simulated {
        /// What the clock showed at `origin`.
        epoch: Timestamp,
        /// The tokio instant at which the simulation began.
        origin: Instant,
    },
    /// The same clock on a machine that shows another time.
    Skewed {
        /// What the clock would show at `origin`.
        epoch: Timestamp,
        /// The tokio instant at which the simulation began.
        origin: Instant,
        /// Milliseconds that it is ahead; whoever holds it may set the clock at any time.
        ahead: &'static AtomicI64,
    },
    /// Another clock, set right by somebody who knows better.
    SetRight {
        /// The clock.
        own: &'static Clock,
        /// Milliseconds that it is behind.
        behind: &'static AtomicI64,
    },
}

impl Clock {
    /// A clock that shows `epoch` now and follows tokio's clock from here on.
    ///
    /// Must be called inside a tokio runtime when its time is paused.
    #[must_use]
    pub fn simulated(epoch: Timestamp) -> Self {
        Self::Simulated { epoch, origin: Instant::now() }
    }

    /// A simulated clock with a setting of its own; the machine's clock stays as it is.
    #[must_use]
    pub fn skewed(self, ahead: &'static AtomicI64) -> Self {
        match self {
            Self::System | Self::SetRight { .. } => self,
            Self::Simulated { epoch, origin } | Self::Skewed { epoch, origin, .. } => {
                Self::Skewed { epoch, origin, ahead }
            }
        }
    }

    /// The same clock as it can be set right, by milliseconds that it is behind. One for the life of the
    /// process.
    #[must_use]
    pub fn to_be_set_right(self) -> (Self, &'static AtomicI64) {
        let behind: &'static AtomicI64 = Box::leak(Box::new(AtomicI64::new(0)));
        (Self::SetRight { own: Box::leak(Box::new(self)), behind }, behind)
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "it is the one place that reads the machine's clock")]
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let simulated = |epoch: &Timestamp, origin: &Instant| {
            let elapsed = Instant::now().saturating_duration_since(*origin);
            epoch.checked_add(elapsed).unwrap_or(Timestamp::MAX)
        };
        match self {
            Self::System => Timestamp::now(),
            Self::Simulated { epoch, origin } => simulated(epoch, origin),
            Self::Skewed { epoch, origin, ahead } => {
                let ahead = SignedDuration::from_millis(ahead.load(Ordering::Relaxed));
                simulated(epoch, origin).checked_add(ahead).unwrap_or(Timestamp::MAX)
            }
            Self::SetRight { own, behind } => {
                let behind = SignedDuration::from_millis(behind.load(Ordering::Relaxed));
                own.now().checked_add(behind).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// Between half of `pause` and all of it, so that what failed together does not come back together.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
