//! Notifications: what people are told unasked, sent to webhooks (a chat, an incident tool).
//!
//! Told beside the flow: each target has a queue that is bounded, and a task that empties it. A notification
//! that finds the queue full, or whose target does not take it in a few attempts, is lost and counted; what
//! matters is in the records.

use crate::clock::jittered;
use crate::telemetry::metrics::{EventResult, Metrics};
use minijinja::{Environment, UndefinedBehavior, context};
use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;
use spot_guard_core::ids::{PoolName, ReplacementName};
use spot_guard_core::notification::NotificationKind;
use spot_guard_core::policy::backoff;
use spot_guard_core::record::StepRecord;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Notifications that may wait for one target.
const QUEUE: usize = 256;
/// How often one is tried.
const ATTEMPTS: u32 = 5;
/// How long one attempt may take, the connection included.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after the first failed attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The name that the template is known by: its ending makes every value JSON.
const TEMPLATE: &str = "template.json";

/// A webhook that is told, as configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The file that holds the webhook's URL, and nothing else. A file, because such a URL is a secret:
    /// whoever knows it may write. It is read for every notification, so a new one needs no restart.
    pub url_file: PathBuf,
    /// What is told.
    #[serde(default = "everything")]
    pub on: Vec<NotificationKind>,
    /// The body, a Jinja template of a JSON document.
    #[serde(default = "for_slack")]
    pub template: String,
}

fn everything() -> Vec<NotificationKind> {
    NotificationKind::ALL.into()
}

/// What Slack's incoming webhooks take, and many others that follow them.
fn for_slack() -> String {
    r#"{"text": {{ "Spot Guard, " ~ kind ~ ", node " ~ node ~ (" of pool " ~ pool if pool else "") ~ ": " ~ message }}}"#
        .to_owned()
}

impl Target {
    /// What is wrong with the target, by its key.
    ///
    /// # Errors
    /// If it tells nothing, or its template is none, names what there is not, or does not make a JSON
    /// document.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.on.is_empty() {
            return Err(("on", "names no kind of notification".to_owned()));
        }
        let step = StepRecord {
            flow_box: spot_guard_core::record::FlowBox::Notice,
            at: jiff::Timestamp::UNIX_EPOCH,
            outcome: spot_guard_core::record::Outcome::NoticeReceived,
            node: "\"node\"".into(),
            message: "\"message\"".to_owned(),
        };
        let (replacement, pool) = ("i-0".into(), Some("pool".into()));
        let example = Notification { kind: NotificationKind::Notice, replacement, pool, step };
        let body = self.body(&example).map_err(|error| ("template", error.to_string()))?;
        match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
            Ok(_) => Ok(()),
            Err(error) => Err(("template", format!("does not make a JSON document: {error}: {body}"))),
        }
    }

    fn body(&self, told: &Notification) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let values = context! {
            kind => format!("{:?}", told.kind),
            replacement => told.replacement.as_str(),
            pool => told.pool.as_deref(),
            node => told.step.node.as_str(),
            box => told.step.flow_box.number(),
            outcome => told.step.outcome.as_str(),
            message => told.step.message.as_str(),
            at => told.step.at.to_string(),
        };
        environment.render_named_str(TEMPLATE, &self.template, values)
    }
}

/// Something to be told.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Why.
    pub kind: NotificationKind,
    /// The replacement whose step it is.
    pub replacement: ReplacementName,
    /// Its pool.
    pub pool: Option<PoolName>,
    /// The step.
    pub step: StepRecord,
}

impl Notification {
    /// What is to be told of a step, if anything.
    #[must_use]
    pub fn of(replacement: &ReplacementName, pool: Option<&PoolName>, step: &StepRecord) -> Option<Self> {
        Some(Self {
            kind: NotificationKind::of(step.flow_box, step.outcome)?,
            replacement: replacement.clone(),
            pool: pool.cloned(),
            step: step.clone(),
        })
    }
}

/// Tells the targets; clones share their queues.
#[derive(Clone)]
pub struct Notifications {
    queues: Arc<[(Vec<NotificationKind>, mpsc::Sender<Notification>)]>,
    metrics: Arc<Metrics>,
}

impl Notifications {
    /// Starts a task for each target; they end with the last clone. To be called inside a runtime.
    #[must_use]
    pub fn start(targets: &[Target], metrics: &Arc<Metrics>) -> Self {
        Self::with_pauses(targets, metrics, FIRST_PAUSE)
    }

    fn with_pauses(targets: &[Target], metrics: &Arc<Metrics>, first_pause: Duration) -> Self {
        let queue = |target: &Target| {
            let (queue, mut waiting) = mpsc::channel::<Notification>(QUEUE);
            let (target, counted) = (target.clone(), metrics.clone());
            let on = target.on.clone();
            tokio::spawn(async move {
                // Where the URL leads is for who wrote it to say: an answer must not lead on to somewhere
                // else.
                let client = match Client::builder().redirect(redirect::Policy::none()).build() {
                    Ok(client) => client,
                    Err(error) => {
                        tracing::error!(%error, "notifications cannot be sent: no HTTP client");
                        return;
                    }
                };
                while let Some(told) = waiting.recv().await {
                    counted.notification(deliver(&client, &target, &told, first_pause).await);
                }
            });
            (on, queue)
        };
        Self { queues: targets.iter().map(queue).collect(), metrics: metrics.clone() }
    }

    /// Tells whoever wants to know. Never waits.
    pub fn tell(&self, told: &Notification) {
        for (_, queue) in self.queues.iter().filter(|(on, _)| on.contains(&told.kind)) {
            if queue.try_send(told.clone()).is_err() {
                self.metrics.notification(EventResult::Dropped);
            }
        }
    }
}

/// Why an attempt failed. The URL is a secret and in none of the texts.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}: {error}", file.display())]
    Url { file: PathBuf, error: String },
    #[error("the template: {0}")]
    Template(#[from] minijinja::Error),
    #[error("the target answers {0}")]
    Refused(StatusCode),
    #[error("the target cannot be reached: {0}")]
    Unreachable(String),
}

impl Failure {
    /// Whether another attempt may go better.
    fn passes(&self) -> bool {
        match self {
            Self::Url { .. } | Self::Unreachable(_) => true,
            Self::Template(_) => false,
            Self::Refused(status) => {
                status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
        }
    }
}

async fn deliver(
    client: &Client,
    target: &Target,
    told: &Notification,
    first_pause: Duration,
) -> EventResult {
    for attempt in 1..=ATTEMPTS {
        let Err(failure) = send(client, target, told).await else { return EventResult::Published };
        if attempt == ATTEMPTS || !failure.passes() {
            tracing::warn!(kind = ?told.kind, replacement = &*told.replacement, attempt, "a notification was not delivered: {failure}");
            break;
        }
        tokio::time::sleep(jittered(backoff(first_pause, LONGEST_PAUSE, attempt))).await;
    }
    EventResult::Failed
}

async fn send(client: &Client, target: &Target, told: &Notification) -> Result<(), Failure> {
    let body = target.body(told)?;
    let unusable = |error: String| Failure::Url { file: target.url_file.clone(), error };
    // A mounted secret lies in memory: reading it blocks nobody.
    let text = std::fs::read_to_string(&target.url_file).map_err(|error| unusable(error.to_string()))?;
    let url = Url::parse(text.trim()).map_err(|error| unusable(format!("is not a URL: {error}")))?;
    let request = client.post(url).header("content-type", "application/json").body(body).timeout(TIMEOUT);
    let answer =
        request.send().await.map_err(|error| Failure::Unreachable(error.without_url().to_string()))?;
    if answer.status().is_success() { Ok(()) } else { Err(Failure::Refused(answer.status())) }
}

#[cfg(test)]
mod tests;
