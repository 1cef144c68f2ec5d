//! Numbers that change in time.

use jiff::Timestamp;

/// Milliseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000;

/// The time in milliseconds.
pub(super) fn millis(at: Timestamp) -> i64 {
    at.as_millisecond()
}

/// The time of these milliseconds.
pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or_default()
}

/// Milliseconds, or their product with instances, as hours with two decimals.
pub(super) fn hours(millis: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "hours of six weeks are far below 2^52")]
    let hundredths = ((millis + HOUR / 200) / (HOUR / 100)) as f64;
    hundredths / 100.0
}

/// A number that keeps its value until the next change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    first: i64,
    /// When it changed, milliseconds in order, and to what.
    changes: Vec<(i64, i64)>,
}

impl Steps {
    /// A number with its changes, in any order; of several at one time the last one counts.
    pub(super) fn of(first: i64, mut changes: Vec<(i64, i64)>) -> Self {
        changes.sort_by_key(|(at, _)| *at);
        Self { first, changes }
    }

    /// A number with what was added when, in any order.
    pub(super) fn summed(first: i64, mut added: Vec<(i64, i64)>) -> Self {
        added.sort_by_key(|(at, _)| *at);
        let mut value = first;
        for (_, change) in &mut added {
            value += *change;
            *change = value;
        }
        Self { first, changes: added }
    }

    /// Its value at a time, after what changed then.
    pub(super) fn at(&self, at: i64) -> i64 {
        let done = self.changes.partition_point(|(changed, _)| *changed <= at);
        done.checked_sub(1).map_or(self.first, |last| self.changes[last].1)
    }

    /// Its changes, in order.
    pub(super) fn changes(&self) -> &[(i64, i64)] {
        &self.changes
    }

    /// What two numbers make together.
    pub(super) fn with(&self, other: &Self, make: impl Fn(i64, i64) -> i64) -> Self {
        let (mut own, mut others) = (self.changes.as_slice(), other.changes.as_slice());
        let (mut left, mut right) = (self.first, other.first);
        let mut changes = Vec::with_capacity(own.len() + others.len());
        loop {
            let next = [own.first(), others.first()].into_iter().flatten().map(|(at, _)| *at).min();
            let Some(at) = next else { break };
            while let Some(((_, value), rest)) = own.split_first().filter(|((changed, _), _)| *changed == at)
            {
                (left, own) = (*value, rest);
            }
            while let Some(((_, value), rest)) =
                others.split_first().filter(|((changed, _), _)| *changed == at)
            {
                (right, others) = (*value, rest);
            }
            changes.push((at, make(left, right)));
        }
        Self { first: make(self.first, other.first), changes }
    }

    /// The sum of its value over a time, times milliseconds.
    pub(super) fn sum(&self, from: i64, to: i64) -> i64 {
        let (mut sum, mut since, mut value) = (0, from, self.at(from));
        let begin = self.changes.partition_point(|(changed, _)| *changed <= from);
        for (at, next) in self.changes[begin..].iter().take_while(|(at, _)| *at < to) {
            sum += value * (at - since);
            (since, value) = (*at, *next);
        }
        sum + value * (to - since).max(0)
    }

    /// One where it is above zero, else zero.
    pub(super) fn is_positive(&self) -> Self {
        let sign = |value: i64| i64::from(value > 0);
        let changes = self.changes.iter().map(|(at, value)| (*at, sign(*value)));
        Self { first: sign(self.first), changes: changes.collect() }
    }
}
