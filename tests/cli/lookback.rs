//! `spot-guard lookback` against histories that the simulated cloud has played: what it says is compared with
//! what happened, as the cloud's events and the test's own changes tell it. No text of an activity is read
//! here.

mod played;

use played::{OD, Played, SPOT, Truth, WeekTruth};
use serde_json::Value;
use spot_guard_cloud::cloud::{CallRecord, ErrorAnswer, Served, Supply};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// The command in an environment of its own.
async fn lookback(variables: Vec<(&'static str, String)>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard"));
    command.args(["lookback", "--spot-group", SPOT, "--on-demand-group", OD]).args(arguments);
    command.env_clear().env("AWS_EC2_METADATA_DISABLED", "true").envs(variables);
    // The simulated cloud answers meanwhile.
    let run = tokio::task::spawn_blocking(move || command.output().expect("spot-guard runs"));
    run.await.expect("no panic")
}

fn keys(url: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIDSTATIC".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_ENDPOINT_URL_AUTO_SCALING", url.to_owned()),
    ]
}

fn said(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A served history, which does not move any more.
struct Told {
    played: Played,
    served: Served,
}

impl Told {
    fn of(played: Played) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        tokio::time::resume();
        let served = played.cloud.serve_autoscaling(listener).expect("it serves");
        Self { played, served }
    }

    async fn text(&self, arguments: &[&str]) -> String {
        let output = lookback(keys(&self.served.url()), arguments).await;
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The gaps of a kind.
    async fn gaps(&self, kind: &str, arguments: &[&str]) -> Vec<Value> {
        let report = self.json(arguments).await;
        let gaps = report["gaps"].as_array().expect("gaps").clone();
        gaps.into_iter().filter(|gap| gap["kind"] == kind).collect()
    }

    async fn fails(&self, arguments: &[&str]) -> String {
        let output = lookback(keys(&self.served.url()), arguments).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
        said(&output)
    }
}

#[track_caller]
fn near(found: &Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{what} is {found}"));
    // Causes have whole seconds, and the figures two decimals.
    assert!((found - expected).abs() < 0.03, "{what}: {found} is said, {expected} is true");
}

/// Five weeks with interruptions, dry markets, raises by others and a quota.
async fn five_weeks() -> Played {
    let mut played = Played::new(7, 36 * DAY).await;
    let plan: [(u64, &str, u32); 5] = [(1, SPOT, 8), (5, OD, 4), (11, OD, 2), (16, SPOT, 5), (20, SPOT, 6)];
    for day in 0..35_u64 {
        for (_, group, desired) in plan.iter().filter(|(when, _, _)| *when == day) {
            played.set_desired(group, *desired);
        }
        played.pass(3 * HOUR + minutes(day)).await;
        if day % 3 != 2 {
            played.interrupt(usize::try_from(day % 4).expect("small")).await;
        }
        if [4, 18, 27].contains(&day) {
            played.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
            played.interrupt(1).await;
            played.pass(minutes(40)).await;
            played.set_desired(OD, 3 + u32::try_from(day % 2).expect("small"));
            played.pass(8 * HOUR).await;
            played.cloud.set_supply(SPOT, None, Supply::Unlimited).expect("a group");
            played.pass(HOUR).await;
            played.set_desired(OD, 2);
        }
        if day == 23 {
            played.fail_by_quota(3);
            played.interrupt(2).await;
            played.pass(HOUR).await;
            played.cloud.set_supply(OD, None, Supply::None).expect("a group");
            played.set_desired(OD, 5);
            played.pass(2 * HOUR).await;
            played.cloud.set_supply(OD, None, Supply::Unlimited).expect("a group");
        }
        played.pass_until(day + 1).await;
    }
    played
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_five_weeks_is_what_happened() {
    let told = Told::of(five_weeks().await);
    let truth = told.played.truth();
    let activities = told.played.cloud.snapshot().activities.len();
    assert!(activities > 300, "{activities} activities are no three pages");
    let report = told.json(&[]).await;
    let total = &report["total"];
    assert_eq!(total["interruptions"], truth.interruptions);
    assert_eq!(total["lostByReason"]["TerminatedOrStopped"], truth.interruptions);
    assert_eq!(total["spotLaunchesFailed"]["Quota"], 3);
    assert_eq!(total["spotLaunchesFailed"]["Capacity"], truth.spot_failed - 3);
    assert_eq!(total["onDemandLaunchesFailed"]["Capacity"], truth.on_demand_failed);
    near(&total["spotUnmet"]["instanceHours"], truth.spot_missing, "Spot missing");
    near(&total["spotUnmet"]["hours"], truth.spot_unmet, "Spot unmet");
    near(&total["onDemandUnmet"]["instanceHours"], truth.on_demand_missing, "on-demand missing");
    let above = &total["onDemandAboveBaseline"];
    near(&above["spotCouldServe"], truth.could_serve, "Spot could serve");
    near(&above["spotFailed"], truth.spot_could_not, "Spot failed");
    near(&above["notKnown"], 0.0, "not known");
    let weeks = report["weeks"].as_array().expect("weeks");
    assert!((6..=7).contains(&weeks.len()), "{}", weeks.len());
    let interruptions: u64 = weeks.iter().filter_map(|week| week["interruptions"].as_u64()).sum();
    assert_eq!(interruptions, u64::from(truth.interruptions));
    assert!(truth.weeks.len() > 4, "{truth:#?}");
    for week in weeks {
        each_reason_of_the_week_is_true(week, &truth);
    }
    for kind in ["DesiredUnknown", "UnreadableCause", "UnknownActivity", "CallFailed", "Throttled"] {
        assert_eq!(told.gaps(kind, &[]).await, Vec::<Value>::new(), "{kind}");
    }
    let operations: BTreeSet<String> =
        told.played.cloud.calls().into_iter().map(|call: CallRecord| call.operation).collect();
    let read_only = ["DescribeAutoScalingGroups", "DescribeScalingActivities"].map(str::to_owned);
    assert_eq!(operations, BTreeSet::from(read_only));
    told.served.stop().await;
}

fn each_reason_of_the_week_is_true(week: &Value, truth: &Truth) {
    let monday = week["monday"].as_str().expect("a time");
    let nothing = WeekTruth::default();
    let truth = truth.weeks.get(monday).unwrap_or(&nothing);
    for (field, reason, what) in [
        ("lostByReason", "TerminatedOrStopped", "lost"),
        ("spotLaunchesFailed", "Capacity", "Capacity"),
        ("spotLaunchesFailed", "Quota", "Quota"),
    ] {
        let found = week[field][reason].as_u64().unwrap_or(0);
        let expected = truth.counts.get(what).copied().unwrap_or(0);
        assert_eq!(found, u64::from(expected), "{monday} {reason}: {week:#}");
    }
    near(&week["spotUnmet"]["hours"], truth.unmet[0], monday);
    near(&week["onDemandUnmet"]["hours"], truth.unmet[1], monday);
}

#[tokio::test(start_paused = true)]
async fn each_interruption_and_each_failed_launch_has_its_line() {
    let told = Told::of(five_weeks().await);
    let truth = told.played.truth();
    let report = told.json(&[]).await;
    let lines = report["wouldHave"].as_array().expect("a list");
    let count = |key: &str, value: &str| lines.iter().filter(|line| line[key] == value).count();
    assert_eq!(count("occasion", "Interruption"), truth.interruptions as usize);
    assert_eq!(count("occasion", "LaunchFailed"), truth.spot_failed as usize);
    let during = lines.iter().filter(|line| line["occasion"] == "Interruption");
    let fallbacks = during.filter(|line| line["action"] == "FallBackToOnDemand").count();
    assert_eq!(fallbacks, 4, "three dry markets and a quota: {lines:#?}");
    assert_eq!(count("action", "ReturnToSpot"), 4);
    let during = lines.iter().filter(|line| line["occasion"] == "Interruption");
    let replaced = during.filter(|line| line["action"] == "ReplaceOnSpot").count();
    assert_eq!(replaced, truth.interruptions as usize - 4);
    let text = told.text(&[]).await;
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    assert_eq!(text.matches(": fallback to on-demand").count(), 4, "{text}");
    let weeks = report["weeks"].as_array().expect("weeks");
    let known = weeks.iter().filter(|week| week["spotKnownHours"].as_f64() > Some(0.0)).count();
    assert_eq!(text.matches("\nSpot missing").count(), known, "{text}");
    assert_eq!(text.matches("not on record").count(), weeks.len() - known, "{text}");
    assert_eq!(text.matches("\n  - 20").count(), known, "a line for each week: {text}");
    for (monday, week) in &truth.weeks {
        let Some(lost) = week.counts.get("lost") else { continue };
        let line = format!("\n  - {}: lost: {lost} terminated or stopped", &monday[..10]);
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("a quota of the account") && text.contains("times until"), "{text}");
    told.served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn throttling_is_waited_for_and_counted_and_changes_no_figure() {
    let told = Told::of(five_weeks().await);
    let calm = told.json(&["--since", "30d"]).await;
    told.played.cloud.fail_next("DescribeScalingActivities", 3, &ErrorAnswer::throttling());
    told.played.cloud.fail_next("DescribeAutoScalingGroups", 1, &ErrorAnswer::throttling());
    let busy = told.json(&["--since", "30d"]).await;
    let gaps = busy["gaps"].as_array().expect("gaps");
    assert!(gaps[0]["kind"] == "ThrottledAndRepeated" && gaps[0]["count"] == 4, "{gaps:#?}");
    let figures = |report: &Value| report["total"]["spotLaunchesFailed"].clone();
    assert_eq!(figures(&busy), figures(&calm));
    assert!(calm["total"]["interruptions"].as_u64() < Some(told.played.truth().interruptions.into()));
    told.served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_denied_call_is_a_gap_of_its_group_and_two_say_what_to_allow() {
    let mut played = Played::new(1, 3 * DAY).await;
    played.interrupt(0).await;
    played.pass(2 * DAY).await;
    let told = Told::of(played);
    let denied = || ErrorAnswer::access_denied("DescribeScalingActivities");
    told.played.cloud.fail_next("DescribeScalingActivities", 1, &denied());
    let gaps = told.gaps("CallFailed", &["--since", "2d"]).await;
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    assert!(gaps[0]["group"] == SPOT && gaps[0]["hours"] == 48.0, "{gaps:#?}");
    assert!(gaps[0]["example"].as_str().is_some_and(|text| text.contains("AccessDenied")), "{gaps:#?}");
    told.played.cloud.fail_next("DescribeScalingActivities", 2, &denied());
    let text = told.fails(&[]).await;
    assert!(text.contains("allow autoscaling:DescribeAutoScalingGroups"), "{text}");
    let denied = ErrorAnswer::access_denied("DescribeAutoScalingGroups");
    told.played.cloud.fail_next("DescribeAutoScalingGroups", 1, &denied);
    let report = told.json(&[]).await;
    assert_eq!(report["total"]["interruptions"], 1);
    assert_eq!(report["gaps"][0]["kind"], "CallFailed");
    told.served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_activity_shows_is_a_gap_and_the_truth_lies_within_it() {
    let mut played = Played::new(2, 9 * DAY).await;
    played.cloud.set_supply(SPOT, None, Supply::None).expect("a group");
    played.set_desired(SPOT, 9);
    played.pass(3 * HOUR + minutes(2)).await;
    // Nothing is terminated for it, so no activity shows it.
    played.set_desired(SPOT, 6);
    played.pass(8 * DAY).await;
    let told = Told::of(played);
    let truth = told.played.truth().spot_missing;
    let report = told.json(&["--since", "10w"]).await;
    let said = report["total"]["spotUnmet"]["instanceHours"].as_f64().expect("hours");
    let gaps = told.gaps("DesiredUnknown", &["--since", "10w"]).await;
    let more = gaps[0]["instanceHours"].as_f64().expect("hours");
    assert!(said <= truth && truth <= said + more, "{said} + {more} are said, {truth} is true");
    assert!(said > 8.0, "{said}");
    let kinds: Vec<_> = report["gaps"].as_array().expect("gaps").iter().map(|gap| &gap["kind"]).collect();
    assert!(kinds.contains(&&Value::from("OlderThanSixWeeks")), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "GroupIsYounger").count(), 2, "{kinds:?}");
    let text = told.text(&[]).await;
    assert!(text.contains("changes of desired capacity, since no activity shows when"), "{text}");
    told.served.stop().await;
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_to_do() {
    let told = Told::of(Played::new(3, DAY).await);
    let keys = keys(&told.served.url());
    for (missing, words) in [
        (&["AWS_REGION"][..], "no region: set AWS_REGION"),
        (&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "no credentials: set AWS_PROFILE"),
    ] {
        let left = keys.iter().filter(|(name, _)| !missing.contains(name)).cloned().collect();
        let output = lookback(left, &[]).await;
        let text = said(&output);
        assert!(text.contains(words) && output.status.code() == Some(1), "{missing:?}: {text}");
    }
    let text = told.fails(&["--since", "2999-01-01"]).await;
    assert!(text.contains("--since: it is not in the past"), "{text}");
    let output = lookback(keys.clone(), &["--since", "soon"]).await;
    assert!(output.status.code() == Some(2) && said(&output).contains("10d"), "{}", said(&output));
    told.played.cloud.remove_group(OD).expect("a group");
    let text = told.fails(&[]).await;
    assert!(text.contains("no Auto Scaling group workers-on-demand in us-east-1: check the name"), "{text}");
    let nobody = vec![keys[0].clone(), keys[1].clone(), keys[2].clone()];
    let unreachable = [nobody, vec![("AWS_ENDPOINT_URL_AUTO_SCALING", "http://127.0.0.1:1".to_owned())]];
    let text = said(&lookback(unreachable.concat(), &[]).await);
    assert!(text.contains("AWS cannot be reached"), "{text}");
    told.served.stop().await;
}
