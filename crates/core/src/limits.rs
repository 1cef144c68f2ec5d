//! What holds voluntary work back: how many nodes are moved at a time and how old they must be, the brake, the
//! budget and the windows of returns, and pauses. A notice with a deadline passes all of them.

#[cfg(test)]
mod tests;

use crate::policy::{Policy, seconds};
use crate::record::{FlowBox, NoticeKind, Phase, ReplacementStatus};
use crate::scaling::PoolView;
use crate::time::since;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// A drain that is blocked for so long no longer counts as under way, if its replacement is there.
const BLOCKED_TOO_LONG: Duration = Duration::from_secs(600);
/// What the brake looks back at.
const BRAKE_PERIOD: Duration = Duration::from_secs(3600);

/// Who wants nothing to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// This pool is paused.
    Pool,
    /// All pools are.
    Everything,
    /// A trigger asked for it.
    Asked {
        /// Its name.
        trigger: String,
        /// Who asked.
        by: Option<String>,
        /// Whether all pools are paused, not only this one.
        everything: bool,
    },
}

impl Pause {
    /// In plain words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Pool => "the pool is paused (spec.paused)".to_owned(),
            Self::Everything => {
                "everything is paused (label spotguard.dev/paused on the namespace of Spot Guard)".to_owned()
            }
            Self::Asked { trigger, by, everything } => {
                let what = if *everything { "everything" } else { "the pool" };
                let by = by.as_ref().map_or_else(String::new, |by| format!(", asked for by {by}"));
                format!("{what} is paused (trigger {trigger}{by})")
            }
        }
    }
}

/// What stands against beginning a story in a pool now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// A pause.
    pub pause: Option<Pause>,
    /// As many stories as the pool allows at a time are under way: so many.
    pub full: Option<usize>,
}

/// How many stories may be under way in the pool at a time; at least one.
#[must_use]
pub fn at_most(policy: &Policy, view: Option<&PoolView>) -> usize {
    let share = view.map_or(usize::MAX, |view| {
        pool_size(view) * usize::try_from(policy.max_concurrent_percent).unwrap_or(100) / 100
    });
    usize::try_from(policy.max_concurrent_replacements).unwrap_or(usize::MAX).min(share).max(1)
}

/// Whether a story moves its node now: from its first request until the node is drained.
///
/// A doomed node keeps its marks however long a budget holds its drain up; that must not keep the others waiting.
#[must_use]
pub fn is_under_way(status: &ReplacementStatus, now: Timestamp) -> bool {
    if status.phase.is_finished() || status.phase == Phase::Received || status.old_node.is_past_drain() {
        return false;
    }
    let blocked = status
        .blocking
        .iter()
        .any(|reason| reason.flow_box == FlowBox::Drain && since(reason.since, now) >= BLOCKED_TOO_LONG);
    !status.old_node.is_over() && !(blocked && status.capacity.taken().is_some())
}

/// Why a story may not begin, if so; `created` is when its node was. What a person asked for passes the minimum age.
#[must_use]
pub fn start_held(
    starts: &Starts,
    policy: &Policy,
    notice: Option<NoticeKind>,
    created: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    if let Some(pause) = &starts.pause {
        return Some(pause.describe());
    }
    let counts = notice != Some(NoticeKind::Manual);
    if created
        .filter(|_| counts)
        .is_some_and(|created| since(created, now) < seconds(policy.min_node_age_seconds))
    {
        let age = policy.min_node_age_seconds;
        return Some(format!("the node is younger than {age} s (minNodeAgeSeconds)"));
    }
    let limit = starts.full?;
    Some(format!(
        "{limit} nodes of the pool are being moved, no more at a time (maxConcurrentReplacements, \
         maxConcurrentPercent)"
    ))
}

/// Which limits let no return begin in a pool now; `stories` are all that are known of it, finished ones too. For a
/// return that a person asked for only the brake counts, not the budget and the windows.
#[must_use]
pub fn returns_held<'a>(
    policy: &Policy,
    view: &PoolView,
    stories: impl Iterator<Item = &'a ReplacementStatus> + Clone,
    asked: bool,
    now: Timestamp,
) -> Vec<String> {
    let mut reasons = Vec::new();
    let within = |at: Option<Timestamp>, period| at.is_some_and(|at| since(at, now) < period);
    let notices = stories
        .clone()
        .filter(|story| story.notice != Some(NoticeKind::Manual) && within(story.started_at, BRAKE_PERIOD))
        .count();
    let brake = brake_at(policy, view);
    if notices > brake {
        reasons.push(format!(
            "more than {brake} interruptions within an hour: the pool stays on on-demand (brakeInterruptions, \
             brakePercent)"
        ));
    }
    if asked {
        return reasons;
    }
    let period = seconds(policy.return_budget_seconds);
    let begun = stories.filter(|story| within(story.return_started_at, period)).count();
    let budget = usize::try_from(policy.return_budget).unwrap_or(usize::MAX);
    if budget > 0 && begun >= budget {
        reasons.push(format!(
            "{budget} returns have begun within {} s, the budget is used up (returnBudget)",
            period.as_secs()
        ));
    }
    reasons.extend(outside_windows(&policy.return_windows, now));
    reasons
}

/// How long finished records are needed for these decisions.
#[must_use]
pub fn look_back(policy: &Policy) -> Duration {
    BRAKE_PERIOD.max(seconds(policy.return_budget_seconds))
}

/// How many interruptions within an hour the pool takes without the brake.
fn brake_at(policy: &Policy, view: &PoolView) -> usize {
    let share = pool_size(view) * usize::try_from(policy.brake_percent).unwrap_or(100) / 100;
    usize::try_from(policy.brake_interruptions).unwrap_or(usize::MAX).max(share)
}

fn pool_size(view: &PoolView) -> usize {
    view.spot.in_service() + view.on_demand.in_service()
}

/// A time in which returns may begin, again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReturnWindow {
    /// When it opens, as in a crontab: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 100), extend("x-kubernetes-validations" = schedule_rules()))]
    pub schedule: String,
    /// The time zone of the schedule, by its name in the IANA database.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// How long it stays open, in seconds.
    #[schemars(range(min = 60, max = 604_800))]
    pub duration_seconds: u32,
}

/// What the API server can tell of a schedule when it is written: five fields, and what is in each (the syntax of the
/// crate `cronexpr`). What it cannot is said when the schedule is read: a day that never comes, an unknown time zone.
fn schedule_rules() -> Value {
    let days = "SUN|MON|TUE|WED|THU|FRI|SAT";
    let months = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC";
    let day = "0*([1-9]|[12][0-9]|3[01])";
    let weekday = format!("(0*[0-7]|{days})");
    let fields = [
        ("minute (0-59)", "0*[0-5]?[0-9]".to_owned(), String::new()),
        ("hour (0-23)", "0*(1?[0-9]|2[0-3])".to_owned(), String::new()),
        ("day of month (1-31)", day.to_owned(), format!("|L|{day}W")),
        ("month (1-12 or JAN-DEC)", format!("(0*([1-9]|1[0-2])|{months})"), String::new()),
        ("day of week (0-7 or SUN-SAT)", weekday.clone(), format!("|{weekday}(L|#[1-5])")),
    ];
    let matches = |pattern: &str| format!("self.matches(r'(?i)^\\s*{pattern}\\s*$')");
    let five = matches(r"\S+(\s+\S+){4}");
    let rule = |rule: &str, message: &str| json!({ "rule": rule, "message": message });
    let each = fields.iter().enumerate().map(|(number, (name, value, more))| {
        let part = format!(r"((\*|{value}(-{value})?)(/0*[1-9][0-9]*)?{more})");
        let (before, after) = (number, fields.len() - 1 - number);
        let field = matches(&format!(r"(\S+\s+){{{before}}}{part}(,{part})*(\s+\S+){{{after}}}"));
        // With another number of fields it breaks the first rule alone.
        rule(&format!("!{five} || {field}"), &format!("the field for the {name} cannot be read"))
    });
    let all = "must be five fields: minute, hour, day of month, month, day of week";
    std::iter::once(rule(&five, all)).chain(each).collect()
}

fn utc() -> String {
    "UTC".to_owned()
}

impl ReturnWindow {
    /// Whether it can be used.
    ///
    /// # Errors
    /// Says what cannot be read, that it never opens, or that it is open for too long or not long enough.
    pub fn validate(&self) -> Result<(), String> {
        if !(60..=604_800).contains(&self.duration_seconds) {
            return Err(format!("durationSeconds {} is not between 60 and 604800", self.duration_seconds));
        }
        self.is_open(Timestamp::UNIX_EPOCH).map(drop)
    }

    /// Whether it is open: whether it opened less than its duration ago.
    fn is_open(&self, now: Timestamp) -> Result<bool, String> {
        let unusable = |why: String| {
            let why =
                why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            format!("schedule {:?} in time zone {:?}: {why}", self.schedule, self.time_zone)
        };
        let crontab = cronexpr::parse_crontab(&format!("{} {}", self.schedule, self.time_zone))
            .map_err(|error| unusable(error.to_string()))?;
        let from = now - seconds(self.duration_seconds);
        let opened = crontab.find_next(from).map_err(|error| unusable(error.to_string()))?;
        Ok(opened.timestamp() <= now)
    }
}

/// Why returns may not begin now, if none of the windows is open. One that cannot be used never is.
fn outside_windows(windows: &[ReturnWindow], now: Timestamp) -> Vec<String> {
    let found: Vec<_> = windows.iter().map(|window| window.is_open(now)).collect();
    if windows.is_empty() || found.iter().any(|open| open == &Ok(true)) {
        return Vec::new();
    }
    let mut reasons = vec!["no window for returns is open (returnWindows)".to_owned()];
    reasons.extend(found.into_iter().filter_map(Result::err).map(|why| format!("returnWindows: {why}")));
    reasons
}
