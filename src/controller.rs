//! The controller: the actors that act, under one lease, and what every replica serves.

use crate::actors::asg_scaler::AsgScaler;
use crate::actors::deps::Deps;
use crate::actors::drainer::Drainer;
use crate::actors::fallback_tracker::FallbackTracker;
use crate::actors::health_monitor::HealthMonitor;
use crate::actors::heavy::Heavy;
use crate::actors::janitor::Janitor;
use crate::actors::last_readings::LastReadings;
use crate::actors::queue_poller::QueuePoller;
use crate::actors::supervision::{Link, LinkEvent, Shutdown, supervise};
use crate::aws::AutoScaling;
use crate::aws::queue::SqsQueue;
use crate::clock::Clock;
use crate::kube::autoscaler::AutoscalerLease;
use crate::kube::client::{REQUEST_TIMEOUT, bounded};
use crate::kube::lease::{LeaseHolder, LeaseTimes};
use crate::kube::time::heeding_time;
use crate::kube::view::View;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::{ActorName, Metrics};
use crate::telemetry::notifications::{Notifications, Target};
use crate::telemetry::readiness::Readiness;
use actix::{Actor, Context};
use aws_config::SdkConfig;
use kube::Client;
use spot_guard_core::policy::Policy;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// What a controller is made of.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// This process among the replicas.
    pub identity: String,
    /// Times of the lease.
    pub times: LeaseTimes,
    /// The Lease of cluster-autoscaler.
    pub autoscaler_lease: AutoscalerLease,
    /// The key of our taint.
    pub taint_key: String,
    /// The webhooks that receive notices, fallbacks, returns and failures.
    pub notifications: Vec<Target>,
    /// The URL of the notice queue, if there is one.
    pub queue_url: Option<String>,
    /// The settings that pools start from.
    pub defaults: Policy,
    /// Whether nodes outside every pool are drained when EC2 takes them.
    pub drain_outside_pools: bool,
}

/// The parts that every replica has, leading or not.
pub struct Controller {
    settings: ControllerSettings,
    client: Client,
    clock: Clock,
    aws: AutoScaling,
    queue: Option<SqsQueue>,
    /// The cluster, kept by watches.
    pub view: View,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What works and what does not.
    pub readiness: Readiness,
    /// When the groups of each pool were last read, while this replica leads.
    pub last_readings: LastReadings,
    leading: watch::Sender<bool>,
    holder: watch::Sender<Option<String>>,
    actors: watch::Sender<Option<Actors>>,
    heavy: Heavy,
}

/// Links to the actors of a term.
#[derive(Clone)]
pub struct Actors {
    /// Boxes 2, 3 and 3.2.
    pub scaler: Link<AsgScaler>,
    /// Boxes 6 and 11.
    pub tracker: Link<FallbackTracker>,
    /// Boxes 6 to 9.
    pub monitor: Link<HealthMonitor>,
    /// Boxes 4, 5 and 10.
    pub drainer: Link<Drainer>,
    /// Box 11.
    pub janitor: Link<Janitor>,
    /// Boxes 1 and 12, if there is a notice queue.
    pub poller: Link<QueuePoller>,
}

impl Controller {
    /// Starts the watches; acts on nothing yet.
    #[must_use]
    pub fn new(settings: ControllerSettings, client: Client, sdk: &SdkConfig, clock: Clock) -> Self {
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::default();
        let (own, (clock, behind)) = (clock, clock.to_be_set_right());
        // Nobody may wait for ever, not for a list with which a watch begins either.
        let client = bounded(&heeding_time(&client, own, behind), REQUEST_TIMEOUT, metrics.clone());
        let view = View::start(&client, &settings.namespace, &readiness, &metrics, clock);
        let aws = AutoScaling::new(sdk, settings.times.call_timeout, clock, metrics.clone());
        let timeout = settings.times.call_timeout;
        let queue_of = |url: &String| SqsQueue::new(sdk, url, timeout, metrics.clone());
        let queue = settings.queue_url.as_ref().map(queue_of);
        Self {
            settings,
            client,
            clock,
            aws,
            queue,
            view,
            metrics,
            readiness,
            last_readings: LastReadings::default(),
            leading: watch::Sender::new(false),
            holder: watch::Sender::new(None),
            actors: watch::Sender::new(None),
            heavy: Heavy::threads(),
        }
    }

    /// Makes its checks on the thread of its actors, for a simulation that is to be the same from run to run.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_checks_inline(self) -> Self {
        Self { heavy: Heavy::Inline, ..self }
    }

    /// Whether this replica leads.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Who holds the lease, as this replica saw it last.
    #[must_use]
    pub fn holder(&self) -> watch::Receiver<Option<String>> {
        self.holder.subscribe()
    }

    /// The actors, while this replica leads.
    #[must_use]
    pub fn actors(&self) -> watch::Receiver<Option<Actors>> {
        self.actors.subscribe()
    }

    /// Leads whenever it can, until `end` is triggered; gives the lease back then.
    pub async fn run(self, end: Shutdown) {
        let mut lease = LeaseHolder::new(
            self.client.clone(),
            &self.settings.namespace,
            &self.settings.lease,
            &self.settings.identity,
            self.settings.times.clone(),
            self.clock,
        )
        .telling(self.holder.clone());
        let deps = Deps {
            client: self.client.clone(),
            view: self.view.clone(),
            aws: self.aws.clone(),
            queue: self.queue.clone(),
            clock: self.clock,
            fence: lease.fence(),
            call_timeout: self.settings.times.call_timeout,
            defaults: self.settings.defaults.clone(),
            drain_outside_pools: self.settings.drain_outside_pools,
            autoscaler_lease: self.settings.autoscaler_lease.clone().into(),
            taint_key: self.settings.taint_key.as_str().into(),
            namespace: self.settings.namespace.as_str().into(),
            metrics: self.metrics.clone(),
            readiness: self.readiness.clone(),
            events: Events::start(self.client.clone(), &self.settings.identity, self.metrics.clone()),
            notifications: Notifications::start(&self.settings.notifications, &self.metrics),
            heavy: self.heavy.clone(),
            last_readings: self.last_readings.clone(),
        };
        let mut term = None;
        loop {
            tokio::select! {
                biased;
                () = end.triggered() => break,
                () = self.lead(&mut lease, &deps, &mut term) => {}
            }
            self.end_term(&mut term);
        }
        // What is on its way to AWS arrives before the next leader acts: its answer is waited for.
        lease.close();
        let _ = timeout(self.settings.times.call_timeout, deps.aws.quiet()).await;
        self.end_term(&mut term);
        lease.release().await;
    }

    /// One term: from taking the lease to losing it.
    async fn lead(&self, lease: &mut LeaseHolder, deps: &Deps, term: &mut Option<Term>) {
        tokio::join!(lease.acquire(), deps.view.synced());
        let begun = term.insert(Term(Shutdown::new()));
        self.actors.send_replace(Some(start_actors(deps, &begun.0)));
        self.leading.send_replace(true);
        tracing::info!("leading");
        lease.hold().await;
    }

    /// Ends the actors of a term where they stand.
    fn end_term(&self, term: &mut Option<Term>) {
        *term = None;
        self.leading.send_replace(false);
        self.last_readings.forget();
        self.actors.send_replace(None);
    }
}

/// The actors of a term end with it.
struct Term(Shutdown);

impl Drop for Term {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

fn start_actors(deps: &Deps, term: &Shutdown) -> Actors {
    let scaler: Link<AsgScaler> = link(deps, "AsgScaler", ActorName::AsgScaler);
    let tracker: Link<FallbackTracker> = link(deps, "FallbackTracker", ActorName::FallbackTracker);
    let monitor: Link<HealthMonitor> = link(deps, "HealthMonitor", ActorName::HealthMonitor);
    let drainer: Link<Drainer> = link(deps, "Drainer", ActorName::Drainer);
    let janitor: Link<Janitor> = link(deps, "Janitor", ActorName::Janitor);
    let poller: Link<QueuePoller> = link(deps, "QueuePoller", ActorName::QueuePoller);
    let readiness = || deps.readiness.clone();
    supervise(&scaler, readiness(), term, {
        let (deps, observed) = (deps.clone(), vec![tracker.carrying(), monitor.carrying()]);
        let refused = vec![tracker.carrying(), monitor.carrying()];
        move |_| AsgScaler::new(deps.clone(), observed.clone(), refused.clone())
    });
    supervise(&tracker, readiness(), term, {
        let (deps, scale, drain) = (deps.clone(), scaler.carrying(), drainer.carrying());
        move |lifeline| {
            FallbackTracker::new(deps.clone(), lifeline.incarnation(), scale.clone(), drain.clone())
        }
    });
    supervise(&monitor, readiness(), term, {
        let (deps, assessed) = (deps.clone(), tracker.carrying());
        move |_| HealthMonitor::new(deps.clone(), assessed.clone())
    });
    supervise(&drainer, readiness(), term, {
        let (deps, reported) = (deps.clone(), tracker.carrying());
        move |_| Drainer::new(deps.clone(), reported.clone())
    });
    supervise(&janitor, readiness(), term, {
        let deps = deps.clone();
        move |_| Janitor::new(deps.clone())
    });
    if let Some(queue) = deps.queue.clone() {
        let (deps, ended, read) = (deps.clone(), scaler.carrying(), monitor.carrying());
        supervise(&poller, readiness(), term, move |_| {
            QueuePoller::new(deps.clone(), queue.clone(), ended.clone(), read.clone())
        });
    }
    Actors { scaler, tracker, monitor, drainer, janitor, poller }
}

/// A link whose restarts and dropped messages are counted.
fn link<A: Actor<Context = Context<A>>>(deps: &Deps, name: &'static str, label: ActorName) -> Link<A> {
    let metrics = deps.metrics.clone();
    Link::reporting(name, move |event| match event {
        LinkEvent::Restarted(cause) => metrics.actor_restarted(label, cause),
        LinkEvent::Dropped => metrics.message_dropped(label),
        LinkEvent::Answered(after) => metrics.mailbox_waited(label, after),
    })
}

/// How long a call that changes something may take, unless configured otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
