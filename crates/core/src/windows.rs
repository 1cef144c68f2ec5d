//! The windows in which returns may begin.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

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

/// What the API server can tell of a schedule when it is written: five fields, and what is in each (the
/// syntax of the crate `cronexpr`). What it cannot is said when the schedule is read: a day that never comes,
/// an unknown time zone.
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

/// Why a setting cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadSetting {
    /// A number is too small or too large.
    OutOfRange {
        /// The setting.
        setting: String,
        /// Its value.
        value: i64,
        /// The least that it may be.
        min: i64,
        /// The most that it may be.
        max: i64,
    },
    /// A schedule cannot be read, or it names a day that never comes.
    Schedule {
        /// The schedule.
        schedule: String,
        /// Its time zone.
        time_zone: String,
        /// What is wrong with it.
        why: String,
    },
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
            let (setting, value) = ("durationSeconds".to_owned(), i64::from(self.duration_seconds));
            return Err(BadSetting::OutOfRange { setting, value, min: 60, max: 604_800 }.to_string());
        }
        self.is_open(Timestamp::UNIX_EPOCH).map(drop)
    }

    /// Whether it is open: whether it opened less than its duration ago.
    ///
    /// # Errors
    /// Says why it cannot be used.
    pub fn is_open(&self, now: Timestamp) -> Result<bool, String> {
        let unusable = |why: String| {
            let why =
                why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            let (schedule, time_zone) = (self.schedule.clone(), self.time_zone.clone());
            BadSetting::Schedule { schedule, time_zone, why }.to_string()
        };
        let crontab = cronexpr::parse_crontab(&format!("{} {}", self.schedule, self.time_zone))
            .map_err(|error| unusable(error.to_string()))?;
        let from = now - Duration::from_secs(u64::from(self.duration_seconds));
        let opened = crontab.find_next(from).map_err(|error| unusable(error.to_string()))?;
        Ok(opened.timestamp() <= now)
    }
}
