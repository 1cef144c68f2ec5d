//! Kubernetes events: what `kubectl describe` shows of a node, a pool or a replacement.
//!
//! Told beside the flow: a queue that is bounded, and a task that empties it. An event that finds the queue
//! full, or cannot be published, is lost and counted; what matters is in the records. The events of a
//! record's steps have names of their own, so a new leader publishes them once more, and none is lost or
//! doubled when a leader is killed.

use crate::telemetry::metrics::{EventResult, Metrics};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as StoredEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Events that may wait to be published.
const QUEUE: usize = 512;
/// How long the publication of one may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Of a note the API takes so many characters (`events.k8s.io/v1`, field `note`).
const NOTE_CHARS: usize = 1000;

/// The events of an object without a namespace live here, as those of nodes do.
const NAMESPACE: &str = "default";
/// Who publishes.
const CONTROLLER: &str = "spot-guard";
/// What the reason of each event begins with: a node has events of many.
const PREFIX: &str = "SpotGuard";

/// An event that waits to be published.
struct Waiting {
    event: Event,
    about: ObjectReference,
    /// What makes it the same event, however often it is published.
    identity: Option<EventIdentity>,
}

/// What makes an event the same, whoever publishes it.
pub struct EventIdentity {
    /// The name of the object. A DNS subdomain of at most 253 characters.
    pub name: String,
    /// When it happened.
    pub at: Timestamp,
}

/// Tells events; clones share the queue.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

/// What an event says.
pub struct Told<'a> {
    /// Whether somebody might want to look.
    pub warning: bool,
    /// One word, for machines. The event has `SpotGuard` before it.
    pub reason: &'a str,
    /// What was done or tried.
    pub action: String,
    /// In plain words.
    pub note: &'a str,
    /// A second object that it is about.
    pub secondary: Option<ObjectReference>,
}

impl Events {
    /// Starts the task that publishes; it ends with the last clone. To be called inside a runtime.
    #[must_use]
    pub fn start(client: Client, identity: &str, metrics: Arc<Metrics>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting>(QUEUE);
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(identity.to_owned()) };
        let publisher = Publisher {
            recorder: Recorder::new(client.clone(), reporter),
            events: Api::namespaced(client, NAMESPACE),
            instance: identity.to_owned(),
        };
        let counted = metrics.clone();
        tokio::spawn(async move {
            while let Some(event) = waiting.recv().await {
                let reason = event.event.reason.clone();
                let published = tokio::time::timeout(TIMEOUT, publisher.publish(event)).await;
                let result = if matches!(published, Ok(Ok(()))) {
                    EventResult::Published
                } else {
                    tracing::debug!(reason, "an event could not be published: {published:?}");
                    EventResult::Failed
                };
                counted.event(result);
            }
        });
        Self { queue, metrics }
    }

    /// Tells of an object. Never waits. The same news within six minutes become one event with a count.
    pub fn tell(&self, about: ObjectReference, told: Told<'_>) {
        self.queue(about, told, None);
    }

    /// Tells of an object what has one name for ever: to tell it again changes nothing. Never waits.
    pub fn tell_once(&self, about: ObjectReference, told: Told<'_>, identity: EventIdentity) {
        self.queue(about, told, Some(identity));
    }

    fn queue(&self, about: ObjectReference, told: Told<'_>, identity: Option<EventIdentity>) {
        let event = told.into_event();
        if self.queue.try_send(Waiting { event, about, identity }).is_err() {
            self.metrics.event(EventResult::Dropped);
        }
    }
}

impl Told<'_> {
    fn into_event(self) -> Event {
        Event {
            type_: if self.warning { EventType::Warning } else { EventType::Normal },
            reason: format!("{PREFIX}{}", self.reason),
            note: Some(self.note.chars().take(NOTE_CHARS).collect()),
            action: self.action,
            secondary: self.secondary,
        }
    }
}

/// Writes events to the API server.
struct Publisher {
    recorder: Recorder,
    events: Api<StoredEvent>,
    instance: String,
}

impl Publisher {
    async fn publish(&self, waiting: Waiting) -> kube::Result<()> {
        let Waiting { event, about, identity } = waiting;
        let Some(EventIdentity { name, at }) = identity else {
            return self.recorder.publish(&event, &about).await;
        };
        let type_ = if event.type_ == EventType::Warning { "Warning" } else { "Normal" };
        let stored = StoredEvent {
            metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
            event_time: Some(MicroTime(at)),
            action: Some(event.action),
            reason: Some(event.reason),
            note: event.note,
            regarding: Some(about),
            related: event.secondary,
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            type_: Some(type_.to_owned()),
            ..StoredEvent::default()
        };
        match self.events.create(&PostParams::default(), &stored).await {
            // It was told before, by this leader or by the one before it.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            answer => answer.map(drop),
        }
    }
}

/// A pool that is not there any more, as what an event is about. One that is there has a UID, too.
#[must_use]
pub fn pool(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(format!("{}/v1alpha1", crate::crd::GROUP)),
        kind: Some("SpotPool".to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// A reference to a node. As kubelets do, its name stands for its uid: `kubectl describe node` looks for
/// that.
#[must_use]
pub fn node(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spot_guard_core::record::Outcome;

    #[test]
    fn the_reason_of_an_event_says_who_tells_it() {
        let note = "\u{e4}".repeat(NOTE_CHARS + 1);
        let action = "Box5".to_owned();
        let told = Told { warning: true, reason: "TimedOut", action, note: &note, secondary: None };
        let event = told.into_event();
        assert_eq!((&*event.reason, event.type_), ("SpotGuardTimedOut", EventType::Warning));
        assert_eq!(event.note.map(|note| note.chars().count()), Some(NOTE_CHARS));
    }

    #[test]
    fn the_docs_list_the_reason_of_each_step() {
        let docs = include_str!("../../docs/reasons.md");
        let (_, part) = docs.split_once("\n## Events").expect("a part of its own");
        let part = part.split("\n## ").next().expect("a part");
        let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let listed: Vec<(&str, &str)> =
            rows.map(|(reason, rest)| (reason, rest.split(" |").next().unwrap_or_default())).collect();
        let schema = schemars::schema_for!(Outcome).to_value();
        let declared = schema["oneOf"].as_array().expect("outcomes").iter().map(|held| &held["const"]);
        let mut expected: Vec<(String, &str)> = declared
            .map(|word| {
                let outcome: Outcome = serde_json::from_value(word.clone()).expect("an outcome");
                let type_ = if outcome.is_warning() { "Warning" } else { "Normal" };
                (format!("{PREFIX}{outcome:?}"), type_)
            })
            .collect();
        expected.push((format!("{PREFIX}ShortfallMode"), "Normal"));
        let expected: Vec<(&str, &str)> =
            expected.iter().map(|(reason, type_)| (reason.as_str(), *type_)).collect();
        assert_eq!(listed, expected, "docs/reasons.md is not up to date");
    }
}
