//! `spot-guard demo`: what it prints where, and how it ends.

use std::process::Command;

fn demo(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the demo runs")
}

#[test]
fn a_report_on_standard_output_is_alone_there() {
    let output = demo(&["--speed", "max", "--once", "--report", "-", "--seed", "7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["scenario"], "dry-spot", "the default");
    assert_eq!(report["seed"], 7);
    assert_eq!(report["ok"], true);
    assert_eq!(
        report["groups"]["onDemand"],
        serde_json::json!({"baseline": 0, "desired": 0, "inService": 0})
    );
    assert_eq!(report["replacements"][0]["fallback"], true);
    assert_eq!(report["replacements"][0]["capacity"], "Spot");
    for count in ["leftoverMarks", "pendingPods", "pdbViolations"] {
        assert_eq!(report[count], 0, "{count}");
    }
    assert!(report["wallSeconds"].as_f64().expect("a number") < 3.0, "{}", report["wallSeconds"]);
    let first = &report["boxes"][0];
    assert_eq!((&first["box"], &first["outcome"]), (&"1".into(), &"NoticeReceived".into()));
    assert!(first["at"].is_number() && first["node"].is_string());
}

#[test]
fn a_storm_of_twenty_nodes_ends_as_it_began() {
    let output = demo(&["--scenario", "storm", "--speed", "max", "--once", "--report", "-"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["replacements"].as_array().map(Vec::len), Some(20));
    assert_eq!(report["groups"]["spot"], serde_json::json!({"baseline": 20, "desired": 20, "inService": 20}));
    assert_eq!(report["groups"]["onDemand"]["desired"], 0);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("EC2 takes Spot node number 20 in two minutes"), "{told}");
}

#[test]
fn a_story_is_told_without_colours_where_nobody_sees_them() {
    let output = demo(&["--scenario", "rebalance", "--speed", "max", "--once"]);
    let told = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success() && told.contains("box 3.1") && told.contains("Everything was as expected."),
        "{told}"
    );
    assert!(!told.contains('\x1b'), "{told}");
}

#[test]
fn the_default_speed_shows_the_default_story_within_a_minute() {
    let began = std::time::Instant::now();
    let output = demo(&["--once"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
