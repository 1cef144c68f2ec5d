//! What the instance metadata service says about the end of an instance: its words become a notice.
//!
//! Rules: EC2 User Guide, "EC2 instance rebalance recommendations" and "Spot Instance interruption notices".

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
}

impl ImdsCategory {
    /// The path that answers it.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::InstanceId => "/latest/meta-data/instance-id",
            Self::InstanceAction => "/latest/meta-data/spot/instance-action",
            Self::Rebalance => "/latest/meta-data/events/recommendations/rebalance",
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

/// Why IMDS could not be read. Statuses as in the EC2 User Guide, "Use IMDS": 401 for a token that is not
/// valid any more, 403 for IMDS switched off, 503 for too many requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImdsProblem {
    /// No connection, no answer in time, or one that is not HTTP. In a pod, often the hop limit.
    NoAnswer(String),
    /// The session token is not accepted.
    Unauthorized,
    /// IMDS is switched off for this instance.
    Forbidden,
    /// IMDS is in trouble, or throttles.
    Failing(u16),
    /// A status that IMDS does not use here.
    UnexpectedStatus(u16),
    /// The answer is not what the question calls for.
    Malformed {
        /// What is wrong with it; nothing of the answer, since something else may have given it.
        reason: String,
    },
}

impl ImdsProblem {
    /// The problem as a label.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Failing(_) => "failing",
            Self::UnexpectedStatus(_) => "unexpected_status",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// Whether IMDS should be left alone for a while. One unreadable document does not call for that: the
    /// next one may be the interruption notice.
    #[must_use]
    pub fn calls_for_backoff(&self) -> bool {
        !matches!(self, Self::Malformed { .. })
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

/// Reads `i-1234567890abcdef0`.
///
/// # Errors
/// [`ImdsProblem::Malformed`] for anything but `i-` and 8 to 17 hexadecimal digits.
pub fn parse_instance_id(text: &str) -> Result<String, ImdsProblem> {
    let id = text.trim();
    let digits = id.strip_prefix("i-").unwrap_or_default();
    if (8..=17).contains(&digits.len())
        && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    {
        Ok(id.to_owned())
    } else {
        Err(ImdsProblem::malformed("not an instance id", text))
    }
}

/// A time that a notice can hold: of the years 2020 to 2199.
fn time(value: &serde_json::Value) -> Option<Timestamp> {
    let at: Timestamp = value.as_str()?.parse().ok()?;
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
        }

        #[test]
        fn nothing_of_an_unreadable_answer_is_told(secret in "[A-Z]{8,40}") {
            let tries = [
                parse_instance_id(&secret).map(drop),
                parse_rebalance(&format!("{{\"noticeTime\": {secret}")).map(drop),
                parse_instance_action(&format!("{{\"action\": \"{secret}\"}}"), at(NOW)).map(drop),
            ];
            for problem in tries {
                let told = problem.expect_err("unreadable").to_string();
                prop_assert!(!told.contains(&secret), "{told}");
            }
        }
    }
}
