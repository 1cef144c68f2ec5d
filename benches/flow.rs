//! How soon capacity is asked for, and how many AWS calls that takes, by both ways to ask. The stories run in
//! the simulated cloud; its answers take no time of their own but for a successful LaunchInstances (1 s). On
//! simulated time the whole story is played; on real time its beginning, until capacity was asked for. And
//! whether many readers of the HTTP API slow that down.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a measurement may fail")]

use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::http::{self, ApiState, Door};
use spot_guard::sim::run::ScenarioRun;
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ControllerHandle, Gates, ON_DEMAND, SPOT, TAINT, WorldOptions};
use spot_guard::telemetry::liveness::Liveness;
use spot_guard_cloud::cloud::{CallRecord, Cloud, Supply};
use spot_guard_core::policy::Policy;
use spot_guard_core::record::Outcome;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EPOCH: &str = "2026-01-01T03:00:00Z";
/// The calls that ask a group for capacity.
const ASKS: [&str; 2] = ["SetDesiredCapacity", "LaunchInstances"];
/// When Spot has capacity again, in the scenarios of returns.
const BACK: u64 = 600;
/// Reads of the API per second, by so many readers.
const READS: u32 = 1000;
const READERS: u32 = 16;
/// What they read, in turn.
const PATHS: [&str; 5] = ["status", "pools", "replacements", "fallbacks", "nodes"];

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
    /// Seconds from the beginning until the last fallback was gone.
    gone: f64,
    /// Calls that asked the Spot group.
    asked_spot: usize,
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
        let mut story = ScenarioRun::begin_on("bench".to_owned(), plot, clock, 1, WorldOptions::default())
            .await
            .expect("the story begins");
        let end = Shutdown::new();
        let _controller = story.controller("bench", Gates::default(), &end);
        story.to_its_end(&mut |_| {}).await.expect("the script can be played");
        let hours = story.elapsed().as_secs_f64() / 3600.0;
        let cloud = &story.world.cloud;
        let calls = cloud.calls();
        let records = story.records().await;
        let noticed = records.iter().filter_map(|record| record.status.as_ref()?.started_at).min();
        let steps = records.iter().filter_map(|record| record.status.as_ref()).flat_map(|held| &held.steps);
        let gone = steps.filter(|step| step.outcome == Outcome::ScaledDown).map(|step| step.at).max();
        let epoch = EPOCH.parse().expect("a time");
        let asks_spot = |call: &&CallRecord| {
            call.group.as_deref() == Some(SPOT) && ASKS.contains(&call.operation.as_str())
        };
        Measured {
            gone: gone.map_or(f64::NAN, |at| millis(epoch, at) / 1000.0),
            asked_spot: calls.iter().filter(asks_spot).count(),
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

/// The beginning of a story on real time: milliseconds from the notice to the first request, and from the
/// failure of Spot to the first request of on-demand, if the story has one.
fn play_really(plot: Plot, readers: bool) -> (f64, Option<f64>, Option<Read>) {
    let dry = plot.script.iter().any(|(_, act)| matches!(act, Act::SpotHas(Supply::None)));
    actix::System::new().block_on(async {
        let mut story =
            ScenarioRun::begin_on("bench".to_owned(), plot, Clock::System, 1, WorldOptions::default())
                .await
                .expect("the story begins");
        let end = Shutdown::new();
        let controller = story.controller("bench", Gates::default(), &end);
        let readers = readers.then(|| Readers::start(&serve(&controller, story.world.client.clone())));
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
            played = story.to_its_end(&mut untold) => played.expect("the script can be played"),
        }
        let records = story.records().await;
        let noticed = records.iter().filter_map(|record| record.status.as_ref()?.started_at).min();
        let asked = noticed.zip(asked_at(&cloud, SPOT)).map_or(f64::NAN, |(from, to)| millis(from, to));
        let failed = failed_at(&cloud).zip(asked_at(&cloud, ON_DEMAND)).map(|(from, to)| millis(from, to));
        (asked, failed, readers.map(Readers::stop))
    })
}

fn serve(controller: &ControllerHandle, client: kube::Client) -> String {
    let state = ApiState::of(
        &controller.view,
        client,
        Liveness::of_this_thread(),
        controller.readiness.clone(),
        controller.metrics.clone(),
        Policy::default(),
        TAINT,
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/api/v1", listener.local_addr().expect("an address"));
    actix::spawn(http::serve(listener, Door::Local, state).expect("a server"));
    url
}

/// What the readers saw.
struct Read {
    per_second: f64,
    /// From the moment when a read was due, so that one that had to wait for another counts in full.
    latencies: Vec<Duration>,
    failed: usize,
}

impl Read {
    fn millis(&self, share: f64) -> f64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let place = (self.latencies.len() as f64 * share) as usize;
        self.latencies
            .get(place.min(self.latencies.len() - 1))
            .map_or(f64::NAN, |held| held.as_secs_f64() * 1000.0)
    }
}

struct Readers {
    stop: Arc<AtomicBool>,
    began: Instant,
    threads: Vec<JoinHandle<(Vec<Duration>, usize)>>,
}

impl Readers {
    fn start(url: &str) -> Self {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let reader = |number: u32| {
            let (stop, url) = (stop.clone(), url.to_owned());
            std::thread::spawn(move || {
                let client = reqwest::blocking::Client::builder().no_proxy().build().expect("a client");
                let (mut latencies, mut failed) = (Vec::new(), 0);
                let mut paths = PATHS.iter().cycle().skip(number as usize);
                let every = Duration::from_secs(1) * READERS / READS;
                let mut due = began + every * number / READERS;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let path = paths.next().expect("it goes on for ever");
                    let answer = client.get(format!("{url}/{path}")).send().and_then(|answer| answer.bytes());
                    failed += usize::from(answer.is_err());
                    latencies.push(due.elapsed());
                    due += every;
                }
                (latencies, failed)
            })
        };
        let threads = (0..READERS).map(reader).collect();
        Self { stop, began, threads }
    }

    fn stop(self) -> Read {
        self.stop.store(true, Ordering::Relaxed);
        let seconds = self.began.elapsed().as_secs_f64();
        let (mut latencies, mut failed) = (Vec::new(), 0);
        for thread in self.threads {
            let (found, wrong) = thread.join().expect("a reader ends");
            latencies.extend(found);
            failed += wrong;
        }
        latencies.sort_unstable();
        #[allow(clippy::cast_precision_loss)]
        let per_second = latencies.len() as f64 / seconds;
        Read { per_second, latencies, failed }
    }
}

/// Megabytes of this process: controller, cloud and cluster together.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// When a group was first asked for capacity.
fn asked_at(cloud: &Cloud, group: &str) -> Option<jiff::Timestamp> {
    let calls = cloud.calls();
    let first = calls
        .iter()
        .find(|call| call.group.as_deref() == Some(group) && ASKS.contains(&call.operation.as_str()));
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

/// So many nodes fall back, and Spot has capacity again after ten minutes.
fn fallbacks(count: usize, launch_instances: bool) -> Plot {
    let mut plot = twenty(launch_instances);
    plot.start.policy.brake_interruptions = Some(20);
    plot.start.policy.max_concurrent_returns = Some(5);
    plot.script.truncate(count);
    plot.script.insert(0, (Duration::from_secs(1), Act::SpotHas(Supply::None)));
    plot.script.push((Duration::from_secs(BACK), Act::SpotHas(Supply::Unlimited)));
    plot.replacements = count;
    plot.steps.clear();
    plot
}

/// How soon on-demand is gone once Spot has capacity again.
fn show_returns() {
    println!("\n| fallbacks | requested by | Spot back → last one gone, s | × one | requests to Spot |");
    println!("|---|---|---|---|---|");
    for (method, launch_instances) in [("LaunchInstances", true), ("SetDesiredCapacity", false)] {
        let mut one = f64::NAN;
        for count in [1, 8] {
            let found = play(fallbacks(count, launch_instances));
            #[allow(clippy::cast_precision_loss, reason = "ten minutes")]
            let took = found.gone - BACK as f64;
            one = if count == 1 { took } else { one };
            println!("| {count} | {method} | {took:.0} | {:.2} | {} |", took / one, found.asked_spot);
        }
    }
}

fn main() {
    let shown = |millis: Option<f64>| millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis:.0}"));
    println!(
        "| scenario | requested by | time | notice → requested, ms | out of capacity → on-demand requested, ms | changing calls | all calls | simulated h/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (story, plot) in [("Spot out of capacity", dry as fn(bool) -> Plot), ("20 notices at once", twenty)] {
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
            let (asked, failed, _) = play_really(plot(launch_instances), false);
            println!("| {story} | {method} | real | {asked:.0} | {} | - | - | - |", shown(failed));
        }
    }
    println!(
        "\n| readers | notice → requested, ms | out of capacity → on-demand requested, ms | reads/s | median, ms | p99, ms | failed | memory, MB |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for readers in [false, true] {
        let (asked, failed, read) = play_really(dry(true), readers);
        let told = read.map_or_else(
            || "- | - | - | -".to_owned(),
            |read| {
                format!(
                    "{:.0} | {:.1} | {:.1} | {}",
                    read.per_second,
                    read.millis(0.5),
                    read.millis(0.99),
                    read.failed
                )
            },
        );
        let who = if readers { READERS } else { 0 };
        println!("| {who} | {asked:.0} | {} | {told} | {} |", shown(failed), memory());
    }
    show_returns();
}
