//! The safety check against the real kube-scheduler: random clusters, what the check says of each, and then
//! the drain for real.
//!
//! Nobody controls in which order pods are made anew and scheduled, so each drain is repeated in
//! [`trial::ORDERS`] random orders, and with profiles of the scheduler that prefer other nodes: "safe" has to
//! hold in all of them. Pods are bound and made anew by the test, so that an order takes a tenth of a second;
//! one order of each cluster with a budget goes through the eviction API, with the real disruption
//! controller.
//!
//! `make differential CLUSTERS=n SEED=first` tries more clusters, and replays one.

mod generator;
mod provisioner;
mod trial;

use crate::product::install_crds;
use crate::testbed::{Options, Testbed};
use spot_guard::clock::Clock;
use spot_guard::kube::view::View;
use spot_guard::telemetry::readiness::Readiness;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trial::{Drained, Trial, Watched};

/// The clusters of a normal run of the tests: 22 in which the rules of the check decide, each in at least
/// one, and 8 that are safe. `docs/benchmarks.md` says which rule in which.
const CLUSTERS: [u64; 30] = [
    15, 36, 39, 43, 102, 756, 79, 7, 38, 54, 66, 45, 49, 73, 123, 215, 18, 121, 125, 80, 89, 237, 1, 16, 21,
    27, 30, 32, 33, 34,
];

#[derive(Default)]
struct Tally {
    safe: u64,
    wrongly_safe: Vec<String>,
    unsafe_: u64,
    /// Nodes, or capacity of drivers, that the check does not count on are used by the scheduler: it may do
    /// better.
    not_comparable: u64,
    wrongly_unsafe: Vec<String>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} safe, of these {} wrongly; {} unsafe, of these {} wrongly, and {} where the scheduler used \
             nodes or capacity that do not count",
            self.safe,
            self.wrongly_safe.len(),
            self.unsafe_,
            self.wrongly_unsafe.len(),
            self.not_comparable,
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_agrees_with_the_real_scheduler() {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
    };
    let seeds: Vec<u64> = match (number("SEED"), number("CLUSTERS")) {
        (None, None) => CLUSTERS.to_vec(),
        (first, clusters) => (first.unwrap_or(1)..).take(clusters.unwrap_or(1) as usize).collect(),
    };
    let options = Options { kubelets: false, scheduling_only: true, ..Options::default() };
    let testbed = Testbed::start_with("differential", options).await;
    install_crds(&testbed).await;
    let client = testbed.client();
    trial::prepare(&client).await;
    let view = View::start(&client, "spot-guard", &Readiness::default(), &Arc::default(), Clock::System);
    view.synced().await;
    let watched = Watched::start(&client);
    let provisioner = provisioner::start(&client);

    let began = Instant::now();
    let mut tally = Tally::default();
    for (done, seed) in (1..).zip(seeds.iter().copied()) {
        let cluster = generator::generate(seed);
        let trial = Trial { client: &client, view: &view, watched: &watched, cluster: &cluster, seed };
        compare(&trial, &mut tally).await;
        if usize::is_multiple_of(done, 50) || done == seeds.len() {
            let (first, took) = (seeds[0], began.elapsed().as_secs_f64());
            println!("{done} clusters from seed {first} in {took:.0} s: {tally}");
        }
    }
    provisioner.abort();
    assert!(
        tally.wrongly_safe.is_empty(),
        "safe, and a pod stays pending:\n{}",
        tally.wrongly_safe.join("\n")
    );
    assert!(
        (tally.wrongly_unsafe.len() as u64) * 20 < tally.unsafe_.max(20),
        "unsafe, and all pods find a node:\n{}",
        tally.wrongly_unsafe.join("\n")
    );
    if seeds.len() >= CLUSTERS.len() {
        let clusters = seeds.len() as u64;
        assert!(tally.safe * 5 > clusters && tally.unsafe_ * 5 > clusters, "the clusters are one-sided");
    }
}

async fn compare(trial: &Trial<'_>, tally: &mut Tally) {
    trial.set_up().await;
    let report = trial.check();
    let seed = trial.seed;
    let replay = format!("replay: make differential CLUSTERS=1 SEED={seed}");
    if report.safe {
        tally.safe += 1;
        // A scheduler that is late must not look like one that finds nothing.
        if let Drained::Not { order, reason } = trial.drain(Duration::from_secs(10)).await {
            let told = format!("seed {seed}, order {order}: {reason}; {replay}");
            println!("safe, and a pod stays pending: {told}");
            tally.wrongly_safe.push(told);
        }
    } else {
        tally.unsafe_ += 1;
        match trial.drain(Duration::from_millis(1500)).await {
            Drained::Not { .. } => {}
            Drained::Always if !trial.cluster.excluded.is_empty() || trial.cluster.counts_capacity() => {
                tally.not_comparable += 1;
            }
            Drained::Always => {
                let blockers: Vec<String> = report.blockers.iter().map(ToString::to_string).collect();
                let told = format!("seed {seed}: {}; {replay}", blockers.join("; "));
                println!("unsafe, and all pods find a node: {told}");
                tally.wrongly_unsafe.push(told);
            }
        }
    }
    trial.tear_down().await;
}
