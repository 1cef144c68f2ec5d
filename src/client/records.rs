//! What is stored in the cluster, told by the code of the HTTP API while no controller tells it.

use super::forward::{ClusterOptions, NoController, get};
use crate::actors::last_readings::LastReadings;
use crate::clock::Clock;
use crate::crd::{GROUP, NodeReplacement, SpotPool};
use crate::http::{ApiState, Door, Items, Secrets, SpotActions, checks, serve, streams};
use crate::telemetry::escape::escaped;
use crate::telemetry::liveness::Liveness;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::readiness::{Readiness, UnreadyCode};
use anyhow::{Context, anyhow};
use kube::client::Body;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use spot_guard_core::cluster::{Parts, Snapshot};
use spot_guard_core::policy::Policy;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use tokio::sync::watch;
use tower::BoxError;

/// Reads the records by kubectl, says so, and tells them on loopback for as long as this process runs: at
/// the URL that is returned.
///
/// # Errors
/// With why no controller is reached, and why the records cannot be read.
pub(super) fn tell(of: &ClusterOptions, why: &NoController) -> anyhow::Result<String> {
    let (pools, replacements) =
        read(of).map_err(|error| anyhow!("{why}; nor can the records be read: {error:#}"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port of this machine is free")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            // If it cannot serve, the port is closed, and whoever asks is told that nobody answers.
            if let Ok(server) = serve(listener, Door::Local, state(pools, replacements)) {
                let _ = server.await;
            }
        });
    });
    let why = why.to_string();
    eprintln!(
        "note: {}; this is from the records in the cluster, without what only a controller knows (the nodes, and \
         whether one could be drained)",
        escaped(&why)
    );
    Ok(url)
}

/// The pools and the replacements that are stored.
fn read(of: &ClusterOptions) -> anyhow::Result<(Vec<SpotPool>, Vec<NodeReplacement>)> {
    let kinds = format!("spotpools.{GROUP},nodereplacements.{GROUP}");
    let text = get(of, &kinds, &["--output", "json"])?;
    let answer: Items<Value> = serde_json::from_str(&text).context("kubectl answers with no list")?;
    let (mut pools, mut replacements) = (Vec::new(), Vec::new());
    for item in answer.items {
        match item["kind"].as_str() {
            Some("SpotPool") => pools.push(record(item)?),
            Some("NodeReplacement") => replacements.push(record(item)?),
            _ => {}
        }
    }
    Ok((pools, replacements))
}

fn record<K: DeserializeOwned>(item: Value) -> anyhow::Result<K> {
    let name = format!("{} {}", item["kind"], item["metadata"]["name"]);
    serde_json::from_value(item).with_context(|| format!("{name} is of another version"))
}

/// What a controller would know that has read these records and nothing else.
fn state(pools: Vec<SpotPool>, replacements: Vec<NodeReplacement>) -> ApiState {
    let readiness = Readiness::default();
    readiness.not_ready("controller", UnreadyCode::NotListed, "no controller is reached");
    ApiState {
        pools: store_of(pools),
        replacements: store_of(replacements),
        notices: reflector::store().0,
        stale: Arc::new(Vec::new),
        snapshot: Arc::new(|| Arc::new(Snapshot::new(Parts::default()))),
        spot_action_store: reflector::store().0,
        spot_actions: SpotActions::new(nobody()),
        webhook_secrets: Secrets::default(),
        trace_url: None,
        defaults: Policy::default(),
        taint_key: "".into(),
        checks: checks(),
        liveness: Liveness::of_this_thread(),
        readiness,
        metrics: Arc::new(Metrics::new()),
        now: Arc::new(|| Clock::System.now()),
        is_leader: watch::channel(false).1,
        holder: watch::channel(None).1,
        last_readings: LastReadings::default(),
        cluster_name: None,
        changes: watch::channel(0).1,
        history: Arc::default(),
        streams: streams(),
        paused: watch::channel(false).1,
        version: env!("CARGO_PKG_VERSION"),
    }
}

fn store_of<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store::<K>();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(object));
    }
    store
}

/// A client that sends nothing: there is only reading at the local port.
fn nobody() -> Client {
    let refuse = |_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(BoxError::from("no controller is reached"))
    };
    Client::new(tower::service_fn(refuse), "default")
}
