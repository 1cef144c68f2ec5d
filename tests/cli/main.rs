//! The command line: what it prints, and given what it cannot use, exit status 2 and a message that names
//! what is wrong.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod by_kubectl;
mod check;
mod connections;
mod crowd;
mod demo;
mod documents;
mod holes;
mod logs;
mod lookback;
mod malformed;
mod openapi;
mod shown;
mod status;
mod stub;
mod traces;

use std::fs;
use std::process::{Command, Output};

fn spot_guard(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_spot-guard"), arguments)
}

fn agent(arguments: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_spot-guard-agent"), arguments)
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env_remove("NODE_NAME")
        .output()
        .expect("it runs")
}

#[track_caller]
fn assert_refused(output: &Output, message: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(message.iter().all(|part| told.contains(part)), "{message:?} in {told}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn controller_with(config: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("spot-guard.yaml");
    fs::write(&file, config).expect("a configuration");
    spot_guard(&["controller", "--config", file.to_str().expect("a path in UTF-8")])
}

#[test]
fn a_configuration_with_an_unknown_key_is_refused() {
    for (config, message) in [
        ("lisen: 127.0.0.1:8080\n", ["spot-guard.yaml:1", "lisen"]),
        ("defaults:\n  stabilityMinutes: 2\n", ["spot-guard.yaml:2", "stabilityMinutes"]),
        ("# first\nlease:\n  ttl: 15\n", ["spot-guard.yaml:3", "ttl"]),
    ] {
        assert_refused(&controller_with(config), &message);
    }
}

#[test]
fn a_configuration_with_a_bad_value_is_refused() {
    for (config, message) in [
        ("listen: localhost\n", ["spot-guard.yaml:1", "listen"]),
        ("defaults:\n  maxUtilisationPercent: 101\n", ["defaults.maxUtilisationPercent", "101"]),
        ("defaults:\n  spotTimeoutSeconds: 3 min\n", ["spot-guard.yaml:2", "spotTimeoutSeconds"]),
        ("lease: { durationSeconds: 1 }\n", ["lease.durationSeconds", "1 is not between 2 and 300"]),
        ("lease: { durationSeconds: 5 }\n", ["aws.callTimeoutSeconds", "lease.durationSeconds"]),
        ("taintKey: NoPrefix\n", ["taintKey", "NoPrefix"]),
    ] {
        assert_refused(&controller_with(config), &message);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = spot_guard(&["controller", "--config", "/no/such/file.yaml"]);
    assert_refused(&output, &["/no/such/file.yaml", "cannot be read"]);
}

#[test]
fn a_webhook_secret_that_could_be_guessed_stops_the_controller_with_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    for (secret, problem) in [
        ("", "the secret has 0 bytes"),
        ("whsec_YQ==", "the secret has 1 bytes"),
        ("whsec_c2hvcnQ=", "the secret has 5 bytes"),
        ("a word", "it is not whsec_ and base64"),
    ] {
        fs::write(&file, secret).expect("a secret");
        let output = controller_with(&format!("webhookSecretFiles: ['{}']\n", file.display()));
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(problem) && told.contains(file.to_str().expect("a path in UTF-8")), "{told}");
        assert!(!told.contains("c2hvcnQ"), "{told}");
    }
}

#[test]
fn options_that_are_missing_or_wrong_are_named() {
    assert_refused(&agent(&[]), &["--node-name"]);
    assert_refused(&agent(&["--node-name", "a", "--poll-seconds", "0"]), &["--poll-seconds", "1..=60"]);
    assert_refused(&spot_guard(&["controller"]), &["--config"]);
    assert_refused(&spot_guard(&["demo", "--scenario", "perfect"]), &["perfect", "dry-spot"]);
    assert_refused(&spot_guard(&["demo", "--speed", "fast"]), &["fast", "max"]);
    assert_refused(&spot_guard(&["dance"]), &["dance"]);
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("spot-guard.yaml");
    fs::write(&config, "").expect("a configuration");
    let config = config.to_str().expect("a path in UTF-8");
    let missing = "/no/such/kubeconfig";
    for output in [
        spot_guard(&["controller", "--config", config, "--kubeconfig", missing]),
        agent(&["--node-name", "a", "--kubeconfig", missing]),
    ] {
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(missing));
    }
}

#[test]
fn the_definitions_are_printed() {
    let output = spot_guard(&["crds"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("YAML");
    for name in ["spotpools", "interruptionnotices", "nodereplacements", "spotactions"] {
        assert!(text.contains(&format!("name: {name}.spotguard.dev\n")), "{name} in {text}");
    }
    assert_eq!(text.matches("kind: CustomResourceDefinition\n").count(), 4);
}
