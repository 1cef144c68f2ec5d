//! What the API server demands of notices by the definition of their kind and by the admission policy
//! (deploy/manifests/admission-policy.yaml), for stories in which somebody tries to get past it.

use crate::cluster::{Identity, Refusal, RequestInfo, is_name_of, name_demanded, refusal};
use serde_json::Value;

/// By which a token tells the node of its pod (KEP-4193).
const NODE_OF_TOKEN: &str = "authentication.kubernetes.io/node-name";

/// Refuses a notice that is not about the node of its creator's token, or has another name than its content
/// demands.
///
/// # Errors
/// 403, as the policy answers.
pub fn notices(info: &RequestInfo, object: &Value, by: &Identity) -> Result<(), Refusal> {
    if info.verb != "create" || info.resource != "interruptionnotices" {
        return Ok(());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let node = text(&object["spec"]["nodeName"]);
    let own = by.extra.get(NODE_OF_TOKEN).and_then(|nodes| nodes.first());
    let reports_for_others = by.groups.iter().any(|group| group == "system:masters");
    if own != Some(&node) && !reports_for_others {
        let why = format!("spec.nodeName must be the node of the token, not {node}");
        return Err(refusal(403, "Forbidden", why));
    }
    if !is_name_of(&text(&object["metadata"]["name"]), object) {
        let why = format!("metadata.name must be {}", name_demanded(object));
        return Err(refusal(403, "Forbidden", why));
    }
    Ok(())
}
