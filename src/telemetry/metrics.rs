//! What is counted and measured, served at `/metrics` as OpenMetrics text.
//!
//! Labels come from enums and from the names of pools, so the number of series is bounded; nodes,
//! instances and replacements are told by the API and by traces. What the stored objects say is not
//! counted a second time: those gauges are computed at each scrape.

mod ending;
mod flow;
mod gauges;
mod labels;
mod process;
mod queue;
#[cfg(test)]
mod tests;

pub use ending::Ending;
pub use gauges::of_parts;
pub use labels::{
    ActorName, AwsOperation, AwsResult, BoundedCheck, EventResult, EvictionResult, KubeResult, KubeVerb,
    MarkResult, PodsListed, RestartCause, Review, ReviewResult, Spent,
};
pub use process::ProcessMetrics;

use crate::crd::{NodeReplacement, SpotPool};
use crate::telemetry::connections::{Connections, Listener};
use crate::telemetry::readiness::Readiness;
use flow::FlowCounts;
use kube::ResourceExt;
use labels::{
    ActionLabels, ActionResult, AwsLabels, CheckLabels, ListLabels, MarkLabels, OperationLabels,
    RefusalLabels, ResourceLabels, ResultLabels, ReviewLabels, Word,
};
use process::CALL_BUCKETS;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use queue::QueueCounts;
use spot_guard_core::freshness::{Freshness, WatchedKind};
use spot_guard_core::ids::PoolName;
use spot_guard_core::notices::NoticeRefusal;
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::spot_action::ActionKind;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: ProcessMetrics,
    flow: FlowCounts,
    queue: QueueCounts,
    notices_refused: Family<RefusalLabels, Counter>,
    aws_calls: Family<AwsLabels, Counter>,
    aws_call_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    taint_changes: Family<MarkLabels, Counter>,
    pod_lists: Family<ListLabels, Counter>,
    checks_given_up: Family<CheckLabels, Counter>,
    stale_watches: Family<ResourceLabels, Gauge>,
    events: Family<ResultLabels, Counter>,
    spot_actions: Family<ActionLabels, Counter>,
    reviews: Family<ReviewLabels, Counter>,
    notifications: Family<ResultLabels, Counter>,
    connections: Connections,
    leader: Gauge,
    ready_agents: Mutex<BTreeMap<PoolName, usize>>,
    objects_not_understood: Family<ResourceLabels, Gauge>,
    watch_failures: Family<ResourceLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("spot_guard"),
            process: ProcessMetrics::new(&ActorName::OF_CONTROLLER, &KubeVerb::ALL),
            flow: FlowCounts::default(),
            queue: QueueCounts::default(),
            notices_refused: Family::default(),
            aws_calls: Family::default(),
            aws_call_seconds: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            taint_changes: Family::default(),
            pod_lists: Family::default(),
            checks_given_up: Family::default(),
            stale_watches: Family::default(),
            events: Family::default(),
            spot_actions: Family::default(),
            reviews: Family::default(),
            notifications: Family::default(),
            connections: Connections::default(),
            leader: Gauge::default(),
            ready_agents: Mutex::default(),
            objects_not_understood: Family::default(),
            watch_failures: Family::default(),
        };
        metrics.begin();
        metrics.registered()
    }

    /// Lets series begin at zero: a counter that appears with its first event hides that event from rate().
    fn begin(&self) {
        self.flow.begin("");
        self.queue.begin();
        for operation in AwsOperation::ALL {
            for result in AwsResult::ALL {
                drop(self.aws_calls.get_or_create(&AwsLabels { operation, result }));
            }
        }
        for result in EventResult::ALL {
            drop(self.notifications.get_or_create(&ResultLabels { result }));
        }
        for reason in NoticeRefusal::ALL {
            drop(self.notices_refused.get_or_create(&RefusalLabels { reason: Word(reason) }));
        }
        for result in [PodsListed::Empty, PodsListed::Held, PodsListed::Failed] {
            drop(self.pod_lists.get_or_create(&ListLabels { result }));
        }
        for check in BoundedCheck::ALL {
            for spent in Spent::ALL {
                drop(self.checks_given_up.get_or_create(&CheckLabels { check, spent }));
            }
        }
        self.stale_watches(&Freshness::default());
        for kind in WatchedKind::ALL {
            drop(self.watch_failures.get_or_create(&ResourceLabels { resource: kind.plural() }));
            self.not_understood(kind, 0);
        }
    }

    /// The encoder appends the unit and `_total` to these names, and a full stop to these texts.
    fn registered(mut self) -> Self {
        let mut registry = std::mem::take(&mut self.registry);
        self.register_process(&mut registry);
        self.register_flow(&mut registry);
        self.register_calls(&mut registry);
        self.register_watches(&mut registry);
        self.registry = registry;
        self
    }

    /// What the process itself is like.
    fn register_process(&self, registry: &mut Registry) {
        self.process.register(registry);
        registry.register("leader", "1 while this process holds the lease, else 0", self.leader.clone());
        self.connections.register(&[Listener::Api, Listener::Local, Listener::Probes], registry);
    }

    /// What became of notices, SpotActions and replacements.
    fn register_flow(&self, registry: &mut Registry) {
        self.flow.register(registry);
        self.queue.register(registry);
        registry.register(
            "notices_refused",
            "Notices that were refused and removed, by reason",
            self.notices_refused.clone(),
        );
        registry.register("spotactions", "SpotActions, by action and result", self.spot_actions.clone());
        registry.register(
            "checks_given_up",
            "Checks of safety and placement that were given up, by what they had too little of",
            self.checks_given_up.clone(),
        );
    }

    /// What others were asked, and what they answered.
    fn register_calls(&self, registry: &mut Registry) {
        registry.register("aws_calls", "Calls to the Auto Scaling API and to SQS", self.aws_calls.clone());
        registry.register_with_unit(
            "aws_call",
            "How long calls to the Auto Scaling API and to SQS took",
            Unit::Seconds,
            self.aws_call_seconds.clone(),
        );
        registry.register(
            "taint_changes",
            "Changes of taint, cordon and annotations of nodes",
            self.taint_changes.clone(),
        );
        registry.register(
            "pod_lists",
            "Lists of one node's pods, before it counts as empty",
            self.pod_lists.clone(),
        );
        registry.register("events", "Kubernetes events, by result", self.events.clone());
        registry.register(
            "http_reviews",
            "Reviews of callers of the HTTP API by the Kubernetes API, by the answer",
            self.reviews.clone(),
        );
        registry.register(
            "notifications",
            "Notifications to webhooks, by result",
            self.notifications.clone(),
        );
    }

    /// How good the picture of the cluster is.
    fn register_watches(&self, registry: &mut Registry) {
        registry.register(
            "stale_watches",
            "1 while the leader's watch of a kind is stale, else 0",
            self.stale_watches.clone(),
        );
        registry.register(
            "objects_not_understood",
            "Objects whose fields cannot be read; only what depends on them waits",
            self.objects_not_understood.clone(),
        );
        registry.register(
            "watch_failures",
            "Lists and watches of the Kubernetes API that broke, by kind",
            self.watch_failures.clone(),
        );
    }

    /// Counts what a stored change of a record means: its new steps, a replacement begun or over, a
    /// fallback, a return.
    ///
    /// To be called once per change that was stored; `before` is `None` for a fresh record.
    pub fn record_stored(
        &self,
        pool: Option<&PoolName>,
        before: Option<&ReplacementStatus>,
        after: &ReplacementStatus,
    ) {
        self.flow.stored(pool.map_or("", |pool| pool.as_str()), before, after);
    }

    /// Counts a notice that was refused and removed.
    pub fn notice_refused(&self, reason: NoticeRefusal) {
        self.notices_refused.get_or_create(&RefusalLabels { reason: Word(reason) }).inc();
    }

    /// What is counted of the notice queue.
    #[must_use]
    pub fn queue(&self) -> &QueueCounts {
        &self.queue
    }

    /// Counts a call to AWS that took `took`.
    pub fn aws_call(&self, operation: AwsOperation, result: AwsResult, took: Duration) {
        self.aws_calls.get_or_create(&AwsLabels { operation, result }).inc();
        self.aws_call_seconds.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// Counts a request to the Kubernetes API.
    pub fn kube_request(&self, verb: KubeVerb, result: KubeResult) {
        self.process.kube_request(verb, result);
    }

    /// Counts an eviction for a replacement of that pool.
    pub fn eviction(&self, pool: Option<&PoolName>, result: EvictionResult) {
        self.flow.eviction(pool.map_or("", |pool| pool.as_str()), result);
    }

    /// Notes how long the notice of a replacement waited until it began.
    pub fn notice_waited(&self, pool: Option<&PoolName>, waited: Duration) {
        self.flow.notice_waited(pool.map_or("", |pool| pool.as_str()), waited);
    }

    /// Counts a change of a node's marks.
    pub fn marks_changed(&self, result: MarkResult) {
        self.taint_changes.get_or_create(&MarkLabels { result }).inc();
    }

    /// Counts a list of one node's pods.
    pub fn pods_listed(&self, result: PodsListed) {
        self.pod_lists.get_or_create(&ListLabels { result }).inc();
    }

    /// Counts checks that were given up.
    pub fn checks_given_up(&self, check: BoundedCheck, spent: Spent, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.checks_given_up.get_or_create(&CheckLabels { check, spent }).inc_by(count);
    }

    /// Shows which watches' pictures are old.
    pub fn stale_watches(&self, freshness: &Freshness) {
        for kind in WatchedKind::ALL {
            let stale = i64::from(!freshness.is_current(kind));
            self.stale_watches.get_or_create(&ResourceLabels { resource: kind.plural() }).set(stale);
        }
    }

    /// Counts a Kubernetes event.
    pub fn event(&self, result: EventResult) {
        self.events.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a SpotAction that was accepted or refused.
    pub fn spot_action_answered(&self, action: ActionKind, accepted: bool) {
        let result = if accepted { ActionResult::Accepted } else { ActionResult::Refused };
        self.spot_actions.get_or_create(&ActionLabels { action: Word(action), result }).inc();
    }

    /// Counts a question about a caller of the HTTP API.
    pub fn review(&self, review: Review, result: ReviewResult) {
        self.reviews.get_or_create(&ReviewLabels { review, result }).inc();
    }

    /// Counts a notification.
    pub fn notification(&self, result: EventResult) {
        self.notifications.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a message to an actor that found no place.
    pub fn message_dropped(&self, actor: ActorName) {
        self.process.message_dropped(actor);
    }

    /// Notes how long a message waited in the mailbox of an actor.
    pub fn mailbox_waited(&self, actor: ActorName, waited: Duration) {
        self.process.mailbox_waited(actor, waited);
    }

    /// Counts a restart of an actor.
    pub fn actor_restarted(&self, actor: ActorName, cause: RestartCause) {
        self.process.actor_restarted(actor, cause);
    }

    /// The counter of connections that were ended, for a listener.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Says how many Spot nodes of a pool have a ready agent.
    pub fn ready_agents(&self, pool: &PoolName, count: usize) {
        let mut agents = self.ready_agents.lock().unwrap_or_else(PoisonError::into_inner);
        agents.insert(pool.to_owned(), count);
    }

    /// Says how many objects of a kind cannot be read.
    pub fn not_understood(&self, kind: WatchedKind, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.objects_not_understood.get_or_create(&ResourceLabels { resource: kind.plural() }).set(count);
    }

    /// Counts a list or a watch that broke.
    pub fn watch_failed(&self, kind: WatchedKind) {
        self.watch_failures.get_or_create(&ResourceLabels { resource: kind.plural() }).inc();
    }

    /// Everything as OpenMetrics text. The leader adds the gauges that follow from the stored objects, so
    /// that they need not be told from those of another replica.
    ///
    /// # Errors
    /// Never for a `String`; the encoder's signature allows it.
    pub fn encode(
        &self,
        is_leader: bool,
        readiness: &Readiness,
        replacements: &[impl Borrow<NodeReplacement>],
        pools: &[impl Borrow<SpotPool>],
    ) -> Result<String, std::fmt::Error> {
        self.leader.set(i64::from(is_leader));
        let names: BTreeSet<String> = pools.iter().map(|pool| pool.borrow().name_any()).collect();
        self.flow.follow(&names);
        let mut text = String::with_capacity(8 * 1024);
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &gauges::of_parts(readiness))?;
        if is_leader {
            encode_registry(&mut text, &gauges::of_stored(replacements, pools))?;
            let mut agents = self.ready_agents.lock().unwrap_or_else(PoisonError::into_inner);
            agents.retain(|pool, _| names.contains(pool.as_str()));
            encode_registry(&mut text, &gauges::of_agents(&agents, pools))?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}
