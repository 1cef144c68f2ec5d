//! Instances that are in service, and whose nodes cannot be used.

use crate::ids::InstanceId;
use crate::policy::backoff;
use crate::reason::NodeTrouble;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// After an instance whose node could not be used the group rests for so long; twice as long after each
/// further one, and never longer than that.
const REST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3600);

/// The node of a claimed instance cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Since when, while the instance has been in service: a short break does not count.
    pub since: Timestamp,
    /// Why, as it was last seen.
    pub why: NodeTrouble,
    /// Since when it can be used again: a node that flaps cannot be used either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usable_since: Option<Timestamp>,
}

impl Unusable {
    /// What is known after the next look, with the time that a node has. The node is trusted again once it
    /// could be used for a third of that without a break.
    #[must_use]
    pub fn next(
        before: Option<Self>,
        why: Option<NodeTrouble>,
        time: Duration,
        now: Timestamp,
    ) -> Option<Self> {
        let Some(why) = why else {
            let held = before?;
            let usable_since = held.usable_since.unwrap_or(now);
            let is_trusted = crate::time::since(usable_since, now) >= time / 3;
            return (!is_trusted).then_some(Self { usable_since: Some(usable_since), ..held });
        };
        let since = before.map_or(now, |held| held.since);
        Some(Self { since, why, usable_since: None })
    }

    /// Whether the node cannot be used now.
    #[must_use]
    pub fn is_now(&self) -> bool {
        self.usable_since.is_none()
    }
}

/// The last instance that was terminated because its node could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discarded {
    /// The instance.
    #[schemars(length(max = 32))]
    pub instance_id: InstanceId,
    /// Its zone: another one is tried first.
    #[schemars(length(max = 64))]
    pub zone: String,
    /// The zones of those before it in a row, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 64)))]
    pub earlier_zones: Vec<String>,
    /// Why.
    pub why: NodeTrouble,
    /// For how many seconds it was waited for.
    pub waited_seconds: u32,
    /// When its termination was written down.
    pub at: Timestamp,
    /// How many there were in a row.
    pub times: u32,
}

/// So many zones are remembered: more than a Region has.
const MOST_ZONES: usize = 8;

impl Discarded {
    /// The zones of those in a row, the latest first.
    pub fn zones(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.zone).chain(&self.earlier_zones).map(String::as_str)
    }

    /// The same without this one.
    #[must_use]
    pub fn zones_but(&self, zone: &str) -> Vec<String> {
        self.zones().filter(|held| *held != zone).take(MOST_ZONES).map(str::to_owned).collect()
    }

    /// Whether it is too early to request another one: a group whose every launch ends so is not to buy and
    /// terminate instances at full pace.
    #[must_use]
    pub fn rests(&self, now: Timestamp) -> bool {
        crate::time::since(self.at, now) < backoff(REST, REST_MAX, self.times)
    }
}
