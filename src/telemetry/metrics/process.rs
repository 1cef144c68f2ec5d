//! What each process counts of itself, whether it is a controller or an agent.

use super::labels::{ActorLabels, ActorName, KubeLabels, KubeResult, KubeVerb, RestartCause, RestartLabels};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// Seconds; from a fast answer to a call that ran into its time limit.
pub(super) const CALL_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// What a process counts of its actors and of its requests to the Kubernetes API; clones count together.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    actor_restarts: Family<RestartLabels, Counter>,
    messages_dropped: Family<ActorLabels, Counter>,
    mailbox_wait: Family<ActorLabels, Histogram, fn() -> Histogram>,
    kube_requests: Family<KubeLabels, Counter>,
}

impl ProcessMetrics {
    /// Those of a process with these actors, which makes these requests, at zero: a counter that appears with
    /// its first event hides that event from rate().
    #[must_use]
    pub fn new(actors: &[ActorName], verbs: &[KubeVerb]) -> Self {
        let metrics = Self {
            actor_restarts: Family::default(),
            messages_dropped: Family::default(),
            mailbox_wait: Family::new_with_constructor(|| Histogram::new(CALL_BUCKETS)),
            kube_requests: Family::default(),
        };
        for actor in actors.iter().copied() {
            for cause in RestartCause::ALL {
                drop(metrics.actor_restarts.get_or_create(&RestartLabels { actor, cause }));
            }
            drop(metrics.messages_dropped.get_or_create(&ActorLabels { actor }));
        }
        for verb in verbs.iter().copied() {
            for result in KubeResult::ALL {
                drop(metrics.kube_requests.get_or_create(&KubeLabels { verb, result }));
            }
        }
        metrics
    }

    /// Those of an agent. The only request that it makes stores a notice.
    #[must_use]
    pub fn of_agent() -> Self {
        Self::new(&[ActorName::ImdsPoller], &[KubeVerb::Create])
    }

    /// Adds them to what is served at `/metrics`, with the running version.
    pub fn register(&self, registry: &mut Registry) {
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", version);
        registry.register(
            "actor_restarts",
            "Actors restarted by their supervisor, by cause",
            self.actor_restarts.clone(),
        );
        registry.register(
            "actor_messages_dropped",
            "Messages that found the mailbox of an actor full or gone",
            self.messages_dropped.clone(),
        );
        registry.register_with_unit(
            "actor_mailbox_wait",
            "How long the supervisor's pings waited in the mailbox of an actor",
            Unit::Seconds,
            self.mailbox_wait.clone(),
        );
        registry.register(
            "kube_requests",
            "Requests to the Kubernetes API, by verb and result",
            self.kube_requests.clone(),
        );
    }

    /// Counts a restart of an actor.
    pub fn actor_restarted(&self, actor: ActorName, cause: RestartCause) {
        self.actor_restarts.get_or_create(&RestartLabels { actor, cause }).inc();
    }

    /// Counts a message to an actor that found no place.
    pub fn message_dropped(&self, actor: ActorName) {
        self.messages_dropped.get_or_create(&ActorLabels { actor }).inc();
    }

    /// Notes how long a message waited in the mailbox of an actor.
    pub fn mailbox_waited(&self, actor: ActorName, waited: Duration) {
        self.mailbox_wait.get_or_create(&ActorLabels { actor }).observe(waited.as_secs_f64());
    }

    /// Counts a request to the Kubernetes API.
    pub fn kube_request(&self, verb: KubeVerb, result: KubeResult) {
        self.kube_requests.get_or_create(&KubeLabels { verb, result }).inc();
    }
}
