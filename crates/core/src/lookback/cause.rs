//! The words of a scaling activity: which instance, and what they say of the group's capacity.
//!
//! Texts: EC2 Auto Scaling User Guide, "Verify a scaling activity for an Auto Scaling group", "View the
//! reason for health check failures", "Temporarily remove instances"; API Reference, DetachInstances,
//! EnterStandby.

use super::report::LossReason;
use super::timeline::millis;
use crate::ids::InstanceId;
use jiff::Timestamp;

/// What an activity does, and with which instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// A launch; one that failed early names no instance.
    Launch(Option<InstanceId>),
    /// The instance comes: attached, or back from standby.
    Come(InstanceId),
    /// The instance is terminated.
    Terminate(InstanceId),
    /// The instance goes otherwise: detached, or to standby.
    Go(InstanceId),
    /// A scale-in that found nothing that it may terminate.
    Nothing,
}

/// What a description says; nothing if it is of no known kind.
pub(super) fn deed(description: &str) -> Option<Deed> {
    let instance = || InstanceId::named_in(description);
    let begins = |beginning: &str| description.starts_with(beginning);
    if begins("Launching a new EC2") {
        Some(Deed::Launch(instance()))
    } else if begins("Attaching") || begins("Moving EC2 instance out") {
        instance().map(Deed::Come)
    } else if begins("Terminating EC2 instance") {
        instance().map(Deed::Terminate)
    } else if begins("Detaching") || begins("Moving EC2 instance to") {
        instance().map(Deed::Go)
    } else if begins("Could not scale") {
        Some(Deed::Nothing)
    } else {
        None
    }
}

/// What a sentence of a cause says of desired capacity, in instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Saying {
    /// When it was so, milliseconds.
    pub at: i64,
    /// What it was before, if the sentence says that it was changed.
    pub before: Option<i64>,
    /// What it was then.
    pub after: i64,
}

/// The sentences of a cause: each begins with `At` and a time.
fn sentences(cause: &str) -> Vec<(Timestamp, &str)> {
    let begins = cause.match_indices("At ").filter_map(|(at, _)| {
        let word = cause[at + 3..].split(' ').next()?;
        Some((at, word.parse::<Timestamp>().ok()?))
    });
    let begins: Vec<_> = begins.collect();
    let ends = begins.iter().skip(1).map(|(at, _)| *at).chain([cause.len()]);
    begins.iter().zip(ends).map(|((at, time), end)| (*time, &cause[*at..end])).collect()
}

/// The numbers after these words: `from 5 to 6`. No group is nearly as large as the largest one that is read.
fn numbers(sentence: &str, words: &str) -> Option<(i64, i64)> {
    let number = |digits: &str| digits.parse::<u32>().ok().filter(|count| *count <= MOST).map(i64::from);
    let (_, after) = sentence.split_once(words)?;
    let (before, after) = after.trim_start().strip_prefix("from ")?.split_once(" to ")?;
    let digits = after.split(|letter: char| !letter.is_ascii_digit()).next()?;
    Some((number(before)?, number(digits)?))
}

/// The largest number of instances that is believed: sums over weeks stay far within 64 bits.
const MOST: u32 = 1_000_000;

/// What a cause says of desired capacity.
///
/// `changing the desired capacity from 3 to 4` is a change. `in response to a difference between desired and
/// actual capacity, increasing the capacity from 3 to 5` says what it was then. In response to a user's
/// request about an instance the same words are a change.
pub(super) fn sayings(cause: &str) -> Vec<Saying> {
    let mut found = Vec::new();
    for (time, sentence) in sentences(cause) {
        let at = millis(time);
        if let Some((before, after)) = numbers(sentence, "changing the desired capacity") {
            found.push(Saying { at, before: Some(before), after });
        }
        let moved = ["increasing the capacity", "shrinking the capacity"];
        for (before, after) in moved.into_iter().filter_map(|words| numbers(sentence, words)) {
            let is_change = sentence.contains("user request");
            found.push(Saying { at, before: is_change.then_some(before), after });
        }
    }
    found
}

/// Words of which each known cause has some.
const KNOWN: &[&str] = &[
    "balancing the group",
    "between desired and actual",
    "changing the desired capacity",
    "health check",
    "health-check",
    "instance lifetime",
    "instance refresh",
    "launched instances synchronously",
    "lifecycle",
    "rebalanc",
    "scheduled reboot",
    "status check",
    "to even out",
    "unhealthy instance",
    "user request",
    "warm pool",
];

/// Whether a cause says anything that is known, and whole numbers where it speaks of capacity.
pub(super) fn is_readable(cause: &str) -> bool {
    let lower = cause.to_ascii_lowercase();
    let speaks = ["changing the desired", "increasing the capacity", "shrinking the capacity"];
    let is_of_numbers = speaks.iter().any(|words| lower.contains(words));
    (!is_of_numbers || !sayings(cause).is_empty())
        && (is_spot(&lower) || KNOWN.iter().any(|words| lower.contains(words)))
}

/// Whether it names Spot's own taking (EC2 API Reference, StateReason; EC2 User Guide, "Spot Instance
/// interruption notices").
fn is_spot(lower: &str) -> bool {
    ["spotinstancetermination", "spotinstanceshutdown", "interruption"]
        .iter()
        .any(|word| lower.contains(word))
}

/// Why an instance was lost, if nobody wanted it to go.
pub(super) fn loss(cause: &str, message: &str) -> Option<LossReason> {
    let lower = format!("{cause} {message}").to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if is_spot(&lower) {
        Some(LossReason::SpotInterruption)
    } else if lower.contains("rebalanc") && !lower.contains("zone") {
        Some(LossReason::Rebalance)
    } else if says(&["terminated or stopped", "system health-check"]) {
        Some(LossReason::TerminatedOrStopped)
    } else if says(&["health check", "health-check", "status check", "scheduled reboot"]) {
        Some(LossReason::Unhealthy)
    } else {
        None
    }
}
