//! Two controllers, two processes, one lease on the real API server: the leader is ended, killed, or stopped
//! and let go on, in the middle of a fallback. Each time the other one takes over, and the story ends as it
//! should.

use crate::helpers::wait_for;
use crate::product::{self, CONTROLLER, NAMESPACE, PATIENCE, Service};
use crate::stories::{Stagecraft, Tale, announce, dry_spot, times_taken};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use spot_guard::crd::{NodeReplacement, SpotPool};
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::world::{ON_DEMAND, POOL};
use spot_guard_cloud::cloud::{Cloud, CloudEvent, EventKind};
use spot_guard_core::record::{FlowBox, Outcome};
use std::time::Duration;
use tokio::sync::broadcast;

/// The names of the two processes, by which their calls are told apart.
const FIRST: &str = "controller";
const SECOND: &str = "standby";
/// The lease of the tests' configuration, the time that a call may take, a look at the lease, and some
/// leeway.
const WITHOUT_RELEASE: Duration = Duration::from_millis(6_000 + 3_000 + 500 + 1_500);

async fn set_up(name: &str, tale: &Tale) -> (Stagecraft, Service) {
    let stagecraft = Stagecraft::set_up(name, tale).await;
    let url = stagecraft.autoscaling.url();
    let mut second = product::start_controller(&stagecraft.testbed, SECOND, &url).await;
    second.becomes_ready().await;
    (stagecraft, second)
}

/// Waits until the on-demand group was asked: the leader is in the middle of a fallback.
async fn fallback_is_requested(story: &ScenarioRun) {
    wait_for("the fallback to be requested", PATIENCE, async || {
        let records = story.records().await;
        (times_taken(&records, FlowBox::Fallback, Outcome::Requested) == 1).then_some(())
    })
    .await;
}

/// How long after `since` the second process made its first call to AWS: it acts.
async fn acts_after(cloud: &Cloud, since: Timestamp) -> Duration {
    let first = wait_for("the second controller to act", PATIENCE, async || {
        cloud.calls().into_iter().find(|call| call.caller == SECOND && call.at > since)
    })
    .await;
    Duration::try_from(first.at.duration_since(since)).expect("later")
}

/// How many on-demand instances were launched, whoever asked for them.
fn stood_in(events: &mut broadcast::Receiver<CloudEvent>) -> usize {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter(|event| event.kind == EventKind::Launching && event.group == ON_DEMAND)
        .count()
}

async fn is_leader(service: &mut Service) -> Option<bool> {
    let answer = service.get("/api/v1/status").await?;
    let status: Value = serde_json::from_str(&answer.body).ok()?;
    status["leader"].as_bool()
}

#[actix::test]
async fn a_leader_that_is_ended_hands_over_within_two_seconds() {
    let tale = dry_spot();
    let (mut stagecraft, second) = set_up("sigterm", &tale).await;
    let events = stagecraft.story.world.cloud.subscribe();
    let mut launches = stagecraft.story.world.cloud.subscribe();
    let Stagecraft { controller, imds, story, .. } = &mut stagecraft;
    let takeover = async {
        fallback_is_requested(story).await;
        let first = std::mem::replace(controller, second);
        let since = Timestamp::now();
        let ((), took) = tokio::join!(first.ends_well(), acts_after(&story.world.cloud, since));
        println!("takeover after SIGTERM: {:.2} s", took.as_secs_f64());
        assert!(took <= Duration::from_secs(2), "{took:?}");
    };
    let report = tokio::select! {
        (report, ()) = async { tokio::join!(tale.play(story), takeover) } => report,
        never = announce(imds, events) => match never {},
    };
    assert_eq!(stood_in(&mut launches), 1, "one instance stood in");
    stagecraft.ends_as_simulated(&tale, &report).await;
}

#[actix::test]
async fn a_leader_that_is_killed_is_followed_within_the_lease_and_the_time_of_a_call() {
    let tale = dry_spot();
    let (mut stagecraft, second) = set_up("sigkill", &tale).await;
    let events = stagecraft.story.world.cloud.subscribe();
    let mut launches = stagecraft.story.world.cloud.subscribe();
    let Stagecraft { controller, imds, story, .. } = &mut stagecraft;
    let takeover = async {
        fallback_is_requested(story).await;
        let mut first = std::mem::replace(controller, second);
        let since = Timestamp::now();
        first.process.kill();
        let took = acts_after(&story.world.cloud, since).await;
        println!("takeover after SIGKILL: {:.2} s", took.as_secs_f64());
        assert!(took <= WITHOUT_RELEASE, "{took:?}");
    };
    let report = tokio::select! {
        (report, ()) = async { tokio::join!(tale.play(story), takeover) } => report,
        never = announce(imds, events) => match never {},
    };
    assert_eq!(stood_in(&mut launches), 1, "one instance stood in");
    stagecraft.ends_as_simulated(&tale, &report).await;
}

#[actix::test]
async fn a_leader_that_was_stopped_and_goes_on_acts_no_more() {
    let tale = dry_spot();
    let (mut stagecraft, mut second) = set_up("sigstop", &tale).await;
    let events = stagecraft.story.world.cloud.subscribe();
    let mut launches = stagecraft.story.world.cloud.subscribe();
    let Stagecraft { controller: first, imds, story, testbed, .. } = &mut stagecraft;
    let cloud = story.world.cloud.clone();
    let takeover = async {
        fallback_is_requested(story).await;
        let admin = testbed.client();
        let since = Timestamp::now();
        first.process.freeze();
        // What the stopped process knows is at most this new.
        let record = story.records().await.remove(0);
        let pool = Api::<SpotPool>::all(admin.clone()).get(POOL).await.expect("the pool");
        let took = acts_after(&cloud, since).await;
        println!("takeover after SIGSTOP: {:.2} s", took.as_secs_f64());
        assert!(took <= WITHOUT_RELEASE, "{took:?}");
        second.leads().await;
        wait_for("the second controller to carry the story on", PATIENCE, async || {
            (times_taken(&story.records().await, FlowBox::Monitor, Outcome::Monitoring) == 1).then_some(())
        })
        .await;

        let thawed = Timestamp::now();
        first.process.thaw();
        let account = testbed.kubeconfig_for_service_account(NAMESPACE, CONTROLLER).await;
        let client = spot_guard::kube::client::from_file(&account).await.expect("a client");
        let records: Api<NodeReplacement> = Api::all(client.clone());
        let stale = records.replace_status(&record.name_any(), &PostParams::default(), &record).await;
        assert!(is_conflict(&stale), "a record as the loser knows it: {stale:?}");
        let body = json!({
            "metadata": { "resourceVersion": pool.resource_version() },
            "status": { "scalingRequests": [] },
        });
        let pools: Api<SpotPool> = Api::all(client);
        let stale = pools.patch_status(POOL, &PatchParams::default(), &Patch::Merge(&body)).await;
        assert!(is_conflict(&stale), "a ledger as the loser knows it: {stale:?}");
        wait_for("the first controller to know that it leads no more", PATIENCE, async || {
            is_leader(first).await.filter(|leads| !leads)
        })
        .await;
        thawed
    };
    let (report, thawed) = tokio::select! {
        played = async { tokio::join!(tale.play(story), takeover) } => played,
        never = announce(imds, events) => match never {},
    };
    let changes = cloud
        .calls()
        .into_iter()
        .filter(|call| call.caller == FIRST && call.at >= thawed && !call.operation.starts_with("Describe"));
    assert_eq!(changes.map(|call| call.operation).collect::<Vec<_>>(), [""; 0], "the loser changed nothing");
    assert_eq!(stood_in(&mut launches), 1, "one instance stood in");
    let first = std::mem::replace(&mut stagecraft.controller, second);
    first.ends_well().await;
    stagecraft.ends_as_simulated(&tale, &report).await;
}

fn is_conflict<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 409)
}
