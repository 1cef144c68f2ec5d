//! A replacement is one tree of spans in a real Jaeger, though its leader is killed in the middle of it.

use crate::helpers::{http, wait_for};
use crate::process::{LOOPBACK, Process, built, free_port};
use crate::product::{self, PATIENCE, TRACES};
use crate::stories::{Stagecraft, announce, dry_spot, times_taken};
use serde_json::Value;
use spot_guard::telemetry::replacement_trace::{name_of, trace_id};
use spot_guard_core::record::{FlowBox, Outcome, StepRecord};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Where Jaeger listens beside OTLP and its API: nobody asks there.
const OTHERS: [&str; 9] = [
    "--admin.http.host-port",
    "--collector.grpc-server.host-port",
    "--collector.http-server.host-port",
    "--collector.otlp.http.host-port",
    "--http-server.host-port",
    "--processor.jaeger-binary.server-host-port",
    "--processor.jaeger-compact.server-host-port",
    "--processor.zipkin-compact.server-host-port",
    "--query.grpc-server.host-port",
];

/// A Jaeger that keeps what it gets in memory.
struct Jaeger {
    process: Process,
    api: SocketAddr,
    /// Where it takes OTLP over gRPC.
    otlp: SocketAddr,
}

impl Jaeger {
    async fn start(folder: &Path) -> Self {
        let free = || SocketAddr::new(LOOPBACK.parse().expect("an address"), free_port());
        let (api, otlp) = (free(), free());
        let mut command = Command::new(built("testbed/jaeger", &[], "all-in-one"));
        command.arg(format!("--query.http-server.host-port={api}"));
        command.arg(format!("--collector.otlp.grpc.host-port={otlp}"));
        command.args(OTHERS.map(|flag| format!("{flag}={}", free())));
        // It would send traces of its own.
        command.env("OTEL_TRACES_SAMPLER", "always_off");
        let mut jaeger =
            Self { process: Process::start("jaeger", command, folder).expect("Jaeger starts"), api, otlp };
        wait_for("Jaeger to answer", PATIENCE, async || jaeger.get("/api/services").await).await;
        jaeger
    }

    async fn get(&mut self, path: &str) -> Option<Value> {
        self.process.check_alive().expect("Jaeger runs");
        let answer = http(self.api, "GET", path, &[]).await.ok()?;
        serde_json::from_str(&answer.body).ok().filter(|_| answer.status == 200)
    }

    /// The spans of a trace by their ids, as they were sent. One that came twice is the same both times.
    async fn spans(&mut self, trace_id: &str) -> Option<BTreeMap<String, Span>> {
        let found = self.get(&format!("/api/traces/{trace_id}?raw=true")).await?;
        let mut spans = BTreeMap::new();
        for value in found["data"][0]["spans"].as_array()? {
            let (id, span) = (value["spanID"].as_str()?.to_owned(), Span::of(value)?);
            let before = spans.insert(id, span.clone());
            assert!(before.as_ref().is_none_or(|before| *before == span), "{before:?} and {span:?}");
        }
        Some(spans)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Span {
    name: String,
    parent: Option<String>,
    /// In microseconds of Unix time.
    start: i64,
    end: i64,
    outcome: String,
    /// The API server's id of a change.
    audit_id: String,
}

impl Span {
    fn of(value: &Value) -> Option<Self> {
        let start = value["startTime"].as_i64()?;
        let tags = value["tags"].as_array()?;
        let tag = |key: &str| {
            let found = tags.iter().find(|tag| tag["key"] == key);
            found.and_then(|tag| tag["value"].as_str()).unwrap_or_default().to_owned()
        };
        Some(Self {
            name: value["operationName"].as_str()?.to_owned(),
            parent: value["references"][0]["spanID"].as_str().map(str::to_owned),
            start,
            end: start + value["duration"].as_i64()?,
            outcome: tag("spot_guard.outcome"),
            audit_id: tag("k8s.audit_id"),
        })
    }

    /// Whether it is that of the step. Jaeger rounds both of its times down.
    fn is_of(&self, step: &StepRecord) -> bool {
        let (name, outcome) = (name_of(step.flow_box), format!("{:?}", step.outcome));
        let away = self.end - step.at.as_microsecond();
        self.name == name && self.outcome == outcome && away.abs() <= 2
    }
}

/// What is still missing of the trace of a replacement that is over.
fn missing(spans: &BTreeMap<String, Span>, steps: &[StepRecord]) -> Vec<String> {
    let has = |name: &str| spans.values().any(|span| span.name == name);
    let lost = steps.iter().filter(|step| !spans.values().any(|span| span.is_of(step)));
    let lost = lost.map(|step| format!("{} {:?}", name_of(step.flow_box), step.outcome));
    let others = ["notice", "replacement", "LaunchInstances", "taint node", "evict pod"];
    lost.chain(others.into_iter().filter(|name| !has(name)).map(str::to_owned)).collect()
}

#[actix::test]
async fn a_replacement_whose_leader_was_killed_is_one_tree_with_all_its_steps() {
    let tale = dry_spot();
    let testbed = tale.testbed("traces").await;
    let mut jaeger = Jaeger::start(testbed.dir()).await;
    let variables = format!(
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://{}\nOTEL_EXPORTER_OTLP_PROTOCOL=grpc\n\
         OTEL_EXPORTER_OTLP_COMPRESSION=gzip\n",
        jaeger.otlp
    );
    fs::write(testbed.dir().join(TRACES), variables).expect("the variables are written");
    let mut stagecraft = Stagecraft::set_up_on(testbed, &tale).await;
    let url = stagecraft.autoscaling.url();
    let mut second = product::start_controller(&stagecraft.testbed, "standby", &url).await;
    second.becomes_ready().await;
    let events = stagecraft.story.world.cloud.subscribe();
    let Stagecraft { controller, imds, story, .. } = &mut stagecraft;
    let takeover = async {
        wait_for("the fallback to be requested", PATIENCE, async || {
            let records = story.records().await;
            (times_taken(&records, FlowBox::Fallback, Outcome::Requested) == 1).then_some(())
        })
        .await;
        // What it has told within the last seconds is not sent yet.
        std::mem::replace(controller, second).process.kill();
    };
    let (report, ()) = tokio::select! {
        played = async { tokio::join!(tale.play(story), takeover) } => played,
        never = announce(imds, events) => match never {},
    };

    let record = story.records().await.remove(0);
    let trace = trace_id(&record).to_string();
    let steps = record.status.expect("a status").steps;
    let found = std::cell::RefCell::new(Vec::new());
    let waiting = async || {
        let spans = jaeger.spans(&trace).await?;
        let missing = missing(&spans, &steps);
        found.replace(missing.clone());
        missing.is_empty().then_some(spans)
    };
    let spans = tokio::time::timeout(PATIENCE, wait_for("the whole trace", 2 * PATIENCE, waiting)).await;
    let spans = spans.unwrap_or_else(|_| panic!("Jaeger misses {:#?}", found.borrow()));

    let boxes = spans.values().filter(|span| span.name.starts_with("box ")).count();
    assert_eq!(boxes, steps.len(), "one span for each step: {spans:#?}");
    let (whole, whole_id) = spans
        .iter()
        .find_map(|(id, span)| (span.name == "replacement").then_some((span, id)))
        .expect("the whole replacement");
    let notice = whole.parent.as_ref().and_then(|parent| spans.get(parent)).expect("what began it");
    assert_eq!((notice.name.as_str(), &notice.parent), ("notice", &None));
    for span in spans.values().filter(|span| span.name.starts_with("box ")) {
        assert_eq!(span.parent.as_ref(), Some(whole_id), "{span:?}");
        assert!(span.start >= whole.start && span.end <= whole.end + 2, "{span:?} within {whole:?}");
    }
    let tops: Vec<&str> =
        spans.values().filter(|span| span.parent.is_none()).map(|span| span.name.as_str()).collect();
    assert_eq!(tops, ["notice"], "one tree");
    let is_audited = |span: &Span| span.name == "evict pod" && !span.audit_id.is_empty();
    assert!(spans.values().any(is_audited), "an eviction is found in the API server's audit log");
    stagecraft.ends_as_simulated(&tale, &report).await;
}
