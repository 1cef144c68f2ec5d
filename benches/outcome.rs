//! What an observed Spot market costs: on-demand, missing capacity and moved pods, of the product, of what
//! users have without it, and of an oracle that knows the future. `TRACE` is what `sim::outcome` reads.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a measurement may fail, and is set by the environment"
)]

use spot_guard::sim::outcome::{Keeper, MarketOutcome, Oracle, Trace, oracle, play};
use std::time::{Duration, Instant};

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

fn played(trace: &Trace, nodes: u32, length: Duration, keeper: Keeper) -> MarketOutcome {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
    });
    system.block_on(play(trace, nodes, length, keeper)).expect("the world can be made")
}

fn show(who: &str, found: &MarketOutcome, best: &Oracle, took: Duration) {
    let ratio = if best.on_demand_hours > 0.0 {
        format!("{:.2}", found.on_demand_hours / best.on_demand_hours)
    } else {
        "-".to_owned()
    };
    println!(
        "| {who} | {:.1} | {ratio} | {:.2} | {} | {} | {} | {} | {} | {} | {:.0} |",
        found.on_demand_hours,
        found.missing_hours,
        found.notices,
        found.short_lived,
        found.moved,
        found.killed,
        found.changes,
        found.calls,
        took.as_secs_f64(),
    );
}

fn main() {
    let Some(path) = std::env::var("TRACE").ok().filter(|path| !path.is_empty()) else {
        eprintln!("TRACE is not set: name a file with an observed market, as in `make outcome TRACE=file`");
        std::process::exit(2);
    };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let trace = Trace::read(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    let nodes = u32::try_from(setting("NODES", 4)).expect("a number of nodes");
    let length = trace.length().min(Duration::from_secs(setting("HOURS", 48) * 3600));
    println!("{nodes} nodes, {:.0} h of {path}\n", length.as_secs_f64() / 3600.0);
    println!(
        "| who | on-demand, h | x oracle | pods missing, h | notices | short-lived | moved | killed | changes | calls | s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let best = oracle(&trace, nodes, length);
    println!(
        "| oracle | {:.1} | 1.00 | 0.00 | - | - | {} | 0 | - | - | - |",
        best.on_demand_hours, best.moved
    );
    for (who, keeper) in [
        ("Spot Guard", Keeper::SpotGuard),
        ("cluster-autoscaler", Keeper::Autoscaler),
        ("nobody", Keeper::Nobody),
    ] {
        let began = Instant::now();
        let found = played(&trace, nodes, length, keeper);
        show(who, &found, &best, began.elapsed());
    }
}
