//! Alerts and dashboard name metrics that are served, and each alert has its page and its test.

use super::source::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const CHART: &str = "deploy/helm/spot-guard/files";
/// Labels that the scrape or the one who stores the metrics adds.
const ADDED: [&str; 3] = ["cluster", "instance", "pod"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The metrics of docs/telemetry.md as queries name them, each with its labels. A test of the product
/// compares the page with what is served.
fn metrics() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for line in read("docs/telemetry.md").lines() {
        let Some(row) = line.strip_prefix("| `spot_guard_") else { continue };
        let (name, rest) = row.split_once('`').expect("a name");
        let mut cells = rest.trim_start_matches(" |").split('|').map(str::trim);
        let (kind, labels) = (cells.next().expect("a type"), cells.next().expect("labels"));
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let mut labels: BTreeSet<String> = labels.filter(|label| !label.is_empty()).collect();
        let mut endings = vec![""];
        if kind == "histogram" {
            labels.insert("le".to_owned());
            endings = vec!["_bucket", "_sum", "_count"];
        }
        found.extend(endings.iter().map(|ending| (format!("spot_guard_{name}{ending}"), labels.clone())));
    }
    assert!(found.len() > 40, "the table was not understood: {found:#?}");
    found
}

/// The metrics that a query names, each with the labels that it selects by.
fn selectors(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for part in query.split("spot_guard_").skip(1) {
        let end =
            part.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(it, _)| it);
        let labels = inside.split(',').filter_map(|pair| pair.split(['=', '!']).next());
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        found.push((format!("spot_guard_{name}"), labels.collect()));
    }
    found
}

/// The labels that a query groups by.
fn groups(query: &str) -> BTreeSet<String> {
    let parts = query.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    parts.flat_map(|(labels, _)| labels.split(", ").map(str::to_owned)).collect()
}

fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read(&format!("{CHART}/alerts.yaml"))).expect("YAML");
    rules["groups"][0]["rules"].as_array().expect("rules").clone()
}

fn dashboard() -> Value {
    serde_json::from_str(&read(&format!("{CHART}/dashboard.json"))).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// The queries of all panels.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| text(&target["expr"])).collect()
}

#[test]
fn alerts_and_dashboard_name_metrics_and_labels_that_are_served() {
    let metrics = metrics();
    let (alerts, dashboard) = (alerts(), dashboard());
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let variables = variables.filter(|variable| variable["type"] == "query");
    let variables: Vec<&str> = variables.map(|variable| text(&variable["definition"])).collect();
    let queries = alerts.iter().map(|alert| text(&alert["expr"])).chain(queries(&dashboard)).chain(variables);
    let mut wrong = Vec::new();
    for query in queries {
        let selectors = selectors(query);
        assert!(!selectors.is_empty(), "{query} names no metric of ours");
        let mut known: BTreeSet<&str> = ADDED.into();
        for (name, labels) in &selectors {
            let Some(has) = metrics.get(name) else {
                wrong.push(format!("{query}: {name} is not served"));
                continue;
            };
            known.extend(has.iter().map(String::as_str));
            let strange =
                labels.iter().filter(|label| !has.contains(*label) && !ADDED.contains(&label.as_str()));
            wrong.extend(strange.map(|label| format!("{query}: {name} has no label {label}")));
        }
        let strange = groups(query).into_iter().filter(|label| !known.contains(label.as_str()));
        wrong.extend(strange.map(|label| format!("{query}: there is no label {label}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_alert_has_its_runbook_and_its_test() {
    let names: BTreeSet<String> = alerts().iter().map(|alert| text(&alert["alert"]).to_owned()).collect();
    let pages = fs::read_dir(root().join("docs/runbooks")).expect("the runbooks");
    let pages = pages.map(|page| page.expect("a page").path());
    let pages = pages.map(|page| page.file_stem().expect("a name").to_string_lossy().into_owned());
    assert_eq!(pages.collect::<BTreeSet<_>>(), names);
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert_eq!(text(&alert["annotations"]["runbook_url"]), format!("RUNBOOKS/{name}.md"));
        assert!(["critical", "warning"].contains(&text(&alert["labels"]["severity"])), "{name}");
        let page = read(&format!("docs/runbooks/{name}.md"));
        for part in ["**Symptom.**", "**Meaning.**", "\nkubectl ", "## What to do"] {
            assert!(page.contains(part), "{name} lacks {part}");
        }
    }
    let tests: Value = serde_saphyr::from_str(&read("tests/cluster/monitoring/alerts.yaml")).expect("YAML");
    let cases = tests["tests"].as_array().expect("tests").iter();
    let cases = cases.flat_map(|test| test["alert_rule_test"].as_array().expect("cases"));
    let (mut fire, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        let is_quiet = case["exp_alerts"].as_array().is_none_or(Vec::is_empty);
        if is_quiet { &mut quiet } else { &mut fire }.insert(text(&case["alertname"]).to_owned());
    }
    assert_eq!((&fire, &quiet), (&names, &names), "an alert that is not seen to fire, or to stay quiet");
}

#[test]
fn the_dashboard_works_with_any_data_source_cluster_and_pool() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().map(|variable| text(&variable["name"])).collect();
    assert_eq!(names, ["datasource", "cluster", "pool"]);
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in panels {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{title}: its id is taken");
        let at = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            assert!(x < 24 && places.insert((x, y)), "{title} lies on another panel");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = text(&target["expr"]);
            for place in [&panel["datasource"], &target["datasource"]] {
                assert_eq!(place["uid"], "${datasource}", "{title}");
            }
            for (name, labels) in selectors(query) {
                assert!(query.contains(r#"cluster=~"$cluster""#), "{title}: {query}");
                let by_pool = metrics()[&name].contains("pool");
                assert!(!by_pool || labels.contains(&"pool".to_owned()), "{title}: {query}");
            }
        }
    }
}
