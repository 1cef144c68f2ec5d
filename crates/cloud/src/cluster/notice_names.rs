//! The names of interruption notices, as their definition (deploy/manifests/crds.yaml) demands them.

use jiff::Timestamp;
use serde_json::Value;

/// Whether the name is one that the content of a notice demands: of the node that reports, its instance and
/// the kind, so that nobody can take the name of another node's notice. The time of maintenance may follow.
pub(crate) fn is_name_of(name: &str, notice: &Value) -> bool {
    let wanted = name_demanded(notice);
    let deadline = notice["spec"]["deadline"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let at = deadline.filter(|_| notice["spec"]["kind"] == "ScheduledMaintenance");
    name == wanted || at.is_some_and(|at| name == format!("{wanted}-{}", at.as_second()))
}

pub(crate) fn name_demanded(notice: &Value) -> String {
    let text = |field: &str| notice["spec"][field].as_str().unwrap_or_default();
    let slug = match text("kind") {
        "RebalanceRecommendation" => "rebalance-recommendation",
        "SpotInterruption" => "spot-interruption",
        "ScheduledMaintenance" => "scheduled-maintenance",
        "GroupTermination" => "group-termination",
        _ => "manual",
    };
    format!("{}.{}-{slug}", text("nodeName"), text("instanceId"))
}
