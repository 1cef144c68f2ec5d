//! A warning that repeats is logged once a minute: an outage of hours would bury what matters.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};

/// The same warning is logged once in this time.
const ONCE_IN: Duration = Duration::from_secs(60);
/// Most warnings that are remembered.
const REMEMBERED: usize = 1024;

/// Lets a warning or an error pass if the same one was not logged within the last minute.
///
/// Two are the same if they come from one place in the code and are about the same things. What only counts
/// or measures makes no difference: numbers, and in a text of several words times, durations and the id that
/// AWS gives a request. So a place in the code that warns of what lasts does so each time, not once.
#[derive(Debug, Default)]
pub struct Repeats {
    logged: Mutex<HashMap<u64, Instant>>,
}

impl Repeats {
    fn is_due(&self, line: u64) -> bool {
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&line).is_some_and(|at| now.duration_since(*at) < ONCE_IN) {
            return false;
        }
        if logged.len() >= REMEMBERED {
            logged.retain(|_, at| now.duration_since(*at) < ONCE_IN);
        }
        if logged.len() >= REMEMBERED {
            logged.clear();
        }
        logged.insert(line, now);
        true
    }
}

/// The interest in a place of the code stays `sometimes`, as by default: with `always` the registry forgets
/// that a filter may still refuse the event (tracing-subscriber 0.3.23, `FilterState::event_enabled`).
impl<S: Subscriber> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::WARN {
            return true;
        }
        let mut line = Line(DefaultHasher::new());
        event.metadata().callsite().hash(&mut line.0);
        event.record(&mut line);
        self.is_due(line.0.finish())
    }
}

/// What a line is about.
struct Line(DefaultHasher);

impl Line {
    fn add(&mut self, field: &Field, text: &str) {
        field.name().hash(&mut self.0);
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(only), None) => only.hash(&mut self.0),
            _ => {
                let words = text.split_whitespace().filter(|word| !only_measures(word));
                words.for_each(|word| word.hash(&mut self.0));
            }
        }
    }
}

/// Whether a word of a text is a number, a time, a duration, or the id of a request: a UUID. An address is
/// none of them.
fn only_measures(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let count = |wanted: u8| word.bytes().filter(|byte| *byte == wanted).count();
    let of_number = |byte: u8| byte.is_ascii_digit() || b".:-+TZsmhnu%".contains(&byte);
    let is_uuid = word.len() == 36 && count(b'-') == 4;
    let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(of_number);
    is_uuid || is_number && count(b'.') < 3
}

impl Visit for Line {
    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_u64(&mut self, _: &Field, _: u64) {}

    fn record_str(&mut self, field: &Field, text: &str) {
        self.add(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    /// Counts what passes.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<Vec<Level>>>);

    impl Passed {
        fn count(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }

    fn fails(pool: &str, error: &str, attempt: u32) {
        tracing::warn!(pool, error = %error, attempt, "the groups could not be read");
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_warning_is_logged_once_a_minute_whatever_it_counts() {
        const REFUSED: &str = "AWS refuses after 3.2s (request 0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9)";
        const REFUSED_LATER: &str = "AWS refuses after 41s (request fa1b2c3d-4e5f-6071-8293-a4b5c6d7e8f0)";
        let passed = Passed::default();
        let layer = passed.clone().with_filter(Repeats::default());
        let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        fails("web", REFUSED, 1);
        fails("web", REFUSED_LATER, 2);
        assert_eq!(passed.count(), 1, "another attempt says nothing new");
        fails("api", REFUSED, 1);
        assert_eq!(passed.count(), 2, "another pool does");
        fails("web", "AWS cannot be reached", 3);
        assert_eq!(passed.count(), 3, "another cause does");
        for (pool, error) in [("1-web", REFUSED), ("2-web", REFUSED)] {
            fails(pool, error, 1);
        }
        for address in ["10.0.0.1", "10.0.0.2"] {
            fails("web", &format!("no connection to {address} after 3 s"), 1);
        }
        assert_eq!(passed.count(), 7, "a digit in front makes no name a number");
        passed.0.lock().unwrap().truncate(3);
        tokio::time::advance(ONCE_IN - Duration::from_millis(1)).await;
        fails("web", REFUSED, 4);
        assert_eq!(passed.count(), 3);
        tokio::time::advance(Duration::from_millis(1)).await;
        fails("web", REFUSED, 5);
        assert_eq!(passed.count(), 4, "a minute later it is said again");
        (0..3).for_each(|_| tracing::info!("a step"));
        assert_eq!(passed.count(), 7, "facts are never left out");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let repeats = Repeats::default();
        for line in 0..3 * REMEMBERED as u64 {
            assert!(repeats.is_due(line));
            assert!(repeats.logged.lock().unwrap().len() <= REMEMBERED);
        }
    }
}
