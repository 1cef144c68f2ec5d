//! A termination that a group holds for its hook, on the real control plane: real evictions under a real
//! budget. The queue and Auto Scaling are simulated.

use super::{may_report_for_others, until};
use crate::helpers::wait_for;
use crate::product::{self, PATIENCE, QUEUE};
use crate::stories::{Tale, times_taken};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use spot_guard::clock::Clock;
use spot_guard::crd::SpotPool;
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{POOL, SPOT};
use spot_guard_cloud::cloud::{LifecycleState, NoticeQueue};
use spot_guard_core::record::{FlowBox, Outcome};
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

/// When the successful calls of that action came.
fn calls(story: &ScenarioRun, operation: &str) -> Vec<Timestamp> {
    let calls = story.world.cloud.calls().into_iter();
    calls.filter(|call| call.operation == operation && call.ok).map(|call| call.at).collect()
}

fn state(story: &ScenarioRun, instance: &str) -> Option<LifecycleState> {
    let listed = story.world.cloud.group(SPOT).expect("a group").instances;
    listed.into_iter().find(|held| held.id == instance).map(|held| held.state)
}

async fn has_taken(story: &ScenarioRun, flow_box: FlowBox, outcome: Outcome) {
    wait_for(&format!("{flow_box:?} {outcome:?}"), PATIENCE, async || {
        (times_taken(&story.records().await, flow_box, outcome) >= 1).then_some(())
    })
    .await;
}

fn a_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

/// A group ends an instance while no budget has room, and then one has.
async fn hold_and_let_go(story: &ScenarioRun) {
    let cloud = &story.world.cloud;
    let old = story.spot_instances()[0].clone();
    story.act(&Act::SetBudget("web", 0)).await.expect("a budget");
    // Its hook waits an hour without us.
    let hook = Some(Duration::from_secs(3600));
    cloud.edit_group(SPOT, |spec| spec.termination_hook = hook).expect("a group");
    cloud.scale_down(&old).expect("an instance");
    has_taken(story, FlowBox::Drain, Outcome::Blocked).await;
    wait_for("heartbeats", PATIENCE, async || {
        (calls(story, "RecordLifecycleActionHeartbeat").len() >= 2).then_some(())
    })
    .await;
    assert_eq!(calls(story, "CompleteLifecycleAction"), [], "its node is not drained");
    assert_eq!(state(story, &old), Some(LifecycleState::TerminatingWait));
    story.act(&Act::SetBudget("web", 1)).await.expect("a budget");
    has_taken(story, FlowBox::Drain, Outcome::Drained).await;
    // Somebody scales up again.
    cloud.set_desired(SPOT, 3).expect("a group");
}

#[actix::test]
async fn a_lifecycle_action_is_completed_once_after_its_node_was_drained_by_evictions_under_a_budget() {
    let mut tale = Tale::new(Scenario::Rebalance, Vec::new());
    tale.queue = Some(NoticeQueue::default());
    tale.plot.steps = vec![
        (FlowBox::Notice, Outcome::NoticeReceived),
        (FlowBox::Taint, Outcome::Tainted),
        (FlowBox::Drain, Outcome::Blocked),
        (FlowBox::Drain, Outcome::Drained),
        (FlowBox::CleanUp, Outcome::CleanedUp),
    ];
    let testbed = tale.testbed("queue-lifecycle").await;
    product::install(&testbed).await;
    may_report_for_others(&testbed).await;
    let story = tale.begin(Clock::System, Some(testbed.client())).await;
    let pools: Api<SpotPool> = Api::all(testbed.client());
    let says_so = Patch::Merge(json!({ "spec": { "completeLifecycleActions": true } }));
    pools.patch(POOL, &PatchParams::default(), &says_so).await.expect("the pool");
    let cloud = &story.world.cloud;
    let autoscaling = cloud.serve_autoscaling(a_port()).expect("the cloud answers");
    let queue = cloud.serve_queue(a_port()).expect("the queue answers");
    let url = format!("{}/111122223333/notices", queue.url());
    fs::write(testbed.dir().join(QUEUE), url).expect("the file is written");
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.leads().await;
    controller.becomes_ready().await;

    let (report, ()) = tokio::join!(tale.play(&story), hold_and_let_go(&story));
    println!("the story took {:.1} s", report.wall_seconds);
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    until(&mut controller, "LifecycleAction", "Completed", 1).await;
    let completed = calls(&story, "CompleteLifecycleAction");
    assert_eq!(completed.len(), 1, "{completed:?}");
    let steps = story.records().await.pop().and_then(|record| record.status).expect("a record").steps;
    let drained =
        steps.iter().find(|step| (step.flow_box, step.outcome) == (FlowBox::Drain, Outcome::Drained));
    let drained = drained.expect("a drain").at;
    assert!(completed[0].as_second() >= drained.as_second(), "{completed:?} {drained}");
    assert_eq!(state(&story, &story.spot_instances()[0]), None, "the instance has gone");
    assert_eq!(cloud.queued().0, [""; 0], "all messages are deleted");
    controller.ends_well().await;
}
