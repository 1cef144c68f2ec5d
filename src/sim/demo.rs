//! `spot-guard demo`: a scenario on the simulated cloud, told to a person.

use crate::actors::supervision::Shutdown;
use crate::clock::Clock;
use crate::config::DEFAULT_TAINT_KEY;
use crate::http::{self, ApiState, Door, Reviews};
use crate::sim::run::{Line, Report, ScenarioRun};
use crate::sim::scenario::Scenario;
use crate::sim::world::{ControllerHandle, Gates};
use crate::telemetry::liveness::Liveness;
use anyhow::Context as _;
use jiff::Timestamp;
use spot_guard_cloud::cluster::Identity;
use spot_guard_core::policy::Policy;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// When simulated time begins: a fixed day, so that a seed plays the same every time.
const EPOCH: &str = "2026-01-01T03:00:00Z";

/// The token of somebody who may request everything in the simulated cluster.
const TOKEN: &str = "demo";

/// How fast simulated time runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// So many times as fast as real time.
    Times(u32),
    /// As fast as the machine can.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "max" => Ok(Self::Max),
            number => match number.parse() {
                Ok(times @ 1..=10_000) => Ok(Self::Times(times)),
                _ => Err(format!("{number:?} is neither \"max\" nor a number from 1 to 10000")),
            },
        }
    }
}

/// What the command line asks for.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoOptions {
    /// The scenario
    #[arg(long, value_enum, default_value = "dry-spot")]
    pub scenario: Scenario,
    /// How many times as fast as real time, or "max"; a real cluster runs at real time
    #[arg(long, default_value = "20")]
    pub speed: Speed,
    /// End with the scenario; exit status 0 only if all expected steps happened
    #[arg(long)]
    pub once: bool,
    /// Write a report as JSON to this file; "-" is standard output, and nothing else is printed there
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Seed of the world
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play on this cluster (kind, KWOK) instead of the simulated one: nodes are created and deleted in it
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Plays the demo. Returns whether every expectation held.
///
/// # Errors
/// When the scenario cannot be played or its report not be written.
pub fn run(options: &DemoOptions) -> anyhow::Result<bool> {
    let paused = options.kubeconfig.is_none();
    let system = actix::System::with_tokio_rt(move || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(paused)
            .build()
            .unwrap_or_else(|error| panic!("cannot start the runtime: {error}"))
    });
    system.block_on(play(options))
}

async fn play(options: &DemoOptions) -> anyhow::Result<bool> {
    let mut out = Teller::new(options);
    let client = match &options.kubeconfig {
        Some(path) => Some(crate::kube::client::from_file(path).await?),
        None => None,
    };
    let clock = if client.is_some() { Clock::System } else { Clock::simulated(EPOCH.parse::<Timestamp>()?) };
    // Simulated time is paused while nothing is due; at a given speed it is moved on by the real clock.
    let pace = (client.is_none()).then_some(options.speed);
    if let Some(Speed::Times(times)) = pace {
        actix::spawn(keep_pace(times));
    }
    let mut run = ScenarioRun::begin(options.scenario, clock, options.seed, client).await?;
    let end = Shutdown::new();
    let controller = run.controller("demo-0", Gates::default(), &end);
    let addresses = serve(&controller, run.world.client.clone(), clock)?;
    out.line(&format!(
        "Scenario {}: {} nodes on Spot, {} on demand. Dashboard at {}/",
        options.scenario.name(),
        run.spot_nodes(),
        run.on_demand_nodes(),
        addresses.local,
    ));
    if let Some(cluster) = &run.world.cluster {
        cluster.add_token(TOKEN, Identity { user: "demo".to_owned(), ..Identity::default() });
        out.line(&format!("It has buttons at {}/, for the token {TOKEN:?}.", addresses.main));
    }
    run.to_its_end(&mut |line| out.tell(&line)).await?;
    let report = run.report().await;
    out.summary(&report);
    write_report(options, &report)?;
    if !options.once {
        out.line("The scenario is over; the API goes on until ctrl-c.");
        tokio::signal::ctrl_c().await.context("cannot listen for ctrl-c")?;
    }
    end.trigger();
    run.world.clean_up().await;
    Ok(report.ok)
}

/// Moves paused time on as real time passes. A blocking task keeps the runtime from moving it by itself.
async fn keep_pace(times: u32) {
    let beat = Duration::from_millis(5);
    loop {
        let began = std::time::Instant::now();
        if tokio::task::spawn_blocking(move || std::thread::sleep(beat)).await.is_err() {
            return;
        }
        tokio::time::advance(began.elapsed() * times).await;
    }
}

/// Where the API of a demo answers.
struct Addresses {
    /// For reading.
    local: String,
    /// With a token.
    main: String,
}

/// Serves both doors, as a controller does.
fn serve(controller: &ControllerHandle, client: kube::Client, clock: Clock) -> anyhow::Result<Addresses> {
    let state = ApiState {
        now: Arc::new(shown_time(clock)),
        is_leader: controller.leading.clone(),
        holder: controller.holder.clone(),
        last_readings: controller.last_readings.clone(),
        cluster_name: Some("demo".to_owned()),
        ..ApiState::of(
            &controller.view,
            client.clone(),
            Liveness::of_this_thread(),
            controller.readiness.clone(),
            controller.metrics.clone(),
            Policy::default(),
            DEFAULT_TAINT_KEY,
        )
    };
    actix::spawn(http::keep_history(state.clone()));
    let reviews = Arc::new(Reviews::new(client, controller.metrics.clone()));
    let open = |door: Door| {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
        let address = listener.local_addr()?;
        actix::spawn(http::serve(listener, door, state.clone())?);
        anyhow::Ok(format!("http://{address}"))
    };
    Ok(Addresses { local: open(Door::Local)?, main: open(Door::Main { reviews, tls: None })? })
}

/// The time of the scenario, for threads on which tokio's clock is another one.
fn shown_time(clock: Clock) -> impl Fn() -> Timestamp + Send + Sync {
    let nanoseconds = move || i64::try_from(clock.now().as_nanosecond()).unwrap_or(i64::MAX);
    let shown = Arc::new(AtomicI64::new(nanoseconds()));
    let hand = shown.clone();
    actix::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            hand.store(nanoseconds(), Ordering::Relaxed);
        }
    });
    move || Timestamp::from_nanosecond(shown.load(Ordering::Relaxed).into()).unwrap_or(Timestamp::MAX)
}

fn write_report(options: &DemoOptions, report: &Report) -> anyhow::Result<()> {
    let Some(path) = &options.report else { return Ok(()) };
    let text = serde_json::to_string_pretty(report)? + "\n";
    if path.as_os_str() == "-" {
        std::io::stdout().write_all(text.as_bytes()).context("cannot write the report to standard output")
    } else {
        std::fs::write(path, text).with_context(|| format!("cannot write the report to {}", path.display()))
    }
}

/// Tells a person what happens: on standard output, or on standard error if the report goes there.
struct Teller {
    to_stderr: bool,
    colour: bool,
}

impl Teller {
    fn new(options: &DemoOptions) -> Self {
        let to_stderr = options.report.as_ref().is_some_and(|path| path.as_os_str() == "-");
        let terminal =
            if to_stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
        Self { to_stderr, colour: terminal }
    }

    /// A reader that went away does not end the run.
    fn line(&mut self, text: &str) {
        let _ = if self.to_stderr {
            writeln!(std::io::stderr(), "{text}")
        } else {
            writeln!(std::io::stdout(), "{text}")
        };
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn tell(&mut self, line: &Line) {
        let seconds = line.at.as_secs();
        let time = format!("{:>3}:{:02}", seconds / 60, seconds % 60);
        let text = match line.flow_box {
            None => format!("{time}          {}", self.paint("33", &line.text)),
            Some(flow_box) => format!(
                "{time}  box {}  {:<28} {}",
                self.paint("36", &format!("{:<4}", flow_box.number())),
                line.node,
                line.text
            ),
        };
        self.line(&text);
    }

    fn summary(&mut self, report: &Report) {
        let mut text = String::new();
        for (name, group) in [("Spot", report.groups.spot), ("on-demand", report.groups.on_demand)] {
            let _ = write!(
                text,
                "{name} {}/{} (began with {}), ",
                group.in_service, group.desired, group.baseline
            );
        }
        let _ = write!(
            text,
            "{} taints and cordons left, {} pods pending, {} budget violations; {} simulated in {:.1} s",
            report.leftover_marks,
            report.pending_pods,
            report.pdb_violations,
            minutes(report.simulated_seconds),
            report.wall_seconds
        );
        self.line(&text);
        for problem in &report.problems {
            let problem = self.paint("31", &format!("not as expected: {problem}"));
            self.line(&problem);
        }
        if report.ok {
            let ok = self.paint("32", "Everything was as expected.");
            self.line(&ok);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a span of time, not negative")]
fn minutes(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}
