//! Groups and an Auto Scaling API that behave as the real ones do: refusals of every kind, hooks, protection,
//! a neighbour who changes desired capacity, many pools. Each story ends as it should.

use crate::play::{Play, Played, Stage, ends};
use spot_guard::crd::{SpotPool, SpotPoolSpec};
use spot_guard::sim::scenario::{Act, Plot, Scenario};
use spot_guard::sim::world::{Gates, ON_DEMAND, SPOT};
use spot_guard_cloud::cloud::{
    CallFate, CallGate, CallRecord, Cloud, CloudSettings, ErrorAnswer, GroupSpec, LaunchFailure, Market,
    ScriptedGate, Supply,
};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::reason::{Finding, GroupProblem};
use spot_guard_core::record::{FlowBox, GroupKind, Outcome, Phase, ReplacementStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LAUNCH: &str = "LaunchInstances";
const SET_DESIRED: &str = "SetDesiredCapacity";
const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";

fn through(gate: impl CallGate + 'static) -> Gates {
    Gates { aws: Some(Arc::new(gate)), ..Gates::default() }
}

/// A play whose cloud is set up so.
fn with_cloud(name: &str, plot: Plot, set: impl FnOnce(&Cloud) + 'static) -> Play {
    Play::plot(name, plot).beside(move |stage| async move { set(&stage.cloud) })
}

/// The Spot group spans three zones, and does not even them out.
fn in_three_zones(cloud: &Cloud) {
    let zones = ["us-east-1a", "us-east-1b", "us-east-1c"].map(str::to_owned);
    cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
    cloud.edit_group(SPOT, |spec| spec.zones = zones.to_vec()).expect("a group");
}

/// Every launch of the Spot group fails so until on-demand stands in.
async fn fails_until_on_fallback(stage: &Stage, failure: LaunchFailure) {
    stage.cloud.set_launch_failure(SPOT, Some(failure), None).expect("a group");
    stage.until_phase(&stage.spot[0], Phase::OnFallback).await;
    stage.cloud.set_launch_failure(SPOT, None, None).expect("a group");
}

fn took(played: &Played, flow_box: FlowBox, outcome: Outcome) -> bool {
    played.report.boxes.iter().any(|step| (step.flow_box, step.outcome) == (flow_box, outcome))
}

/// When a step was taken first, in simulated seconds.
fn at(played: &Played, flow_box: FlowBox, outcome: Outcome) -> f64 {
    let step = played.report.boxes.iter().find(|step| (step.flow_box, step.outcome) == (flow_box, outcome));
    step.unwrap_or_else(|| panic!("no {outcome:?} at box {}", flow_box.number())).at
}

fn twenty_notices(launch_instances: bool) -> Plot {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.spot_nodes = 20;
    plot.start.launch_instances = launch_instances;
    plot.start.policy.max_concurrent_replacements = Some(20);
    plot.start.policy.max_concurrent_percent = Some(100);
    for app in &mut plot.start.apps {
        app.replicas *= 4;
        app.max_unavailable = Some(4);
    }
    plot.script = (0..20).map(|number| (Duration::from_secs(5), Act::Rebalance(number))).collect();
    plot.replacements = 20;
    plot
}

#[test]
fn twenty_notices_in_a_second_become_one_or_two_calls() {
    for launch_instances in [true, false] {
        let played = Play::plot("twenty notices", twenty_notices(launch_instances)).play();
        played.assert_ok();
        let asked = played.count(LAUNCH, Some(SPOT)) + played.count(SET_DESIRED, Some(SPOT));
        assert!((1..=2).contains(&asked), "{asked} calls asked the Spot group");
        assert_eq!(played.count(TERMINATE, None), 20, "each old instance is ended exactly");
    }
}

#[test]
fn on_demand_is_asked_within_a_second_of_the_failure() {
    for (scenario, limit) in [(Scenario::DrySpot, 1.5), (Scenario::DrySpotSetDesired, 2.0)] {
        let played = Play::of(scenario).play();
        played.assert_ok();
        let asked = at(&played, FlowBox::Fallback, Outcome::Requested);
        let begun = at(&played, FlowBox::ScaleUp, Outcome::Requested);
        assert!(asked - begun <= limit, "{:.1} s", asked - begun);
    }
}

/// Refuses every SetDesiredCapacity of the Spot group while it is on.
#[derive(Clone)]
struct SpotIsBusy(Arc<AtomicBool>);

impl CallGate for SpotIsBusy {
    fn before(&self, operation: &str, group: Option<&str>) -> CallFate {
        if operation != SET_DESIRED || group != Some(SPOT) || !self.0.load(Ordering::Relaxed) {
            return CallFate::Pass;
        }
        let refusal = ErrorAnswer::scaling_activity_in_progress("00000000-0000-4000-8000-000000000001");
        CallFate::Refuse { status: 400, code: refusal.code, message: refusal.message }
    }
}

#[test]
fn a_spot_group_that_is_busy_without_end_does_not_keep_on_demand_from_being_asked() {
    let mut plot = ends(Scenario::DrySpotSetDesired);
    plot.steps.insert(0, (FlowBox::Wait, Outcome::TimedOut));
    plot.steps.insert(1, (FlowBox::Fallback, Outcome::InService));
    let busy = SpotIsBusy(Arc::new(AtomicBool::new(true)));
    let switch = busy.clone();
    let played = Play::plot("busy without end", plot)
        .faults(through(busy))
        .beside(|stage| async move {
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            switch.0.store(false, Ordering::Relaxed);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_group_that_is_busy_for_a_while_is_asked_again() {
    let busy = || ErrorAnswer::scaling_activity_in_progress("00000000-0000-4000-8000-000000000002");
    let played = with_cloud("busy", Scenario::DrySpotSetDesired.plot(), move |cloud| {
        cloud.fail_next(SET_DESIRED, 3, &busy());
        cloud.fail_next(TERMINATE, 3, &busy());
        cloud.fail_next(TERMINATE, 2, &ErrorAnswer::resource_contention());
    });
    played.play().assert_ok();
}

#[test]
fn a_role_that_may_not_launch_instances_is_served_by_set_desired_capacity_and_that_is_remembered() {
    for code in ["AccessDenied", "InvalidAction", "UnsupportedOperation"] {
        let mut plot = Scenario::ThreeFallbacks.plot();
        plot.limit = Duration::from_secs(3 * 3600);
        let played = with_cloud(code, plot, move |cloud| {
            cloud.fail_next(LAUNCH, 1000, &ErrorAnswer::bad_request(code, "not for you"));
        })
        .play();
        played.assert_ok();
        for group in [SPOT, ON_DEMAND] {
            assert_eq!(played.count(LAUNCH, Some(group)), 1, "{code}: {group} is asked so once");
        }
    }
}

#[test]
fn what_lets_one_launch_fail_is_no_reason_never_to_launch_so_again() {
    let played = with_cloud("validation", Scenario::DrySpot.plot(), |cloud| {
        cloud.fail_next(LAUNCH, 1, &ErrorAnswer::validation("a value is wrong this time"));
    })
    .play();
    played.assert_ok();
    assert!(played.count(LAUNCH, Some(ON_DEMAND)) >= 1);
}

#[test]
fn errors_that_pass_are_waited_for_and_no_failure() {
    for (code, status) in [
        ("IdempotentCallInProgressFault", 400),
        ("ExpiredToken", 403),
        ("InvalidClientTokenId", 403),
        ("Throttling", 400),
        ("RequestLimitExceeded", 503),
        ("InternalFailure", 500),
        ("ServiceUnavailable", 503),
    ] {
        let gate = ScriptedGate::default();
        for operation in [LAUNCH, TERMINATE, "DescribeAutoScalingGroups"] {
            for _ in 0..4 {
                let message = "later".to_owned();
                gate.next_request(operation, CallFate::Refuse { status, code: code.to_owned(), message });
            }
        }
        let played = Play::plot(code, Scenario::Rebalance.plot()).faults(through(gate)).play();
        played.assert_ok();
        assert!(!took(&played, FlowBox::Fallback, Outcome::Requested), "{code} is not dry");
        assert_eq!(played.count(SET_DESIRED, None), 0, "{code} says nothing against LaunchInstances");
    }
}

#[test]
fn a_launch_that_desired_capacity_does_not_count_is_made_to_count() {
    for scenario in [Scenario::Rebalance, Scenario::DrySpot, Scenario::ThreeFallbacks] {
        let played = with_cloud("does not raise desired", scenario.plot(), |cloud| {
            cloud.configure(|settings| settings.launch_instances_raises_desired = None);
        });
        played.play().assert_ok();
    }
}

#[test]
fn desired_capacity_that_somebody_lowers_while_an_instance_is_launched_is_not_raised_again() {
    for after in [Some(0), Some(5), Some(20), None] {
        let played =
            Play::plot(&format!("desired capacity is raised after {after:?} s"), ends(Scenario::Rebalance))
                .beside(move |stage| async move {
                    let cloud = &stage.cloud;
                    cloud.configure(|settings| {
                        settings.launch_instances_raises_desired = after.map(Duration::from_secs);
                    });
                    while !cloud.calls().iter().any(|call| call.operation == LAUNCH) {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    let desired = cloud.group(SPOT).expect("a group").desired;
                    cloud.set_desired(SPOT, desired - 1).expect("a group");
                    // When all is over, the same is added again: the group is as it was.
                    stage.until_phase(&stage.spot[0], Phase::Completed).await;
                    let desired = cloud.group(SPOT).expect("a group").desired;
                    cloud.set_desired(SPOT, desired + 1).expect("a group");
                })
                .play();
        played.assert_ok();
    }
}

#[test]
fn partial_capacity_serves_some_and_the_others_fall_back() {
    for launch_instances in [true, false] {
        let mut plot = ends(Scenario::ThreeFallbacks);
        plot.start.launch_instances = launch_instances;
        plot.script = vec![
            (Duration::from_secs(5), Act::SpotHas(Supply::Left(2))),
            (Duration::from_secs(10), Act::Rebalance(0)),
            (Duration::from_secs(10), Act::Rebalance(1)),
            (Duration::from_secs(10), Act::Rebalance(2)),
            (Duration::from_secs(900), Act::SpotHas(Supply::Unlimited)),
        ];
        let played = Play::plot("partial", plot).play();
        played.assert_ok();
        let fallbacks = played.report.replacements.iter().filter(|story| story.fallback).count();
        assert_eq!(fallbacks, 1, "two of three got a Spot instance");
    }
}

#[test]
fn zones_are_walked_until_one_has_capacity() {
    let played = with_cloud("zones", Scenario::Rebalance.plot(), |cloud| {
        in_three_zones(cloud);
        for zone in ["us-east-1a", "us-east-1b"] {
            cloud.set_supply(SPOT, Some(zone), Supply::None).expect("a group");
        }
    })
    .play();
    played.assert_ok();
    assert!(!played.report.replacements[0].fallback);
    assert_eq!(played.count(LAUNCH, Some(SPOT)), 3, "one call a zone");
}

#[test]
fn each_kind_of_failed_launch_falls_back_at_once_or_waits_as_its_class_says() {
    use Outcome::{LaunchRefused, Misconfigured, NoCapacity, TimedOut};
    let spot = Market::Spot;
    // What comes of it by LaunchInstances, whose answer is final, and by SetDesiredCapacity.
    for (failure, by_launch, by_set_desired) in [
        (LaunchFailure::vcpu_limit(spot, 32), NoCapacity, NoCapacity),
        (LaunchFailure::already_running(12), NoCapacity, NoCapacity),
        (LaunchFailure::fleet(spot, "MaxSpotInstanceCountExceeded", "No more."), NoCapacity, NoCapacity),
        (LaunchFailure::dry(spot, "m5.xlarge", "us-east-1a").cancelled(), NoCapacity, NoCapacity),
        (LaunchFailure::invalid_parameter_combination(spot, "Wrong."), Misconfigured, Misconfigured),
        (LaunchFailure::fleet(spot, "SomethingNew", "In words."), LaunchRefused, LaunchRefused),
        (LaunchFailure::text("Odd", "Something with capacity in it."), LaunchRefused, TimedOut),
    ] {
        for (scenario, outcome) in
            [(Scenario::DrySpot, by_launch), (Scenario::DrySpotSetDesired, by_set_desired)]
        {
            let failure = failure.clone();
            let name = format!("{outcome:?}");
            let mut plot = ends(scenario);
            plot.steps.insert(0, (FlowBox::Wait, outcome));
            plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
            let played = Play::plot(&name, plot)
                .beside(move |stage| async move {
                    fails_until_on_fallback(&stage, failure).await;
                })
                .play();
            played.assert_ok();
        }
    }
}

#[test]
fn before_a_deadline_any_refusal_has_its_on_demand_request_within_five_seconds() {
    let spot = Market::Spot;
    for failure in [
        LaunchFailure::dry(spot, "m5.xlarge", "us-east-1a"),
        LaunchFailure::vcpu_limit(spot, 32),
        LaunchFailure::fleet(spot, "InvalidAMIID.NotFound", "The image id does not exist."),
        LaunchFailure::fleet(spot, "SomethingNew", "In words."),
        LaunchFailure::text("Unsupported", "The requested configuration is currently not supported."),
        LaunchFailure::text("Odd", "Something with capacity in it."),
    ] {
        for launch_instances in [true, false] {
            let (text, failure) = (failure.status_message.clone(), failure.clone());
            let mut plot = ends(Scenario::TwoMinuteNotice);
            plot.start.launch_instances = launch_instances;
            plot.script = vec![(Duration::from_secs(30), Act::Interrupt(0))];
            let played = Play::plot(&text, plot)
                .beside(move |stage| async move {
                    in_three_zones(&stage.cloud);
                    fails_until_on_fallback(&stage, failure).await;
                })
                .play();
            played.assert_ok();
            let waited = at(&played, FlowBox::Fallback, Outcome::Requested)
                - at(&played, FlowBox::Notice, Outcome::NoticeReceived);
            assert!(waited <= 5.0, "{text}, by LaunchInstances: {launch_instances}: {waited} s");
        }
    }
}

/// Answers these calls about the Spot group so, while it is on.
struct SpotAnswers {
    calls: Vec<&'static str>,
    fate: CallFate,
    on: Arc<AtomicBool>,
}

impl SpotAnswers {
    fn new(calls: &[&'static str], fate: CallFate) -> Self {
        Self { calls: calls.to_vec(), fate, on: Arc::new(AtomicBool::new(true)) }
    }
}

impl CallGate for SpotAnswers {
    fn before(&self, operation: &str, group: Option<&str>) -> CallFate {
        let is_meant = group == Some(SPOT) && self.calls.contains(&operation);
        if is_meant && self.on.load(Ordering::Relaxed) { self.fate.clone() } else { CallFate::Pass }
    }
}

/// An error of the API with a code that nobody knows.
fn unheard(status: u16) -> CallFate {
    CallFate::Refuse { status, code: "NeverHeardOf".to_owned(), message: "In words.".to_owned() }
}

#[test]
fn before_a_deadline_an_error_that_nobody_knows_has_its_on_demand_request_within_five_seconds() {
    // The other call for capacity comes first: it is refused, too, or what it begins fails.
    for (calls, code) in [(&[LAUNCH, SET_DESIRED][..], "NeverHeardOf"), (&[LAUNCH][..], "SomethingNew")] {
        for status in [400, 403] {
            let answers = SpotAnswers::new(calls, unheard(status));
            let switch = answers.on.clone();
            let mut plot = ends(Scenario::TwoMinuteNotice);
            plot.script = vec![(Duration::from_secs(30), Act::Interrupt(0))];
            let played = Play::plot("unknown error", plot)
                .faults(through(answers))
                .beside(move |stage| async move {
                    let unknown = LaunchFailure::fleet(Market::Spot, "SomethingNew", "In words.");
                    fails_until_on_fallback(&stage, unknown).await;
                    switch.store(false, Ordering::Relaxed);
                })
                .play();
            played.assert_ok();
            let told = played.told_of(&played.stage.spot[0], FlowBox::Wait, Outcome::LaunchRefused);
            assert!(told.contains(code), "{calls:?}, {status}: {told}");
            let waited = at(&played, FlowBox::Fallback, Outcome::Requested)
                - at(&played, FlowBox::Notice, Outcome::NoticeReceived);
            assert!(waited <= 5.0, "{calls:?}, {status}: {waited} s");
        }
    }
}

/// How long after a two-minute notice on-demand was requested.
#[track_caller]
fn requested_after_notice(played: &Played) -> f64 {
    played.assert_ok();
    at(played, FlowBox::Fallback, Outcome::Requested) - at(played, FlowBox::Notice, Outcome::NoticeReceived)
}

#[test]
fn before_a_deadline_on_demand_is_requested_within_seconds_when_the_spot_group_does_nothing() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.start.launch_instances = false;
    let played = Play::plot("a silent group", plot)
        .beside(|stage| async move {
            let usual = CloudSettings::default().reaction;
            stage.cloud.configure(|settings| settings.reaction = Duration::from_secs(600));
            let is_asked = |status: &ReplacementStatus| status.capacity.is_on_demand_requested();
            stage.until(&stage.spot[0], is_asked).await;
            // It is the Spot group alone that is silent.
            stage.cloud.configure(|settings| settings.reaction = usual);
        })
        .play();
    // An eighth of the two minutes.
    let waited = requested_after_notice(&played);
    assert!(waited <= 16.0, "{waited} s");
}

#[test]
fn before_a_deadline_a_spot_instance_that_is_on_its_way_has_three_quarters_of_the_time() {
    for launch_instances in [true, false] {
        let mut plot = ends(Scenario::TwoMinuteNotice);
        plot.start.launch_instances = launch_instances;
        let played = Play::plot("a silent launch", plot)
            .beside(|stage| async move {
                let late = Duration::from_secs(600);
                stage.cloud.edit_group(SPOT, |spec| spec.boot.launch = late).expect("a group");
            })
            .play();
        let waited = requested_after_notice(&played);
        assert!((60.0..=90.0).contains(&waited), "by LaunchInstances: {launch_instances}: {waited} s");
    }
}

#[test]
fn before_a_deadline_on_demand_is_called_in_half_of_the_time_though_no_call_for_spot_is_answered() {
    for fate in [unheard(500), CallFate::Hang] {
        let answers = SpotAnswers::new(&[LAUNCH, SET_DESIRED], fate.clone());
        let switch = answers.on.clone();
        let played = Play::plot("no answer", ends(Scenario::TwoMinuteNotice))
            .faults(through(answers))
            .beside(move |stage| async move {
                stage.until(&stage.spot[0], |status| status.deadline.is_some()).await;
                stage.pass(70).await;
                let calls = stage.cloud.calls();
                let is_meant =
                    |call: &CallRecord| call.operation == LAUNCH && call.group.as_deref() == Some(ON_DEMAND);
                assert!(calls.iter().any(is_meant), "{fate:?}: AWS was not asked for on-demand");
                let takes_over = |status: &ReplacementStatus| {
                    status.capacity.taken().is_some_and(|held| held.group == GroupKind::OnDemand)
                };
                stage.until(&stage.spot[0], takes_over).await;
                switch.store(false, Ordering::Relaxed);
            })
            .play();
        played.assert_ok();
    }
}

#[test]
fn before_a_deadline_activities_that_cannot_be_read_hold_no_request_up() {
    let answers = SpotAnswers::new(&["DescribeScalingActivities"], unheard(500));
    let switch = answers.on.clone();
    let played = Play::plot("no activities", ends(Scenario::TwoMinuteNotice))
        .faults(through(answers))
        .beside(move |stage| async move {
            let unlimited = Supply::Unlimited;
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage.until(&stage.spot[0], |status| status.capacity.is_on_demand_requested()).await;
            stage.pass(20).await;
            let calls = stage.cloud.calls();
            switch.store(false, Ordering::Relaxed);
            stage.cloud.set_supply(SPOT, None, unlimited).expect("a group");
            let is_meant =
                |call: &CallRecord| call.operation == LAUNCH && call.group.as_deref() == Some(ON_DEMAND);
            assert!(calls.iter().any(is_meant), "AWS was not asked for on-demand");
        })
        .play();
    played.assert_ok();
}

#[test]
fn on_demand_is_requested_for_a_launch_that_failed_and_for_no_other_activity_that_failed() {
    let dry = LaunchFailure::dry(Market::Spot, "m5.xlarge", "us-east-1a").status_message;
    let forbidden = "You are not authorized to perform this operation. Terminating EC2 instance failed.";
    let asked = "an instance was launched in response to an unmet desired capacity.";
    let evened_out = "instances were launched to balance instances in zones us-east-1c with other zones \
                      resulting in more than desired number of instances in the group.";
    let launching = "Launching a new EC2 instance: i-0123456789abcdef0";
    for (description, cause, message, is_launch) in [
        // A scale-in, or an instance refresh.
        ("Terminating EC2 instance: i-0123456789abcdef0", asked, forbidden, false),
        ("Launching a new EC2 instance into warm pool: i-0123456789abcdef0", asked, dry.as_str(), false),
        (launching, evened_out, dry.as_str(), false),
        // What is read in the same way, and counts.
        (launching, asked, dry.as_str(), true),
    ] {
        let mut plot = ends(Scenario::Rebalance);
        plot.start.launch_instances = false;
        let (described, message) = (description.to_owned(), message.to_owned());
        let played = Play::plot(description, plot)
            .beside(move |stage| async move {
                // No instance is listed yet that would speak for the request.
                stage.cloud.configure(|settings| settings.launch_takes = Duration::from_secs(20));
                while !stage.cloud.calls().iter().any(|call| call.operation == SET_DESIRED) {
                    stage.pass_millis(100).await;
                }
                stage.pass(2).await;
                stage.cloud.fail_activity(SPOT, &described, cause, &message).expect("a group");
                stage.until(&stage.spot[0], |status| status.capacity.taken().is_some()).await;
            })
            .play();
        played.assert_ok();
        assert_eq!(took(&played, FlowBox::Fallback, Outcome::Requested), is_launch, "{description}");
    }
}

#[test]
fn one_zone_out_of_capacity_is_not_the_market() {
    for launch_instances in [true, false] {
        let mut plot = Scenario::Rebalance.plot();
        plot.start.launch_instances = launch_instances;
        let played = with_cloud("one zone", plot, |cloud| {
            in_three_zones(cloud);
            for zone in ["us-east-1b", "us-east-1c"] {
                cloud.set_supply(SPOT, Some(zone), Supply::None).expect("a group");
            }
        })
        .play();
        played.assert_ok();
        assert!(!played.report.replacements[0].fallback, "by LaunchInstances: {launch_instances}");
    }
}

#[test]
fn a_throttled_launch_is_made_again_after_seconds() {
    let throttled = LaunchFailure::fleet(Market::Spot, "RequestLimitExceeded", "Request limit exceeded.");
    let played = with_cloud("throttled", Scenario::Rebalance.plot(), |cloud| {
        cloud.set_launch_failure(SPOT, Some(throttled), Some(1)).expect("a group");
    })
    .play();
    played.assert_ok();
    assert!(!played.report.replacements[0].fallback);
    let waited =
        at(&played, FlowBox::Success, Outcome::InService) - at(&played, FlowBox::ScaleUp, Outcome::Requested);
    assert!(waited <= 75.0, "the boot takes 60 s: {waited} s");
}

#[test]
fn an_old_failure_is_no_fresh_one() {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.launch_instances = false;
    plot.script = vec![(Duration::from_secs(120), Act::Rebalance(0))];
    let played = Play::plot("old failure", plot)
        .beside(|stage| async move {
            stage.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            stage.cloud.set_desired(SPOT, 4).expect("within the sizes");
            stage.pass(60).await;
            stage.cloud.set_desired(SPOT, 3).expect("within the sizes");
            stage.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            let failed = stage.cloud.snapshot().activities.iter().any(|a| a.status_code == "Failed");
            assert!(failed, "there is an old failure");
        })
        .play();
    played.assert_ok();
    assert!(!played.report.replacements[0].fallback);
}

#[test]
fn a_termination_hook_is_waited_for() {
    let played = with_cloud("hook", Scenario::DrySpot.plot(), |cloud| {
        for group in [SPOT, ON_DEMAND] {
            let hook = Some(Duration::from_secs(300));
            cloud.edit_group(group, |spec| spec.termination_hook = hook).expect("a group");
        }
    })
    .play();
    played.assert_ok();
    let waited =
        at(&played, FlowBox::Drain, Outcome::Terminated) - at(&played, FlowBox::Drain, Outcome::Drained);
    assert!(waited >= 300.0, "accepted is not gone: {waited} s");
}

#[test]
fn scale_in_protection_does_not_keep_a_drained_instance() {
    let played = Play::of(Scenario::DrySpot).beside(|stage| async move {
        for id in &stage.spot {
            stage.cloud.protect(id, true).expect("an instance");
        }
        for group in [SPOT, ON_DEMAND] {
            stage.cloud.edit_group(group, |spec| spec.protect_new_instances = true).expect("a group");
        }
    });
    played.play().assert_ok();
}

#[test]
fn sizes_are_respected() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
        // No room for one more: the other group is asked at once, and the return waits for room.
        let mut plot = ends(scenario);
        plot.steps.insert(0, (FlowBox::Wait, Outcome::NoCapacity));
        let played = Play::plot("at its maximum", plot)
            .beside(|stage| async move {
                stage.cloud.edit_group(SPOT, |spec| spec.max = 3).expect("a group");
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::OnFallback).await;
            })
            .play();
        played.assert_ok();
        assert!(took(&played, FlowBox::ScaleDown, Outcome::ScaledDown));
        // No room to shrink: what Spot owes stays in the group.
        let played = Play::plot("at its minimum", ends(scenario))
            .beside(|stage| async move {
                stage.cloud.edit_group(SPOT, |spec| spec.min = 3).expect("a group");
            })
            .play();
        played.assert_ok();
        let refused = played.calls.iter().filter(|call| call.operation == TERMINATE && !call.ok).count();
        assert_eq!(refused, 0, "the minimum is looked at first");
    }
}

#[test]
fn a_suspended_launch_falls_back_at_once_and_is_told() {
    for scenario in [Scenario::DrySpot, Scenario::DrySpotSetDesired] {
        let mut plot = ends(scenario);
        plot.steps.insert(0, (FlowBox::Wait, Outcome::Misconfigured));
        plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
        let played = Play::plot("suspended", plot)
            .beside(|stage| async move {
                stage.cloud.suspend(SPOT, "Launch", "Administrative suspension").expect("a group");
                let instance = stage.spot[0].clone();
                stage.until_phase(&instance, Phase::OnFallback).await;
                stage.pass(60).await;
                let (accepted, reason, message) = stage.condition("Accepted").expect("a condition");
                assert!(accepted, "a group that launches nothing is what the other one is for: {message}");
                assert_eq!(reason, "LaunchSuspended");
                stage.cloud.resume(SPOT, "Launch").expect("a group");
            })
            .play();
        played.assert_ok();
        let waited = at(&played, FlowBox::Fallback, Outcome::Requested)
            - at(&played, FlowBox::ScaleUp, Outcome::Requested);
        assert!(waited <= 2.0, "{waited} s");
    }
}

#[test]
fn a_group_without_instances_is_no_obstacle() {
    let mut plot = Scenario::Rebalance.plot();
    plot.start.on_demand_nodes = 0;
    Play::plot("empty group", plot).play().assert_ok();
}

#[test]
fn many_pools_are_read_in_few_calls_and_each_instance_belongs_to_one() {
    const POOLS: usize = 60;
    let played = Play::plot("many pools", ends(Scenario::DrySpot))
        .beside(|stage| async move {
            let pools: kube::Api<SpotPool> = kube::Api::all(stage.cluster.client());
            for number in 0..POOLS {
                let names = [format!("spot-{number}"), format!("on-demand-{number}")];
                for (name, market) in names.iter().zip([Market::Spot, Market::OnDemand]) {
                    stage.cloud.add_group(GroupSpec { desired: 0, ..GroupSpec::new(name, market) });
                }
                let [spot_group, on_demand_group] = names;
                let spec = SpotPoolSpec {
                    spot_group: spot_group.into(),
                    on_demand_group: on_demand_group.into(),
                    ..SpotPoolSpec::default()
                };
                let pool = SpotPool::new(&format!("pool-{number}"), spec);
                pools.create(&kube::api::PostParams::default(), &pool).await.expect("a pool");
            }
        })
        .play();
    played.assert_ok();
    // What the pool of the story reads by itself, it reads without the others, too.
    let alone = Play::plot("one pool", ends(Scenario::DrySpot)).play();
    let describes = |played: &Played| played.count("DescribeAutoScalingGroups", None) as f64;
    let minutes = played.report.simulated_seconds / 60.0;
    // 122 groups are three calls every 30 s.
    let more = (describes(&played) - describes(&alone)) / minutes;
    assert!(more < 6.5, "{more:.1} more a minute");
}

#[test]
fn of_two_pools_that_name_a_group_the_older_one_has_it() {
    let played = Play::plot("shared group", Scenario::Rebalance.plot())
        .beside(|stage| async move {
            let pools: kube::Api<SpotPool> = kube::Api::all(stage.cluster.client());
            stage.pass(1).await;
            let spec = SpotPoolSpec {
                spot_group: SPOT.into(),
                on_demand_group: "other".into(),
                ..SpotPoolSpec::default()
            };
            stage.cloud.add_group(GroupSpec { desired: 0, ..GroupSpec::new("other", Market::OnDemand) });
            let newer = SpotPool::new("a-newer-pool", spec);
            pools.create(&kube::api::PostParams::default(), &newer).await.expect("a pool");
            stage.pass(60).await;
            let newer = pools.get("a-newer-pool").await.expect("the pool");
            let conditions = newer.status.expect("a status").conditions;
            let accepted = conditions.iter().find(|held| held.type_ == "Accepted").expect("a condition");
            assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "GroupOfOtherPool"));
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_pool_whose_group_does_not_exist_holds_up_no_other_pool() {
    let played = Play::plot("missing group", Scenario::DrySpot.plot())
        .beside(|stage| async move {
            let pools: kube::Api<SpotPool> = kube::Api::all(stage.cluster.client());
            let spec = SpotPoolSpec {
                spot_group: "not-there".into(),
                on_demand_group: "neither".into(),
                ..SpotPoolSpec::default()
            };
            pools
                .create(&kube::api::PostParams::default(), &SpotPool::new("broken", spec))
                .await
                .expect("a pool");
            stage.pass(60).await;
            let broken = pools.get("broken").await.expect("the pool");
            let accepted = &broken.status.expect("a status").conditions[0];
            assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "NoSuchGroup"));
            let missing = Finding { group: "not-there".into(), problem: GroupProblem::NoSuchGroup };
            assert!(accepted.message.contains(&missing.to_string()), "{}", accepted.message);
        })
        .play();
    played.assert_ok();
}

#[test]
fn a_new_life_remembers_who_cannot_launch_instances() {
    let played = Play::plot("remembered", Scenario::DrySpotSetDesired.plot())
        .beside(|stage| async move {
            stage.cloud.configure(|settings: &mut CloudSettings| settings.launch_instances = false);
            // The groups would know it, the endpoint does not.
            for group in [SPOT, ON_DEMAND] {
                stage.cloud.edit_group(group, |spec| spec.launch_instances = true).expect("a group");
            }
            let instance = stage.spot[0].clone();
            stage.until_phase(&instance, Phase::OnFallback).await;
            let pool: SpotPool = stage.cluster.list().remove(0);
            let ledger: Ledger = pool.status.expect("a status").ledger;
            let now = stage.cloud.now();
            assert!(ledger.cannot_launch(&SPOT.into(), now) && ledger.cannot_launch(&ON_DEMAND.into(), now));
        })
        .play();
    played.assert_ok();
}

#[test]
fn of_the_errors_of_several_types_in_one_answer_the_decisive_one_counts() {
    use Outcome::{Misconfigured, NoCapacity};
    let spot = Market::Spot;
    let (unsupported, dry) =
        (("Unsupported", "Not offered here."), ("UnfulfillableCapacity", "None is left."));
    let wrong = || LaunchFailure::fleet(spot, "InvalidParameterCombination", "Wrong.");
    for (failure, outcome) in [
        (
            LaunchFailure::dry(spot, "m5.xlarge", "us-east-1a").beside(unsupported.0, unsupported.1),
            NoCapacity,
        ),
        (LaunchFailure::fleet(spot, unsupported.0, unsupported.1).beside(dry.0, dry.1), NoCapacity),
        (wrong().beside(dry.0, dry.1), NoCapacity),
        (wrong().beside("VcpuLimitExceeded", "No more."), NoCapacity),
        (wrong().beside("InvalidAMIID.NotFound", "The image is gone."), Misconfigured),
    ] {
        let mut plot = ends(Scenario::DrySpot);
        plot.steps.insert(0, (FlowBox::Wait, outcome));
        plot.script.retain(|(_, act)| !matches!(act, Act::SpotHas(_)));
        let name = format!("{} beside {:?}", failure.code, failure.beside);
        let stay = async |stage: Stage| fails_until_on_fallback(&stage, failure).await;
        Play::plot(&name, plot).beside(stay).play().assert_ok();
    }
}

#[test]
fn what_is_wrong_in_one_zone_alone_leaves_the_next_zone() {
    for code in ["InvalidSubnetID.NotFound", "InsufficientFreeAddressesInSubnet", "Unsupported"] {
        for launch_instances in [true, false] {
            let mut plot = Scenario::Rebalance.plot();
            plot.start.launch_instances = launch_instances;
            let failure = LaunchFailure::fleet(Market::Spot, code, "Not in this zone.");
            let played = with_cloud(code, plot, move |cloud| {
                in_three_zones(cloud);
                cloud.set_zone_failure(SPOT, "us-east-1a", Some(failure.clone()), None).expect("a group");
                cloud.set_zone_failure(SPOT, "us-east-1b", Some(failure), None).expect("a group");
            })
            .play();
            played.assert_ok();
            assert!(
                !played.report.replacements[0].fallback,
                "{code}, by LaunchInstances: {launch_instances}"
            );
        }
    }
}

#[test]
fn the_zone_of_an_interruption_is_asked_last() {
    let mut plot = ends(Scenario::TwoMinuteNotice);
    plot.start.zones = 3;
    let played = Play::plot("another zone", plot).beside(async |stage: Stage| {
        stage.cloud.suspend(SPOT, "AZRebalance", "User suspended").expect("a group");
    });
    let played = played.play();
    played.assert_ok();
    let launches = played.stage.cloud.snapshot().activities.into_iter();
    let launched = launches.filter(|held| held.group == SPOT && held.description.starts_with("Launching"));
    let zones: Vec<String> = launched.filter_map(|held| held.zone).collect();
    assert!(!zones.is_empty() && !zones.contains(&"us-east-1a".to_owned()), "{zones:?}");
}
