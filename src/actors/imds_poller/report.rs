//! A notice on its way into the Kubernetes API.

use crate::clock::jittered;
use crate::crd::InterruptionNotice;
use crate::kube::problem::RequestProblem;
use actix::{Actor, AsyncContext, Context, Handler, Message, SpawnHandle};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, PostParams};
use spot_guard_core::imds::Announcement;
use spot_guard_core::policy::backoff;
use spot_guard_core::record::NoticeKind;
use spot_guard_core::time::since;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Wait before the second attempt to store a notice; doubles up to one of the two limits below.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Advice is tried at least this often.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// An interruption notice is tried at least this often, whether or not the last attempt was answered.
const MAX_BACKOFF_AT_DEADLINE: Duration = Duration::from_secs(2);
/// A name that is taken is tried again this often before a deadline, and so is a notice that is stored: it
/// may have been removed by mistake. Advice is tried again as slowly as it may be, and not at all once it is
/// stored.
const TAKEN_AT_DEADLINE: Duration = Duration::from_secs(5);
/// So long after its deadline a notice is not urgent any more.
const OVER_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A deadline that is further away does not press, and a stored notice is not renewed for longer.
const PRESSES_WITHIN: SignedDuration = SignedDuration::from_secs(600);
/// A stored notice of maintenance is created again this often until it presses.
const LOOK_AGAIN: Duration = Duration::from_secs(86_400);
/// One attempt takes no longer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Command of the reporting actor to itself: try to store the notice of that kind.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Store(pub(super) NoticeKind);

/// An actor that stores notices when their timers fire.
pub(super) trait Reporter: Actor<Context = Context<Self>> + Handler<Store> {}

impl<A: Actor<Context = Context<Self>> + Handler<Store>> Reporter for A {}

/// Why a notice is not stored yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreProblem {
    #[error("no answer within {} s", STORE_TIMEOUT.as_secs())]
    Timeout,
    /// An object has its name: this notice as it was stored before, or something else. A refused one is
    /// removed by the controller, so the name becomes free.
    #[error("its name is taken")]
    Taken,
    #[error("{}", RequestProblem(.0))]
    Failed(kube::Error),
}

/// A notice that was seen, and how far its report is.
pub(super) struct Sighting {
    pub(super) announcement: Announcement,
    pub(super) detected_at: Timestamp,
    pub(super) traceparent: String,
    failures: u32,
    taken: bool,
    /// Whether this life has stored it.
    stored: bool,
    report: Report,
}

enum Report {
    /// The instance id is not known yet.
    Held,
    /// Tried, and tried again when the timer fires.
    Trying {
        timer: SpawnHandle,
        due: Instant,
    },
    Done,
}

impl Sighting {
    pub(super) fn new(announcement: Announcement, detected_at: Timestamp, traceparent: String) -> Self {
        Self {
            announcement,
            detected_at,
            traceparent,
            failures: 0,
            taken: false,
            stored: false,
            report: Report::Held,
        }
    }

    /// Whether no attempt was made yet.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.report, Report::Held)
    }

    /// Whether the notice is stored.
    pub(super) fn is_done(&self) -> bool {
        self.stored
    }

    /// Whether it is tried no more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.report, Report::Done)
    }

    /// Whether an object has its name, which may be this notice.
    pub(super) fn is_taken(&self) -> bool {
        self.taken && !self.stored
    }

    /// The name is taken: the next attempt comes at a slow pace.
    pub(super) fn name_taken(&mut self, now: Timestamp, ctx: &mut Context<impl Reporter>) {
        (self.failures, self.taken) = (0, true);
        let pause = match self.until_it_presses(now) {
            Some(until) => until.min(LOOK_AGAIN).max(MAX_BACKOFF),
            None if self.is_urgent(now) => TAKEN_AT_DEADLINE,
            None => MAX_BACKOFF,
        };
        self.arm(Instant::now() + jittered(pause), ctx);
    }

    /// An attempt begins. Should it hang, the next one does not wait for it.
    pub(super) fn attempt_began(&mut self, now: Timestamp, ctx: &mut Context<impl Reporter>) {
        let pause = if self.stored { TAKEN_AT_DEADLINE } else { self.max_backoff(now) };
        self.arm(Instant::now() + pause, ctx);
    }

    /// An attempt failed: the next one comes after the backoff, or earlier if it is due.
    pub(super) fn attempt_failed(&mut self, now: Timestamp, ctx: &mut Context<impl Reporter>) {
        self.failures = self.failures.saturating_add(1);
        self.taken = false;
        let pause = jittered(backoff(FIRST_BACKOFF, self.max_backoff(now), self.failures));
        let soon = Instant::now() + pause;
        match self.report {
            Report::Trying { due, .. } => self.arm(due.min(soon), ctx),
            Report::Held => self.arm(soon, ctx),
            Report::Done => {}
        }
    }

    /// The notice is stored; whether that is new.
    pub(super) fn stored(&mut self, now: Timestamp, ctx: &mut Context<impl Reporter>) -> bool {
        let new = !std::mem::replace(&mut self.stored, true);
        self.renew(now, ctx);
        new
    }

    /// A notice that is stored is created again before its deadline: should it have been removed, it is there
    /// again. Of maintenance that is when its time comes near, which may be weeks later.
    pub(super) fn renew(&mut self, now: Timestamp, ctx: &mut Context<impl Reporter>) {
        if self.is_over() {
            return;
        }
        let presses_from = self.presses_from();
        if let Some(until) = self.until_it_presses(now) {
            self.arm(Instant::now() + until.min(LOOK_AGAIN), ctx);
            return;
        }
        let known_before = presses_from.filter(|at| *at > self.detected_at);
        let presses_for = now.duration_since(known_before.unwrap_or(self.detected_at));
        if self.is_urgent(now) && presses_for < PRESSES_WITHIN {
            // What was known long before is there, most likely.
            let pause = if known_before.is_some() { MAX_BACKOFF } else { TAKEN_AT_DEADLINE };
            self.arm(Instant::now() + jittered(pause), ctx);
        } else {
            self.end(ctx);
        }
    }

    /// How long the time of maintenance does not press yet.
    fn until_it_presses(&self, now: Timestamp) -> Option<Duration> {
        let is_dated = self.announcement.kind == NoticeKind::ScheduledMaintenance;
        self.presses_from().map(|at| since(now, at)).filter(|until| is_dated && !until.is_zero())
    }

    /// From when on its deadline presses.
    fn presses_from(&self) -> Option<Timestamp> {
        self.announcement.deadline?.checked_sub(PRESSES_WITHIN).ok()
    }

    /// It is tried no more.
    pub(super) fn end(&mut self, ctx: &mut Context<impl Reporter>) {
        if let Report::Trying { timer, .. } = std::mem::replace(&mut self.report, Report::Done) {
            ctx.cancel_future(timer);
        }
    }

    /// Whether its deadline presses, or has passed a moment ago.
    fn is_urgent(&self, now: Timestamp) -> bool {
        let left = self.announcement.deadline.map(|deadline| deadline.duration_since(now));
        left.is_some_and(|left| -OVER_AFTER <= left && left <= PRESSES_WITHIN)
    }

    fn max_backoff(&self, now: Timestamp) -> Duration {
        match self.announcement.deadline {
            Some(deadline) if deadline.duration_since(now) <= PRESSES_WITHIN => MAX_BACKOFF_AT_DEADLINE,
            _ => MAX_BACKOFF,
        }
    }

    /// Sets the only timer of this notice.
    fn arm(&mut self, due: Instant, ctx: &mut Context<impl Reporter>) {
        if let Report::Trying { timer, .. } = self.report {
            ctx.cancel_future(timer);
        }
        let kind = self.announcement.kind;
        let pause = due.saturating_duration_since(Instant::now());
        let timer = ctx.run_later(pause, move |_, ctx| ctx.notify(Store(kind)));
        self.report = Report::Trying { timer, due };
    }
}

/// Creates the notice.
pub(super) async fn store(
    notices: &Api<InterruptionNotice>,
    notice: &InterruptionNotice,
) -> Result<(), StoreProblem> {
    match timeout(STORE_TIMEOUT, notices.create(&PostParams::default(), notice)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Err(StoreProblem::Taken),
        Ok(Err(error)) => Err(StoreProblem::Failed(error)),
        Err(_) => Err(StoreProblem::Timeout),
    }
}
