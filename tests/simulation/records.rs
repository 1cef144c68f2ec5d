//! Objects as earlier versions have stored them (`tests/records`): each is read and loses nothing, and a
//! replacement is carried on from its record to its end.

use crate::play::on_paused_time;
use crate::unread::{KIND, unscripted, until_phase};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spot_guard::actors::supervision::Shutdown;
use spot_guard::crd::{NodeReplacement, SpotPool};
use spot_guard::sim::scenario::{Act, Scenario};
use spot_guard::sim::world::Gates;
use spot_guard_cloud::cloud::Supply;
use spot_guard_core::record::{Phase, ReplacementStatus};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records")
}

/// A stored object, by its file.
pub fn stored(file: &str) -> Value {
    let text = fs::read_to_string(folder().join(file)).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

/// The object as it was understood.
fn reread<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

fn understood(object: &Value) -> Result<Value, serde_json::Error> {
    if object["kind"] == "SpotPool" { reread::<SpotPool>(object) } else { reread::<NodeReplacement>(object) }
}

#[test]
fn every_stored_object_is_read_and_loses_nothing() {
    let mut phases = BTreeSet::new();
    for entry in fs::read_dir(folder().join("0.1.0")).expect("a folder") {
        let file = format!("0.1.0/{}", entry.expect("an entry").file_name().to_string_lossy());
        let object = stored(&file);
        assert_eq!(understood(&object).expect(&file), object, "{file}");
        let status = object["status"].as_object().expect("a status");
        for field in status.keys() {
            let mut older = object.clone();
            older["status"].as_object_mut().expect("a status").remove(field);
            assert!(understood(&older).is_ok(), "{file} without {field}");
        }
        let mut newer = object.clone();
        newer["status"]["fieldOfANewerVersion"] = json!({ "a": [1] });
        assert_eq!(understood(&newer).expect(&file), object, "{file} with a field that nobody knows");
        if object["kind"] == "NodeReplacement" {
            let status: ReplacementStatus = serde_json::from_value(object["status"].clone()).expect(&file);
            assert_eq!(status.phase, status.phase(), "{file}");
            phases.insert(status.phase);
        }
    }
    assert_eq!(phases, BTreeSet::from(Phase::ALL), "one of each phase");
}

fn status(record: &NodeReplacement) -> &ReplacementStatus {
    record.status.as_ref().expect("a status")
}

/// Nodes, instances and the UID that a record names, in the same order in each.
fn names(record: &NodeReplacement) -> Vec<String> {
    let mut names = vec![record.spec.node_name.to_string(), record.spec.instance_id.to_string()];
    names.extend(status(record).node_uid.iter().map(ToString::to_string));
    for held in status(record).took_over() {
        names.extend([held.node_name.to_string(), held.instance_id.to_string()]);
    }
    names
}

/// Moves every time that stands in it.
fn move_times(value: &mut Value, by: SignedDuration) {
    match value {
        Value::String(text) => {
            if let Ok(at) = text.parse::<Timestamp>() {
                *text = (at + by).to_string();
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| move_times(value, by)),
        Value::Object(fields) => fields.values_mut().for_each(|value| move_times(value, by)),
        _ => {}
    }
}

/// The stored record as if it were that of this replacement.
fn adapted(object: &Value, held: &NodeReplacement) -> Value {
    let record: NodeReplacement = serde_json::from_value(object.clone()).expect("a record");
    let (from, to) = (names(&record), names(held));
    assert_eq!(from.len(), to.len(), "{from:?} are to become {to:?}");
    let text = from.iter().zip(&to).fold(object.to_string(), |text, (from, to)| text.replace(from, to));
    let mut adapted: Value = serde_json::from_str(&text).expect("JSON");
    let since = |record: &NodeReplacement| status(record).phase_since.expect("a time");
    move_times(&mut adapted["status"], since(held).duration_since(since(&record)));
    adapted
}

/// A scenario comes to the phase of a stored record. That record takes the place of its own, and a controller
/// that has never seen it carries it on.
fn is_carried_on(file: &str, scenario: Scenario, acts: &[Act], then: &Act) {
    on_paused_time(async {
        let mut story = unscripted(file, scenario).await;
        let cluster = story.world.cluster.clone().expect("a simulated cluster");
        let end = Shutdown::new();
        let first = story.controller("first", Gates::default(), &end);
        for act in acts {
            story.act(act).await.expect("the world can do it");
        }
        let object = stored(&format!("0.1.0/{file}.json"));
        let phase: Phase = serde_json::from_value(object["status"]["phase"].clone()).expect("a phase");
        until_phase(&story, phase).await;
        end.trigger();
        let mut leads = first.leading.clone();
        leads.wait_for(|leads| !*leads).await.expect("it says that it leads no more");
        tokio::time::sleep(Duration::from_secs(1)).await;

        let held = story.records().await.remove(0);
        assert_eq!(status(&held).phase, phase, "{file}: it went on meanwhile");
        let adapted = adapted(&object, &held);
        assert_eq!(adapted["spec"], serde_json::to_value(&held.spec).expect("JSON"), "{file}");
        cluster.edit(KIND, "", &held.replacement_name(), |record| {
            record["status"] = adapted["status"].clone();
        });
        let _second = story.controller("second", Gates::default(), &Shutdown::new());
        story.act(then).await.expect("the world can do it");
        story.to_its_end(&mut |_| {}).await.expect("no script is left");
        assert_eq!(story.report().await.problems, [""; 0], "{file}");
    });
}

#[test]
fn a_replacement_is_carried_on_from_a_stored_record() {
    let spot_is_dry = Act::SpotHas(Supply::None);
    let spot_is_back = Act::SpotHas(Supply::Unlimited);
    let dry = [spot_is_dry.clone(), Act::Rebalance(0)];
    let all_dry = [spot_is_dry, Act::OnDemandHas(Supply::None), Act::Rebalance(0)];
    let blocked = [Act::Probe("web", false), Act::Rebalance(0)];
    is_carried_on("scaling-up", Scenario::Rebalance, &[Act::Rebalance(0)], &spot_is_back);
    is_carried_on("falling-back", Scenario::DrySpot, &dry, &spot_is_back);
    is_carried_on("backing-off", Scenario::AllDry, &all_dry, &spot_is_back);
    is_carried_on("draining", Scenario::PdbBlocked, &blocked, &Act::Probe("web", true));
    is_carried_on("on-fallback", Scenario::DrySpot, &dry, &spot_is_back);
}
