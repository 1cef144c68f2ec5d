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
    /// One word, for machines.
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
        let event = Event {
            type_: if told.warning { EventType::Warning } else { EventType::Normal },
            reason: told.reason.to_owned(),
            note: Some(told.note.chars().take(NOTE_CHARS).collect()),
            action: told.action,
            secondary: told.secondary,
        };
        if self.queue.try_send(Waiting { event, about, identity }).is_err() {
            self.metrics.event(EventResult::Dropped);
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

/// A pool, as what an event is about.
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
