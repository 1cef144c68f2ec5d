//! How the FallbackTracker stores a record, and answers a trigger.

use crate::actors::deps::Deps;
use crate::crd::{NodeReplacement, Trigger, TriggerStatus};
use crate::kube::problem::RequestProblem;
use crate::telemetry::events::Told;
use crate::telemetry::tracing::trigger_span;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement;
use spot_guard_core::trigger::TriggerUpdate;

/// A write of a record, which must precede what follows from it.
pub(super) enum Write {
    Create(NodeReplacement),
    Status(NodeReplacement),
}

impl Write {
    /// The name of the record that it changes.
    pub(super) fn record(&self) -> Option<&str> {
        match self {
            Self::Create(record) | Self::Status(record) => record.metadata.name.as_deref(),
        }
    }

    /// By which a cancelled replacement begins anew.
    pub(super) fn reopen(held: &NodeReplacement, fresh: ReplacementStatus) -> Self {
        let mut record = held.clone();
        record.status = held.status.as_ref().map(|cancelled| replacement::reopen(cancelled, fresh));
        Self::Status(record)
    }
}

/// Stores the record, and gives it as it is stored now, if it is there; `None` if it must be tried again.
pub(super) async fn store(deps: &Deps, write: Write) -> Option<Option<NodeReplacement>> {
    let api: Api<NodeReplacement> = Api::all(deps.client.clone());
    let outcome = match write {
        Write::Create(record) => match api.create(&PostParams::default(), &record).await {
            Ok(created) => {
                let mut full = record;
                full.metadata = created.metadata;
                api.replace_status(&full.name_any(), &PostParams::default(), &full).await.map(Some)
            }
            // Created in an earlier life, or by a former leader: it is read and carried on.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.get(&record.name_any()).await.map(Some)
            }
            Err(error) => Err(error),
        },
        Write::Status(record) => {
            match api.replace_status(&record.name_any(), &PostParams::default(), &record).await {
                Err(kube::Error::Api(status)) if status.code == 409 => api.get_opt(&record.name_any()).await,
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                other => other.map(Some),
            }
        }
    };
    let told = |error: &kube::Error| {
        tracing::warn!(error = %RequestProblem(error), "a record could not be stored; the next attempt follows");
    };
    outcome.inspect_err(told).ok()
}

/// Answers a trigger; whether that is done.
pub(super) async fn answer(deps: &Deps, trigger: &Trigger, verdict: &TriggerUpdate) -> bool {
    let told = |error: &kube::Error| {
        tracing::warn!(error = %RequestProblem(error), "a trigger could not be answered; the next attempt follows");
    };
    tell(deps, trigger, verdict).await.inspect_err(told).is_ok()
}

/// Says in a trigger's status what comes of it, unless it has changed meanwhile: then it is decided anew.
async fn tell(deps: &Deps, trigger: &Trigger, verdict: &TriggerUpdate) -> Result<(), kube::Error> {
    let name = trigger.name_any();
    let TriggerStatus { mut conditions, mut replacements } = trigger.status.clone().unwrap_or_default();
    verdict.tell(&mut conditions, deps.clock.now());
    if !verdict.replacements.is_empty() {
        replacements.clone_from(&verdict.replacements);
    }
    let patch = serde_json::json!({
        "metadata": { "resourceVersion": trigger.resource_version() },
        "status": { "conditions": conditions, "replacements": replacements },
    });
    let api: Api<Trigger> = Api::all(deps.client.clone());
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
        answer => drop(answer?),
    }
    let action = trigger.spec.action;
    let (refused, by) = (verdict.is_refusal(), trigger.spec.requested_by.as_deref());
    let span = trigger_span(&name, action, trigger.spec.traceparent.as_deref());
    span.in_scope(|| tracing::info!(trigger = name, %action, refused, by, "{}", verdict.answer));
    if let Some((accepted, _)) = verdict.accepted {
        deps.metrics.trigger_answered(action, accepted);
    }
    let reason = verdict.complete.or(verdict.accepted).map_or_else(String::new, |(_, word)| word.to_string());
    let told = Told {
        warning: refused,
        reason: &reason,
        action: action.to_string(),
        note: &verdict.answer.to_string(),
        secondary: None,
    };
    deps.events.tell(trigger.object_ref(&()), told);
    Ok(())
}
