//! How soon capacity is asked for, and how many AWS calls that takes, by both ways to ask. The stories run in the
//! simulated cloud; its answers take no time of their own but for a successful LaunchInstances (1 s). On simulated
//! time the whole story is played; on real time its beginning, until capacity was asked for.

use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::sim::cloud::{Capacity, Cloud};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::story::Story;
use spot_guard::sim::world::{Gates, ON_DEMAND, SPOT, Stage};
use std::time::{Duration, Instant};

const EPOCH: &str = "2026-01-01T03:00:00Z";

/// What one story showed.
struct Measured {
    /// Milliseconds from the stored notice to the first call that asks the Spot group.
    notice_to_request: f64,
    /// Milliseconds from the first failed launch to the call that asks the on-demand group.
    dry_to_on_demand: Option<f64>,
    /// Calls that change a group.
    changes: usize,
    /// All calls, readings included.
    calls: usize,
    /// Simulated hours per second of real time.
    pace: f64,
}

fn play(plot: Plot) -> Measured {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(async {
        let began = Instant::now();
        let clock = Clock::simulated(EPOCH.parse().expect("a time"));
        let mut story = Story::begin_on("bench".to_owned(), plot, clock, 1, Stage::default())
            .await
            .expect("the story begins");
        let end = Shutdown::new();
        let _controller = story.controller("bench", Gates::default(), &end);
        story.run(&mut |_| {}).await.expect("the script can be played");
        let hours = story.elapsed().as_secs_f64() / 3600.0;
        let cloud = &story.world.cloud;
        let calls = cloud.calls();
        let records = story.records().await;
        let noticed = records.iter().filter_map(|record| record.status.as_ref()?.started_at).min();
        Measured {
            notice_to_request: noticed
                .zip(asked_at(cloud, SPOT))
                .map_or(f64::NAN, |(from, to)| millis(from, to)),
            dry_to_on_demand: failed_at(cloud)
                .zip(asked_at(cloud, ON_DEMAND))
                .map(|(from, to)| millis(from, to)),
            changes: calls.iter().filter(|call| !call.operation.starts_with("Describe")).count(),
            calls: calls.len(),
            pace: hours / began.elapsed().as_secs_f64(),
        }
    })
}

/// The beginning of a story on real time: milliseconds from the notice to the first request, and from the failure
/// of Spot to the first request of on-demand, if the story has one.
fn play_really(plot: Plot) -> (f64, Option<f64>) {
    let dry = plot.script.iter().any(|(_, act)| matches!(act, Act::SpotHas(Capacity::None)));
    actix::System::new().block_on(async {
        let mut story = Story::begin_on("bench".to_owned(), plot, Clock::System, 1, Stage::default())
            .await
            .expect("the story begins");
        let end = Shutdown::new();
        let _controller = story.controller("bench", Gates::default(), &end);
        let cloud = story.world.cloud.clone();
        let last = if dry { ON_DEMAND } else { SPOT };
        let asked = async {
            while asked_at(&cloud, last).is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut untold = |_| {};
        tokio::select! {
            () = asked => {}
            played = story.run(&mut untold) => played.expect("the script can be played"),
        }
        let records = story.records().await;
        let noticed = records.iter().filter_map(|record| record.status.as_ref()?.started_at).min();
        let asked = noticed.zip(asked_at(&cloud, SPOT)).map_or(f64::NAN, |(from, to)| millis(from, to));
        let failed = failed_at(&cloud).zip(asked_at(&cloud, ON_DEMAND)).map(|(from, to)| millis(from, to));
        (asked, failed)
    })
}

/// When a group was first asked for capacity.
fn asked_at(cloud: &Cloud, group: &str) -> Option<jiff::Timestamp> {
    let asks = ["SetDesiredCapacity", "LaunchInstances"];
    let calls = cloud.calls();
    let first = calls
        .iter()
        .find(|call| call.group.as_deref() == Some(group) && asks.contains(&call.operation.as_str()));
    first.map(|call| call.at)
}

/// When the first launch that failed began.
fn failed_at(cloud: &Cloud) -> Option<jiff::Timestamp> {
    let activities = cloud.snapshot().activities;
    activities.iter().find(|found| found.status_code == "Failed").map(|found| found.start)
}

fn millis(from: jiff::Timestamp, to: jiff::Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

/// Twenty nodes get a recommendation in the same second.
fn twenty(launch_instances: bool) -> Plot {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.spot_nodes = 20;
    plot.start.policy.max_concurrent_replacements = Some(20);
    plot.start.policy.max_concurrent_percent = Some(100);
    plot.start.launch_instances = launch_instances;
    for app in &mut plot.start.apps {
        app.replicas *= 4;
        app.max_unavailable = Some(4);
    }
    plot.script = (0..20).map(|number| (Duration::from_secs(5), Act::Rebalance(number))).collect();
    plot.replacements = 20;
    plot
}

fn dry(launch_instances: bool) -> Plot {
    let mut plot = Scenario::DrySpot.plot();
    plot.start.launch_instances = launch_instances;
    plot
}

fn main() {
    let shown = |millis: Option<f64>| millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.0}"));
    println!(
        "| story | asked by | time | notice → asked, ms | dry → on-demand asked, ms | changing calls | all calls | simulated h/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (story, plot) in [("dry Spot", dry as fn(bool) -> Plot), ("20 notices at once", twenty)] {
        for (method, launch_instances) in [("LaunchInstances", true), ("SetDesiredCapacity", false)] {
            let found = play(plot(launch_instances));
            println!(
                "| {story} | {method} | simulated | {:.0} | {} | {} | {} | {:.2} |",
                found.notice_to_request,
                shown(found.dry_to_on_demand),
                found.changes,
                found.calls,
                found.pace
            );
            let (asked, failed) = play_really(plot(launch_instances));
            println!("| {story} | {method} | real | {asked:.0} | {} | - | - | - |", shown(failed));
        }
    }
}
