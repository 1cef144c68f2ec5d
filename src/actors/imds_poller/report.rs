//! A notice on its way into the Kubernetes API.

use super::{ImdsPoller, Store};
use crate::actors::supervision::jittered;
use crate::core::imds::Announcement;
use crate::core::policy::backoff;
use crate::crd::InterruptionNotice;
use crate::kube::problem::RequestProblem;
use actix::{AsyncContext, Context, SpawnHandle};
use jiff::Timestamp;
use kube::api::{Api, PostParams};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Wait before the second attempt to store a notice; doubles up to one of the two limits below.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Advice is tried at least this often.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A notice with a deadline is tried at least this often, whether or not the last attempt was answered.
const MAX_BACKOFF_AT_DEADLINE: Duration = Duration::from_secs(2);
/// One attempt takes no longer.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a notice is not stored yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreProblem {
    #[error("no answer within {} s", STORE_TIMEOUT.as_secs())]
    Timeout,
    #[error("{}", RequestProblem(.0))]
    Failed(kube::Error),
}

/// A notice that was seen, and how far its report is.
pub(super) struct Sighting {
    pub(super) announcement: Announcement,
    pub(super) detected_at: Timestamp,
    pub(super) traceparent: String,
    failures: u32,
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
        Self { announcement, detected_at, traceparent, failures: 0, report: Report::Held }
    }

    /// Whether no attempt was made yet.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.report, Report::Held)
    }

    /// Whether the notice is stored.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.report, Report::Done)
    }

    /// An attempt begins. Should it hang, the next one does not wait for it.
    pub(super) fn attempt_began(&mut self, ctx: &mut Context<ImdsPoller>) {
        self.arm(Instant::now() + self.max_backoff(), ctx);
    }

    /// An attempt failed: the next one comes after the backoff, or earlier if it is due.
    pub(super) fn attempt_failed(&mut self, ctx: &mut Context<ImdsPoller>) {
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(backoff(FIRST_BACKOFF, self.max_backoff(), self.failures));
        let soon = Instant::now() + pause;
        match self.report {
            Report::Trying { due, .. } => self.arm(due.min(soon), ctx),
            Report::Held => self.arm(soon, ctx),
            Report::Done => {}
        }
    }

    /// The notice is stored; whether that is new.
    pub(super) fn stored(&mut self, ctx: &mut Context<ImdsPoller>) -> bool {
        match std::mem::replace(&mut self.report, Report::Done) {
            Report::Done => return false,
            Report::Trying { timer, .. } => drop(ctx.cancel_future(timer)),
            Report::Held => {}
        }
        true
    }

    fn max_backoff(&self) -> Duration {
        match self.announcement.deadline {
            Some(_) => MAX_BACKOFF_AT_DEADLINE,
            None => MAX_BACKOFF,
        }
    }

    /// Sets the only timer of this notice.
    fn arm(&mut self, due: Instant, ctx: &mut Context<ImdsPoller>) {
        if let Report::Trying { timer, .. } = self.report {
            ctx.cancel_future(timer);
        }
        let kind = self.announcement.kind;
        let pause = due.saturating_duration_since(Instant::now());
        let timer = ctx.run_later(pause, move |_, ctx| ctx.notify(Store(kind)));
        self.report = Report::Trying { timer, due };
    }
}

/// Creates the notice. One that exists was reported before, by an earlier life or by an attempt whose answer
/// was lost.
pub(super) async fn store(
    notices: &Api<InterruptionNotice>,
    notice: &InterruptionNotice,
) -> Result<(), StoreProblem> {
    match timeout(STORE_TIMEOUT, notices.create(&PostParams::default(), notice)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.is_already_exists() => Ok(()),
        Ok(Err(error)) => Err(StoreProblem::Failed(error)),
        Err(_) => Err(StoreProblem::Timeout),
    }
}
