//! One reading of many groups: looks of many pools that come in the same moment become one call.
//!
//! So the calls that describe groups grow with groups / 50, not with pools, replacements or nodes. All
//! calls of an account and a Region share one bucket, so they are worth saving.

use super::answer::{CallError, Described};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a look that nothing waits for lets others join it. One that a replacement waits for goes at
/// once: it comes before each call that changes something.
const WINDOW: Duration = Duration::from_millis(10);

type Answer = Shared<BoxFuture<'static, Result<Arc<Described>, CallError>>>;

/// The looks that wait for the next call; clones share them.
#[derive(Clone, Default)]
pub(super) struct Listing {
    next: Arc<Mutex<Option<Batch>>>,
}

struct Batch {
    names: BTreeSet<String>,
    answer: Answer,
}

impl Listing {
    /// The groups of these names, and of whoever asked in the same moment, by one call of `describe`.
    pub(super) async fn read<F>(
        &self,
        names: &[String],
        urgent: bool,
        describe: impl FnOnce(Vec<String>) -> F + Send + 'static,
    ) -> Result<Arc<Described>, CallError>
    where
        F: Future<Output = Result<Described, CallError>> + Send + 'static,
    {
        let answer = {
            let mut next = self.lock();
            let batch = next
                .get_or_insert_with(|| Batch { names: BTreeSet::new(), answer: self.call(urgent, describe) });
            batch.names.extend(names.iter().cloned());
            batch.answer.clone()
        };
        answer.await
    }

    /// The call: who comes once it has begun waits for the next one, since its answer may be older than his
    /// question.
    fn call<F>(&self, urgent: bool, describe: impl FnOnce(Vec<String>) -> F + Send + 'static) -> Answer
    where
        F: Future<Output = Result<Described, CallError>> + Send + 'static,
    {
        let listing = self.clone();
        let call = async move {
            if !urgent {
                tokio::time::sleep(WINDOW).await;
            }
            let names = listing.lock().take().map(|batch| batch.names).unwrap_or_default();
            describe(names.into_iter().collect()).await.map(Arc::new)
        };
        call.boxed().shared()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
