//! How actors and the HTTP API reach a supervised actor.

use crate::telemetry::metrics::RestartCause;
use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// Messages that wait in a mailbox before [`Link::send`] drops one.
pub const MAILBOX_CAPACITY: usize = 1024;
/// Questions that one link has open before [`Link::ask`] answers [`LinkError::Full`].
pub const MAX_QUESTIONS: usize = 256;
/// How long [`Link::ask`] waits for its answer.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a question got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The actor is between two lives, or ended before it answered.
    #[error("{0} is not running")]
    Down(&'static str),
    /// Too many questions are open.
    #[error("{0} has too many questions to answer")]
    Full(&'static str),
    /// No answer within [`ASK_TIMEOUT`].
    #[error("{0} did not answer in time")]
    Timeout(&'static str),
}

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The actor was built anew.
    Restarted(RestartCause),
    /// A message found no mailbox or a full one.
    Dropped,
    /// The actor answered its supervisor's ping, after this time.
    Answered(Duration),
}

/// Finds the present incarnation of a supervised actor, from any thread.
pub struct Link<A: Actor> {
    shared: Arc<Shared<A>>,
}

struct Shared<A: Actor> {
    name: &'static str,
    present: Mutex<Option<Addr<A>>>,
    restarts: Mutex<BTreeMap<RestartCause, u64>>,
    report: Box<dyn Fn(LinkEvent) + Send + Sync>,
    dropped: AtomicU64,
    questions: AtomicUsize,
}

/// Carries one kind of message to a supervised actor, as [`Link::send`] does.
pub struct MessageLink<M>(Arc<dyn Fn(M) + Send + Sync>);

impl<M> Clone for MessageLink<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> MessageLink<M> {
    /// Sends the message, and never blocks.
    pub fn send(&self, message: M) {
        (self.0)(message);
    }
}

impl<A: Actor> Clone for Link<A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<A: Actor<Context = Context<A>>> Link<A> {
    /// A link to an actor that does not run yet, so that actors can be linked in a circle before they start.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::reporting(name, |_| {})
    }

    /// The same, and `report` hears what happens to it.
    #[must_use]
    pub fn reporting(name: &'static str, report: impl Fn(LinkEvent) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::new(Shared {
                name,
                present: Mutex::default(),
                restarts: Mutex::default(),
                report: Box::new(report),
                dropped: AtomicU64::new(0),
                questions: AtomicUsize::new(0),
            }),
        }
    }

    /// The actor's name, as logs, metrics and readiness show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Sends a command or a fact, and never blocks. What finds no mailbox or a full one is dropped and
    /// counted: all commands and facts are level-triggered, and repeated.
    pub fn send<M>(&self, message: M)
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        // Not on a clone of the address: actix gives each clone a place in the mailbox of its own.
        let sent = lock(&self.shared.present).as_ref().is_some_and(|addr| addr.try_send(message).is_ok());
        if !sent {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            (self.shared.report)(LinkEvent::Dropped);
            tracing::debug!(actor = self.name(), message = std::any::type_name::<M>(), "message dropped");
        }
    }

    /// The same link for one kind of message, for a sender that need not know the actor.
    #[must_use]
    pub fn carrying<M>(&self) -> MessageLink<M>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let link = self.clone();
        MessageLink(Arc::new(move |message| link.send(message)))
    }

    /// Asks, and waits for the answer, [`ASK_TIMEOUT`] at most.
    ///
    /// # Errors
    /// [`LinkError`]; after `Timeout` and `Down` the question may have been acted on all the same.
    pub async fn ask<M>(&self, message: M) -> Result<M::Result, LinkError>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let Some(_place) = Question::open(&self.shared.questions) else {
            return Err(LinkError::Full(self.name()));
        };
        let request = match lock(&self.shared.present).as_ref() {
            Some(addr) => addr.send(message),
            None => return Err(LinkError::Down(self.name())),
        };
        match timeout(ASK_TIMEOUT, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(MailboxError::Closed)) => Err(LinkError::Down(self.name())),
            Ok(Err(MailboxError::Timeout)) | Err(_) => Err(LinkError::Timeout(self.name())),
        }
    }

    /// Whether the actor runs at present.
    #[must_use]
    pub fn is_up(&self) -> bool {
        lock(&self.shared.present).as_ref().is_some_and(Addr::connected)
    }

    /// How often the actor was restarted since the start of the process, by cause.
    #[must_use]
    pub fn restarts(&self) -> BTreeMap<RestartCause, u64> {
        lock(&self.shared.restarts).clone()
    }

    /// How many messages were dropped since the start of the process.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, cause: RestartCause) {
        *lock(&self.shared.restarts).entry(cause).or_default() += 1;
        (self.shared.report)(LinkEvent::Restarted(cause));
    }

    pub(super) fn answered(&self, after: Duration) {
        (self.shared.report)(LinkEvent::Answered(after));
    }

    pub(super) fn point_to(&self, present: Option<Addr<A>>) {
        *lock(&self.shared.present) = present;
    }
}

/// The place of an open question; free again when it is dropped.
struct Question<'a>(&'a AtomicUsize);

impl<'a> Question<'a> {
    fn open(questions: &'a AtomicUsize) -> Option<Self> {
        let place = Self(questions);
        (questions.fetch_add(1, Ordering::Relaxed) < MAX_QUESTIONS).then_some(place)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
