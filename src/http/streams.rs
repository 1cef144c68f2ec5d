//! The places for streams of events: so many in all, and so many of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Streams that are served at the same time by one replica.
const MAX_STREAMS: usize = 32;
/// Streams of one user, so that nobody takes the places of all others.
const MAX_OF_CALLER: usize = 4;

/// The streams of one replica that are open.
#[derive(Debug)]
pub struct Streams {
    all: Arc<Semaphore>,
    of_callers: Mutex<HashMap<String, usize>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_STREAMS)), of_callers: Mutex::default() }
    }
}

impl Streams {
    /// How many more may be opened.
    #[must_use]
    pub fn available_permits(&self) -> usize {
        self.all.available_permits()
    }

    /// A place for one more stream; why not, if there is none. Nobody is counted where nobody says who they
    /// are.
    pub(super) fn open(self: &Arc<Self>, caller: Option<&str>) -> Result<Place, String> {
        let full = |_| format!("{MAX_STREAMS} streams are open already");
        let permit = self.all.clone().try_acquire_owned().map_err(full)?;
        if let Some(caller) = caller {
            let mut of_callers = self.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
            let count = of_callers.entry(caller.to_owned()).or_default();
            if *count >= MAX_OF_CALLER {
                return Err(format!("{MAX_OF_CALLER} streams of this user are open already"));
            }
            *count += 1;
        }
        Ok(Place { streams: self.clone(), caller: caller.map(str::to_owned), _permit: permit })
    }
}

/// The place of a stream, free again when it is dropped.
pub(super) struct Place {
    streams: Arc<Streams>,
    caller: Option<String>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(caller) = self.caller.take() else { return };
        let mut of_callers = self.streams.of_callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_callers.get_mut(&caller) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                of_callers.remove(&caller);
            }
        }
    }
}
