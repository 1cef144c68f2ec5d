//! Reads the notice queue, and stores what it announces as an agent would. It runs in the controller, if a
//! queue is configured.
//!
//! - Boxes: 1
//! - Part of: 12 (the look for new interruptions)
//! - Hears: nobody
//! - Sends: an InterruptionNotice, through the Kubernetes API; [`InstanceEnded`], [`QueueRead`]
//! - Decided in: [`spot_guard_core::queue`]
//!
//! A message stays hidden while it is worked on, and is deleted once its notice is stored. After a crash it
//! comes again, and its notice has the same name. So a notice of the queue and one of the agent are one
//! object, whichever comes first.

mod carry;

use crate::actors::deps::Deps;
use crate::actors::messages::{InstanceEnded, QueueRead};
use crate::actors::supervision::{MessageLink, answers_ping};
use crate::aws::CallError;
use crate::aws::queue::{Received, SqsQueue};
use crate::clock::jittered;
use crate::telemetry::readiness::UnreadyCode;
use actix::prelude::*;
use carry::Carrier;
use spot_guard_core::policy::backoff;
use spot_guard_core::time::since;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What this actor is called in the process's readiness.
const PART: &str = "notice-queue";
/// Wait before the second attempt to read; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two reads of which the first gave nothing.
const BETWEEN_READS: Duration = Duration::from_millis(200);
/// So many messages are worked on at a time. No more are read meanwhile.
const MAX_OPEN: usize = 1000;
/// So many of them may wait for a node or a drain. One more is not waited for.
const MAX_WAITING: usize = 500;
/// So many notices are stored at a time.
const PARALLEL: usize = 16;

/// Read the queue.
#[derive(Message)]
#[rtype(result = "()")]
struct Poll;

/// The actor.
pub struct QueuePoller {
    deps: Deps,
    queue: SqsQueue,
    ended: MessageLink<InstanceEnded>,
    read: MessageLink<QueueRead>,
    stores: Arc<Semaphore>,
    has_dead_letters: Option<bool>,
    /// How many messages are worked on.
    open: usize,
    failures: u32,
    /// Why a message could not be deleted or hidden, the last time that one could not.
    stuck: Option<String>,
}

impl QueuePoller {
    /// A poller of `queue` that has read nothing yet.
    #[must_use]
    pub fn new(
        deps: Deps,
        queue: SqsQueue,
        ended: MessageLink<InstanceEnded>,
        read: MessageLink<QueueRead>,
    ) -> Self {
        let stores = Arc::new(Semaphore::new(PARALLEL));
        Self { deps, queue, ended, read, stores, has_dead_letters: None, open: 0, failures: 0, stuck: None }
    }

    /// The queue lies outside of this process, so that the process stays ready.
    fn failed(&mut self, error: &CallError) {
        tracing::warn!(%error, "the notice queue could not be used; the next attempt follows");
        self.deps.readiness.impaired(PART, UnreadyCode::QueueNotRead, error.to_string());
    }

    fn read_ended(&mut self, messages: Result<Vec<Received>, CallError>, ctx: &mut Context<Self>) {
        match messages {
            Ok(messages) => {
                self.failures = 0;
                self.read.send(QueueRead);
                match &self.stuck {
                    Some(why) => self.deps.readiness.impaired(PART, UnreadyCode::QueueNotRead, why.clone()),
                    None => self.deps.readiness.ready(PART),
                }
                // An endpoint that does not wait for messages is not asked without a pause.
                let pause = if messages.is_empty() { BETWEEN_READS } else { Duration::ZERO };
                messages.into_iter().for_each(|message| self.carry(message, ctx));
                ctx.notify_later(Poll, pause);
            }
            Err(error) => {
                self.failed(&error);
                self.failures = self.failures.saturating_add(1);
                let pause = backoff(FIRST_PAUSE, LONGEST_PAUSE, self.failures);
                ctx.notify_later(Poll, jittered(pause));
            }
        }
    }

    /// Works on a message beside the others.
    fn carry(&mut self, message: Received, ctx: &mut Context<Self>) {
        let now = self.deps.clock.now();
        if let Some(sent) = message.sent {
            self.deps.metrics.queue().received(since(sent, now));
        }
        let carrier = Carrier {
            deps: self.deps.clone(),
            queue: self.queue.clone(),
            ended: self.ended.clone(),
            stores: self.stores.clone(),
            has_dead_letters: self.has_dead_letters,
            may_wait: self.open < MAX_WAITING,
            message,
        };
        self.open += 1;
        ctx.spawn(carrier.carry().into_actor(self).map(|done, actor, _| {
            actor.open -= 1;
            if let Err(error) = &done {
                actor.failed(error);
            }
            actor.stuck = done.err().map(|error| error.to_string());
        }));
    }
}

impl Actor for QueuePoller {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let queue = self.queue.clone();
        let asked = async move { queue.has_dead_letters().await };
        ctx.spawn(asked.into_actor(self).map(|answer, actor, ctx| {
            // Without an answer messages that cannot be read are left for a while, as if there was one.
            actor.has_dead_letters = answer.ok();
            ctx.notify(Poll);
        }));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Who does not lead does not read, and says nothing of the queue.
        self.deps.readiness.forget(PART);
    }
}

impl Handler<Poll> for QueuePoller {
    type Result = ();

    fn handle(&mut self, _: Poll, ctx: &mut Self::Context) {
        if self.open >= MAX_OPEN {
            ctx.notify_later(Poll, jittered(FIRST_PAUSE));
            return;
        }
        let queue = self.queue.clone();
        let messages = async move { queue.receive().await };
        ctx.spawn(messages.into_actor(self).map(|messages, actor, ctx| actor.read_ended(messages, ctx)));
    }
}

answers_ping!(QueuePoller);
