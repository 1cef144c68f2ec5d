//! Every story of the demo ends as it should, for every seed, and nothing that must always hold is violated.

use crate::play::{Play, SCENARIOS};
use spot_guard::sim::scenario::Scenario;
use std::time::Duration;

const SEEDS: u64 = 3;

/// Simulated seconds from the beginning to the end of a story, at most.
///
/// Where Spot comes back at a known time, this bounds how long a fallback may outlive it.
fn bound(scenario: Scenario) -> f64 {
    match scenario {
        Scenario::Rebalance | Scenario::TwoMinuteNotice => 180.0,
        Scenario::PdbBlocked => 180.0 + 120.0,
        // Spot is back at 240 s; the group tries again after 5 min at the latest, then 2 min of stability.
        Scenario::DrySpot | Scenario::DrySpotSetDesired | Scenario::FullCluster | Scenario::Autoscaler => {
            240.0 + 600.0
        }
        // Spot is back at 600 s; the group tries again after 5 min at the latest. EKS completes the hook of
        // the node that goes back.
        Scenario::ManagedNodeGroup => 600.0 + 600.0,
        // Spot is back at 900 s.
        Scenario::SilentLoss => 900.0 + 600.0,
        // Spot is back at 300 s.
        Scenario::AllDry => 300.0 + 600.0,
        // Adopted after half an hour, and the Spot node for it has to join.
        Scenario::Adoption => 1800.0 + 600.0,
        // The last instance is given at 1500 s.
        Scenario::ThreeFallbacks => 1500.0 + 600.0,
        // Spot is back at 300 s; returns are made one by one.
        Scenario::Storm => 300.0 + 600.0 + 8.0 * 60.0,
    }
}

#[test]
fn every_story_ends_as_it_should() {
    let beside = [Scenario::ManagedNodeGroup, Scenario::SilentLoss, Scenario::Autoscaler, Scenario::Adoption];
    for scenario in SCENARIOS.into_iter().chain(beside) {
        for seed in 1..=SEEDS {
            let played = Play::of(scenario).seed(seed).play();
            played.assert_ok();
            let took = played.report.simulated_seconds;
            assert!(took <= bound(scenario), "{} with seed {seed} took {took} s", scenario.name());
        }
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for scenario in SCENARIOS {
        let (first, second) = (Play::of(scenario).seed(7).play(), Play::of(scenario).seed(7).play());
        assert_eq!(first.told, second.told, "{}", scenario.name());
        assert_eq!(first.report.boxes, second.report.boxes);
    }
}

#[test]
fn a_fallback_and_its_return_take_less_than_three_seconds_of_real_time() {
    // The time of this thread alone, and the best of three: other tests share the machine.
    let fastest = (1..=3).map(|seed| {
        let began = thread_time();
        Play::of(Scenario::DrySpot).seed(seed).play();
        thread_time() - began
    });
    let fastest = fastest.min().expect("three runs");
    assert!(fastest < Duration::from_secs(3), "{fastest:?}");
}

/// How long this thread has computed; a story on paused time waits for nothing else.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec to the place it is given, and `time` is one.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    let seconds = u64::try_from(time.tv_sec).expect("not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("less than a second"))
}
