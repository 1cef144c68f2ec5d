//! Time that has passed. What time it is comes as an argument.

use jiff::Timestamp;
use std::time::Duration;

/// How long ago `then` was at `now`; zero if it lies ahead.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}
