//! A made-up day of a Spot market, played through the product and beside its neighbours.

use crate::play::on_paused_time;
use spot_guard::sim::outcome::{Keeper, MarketOutcome, Trace, oracle, play};
use std::time::Duration;

const NODES: u32 = 3;
const LENGTH: Duration = Duration::from_secs(6 * 3600);

/// Six hours: Spot takes one, all, and gives them back one after another.
fn trace() -> Trace {
    let text = r#"{ "gapSeconds": 300, "zones": { "a": [[3, 6], [2, 6], [0, 18], [1, 6], [3, 12], [1, 6], [3, 18]] } }"#;
    Trace::read(text).expect("a trace")
}

fn played(keeper: Keeper) -> MarketOutcome {
    on_paused_time(play(&trace(), NODES, LENGTH, keeper)).expect("a world")
}

#[test]
fn the_product_comes_near_to_one_who_knows_the_future_and_its_neighbours_do_not() {
    let best = oracle(&trace(), NODES, LENGTH);
    let own = played(Keeper::SpotGuard);
    assert!(own.on_demand_hours <= 1.25 * best.on_demand_hours, "{own:?}, {best:?}");
    assert_eq!(
        (own.killed, own.moved),
        (0, best.moved),
        "each pod is moved as often as it has to be: {own:?}"
    );
    // A pod that moves takes half a minute to be Ready again.
    assert!(own.missing_hours * 3600.0 <= 45.0 * 2.0 * f64::from(NODES) * 2.0, "{own:?}");

    let autoscaler = played(Keeper::Autoscaler);
    assert!(
        autoscaler.killed > 0 && autoscaler.on_demand_hours > 1.5 * best.on_demand_hours,
        "{autoscaler:?}"
    );
    let nobody = played(Keeper::Nobody);
    assert!(nobody.on_demand_hours < 0.1 && nobody.missing_hours > 0.9 * best.on_demand_hours, "{nobody:?}");
}
