//! Random stories: everything that may happen to a controller and to its world, in any order. A seed is one
//! story; `make simulate SEEDS=N SEED=n` plays more of them, and one that fails is shortened until no event
//! can be left out.

mod attacks;
mod faults;
mod plot;
mod stage;

use plot::Plot;
use stage::{Counts, Played, play};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How many seeds `make test` plays.
const SEEDS: u64 = 300;
/// A failing story is played so many times at most to shorten it.
const SHORTEN: usize = 80;
/// After so many failures no further seed is begun.
const MOST_FAILURES: usize = 5;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The numbers of the events to be kept, if not all.
fn kept_events() -> Option<Vec<usize>> {
    let text = std::env::var("SIMULATE_EVENTS").ok().filter(|text| !text.is_empty())?;
    Some(text.split(',').map(|number| number.trim().parse().expect("numbers of events")).collect())
}

/// `SIMULATE_LOG=spot_guard=debug` prints what the controllers log, with the seconds since the story began.
fn log_to_stderr() -> Option<tracing::subscriber::DefaultGuard> {
    let filter = std::env::var("SIMULATE_LOG").ok().filter(|text| !text.is_empty())?;
    let timer = SimulatedTime(tokio::time::Instant::now());
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_timer(timer);
    let filter = EnvFilter::try_new(filter).expect("a filter");
    Some(tracing::subscriber::set_default(tracing_subscriber::registry().with(layer.with_filter(filter))))
}

/// Paused time runs ahead of the machine's.
struct SimulatedTime(tokio::time::Instant);

impl FormatTime for SimulatedTime {
    fn format_time(&self, to: &mut Writer<'_>) -> std::fmt::Result {
        write!(to, "{:10.1} s", self.0.elapsed().as_secs_f64())
    }
}

fn story_of(seed: u64) -> Plot {
    let plot = Plot::of(seed);
    match kept_events() {
        Some(numbers) => plot.only(&numbers),
        None => plot,
    }
}

/// Leaves out events while the story still fails in the same way.
fn shorten(plot: Plot, played: Played) -> (Plot, Played) {
    let kinds = played.kinds();
    let (mut plot, mut played) = (plot, played);
    let mut tries = 0;
    let mut size = plot.events.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < plot.events.len() && tries < SHORTEN {
            let kept: Vec<usize> = plot
                .events
                .iter()
                .enumerate()
                .filter(|(index, _)| !(at..at + size).contains(index))
                .map(|(_, (number, _, _))| *number)
                .collect();
            let shorter = plot.only(&kept);
            let result = play(&shorter);
            tries += 1;
            if result.kinds().iter().any(|kind| kinds.contains(kind)) {
                (plot, played) = (shorter, result);
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    (plot, played)
}

fn report(plot: &Plot, played: &Played, events: usize) -> String {
    let mut text = format!(
        "seed {} fails; its shortest story has {} of {events} events:\n{}",
        plot.seed,
        plot.events.len(),
        played.describe()
    );
    let numbers: Vec<String> = plot.events.iter().map(|(number, _, _)| number.to_string()).collect();
    let _ = writeln!(text, "  pools {:?}", plot.pools);
    let _ = writeln!(
        text,
        "  make simulate SEEDS=1 SEED={}               # plays it again\n  make simulate SEEDS=1 SEED={} EVENTS={}   # the shortest story",
        plot.seed,
        plot.seed,
        numbers.join(",")
    );
    text
}

#[test]
fn random_stories() {
    let first = setting("SIMULATE_SEED").unwrap_or(1);
    let count = setting("SIMULATE_SEEDS").unwrap_or(SEEDS);
    let (next, failures) = (AtomicU64::new(0), Mutex::new(Vec::<String>::new()));
    let (simulated, played) = (Mutex::new((Duration::ZERO, Counts::default())), AtomicU64::new(0));
    let most = setting("SIMULATE_FAILURES").map_or(MOST_FAILURES, |most| usize::try_from(most).expect("few"));
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).len();
                    if number >= count || failed >= most {
                        return;
                    }
                    let plot = story_of(first + number);
                    let events = plot.events.len();
                    let result = play(&plot);
                    let mut sum = simulated.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.0 += result.simulated;
                    sum.1.add(result.counts);
                    drop(sum);
                    played.fetch_add(1, Ordering::Relaxed);
                    if !result.is_ok() {
                        let (plot, result) = shorten(plot, result);
                        let text = report(&plot, &result, events);
                        eprintln!("{text}");
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                }
            });
        }
    });
    let took = began.elapsed().as_secs_f64();
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (simulated, counts) = simulated.into_inner().unwrap_or_else(PoisonError::into_inner);
    let hours = simulated.as_secs_f64() / 3600.0;
    println!(
        "{} seeds from {first}: {} failed; {counts:?}; {hours:.1} simulated hours in {took:.1} s, {:.2} hours/s",
        played.into_inner(),
        failures.len(),
        hours / took
    );
    assert!(failures.is_empty(), "{} seeds failed, see above", failures.len());
}
