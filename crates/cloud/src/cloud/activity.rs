//! Scaling activities: what a group did, and what became of it (API_Activity).

use jiff::Timestamp;

/// Longest `StatusMessage` that AWS gives, characters.
const STATUS_MESSAGE_MAX: usize = 255;

/// One scaling activity.
#[derive(Clone, Debug)]
pub struct Activity {
    /// Order of creation; newer is larger.
    pub seq: u64,
    /// `ActivityId`.
    pub id: String,
    /// `AutoScalingGroupName`.
    pub group: String,
    /// `Description`: what was tried, never why it failed.
    pub description: String,
    /// `Cause`.
    pub cause: String,
    /// `StartTime`.
    pub start: Timestamp,
    /// `EndTime`, once it is over.
    pub end: Option<Timestamp>,
    /// `StatusCode`.
    pub status_code: &'static str,
    /// `StatusMessage`: why it failed.
    pub status_message: Option<String>,
    /// `Progress`, 0 to 100.
    pub progress: u32,
    /// The instance it is about.
    pub instance: Option<String>,
    /// The Availability Zone that a launch tried.
    pub zone: Option<String>,
}

impl Activity {
    /// Ends the activity.
    pub(super) fn finish(&mut self, at: Timestamp, status_code: &'static str, message: Option<&str>) {
        self.end = Some(at);
        self.progress = 100;
        self.status_code = status_code;
        self.status_message = message.map(|text| text.chars().take(STATUS_MESSAGE_MAX).collect());
    }
}

/// The time as AWS writes it in causes: whole seconds.
pub(super) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time as AWS writes it in answers: milliseconds.
pub(super) fn millis(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
