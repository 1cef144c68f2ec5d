//! The time of a drain.

use jiff::Timestamp;
use std::time::Duration;

/// The time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the clock on the wall, as deadlines are given.
    pub at: Timestamp,
    /// Since some moment that stays the same, by a clock that nobody sets.
    pub up: Duration,
}
