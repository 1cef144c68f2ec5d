//! Spot capacity that is missing without a notice, on the real control plane: its controllers delete the pods
//! of a node that is gone, and its scheduler finds no place for the new ones.

use crate::helpers::wait_for;
use crate::product::PATIENCE;
use crate::stories::{Cue, Stagecraft, Tale, instances_in_service, kill_in_each};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::{Cloud, EventKind, Supply};
use spot_guard_core::record::{FlowBox, Outcome, Phase};
use std::time::Duration;
use tokio::time::Instant;

/// From the moment at which Spot is one short and pods wait, to the on-demand request.
const REQUESTED_WITHIN: Duration = Duration::from_secs(45);

/// A Spot instance dies without a notice while Spot is out of capacity. Its pods fit on no other node.
fn silent_loss() -> Tale {
    let script = vec![
        (Cue::Now, Act::SpotHas(Supply::None)),
        (Cue::Now, Act::Lose(0)),
        (Cue::After(FlowBox::Monitor, Outcome::Monitoring, 1), Act::SpotHas(Supply::Unlimited)),
    ];
    let mut tale = Tale::new(Scenario::SilentLoss, script);
    // The bystander on demand has room, too.
    tale.plot.start.apps[0].replicas += 7;
    tale.limit = Duration::from_secs(300);
    tale
}

/// How many instances of a group are there and not on their way out.
fn active(cloud: &Cloud, group: &str) -> usize {
    let group = cloud.group(group).expect("a group");
    group.instances.iter().filter(|held| !held.state.is_ending()).count()
}

async fn a_pod_waits(pods: &Api<Pod>) -> Option<()> {
    let pods = pods.list(&ListParams::default()).await.ok()?.items;
    pods.iter().any(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())).then_some(())
}

#[actix::test]
async fn a_silent_loss_has_its_on_demand_request_within_45_seconds_and_goes_back() {
    let tale = silent_loss();
    let stage = Stagecraft::set_up("silent-loss", &tale).await;
    let cloud = stage.story.world.cloud.clone();
    let pods: Api<Pod> = Api::all(stage.testbed.client());
    let requests = async {
        wait_for("a pod without a node and a Spot group that is one short", PATIENCE * 3, async || {
            if active(&cloud, SPOT) == 2 { a_pod_waits(&pods).await } else { None }
        })
        .await;
        let began = Instant::now();
        let before = active(&cloud, ON_DEMAND);
        wait_for("the on-demand request", REQUESTED_WITHIN, async || {
            (active(&cloud, ON_DEMAND) > before).then_some(())
        })
        .await;
        began.elapsed()
    };
    let (report, waited) = tokio::join!(tale.play(&stage.story), requests);
    println!("silent loss: requested after {:.1} s", waited.as_secs_f64());
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    assert_eq!(instances_in_service(&stage.story, ON_DEMAND), stage.bystanders, "nobody else was ended");
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
}

#[actix::test]
async fn a_controller_that_is_killed_in_each_phase_of_a_shortfall_is_carried_on_by_the_next() {
    let phases = [Phase::FallingBack, Phase::OnFallback, Phase::Returning, Phase::ScalingDown];
    let mut tale = silent_loss();
    // What a market says takes a moment, so that no phase is over at once.
    tale.launch_instances = false;
    tale.is_killed = true;
    tale.limit += Duration::from_secs(200);
    let mut stage = Stagecraft::set_up("silent-loss-killed", &tale).await;
    let mut launches = stage.story.world.cloud.subscribe();
    let Stagecraft { controller, story, testbed, autoscaling, .. } = &mut stage;
    let takeovers = kill_in_each(&phases, controller, story, testbed, autoscaling);
    let (report, ()) = tokio::join!(tale.play(story), takeovers);
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    let launched = std::iter::from_fn(|| launches.try_recv().ok())
        .filter(|event| event.kind == EventKind::Launching && event.group == ON_DEMAND);
    assert_eq!(launched.count(), 1, "one instance stood in, though five controllers saw to it");
    assert_eq!(instances_in_service(&stage.story, ON_DEMAND), stage.bystanders, "nobody else was ended");
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
}
