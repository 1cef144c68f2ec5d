//! How the FallbackTracker stores a record.

use crate::actors::deps::Deps;
use crate::core::record::set_condition;
use crate::crd::{InterruptionNotice, InterruptionNoticeStatus, NodeReplacement};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use std::sync::Arc;

/// A write that must precede what follows from it.
pub(super) enum Write {
    Create(NodeReplacement),
    Status(NodeReplacement),
    Refuse(Arc<InterruptionNotice>, String),
}

/// Stores; `None` if it must be tried again.
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
        Write::Refuse(notice, reason) => {
            let api: Api<InterruptionNotice> = Api::all(deps.client.clone());
            let mut status = InterruptionNoticeStatus::default();
            set_condition(&mut status.conditions, "Accepted", false, "Refused", &reason, deps.clock.now());
            tracing::warn!(notice = notice.name_any(), reason, "the notice is refused");
            let patch = serde_json::json!({ "status": status });
            api.patch_status(&notice.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
                .await
                .map(|_| None)
        }
    };
    outcome
        .inspect_err(|error| tracing::warn!(%error, "a record could not be stored; it is tried again"))
        .ok()
}
