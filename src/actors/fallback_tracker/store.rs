//! How the FallbackTracker stores a record, and answers a SpotAction.

use crate::actors::deps::Deps;
use crate::crd::{NodeReplacement, SpotAction, SpotActionStatus};
use crate::kube::problem::RequestProblem;
use crate::telemetry::events::Told;
use crate::telemetry::replacement_trace::root;
use crate::telemetry::tracing::spot_action_span;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement;
use spot_guard_core::spot_action::ActionUpdate;

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
    let name = write.record().map(str::to_owned);
    let outcome = match write {
        Write::Create(record) => match api.create(&PostParams::default(), &record).await {
            Ok(created) => {
                let mut full = record;
                full.metadata = created.metadata;
                api.replace_status(&full.name_any(), &PostParams::default(), &full).await.map(Some)
            }
            // Created in an earlier life, or by a former leader: it is read and carried on.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.get(&record.replacement_name()).await.map(Some)
            }
            Err(error) => Err(error),
        },
        Write::Status(record) => {
            match api.replace_status(&record.replacement_name(), &PostParams::default(), &record).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    api.get_opt(&record.replacement_name()).await
                }
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                other => other.map(Some),
            }
        }
    };
    let told = |error: &kube::Error| {
        let error = RequestProblem(error);
        tracing::warn!(replacement = name, %error, "a record could not be stored; the next attempt follows");
    };
    outcome.inspect_err(told).ok()
}

/// Answers a SpotAction; whether that is done.
pub(super) async fn answer(deps: &Deps, spot_action: &SpotAction, verdict: &ActionUpdate) -> bool {
    let told = |error: &kube::Error| {
        let (name, error) = (spot_action.name_any(), RequestProblem(error));
        tracing::warn!(name, %error, "a SpotAction could not be answered; the next attempt follows");
    };
    tell(deps, spot_action, verdict).await.inspect_err(told).is_ok()
}

/// Says in a SpotAction's status what comes of it, unless it has changed meanwhile: then it is decided anew.
async fn tell(deps: &Deps, spot_action: &SpotAction, verdict: &ActionUpdate) -> Result<(), kube::Error> {
    let name = spot_action.name_any();
    let SpotActionStatus { mut conditions, mut replacements } =
        spot_action.status.clone().unwrap_or_default();
    verdict.tell(&mut conditions, deps.clock.now());
    if !verdict.replacements.is_empty() {
        replacements.clone_from(&verdict.replacements);
    }
    let patch = serde_json::json!({
        "metadata": { "resourceVersion": spot_action.resource_version() },
        "status": { "conditions": conditions, "replacements": replacements },
    });
    let api: Api<SpotAction> = Api::all(deps.client.clone());
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(()),
        answer => drop(answer?),
    }
    let action = spot_action.spec.action;
    let (refused, by) = (verdict.is_refusal(), spot_action.spec.requested_by.as_deref());
    // One that is not watched yet has the trace of this request.
    let led_to = verdict.replacements.iter().filter_map(|name| {
        let record = deps.view.replacements.get(&ObjectRef::new(name))?;
        Some(root(&record))
    });
    let span = spot_action_span(&name, action, spot_action.spec.traceparent.as_deref(), led_to);
    span.in_scope(|| tracing::info!(spot_action = name, %action, refused, by, "{}", verdict.answer));
    if let Some((accepted, _)) = verdict.accepted {
        deps.metrics.spot_action_answered(action, accepted);
    }
    let reason = verdict.complete.or(verdict.accepted).map_or_else(String::new, |(_, word)| word.to_string());
    let told = Told {
        warning: refused,
        reason: &reason,
        action: action.to_string(),
        note: &verdict.answer.to_string(),
        secondary: None,
    };
    deps.events.tell(spot_action.object_ref(&()), told);
    Ok(())
}
