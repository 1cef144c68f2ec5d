//! Kills a controller at one of its writes: every write to the Kubernetes API and every change of a group is
//! a numbered crash point, before and after it takes effect.

use crate::actors::supervision::Shutdown;
use crate::sim::audit::is_write;
use crate::sim::world::Gates;
use spot_guard_cloud::cloud::{self, GateCall};
use spot_guard_cloud::cluster::{self, RequestInfo};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the controller dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashSide {
    /// The write never arrives.
    Before,
    /// The write takes effect, and its answer is never seen.
    After,
}

/// The moment of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// Which write, counted from 0.
    pub number: usize,
    /// Before or after it.
    pub moment: CrashSide,
}

/// Counts the writes of one controller, and kills it at one of them. Clones are the same.
#[derive(Clone)]
pub struct Crasher {
    point: Option<CrashPoint>,
    end: Shutdown,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    writes: Vec<String>,
    requests: BTreeSet<RequestKind>,
    dead: bool,
}

/// What a role has to allow for a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestKind {
    /// The API group, empty for core.
    pub group: String,
    /// The plural name, with the subresource if there is one.
    pub resource: String,
    /// get, list, watch, create, update, patch or delete.
    pub verb: String,
}

impl RequestKind {
    fn of(request: &RequestInfo) -> Self {
        let RequestInfo { verb, group, resource, subresource, .. } = request;
        let resource = match subresource.as_str() {
            "" => resource.clone(),
            subresource => format!("{resource}/{subresource}"),
        };
        Self { group: group.clone(), resource, verb: verb.clone() }
    }
}

impl Crasher {
    /// Kills the controller that `end` ends at `point`; without a point it counts only.
    #[must_use]
    pub fn new(point: Option<CrashPoint>, end: Shutdown) -> Self {
        Self { point, end, state: Arc::default() }
    }

    /// The gates that the controller has to pass.
    #[must_use]
    pub fn gates(&self) -> Gates {
        Gates { kube: Some(Arc::new(self.clone())), aws: Some(Arc::new(self.clone())), clock: None }
    }

    /// The writes so far, in plain words.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.state().writes.clone()
    }

    /// What kinds of requests of the Kubernetes API there were.
    #[must_use]
    pub fn requests(&self) -> BTreeSet<RequestKind> {
        self.state().requests.clone()
    }

    /// Whether the point was reached.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the request must not arrive; `write` names it if it is a crash point.
    fn stops_before(&self, write: Option<String>) -> bool {
        let mut state = self.state();
        if state.dead {
            return true;
        }
        let Some(write) = write else { return false };
        let number = state.writes.len();
        state.writes.push(write);
        self.dies(&mut state, number, CrashSide::Before)
    }

    /// Whether the answer to `write` must not be seen. Writes may be under way side by side.
    fn stops_after(&self, write: Option<String>) -> bool {
        let mut state = self.state();
        if state.dead {
            return true;
        }
        let number = write.and_then(|write| state.writes.iter().rposition(|made| *made == write));
        number.is_some_and(|number| self.dies(&mut state, number, CrashSide::After))
    }

    fn dies(&self, state: &mut State, number: usize, moment: CrashSide) -> bool {
        state.dead = self.point == Some(CrashPoint { number, moment });
        if state.dead {
            self.end.trigger();
        }
        state.dead
    }
}

/// Leases are renewed for ever; a crash there is a crash at any other moment.
fn is_point(request: &RequestInfo) -> bool {
    is_write(request) && request.resource != "leases" && request.resource != "events"
}

/// The request in plain words, if it is a crash point.
fn write_of(request: &RequestInfo) -> Option<String> {
    is_point(request).then(|| {
        let name = request.name.as_deref().unwrap_or_default();
        format!("{} {}/{} {name}", request.verb, request.resource, request.subresource)
    })
}

impl cluster::RequestGate for Crasher {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        self.state().requests.insert(RequestKind::of(request));
        if self.stops_before(write_of(request)) {
            return cluster::RequestFate::Drop;
        }
        cluster::RequestFate::Pass
    }

    fn after(&self, request: &RequestInfo, _status: u16) -> cluster::RequestFate {
        if self.stops_after(write_of(request)) {
            return cluster::RequestFate::Drop;
        }
        cluster::RequestFate::Pass
    }
}

impl cloud::CallGate for Crasher {
    fn before_call(&self, call: &GateCall) -> cloud::CallFate {
        let write = call.changes().then(|| call.operation.clone());
        if self.stops_before(write) {
            return cloud::CallFate::Drop;
        }
        cloud::CallFate::Pass
    }

    fn after_call(&self, call: &GateCall) -> cloud::CallFate {
        if self.stops_after(call.changes().then(|| call.operation.clone())) {
            return cloud::CallFate::Drop;
        }
        cloud::CallFate::Pass
    }
}
