//! Reads the metadata service of its own node and reports what EC2 announces. It runs in the agent, on the
//! node.
//!
//! - Boxes: 1
//! - Part of: 12 (the look for new interruptions)
//! - Hears: nobody
//! - Sends: an InterruptionNotice, through the Kubernetes API
//! - Decided in: [`spot_guard_core::imds`]
//!
//! As long as there is no notice, no request goes to the Kubernetes API.
//!
//! Each kind of notice is reported until it is stored by this life. One with a deadline is created again
//! until then, for a notice that the controller removed by an old picture has to come again. A life that
//! follows reports again what IMDS still says: the notice's name makes both one object. Whether the object of
//! that name is this notice, the agent cannot read, so it goes on trying at a slow pace. One that the
//! controller refuses is removed.
//!
//! Maintenance alone changes: EC2 moves scheduled events, cancels them and adds others. An earlier time is
//! another notice. When the time of one that is stored comes near, it is created again.

use crate::actors::supervision::answers_ping;
use crate::aws::imds::Imds;
use crate::clock::{Clock, jittered};
use crate::crd::{InterruptionNotice, InterruptionNoticeSpec, dated_notice_name};
use crate::telemetry::readiness::{Readiness, UnreadyCode};
use crate::telemetry::tracing::{notice_span, traceparent_of};
use actix::fut::wrap_future;
use actix::{Actor, AsyncContext, Context, Handler, Message};
use complaints::Complaints;
use jiff::Timestamp;
use kube::api::Api;
use report::{Sighting, Store, StoreProblem, store};
use spot_guard_core::ids::{InstanceId, NodeName};
use spot_guard_core::imds::{
    Announcement, ImdsCategory, ImdsProblem, parse_instance_action, parse_instance_id, parse_maintenance,
    parse_rebalance, parse_target_lifecycle_state,
};
use spot_guard_core::notices::MAX_NODE_NAME;
use spot_guard_core::policy::backoff;
use spot_guard_core::record::NoticeKind;
use spot_guard_core::time::since;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

mod complaints;
mod metrics;
mod report;
#[cfg(test)]
mod tests;

pub use metrics::AgentMetrics;

/// The part of readiness that says whether IMDS can be read.
pub const IMDS_PART: &str = "imds";
/// The part of readiness that says whether notices can be stored.
pub const NOTICES_PART: &str = "notices";
/// The part of readiness that says whether a notice can name the node.
pub const NODE_NAME_PART: &str = "node-name";
/// IMDS in trouble is asked at least this often.
const MAX_POLL_BACKOFF: Duration = Duration::from_secs(60);
/// How often what changes slowly is asked for: maintenance, and the instance id. The id shows whether IMDS
/// still answers: where it says nothing of an interruption, so does a proxy that answers 404 to everything.
const SLOW_EVERY: Duration = Duration::from_secs(60);
/// Command to itself: read IMDS now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Poll;

/// Fact: what IMDS answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Polled {
    began: Instant,
    answers: Vec<(ImdsCategory, Result<Option<String>, ImdsProblem>)>,
}

/// Fact: an attempt to store a notice ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Stored {
    kind: NoticeKind,
    /// Of the notice that was to be stored.
    deadline: Option<Timestamp>,
    result: Result<(), StoreProblem>,
}

/// What the poller of one node works with.
#[derive(Clone)]
pub struct NodeContext {
    /// The Kubernetes node that it runs on.
    pub node_name: NodeName,
    /// The node's metadata service.
    pub imds: Imds,
    /// The Kubernetes API.
    pub client: kube::Client,
    /// The time.
    pub clock: Clock,
    /// From the beginning of one read of IMDS to that of the next.
    pub poll_every: Duration,
    /// What is counted.
    pub metrics: AgentMetrics,
    /// What works and what does not.
    pub readiness: Readiness,
}

/// Watches the metadata service of its own node for the end of the instance.
pub struct ImdsPoller {
    node: NodeContext,
    notices: Api<InterruptionNotice>,
    instance_id: Option<InstanceId>,
    /// Whether the instance id was another one before.
    changed: bool,
    /// When what changes slowly was last read without a problem.
    slow_read_at: Option<Instant>,
    failed_polls: u32,
    sightings: BTreeMap<NoticeKind, Sighting>,
    complaints: Complaints,
}

impl ImdsPoller {
    /// A poller that has seen nothing yet.
    #[must_use]
    pub fn new(node: NodeContext) -> Self {
        Self {
            notices: Api::all(node.client.clone()),
            node,
            instance_id: None,
            changed: false,
            slow_read_at: None,
            failed_polls: 0,
            sightings: BTreeMap::new(),
            complaints: Complaints::default(),
        }
    }

    /// What is asked for now.
    fn questions(&self) -> Vec<ImdsCategory> {
        let slow = self.slow_read_at.is_none_or(|at| at.elapsed() >= SLOW_EVERY);
        let mut questions =
            vec![ImdsCategory::InstanceAction, ImdsCategory::Rebalance, ImdsCategory::TargetLifecycleState];
        if slow || self.instance_id.is_none() {
            questions.insert(0, ImdsCategory::InstanceId);
            questions.push(ImdsCategory::Maintenance);
        }
        questions
    }

    /// Takes up what an answer says.
    fn interpret(
        &mut self,
        question: ImdsCategory,
        answer: Option<&str>,
        ctx: &mut Context<Self>,
    ) -> Result<(), ImdsProblem> {
        let now = self.node.clock.now();
        let announced = match (question, answer) {
            (ImdsCategory::InstanceId, Some(text)) => return self.identify(parse_instance_id(text)?, ctx),
            // No notice is the usual answer, no instance id is not.
            (ImdsCategory::InstanceId, None) => return Err(ImdsProblem::UnexpectedStatus(404)),
            (_, None) => None,
            (ImdsCategory::InstanceAction, Some(text)) => Some(parse_instance_action(text, now)?),
            (ImdsCategory::Rebalance, Some(text)) => Some(parse_rebalance(text)?),
            (ImdsCategory::TargetLifecycleState, Some(text)) => parse_target_lifecycle_state(text, now)?,
            (ImdsCategory::Maintenance, Some(text)) => parse_maintenance(text)?,
        };
        match announced {
            Some(announcement) => self.sighted(announcement, now, ctx),
            None => self.no_longer(question, ctx),
        }
        Ok(())
    }

    /// Takes up which instance this is. A notice that named another one is reported anew: the controller
    /// believes the one that the Node has.
    fn identify(&mut self, read: InstanceId, ctx: &mut Context<Self>) -> Result<(), ImdsProblem> {
        self.changed = self.instance_id.as_ref().is_some_and(|known| *known != read);
        self.instance_id = Some(read);
        if self.changed {
            for (_, mut sighting) in std::mem::take(&mut self.sightings) {
                sighting.end(ctx);
            }
        }
        Ok(())
    }

    /// Takes up a notice, the first time that its kind is seen: IMDS repeats it with every read, and a mock
    /// may do so with another time. Maintenance is taken up again if it is another one.
    fn sighted(&mut self, announcement: Announcement, now: Timestamp, ctx: &mut Context<Self>) {
        let kind = announcement.kind;
        if let Some(known) = self.sightings.get_mut(&kind) {
            if !known.announcement.is_followed_by(&announcement, now) {
                return;
            }
            known.end(ctx);
        }
        let instance_id = self.instance_id.as_deref().unwrap_or_default();
        // What is announced later of the same instance belongs to the trace of what was announced first.
        let earlier = self.sightings.values().next().map(|sighting| sighting.traceparent.clone());
        let (instance, node) = (instance_id.into(), &self.node.node_name);
        let span = notice_span(&instance, node, earlier.as_deref());
        let _entered = span.enter();
        tracing::warn!(
            node = &*self.node.node_name,
            %kind,
            deadline = announcement.deadline.map(tracing::field::display),
            "interruption announced"
        );
        let sighting = Sighting::new(announcement, now, traceparent_of(&span));
        self.sightings.insert(kind, sighting);
    }

    /// IMDS takes a notice back. Whether it was stored, nobody has to know any more. Maintenance that EC2 has
    /// cancelled may be scheduled anew.
    fn no_longer(&mut self, question: ImdsCategory, ctx: &mut Context<Self>) {
        let Some(kind) = question.announces() else { return };
        match self.sightings.get_mut(&kind) {
            Some(sighting) if sighting.is_taken() => drop(self.sightings.remove(&kind)),
            Some(sighting) if sighting.is_done() => {
                sighting.end(ctx);
                if kind == NoticeKind::ScheduledMaintenance {
                    self.sightings.remove(&kind);
                }
            }
            _ => {}
        }
    }

    /// Logs a problem with IMDS when it is new, and again from time to time.
    fn complain(&mut self, question: ImdsCategory, problem: &ImdsProblem) {
        if self.complaints.raise(question.path(), problem.as_str()) {
            tracing::warn!(
                node = &*self.node.node_name,
                path = question.path(),
                %problem,
                "IMDS cannot be read"
            );
        }
    }

    fn settle(&mut self, question: ImdsCategory) {
        if self.complaints.settle(question.path()) {
            tracing::info!(node = &*self.node.node_name, path = question.path(), "IMDS can be read again");
        }
    }

    /// How long to wait after the beginning of a read before the next one.
    fn next_poll(&self) -> Duration {
        let every = self.node.poll_every;
        match self.failed_polls {
            0 => every,
            failures => jittered(backoff(every * 2, MAX_POLL_BACKOFF, failures)).max(every),
        }
    }

    fn tell_readiness(&self, problem: Option<&ImdsProblem>) {
        match problem {
            Some(problem) => {
                let code = match problem {
                    ImdsProblem::NotImds(_) | ImdsProblem::InstanceChanged => UnreadyCode::NotImds,
                    _ => UnreadyCode::ImdsUnreadable,
                };
                self.node.readiness.not_ready(IMDS_PART, code, problem.to_string());
            }
            None => self.node.readiness.ready(IMDS_PART),
        }
    }
}

impl Actor for ImdsPoller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let length = self.node.node_name.len();
        if length > MAX_NODE_NAME {
            let problem =
                format!("the node's name has {length} characters; a notice can name {MAX_NODE_NAME}");
            tracing::error!(node = &*self.node.node_name, "no notice can be stored: {problem}");
            self.node.readiness.not_ready(NODE_NAME_PART, UnreadyCode::NodeNameTooLong, problem);
        }
        ctx.notify(Poll);
    }
}

answers_ping!(ImdsPoller);

impl Handler<Poll> for ImdsPoller {
    type Result = ();

    fn handle(&mut self, _: Poll, ctx: &mut Self::Context) {
        let questions = self.questions();
        let (imds, me) = (self.node.imds.clone(), ctx.address());
        let read = async move {
            let began = Instant::now();
            let mut answers = Vec::with_capacity(questions.len());
            // One after the other: IMDS limits the connections of an instance.
            for question in questions {
                let answer = imds.read(question).await;
                let in_vain = answer.as_ref().is_err_and(ImdsProblem::holds_for_every_question);
                answers.push((question, answer));
                if in_vain {
                    break;
                }
            }
            me.do_send(Polled { began, answers });
        };
        ctx.spawn(wrap_future(read));
    }
}

impl Handler<Polled> for ImdsPoller {
    type Result = ();

    fn handle(&mut self, polled: Polled, ctx: &mut Self::Context) {
        let mut worst = None;
        let mut answered = false;
        let slow = polled.answers.iter().any(|(question, _)| *question == ImdsCategory::Maintenance);
        for (question, answer) in polled.answers {
            let understood = match &answer {
                Ok(answer) => self.interpret(question, answer.as_deref(), ctx),
                Err(problem) => Err(problem.clone()),
            };
            let absent = answer.is_ok_and(|answer| answer.is_none());
            self.node.metrics.imds_request(&understood, absent);
            match understood {
                Ok(()) => {
                    answered = true;
                    self.settle(question);
                }
                Err(problem) => {
                    answered |= !problem.calls_for_backoff();
                    self.complain(question, &problem);
                    worst.get_or_insert(problem);
                }
            }
        }
        if slow && worst.is_none() {
            self.slow_read_at = Some(polled.began);
        }
        if self.changed {
            self.complain(ImdsCategory::InstanceId, &ImdsProblem::InstanceChanged);
            worst.get_or_insert(ImdsProblem::InstanceChanged);
        }
        self.tell_readiness(worst.as_ref());
        self.failed_polls = if answered { 0 } else { self.failed_polls.saturating_add(1) };
        ctx.run_later(self.next_poll().saturating_sub(polled.began.elapsed()), |_, ctx| ctx.notify(Poll));

        if self.instance_id.is_some() {
            for (kind, sighting) in &self.sightings {
                if sighting.is_held() {
                    ctx.notify(Store(*kind));
                }
            }
        }
    }
}

impl Handler<Store> for ImdsPoller {
    type Result = ();

    fn handle(&mut self, Store(kind): Store, ctx: &mut Self::Context) {
        let (Some(instance_id), Some(sighting)) = (&self.instance_id, self.sightings.get_mut(&kind)) else {
            return;
        };
        if sighting.is_over() {
            return;
        }
        let deadline = sighting.announcement.deadline;
        let notice = InterruptionNotice::new(
            &dated_notice_name(&self.node.node_name, instance_id, kind, deadline),
            InterruptionNoticeSpec {
                node_name: self.node.node_name.clone(),
                instance_id: instance_id.clone(),
                kind,
                notice_time: sighting.announcement.notice_time,
                deadline,
                detected_at: sighting.detected_at,
                traceparent: Some(sighting.traceparent.clone()),
            },
        );
        let (notices, me) = (self.notices.clone(), ctx.address());
        let attempt =
            async move { me.do_send(Stored { kind, deadline, result: store(&notices, &notice).await }) };
        ctx.spawn(wrap_future(attempt));
        sighting.attempt_began(self.node.clock.now(), ctx);
    }
}

impl Handler<Stored> for ImdsPoller {
    type Result = ();

    fn handle(&mut self, Stored { kind, deadline, result }: Stored, ctx: &mut Self::Context) {
        // Maintenance may have been moved while the notice was on its way.
        let current = self.sightings.get_mut(&kind).filter(|held| held.announcement.deadline == deadline);
        let Some(sighting) = current else { return };
        let node = self.node.node_name.as_str();
        match result {
            Ok(()) => {
                let now = self.node.clock.now();
                if sighting.stored(now, ctx) {
                    self.complaints.settle(kind.slug());
                    self.node.metrics.notice_reported(kind);
                    if let Some(given) = sighting.announcement.given_at() {
                        self.node.metrics.stored_after(kind, since(given, now));
                    }
                    tracing::info!(node, %kind, "notice stored");
                }
                if self.sightings.values().all(|held| held.is_done() || held.is_taken()) {
                    self.node.readiness.ready(NOTICES_PART);
                }
            }
            // It is still there, or an attempt was overtaken by a later one.
            Err(_) if sighting.is_done() => sighting.renew(self.node.clock.now(), ctx),
            Err(problem @ StoreProblem::Taken) => {
                sighting.name_taken(self.node.clock.now(), ctx);
                self.node.metrics.name_taken(kind);
                if self.complaints.raise(kind.slug(), &problem.to_string()) {
                    tracing::info!(
                        node,
                        %kind,
                        "a notice of that name is stored, perhaps this one; the next attempt follows"
                    );
                }
                if self.sightings.values().all(|held| held.is_done() || held.is_taken()) {
                    self.node.readiness.ready(NOTICES_PART);
                }
            }
            Err(problem) => {
                sighting.attempt_failed(self.node.clock.now(), ctx);
                let told = format!("{kind}: {problem}");
                self.node.readiness.not_ready(NOTICES_PART, UnreadyCode::NoticeNotStored, told);
                if self.complaints.raise(kind.slug(), &problem.to_string()) {
                    tracing::error!(node, %kind, %problem, "the notice cannot be stored; the next attempt follows");
                }
            }
        }
    }
}
