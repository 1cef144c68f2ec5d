//! Metrics, alerts and dashboard, by the real Prometheus.

use crate::chart::{files, helm_template, root, succeeded};
use crate::helpers::wait_for;
use crate::process::built;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

const PATIENCE: Duration = Duration::from_secs(60);
/// So long the demo plays at its speed, with much to spare.
const DEMO: Duration = Duration::from_secs(300);
const VALUES: &str = "prometheusRule: {enabled: true, labels: {team: a}, runbooks: 'https://example.org/runbooks/'}\n\
                      dashboard: {enabled: true}";

fn promtool(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(built("testbed/prometheus", &[], "promtool"));
    command.args(arguments).current_dir(folder).output().expect("promtool runs")
}

fn alerts() -> String {
    fs::read_to_string(root().join("deploy/helm/spot-guard/files/alerts.yaml")).expect("the alerts")
}

fn dashboard() -> Value {
    let text = fs::read_to_string(root().join("deploy/helm/spot-guard/files/dashboard.json"));
    serde_json::from_str(&text.expect("the dashboard")).expect("JSON")
}

#[test]
fn each_alert_fires_and_stays_quiet() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("alerts.yaml"), alerts()).expect("a file");
    let cases = root().join("tests/cluster/monitoring/alerts.yaml");
    fs::copy(cases, folder.path().join("cases.yaml")).expect("a file");
    let output = promtool(folder.path(), &["test", "rules", "cases.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_chart_renders_the_alerts_and_the_dashboard_as_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let rendered = succeeded(helm_template(folder.path(), "elsewhere", VALUES));
    let files = files(&rendered);
    let rule: Value = serde_saphyr::from_str(&files["prometheus-rule.yaml"]).expect("YAML");
    let plain: Value = serde_saphyr::from_str(&alerts()).expect("YAML");
    let text = plain["groups"].to_string().replace("RUNBOOKS/", "https://example.org/runbooks/");
    assert_eq!(rule["spec"]["groups"].to_string(), text);
    assert_eq!(rule["metadata"]["labels"]["team"], "a");
    fs::write(folder.path().join("rules.yaml"), rule["spec"].to_string()).expect("a file");
    succeeded(promtool(folder.path(), &["check", "rules", "rules.yaml"]));

    let map: Value = serde_saphyr::from_str(&files["dashboard.yaml"]).expect("YAML");
    let shown: Value =
        serde_json::from_str(map["data"]["spot-guard.json"].as_str().expect("text")).expect("JSON");
    assert_eq!(shown, dashboard());
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let without = succeeded(helm_template(folder.path(), "elsewhere", "{}"));
    assert!(!without.contains("PrometheusRule") && !without.contains("spot-guard-dashboard"));
}

#[test]
fn the_dashboard_is_one_by_the_published_schema() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dashboard.json");
    let program = built("testbed/grafana", &[], "dashboard-check");
    let check = |dashboard: &Value| {
        fs::write(&file, dashboard.to_string()).expect("a file");
        let output = Command::new(&program).arg(&file).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&dashboard()), (true, String::new()));
    for place in ["", "/panels/1", "/panels/1/options", "/panels/1/targets/0"] {
        let mut misspelt = dashboard();
        misspelt.pointer_mut(place).expect("an object")["refrehs"] = Value::from("30s");
        let (is_valid, told) = check(&misspelt);
        assert!(!is_valid && told.contains("unexpected field 'refrehs'"), "{place}: {told}");
    }
    let mut wide = dashboard();
    wide["panels"][1]["gridPos"]["w"] = Value::from(25);
    assert!(!check(&wide).0, "a value that the schema does not allow");
}

/// The demo, and the address of its API.
async fn demo() -> (Child, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_spot-guard"));
    command.args(["demo", "--speed", "30"]).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().expect("the demo starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let first = lines.next_line().await.expect("a line").expect("a line");
    let address = first.split("Dashboard at ").nth(1).expect("an address").trim_end_matches('/').to_owned();
    // A demo that finds its pipe closed ends.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

/// An agent without instance metadata and without a cluster: what it serves is there all the same.
async fn agent(folder: &Path) -> (Child, String) {
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
                      clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: u, user: {}}]\n\
                      contexts: [{name: c, context: {cluster: c, user: u}}]\n";
    let file = folder.join("kubeconfig");
    fs::write(&file, kubeconfig).expect("a file");
    let address = free_address();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_spot-guard-agent"));
    command.args(["--node-name", "node", "--listen", &address, "--kubeconfig"]).arg(&file);
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    (child.expect("the agent starts"), format!("http://{address}"))
}

/// An address of loopback at which nothing listens now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

async fn get(url: &str) -> Option<String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().ok()?;
    client.get(url).send().await.ok()?.error_for_status().ok()?.text().await.ok()
}

/// The metrics in Prometheus' own text format, which promtool reads: there a counter has its whole name.
fn as_prometheus_text(metrics: &str) -> String {
    let mut text = String::new();
    let mut types = std::collections::BTreeMap::new();
    for line in metrics.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            types.insert(name, kind);
        }
    }
    for line in metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let line = match words[..] {
            ["#", word, name, rest] => match (word, types.get(name)) {
                ("TYPE", Some(&"info")) => format!("# TYPE {name}_info gauge"),
                (_, Some(&"info")) => format!("# {word} {name}_info {rest}"),
                (_, Some(&"counter")) => format!("# {word} {name}_total {rest}"),
                _ => line.to_owned(),
            },
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let ((_demo, controller), (_agent, agent)) = (demo().await, agent(folder.path()).await);
    for (what, address, holds) in [
        ("the leader", controller, r#"spot_guard_fallbacks_total{pool="workers"} 1"#),
        ("the agent", agent, "spot_guard_imds_requests_total{"),
    ] {
        let url = format!("{address}/metrics");
        let metrics = wait_for("the metrics", PATIENCE, async || {
            get(&url).await.filter(|metrics| metrics.contains(holds))
        })
        .await;
        let file = folder.path().join("metrics");
        fs::write(&file, as_prometheus_text(&metrics)).expect("a file");
        let mut check = Command::new(built("testbed/prometheus", &[], "promtool"));
        let input = fs::File::open(&file).expect("a file");
        let output = check.args(["check", "metrics"]).stdin(input).output().expect("promtool runs");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        assert!(output.status.success() && told.is_empty(), "{what}: {told}");
    }
}

/// The queries of the dashboard, as Grafana sends them.
fn queries() -> BTreeSet<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let all = targets.map(|target| {
        let query = target["expr"].as_str().expect("a query");
        query.replace("$__rate_interval", "1m").replace("$cluster", ".*").replace("$pool", ".*")
    });
    all.collect()
}

/// What needs something that the demo has not: a drain that is held up, a notice queue, a lack of Spot
/// capacity without a notice.
const NOT_IN_DEMO: [&str; 3] =
    ["spot_guard_oldest_block_timestamp_seconds", "\"notice-queue\"", "\"Covered\""];

/// What the alerts look at: the parts of their expressions, without comparisons and absent().
fn looked_at() -> BTreeSet<String> {
    let rules: Value = serde_saphyr::from_str(&alerts()).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules");
    let mut parts = BTreeSet::new();
    for rule in rules {
        let expression = rule["expr"].as_str().expect("an expression");
        let parted = [" and on () ", " unless on () ", " or "]
            .iter()
            .fold(expression.to_owned(), |text, word| text.replace(word, "\n"));
        parts.extend(parted.lines().map(without_comparison));
    }
    parts
}

/// A part of an expression without its comparison, and without the brackets that are not its own.
fn without_comparison(part: &str) -> String {
    let part = part.trim().trim_start_matches('(');
    let part = part.strip_prefix("absent(").unwrap_or(part);
    let comparisons = [" == ", " > ", " >= ", " < ", " <= "];
    let end = comparisons.iter().filter_map(|sign| part.find(*sign)).min().unwrap_or(part.len());
    let mut part = part[..end].trim_end();
    while part.matches(')').count() > part.matches('(').count() {
        part = part.strip_suffix(')').expect("a bracket at the end");
    }
    part.to_owned()
}

#[test]
fn what_the_alerts_look_at_is_found_in_their_expressions() {
    for (expression, expected) in [
        ("absent(spot_guard_leader == 1)", "spot_guard_leader"),
        ("sum(rate(a[5m])) == 0)", "sum(rate(a[5m]))"),
        ("(absent(a)", "a"),
        ("time() - min by (pool) (a{b=~\"5|10\"}) > 1800", "time() - min by (pool) (a{b=~\"5|10\"})"),
    ] {
        assert_eq!(without_comparison(expression), expected);
    }
    let all: BTreeSet<String> = queries().into_iter().chain(looked_at()).collect();
    assert!(looked_at().iter().all(|part| part.contains("spot_guard_")), "{all:#?}");
    let unused: Vec<&str> =
        NOT_IN_DEMO.into_iter().filter(|name| !all.iter().any(|query| query.contains(name))).collect();
    assert!(unused.is_empty(), "nothing asks for {unused:?} any more");
}

/// The answer of Prometheus to a query: how many series it has.
async fn count(prometheus: &str, query: &str) -> Option<usize> {
    let url = reqwest::Url::parse_with_params(&format!("{prometheus}/api/v1/query"), [("query", query)]);
    let answer: Value = serde_json::from_str(&get(url.expect("an address").as_str()).await?).ok()?;
    Some(answer["data"]["result"].as_array()?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_has_data_while_a_fallback_stands_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = built("testbed/prometheus", &["--server"], "prometheus");
    let ((_demo, controller), (_agent, agent)) = (demo().await, agent(folder.path()).await);
    let target = |address: &str| address.trim_start_matches("http://").to_owned();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [alerts.yaml]\n\
         scrape_configs: [{{job_name: all, static_configs: [{{targets: ['{}', '{}']}}]}}]\n",
        target(&controller),
        target(&agent)
    );
    fs::write(folder.path().join("prometheus.yaml"), config).expect("a file");
    fs::write(folder.path().join("alerts.yaml"), alerts()).expect("a file");
    let address = free_address();
    let mut command = tokio::process::Command::new(server);
    command.args(["--config.file", "prometheus.yaml", "--storage.tsdb.path", "data"]);
    command.args(["--web.listen-address", &address]).current_dir(folder.path());
    let _server = command.stderr(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");

    let prometheus = format!("http://{address}");
    let mut left: BTreeSet<String> = queries().into_iter().chain(looked_at()).collect();
    left.retain(|query| !NOT_IN_DEMO.iter().any(|name| query.contains(name)));
    assert!(left.len() > 40, "{left:#?}");
    let told = std::cell::RefCell::new(BTreeSet::new());
    let ended = tokio::time::timeout(DEMO, async {
        while !left.is_empty() {
            for query in left.clone() {
                if count(&prometheus, &query).await.is_some_and(|count| count > 0) {
                    left.remove(&query);
                }
            }
            *told.borrow_mut() = left.clone();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(ended.await.is_ok(), "no data for {:#?}", told.borrow());
    let rules = get(&format!("{prometheus}/api/v1/rules")).await.expect("the rules");
    let rules: Value = serde_json::from_str(&rules).expect("JSON");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(rules.len() >= 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:#?}");
}
