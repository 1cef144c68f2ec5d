//! What the instance metadata service says about the end of an instance: its words become a notice.
//!
//! Rules: EC2 User Guide, "EC2 instance rebalance recommendations", "Spot Instance interruption notices" and
//! "Scheduled events for your instances"; Amazon EC2 Auto Scaling User Guide, "Retrieve the target lifecycle
//! state through instance metadata".

use crate::ids::InstanceId;
use crate::record::NoticeKind;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Time between a Spot interruption notice and the end of the instance, unless it hibernates.
pub const INTERRUPTION_WARNING: SignedDuration = SignedDuration::from_secs(120);

/// What the poller asks IMDS for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImdsCategory {
    /// Which instance this is.
    InstanceId,
    /// Whether EC2 takes the instance.
    InstanceAction,
    /// Whether EC2 advises to move.
    Rebalance,
    /// What the instance's group wants to become of it.
    TargetLifecycleState,
    /// Which maintenance of the instance EC2 has scheduled.
    Maintenance,
}

impl ImdsCategory {
    /// The path that answers it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::InstanceId => "/latest/meta-data/instance-id",
            Self::InstanceAction => "/latest/meta-data/spot/instance-action",
            Self::Rebalance => "/latest/meta-data/events/recommendations/rebalance",
            Self::TargetLifecycleState => "/latest/meta-data/autoscaling/target-lifecycle-state",
            Self::Maintenance => "/latest/meta-data/events/maintenance/scheduled",
        }
    }

    /// What it may announce.
    #[must_use]
    pub fn announces(self) -> Option<NoticeKind> {
        match self {
            Self::InstanceId => None,
            Self::InstanceAction => Some(NoticeKind::SpotInterruption),
            Self::Rebalance => Some(NoticeKind::RebalanceRecommendation),
            Self::TargetLifecycleState => Some(NoticeKind::GroupTermination),
            Self::Maintenance => Some(NoticeKind::ScheduledMaintenance),
        }
    }
}

/// A notice as IMDS gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What is announced.
    pub kind: NoticeKind,
    /// When EC2 says that it gave the notice.
    pub notice_time: Option<Timestamp>,
    /// When EC2 takes the instance; absent for advice.
    pub deadline: Option<Timestamp>,
}

impl Announcement {
    /// When EC2 gave the notice, as far as it says so: at an interruption two minutes before the deadline.
    #[must_use]
    pub fn given_at(&self) -> Option<Timestamp> {
        let interrupts = self.kind == NoticeKind::SpotInterruption;
        let warned = || self.deadline.filter(|_| interrupts)?.checked_sub(INTERRUPTION_WARNING).ok();
        self.notice_time.or_else(warned)
    }

    /// Whether the next announcement of this kind is another one, and not this one told again.
    ///
    /// EC2 moves scheduled events and adds others (EC2 User Guide, "Scheduled events for your instances"), so
    /// an earlier time counts, and any other once this one is over. A later time has nothing to say before:
    /// what was told of the earlier one is not taken back. All else is told once.
    #[must_use]
    pub fn is_followed_by(&self, next: &Self, now: Timestamp) -> bool {
        if self.kind != NoticeKind::ScheduledMaintenance {
            return false;
        }
        match (self.deadline, next.deadline) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(known), Some(at)) => at < known || (known <= now && at != known),
        }
    }
}

/// Why IMDS could not be read. Statuses as in the EC2 User Guide, "Use IMDS": 401 for a token that is not
/// valid any more, 403 for IMDS switched off, 503 for too many requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImdsProblem {
    /// No connection, no answer in time, or one that is not HTTP. In a pod, often the hop limit.
    NoAnswer(String),
    /// The answer to the token request is no token and none of IMDS's refusals: something else answers in its
    /// place, as a proxy that knows no IMDSv2.
    NotImds(u16),
    /// The session token is not accepted.
    Unauthorized,
    /// IMDS is switched off for this instance.
    Forbidden,
    /// IMDS is in trouble, or throttles.
    Failing(u16),
    /// A status that IMDS does not use here.
    UnexpectedStatus(u16),
    /// The instance id is another one than before, which no instance's ever is: something else answers, or
    /// did.
    InstanceChanged,
    /// The answer is not what the question calls for.
    Malformed {
        /// What is wrong with it; nothing of the answer, since something else may have given it.
        reason: String,
    },
}

impl ImdsProblem {
    /// The problem as a label.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "NoAnswer",
            Self::NotImds(_) => "NotImds",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::Failing(_) => "Failing",
            Self::UnexpectedStatus(_) => "UnexpectedStatus",
            Self::InstanceChanged => "InstanceChanged",
            Self::Malformed { .. } => "Malformed",
        }
    }

    /// Whether IMDS should be left alone for a while. One unreadable document does not call for that: the
    /// next one may be the interruption notice.
    #[must_use]
    pub fn calls_for_backoff(&self) -> bool {
        !matches!(self, Self::Malformed { .. } | Self::InstanceChanged)
    }

    /// Whether another question would be answered the same now.
    #[must_use]
    pub fn holds_for_every_question(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::NotImds(_) | Self::Unauthorized | Self::Forbidden)
    }

    /// The problem that the status of an answer to the token request stands for. IMDS refuses a token with
    /// 403 where it is switched off, and fails with 5xx.
    #[must_use]
    pub fn of_token_status(status: u16) -> Self {
        match status {
            401 | 403 | 500..=599 => Self::of_status(status),
            _ => Self::NotImds(status),
        }
    }

    /// The problem that a status other than 2xx and 404 stands for.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            500..=599 => Self::Failing(status),
            _ => Self::UnexpectedStatus(status),
        }
    }

    fn malformed(reason: &str, text: &str) -> Self {
        Self::Malformed { reason: format!("{reason}, {} bytes", text.len()) }
    }
}

/// Reads `{"noticeTime": "2020-10-27T08:22:00Z"}`.
///
/// A time that cannot be read costs the time, not the notice.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything that is not an object with `noticeTime`.
pub fn parse_rebalance(text: &str) -> Result<Announcement, ImdsProblem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Rebalance {
        notice_time: serde_json::Value,
    }
    let rebalance: Rebalance =
        serde_json::from_str(text).map_err(|_| ImdsProblem::malformed("not the expected document", text))?;
    Ok(Announcement {
        kind: NoticeKind::RebalanceRecommendation,
        notice_time: time(&rebalance.notice_time),
        deadline: None,
    })
}

/// Reads `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`.
///
/// `stop` and `terminate` happen at that time. `hibernate` begins at once, so its deadline is `now`. If the
/// time of the others is missing or cannot be read, the warning is taken to have just been given.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything that is not an object with one of these actions.
pub fn parse_instance_action(text: &str, now: Timestamp) -> Result<Announcement, ImdsProblem> {
    #[derive(Deserialize)]
    struct InstanceAction {
        action: String,
        #[serde(default)]
        time: serde_json::Value,
    }
    let answer: InstanceAction =
        serde_json::from_str(text).map_err(|_| ImdsProblem::malformed("not the expected document", text))?;
    let deadline = match answer.action.as_str() {
        "hibernate" => now,
        "stop" | "terminate" => {
            time(&answer.time).unwrap_or_else(|| now.checked_add(INTERRUPTION_WARNING).unwrap_or(now))
        }
        _ => return Err(ImdsProblem::malformed("unknown action", text)),
    };
    Ok(Announcement { kind: NoticeKind::SpotInterruption, notice_time: None, deadline: Some(deadline) })
}

/// Reads `InService`. `Terminated` announces the end, `None` is every other state.
///
/// The state has no time. With a lifecycle hook the group waits for the hook; without one the instance goes
/// at once. So the deadline is what EC2 gives at an interruption.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything but one word, which has a colon at most.
pub fn parse_target_lifecycle_state(text: &str, now: Timestamp) -> Result<Option<Announcement>, ImdsProblem> {
    let state = text.trim();
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|letter| letter.is_ascii_alphabetic());
    if !state.split(':').all(is_word) || state.len() > 40 {
        return Err(ImdsProblem::malformed("not a lifecycle state", text));
    }
    let kind = NoticeKind::GroupTermination;
    let deadline = now.checked_add(INTERRUPTION_WARNING).ok();
    let ends = matches!(state, "Terminated" | "Warmed:Terminated");
    Ok(ends.then_some(Announcement { kind, notice_time: None, deadline }))
}

/// Reads the list of scheduled events and gives the first that is still to come: `None` without one.
///
/// An event's `State` is `active`, `completed` or `canceled`, and its `NotBefore` is like
/// `21 Jan 2019 09:00:43 GMT`. Whatever its code says (`instance-stop`, `instance-retirement`,
/// `system-reboot`, `system-maintenance`, `instance-reboot`), the pods have to be elsewhere by then. A time
/// that cannot be read costs the time, not the notice.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything that is not a list of objects.
pub fn parse_maintenance(text: &str) -> Result<Option<Announcement>, ImdsProblem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct ScheduledEvent {
        #[serde(default)]
        state: serde_json::Value,
        #[serde(default)]
        not_before: serde_json::Value,
    }
    let events: Vec<ScheduledEvent> =
        serde_json::from_str(text).map_err(|_| ImdsProblem::malformed("not the expected list", text))?;
    let is_over = |event: &ScheduledEvent| matches!(event.state.as_str(), Some("completed" | "canceled"));
    let to_come = events.iter().filter(|event| !is_over(event));
    let first = to_come.map(|event| time(&event.not_before)).min_by_key(|at| (at.is_none(), *at));
    let kind = NoticeKind::ScheduledMaintenance;
    Ok(first.map(|deadline| Announcement { kind, notice_time: None, deadline }))
}

/// Reads `i-1234567890abcdef0`.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything but `i-` and 8 to 17 hexadecimal digits.
pub fn parse_instance_id(text: &str) -> Result<InstanceId, ImdsProblem> {
    let id = text.trim();
    let digits = id.strip_prefix("i-").unwrap_or_default();
    if (8..=17).contains(&digits.len())
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        Ok(id.into())
    } else {
        Err(ImdsProblem::malformed("not an instance id", text))
    }
}

/// A time that a notice can hold: of the years 2020 to 2199. Scheduled events have the form of RFC 2822,
/// without the day of the week; everything else has that of RFC 3339.
pub(crate) fn time(value: &serde_json::Value) -> Option<Timestamp> {
    let text = value.as_str()?.trim();
    let of_event = || jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let at: Timestamp = text.parse().ok().or_else(of_event)?;
    (1_577_836_800..7_258_118_400).contains(&at.as_second()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn a_rebalance_recommendation_is_advice() {
        let expected = |notice_time| Announcement {
            kind: NoticeKind::RebalanceRecommendation,
            notice_time,
            deadline: None,
        };
        let known = Some(at("2020-10-27T08:22:00Z"));
        for (text, notice_time) in [
            (r#"{"noticeTime":"2020-10-27T08:22:00Z"}"#, known),
            (r#"{ "noticeTime": "2020-10-27T08:22:00Z", "colour": {"red": [1]} }"#, known),
            (r#"{"noticeTime":"soon"}"#, None),
            (r#"{"noticeTime":1603786920}"#, None),
        ] {
            assert_eq!(parse_rebalance(text), Ok(expected(notice_time)), "{text}");
        }
    }

    #[test]
    fn an_instance_action_has_a_deadline() {
        for (text, deadline) in [
            (r#"{"action":"terminate","time":"2026-03-01T12:02:00Z"}"#, "2026-03-01T12:02:00Z"),
            (r#"{"action":"stop","time":"2026-03-01T12:01:30Z","x":null}"#, "2026-03-01T12:01:30Z"),
            (r#"{"action":"hibernate","time":"2026-03-01T12:02:00Z"}"#, NOW),
            (r#"{"action":"hibernate"}"#, NOW),
            (r#"{"action":"terminate"}"#, "2026-03-01T12:02:00Z"),
            (r#"{"action":"stop","time":"presently"}"#, "2026-03-01T12:02:00Z"),
        ] {
            let notice = parse_instance_action(text, at(NOW)).expect(text);
            assert_eq!(notice.kind, NoticeKind::SpotInterruption);
            assert_eq!(notice.deadline, Some(at(deadline)), "{text}");
        }
    }

    #[test]
    fn garbage_is_a_problem_and_not_a_notice() {
        for text in ["", "null", "[]", "{}", "<html>404</html>", "{\"action\":", r#"{"action":"dance"}"#, "7"]
        {
            assert!(matches!(parse_rebalance(text), Err(ImdsProblem::Malformed { .. })), "{text}");
            assert!(
                matches!(parse_instance_action(text, at(NOW)), Err(ImdsProblem::Malformed { .. })),
                "{text}"
            );
            assert!(matches!(parse_instance_id(text), Err(ImdsProblem::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn only_the_target_state_terminated_announces_the_end() {
        let announced =
            parse_target_lifecycle_state("Terminated\n", at(NOW)).expect("a state").expect("an end");
        assert_eq!(announced.kind, NoticeKind::GroupTermination);
        assert_eq!(announced.deadline, Some(at("2026-03-01T12:02:00Z")));
        for state in ["InService", "Detached", "Standby", "Warmed:Hibernated", "Warmed:Running"] {
            assert_eq!(parse_target_lifecycle_state(state, at(NOW)), Ok(None), "{state}");
        }
        for text in ["", "<html>404</html>", "Terminated Terminated", "{}", "a:", &"A".repeat(41)] {
            let answer = parse_target_lifecycle_state(text, at(NOW));
            assert!(matches!(answer, Err(ImdsProblem::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn the_first_scheduled_event_that_is_to_come_is_announced() {
        let event = |state: &str, not_before: &str| {
            format!(
                r#"{{"NotBefore":"{not_before}","Code":"system-reboot","Description":"scheduled reboot",
                   "EventId":"instance-event-0d59937288b749b32","NotAfter":"1 Apr 2026 10:00:00 GMT",
                   "State":"{state}"}}"#
            )
        };
        let (early, late) = ("1 Mar 2026 12:30:00 GMT", "21 Mar 2026 09:00:43 GMT");
        for (events, deadline) in [
            (vec![event("active", late)], Some("2026-03-21T09:00:43Z")),
            (vec![event("active", late), event("active", early)], Some("2026-03-01T12:30:00Z")),
            (vec![event("completed", early), event("active", late)], Some("2026-03-21T09:00:43Z")),
            (vec![event("active", "soon"), event("active", late)], Some("2026-03-21T09:00:43Z")),
            (vec![event("active", "soon")], None),
            (vec!["{}".to_owned()], None),
            (vec![event("active", "2026-03-21T09:00:43Z")], Some("2026-03-21T09:00:43Z")),
        ] {
            let text = format!("[{}]", events.join(","));
            let announced = parse_maintenance(&text).expect("a list").expect(&text);
            assert_eq!(announced.kind, NoticeKind::ScheduledMaintenance);
            assert_eq!(announced.deadline, deadline.map(at), "{text}");
        }
        for text in ["[]".to_owned(), format!("[{}]", event("canceled", late))] {
            assert_eq!(parse_maintenance(&text), Ok(None), "{text}");
        }
        for text in ["", "{}", "<html/>", "[1]", "null", "404"] {
            assert!(matches!(parse_maintenance(text), Err(ImdsProblem::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn only_maintenance_that_is_earlier_or_comes_after_the_last_one_is_announced_anew() {
        let told = |kind, deadline: Option<&str>| Announcement {
            kind,
            notice_time: None,
            deadline: deadline.map(at),
        };
        let (past, early, late) = ("2026-03-01T11:59:00Z", "2026-03-02T09:00:00Z", "2026-03-21T09:00:00Z");
        for (known, next, is_news) in [
            (Some(late), Some(early), true),
            (Some(late), Some(late), false),
            (Some(early), Some(late), false),
            (Some(past), Some(late), true),
            (Some(past), Some(past), false),
            (None, Some(late), true),
            (None, None, false),
            (Some(past), None, false),
        ] {
            let of = |kind| told(kind, known).is_followed_by(&told(kind, next), at(NOW));
            assert_eq!(of(NoticeKind::ScheduledMaintenance), is_news, "{known:?}, then {next:?}");
            assert!(!of(NoticeKind::SpotInterruption), "a mock tells another time with every read");
        }
    }

    #[test]
    fn a_token_request_that_is_not_answered_as_imds_does_is_something_else() {
        for status in [200, 204, 301, 400, 404, 405, 429] {
            assert_eq!(ImdsProblem::of_token_status(status), ImdsProblem::NotImds(status), "{status}");
        }
        assert_eq!(ImdsProblem::of_token_status(403), ImdsProblem::Forbidden);
        assert_eq!(ImdsProblem::of_token_status(503), ImdsProblem::Failing(503));
        assert_eq!(ImdsProblem::of_token_status(401), ImdsProblem::Unauthorized);
    }

    #[test]
    fn instance_ids_are_checked() {
        assert_eq!(parse_instance_id("i-1234567890abcdef0\n").as_deref(), Ok("i-1234567890abcdef0"));
        assert_eq!(parse_instance_id("i-12345678").as_deref(), Ok("i-12345678"));
        for text in ["i-", "i-1234567", "i-1234567890abcdef01", "i-1234567890ABCDEF0", "1234567890abcdef0"] {
            assert!(parse_instance_id(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(text in ".*") {
            let _ = (parse_rebalance(&text), parse_instance_action(&text, at(NOW)), parse_instance_id(&text));
            let _ = (parse_maintenance(&text), parse_target_lifecycle_state(&text, at(NOW)));
        }

        #[test]
        fn nothing_of_an_unreadable_answer_is_told(secret in "[A-Z]{8,40}") {
            let tries = [
                parse_instance_id(&secret).map(drop),
                parse_rebalance(&format!("{{\"noticeTime\": {secret}")).map(drop),
                parse_instance_action(&format!("{{\"action\": \"{secret}\"}}"), at(NOW)).map(drop),
                parse_maintenance(&format!("[{secret}")).map(drop),
                parse_target_lifecycle_state(&format!("{secret}?"), at(NOW)).map(drop),
            ];
            for problem in tries {
                let told = problem.expect_err("unreadable").to_string();
                prop_assert!(!told.contains(&secret), "{told}");
            }
        }
    }
}
