//! Whether the thread of the actors still runs.
//!
//! All actors share a thread. A handler that blocks it stops them all and their supervisor with them, and
//! nothing in the process can replace it. So the HTTP API, whose threads are others, says so: the liveness
//! probe fails, and Kubernetes restarts the process. Its lease has run out by then, and another replica acts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A thread that has not run for so long is taken for dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// How often the thread shows that it runs.
const BEAT: Duration = Duration::from_secs(1);

/// When a thread ran last, by the machine's clock: simulated time stands still while a thread is blocked.
#[derive(Clone, Debug)]
pub struct Liveness(Arc<Mutex<Instant>>);

impl Liveness {
    /// Follows the thread that calls this, inside an actix system, for as long as it is asked about.
    #[must_use]
    pub fn of_this_thread() -> Self {
        let last = Arc::new(Mutex::new(Instant::now()));
        let beats = Arc::downgrade(&last);
        actix::spawn(async move {
            while let Some(last) = beats.upgrade() {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                drop(last);
                tokio::time::sleep(BEAT).await;
            }
        });
        Self(last)
    }

    /// How long the thread has not run, if that is longer than `limit`.
    #[must_use]
    pub fn silent_for(&self, limit: Duration) -> Option<Duration> {
        let silent = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        (silent > limit).then_some(silent)
    }
}

#[cfg(test)]
impl Liveness {
    /// Of a thread that ran last so long ago.
    pub(crate) fn silent_since(ago: Duration) -> Self {
        let then = Instant::now().checked_sub(ago).expect("the machine runs for longer");
        Self(Arc::new(Mutex::new(then)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    /// Waits for what other threads bring about.
    fn wait_for(what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(20), "waited 20 s for {what}");
            thread::yield_now();
        }
    }

    #[test]
    fn a_blocked_thread_is_seen_from_another_one_and_so_is_its_recovery() {
        let (told, liveness) = mpsc::channel();
        let (unblock, blocked) = mpsc::channel::<()>();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let actors = thread::spawn(move || {
            actix::System::new().block_on(async move {
                told.send(Liveness::of_this_thread()).expect("the test listens");
                tokio::task::yield_now().await;
                blocked.recv().expect("the test unblocks");
                ended.await.expect("the test ends it");
            });
        });
        let liveness = liveness.recv().expect("the thread starts");
        let limit = BEAT * 2;
        assert_eq!(liveness.silent_for(limit), None);
        wait_for("the thread to be taken for dead", || liveness.silent_for(limit).is_some());
        unblock.send(()).expect("the thread waits");
        wait_for("the thread to run again", || liveness.silent_for(limit).is_none());
        end.send(()).expect("the thread runs");
        actors.join().expect("the thread ends");
    }
}
