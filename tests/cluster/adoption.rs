//! On-demand above the baseline goes back to Spot, on the real control plane.

use crate::stories::{Stagecraft, Tale, instances_in_service, kill_in_each};
use spot_guard::sim::scenario::Scenario;
use spot_guard::sim::world::ON_DEMAND;
use spot_guard_cloud::cloud::EventKind;
use spot_guard_core::record::Phase;
use std::time::Duration;

/// Two on-demand instances and a baseline of one. Without one more Spot node the pool would be too full.
fn above() -> Tale {
    let mut tale = Tale::new(Scenario::Adoption, Vec::new());
    tale.plot.start.on_demand_nodes = 2;
    tale.plot.start.baseline.baseline = Some(1);
    tale.plot.start.baseline.adopt_after_seconds = Some(60);
    tale.limit = Duration::from_secs(300);
    tale
}

#[actix::test]
async fn an_instance_above_the_baseline_goes_back_though_its_controller_is_killed_in_each_phase() {
    let phases = [Phase::OnFallback, Phase::Returning, Phase::ScalingDown];
    let mut tale = above();
    // What a market says takes a moment, so that no phase is over at once.
    tale.launch_instances = false;
    tale.is_killed = true;
    tale.limit += Duration::from_secs(200);
    let mut stage = Stagecraft::set_up("adoption", &tale).await;
    let mut events = stage.story.world.cloud.subscribe();
    let Stagecraft { controller, story, testbed, autoscaling, .. } = &mut stage;
    let takeovers = kill_in_each(&phases, controller, story, testbed, autoscaling);
    let (report, ()) = tokio::join!(tale.play(story), takeovers);
    assert_eq!(report.problems, [""; 0], "{report:#?}");
    let launched =
        std::iter::from_fn(|| events.try_recv().ok()).filter(|event| event.kind == EventKind::Launching);
    let groups: Vec<String> = launched.map(|event| event.group).collect();
    assert_eq!(groups.len(), 1, "one Spot instance came for it: {groups:?}");
    let left = instances_in_service(&stage.story, ON_DEMAND);
    assert_eq!(left.len(), 1, "the baseline is left");
    assert!(stage.bystanders.contains(&left[0]), "and it is one of those that were there");
    stage.agent.ends_well().await;
    stage.controller.ends_well().await;
}
