//! Keeps the actors alive.
//!
//! - Boxes: none, it serves every actor
//! - Hears: nobody
//! - Sends: [`Ping`]
//!
//! `actix::Supervisor` restarts after `ctx.stop()` with the same `self` and at once, and not at all after a
//! panic: the mailbox is closed for good. Here the supervisor drives the actor's context itself, so that it
//! sees how a life ends, and builds a new actor from the factory. Senders hold a [`Link`], which finds the
//! present incarnation. Nothing is kept from one life to the next: an actor reads the records when it starts.
//!
//! What a supervised actor must know:
//! - `Actor::stopped` runs at the end of every life, a panic and a shutdown included; it must be quick.
//!   `Actor::stopping` must not answer `Running::Continue`: a life that is over cannot go on.
//! - A future that the context waits for (`ctx.wait`) keeps the mailbox shut. Longer than
//!   [`ANSWER_WITHIN`], and the actor counts as stuck.
//! - All actors of an arbiter share a thread. A handler that blocks it stops the supervisor too; the liveness
//!   probe of the process fails then ([`crate::telemetry::liveness`]).

#[cfg(any(test, feature = "sim"))]
pub mod crash;
mod link;
mod panics;
#[cfg(test)]
mod tests;

pub use link::{ASK_TIMEOUT, Link, LinkError, LinkEvent, MAILBOX_CAPACITY, MAX_QUESTIONS, MessageLink};

use crate::clock::jittered;
pub use crate::telemetry::metrics::RestartCause;
use crate::telemetry::readiness::{Readiness, UnreadyCode};
use actix::dev::ContextFut;
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};
use panics::{guarded, keep_actor_panics_quiet};
use spot_guard_core::policy::backoff;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How often an actor is asked whether it still reads its mailbox.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// How soon it must answer; later, it is stuck and replaced.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A life as long as this is a good one: the backoff starts anew, readiness turns green. Longer than
/// [`PING_EVERY`] and [`ANSWER_WITHIN`] together, or an actor that is born stuck would pass for healthy.
pub const GOOD_LIFE: Duration = Duration::from_secs(60);
/// The second restart in a row waits this long; each further one twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// No restart waits longer.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// More restarts than this within [`RESTART_WINDOW`] turn readiness red.
const MAX_RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(300);

/// Asks a supervised actor whether it still reads its mailbox; answered by `answers_ping!`.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Ping;

/// Lets an actor answer its supervisor: `answers_ping!(Drainer);` In tests and in the simulation it can be
/// made to fail, too.
macro_rules! answers_ping {
    ($actor:ty) => {
        impl ::actix::Handler<$crate::actors::supervision::Ping> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::actors::supervision::Ping, _: &mut Self::Context) {}
        }

        #[cfg(any(test, feature = "sim"))]
        impl ::actix::Handler<$crate::actors::supervision::crash::Crash> for $actor {
            type Result = ();

            fn handle(&mut self, crash: $crate::actors::supervision::crash::Crash, ctx: &mut Self::Context) {
                crash.happen(self, ctx);
            }
        }
    };
}

pub(crate) use answers_ping;

/// Ends a set of supervised actors. Clones belong to the same set; several sets live in one process.
#[derive(Clone, Debug)]
pub struct Shutdown {
    triggered: Arc<watch::Sender<bool>>,
    running: Arc<watch::Sender<usize>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { triggered: Arc::new(watch::Sender::new(false)), running: Arc::new(watch::Sender::new(0)) }
    }
}

impl Shutdown {
    /// The end of a new set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every actor of the set where it stands, and restarts none. What was under way is resumed from
    /// the records by the next process, as after a crash.
    pub fn trigger(&self) {
        self.triggered.send_replace(true);
    }

    /// Whether the end was requested.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.triggered.borrow()
    }

    /// Waits until the end is requested.
    pub async fn triggered(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.triggered.subscribe().wait_for(|triggered| *triggered).await;
    }

    /// Waits until the end was requested and no actor of the set is left.
    pub async fn finished(&self) {
        self.triggered().await;
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// What the factory gets for each life of an actor.
#[derive(Clone, Debug)]
pub struct Lifeline {
    incarnation: u64,
    shutdown: Shutdown,
}

impl Lifeline {
    /// Which life of the actor this is; the first is 0.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The end of the set that the actor belongs to.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}

/// Starts the actor in the current arbiter, and builds it anew whenever it ends: at once the first time,
/// then backing off up to 30 s until a life was a [`GOOD_LIFE`]. More than 5 restarts within 5 minutes turn
/// the readiness of its part red until then.
///
/// When this returns, the link reaches the actor.
///
/// # Panics
/// If called outside an actix system.
pub fn supervise<A>(
    link: &Link<A>,
    readiness: Readiness,
    shutdown: &Shutdown,
    factory: impl Fn(Lifeline) -> A + 'static,
) where
    A: Actor<Context = Context<A>> + Handler<Ping>,
{
    keep_actor_panics_quiet();
    let mut supervisor = Supervisor {
        link: link.clone(),
        readiness,
        shutdown: shutdown.clone(),
        factory,
        incarnation: 0,
        in_a_row: 0,
        recent: VecDeque::new(),
        red: false,
    };
    let first = supervisor.begin();
    shutdown.running.send_modify(|running| *running += 1);
    let running = Arc::clone(&shutdown.running);
    actix::spawn(async move {
        supervisor.run(first).await;
        running.send_modify(|running| *running -= 1);
    });
}

struct Supervisor<A: Actor<Context = Context<A>>, F> {
    link: Link<A>,
    readiness: Readiness,
    shutdown: Shutdown,
    factory: F,
    incarnation: u64,
    in_a_row: u32,
    recent: VecDeque<Instant>,
    red: bool,
}

/// One life of an actor: its context with the actor in it.
type Life<A> = ContextFut<A, Context<A>>;

/// How a life ended.
enum End {
    Shutdown,
    Failed(RestartCause, Option<String>),
}

impl<A, F> Supervisor<A, F>
where
    A: Actor<Context = Context<A>> + Handler<Ping>,
    F: Fn(Lifeline) -> A,
{
    async fn run(&mut self, mut life: Result<Life<A>, String>) {
        loop {
            let born = Instant::now();
            let end = match life {
                Ok(life) => self.attend(life, born).await,
                Err(panic) => End::Failed(RestartCause::Panicked, Some(panic)),
            };
            let End::Failed(cause, panic) = end else { return };
            let pause = self.note_restart(cause, born);
            tracing::error!(
                actor = self.link.name(),
                cause = cause.slug(),
                incarnation = self.incarnation,
                panic,
                restart_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "actor ended"
            );
            tokio::select! {
                biased;
                () = self.shutdown.triggered() => return,
                () = sleep(pause), if !pause.is_zero() => {}
                () = std::future::ready(()), if pause.is_zero() => {}
            }
            self.incarnation += 1;
            life = self.begin();
        }
    }

    /// Builds the actor and points the link to it.
    fn begin(&mut self) -> Result<Life<A>, String> {
        let lifeline = Lifeline { incarnation: self.incarnation, shutdown: self.shutdown.clone() };
        let actor = guarded(|| (self.factory)(lifeline))?;
        let mut context = Context::new();
        context.set_mailbox_capacity(MAILBOX_CAPACITY);
        self.link.point_to(Some(context.address()));
        Ok(context.into_future(actor))
    }

    /// Drives the actor until its life is over.
    async fn attend(&mut self, mut life: Life<A>, born: Instant) -> End {
        let addr = life.address();
        let shutdown = self.shutdown.clone();
        let lived = poll_fn(|cx| match guarded(|| Pin::new(&mut life).poll(cx)) {
            Ok(poll) => poll.map(|()| End::Failed(RestartCause::Stopped, None)),
            Err(panic) => End::Failed(RestartCause::Panicked, Some(panic)).into(),
        });
        let end = tokio::select! {
            biased;
            () = shutdown.triggered() => End::Shutdown,
            end = lived => end,
            () = self.watch(&addr, born) => End::Failed(RestartCause::Stuck, None),
        };
        self.link.point_to(None);
        // A context that is dropped while it has senders calls `Actor::stopped`: `addr` outlives it.
        if let Err(panic) = guarded(|| drop(life)) {
            tracing::error!(actor = self.link.name(), panic, "actor panicked at the end of its life");
        }
        drop(addr);
        end
    }

    /// Ends when the actor is stuck.
    async fn watch(&mut self, addr: &Addr<A>, born: Instant) {
        loop {
            sleep(PING_EVERY).await;
            let asked = Instant::now();
            match timeout(ANSWER_WITHIN, addr.send(Ping)).await {
                Ok(Ok(())) => self.link.answered(asked.elapsed()),
                // The life itself is over, and says so at its next poll.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => return,
            }
            if self.red && born.elapsed() >= GOOD_LIFE {
                self.red = false;
                self.readiness.ready(self.link.name());
            }
        }
    }

    /// Counts a restart, and says how long to wait before it.
    fn note_restart(&mut self, cause: RestartCause, born: Instant) -> Duration {
        self.link.count(cause);
        if born.elapsed() >= GOOD_LIFE {
            self.in_a_row = 0;
        }
        let pause = restart_pause(self.in_a_row);
        self.in_a_row = self.in_a_row.saturating_add(1);

        let now = Instant::now();
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|then| now.duration_since(*then) > RESTART_WINDOW) {
            self.recent.pop_front();
        }
        if self.recent.len() > MAX_RESTARTS {
            self.red = true;
            self.readiness.not_ready(
                self.link.name(),
                UnreadyCode::RestartedTooOften,
                format!(
                    "restarted {} times within 5 minutes, last because it {}",
                    self.recent.len(),
                    cause.slug()
                ),
            );
        }
        pause
    }
}

/// The pause before a restart that follows `in_a_row` others: zero, then exponential with jitter.
fn restart_pause(in_a_row: u32) -> Duration {
    match in_a_row {
        0 => Duration::ZERO,
        failures => jittered(backoff(FIRST_BACKOFF, MAX_BACKOFF, failures)),
    }
}
