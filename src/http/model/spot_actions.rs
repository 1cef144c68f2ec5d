//! What is asked for, and what comes of it.

use crate::crd::SpotAction;
use jiff::Timestamp;
use kube::ResourceExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spot_guard_core::ids::{NodeName, PoolName, ReplacementName};
use spot_guard_core::record::Condition;
use spot_guard_core::spot_action::ActionKind;

/// `POST /webhooks/v1/scale-down`: which fallbacks are to return. One of `fallback`, `node` and `pool` is
/// named.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "it only describes the body, which is read field by field")]
pub struct ScaleDownRequest {
    /// A fallback, by the name of its replacement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub fallback: Option<String>,
    /// The on-demand node, or the one that it stands in for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub node: Option<NodeName>,
    /// A pool: all its open fallbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub pool: Option<PoolName>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub reason: Option<String>,
}

/// The body of a SpotAction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionRequest {
    /// Why it is requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 1024))]
    pub reason: Option<String>,
}

/// `/api/v1/spotactions`: what was requested, and what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "SpotAction")]
pub struct ActionState {
    /// Its name.
    pub name: String,
    /// What is to be done.
    pub action: ActionKind,
    /// The pool that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The node that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The replacement that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<ReplacementName>,
    /// Who requested it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// `Accepted`: whether it is followed, else why not; `Complete`: whether it is over. None: nobody has
    /// looked at it yet.
    pub conditions: Vec<Condition>,
    /// The replacements that it led to.
    pub replacements: Vec<ReplacementName>,
}

impl ActionState {
    /// As the object has it.
    pub(crate) fn of(spot_action: &SpotAction) -> Self {
        let (spec, status) = (&spot_action.spec, spot_action.status.clone().unwrap_or_default());
        Self {
            name: spot_action.name_any(),
            action: spec.action,
            pool: spec.pool.clone(),
            node: spec.node.clone(),
            replacement: spec.replacement.clone(),
            requested_by: spec.requested_by.clone(),
            reason: spec.reason.clone(),
            created: spot_action.creation_timestamp().map(|time| time.0),
            conditions: status.conditions,
            replacements: status.replacements,
        }
    }
}
