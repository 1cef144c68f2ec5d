//! Every actor of the controller may fail in any way at any time: it is back within a second at the same
//! link, and the story that it had a part in goes on from the records.

use crate::play::{Play, Stage};
use actix::{Actor, Context, Handler};
use spot_guard::actors::supervision::crash::Crash;
use spot_guard::actors::supervision::{ANSWER_WITHIN, GOOD_LIFE, Link, PING_EVERY, Ping, RestartCause};
use spot_guard::controller::Actors;
use spot_guard::sim::scenario::Scenario;
use spot_guard_core::record::Phase;
use std::time::Duration;
use tokio::time::Instant;

/// How an actor is made to fail, how that is counted, and how soon it must answer again.
const WAYS: [(Crash, RestartCause, Duration); 4] = [
    (Crash::PanicNow, RestartCause::Panicked, Duration::from_secs(1)),
    (Crash::PanicLater, RestartCause::Panicked, Duration::from_secs(1)),
    (Crash::Stop, RestartCause::Stopped, Duration::from_secs(1)),
    // A handler that never answers is found by the next ping.
    (
        Crash::Hang,
        RestartCause::Stuck,
        PING_EVERY.saturating_add(ANSWER_WITHIN).saturating_add(Duration::from_secs(6)),
    ),
];

async fn actors(stage: &Stage) -> Actors {
    let mut actors = stage.controller.actors.clone();
    let found = actors.wait_for(Option::is_some).await.expect("the controller lives");
    found.clone().expect("it leads")
}

/// Makes the actor fail, and waits until it answers again: how long that took.
async fn fail<A>(link: &Link<A>, crash: Crash, cause: RestartCause) -> Duration
where
    A: Actor<Context = Context<A>> + Handler<Crash> + Handler<Ping>,
{
    let before = link.restarts().get(&cause).copied().unwrap_or(0);
    let began = Instant::now();
    link.send(crash);
    while link.restarts().get(&cause).copied().unwrap_or(0) == before || link.ask(Ping).await.is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// A story of a fallback in which one actor fails once, in this phase, in this way.
fn survives_one<A>(
    name: &'static str,
    link: fn(&Actors) -> &Link<A>,
    (crash, cause, within): (Crash, RestartCause, Duration),
    phase: Phase,
) where
    A: Actor<Context = Context<A>> + Handler<Crash> + Handler<Ping>,
{
    let played = Play::plot(&format!("{name}: {crash:?} in {phase:?}"), Scenario::DrySpot.plot())
        .beside(move |stage| async move {
            stage.until_phase(&stage.spot[0], phase).await;
            let actors = actors(&stage).await;
            let took = fail(link(&actors), crash, cause).await;
            assert!(took <= within, "{name} answers after {took:?}: {crash:?} in {phase:?}");
            assert_eq!(link(&actors).restarts().into_iter().collect::<Vec<_>>(), [(cause, 1)]);
            let metrics = stage.metrics();
            let line = format!("spot_guard_actor_restarts_total{{actor=\"{name}\",cause=\"{cause:?}\"}} 1\n");
            assert!(metrics.contains(&line), "no {line} in {metrics}");
        })
        .play();
    played.assert_ok();
}

/// It fails in each of these phases, and in the first of them in every way.
fn survives<A>(name: &'static str, link: fn(&Actors) -> &Link<A>, phases: &[Phase])
where
    A: Actor<Context = Context<A>> + Handler<Crash> + Handler<Ping>,
{
    for way in WAYS {
        survives_one(name, link, way, phases[0]);
    }
    for phase in &phases[1..] {
        survives_one(name, link, WAYS[0], *phase);
    }
}

#[test]
fn the_asg_scaler_comes_back_and_its_story_goes_on() {
    let phases =
        [Phase::FallingBack, Phase::ScalingUp, Phase::Terminating, Phase::OnFallback, Phase::ScalingDown];
    survives("AsgScaler", |actors| &actors.scaler, &phases);
}

#[test]
fn the_fallback_tracker_comes_back_and_its_story_goes_on() {
    let phases = [Phase::Draining, Phase::ScalingUp, Phase::FallingBack, Phase::OnFallback, Phase::Returning];
    survives("FallbackTracker", |actors| &actors.tracker, &phases);
}

#[test]
fn the_health_monitor_comes_back_and_its_story_goes_on() {
    survives("HealthMonitor", |actors| &actors.monitor, &[Phase::OnFallback, Phase::Returning]);
}

#[test]
fn the_drainer_comes_back_and_its_story_goes_on() {
    survives("Drainer", |actors| &actors.drainer, &[Phase::Draining, Phase::Terminating, Phase::Returning]);
}

#[test]
fn the_janitor_comes_back_and_the_story_goes_on() {
    survives("Janitor", |actors| &actors.janitor, &[Phase::OnFallback]);
}

/// Lets an actor fail as soon as it is back, until the process says that it is not ready.
fn fails_for_good<A>(name: &'static str, link: fn(&Actors) -> &Link<A>)
where
    A: Actor<Context = Context<A>> + Handler<Crash> + Handler<Ping>,
{
    let played = Play::plot(&format!("{name} fails for good"), Scenario::DrySpot.plot())
        .beside(move |stage| async move {
            stage.until_phase(&stage.spot[0], Phase::Draining).await;
            let actors = actors(&stage).await;
            let link = link(&actors);
            let mut pauses = Vec::new();
            while !stage.controller.readiness.reasons().contains_key(name) {
                pauses.push(fail(link, Crash::PanicNow, RestartCause::Panicked).await);
                assert!(pauses.len() < 10, "{name} restarts in vain and nobody says so");
            }
            let reasons = stage.controller.readiness.reasons();
            assert!(reasons[name].message.contains("restarted 6 times"), "{reasons:?}");
            assert!(pauses[0] < Duration::from_millis(100), "at once at first: {pauses:?}");
            assert!(pauses[5] > Duration::from_secs(3), "then backing off: {pauses:?}");
            tokio::time::sleep(GOOD_LIFE + PING_EVERY).await;
            assert!(!stage.controller.readiness.reasons().contains_key(name), "a good life forgives");
        })
        .play();
    played.assert_ok();
}

#[test]
fn an_actor_that_fails_for_good_turns_readiness_red_by_its_name() {
    fails_for_good("AsgScaler", |actors| &actors.scaler);
    fails_for_good("FallbackTracker", |actors| &actors.tracker);
    fails_for_good("HealthMonitor", |actors| &actors.monitor);
    fails_for_good("Drainer", |actors| &actors.drainer);
    fails_for_good("Janitor", |actors| &actors.janitor);
}
