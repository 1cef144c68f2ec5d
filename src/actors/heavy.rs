//! Work that would block a mailbox.

/// Up to so many pods, work on a snapshot is done where it is asked for: it takes a few milliseconds, and a
/// simulation on paused time stays the same from run to run.
pub(crate) const INLINE_PODS: usize = 2_000;

/// Does work on a snapshot of `pods` pods on a thread of its own, unless it is small.
///
/// # Panics
/// If the work does: where it is awaited, so that it counts as the actor's own panic.
pub(crate) async fn off_thread<T: Send + 'static>(
    pods: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if pods <= INLINE_PODS {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime ends, and then nobody waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_the_work_is_done_elsewhere() {
        let began = Instant::now();
        let alarm = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Instant::now()
        });
        let main = std::thread::current().id();
        let elsewhere = off_thread(INLINE_PODS + 1, move || {
            // Real time passes, as it does with real work: a paused clock must not be moved on meanwhile.
            let busy = std::time::Instant::now();
            while busy.elapsed() < Duration::from_millis(50) {}
            std::thread::current().id() != main
        })
        .await;
        assert!(elsewhere);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(alarm.await.expect("the alarm goes off") - began, Duration::from_millis(1));
    }

    #[tokio::test]
    async fn little_work_is_done_at_once() {
        let main = std::thread::current().id();
        assert!(off_thread(INLINE_PODS, move || std::thread::current().id() == main).await);
    }

    #[tokio::test]
    #[should_panic(expected = "as the work did")]
    async fn a_panic_is_handed_on() {
        off_thread(INLINE_PODS + 1, || panic!("as the work did")).await;
    }
}
