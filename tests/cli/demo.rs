//! `spot-guard demo`: what it prints where, and how it ends.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

fn demo(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .arg("demo")
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the demo runs")
}

/// What the demo prints, and the processor time that it took: other tests share the machine.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it, and tells its time")]
fn timed_demo(arguments: &[&str]) -> (Vec<u8>, Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard"));
    command.arg("demo").args(arguments).env_remove("RUST_LOG");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the demo runs");
    let mut printed = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut printed).expect("it prints");
    let id = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: all bytes of a rusage may be zero; the child has not been waited for, so the id is still its
    // own.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::wait4(id, &raw mut status, 0, &raw mut usage), id);
        usage
    };
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&printed));
    let seconds = |time: libc::timeval| Duration::new(time.tv_sec.cast_unsigned(), 0) + micros(time.tv_usec);
    (printed, seconds(usage.ru_utime) + seconds(usage.ru_stime))
}

fn micros(count: libc::suseconds_t) -> Duration {
    Duration::from_micros(count.cast_unsigned())
}

#[test]
fn a_report_on_standard_output_is_alone_there() {
    let (printed, took) = timed_demo(&["--speed", "max", "--once", "--report", "-", "--seed", "7"]);
    let report: serde_json::Value = serde_json::from_slice(&printed).expect("one JSON object");
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
    assert!(report["wallSeconds"].is_number());
    assert!(took < Duration::from_secs(3), "{took:?}");
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
