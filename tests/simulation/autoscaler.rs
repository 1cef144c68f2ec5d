//! cluster-autoscaler scales the same groups by its own rules: it takes back what is not there, grows the
//! group of the highest priority for pods that wait, and removes what is half empty.

use crate::play::{Play, SCENARIOS, Stage, ends};
use spot_guard::sim::scenario::Scenario;
use spot_guard::sim::world::{ON_DEMAND, SPOT};
use spot_guard_cloud::autoscaler::{Autoscaler, AutoscalerTimes};
use std::time::Duration;

/// How long it waits before it removes a node: no story lasts so long.
const NEVER: Duration = Duration::from_secs(48 * 3600);

/// Starts it for the pool of the story: Spot first, by the priority expander.
fn start(stage: &Stage, times: AutoscalerTimes) {
    // Every scenario has the same groups.
    let groups = Scenario::Rebalance.plot().start.pool().scaled_groups().into();
    let client = stage.cluster.client();
    actix::spawn(Autoscaler::new(stage.cloud.clone(), client, groups, times).run());
}

#[test]
fn every_story_ends_at_its_baseline_beside_the_cluster_autoscaler() {
    let mut complaints = Vec::new();
    for scenario in SCENARIOS {
        let name = format!("{} beside cluster-autoscaler", scenario.name());
        let times = AutoscalerTimes { unneeded: NEVER, ..AutoscalerTimes::default() };
        let played =
            Play::plot(&name, ends(scenario)).beside(move |stage| async move { start(&stage, times) }).play();
        complaints.extend(played.complaints());
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// It may remove what is half empty, but no node that a replacement or a return relies on.
#[test]
fn the_cluster_autoscaler_scales_down_and_every_fallback_still_goes_back() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired, Scenario::ThreeFallbacks] {
        let name = format!("{} while cluster-autoscaler scales down", scenario.name());
        let mut plot = ends(scenario);
        // A node has to be half empty for ten minutes.
        plot.script.iter_mut().filter(|(at, _)| *at > Duration::from_secs(60)).for_each(|(at, _)| *at *= 4);
        let played = Play::plot(&name, plot)
            .beside(|stage| async move { start(&stage, AutoscalerTimes::default()) })
            .play();
        let told = played.told.join("\n");
        assert!(played.violations.is_empty(), "{:#?}", played.violations);
        let desired = |group| played.stage.cloud.group(group).map(|group| group.desired);
        assert_eq!(desired(ON_DEMAND), Some(0), "{told}");
        let lowered = played.stage.cloud.group(SPOT).map(|group| group.lowered_by_others);
        assert!(lowered > Some(0), "it scaled nothing down:\n{told}");
    }
}

/// The Spot group cannot give what it was asked for. cluster-autoscaler deletes the placeholder, so the
/// request of Spot Guard is gone from desired capacity; the fallback goes back all the same.
#[test]
fn a_request_whose_placeholder_is_deleted_is_made_again() {
    let plot = Scenario::DrySpotSetDesired.plot();
    let played = Play::plot("placeholder deleted", ends(Scenario::DrySpotSetDesired))
        .beside(|stage| async move {
            // It is in its place before the market is dry, and reads the group while the request is open.
            start(
                &stage,
                AutoscalerTimes { refresh: Duration::ZERO, unneeded: NEVER, ..AutoscalerTimes::default() },
            );
        })
        .play();
    played.assert_ok();
    let spot = played.stage.cloud.group(SPOT).expect("a group");
    assert!(spot.lowered_by_others > 0, "no placeholder was deleted:\n{}", played.told.join("\n"));
    assert_eq!(spot.desired, plot.start.spot_nodes);
}
