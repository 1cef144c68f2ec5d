//! `POST pods/<name>/eviction`, in the order of checks of the real API server
//! (pkg/registry/core/pod/storage).

use super::answer::Answer;
use super::deletion::DeleteOptions;
use super::disruption::{Loss, set_disruption_allowed};
use super::json::{ObjectKey, items, number, seconds, section, set_condition, strings, text};
use super::refusal::{Refusal, bad_request, budget_forbidden, conflict, disruption_budget, refusal};
use super::request::Identity;
use super::resources::ResourceKind;
use super::selector::LabelSelector;
use super::world::World;
use serde_json::{Value, json};

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// Above so many evictions that the budget's controller has not confirmed, no more are granted.
const MAX_DISRUPTED_PODS: usize = 2000;

/// What the budgets say to one eviction.
enum Room {
    /// The pod may go.
    Granted,
    /// It may go as long as it stays unready: the deletion names the version that was looked at.
    GrantedWhileUnready,
    /// More than one budget covers it.
    Ambiguous,
}

pub(super) fn respond(
    world: &mut World,
    kind: &ResourceKind,
    key: &ObjectKey,
    eviction: &Value,
    dry_run: bool,
    by: &Identity,
) -> Result<Answer, Refusal> {
    if text(eviction, "/metadata/name") != Some(&key.name) {
        return Err(bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = DeleteOptions::read(&eviction["deleteOptions"])?;
    options.dry_run |= dry_run;
    let pod = world.existing(kind, key)?;
    let room =
        if bypasses_budgets(&pod) { Room::Granted } else { world.room_for(key, &pod, options.dry_run)? };
    match room {
        Room::Ambiguous => {
            let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
                           not support.";
            return Err(refusal(500, "", message));
        }
        Room::GrantedWhileUnready if options.resource_version.is_none() => {
            options.resource_version = text(&pod, "/metadata/resourceVersion").map(str::to_owned);
        }
        Room::Granted | Room::GrantedWhileUnready => {}
    }
    world.evict(kind, key, &pod, options, by)?;
    Ok(Answer::new(
        201,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 }),
    ))
}

/// Pods that serve nobody (yet, or any more) are deleted without a look at the budgets.
fn bypasses_budgets(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), Some("Succeeded" | "Failed" | "Pending"))
        || pod["metadata"]["deletionTimestamp"].is_string()
}

impl World {
    /// Checks the pod's budget and takes one disruption from it.
    fn room_for(&mut self, key: &ObjectKey, pod: &Value, dry_run: bool) -> Result<Room, Refusal> {
        let labels = strings(pod, "/metadata/labels");
        let mut budgets = self
            .store
            .all(BUDGETS)
            .filter(|(budget, object)| {
                budget.namespace == key.namespace
                    && LabelSelector::from_object(&object["spec"]["selector"])
                        .is_some_and(|selector| selector.matches(&labels))
            })
            .map(|(budget, object)| (budget.clone(), object.clone()));
        let Some((budget, object)) = budgets.next() else { return Ok(Room::Granted) };
        if budgets.next().is_some() {
            return Ok(Room::Ambiguous);
        }
        drop(budgets);
        let count = |field: &str| number(&object, &format!("/status/{field}")).unwrap_or(0);
        let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
        if !super::json::condition_true(pod, "Ready") {
            let always = text(&object, "/spec/unhealthyPodEvictionPolicy") == Some("AlwaysAllow");
            if always || (healthy >= desired && desired > 0) {
                return Ok(Room::GrantedWhileUnready);
            }
        }
        let allowed = count("disruptionsAllowed");
        if count("observedGeneration") < number(&object, "/metadata/generation").unwrap_or(0) {
            return Err(disruption_budget(
                format!("The disruption budget {} is still being processed by the server.", budget.name),
                10,
            ));
        }
        if allowed < 0 {
            let cause = format!(
                "The disruption budget {} does not allow evicting pods currently: pdb disruptions allowed is \
                 negative",
                budget.name
            );
            return Err(budget_forbidden(&budget.name, "pdb disruptions allowed is negative", cause));
        }
        let disrupted = object
            .pointer("/status/disruptedPods")
            .and_then(Value::as_object)
            .map_or(0, serde_json::Map::len);
        if disrupted > MAX_DISRUPTED_PODS {
            let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
            let cause = format!(
                "The disruption budget {} does not allow evicting pods currently: too many pending evictions \
                 not confirmed by PDB controller",
                budget.name
            );
            return Err(budget_forbidden(&budget.name, why, cause));
        }
        if allowed == 0 {
            return Err(disruption_budget(exhausted(&budget.name, &object, healthy, desired), 0));
        }
        if !dry_run {
            let now = self.now();
            self.edit(BUDGETS, &budget, |object| {
                let status = section(object, "status");
                status.insert("disruptionsAllowed".to_owned(), json!(allowed - 1));
                let pods = status.entry("disruptedPods").or_insert_with(|| json!({}));
                pods[key.name.as_str()] = json!(seconds(now));
                if allowed == 1 {
                    set_disruption_allowed(object, now);
                }
            });
        }
        Ok(Room::Granted)
    }

    /// Marks the pod as evicted and deletes it. A precondition that does not hold is found here, after the
    /// budget has already paid: so it is in the real API.
    fn evict(
        &mut self,
        kind: &ResourceKind,
        key: &ObjectKey,
        pod: &Value,
        mut options: DeleteOptions,
        by: &Identity,
    ) -> Result<(), Refusal> {
        let health = self.health_of(kind, key);
        if !options.dry_run {
            let record = |field: &str| text(pod, field).unwrap_or_default().to_owned();
            for (wanted, stored, what) in [
                (&options.uid, record("/metadata/uid"), "UID"),
                (&options.resource_version, record("/metadata/resourceVersion"), "ResourceVersion"),
            ] {
                if let Some(wanted) = wanted
                    && *wanted != stored
                {
                    let fate = if what == "UID" { "deleted and then recreated" } else { "modified" };
                    let why = format!(
                        "the {what} in the precondition ({wanted}) does not match the {what} in record \
                         ({stored}). The object might have been {fate}"
                    );
                    return Err(conflict("Pod", "", &key.name, &why));
                }
            }
            let now = self.now();
            self.edit("pods", key, |pod| {
                let (reason, message) = ("EvictionByEvictionAPI", "Eviction API: evicting");
                set_condition(pod, "DisruptionTarget", "True", reason, message, now);
            });
            if options.resource_version.is_some() {
                options.resource_version = self
                    .store
                    .get("pods", key)
                    .and_then(|pod| text(pod, "/metadata/resourceVersion").map(str::to_owned));
            }
        }
        let dry_run = options.dry_run;
        self.delete(kind, key, &options, None)?;
        if let (Some(pod), false) = (health, dry_run) {
            self.audit(&pod, by, Loss::Eviction);
        }
        Ok(())
    }
}

fn exhausted(name: &str, budget: &Value, healthy: i64, desired: i64) -> String {
    let condition = items(budget, "/status/conditions").iter().find(|condition| {
        condition["type"].as_str() == Some("DisruptionAllowed")
            && condition["status"].as_str() == Some("False")
            && condition["message"].as_str().is_some_and(|message| !message.is_empty())
    });
    let told = |field: &str| condition.and_then(|condition| condition[field].as_str()).unwrap_or_default();
    if told("reason") == "SyncFailed" {
        return format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            told("message")
        );
    }
    if healthy <= desired {
        return format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        );
    }
    format!("The disruption budget {name} does not allow evicting pods currently")
}
