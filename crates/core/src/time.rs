//! Time that has passed. What time it is comes as an argument.

use jiff::Timestamp;
use std::time::Duration;

/// How long ago `then` was at `now`; zero if it lies ahead.
#[must_use]
pub fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// How far our own clock is behind the API server's, in milliseconds, by the `Date` of an answer (RFC 9110,
/// section 6.6.1: whole seconds). `sent` and `arrived` are by our own clock. `known` stays as long as the
/// answer does not contradict it by more than a second.
#[must_use]
pub fn behind_by(date: Timestamp, sent: Timestamp, arrived: Timestamp, known: i64) -> i64 {
    const SECOND: i64 = 1000;
    let millis = |at: Timestamp| at.as_millisecond();
    let least = millis(date) - millis(arrived);
    let most = millis(date) + SECOND - millis(sent);
    if (least - SECOND..=most + SECOND).contains(&known) { known } else { (least + most) / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_set_right_by_what_the_answers_say_and_left_alone_while_they_agree() {
        let at = |seconds: f64| Timestamp::from_millisecond((seconds * 1000.0) as i64).expect("a time");
        let behind = |date, sent, arrived, known| behind_by(at(date), at(sent), at(arrived), known);
        assert_eq!(behind(100.0, 100.1, 100.2, 0), 0);
        assert_eq!(behind(100.0, 100.9, 101.9, 0), 0, "a second more or less");
        assert_eq!(behind(130.0, 100.4, 100.6, 0), 30_000, "30 s behind");
        assert_eq!(behind(70.0, 100.4, 100.6, 0), -30_000, "30 s ahead");
        assert_eq!(behind(131.0, 100.9, 101.1, 30_000), 30_000, "known already");
        assert_eq!(behind(105.0, 100.0, 110.0, 0), 0, "a slow answer says little");
        assert_eq!(behind(200.0, 200.0, 200.1, 30_000), 450, "somebody has set our clock");
    }
}
