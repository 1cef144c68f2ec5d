//! Instances that are in service, and whose nodes cannot be used.

use crate::ids::InstanceId;
use crate::policy::backoff;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// After an instance whose node could not be used the group rests for so long; twice as long after each
/// further one, and never longer than that.
const REST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3600);

/// Why the node of an instance cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodeTrouble {
    /// No node says that it runs on the instance.
    NotJoined,
    /// The node is not Ready.
    NotReady,
    /// The node is cordoned.
    Cordoned,
    /// The node keeps a taint that no node with pods in the pool has, as start-up taints are (Kubernetes,
    /// "Taints and Tolerations").
    Tainted,
}

/// The node of a claimed instance cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Since when, without a break, while the instance has been in service.
    pub since: Timestamp,
    /// Why, as it was last seen.
    pub why: NodeTrouble,
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
    /// Why.
    pub why: NodeTrouble,
    /// For how many seconds it was waited for.
    pub waited_seconds: u32,
    /// When its termination was written down.
    pub at: Timestamp,
    /// How many there were in a row.
    pub times: u32,
}

impl Discarded {
    /// Whether it is too early to request another one: a group whose every launch ends so is not to buy and
    /// terminate instances at full pace.
    #[must_use]
    pub fn rests(&self, now: Timestamp) -> bool {
        crate::time::since(self.at, now) < backoff(REST, REST_MAX, self.times)
    }
}
