//! A cluster in memory, and the loop of its controllers.

use super::world::World;
use crate::clock::CloudClock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A cluster in memory. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster {
    world: Arc<Mutex<World>>,
    pub(super) wake: Arc<Notify>,
}

impl Cluster {
    /// An empty cluster. What it makes up (uids, names) follows from `seed`.
    #[must_use]
    pub fn new(clock: CloudClock, seed: u64) -> Self {
        let wake = Arc::new(Notify::new());
        Self { world: Arc::new(Mutex::new(World::new(clock, seed, Arc::clone(&wake)))), wake }
    }

    /// The built-in controllers: runs until dropped, and only when something changed or is due.
    pub async fn run(self) {
        loop {
            let (next, lag) = {
                let mut world = self.world();
                world.reconcile();
                (world.until_next_job(), world.timing.control_lag)
            };
            let due = async {
                match next {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => tokio::time::sleep(lag).await,
                () = due => {}
            }
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // A panic elsewhere while it was locked is that test's failure; the state is whole after each step.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
