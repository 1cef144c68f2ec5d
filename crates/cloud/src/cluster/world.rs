//! Everything behind the lock: the store, what the controllers know of it, and the work that changes make.

use super::json::{ObjectKey, number, text};
use super::refusal::Refusal;
use super::request::{Identity, RequestInfo};
use super::store::{ChangeKind, Store};
use super::view::View;
use crate::clock::CloudClock;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast};

/// How long the parts of the cluster take. Pods override the first two by the annotations
/// `sim/start-seconds` and `sim/stop-seconds`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From being bound to a node until Ready.
    pub pod_start: Duration,
    /// From the deletion until it is gone, at most its grace period.
    pub pod_stop: Duration,
    /// From the node object's end until its pods are collected; the real collector takes 40 to 60 s.
    pub pod_collection: Duration,
    /// From a change until the built-in controllers act on it: for so long, budgets and endpoints are stale.
    pub control_lag: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            pod_start: Duration::from_secs(2),
            pod_stop: Duration::from_secs(1),
            pod_collection: Duration::from_secs(40),
            control_lag: Duration::from_millis(20),
        }
    }
}

/// One change, as told to stories and invariant checks.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it happened.
    pub at: Timestamp,
    /// `pods`, `deployments.apps`, ...
    pub resource: String,
    /// Added, modified or deleted.
    pub kind: ChangeKind,
    /// The object afterwards, or its last state.
    pub object: Arc<Value>,
    /// The object before, unless it is new.
    pub before: Option<Arc<Value>>,
}

/// A client took a healthy pod from a budget that had none to spare.
#[derive(Clone, Debug)]
pub struct PdbViolation {
    /// When it happened.
    pub at: Timestamp,
    /// The budget.
    pub budget: ObjectKey,
    /// The pod that was taken.
    pub pod: ObjectKey,
    /// The user who did it.
    pub user: String,
    /// `eviction`, `delete` or `status`.
    pub by: &'static str,
    /// Healthy pods left.
    pub healthy: i64,
    /// What the budget demands.
    pub desired: i64,
}

/// Checks an object before it is stored, in the place of admission policies.
pub type Validator = fn(&RequestInfo, &Value, &Identity) -> Result<(), Refusal>;

/// Whether somebody may do something.
pub type Policy = Arc<dyn Fn(&Identity, &RequestInfo) -> bool + Send + Sync>;

/// Something that is due later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    StartPod { key: ObjectKey, uid: String },
    StopPod { key: ObjectKey, uid: String },
    CollectPod { key: ObjectKey, uid: String },
    TaintDeletesPod { key: ObjectKey, uid: String },
    RecheckBudget { key: ObjectKey },
}

/// What changed since the controllers last ran.
#[derive(Default)]
pub(super) struct Work {
    pub(super) deployments: BTreeSet<ObjectKey>,
    pub(super) replica_sets: BTreeSet<ObjectKey>,
    pub(super) daemon_sets: BTreeSet<ObjectKey>,
    pub(super) budgets: BTreeSet<ObjectKey>,
    /// Pods that their kubelet should look at.
    pub(super) pods: BTreeSet<ObjectKey>,
    pub(super) nodes: BTreeSet<String>,
    /// The uids of owners that are gone.
    pub(super) lost_owners: BTreeSet<String>,
    pub(super) lost_namespaces: BTreeSet<String>,
    /// Mirror pods that were deleted: their kubelet makes them again.
    pub(super) mirrors: Vec<Arc<Value>>,
    pub(super) schedule: bool,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        !self.schedule
            && self.deployments.is_empty()
            && self.replica_sets.is_empty()
            && self.daemon_sets.is_empty()
            && self.budgets.is_empty()
            && self.pods.is_empty()
            && self.nodes.is_empty()
            && self.lost_owners.is_empty()
            && self.lost_namespaces.is_empty()
            && self.mirrors.is_empty()
    }
}

/// The whole cluster.
pub(super) struct World {
    pub(super) store: Store,
    pub(super) view: View,
    pub(super) work: Work,
    pub(super) timing: Timing,
    pub(super) clock: CloudClock,
    pub(super) random: fastrand::Rng,
    pub(super) validators: Vec<Validator>,
    pub(super) policy: Policy,
    /// Bearer tokens, and until when they are valid.
    pub(super) tokens: BTreeMap<String, (Identity, Timestamp)>,
    pub(super) violations: Vec<PdbViolation>,
    pub(super) changes: broadcast::Sender<Change>,
    /// Who depends on the owner with this uid.
    pub(super) dependents: BTreeMap<String, BTreeSet<(String, ObjectKey)>>,
    jobs: BTreeMap<Job, Timestamp>,
    agenda: BTreeSet<(Timestamp, Job)>,
    pub(super) wake: Arc<Notify>,
}

impl World {
    /// Who shows this token; else why it is not valid, in the words of the API server.
    pub(super) fn identity_of(&self, token: &str) -> Result<&Identity, &'static str> {
        match self.tokens.get(token) {
            None => Err("invalid bearer token"),
            Some((_, until)) if *until <= self.clock.now() => {
                Err("[invalid bearer token, service account token has expired]")
            }
            Some((identity, _)) => Ok(identity),
        }
    }

    pub(super) fn new(clock: CloudClock, seed: u64, wake: Arc<Notify>) -> Self {
        let mut world = Self {
            store: Store::new(),
            view: View::default(),
            work: Work::default(),
            timing: Timing::default(),
            clock,
            random: fastrand::Rng::with_seed(seed),
            validators: Vec::new(),
            policy: Arc::new(|_, _| true),
            tokens: BTreeMap::new(),
            violations: Vec::new(),
            changes: broadcast::Sender::new(4096),
            dependents: BTreeMap::new(),
            jobs: BTreeMap::new(),
            agenda: BTreeSet::new(),
            wake,
        };
        for namespace in ["default", "kube-system", "kube-node-lease", "kube-public"] {
            world.ensure_namespace(namespace);
        }
        world
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn new_uid(&mut self) -> String {
        let bits = self.random.u128(..);
        let hex = format!("{bits:032x}");
        format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }

    /// Five characters, as the name generator of the real API makes them.
    pub(super) fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        (0..5).map(|_| char::from(ALPHABET[self.random.usize(..ALPHABET.len())])).collect()
    }

    pub(super) fn ensure_namespace(&mut self, name: &str) {
        if self.store.get("namespaces", &ObjectKey::new("", name)).is_none() {
            let uid = self.new_uid();
            let created = super::json::seconds(self.now());
            self.put(
                "namespaces",
                json!({
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": { "name": name, "uid": uid, "creationTimestamp": created,
                        "labels": { "kubernetes.io/metadata.name": name } },
                    "spec": { "finalizers": ["kubernetes"] },
                    "status": { "phase": "Active" },
                }),
            );
        }
    }

    /// Stores an object and tells everyone; the caller has done all checks.
    pub(super) fn put(&mut self, resource: &str, object: Value) -> Arc<Value> {
        let key = ObjectKey::of(&object);
        if let Some(event) = self.store.put(resource, object) {
            self.note(resource, &key, &event);
            return event.object;
        }
        self.store.get(resource, &key).cloned().unwrap_or_default()
    }

    pub(super) fn remove(&mut self, resource: &str, key: &ObjectKey) -> Option<Arc<Value>> {
        let event = self.store.remove(resource, key)?;
        self.note(resource, key, &event);
        Some(event.object)
    }

    /// A controller's write: takes what is stored, changes it and stores it.
    pub(super) fn edit(&mut self, resource: &str, key: &ObjectKey, change: impl FnOnce(&mut Value)) {
        let Some(old) = self.store.get(resource, key).cloned() else { return };
        let mut object = Value::clone(&old);
        change(&mut object);
        if let Some(generation) = number(&old, "/metadata/generation")
            && old["spec"] != object["spec"]
        {
            object["metadata"]["generation"] = json!(generation + 1);
        }
        self.put(resource, object);
    }

    /// Does `job` at `at`, or earlier if it is already due earlier.
    pub(super) fn arm(&mut self, job: Job, at: Timestamp) {
        if let Some(due) = self.jobs.get(&job).copied() {
            if due <= at {
                return;
            }
            self.agenda.remove(&(due, job.clone()));
        }
        self.jobs.insert(job.clone(), at);
        self.agenda.insert((at, job));
        self.wake.notify_one();
    }

    pub(super) fn arm_in(&mut self, job: Job, delay: Duration) {
        let at = self.now().checked_add(delay).unwrap_or(Timestamp::MAX);
        self.arm(job, at);
    }

    pub(super) fn disarm(&mut self, job: &Job) {
        if let Some(due) = self.jobs.remove(job) {
            self.agenda.remove(&(due, job.clone()));
        }
    }

    /// The next job that is due, if any.
    pub(super) fn due(&mut self) -> Option<Job> {
        let now = self.now();
        let (at, job) = self.agenda.first()?.clone();
        if at > now {
            return None;
        }
        self.disarm(&job);
        Some(job)
    }

    /// How long until the next job.
    pub(super) fn until_next_job(&self) -> Option<Duration> {
        let (at, _) = self.agenda.first()?;
        let wait = Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO);
        // Timers have a resolution of a millisecond.
        Some(wait.max(Duration::from_millis(1)))
    }
}

/// The key of the controller of that kind, in the namespace of the object.
pub(super) fn owner_key(object: &Value, kind: &str) -> Option<ObjectKey> {
    let owner = super::json::controller_of(object)?;
    (owner["kind"].as_str() == Some(kind)).then(|| {
        ObjectKey::new(
            text(object, "/metadata/namespace").unwrap_or_default(),
            owner["name"].as_str().unwrap_or_default(),
        )
    })
}
