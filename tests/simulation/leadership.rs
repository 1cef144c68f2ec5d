//! Two controllers, one lease: whatever becomes of the one that holds it, the other takes over in time, the
//! loser changes nothing any more, and what slipped through all the same is put right.

use crate::play::{Play, Stage};
use actix_web::App;
use actix_web::test::{TestRequest, call_and_read_body_json, init_service};
use jiff::Timestamp;
use serde_json::{Value, json};
use spot_guard::crd::SpotPool;
use spot_guard::http::{self, ApiState, Door};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{ControllerHandle, Gates, ON_DEMAND, POOL, SPOT, TAINT};
use spot_guard::telemetry::liveness::Liveness;
use spot_guard_cloud::cloud::{self, GateCall, LifecycleState, Supply};
use spot_guard_cloud::cluster::{self, RequestInfo};
use spot_guard_core::ids::PoolName;
use spot_guard_core::policy::Policy;
use spot_guard_core::record::Phase;
use spot_guard_core::savings::NodeAccount;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The lease of a simulated controller: its duration, a look at it, and the time that a call may take.
const TAKEOVER: Duration = Duration::from_millis(15_000 + 500 + 5_000 + 500);

/// What becomes of the first controller: its calls, and whether it can reach anything any more.
#[derive(Clone, Default)]
struct First(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// No request reaches the Kubernetes API.
    cut_off: bool,
    /// Nothing goes out any more at all, as from a process that is stopped.
    frozen: bool,
    /// The next SetDesiredCapacity is kept back, and the process is stopped with it.
    keeps_next: bool,
    kept: Option<u32>,
    changes: Vec<Instant>,
    /// When it had lost the lease to the other one.
    lost_at: Option<Instant>,
}

impl First {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn gates(&self) -> Gates {
        Gates { kube: Some(Arc::new(self.clone())), aws: Some(Arc::new(self.clone())), ..Gates::default() }
    }
}

impl cluster::RequestGate for First {
    fn before(&self, _: &RequestInfo) -> cluster::RequestFate {
        self.with(|seen| {
            if seen.cut_off || seen.frozen { cluster::RequestFate::Drop } else { cluster::RequestFate::Pass }
        })
    }

    fn after(&self, request: &RequestInfo, _: u16) -> cluster::RequestFate {
        cluster::RequestGate::before(self, request)
    }
}

impl cloud::CallGate for First {
    fn before_call(&self, call: &GateCall) -> cloud::CallFate {
        self.with(|seen| {
            if seen.frozen {
                return cloud::CallFate::Drop;
            }
            if call.changes() {
                seen.changes.push(Instant::now());
            }
            if call.operation == "SetDesiredCapacity" && std::mem::take(&mut seen.keeps_next) {
                (seen.kept, seen.frozen) = (call.desired, true);
                return cloud::CallFate::Drop;
            }
            cloud::CallFate::Pass
        })
    }
}

/// How long the second controller takes from now until it leads.
async fn takes_over(stage: &Stage) -> Duration {
    let began = Instant::now();
    let mut leading = stage.standby.as_ref().expect("a second controller").leading.clone();
    leading.wait_for(|leads| *leads).await.expect("it lives");
    began.elapsed()
}

const PHASES: [Phase; 6] = [
    Phase::ScalingUp,
    Phase::FallingBack,
    Phase::Draining,
    Phase::Terminating,
    Phase::OnFallback,
    Phase::Returning,
];

#[test]
fn who_ends_gracefully_hands_over_within_two_seconds_in_every_phase() {
    for phase in PHASES {
        Play::plot(&format!("handed over in {phase:?}"), Scenario::DrySpot.plot())
            .standby()
            .beside(move |stage| async move {
                stage.until_phase(&stage.spot[0], phase).await;
                let calls = stage.cloud.calls().len();
                let began = Instant::now();
                stage.end.trigger();
                takes_over(&stage).await;
                while stage.cloud.calls().len() == calls {
                    stage.pass_millis(10).await;
                }
                assert!(began.elapsed() <= Duration::from_secs(2), "{phase:?}: {:?}", began.elapsed());
            })
            .play()
            .assert_ok();
    }
}

#[test]
fn who_loses_its_lease_changes_nothing_any_more_and_the_other_takes_over_in_time() {
    for phase in PHASES {
        let first = First::default();
        let (gates, seen) = (first.gates(), first.clone());
        Play::plot(&format!("cut off in {phase:?}"), Scenario::DrySpot.plot())
            .faults(gates)
            .standby()
            .beside(move |stage| async move {
                stage.until_phase(&stage.spot[0], phase).await;
                first.with(|seen| seen.cut_off = true);
                let took = takes_over(&stage).await;
                assert!(took <= TAKEOVER, "{phase:?}: {took:?}");
                assert!(!*stage.controller.leading.borrow(), "{phase:?}: the first one has noticed before");
                first.with(|seen| {
                    seen.lost_at = Some(Instant::now());
                    seen.cut_off = false;
                });
            })
            .play()
            .assert_ok();
        // Its last call had ended before the other began: the fence closes that much earlier.
        let late = seen.with(|seen| seen.changes.iter().filter(|at| Some(**at) >= seen.lost_at).count());
        assert_eq!(late, 0, "{phase:?}: it made calls that it had no right to");
    }
}

/// What the header of the dashboard says of the leader.
#[test]
fn both_know_who_leads_and_the_leader_alone_knows_when_aws_was_read() {
    Play::plot("who leads is known", Scenario::DrySpot.plot())
        .standby()
        .beside(|stage| async move {
            let standby = stage.standby.clone().expect("a second controller");
            let holder = |held: &ControllerHandle| held.holder.borrow().clone();
            let pool = PoolName::from(POOL);
            stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
            assert_eq!(holder(&stage.controller).as_deref(), Some("first"));
            assert_eq!(holder(&standby).as_deref(), Some("first"));
            assert!(stage.controller.last_readings.of(&pool).is_some());
            assert_eq!(standby.last_readings.of(&pool), None);
            stage.end.trigger();
            takes_over(&stage).await;
            assert_eq!(holder(&standby).as_deref(), Some("second"));
            assert_eq!(stage.controller.last_readings.of(&pool), None);
        })
        .play()
        .assert_ok();
}

/// The account of the pool's nodes, as it is stored.
fn account(stage: &Stage) -> Option<NodeAccount> {
    let pool: SpotPool = stage.cluster.get("", POOL)?;
    pool.status?.node_account
}

/// Adds up the Spot and the on-demand instances in service, second by second, until this holds.
async fn serve(stage: &Stage, served: &mut Vec<(Timestamp, [usize; 2])>, holds: impl Fn() -> bool) {
    while !holds() {
        let in_service = [SPOT, ON_DEMAND].map(|name| {
            let instances = stage.cloud.group(name).expect("a group").instances;
            instances.iter().filter(|held| held.state == LifecycleState::InService).count()
        });
        served.push((stage.cloud.now(), in_service));
        stage.pass(1).await;
    }
}

/// What a replica answers about the pool's nodes.
async fn told_by(replica: &ControllerHandle, stage: &Stage) -> Value {
    let state = ApiState::of(
        &replica.view,
        stage.cluster.client(),
        Liveness::of_this_thread(),
        replica.readiness.clone(),
        replica.metrics.clone(),
        Policy::default(),
        TAINT,
    );
    let app = init_service(App::new().configure(|cfg| http::routes(cfg, state, Door::Local))).await;
    let answer: Value =
        call_and_read_body_json(&app, TestRequest::with_uri("/api/v1/savings").to_request()).await;
    answer["items"][0].clone()
}

#[test]
fn the_hours_of_the_nodes_are_those_of_the_cloud_whoever_leads_and_a_follower_tells_them() {
    // Hours are counted every five minutes and a bit, from a reading that may be half a minute old.
    const COUNTED: Duration = Duration::from_secs(360);
    let mut plot = Scenario::DrySpot.plot();
    // The fallback lasts until both leaders have counted it, and what follows is counted, too.
    plot.script[2].0 = Duration::from_secs(900);
    plot.script.push((Duration::from_secs(4500), Act::SpotHas(Supply::Unlimited)));
    Play::plot("the hours of the nodes", plot)
        .standby()
        .beside(|stage| async move {
            let second = stage.standby.clone().expect("a second controller");
            let mut served = Vec::new();
            serve(&stage, &mut served, || account(&stage).is_some()).await;
            let from = account(&stage).expect("an account").counted_at;
            let follower = || second.view.pools.find(|_| true)?.status.as_ref()?.node_account.clone();
            serve(&stage, &mut served, || follower().is_some_and(|held| held.total.fallbacks > 0)).await;
            let before = account(&stage).expect("an account");
            let told = told_by(&second, &stage).await;
            let seconds = |key: &str| (told["total"][key].as_f64().expect("hours") * 3600.0).round() as u64;
            assert_eq!(told["countedAt"], json!(before.counted_at), "{told}");
            assert_eq!(seconds("spotHours"), before.total.spot, "{told}");
            assert_eq!(seconds("fallbackHours"), before.total.fallbacks, "{told}");

            stage.end.trigger();
            serve(&stage, &mut served, || *second.leading.borrow()).await;
            let is_over = || {
                let finished = stage.status(&stage.spot[0]).finished_at;
                finished.zip(account(&stage)).is_some_and(|(at, held)| held.counted_at > at + COUNTED)
            };
            serve(&stage, &mut served, is_over).await;
            let after = account(&stage).expect("an account");
            served.retain(|(at, _)| (from..after.counted_at).contains(at));
            let truth = [0, 1].map(|group| served.iter().map(|(_, count)| count[group] as u64).sum::<u64>());
            for (counted, happened) in [after.total.spot, after.total.on_demand].into_iter().zip(truth) {
                let near = counted.abs_diff(happened) <= COUNTED.as_secs();
                assert!(near, "{counted} s are counted, {happened} s happened");
            }
            assert!(after.total.fallbacks > before.total.fallbacks, "{after:?}");
            assert!(truth[0] > 6 * COUNTED.as_secs() && truth[1] > 2 * COUNTED.as_secs(), "{truth:?}");
        })
        .play()
        .assert_ok();
}

/// A plot without LaunchInstances in which a second node is moved long after the first.
fn two_moves() -> Plot {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.launch_instances = false;
    plot.script.push((Duration::from_secs(900), Act::Rebalance(1)));
    plot.replacements = 2;
    plot
}

/// The first controller is stopped with its SetDesiredCapacity on its lips; that call arrives when the story
/// has come to `phase` under the second one, and for some time after.
fn stale_call_in(phase: Phase, seconds: u64, plot: Plot) {
    let first = First::default();
    first.with(|seen| seen.keeps_next = true);
    let gates = first.gates();
    Play::plot(&format!("a stale call in {phase:?} and {seconds} s"), plot)
        .faults(gates)
        .standby()
        .beside(move |stage| async move {
            takes_over(&stage).await;
            stage.until_phase(&stage.spot[0], phase).await;
            stage.pass(seconds).await;
            let stale = first.with(|seen| seen.kept).expect("a call was kept");
            stage.auditor.late_call(SPOT, stale).expect("within the sizes");
        })
        .play()
        .assert_ok();
}

#[test]
fn a_stale_call_that_slipped_through_is_put_right() {
    for phase in [Phase::ScalingUp, Phase::FallingBack, Phase::OnFallback, Phase::Returning] {
        stale_call_in(phase, 3, Scenario::DrySpotSetDesired.plot());
    }
    for seconds in [0, 60, 240] {
        stale_call_in(Phase::Completed, seconds, two_moves());
    }
}
