//! The messages of the queue.

use super::faults::ErrorAnswer;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// A message.
pub(super) struct Held {
    pub(super) body: String,
    pub(super) sent: Timestamp,
    /// From when on it is given out.
    pub(super) visible: Timestamp,
    pub(super) receives: u32,
    pub(super) first: Option<Timestamp>,
}

/// The queue as it is.
#[derive(Default)]
pub(super) struct MessageQueue {
    pub(super) rng: fastrand::Rng,
    pub(super) held: BTreeMap<u64, Held>,
    pub(super) dead: Vec<String>,
    /// What every call is refused with until then.
    pub(super) refused: Option<(Timestamp, ErrorAnswer)>,
}

impl MessageQueue {
    pub(super) fn seeded(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed.rotate_left(7)), ..Self::default() }
    }
}
