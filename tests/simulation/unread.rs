//! A record that is there and cannot be read: what it holds stays as it is, also for a controller that has
//! never read it. A record that is gone holds nothing.

use crate::play::{EPOCH, on_paused_time};
use crate::records::stored;
use serde_json::json;
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::{Gates, ON_DEMAND, SPOT, WorldOptions};
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::record::Phase;
use std::time::Duration;

pub const KIND: &str = "nodereplacements.spotguard.dev";
const NOTICES: &str = "interruptionnotices.spotguard.dev";

/// A scenario at its beginning, without its script.
pub async fn unscripted(name: &str, scenario: Scenario) -> ScenarioRun {
    let clock = Clock::simulated(EPOCH.parse().expect("a time"));
    let mut plot = scenario.plot();
    plot.script.clear();
    let story = ScenarioRun::begin_on(name.to_owned(), plot, clock, 1, WorldOptions::default()).await;
    story.expect("a world")
}

/// Waits until the oldest record is in this phase.
pub async fn until_phase(story: &ScenarioRun, phase: Phase) {
    for _ in 0..7200 {
        let records = story.records().await;
        let found = records.first().and_then(|record| record.status.as_ref()).map(|status| status.phase);
        if found == Some(phase) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("the story does not come to {phase:?}");
}

#[test]
fn a_fresh_controller_gives_back_nothing_of_a_record_that_it_cannot_read() {
    on_paused_time(async {
        let story = unscripted("unread", Scenario::DrySpot).await;
        let cluster = story.world.cluster.clone().expect("a simulated cluster");
        let end = Shutdown::new();
        let _first = story.controller("first", Gates::default(), &end);
        for act in [Act::SpotHas(Supply::None), Act::Rebalance(0)] {
            story.act(&act).await.expect("the world can do it");
        }
        until_phase(&story, Phase::OnFallback).await;

        let name = story.spot_instances()[0].clone();
        // More than is read.
        let label = |text: &str| {
            cluster.edit(KIND, "", &name, |record| record["metadata"]["labels"] = json!({ "x": text }));
        };
        label(&"y".repeat(70_000));
        let desired = || story.world.cloud.group(ON_DEMAND).expect("the group").desired;
        let held = desired();
        end.trigger();
        let second = story.controller("second", Gates::default(), &Shutdown::new());
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(*second.leading.borrow());
        assert!(second.view.not_understood().may_hold(WatchedKind::Replacement, &name));
        assert!(second.view.replacements.is_empty() && second.readiness.reasons().is_empty());
        assert_eq!(desired(), held, "what the fallback holds was given back");

        label("y");
        story.act(&Act::SpotHas(Supply::Unlimited)).await.expect("the world can do it");
        until_phase(&story, Phase::Completed).await;
        assert_eq!(story.report().await.problems, [""; 0]);
    });
}

/// As after a rollback: docs/api-versions.md.
#[test]
fn a_record_in_a_state_of_a_newer_version_is_named_and_stays_as_it_is() {
    on_paused_time(async {
        let story = unscripted("newer", Scenario::DrySpot).await;
        let cluster = story.world.cluster.clone().expect("a simulated cluster");
        let end = Shutdown::new();
        let _newer = story.controller("newer", Gates::default(), &end);
        for act in [Act::SpotHas(Supply::None), Act::Rebalance(0)] {
            story.act(&act).await.expect("the world can do it");
        }
        until_phase(&story, Phase::OnFallback).await;
        end.trigger();
        tokio::time::sleep(Duration::from_secs(30)).await;

        let name = story.spot_instances()[0].clone();
        let record = || cluster.get_json(KIND, "", &name).expect("a record");
        let known = record()["status"].clone();
        let newer = stored("newer/unknown-state.json");
        cluster.edit(KIND, "", &name, |record| record["status"] = newer["status"].clone());
        let groups = || {
            [SPOT, ON_DEMAND].map(|name| {
                let group = story.world.cloud.group(name).expect("the group");
                (group.desired, group.instances.iter().filter(|held| !held.state.is_ending()).count())
            })
        };
        let (as_stored, held) = (record(), groups());
        let older = story.controller("older", Gates::default(), &Shutdown::new());
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(*older.leading.borrow());
        let told = older.readiness.remarks()["watch-replacements"].clone();
        assert!(told.starts_with(&format!("1 not understood: {name} (a field that ends at byte ")), "{told}");
        assert!(older.readiness.serves() && older.readiness.reasons().is_empty());
        let (records, pools) = (older.view.replacements.state(), older.view.pools.state());
        let metrics = older.metrics.encode(true, &older.readiness, &records, &pools).expect("text");
        let counted = "spot_guard_objects_not_understood{resource=\"nodereplacements\"} 1\n";
        assert!(metrics.contains(counted), "{metrics}");
        assert_eq!(record(), as_stored, "it was written");
        assert_eq!(groups(), held, "what it holds was given back");

        cluster.edit(KIND, "", &name, |record| record["status"] = known);
        story.act(&Act::SpotHas(Supply::Unlimited)).await.expect("the world can do it");
        until_phase(&story, Phase::Completed).await;
        assert_eq!(story.report().await.problems, [""; 0]);
    });
}

#[test]
fn the_old_node_of_a_record_that_cannot_be_read_keeps_taint_and_cordon() {
    on_paused_time(async {
        let story = unscripted("newer drain", Scenario::PdbBlocked).await;
        let cluster = story.world.cluster.clone().expect("a simulated cluster");
        let end = Shutdown::new();
        let _newer = story.controller("newer", Gates::default(), &end);
        let name = story.spot_instances()[0].clone();
        story.act(&Act::Rebalance(0)).await.expect("the world can do it");
        until_phase(&story, Phase::ScalingUp).await;
        story.act(&Act::SetBudget("web", 0)).await.expect("the world can do it");
        until_phase(&story, Phase::Draining).await;
        let is_marked = || {
            let nodes = cluster.list_json("nodes");
            let is_on = |id: &str| id.ends_with(&name);
            let node = nodes.iter().find(|node| node["spec"]["providerID"].as_str().is_some_and(is_on));
            let node = node.expect("the old node");
            let taints = node["spec"]["taints"].to_string();
            node["spec"]["unschedulable"] == true && taints.contains("RebalanceRecommendation")
        };
        let mut waited = 0..60;
        while !is_marked() {
            assert!(waited.next().is_some(), "it is not tainted");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        end.trigger();
        tokio::time::sleep(Duration::from_secs(30)).await;

        let newer = stored("newer/unknown-state.json");
        cluster.edit(KIND, "", &name, |record| record["status"] = newer["status"].clone());
        let older = story.controller("older", Gates::default(), &Shutdown::new());
        for _ in 0..120 {
            assert!(is_marked(), "pods may come back to it");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(*older.leading.borrow());
    });
}

/// `kubectl delete nodereplacement`, or somebody removes a record that could not be read.
#[test]
fn a_record_that_is_deleted_while_it_is_open_keeps_no_other_waiting() {
    on_paused_time(async {
        let story = unscripted("deleted", Scenario::AllDry).await;
        let cluster = story.world.cluster.clone().expect("a simulated cluster");
        let _controller = story.controller("only", Gates::default(), &Shutdown::new());
        for act in [Act::SpotHas(Supply::None), Act::OnDemandHas(Supply::None), Act::Rebalance(0)] {
            story.act(&act).await.expect("the world can do it");
        }
        until_phase(&story, Phase::ScalingUp).await;
        for notice in cluster.list_json(NOTICES) {
            let name = notice["metadata"]["name"].as_str().expect("a name").to_owned();
            assert!(cluster.remove(NOTICES, "", &name));
        }
        assert!(cluster.remove(KIND, "", &story.spot_instances()[0]));
        for act in [Act::SpotHas(Supply::Unlimited), Act::Rebalance(1)] {
            story.act(&act).await.expect("the world can do it");
        }
        until_phase(&story, Phase::Completed).await;
    });
}
