//! The audit log of the API server beside the roles of the manifests: no right is missing, and none is in
//! vain.

#[path = "../simulation/rights/roles.rs"]
mod roles;

use crate::helpers::{http, wait_for};
use crate::product::{self, AGENT, CONTROLLER, NAMESPACE, PATIENCE, kubectl};
use crate::stories::{Stagecraft, dry_spot};
use crate::testbed::{AUDIT_LOG, Testbed};
use jiff::SignedDuration;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, NodeReplacement, SpotAction};
use spot_guard::sim::world::POOL;
use spot_guard_core::spot_action::ActionStage;
use std::collections::BTreeSet;
use std::fs;

/// What the controller need not use in this story: the verb and the resource, and what uses it.
const ELSEWHERE: [(&str, &str); 5] = [
    // At a deadline alone:
    // drain::before_a_deadline_the_pods_of_a_shut_budget_are_deleted_when_only_their_grace_period_is_left.
    ("delete", "pods"),
    // An event that is told again: attacks::identity::one_agents_token_reports_its_own_node_and_nothing_else.
    ("patch", "events.k8s.io/events"),
    // `spot-guard check` tries it: check::the_roles_of_the_manifests_allow_what_the_controller_does. And the
    // notice queue does it: queue::events_of_every_kind_and_a_storm_of_500_come_through_sqs.
    ("create", "spotguard.dev/interruptionnotices"),
    // A record that somebody else has changed at the same moment is read anew. No test can be sure of that.
    ("get", "spotguard.dev/nodereplacements"),
    // No verb of the API server: without it the admission policy would refuse the SpotAction of this story.
    ("ask-for-others", "spotguard.dev/spotactions"),
];

/// A verb of an account for a resource (`group/plural/subresource`), or for the object of that name alone.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: &'static str,
    verb: String,
    resource: String,
    name: Option<String>,
}

impl Right {
    fn is_used(&self, requests: &BTreeSet<Request>) -> bool {
        let user = format!("system:serviceaccount:{NAMESPACE}:{}", self.account);
        requests.iter().any(|request| {
            request.user == user
                && request.verb == self.verb
                && request.resource == self.resource
                && self.name.as_ref().is_none_or(|name| *name == request.name)
        })
    }

    fn is_used_elsewhere(&self) -> bool {
        let known = |(verb, resource): &(&str, &str)| self.verb == *verb && self.resource == *resource;
        self.account == CONTROLLER && ELSEWHERE.iter().any(known)
    }
}

/// What was requested, and the code of the answer.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    user: String,
    verb: String,
    /// Without one, the path.
    resource: String,
    name: String,
    code: u64,
}

impl Request {
    fn of(line: &str) -> Self {
        let event: Value = serde_json::from_str(line).expect("an event");
        let object = &event["objectRef"];
        let resource =
            joined(&[text(&object["apiGroup"]), text(&object["resource"]), text(&object["subresource"])]);
        Self {
            user: text(&event["user"]["username"]).to_owned(),
            verb: text(&event["verb"]).to_owned(),
            resource: if object.is_null() { text(&event["requestURI"]).to_owned() } else { resource },
            name: text(&object["name"]).to_owned(),
            code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn joined(parts: &[&str]) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// Whatever the audit log of a testbed tells.
fn requests(testbed: &Testbed) -> BTreeSet<Request> {
    let log = fs::read_to_string(testbed.dir().join(AUDIT_LOG)).expect("the audit log");
    // The last line may not be complete yet.
    log.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(Request::of).collect()
}

/// What the manifests grant.
fn granted() -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for (account, file) in [(AGENT, "agent-rbac.yaml"), (CONTROLLER, "controller-rbac.yaml")] {
        let manifest = fs::read_to_string(product::manifest(file)).expect("a manifest");
        roles::each_right(&manifest, |group, resource, verb, names| {
            let right = |name: Option<&String>| Right {
                account,
                verb: verb.to_owned(),
                resource: joined(&[group, resource]),
                name: name.cloned(),
            };
            granted.extend(names.iter().map(|name| right(Some(name))));
            granted.extend(names.is_empty().then(|| right(None)));
        });
    }
    granted
}

/// By the HTTP API: the controller reviews who asks, and writes the SpotAction for them.
async fn a_person_resumes_the_pool(stage: &Stagecraft) {
    let testbed = &stage.testbed;
    kubectl(testbed, &["-n", NAMESPACE, "create", "serviceaccount", "operator"]);
    let account = format!("--serviceaccount={NAMESPACE}:operator");
    let role = "--clusterrole=spot-guard-operator";
    kubectl(testbed, &["create", "clusterrolebinding", "operator", role, &account]);
    let bearer = format!("Bearer {}", testbed.token(NAMESPACE, "operator", None).await);
    let headers = [("Authorization", bearer.as_str())];
    let main = stage.controller.main;
    let path = format!("/api/v1/pools/{POOL}/resume");
    wait_for("the request to be taken", PATIENCE, async || {
        let answer = http(main, "POST", &path, &headers).await.ok()?;
        (answer.status == 202).then_some(())
    })
    .await;
    let actions: Api<SpotAction> = Api::all(testbed.client());
    let action = wait_for("the SpotAction to be over", PATIENCE, async || {
        let all = actions.list(&ListParams::default()).await.ok()?.items;
        all.into_iter().find(|action| action.ask().stage == ActionStage::Over)
    })
    .await;
    let path = format!("/api/v1/spotactions/{}", action.name_any());
    let answer = http(main, "GET", &path, &headers).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Two days later, as far as the objects tell.
async fn what_was_over_long_ago_is_removed(stage: &Stagecraft) {
    let client = stage.testbed.client();
    let records: Api<NodeReplacement> = Api::all(client.clone());
    let notices: Api<InterruptionNotice> = Api::all(client.clone());
    let actions: Api<SpotAction> = Api::all(client);
    let (all, as_it_is) = (ListParams::default(), PatchParams::default());
    let long_ago = Clock::System.now() - SignedDuration::from_hours(48);
    let kept = notices.list(&all).await.expect("an answer").items;
    assert!(!kept.is_empty(), "a notice is kept with its record");
    for record in records.list(&all).await.expect("an answer").items {
        let status = Patch::Merge(json!({ "status": { "finishedAt": long_ago } }));
        records.patch_status(&record.name_any(), &as_it_is, &status).await.expect("a record");
    }
    for action in actions.list(&all).await.expect("an answer").items {
        let mut conditions = action.status.clone().unwrap_or_default().conditions;
        conditions.iter_mut().for_each(|held| held.last_transition_time = long_ago);
        let status = Patch::Merge(json!({ "status": { "conditions": conditions } }));
        actions.patch_status(&action.name_any(), &as_it_is, &status).await.expect("a SpotAction");
    }
    wait_for("what is over to be removed", PATIENCE, async || {
        let left = records.list(&all).await.ok()?.items.len()
            + notices.list(&all).await.ok()?.items.len()
            + actions.list(&all).await.ok()?.items.len();
        (left == 0).then_some(())
    })
    .await;
}

#[actix::test]
async fn a_story_is_refused_nothing_and_uses_what_the_roles_grant() {
    let mut tale = dry_spot();
    tale.plot.start.policy.cleanup_seconds = Some(1);
    let mut stage = Stagecraft::set_up("audit", &tale).await;
    let report = stage.play(&tale).await;
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    a_person_resumes_the_pool(&stage).await;
    what_was_over_long_ago_is_removed(&stage).await;
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;

    let (requests, granted) = (requests(&stage.testbed), granted());
    let refused: Vec<_> = requests.iter().filter(|request| request.code == 403).collect();
    assert!(refused.is_empty(), "a right is missing: {refused:#?}");
    let (used, unused): (Vec<_>, Vec<_>) = granted.iter().partition(|right| right.is_used(&requests));
    println!("{} of {} rights are used", used.len(), granted.len());
    let in_vain: Vec<_> = unused.into_iter().filter(|right| !right.is_used_elsewhere()).collect();
    assert!(in_vain.is_empty(), "granted and not used: {in_vain:#?}");
    let known = granted.iter().filter(|right| right.is_used_elsewhere()).count();
    assert_eq!(known, ELSEWHERE.len(), "a right of the list is granted no longer");
}
