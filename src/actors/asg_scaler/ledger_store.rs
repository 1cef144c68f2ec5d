//! The ledger of a pool, as it is stored, and the finalizer that keeps the pool while it is needed.

use crate::crd::{OPEN_REQUESTS, SpotPool};
use crate::kube::problem::RequestProblem;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use spot_guard_core::ledger::Ledger;
use thiserror::Error;

/// A write that conflicts with that of somebody else is tried so often in a turn.
const ATTEMPTS: usize = 5;

/// Why the ledger could not be stored.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error("{}", RequestProblem(.0))]
    Kube(#[from] kube::Error),
    #[error("somebody else wrote the ledger of the pool")]
    NotTheWriter,
}

/// The ledger in the pool's status; each write is refused if the pool changed since it was read.
pub(super) struct LedgerStore {
    api: Api<SpotPool>,
    name: String,
    resource_version: Option<String>,
    pub(super) stored: Stored,
}

/// What the pool object held when it was read or written last.
#[derive(Clone, Default)]
pub(super) struct Stored {
    pub(super) ledger: Ledger,
    /// Whether the pool has our finalizer, so that it stays until nothing is owed.
    held: bool,
}

impl Stored {
    fn of(pool: SpotPool) -> Self {
        let held = pool.finalizers().iter().any(|held| held == OPEN_REQUESTS);
        Self { ledger: pool.status.unwrap_or_default().ledger, held }
    }
}

impl LedgerStore {
    pub(super) async fn open(
        api: Api<SpotPool>,
        name: &str,
        known: Option<Stored>,
    ) -> Result<Self, StoreError> {
        let mut store =
            Self { api, name: name.to_owned(), resource_version: None, stored: Stored::default() };
        store.stored = match known {
            Some(stored) => stored,
            None => store.read().await?,
        };
        Ok(store)
    }

    async fn read(&mut self) -> Result<Stored, StoreError> {
        let pool = self.api.get(&self.name).await?;
        self.resource_version = pool.resource_version();
        Ok(Stored::of(pool))
    }

    /// Stores the ledger if it differs. The pool gets our finalizer before anything is owed, and loses it
    /// after nothing is.
    pub(super) async fn write(&mut self, next: Ledger) -> Result<bool, StoreError> {
        let is_owing = next.is_owing();
        if is_owing {
            self.hold(true).await?;
        }
        let changed = next != self.stored.ledger;
        if changed {
            self.write_ledger(next).await?;
        }
        if !is_owing {
            self.hold(false).await?;
        }
        Ok(changed)
    }

    /// Sets or removes our finalizer, and leaves those of others.
    async fn hold(&mut self, wanted: bool) -> Result<(), StoreError> {
        if self.stored.held == wanted {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let pool = self.api.get(&self.name).await?;
            let mut finalizers = pool.finalizers().to_vec();
            finalizers.retain(|held| held != OPEN_REQUESTS);
            finalizers.extend(wanted.then(|| OPEN_REQUESTS.to_owned()));
            let metadata =
                serde_json::json!({ "resourceVersion": pool.resource_version(), "finalizers": finalizers });
            if Stored::of(pool).ledger != self.stored.ledger {
                return Err(StoreError::NotTheWriter);
            }
            let body = Patch::Merge(serde_json::json!({ "metadata": metadata }));
            match self.api.patch(&self.name, &PatchParams::default(), &body).await {
                Ok(_) => {
                    (self.stored.held, self.resource_version) = (wanted, None);
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::NotTheWriter)
    }

    /// Others write the rest of the status: on a conflict the pool is read again, and the write goes on only
    /// if its ledger is still the one that we know.
    async fn write_ledger(&mut self, next: Ledger) -> Result<(), StoreError> {
        for _ in 0..ATTEMPTS {
            if self.resource_version.is_none() && self.read().await?.ledger != self.stored.ledger {
                return Err(StoreError::NotTheWriter);
            }
            let body = serde_json::json!({
                "metadata": { "resourceVersion": self.resource_version },
                "status": {
                    "scalingRequests": next.scaling_requests,
                    "reduction": next.reduction,
                    "leftBehind": next.left_behind,
                    "cannotLaunch": next.cannot_launch,
                    "desiredSeen": next.desired_seen,
                    "doubts": next.doubts,
                    "emptyPlaces": next.empty_places,
                    "excess": next.excess,
                },
            });
            match self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&body)).await {
                Ok(pool) => {
                    self.resource_version = pool.resource_version();
                    self.stored.ledger = next;
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 409 => self.resource_version = None,
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::NotTheWriter)
    }
}
