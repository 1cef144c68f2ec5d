//! What stands between the controllers of a random story and their world.

use super::plot::{KubeCall, Mishap};
use spot_guard_cloud::cloud::{self, GateCall};
use spot_guard_cloud::cluster::{self, RequestInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A call whose end was not seen for so long was given up by its caller.
const LOST_AFTER: Duration = Duration::from_secs(40);

/// The mishaps that all controllers share. Clones are the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    aws: Vec<(&'static str, Mishap, usize)>,
    kube: Vec<(KubeCall, Mishap, usize)>,
    aws_out: Option<Instant>,
    kube_out: Option<Instant>,
    /// The kinds that nobody can watch or list, and until when.
    blind: Vec<(&'static str, Blindness, Instant)>,
    /// When each call that is under way began, and when the last one ended.
    under_way: Vec<Instant>,
    last: Option<Instant>,
}

/// How watches and lists of one kind fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blindness {
    /// With an error.
    Refused,
    /// Without a word: what is open says nothing any more, and nothing that is asked is answered.
    Silent,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn aws(&self, operation: &'static str, mishap: Mishap, times: usize) {
        self.state().aws.push((operation, mishap, times));
    }

    pub fn kube(&self, call: KubeCall, mishap: Mishap, times: usize) {
        self.state().kube.push((call, mishap, times));
    }

    pub fn aws_out(&self, duration: Duration) {
        self.state().aws_out = Some(Instant::now() + duration);
    }

    pub fn kube_out(&self, duration: Duration) {
        self.state().kube_out = Some(Instant::now() + duration);
    }

    pub fn blind(&self, resource: &'static str, how: Blindness, duration: Duration) {
        self.state().blind.push((resource, how, Instant::now() + duration));
    }

    /// From here on nothing fails.
    pub fn end(&self) {
        let mut state = self.state();
        state.blind.clear();
        state.aws.clear();
        state.kube.clear();
        (state.aws_out, state.kube_out) = (None, None);
    }

    /// Whether no controller is in the middle of something: a change that somebody makes now cannot come
    /// between a reading of a group and the call that follows from it.
    pub fn is_quiet(&self) -> bool {
        let mut state = self.state();
        let now = Instant::now();
        state.under_way.retain(|began| now.duration_since(*began) < LOST_AFTER);
        state.under_way.is_empty() && state.last.is_none_or(|last| last < now)
    }

    fn begins(&self) {
        self.state().under_way.push(Instant::now());
    }

    fn ends(&self) {
        let mut state = self.state();
        state.under_way.pop();
        state.last = Some(Instant::now());
    }
}

impl State {
    /// How a watch or list fails now, and for how long still.
    fn blindness(&self, request: &RequestInfo) -> Option<(Blindness, Duration)> {
        let now = Instant::now();
        let reads = matches!(request.verb.as_str(), "list" | "watch");
        let mut held =
            self.blind.iter().filter(|(resource, _, until)| *resource == request.resource && now < *until);
        let (_, how, until) = held.next().filter(|_| reads)?;
        Some((*how, until.duration_since(now)))
    }

    fn take_aws(&mut self, operation: &str, after: bool) -> Option<Mishap> {
        if self.aws_out.is_some_and(|until| Instant::now() < until) {
            return Some(Mishap::NotArrived);
        }
        let fits = |entry: &&mut (&str, Mishap, usize)| {
            entry.0 == operation && (entry.1 == Mishap::AnswerLost) == after
        };
        let found = self.aws.iter_mut().find(fits)?;
        found.2 -= 1;
        let mishap = found.1;
        self.aws.retain(|(_, _, left)| *left > 0);
        Some(mishap)
    }

    fn take_kube(&mut self, request: &RequestInfo, after: bool) -> Option<Mishap> {
        if self.kube_out.is_some_and(|until| Instant::now() < until) {
            return Some(Mishap::NotArrived);
        }
        let fits = |entry: &&mut (KubeCall, Mishap, usize)| {
            is_of(entry.0, request) && (entry.1 == Mishap::AnswerLost) == after
        };
        let found = self.kube.iter_mut().find(fits)?;
        found.2 -= 1;
        let mishap = found.1;
        self.kube.retain(|(_, _, left)| *left > 0);
        Some(mishap)
    }
}

fn is_of(call: KubeCall, request: &RequestInfo) -> bool {
    let reads = matches!(request.verb.as_str(), "get" | "list" | "watch");
    match call {
        KubeCall::AnyRead => reads,
        KubeCall::AnyWrite => !reads,
        KubeCall::Ledger => !reads && request.resource == "spotpools",
        KubeCall::Record => !reads && request.resource == "nodereplacements",
        KubeCall::Node => !reads && request.resource == "nodes",
        KubeCall::Eviction => request.subresource == "eviction",
        KubeCall::Lease => request.resource == "leases",
    }
}

/// The connections of one controller.
#[derive(Clone, Default)]
pub struct Line {
    pub faults: Faults,
    /// Killed: nothing of it arrives any more.
    pub dead: Arc<AtomicBool>,
    /// Until when it alone cannot reach the Kubernetes API.
    pub cut_off: Arc<Mutex<Option<Instant>>>,
}

impl Line {
    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    fn is_cut_off(&self) -> bool {
        let until = *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }
}

impl cloud::CallGate for Line {
    fn before_call(&self, call: &GateCall) -> cloud::CallFate {
        if self.is_dead() {
            return cloud::CallFate::Drop;
        }
        self.faults.begins();
        let verdict = match self.faults.state().take_aws(&call.operation, false) {
            None => cloud::CallFate::Pass,
            Some(Mishap::NotArrived | Mishap::AnswerLost) => cloud::CallFate::Drop,
            Some(Mishap::Failed) => cloud::CallFate::Refuse {
                status: 500,
                code: "InternalFailure".to_owned(),
                message: "The request processing has failed because of an unknown error.".to_owned(),
            },
            Some(Mishap::Throttled) => cloud::CallFate::throttling(),
            Some(Mishap::Slow(millis)) => cloud::CallFate::Delay(Duration::from_millis(millis)),
        };
        if matches!(verdict, cloud::CallFate::Drop | cloud::CallFate::Refuse { .. }) {
            self.faults.ends();
        }
        verdict
    }

    fn after_call(&self, call: &GateCall) -> cloud::CallFate {
        self.faults.ends();
        if self.is_dead() || self.faults.state().take_aws(&call.operation, true).is_some() {
            return cloud::CallFate::Drop;
        }
        cloud::CallFate::Pass
    }
}

impl cluster::RequestGate for Line {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        if self.is_dead() || self.is_cut_off() {
            return cluster::RequestFate::Drop;
        }
        match self.faults.state().blindness(request) {
            Some((Blindness::Refused, _)) => {
                return cluster::RequestFate::Refuse(500, "InternalError".to_owned());
            }
            Some((Blindness::Silent, rest)) => return cluster::RequestFate::Delay(rest),
            None => {}
        }
        match self.faults.state().take_kube(request, false) {
            None => cluster::RequestFate::Pass,
            Some(Mishap::NotArrived | Mishap::AnswerLost) => cluster::RequestFate::Drop,
            Some(Mishap::Failed) => cluster::RequestFate::Refuse(500, "InternalError".to_owned()),
            Some(Mishap::Throttled) => cluster::RequestFate::Refuse(429, "TooManyRequests".to_owned()),
            Some(Mishap::Slow(millis)) => cluster::RequestFate::Delay(Duration::from_millis(millis)),
        }
    }

    fn after(&self, request: &RequestInfo, _: u16) -> cluster::RequestFate {
        match self.faults.state().blindness(request) {
            Some((Blindness::Refused, _)) => return cluster::RequestFate::Drop,
            Some((Blindness::Silent, rest)) if !self.is_dead() => return cluster::RequestFate::Delay(rest),
            _ => {}
        }
        if self.is_dead() || self.is_cut_off() || self.faults.state().take_kube(request, true).is_some() {
            return cluster::RequestFate::Drop;
        }
        cluster::RequestFate::Pass
    }
}
