//! Leadership by a Lease: one controller acts, and stops before another can start.
//!
//! A compare-and-swap does not fence AWS. So before each call that changes something the leader checks, on
//! the monotonic clock, that its lease outlives the call ([`Fence::may_act`]), and a new leader waits out the
//! call timeout of the old one before it acts.

use crate::clock::{Clock, jittered};
use crate::kube::problem::RequestProblem;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// Whether this process leads, and until when.
#[derive(Clone, Debug)]
pub struct Fence(watch::Receiver<Option<Instant>>);

impl Fence {
    /// Whether the lease is held for longer than a call that may take `call`.
    #[must_use]
    pub fn may_act(&self, call: Duration) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() + call < until)
    }

    /// A fence that is always open: for tests of single actors.
    #[must_use]
    pub fn open() -> Self {
        let (sender, receiver) = watch::channel(Some(Instant::now() + Duration::from_secs(86_400 * 365)));
        drop(sender);
        Self(receiver)
    }
}

/// How often a process that waits looks at the lease: one that is given back is taken soon.
const LOOK: Duration = Duration::from_millis(500);

/// Times of the lease.
#[derive(Clone, Debug)]
pub struct LeaseTimes {
    /// After this time without renewal another process may take over.
    pub duration: Duration,
    /// How often it is renewed.
    pub renew: Duration,
    /// How long a call that changes something may take.
    pub call_timeout: Duration,
}

/// Takes the lease, keeps it, gives it back.
pub struct LeaseHolder {
    api: Api<Lease>,
    name: String,
    identity: String,
    times: LeaseTimes,
    clock: Clock,
    until: watch::Sender<Option<Instant>>,
    /// Whether it is ours still, though nothing may begin any more.
    held: bool,
    /// What another holder's lease looked like, and since when it has not changed: clocks of two machines
    /// are not compared.
    seen: Option<(Option<LeaseSpec>, Instant)>,
    version: Option<String>,
    /// Who holds it, as it was seen last.
    holder: watch::Sender<Option<String>>,
}

impl LeaseHolder {
    /// A holder of nothing yet.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: &str,
        times: LeaseTimes,
        clock: Clock,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            times,
            clock,
            until: watch::Sender::new(None),
            held: false,
            seen: None,
            version: None,
            holder: watch::Sender::new(None),
        }
    }

    /// The same, which also says who holds the lease, as far as it sees.
    #[must_use]
    pub fn telling(self, holder: watch::Sender<Option<String>>) -> Self {
        Self { holder, ..self }
    }

    /// The fence that follows this lease.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence(self.until.subscribe())
    }

    /// Waits until the lease is ours, and until a former holder's last call has ended.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(Some(wait)) => {
                    sleep(wait).await;
                    // The wait may have cost the lease: it counts from the renewal that follows it.
                    if wait.is_zero() || self.renew().await {
                        return;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = %RequestProblem(&error),
                        "the lease could not be read or written; it is tried again"
                    );
                    sleep(jittered(self.times.renew)).await;
                }
            }
            sleep(jittered(LOOK.min(self.times.renew))).await;
        }
    }

    /// Keeps the lease until it is lost.
    pub async fn hold(&mut self) {
        loop {
            sleep(jittered(self.times.renew)).await;
            let until = *self.until.borrow();
            if !self.renew().await && until.is_none_or(|until| Instant::now() + self.times.renew >= until) {
                tracing::error!("the lease is lost");
                self.until.send_replace(None);
                return;
            }
        }
    }

    /// Lets nothing more begin that the lease has to outlive; the lease itself is kept, to be given back.
    pub fn close(&mut self) {
        self.held |= self.until.send_replace(None).is_some();
    }

    /// Gives the lease back, so that another process need not wait for its end.
    pub async fn release(&mut self) {
        self.close();
        if std::mem::take(&mut self.held) {
            let spec = LeaseSpec { holder_identity: Some(String::new()), ..self.spec() };
            if let Err(error) = self.replace(spec).await {
                tracing::warn!(
                    error = %RequestProblem(&error),
                    "the lease could not be given back; it runs out by itself"
                );
            } else {
                self.tell_holder("");
            }
        }
    }

    /// Says who holds the lease; nobody has no name.
    fn tell_holder(&self, name: &str) {
        self.holder.send_replace((!name.is_empty()).then(|| name.to_owned()));
    }

    /// One try: `Some(wait)` if the lease is ours, to be used after `wait`.
    async fn attempt(&mut self) -> Result<Option<Duration>, kube::Error> {
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            let started = Instant::now();
            let lease = self.lease(self.spec());
            let created = self.api.create(&PostParams::default(), &lease).await?;
            self.version = created.metadata.resource_version;
            self.tell_holder(&self.identity);
            self.until.send_replace(Some(started + self.times.duration));
            return Ok(Some(Duration::ZERO));
        };
        self.version.clone_from(&lease.metadata.resource_version);
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        self.tell_holder(&holder);
        if holder.is_empty() {
            return Ok(self.renew().await.then_some(Duration::ZERO));
        }
        // Our own name on it is a former life of ours, which may have a call under way as well.
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != lease.spec) {
            self.seen = Some((lease.spec.clone(), Instant::now()));
        }
        let still = self.seen.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        if still < self.times.duration {
            return Ok(None);
        }
        tracing::info!(%holder, "the lease of another process ran out; taking over");
        Ok(self.renew().await.then_some(self.times.call_timeout))
    }

    async fn renew(&mut self) -> bool {
        let started = Instant::now();
        match timeout(self.times.renew, self.replace(self.spec())).await {
            Ok(Ok(())) => {
                self.tell_holder(&self.identity);
                self.until.send_replace(Some(started + self.times.duration));
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %RequestProblem(&error), "the lease could not be renewed");
                false
            }
            Err(_) => false,
        }
    }

    async fn replace(&mut self, spec: LeaseSpec) -> Result<(), kube::Error> {
        let lease = self.lease(spec);
        let stored = self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        self.version = stored.metadata.resource_version;
        Ok(())
    }

    fn lease(&self, spec: LeaseSpec) -> Lease {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            resource_version: self.version.clone(),
            ..ObjectMeta::default()
        };
        Lease { metadata, spec: Some(spec) }
    }

    fn spec(&self) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.times.duration.as_secs()).ok(),
            renew_time: Some(MicroTime(self.clock.now())),
            ..LeaseSpec::default()
        }
    }
}
