//! Work on a snapshot, which may take a second: never on the thread of the actors.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Pieces of such work that are done at the same time: each keeps a core busy, and has its memory.
const AT_ONCE: usize = 2;
/// How long one waits for a place.
const WAIT: Duration = Duration::from_secs(10);

/// Where such work is done; clones share the places.
#[derive(Clone, Debug)]
pub enum Heavy {
    /// On threads of their own.
    Threads(Arc<Semaphore>),
    /// Where it is requested: only in a simulation on paused time, which has to be the same from run to
    /// run.
    Inline,
}

/// Others had all places for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlace;

impl Heavy {
    /// Off the thread of the actors.
    #[must_use]
    pub fn threads() -> Self {
        Self::Threads(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Does the work.
    ///
    /// # Errors
    /// If no place is free within 10 s.
    ///
    /// # Panics
    /// If the work does: where it is awaited, so that it counts as the actor's own panic.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoPlace> {
        let Self::Threads(places) = self else { return Ok(work()) };
        let Ok(Ok(place)) = timeout(WAIT, places.clone().acquire_owned()).await else { return Err(NoPlace) };
        let work = move || {
            let _place = place;
            work()
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only when the runtime ends, and then nobody waits for it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_the_work_is_done_elsewhere() {
        let began = Instant::now();
        let alarm = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Instant::now()
        });
        let main = std::thread::current().id();
        let heavy = Heavy::threads();
        let elsewhere = heavy.run(move || {
            // Real time passes, as it does with real work: a paused clock must not be moved on meanwhile.
            let busy = std::time::Instant::now();
            while busy.elapsed() < Duration::from_millis(50) {}
            std::thread::current().id() != main
        });
        assert_eq!(elsewhere.await, Ok(true));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(alarm.await.expect("the alarm goes off") - began, Duration::from_millis(1));
    }

    #[tokio::test]
    async fn the_smallest_work_is_done_elsewhere_but_in_a_simulation() {
        let main = std::thread::current().id();
        let here = move || std::thread::current().id() == main;
        assert_eq!(Heavy::threads().run(here).await, Ok(false));
        assert_eq!(Heavy::Inline.run(here).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_run_at_once_and_nobody_waits_for_ever() {
        let heavy = Heavy::threads();
        let (ends, running): (Vec<_>, Vec<_>) = (0..AT_ONCE)
            .map(|_| {
                let (end, ended) = mpsc::channel::<()>();
                let heavy = heavy.clone();
                (end, tokio::spawn(async move { heavy.run(move || ended.recv().is_err()).await }))
            })
            .unzip();
        tokio::task::yield_now().await;
        let Heavy::Threads(places) = &heavy else { panic!("threads are asked for") };
        assert_eq!(places.available_permits(), 0);
        let refused = tokio::spawn({
            let heavy = heavy.clone();
            async move { heavy.run(|| ()).await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(WAIT).await;
        assert_eq!(refused.await.expect("it is answered"), Err(NoPlace));
        drop(ends);
        for one in running {
            assert_eq!(one.await.expect("it ends"), Ok(true));
        }
        assert_eq!(heavy.run(|| 1).await, Ok(1));
    }

    #[tokio::test]
    #[should_panic(expected = "as the work did")]
    async fn a_panic_is_handed_on() {
        let _ = Heavy::threads().run(|| panic!("as the work did")).await;
    }
}
