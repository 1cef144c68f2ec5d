//! A cluster that always runs fuller than the limit of utilisation still finds its way back to Spot.

use crate::play::Play;
use spot_guard::sim::scenario::{Plot, Scenario};
use spot_guard::sim::world::{App, Start};

/// Five nodes of 4 cores with `pods` pods of 850 thousandths; four of them fill a node.
fn with_pods(pods: u32) -> Plot {
    let plot = Scenario::FullCluster.plot();
    let web = App {
        name: "web".to_owned(),
        replicas: pods,
        cpu_millis: 850,
        memory_mib: 1024,
        max_unavailable: Some(2),
    };
    Plot { start: Start { spot_nodes: 5, apps: vec![web], ..plot.start }, ..plot }
}

#[test]
fn a_cluster_that_always_runs_at_85_per_cent_returns() {
    for seed in 1..=3 {
        let played = Play::plot("always at 85 %", with_pods(20)).seed(seed).play();
        played.assert_ok();
        let story = &played.report.replacements[0];
        assert!(story.fallback, "it fell back, and its end says that it came back");
        // Spot is back at 240 s; the group tries again after 5 min at the latest, then 2 min of stability.
        let took = played.report.simulated_seconds;
        assert!(took <= 240.0 + 600.0, "it took {took} s");
    }
}
