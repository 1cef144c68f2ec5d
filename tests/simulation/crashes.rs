//! The controller is killed before and after each of its writes; another takes over, and the story ends as it
//! should all the same.

use crate::play::{Play, Played, SCENARIOS};
use spot_guard::sim::crash::{CrashPoint, Moment};
use spot_guard::sim::scenario::Scenario;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

const SEED: u64 = 1;

/// How many of its crash points a story is tried at: each, or every n-th.
fn every(scenario: Scenario) -> usize {
    match scenario {
        Scenario::Rebalance | Scenario::DrySpot | Scenario::TwoMinuteNotice => 1,
        Scenario::AllDry | Scenario::PdbBlocked | Scenario::DrySpotSetDesired => 3,
        Scenario::BusyCluster => 5,
        Scenario::ThreeFallbacks => 17,
        Scenario::Storm => 401,
    }
}

/// The points of a story: before and after each write that it makes when nobody is killed.
fn points(scenario: Scenario) -> Vec<CrashPoint> {
    let writes = Play::of(scenario).seed(SEED).play().writes.len();
    (0..writes)
        .flat_map(|number| [Moment::Before, Moment::After].map(|moment| CrashPoint { number, moment }))
        .collect()
}

/// Plays the story once per point, on all cores.
fn try_points(scenario: Scenario, points: &[CrashPoint]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(complaint) = complaint(&Play::of(scenario).seed(SEED).crash(*point).play()) {
                        let text = format!("killed at {point:?}: {complaint}");
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}: {} points tried, {} failed", scenario.name(), points.len(), failures.len());
    failures
}

fn complaint(played: &Played) -> Option<String> {
    if !played.crashed {
        return Some("the point was not reached".to_owned());
    }
    let write = played.writes.last().cloned().unwrap_or_default();
    played.complaints().map(|text| format!("{write}: {text}"))
}

fn try_some(scenario: Scenario) {
    let all = points(scenario);
    let some: Vec<CrashPoint> = all.iter().copied().step_by(every(scenario)).collect();
    let failures = try_points(scenario, &some);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

macro_rules! stories {
    ($($name:ident: $scenario:ident,)*) => {
        $(#[test]
        fn $name() {
            try_some(Scenario::$scenario);
        })*
    };
}

stories! {
    rebalance_survives_a_crash: Rebalance,
    dry_spot_survives_a_crash: DrySpot,
    dry_spot_by_desired_capacity_survives_a_crash: DrySpotSetDesired,
    all_dry_survives_a_crash: AllDry,
    two_minute_notice_survives_a_crash: TwoMinuteNotice,
    pdb_blocked_survives_a_crash: PdbBlocked,
    busy_cluster_survives_a_crash: BusyCluster,
    three_fallbacks_survive_a_crash: ThreeFallbacks,
    storm_survives_a_crash: Storm,
}

#[test]
#[ignore = "takes many minutes: every point of every story"]
fn every_story_survives_a_crash_at_every_point() {
    let failures: Vec<String> =
        SCENARIOS.iter().flat_map(|scenario| try_points(*scenario, &points(*scenario))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
