//! Plays a story on paused time, under the eyes of an auditor.

use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::sim::audit::{Auditor, Violation};
use spot_guard::sim::crash::{CrashPoint, Crasher};
use spot_guard::sim::scenario::{Plot, Scenario};
use spot_guard::sim::story::{Report, Story};
use std::fmt::Write as _;
use std::future::Future;

/// When every story begins.
const EPOCH: &str = "2026-01-01T03:00:00Z";

/// All stories of the demo.
pub const SCENARIOS: [Scenario; 7] = [
    Scenario::Rebalance,
    Scenario::DrySpot,
    Scenario::AllDry,
    Scenario::TwoMinuteNotice,
    Scenario::PdbBlocked,
    Scenario::BusyCluster,
    Scenario::ThreeFallbacks,
];

/// What came of a story.
pub struct Played {
    pub report: Report,
    pub violations: Vec<Violation>,
    /// Everything that the controllers did, in order.
    pub told: Vec<String>,
    /// The writes of the first controller.
    pub writes: Vec<String>,
    /// Whether the first controller was killed.
    pub crashed: bool,
}

impl Played {
    /// What is wrong with it, for a person; nothing if all is well.
    pub fn complaints(&self) -> Option<String> {
        if self.report.ok && self.violations.is_empty() {
            return None;
        }
        let mut text = format!("{} with seed {}:\n", self.report.scenario, self.report.seed);
        for problem in &self.report.problems {
            let _ = writeln!(text, "  not as expected: {problem}");
        }
        for violation in &self.violations {
            let _ = write!(text, "  violated: {violation}");
        }
        if self.violations.is_empty() {
            self.told.iter().for_each(|line| {
                let _ = writeln!(text, "    {line}");
            });
        }
        Some(text)
    }

    /// Panics if anything is wrong with it.
    pub fn assert_ok(&self) {
        if let Some(text) = self.complaints() {
            panic!("{text}");
        }
    }
}

/// Runs `work` in an actix system whose time stands still while anything is left to do.
pub fn on_paused_time<F: Future>(work: F) -> F::Output {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(work)
}

/// The story's clock; inside the system.
pub fn clock() -> Clock {
    Clock::simulated(EPOCH.parse().expect("a time"))
}

/// Plays a story of the demo with one controller.
pub fn play(scenario: Scenario, seed: u64) -> Played {
    on_paused_time(async move {
        let story = Story::begin(scenario, clock(), seed, None).await.expect("a world");
        tell(story, None).await
    })
}

/// Plays a plot of its own with one controller.
pub fn play_plot(name: &str, plot: Plot, seed: u64) -> Played {
    let name = name.to_owned();
    on_paused_time(async move {
        let story = Story::begin_plot(name, plot, clock(), seed, None).await.expect("a world");
        tell(story, None).await
    })
}

/// Plays a story with two controllers, of which the first dies at `point`.
pub fn play_with_crash(scenario: Scenario, seed: u64, point: CrashPoint) -> Played {
    on_paused_time(async move {
        let story = Story::begin(scenario, clock(), seed, None).await.expect("a world");
        tell(story, Some(point)).await
    })
}

async fn tell(mut story: Story, point: Option<CrashPoint>) -> Played {
    let world = &story.world;
    let cluster = world.cluster.as_ref().expect("a simulated cluster");
    let auditor = Auditor::new(&world.cloud, cluster, world.clock, story.policy());
    let end = Shutdown::new();
    let crasher = Crasher::new(point, end.clone());
    let _first = story.controller("first", auditor.gates(crasher.gates()), &end);
    let _second = point.map(|_| {
        story.controller("second", auditor.gates(spot_guard::sim::world::Gates::default()), &Shutdown::new())
    });
    story.run(&mut |_| {}).await.expect("the script can be played");
    let report = story.report().await;
    Played {
        report,
        violations: auditor.close(),
        told: auditor.story(),
        writes: crasher.writes(),
        crashed: crasher.is_dead(),
    }
}
