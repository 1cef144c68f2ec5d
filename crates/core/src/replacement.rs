//! The state machine of a replacement: one node's story through the boxes of the flow.
//!
//! [`advance`] takes the record and the facts and gives the next record; it is stored before anything is
//! done. [`commands`] derives from a stored record what must hold in the world now; every command may be
//! repeated. So a story is resumed from its record alone, after any crash.

#[cfg(test)]
mod tests;

use crate::cluster::Node;
use crate::freshness::{Freshness, Step, WatchedKind};
use crate::group::{FailureClass, PoolView};
use crate::ledger::{Ledger, Share};
use crate::limits::{self, Starts};
use crate::neighbours::Neighbour;
use crate::notices;
use crate::policy::{Policy, seconds};
use crate::reason::{Reason, in_one_line};
use crate::record::{
    Capacity, DrainState, EndState, FlowBox, GroupKind, NoticeKind, Outcome, Phase, ReplacementStatus,
    UtilisationPercent, set_condition,
};
use crate::scaling::wants::{End, Want, Wants};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a +1 may wait for an instance that can be ended without a drain.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);

/// How a pool is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Everything the flow says.
    #[default]
    Act,
    /// Nothing is changed; the story says what would be done.
    Observe,
    /// Nodes are marked and drained, no group is changed.
    DrainOnly,
}

/// What a rebalance recommendation starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebalanceMode {
    /// The node is replaced.
    #[default]
    Replace,
    /// Nothing: the node waits for a notice with a deadline.
    Ignore,
}

/// Who a story is about; never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The replacement's name.
    pub name: String,
    /// The old node.
    pub node: String,
    /// The old instance.
    pub instance_id: String,
    /// Whether the node belongs to an accepted pool; others only get their drain.
    pub in_pool: bool,
}

/// A node as far as a story needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFact {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it takes no new pods, whoever has cordoned it.
    pub cordoned: bool,
    /// Whether pods that would have to move run on it.
    pub busy: bool,
    /// Its zone, if such pods have volumes, which cannot leave it.
    pub volume_zone: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// How a drain stands, as the Drainer last said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainReport {
    /// The node.
    pub node: String,
    /// Whether the taint is on it.
    pub tainted: bool,
    /// How it ended, once it has.
    pub end: Option<DrainEnd>,
    /// What it waits for.
    pub blocked: Vec<Reason>,
    /// Whether it has waited for that so long that the story should say so.
    pub stuck: bool,
}

/// How a drain ended.
#[derive(Clone, Debug, PartialEq)]
pub enum DrainEnd {
    /// The pods run and are ready elsewhere, or the node is gone.
    Moved,
    /// Nothing on the node is waited for any longer, but this is not as it should be.
    Without(Vec<Reason>),
    /// A return that came to nothing, and why: its pods may need the node.
    GivenUp(Vec<Reason>),
}

/// What the HealthMonitor last found about the return of a fallback: boxes 6 to 9, each with what stands in its
/// way; empty means passed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReturnAssessment {
    /// Box 6: the limits that let no return begin.
    pub held: Vec<Reason>,
    /// Box 7.
    pub unhealthy: Vec<Reason>,
    /// Box 8.
    pub unstable: Vec<Reason>,
    /// Box 9.
    pub unsafe_: Vec<Reason>,
}

/// Everything that the next step of a story depends on.
pub struct Facts<'a> {
    /// The time.
    pub now: Timestamp,
    /// The pool's settings.
    pub policy: &'a Policy,
    /// The pool's mode.
    pub mode: Mode,
    /// What advice starts in this pool.
    pub rebalance: RebalanceMode,
    /// What stands against beginning a story in the pool.
    pub starts: Starts,
    /// Which watches show an old picture.
    pub freshness: &'a Freshness,
    /// Why the pool is not accepted; empty: it is.
    pub refused: &'a [Reason],
    /// Who else has the old node in its hands.
    pub neighbour: Option<Neighbour>,
    /// The pool's groups, once they were read.
    pub view: Option<&'a PoolView>,
    /// The pool's ledger.
    pub ledger: &'a Ledger,
    /// Whether that ledger was written when it was known that the story wants nothing of the Spot group any more.
    pub withdrawn: bool,
    /// The old node, while it exists: a node of its name that runs on another instance is not it.
    pub old_node: Option<&'a NodeFact>,
    /// The nodes that say that they run on an instance, but the given node.
    pub other_holders: &'a dyn Fn(&str, &str) -> Vec<String>,
    /// The node of an instance, if one only says so.
    pub node_of: &'a dyn Fn(&str) -> Option<NodeFact>,
    /// What keeps the old node's pods from fitting on the cluster with the given node counted; empty: they fit.
    pub misfit_with: &'a dyn Fn(&str) -> Vec<Reason>,
    /// The drain of the old node.
    pub drain: Option<&'a DrainReport>,
    /// The drain of the on-demand node.
    pub return_drain: Option<&'a DrainReport>,
    /// The latest assessment of the return.
    pub assessment: Option<&'a ReturnAssessment>,
}

/// Why a node is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DrainPurpose {
    /// Boxes 4 and 5: the node is under notice.
    Replace,
    /// Box 10: the on-demand node goes back.
    Return,
}

/// A drain that must be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainCommand {
    /// The story.
    pub replacement: String,
    /// The node.
    pub node: String,
    /// Its instance.
    pub instance_id: String,
    /// Why.
    pub purpose: DrainPurpose,
    /// When the instance is taken, if a deadline presses.
    pub deadline: Option<Timestamp>,
    /// When the drain began.
    pub since: Option<Timestamp>,
}

impl DrainCommand {
    /// Whether this is the node to drain, and not another one of its name.
    #[must_use]
    pub fn is_about(&self, node: &Node) -> bool {
        *node.name == *self.node && node.may_run_on(&self.instance_id)
    }
}

/// What must hold in the world for a stored record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Wants of the groups.
    pub wants: Wants,
    /// Instances to end.
    pub ends: BTreeSet<End>,
    /// Drains to be under way.
    pub drains: Vec<DrainCommand>,
    /// Instances that this story stands on.
    pub taken: BTreeSet<String>,
    /// Instances whose nodes nobody else is to scale down until the story is over.
    pub protected: BTreeSet<String>,
}

/// A fresh record for a notice.
#[must_use]
pub fn open(
    subject: &Subject,
    kind: NoticeKind,
    deadline: Option<Timestamp>,
    utilisation: Option<UtilisationPercent>,
    traceparent: Option<String>,
    now: Timestamp,
) -> ReplacementStatus {
    let mut status = ReplacementStatus {
        notice: Some(kind),
        started_at: Some(now),
        deadline,
        utilisation_before: utilisation,
        traceparent,
        ..ReplacementStatus::default()
    };
    status.enter(Phase::Received, now);
    let text = match deadline {
        Some(deadline) => format!("{kind}: EC2 takes {} at {deadline:.0}", subject.instance_id),
        None => format!("{kind} for {}", subject.instance_id),
    };
    status.step(FlowBox::Notice, Outcome::NoticeReceived, &subject.node, text, now);
    status
}

/// Takes in a further notice for the same node and instance: a deadline escalates the story from every phase. The
/// earliest counts: a later notice may bring it forward, never make it later. `deadline` is one that EC2 may have
/// given ([`crate::notices::deadline`]).
pub fn escalate(
    status: &mut ReplacementStatus,
    subject: &Subject,
    kind: NoticeKind,
    deadline: Option<Timestamp>,
    now: Timestamp,
) {
    let Some(deadline) = deadline.filter(|_| !status.phase.is_finished()) else { return };
    if status.deadline.is_some_and(|held| held <= deadline) {
        return;
    }
    if status.old == EndState::Released {
        // EC2 takes the node that was to stay. What the story brought may serve it after all.
        *status = ReplacementStatus {
            attempt: status.attempt + 1,
            spot_asked_at: status.spot_asked_at.map(|_| now),
            ..carried_over(status)
        };
    }
    status.deadline = Some(deadline);
    status.notice = Some(kind);
    let text = format!("{kind}: EC2 takes {} at {deadline:.0}", subject.instance_id);
    status.step(FlowBox::Notice, Outcome::Escalated, &subject.node, text, now);
}

/// A cancelled story begins anew: something else happened to the same instance.
#[must_use]
pub fn reopen(cancelled: &ReplacementStatus, fresh: ReplacementStatus) -> ReplacementStatus {
    let (mut steps, mut triggers) = (cancelled.steps.clone(), cancelled.triggers.clone());
    steps.extend(fresh.steps);
    triggers.extend(fresh.triggers);
    ReplacementStatus { steps, triggers, ..fresh }
}

/// A record as it was before anything was asked for, with what is known of its notice.
fn carried_over(status: &ReplacementStatus) -> ReplacementStatus {
    ReplacementStatus {
        notice: status.notice,
        started_at: status.started_at,
        deadline: status.deadline,
        attempt: status.attempt,
        probes: status.probes,
        utilisation_before: status.utilisation_before.clone(),
        steps: status.steps.clone(),
        triggers: status.triggers.clone(),
        traceparent: status.traceparent.clone(),
        ..ReplacementStatus::default()
    }
}

/// Ends a story whose old instance is still wanted: its marks come off, what it brought goes back as late winners
/// do. It is over when nothing of it is left.
pub fn cancel(status: &mut ReplacementStatus, now: Timestamp) {
    let asked = status.spot_asked_at;
    *status = ReplacementStatus {
        old: EndState::Released,
        spot_asked_at: asked,
        on_demand_asked_at: status.on_demand_asked_at,
        conditions: std::mem::take(&mut status.conditions),
        phase: status.phase,
        phase_since: status.phase_since,
        ..carried_over(status)
    };
    if asked.is_some() {
        set_condition(
            &mut status.conditions,
            "CapacityReady",
            false,
            "Cancelled",
            "what was asked for goes back",
            now,
        );
    }
    status.enter(Phase::Cancelling, now);
}

/// The next record of a story.
#[must_use]
pub fn advance(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> ReplacementStatus {
    let mut next = status.clone();
    if next.phase.is_finished() {
        return next;
    }
    // As an earlier version may have recorded it.
    next.deadline = next.deadline.filter(|at| !notices::is_too_far(*at, facts.now));
    if next.old == EndState::Released && next.spot_asked_at.is_none() {
        finish(&mut next, subject, "nothing had been asked for", facts.now);
        return next;
    }
    let mode = mode_for(subject, &next, facts);
    let held = held_back(&next, subject, mode, facts);
    if !held.is_empty() {
        if let Some((outcome, reason)) = held.iter().find_map(|reason| Some((told_once(reason)?, reason))) {
            next.step(FlowBox::Notice, outcome, &subject.node, reason.to_string(), facts.now);
        }
        next.block(FlowBox::Notice, held, facts.now);
        if is_gone(subject, facts) {
            finish(&mut next, subject, "the instance is gone", facts.now);
        }
        return next;
    }
    next.blocking.retain(|reason| reason.flow_box != FlowBox::Notice);
    // Before the groups and the ledger were read once, nothing can be said of capacity.
    let known = facts.view.is_some();
    if mode == Mode::Act && known {
        find_capacity(&mut next, subject, facts);
    }
    drain_old(&mut next, subject, mode, facts);
    if mode == Mode::Act && known {
        end_old(&mut next, subject, facts);
        go_back(&mut next, subject, facts);
        close(&mut next, subject, facts);
    } else if next.old == EndState::Released {
        if known {
            close(&mut next, subject, facts);
        }
    } else if is_gone(subject, facts) {
        finish(&mut next, subject, "the node was drained and is gone", facts.now);
    }
    if !next.fallback {
        next.return_requested_at = None;
    }
    settle_phase(&mut next, facts.now);
    next
}

/// How a story is treated. A node in no accepted pool only gets its drain; but a story that has asked for
/// capacity is brought to its end, whatever became of the pool meanwhile.
fn mode_for(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> Mode {
    let begun = status.spot_asked_at.is_some();
    if subject.in_pool && (begun || facts.refused.is_empty()) { facts.mode } else { Mode::DrainOnly }
}

/// Why nothing may be done for this story, if so. A notice with a deadline passes every pause and every limit.
fn held_back(status: &ReplacementStatus, subject: &Subject, mode: Mode, facts: &Facts<'_>) -> Vec<Reason> {
    if mode == Mode::Observe {
        return vec![Reason::ObserveOnly { at_once: status.deadline.is_some() }];
    }
    if status.phase != Phase::Received {
        return Vec::new();
    }
    if let Some(neighbour) = facts.neighbour {
        return vec![Reason::LeftToNeighbour(neighbour)];
    }
    if status.deadline.is_some() {
        return Vec::new();
    }
    if !subject.in_pool {
        return vec![Reason::NotInPool];
    }
    if !facts.refused.is_empty() {
        return facts.refused.to_vec();
    }
    if facts.rebalance == RebalanceMode::Ignore && status.notice == Some(NoticeKind::RebalanceRecommendation)
    {
        return vec![Reason::RebalanceIgnored];
    }
    let created = facts.old_node.and_then(|node| node.created);
    let held = limits::start_held(&facts.starts, facts.policy, status.notice, created, facts.now);
    held.into_iter().collect()
}

/// The step that tells of what holds a story back, if it is to be told beside the blocking reason.
fn told_once(reason: &Reason) -> Option<Outcome> {
    match reason {
        Reason::ObserveOnly { .. } => Some(Outcome::Observed),
        Reason::LeftToNeighbour(_) => Some(Outcome::SteppedAside),
        _ => None,
    }
}

/// Boxes 2, 3, 3.1 and 3.2: ask Spot, then on-demand, and take the first instance that can take the pods.
fn find_capacity(next: &mut ReplacementStatus, subject: &Subject, facts: &Facts<'_>) {
    if next.old == EndState::Released {
        return;
    }
    let now = facts.now;
    let share = |group| facts.ledger.share(group, &subject.name);
    if let Some(capacity) = &next.capacity {
        // A replacement lost before the drain ends sends the story back to box 2.
        let lost =
            facts.view.is_some_and(|view| !view.group(capacity.group).is_active(&capacity.instance_id));
        if !lost || next.drain == DrainState::Finished {
            return;
        }
        next.capacity = None;
        next.fallback = false;
        next.drain = DrainState::NotStarted;
        next.spot_asked_at = Some(now);
        next.on_demand_asked_at = None;
        next.attempt += 1;
    }
    if next.spot_asked_at.is_none() {
        next.spot_asked_at = Some(now);
        next.step(
            FlowBox::ScaleUp,
            Outcome::Requested,
            &subject.node,
            "one more instance is asked of the Spot group".to_owned(),
            now,
        );
        return;
    }
    let mut misfits = Vec::new();
    for group in [GroupKind::Spot, GroupKind::OnDemand] {
        // A share of an earlier attempt may be on its way back: the AsgScaler has not heard of this one yet.
        let share = share(group).filter(|share| share.attempt == next.asked());
        let Some((instance_id, node)) = serving_node(share, group, facts) else { continue };
        // Ready is not yet "can take these pods" (zone, size, start-up taints); a deadline cannot wait for it.
        let misfit = match next.deadline {
            _ if node.cordoned => vec![Reason::NodeCordoned { node: node.name.clone() }],
            None => (facts.misfit_with)(&node.name),
            Some(_) => Vec::new(),
        };
        if !misfit.is_empty() {
            misfits.extend(misfit);
            continue;
        }
        let (flow_box, fallback) = match group {
            GroupKind::Spot => (FlowBox::Success, false),
            GroupKind::OnDemand => (FlowBox::Fallback, true),
        };
        let text = format!("{group} instance {instance_id} is in service, node {} is Ready", node.name);
        next.capacity = Some(Capacity { group, instance_id, node_name: node.name.clone(), ready_at: now });
        next.fallback = fallback;
        next.next_attempt_at = None;
        next.blocking.clear();
        set_condition(&mut next.conditions, "CapacityReady", true, "InService", &text, now);
        next.step(flow_box, Outcome::InService, &node.name, text, now);
        return;
    }
    if misfits.is_empty() {
        next.blocking.retain(|reason| reason.flow_box != FlowBox::Wait);
    } else {
        next.block(FlowBox::Wait, misfits, now);
    }
    if let Some(at) = next.next_attempt_at {
        if now < at {
            return;
        }
        next.next_attempt_at = None;
        next.attempt += 1;
        next.spot_asked_at = Some(now);
        next.on_demand_asked_at = Some(now);
        next.blocking.clear();
        let text = format!("attempt {}: both groups are asked again", next.attempt + 1);
        next.step(FlowBox::ScaleUp, Outcome::Requested, &subject.node, text, now);
        return;
    }
    let spot_waits = next.spot_asked_at.unwrap_or(now);
    let spot_failed = failure(
        share(GroupKind::Spot),
        spot_waits,
        seconds(facts.policy.spot_timeout_seconds),
        next.asked(),
        now,
    );
    let Some((outcome, text)) = spot_failed else { return };
    let Some(on_demand_waits) = next.on_demand_asked_at else {
        next.on_demand_asked_at = Some(now);
        next.step(FlowBox::Wait, outcome, &subject.node, format!("Spot: {text}"), now);
        let text = "one more instance is asked of the on-demand group".to_owned();
        next.step(FlowBox::Fallback, Outcome::Requested, &subject.node, text, now);
        return;
    };
    let timeout = seconds(facts.policy.on_demand_timeout_seconds);
    if let Some((outcome, text)) =
        failure(share(GroupKind::OnDemand), on_demand_waits, timeout, next.asked(), now)
    {
        let delay = facts.policy.retry_delay(next.attempt + 1, &subject.name);
        next.next_attempt_at = Some(now + delay);
        if next.attempt == 0 {
            next.step(FlowBox::Fallback, outcome, &subject.node, format!("on-demand: {text}"), now);
            let kept = format!("the node is kept, untouched; next attempt in {} s", delay.as_secs());
            next.step(FlowBox::Fallback, Outcome::NodeKept, &subject.node, kept, now);
        }
        next.block(FlowBox::Fallback, [Reason::BothGroupsFailed { on_demand: text }], now);
    }
}

/// The instance of a share that is in service, with its Ready node.
fn serving_node(share: Option<&Share>, group: GroupKind, facts: &Facts<'_>) -> Option<(String, NodeFact)> {
    let id = share?.instance_id.as_ref()?;
    let in_service = facts.view.is_some_and(|view| view.group(group).is_in_service(id));
    let node = (facts.node_of)(id).filter(|node| node.ready)?;
    in_service.then(|| (id.clone(), node))
}

/// Whether, and how, a request failed.
fn failure(
    share: Option<&Share>,
    since: Timestamp,
    timeout: Duration,
    attempt: u32,
    now: Timestamp,
) -> Option<(Outcome, String)> {
    if let Some(share) = share.filter(|share| share.attempt == attempt)
        && let Some(failure) = &share.failure
    {
        match failure.class {
            FailureClass::Capacity => return Some((Outcome::NoCapacity, failure.message.clone())),
            FailureClass::Configuration => return Some((Outcome::Misconfigured, failure.message.clone())),
            FailureClass::Throttle | FailureClass::Unknown => {}
        }
    }
    let waited = crate::time::since(since, now);
    (waited >= timeout)
        .then(|| (Outcome::TimedOut, format!("no instance in service after {} s", waited.as_secs())))
}

/// Boxes 4 and 5. Nothing is marked before a replacement can take the pods, unless a deadline presses.
fn drain_old(next: &mut ReplacementStatus, subject: &Subject, mode: Mode, facts: &Facts<'_>) {
    if next.old == EndState::Released {
        return;
    }
    let now = facts.now;
    match next.drain {
        DrainState::NotStarted => {
            if next.capacity.is_some() || next.deadline.is_some() || mode == Mode::DrainOnly {
                next.drain = DrainState::Started;
                next.drain_started_at = Some(now);
            }
        }
        DrainState::Started => {
            // A node of an instance that serves may only not have been shown yet: its drain knows.
            let serves = facts.view.is_some_and(|view| view.spot.is_active(&subject.instance_id));
            if facts.old_node.is_none() && !serves && facts.freshness.is_current(WatchedKind::Node) {
                next.drain = DrainState::Finished;
                next.blocking.clear();
                let text = format!("{} is gone before its drain ended", subject.instance_id);
                next.step(FlowBox::Drain, Outcome::TakenByAws, &subject.node, text, now);
                return;
            }
            let report = facts.drain.filter(|report| report.node == subject.node);
            if report.is_some_and(|report| report.tainted)
                && !next.steps.iter().any(|step| step.flow_box == FlowBox::Taint)
            {
                let text = "tainted: no new pods".to_owned();
                next.step(FlowBox::Taint, Outcome::Tainted, &subject.node, text, now);
            }
            let stale = facts.freshness.against(Step::End);
            if !stale.is_empty() {
                // It goes on as far as it may; whether it is over is found when the picture is current again.
                next.block(FlowBox::Drain, stale, now);
                return;
            }
            let Some(report) = report else { return };
            if let Some(end) = &report.end {
                next.drain = DrainState::Finished;
                next.blocking.clear();
                let (outcome, text) = told(end);
                set_condition(&mut next.conditions, "Drained", true, &format!("{outcome:?}"), &text, now);
                next.step(FlowBox::Drain, outcome, &subject.node, text, now);
                return;
            }
            let reasons = if report.stuck { report.blocked.clone() } else { Vec::new() };
            if reasons.is_empty() {
                next.blocking.retain(|reason| reason.flow_box != FlowBox::Drain);
                return;
            }
            let has = |outcome| {
                next.steps.iter().any(|step| (step.flow_box, step.outcome) == (FlowBox::Drain, outcome))
            };
            let patience = seconds(facts.policy.drain_timeout_seconds);
            let too_long = next.deadline.is_none()
                && next.drain_started_at.is_some_and(|at| crate::time::since(at, now) >= patience);
            let text = in_one_line(&reasons);
            if !has(Outcome::Blocked) {
                next.step(FlowBox::Drain, Outcome::Blocked, &subject.node, text, now);
            } else if too_long && !has(Outcome::TimedOut) {
                // The node is doomed, so no pods are invited back.
                let text = format!("not drained after {} s; its marks stay: {text}", patience.as_secs());
                next.step(FlowBox::Drain, Outcome::TimedOut, &subject.node, text, now);
            }
            next.block(FlowBox::Drain, reasons, now);
        }
        DrainState::Finished => {}
    }
}

/// The end of a drain as a step of the story.
fn told(end: &DrainEnd) -> (Outcome, String) {
    match end {
        DrainEnd::Moved => (Outcome::Drained, "its pods run elsewhere".to_owned()),
        DrainEnd::Without(what) | DrainEnd::GivenUp(what) => {
            (Outcome::TimedOut, format!("nothing on it is waited for any longer: {}", in_one_line(what)))
        }
    }
}

/// The old instance is ended exactly, after its drain or just before its deadline.
fn end_old(next: &mut ReplacementStatus, subject: &Subject, facts: &Facts<'_>) {
    let now = facts.now;
    let disputed = disputed(&subject.instance_id, &subject.node, GroupKind::Spot, facts);
    if matches!(next.old, EndState::Kept | EndState::Ending) && !disputed.is_empty() {
        next.old = EndState::Kept;
        next.block(FlowBox::Drain, disputed, now);
        return;
    }
    if next.old == EndState::Kept {
        if is_pressed(next, facts) && next.drain == DrainState::Started {
            next.drain = DrainState::Finished;
            next.blocking.clear();
            let waits = facts.drain.filter(|report| report.node == subject.node);
            let waits = waits.map_or_else(String::new, |report| in_one_line(&report.blocked));
            let text = format!("the deadline is near, the instance is ended as it is: {waits}");
            next.step(FlowBox::Drain, Outcome::TimedOut, &subject.node, text, now);
        }
        if next.drain == DrainState::Finished {
            next.old = EndState::Ending;
            return;
        }
    }
    let stale = facts.freshness.against(Step::End);
    if next.old == EndState::Ending
        && !stale.is_empty()
        && !is_pressed(next, facts)
        && may_still_be_kept(&subject.instance_id, GroupKind::Spot, facts)
    {
        // Whether its drain is over is found anew when the picture is current again.
        (next.old, next.drain) = (EndState::Kept, DrainState::Started);
        set_condition(&mut next.conditions, "Drained", false, "StaleWatch", &in_one_line(&stale), now);
        next.block(FlowBox::Drain, stale, now);
        return;
    }
    if next.old == EndState::Ending
        && let Some(view) = facts.view
        && view.spot.instance(&subject.instance_id).is_none()
        && facts.old_node.is_none()
        && facts.ledger.reduction.is_none()
        && (!holds_surplus(subject, facts) || waited_to_settle(next, now))
    {
        next.old = EndState::Gone;
        let text = if holds_surplus(subject, facts) {
            format!("{} is gone, and its group has replaced it as well", subject.instance_id)
        } else {
            format!("{} is gone, its +1 is out of the Spot group", subject.instance_id)
        };
        next.step(FlowBox::Drain, Outcome::Ended, &subject.node, text, now);
    }
}

/// Whether the instance is ended as it is, for EC2 would take it otherwise.
fn is_pressed(status: &ReplacementStatus, facts: &Facts<'_>) -> bool {
    let ahead = seconds(facts.policy.end_before_deadline_seconds);
    status.deadline.is_some_and(|deadline| facts.now + ahead >= deadline)
}

/// Whether nothing has begun yet to end the instance, as far as is known.
fn may_still_be_kept(instance_id: &str, group: GroupKind, facts: &Facts<'_>) -> bool {
    facts.view.is_some_and(|view| view.group(group).is_active(instance_id))
        && facts.ledger.reduction.is_none()
}

/// Why the instance is not to be ended, whatever presses: another node says that it runs on it, and nobody knows whose
/// pods do. Once it is being ended there is nothing left to decide.
fn disputed(instance_id: &str, node: &str, group: GroupKind, facts: &Facts<'_>) -> Vec<Reason> {
    let active = facts.view.is_some_and(|view| view.group(group).is_active(instance_id));
    let reduction = facts.ledger.reduction.as_ref();
    if !active || reduction.is_some_and(|held| held.instance_id.as_deref() == Some(instance_id)) {
        return Vec::new();
    }
    let others = (facts.other_holders)(instance_id, node).into_iter();
    let disputed = |node| Reason::InstanceDisputed { instance_id: instance_id.to_owned(), node };
    others.map(disputed).collect()
}

/// Whether the story's +1 is still in the Spot group's desired capacity.
fn holds_surplus(subject: &Subject, facts: &Facts<'_>) -> bool {
    facts.ledger.share(GroupKind::Spot, &subject.name).is_some_and(Share::is_raised)
}

/// Whether the +1 had its time to be settled by ending an instance that nothing runs on.
fn waited_to_settle(status: &ReplacementStatus, now: Timestamp) -> bool {
    matches!(status.phase, Phase::Ending | Phase::ScalingDown)
        && status.phase_since.is_some_and(|since| crate::time::since(since, now) >= SETTLE_PATIENCE)
}

/// Boxes 6 to 10: the return to Spot.
fn go_back(next: &mut ReplacementStatus, subject: &Subject, facts: &Facts<'_>) {
    if !next.old.is_over() || !next.fallback {
        return;
    }
    let Some(mut capacity) = next.capacity.clone() else { return };
    let now = facts.now;
    let Some(view) = facts.view else { return };
    let group = capacity.group;
    let share = facts.ledger.share(group, &subject.name);
    if group == GroupKind::Spot
        && next.fallback_end == EndState::Kept
        && !holds_surplus(subject, facts)
        && facts.ledger.reduction.is_none()
    {
        // Something else could be ended for the +1 after all: the node stays.
        next.fallback = false;
        next.return_drain = DrainState::NotStarted;
        next.blocking.clear();
        return;
    }
    if next.fallback_end == EndState::Kept && !view.group(group).is_active(&capacity.instance_id) {
        if next.old == EndState::Released {
            (next.capacity, next.fallback, next.return_drain) = (None, false, DrainState::NotStarted);
            next.blocking.clear();
            return;
        }
        let spot = facts.ledger.share(GroupKind::Spot, &subject.name);
        if group == GroupKind::OnDemand && serving_node(spot, GroupKind::Spot, facts).is_some() {
            // Its pods have moved by themselves, and Spot has paid its debt: there is nothing to return.
            next.fallback = false;
            next.return_drain = DrainState::NotStarted;
            next.blocking.clear();
            let text = format!("{} was lost; Spot has taken over", capacity.instance_id);
            next.step(FlowBox::ScaleDown, Outcome::TakenByAws, &capacity.node_name, text, now);
            return;
        }
        // The group replaces an instance that was lost: the fallback goes on with its successor.
        let Some((instance_id, node)) = serving_node(share, group, facts) else { return };
        capacity = Capacity { instance_id, node_name: node.name, ready_at: now, ..capacity };
        next.capacity = Some(capacity.clone());
        next.return_drain = DrainState::NotStarted;
    }
    let text = match group {
        _ if next.old == EndState::Released => {
            format!("{group} node {} runs pods: they move before it goes back", capacity.node_name)
        }
        GroupKind::OnDemand => format!("on-demand node {} stands in until Spot is back", capacity.node_name),
        GroupKind::Spot => format!("Spot node {} is one more than the group is to have", capacity.node_name),
    };
    if !next.steps.iter().any(|step| step.flow_box == FlowBox::Monitor) {
        next.step(FlowBox::Monitor, Outcome::Monitoring, &capacity.node_name, text, now);
    }
    match next.return_drain {
        DrainState::NotStarted => assess_return(next, subject, &capacity, facts),
        DrainState::Started => {
            let stale = facts.freshness.against(Step::End);
            if !stale.is_empty() {
                next.block(FlowBox::ScaleDown, stale, now);
                return;
            }
            let disputed = disputed(&capacity.instance_id, &capacity.node_name, group, facts);
            if !disputed.is_empty() {
                give_up_return(next, &capacity, &disputed, facts);
                return;
            }
            let Some(report) = facts.return_drain.filter(|report| report.node == capacity.node_name) else {
                return;
            };
            let patience = seconds(facts.policy.drain_timeout_seconds);
            let too_long = crate::time::since(next.return_started_at.unwrap_or(now), now) >= patience;
            match &report.end {
                Some(end @ (DrainEnd::Moved | DrainEnd::Without(_))) => {
                    next.return_drain = DrainState::Finished;
                    next.blocking.clear();
                    let (outcome, text) = told(end);
                    next.step(FlowBox::ScaleDown, outcome, &capacity.node_name, text, now);
                    next.fallback_end = EndState::Ending;
                }
                Some(DrainEnd::GivenUp(reasons)) => give_up_return(next, &capacity, reasons, facts),
                None if too_long => give_up_return(next, &capacity, &report.blocked, facts),
                None if report.stuck => next.block(FlowBox::ScaleDown, report.blocked.clone(), now),
                None => next.blocking.clear(),
            }
        }
        DrainState::Finished => {
            let stale = facts.freshness.against(Step::End);
            if next.fallback_end == EndState::Ending
                && !stale.is_empty()
                && may_still_be_kept(&capacity.instance_id, group, facts)
            {
                (next.fallback_end, next.return_drain) = (EndState::Kept, DrainState::Started);
                next.block(FlowBox::ScaleDown, stale, now);
                return;
            }
            let disputed = disputed(&capacity.instance_id, &capacity.node_name, group, facts);
            if next.fallback_end == EndState::Ending && !disputed.is_empty() {
                next.fallback_end = EndState::Kept;
                give_up_return(next, &capacity, &disputed, facts);
                return;
            }
            if next.fallback_end != EndState::Ending
                || view.group(group).instance(&capacity.instance_id).is_some()
                || (facts.node_of)(&capacity.instance_id).is_some()
                || facts.ledger.reduction.is_some()
            {
                return;
            }
            if share.is_none_or(|share| !share.is_raised()) {
                next.fallback_end = EndState::Gone;
                next.fallback = false;
                let text = format!("{} is gone, the {group} group shrank", capacity.instance_id);
                next.step(FlowBox::ScaleDown, Outcome::ScaledDown, &capacity.node_name, text, now);
            } else if waited_to_settle(next, now)
                && let Some((instance_id, node)) = serving_node(share, group, facts)
            {
                // AWS was faster, and the group's own replacement runs pods already: it goes back instead.
                next.capacity = Some(Capacity { group, instance_id, node_name: node.name, ready_at: now });
                next.fallback_end = EndState::Kept;
                next.return_drain = DrainState::NotStarted;
            }
        }
    }
}

/// The marks come off, and the return is tried again later.
fn give_up_return(next: &mut ReplacementStatus, capacity: &Capacity, reasons: &[Reason], facts: &Facts<'_>) {
    let now = facts.now;
    next.return_drain = DrainState::NotStarted;
    next.return_not_before = Some(now + seconds(facts.policy.return_retry_seconds));
    let text = format!("given up, marks undone: {}", in_one_line(reasons));
    next.step(FlowBox::ScaleDown, Outcome::ReturnGivenUp, &capacity.node_name, text, now);
}

/// Boxes 7, 8 and 9, on the HealthMonitor's word and never without a Spot instance claimed for the return. A
/// Spot node that is one too many needs none, nor does what a cancelled story brought: its old instance stays.
fn assess_return(next: &mut ReplacementStatus, subject: &Subject, capacity: &Capacity, facts: &Facts<'_>) {
    let now = facts.now;
    let limits = facts.assessment.map_or(&[][..], |found| &found.held);
    let pause = facts.starts.pause.clone().map(Reason::Paused);
    let held: Vec<Reason> = pause.into_iter().chain(limits.iter().cloned()).collect();
    let spot = serving_node(facts.ledger.share(GroupKind::Spot, &subject.name), GroupKind::Spot, facts);
    let claimed = spot.filter(|_| next.old != EndState::Released);
    if claimed.is_none() && next.old != EndState::Released {
        next.return_capacity = None;
        if !held.is_empty() {
            // An instance that Spot gave now would stand idle until the return may begin.
            next.block(FlowBox::Monitor, held, now);
            return;
        }
        probe(next, subject, facts);
        next.block(FlowBox::Health, [Reason::NoSpotInstance], now);
        return;
    }
    if let Some((_, node)) = claimed.as_ref().filter(|(_, node)| node.cordoned) {
        // It is on its way out itself, or somebody keeps pods from it.
        next.return_capacity = None;
        next.block(FlowBox::Health, [Reason::NodeCordoned { node: node.name.clone() }], now);
        return;
    }
    let group = facts.view.map(|view| view.group(capacity.group));
    let share = facts.ledger.share(capacity.group, &subject.name);
    let surplus = capacity.group == GroupKind::Spot || share.is_some_and(Share::is_raised);
    if let Some(group) = group.filter(|group| surplus && group.desired <= group.min) {
        // Ended now it would be replaced, and the +1 would stay.
        next.block(FlowBox::Health, [Reason::AtMinimum { group: group.name.clone() }], now);
        return;
    }
    if capacity.group == GroupKind::OnDemand
        && let Some((instance_id, node)) = claimed
        && next.return_capacity.as_ref().is_none_or(|held| held.instance_id != instance_id)
    {
        next.return_capacity =
            Some(Capacity { group: GroupKind::Spot, instance_id, node_name: node.name, ready_at: now });
    }
    let stale = facts.freshness.against(Step::Return);
    if !stale.is_empty() {
        next.block(FlowBox::Safety, stale, now);
        return;
    }
    let disputed = disputed(&capacity.instance_id, &capacity.node_name, capacity.group, facts);
    if !disputed.is_empty() {
        next.block(FlowBox::Safety, disputed, now);
        return;
    }
    let Some(found) = facts.assessment else { return };
    if !held.is_empty() {
        next.block(FlowBox::Monitor, held, now);
        return;
    }
    let stages = [
        (FlowBox::Health, Outcome::Healthy, &found.unhealthy, "the Spot group is healthy"),
        (FlowBox::Stability, Outcome::Stable, &found.unstable, "healthy for long enough"),
        (FlowBox::Safety, Outcome::Safe, &found.unsafe_, "its pods fit elsewhere together, the buffer holds"),
    ];
    for (flow_box, outcome, reasons, text) in stages {
        if !reasons.is_empty() {
            next.block(flow_box, reasons.clone(), now);
            return;
        }
        if !next.steps.iter().any(|step| step.outcome == outcome) {
            next.step(flow_box, outcome, &capacity.node_name, text.to_owned(), now);
        }
    }
    if next.return_not_before.is_some_and(|at| now < at) {
        return;
    }
    next.blocking.clear();
    next.return_drain = DrainState::Started;
    next.return_started_at = Some(now);
}

/// What Spot owes in our record is asked for again, with backoff: LaunchInstances tries nothing by itself.
fn probe(next: &mut ReplacementStatus, subject: &Subject, facts: &Facts<'_>) {
    let now = facts.now;
    let share = facts.ledger.share(GroupKind::Spot, &subject.name);
    let owes = share.is_some_and(|share| share.instance_id.is_none() && !share.has_place());
    if !owes {
        next.next_probe_at = None;
        return;
    }
    match next.next_probe_at {
        Some(at) if now < at => return,
        Some(_) => next.probes += 1,
        None => {}
    }
    let pause = crate::policy::backoff(
        seconds(facts.policy.probe_seconds),
        seconds(facts.policy.probe_max_seconds),
        // The first few probes keep the pace: a market that dries up for minutes is the usual case.
        (next.probes + 1).saturating_sub(5),
    );
    next.next_probe_at = Some(now + pause);
}

/// Box 11: the story is over once nothing of it is left in the ledger.
fn close(next: &mut ReplacementStatus, subject: &Subject, facts: &Facts<'_>) {
    if !is_settled(next) {
        return;
    }
    if next.old == EndState::Released {
        // Pods may have moved to what the story brought: it goes back like a fallback then.
        for group in [GroupKind::Spot, GroupKind::OnDemand] {
            let share = facts.ledger.share(group, &subject.name).filter(|share| share.is_raised());
            if let Some((instance_id, node)) = serving_node(share, group, facts).filter(|(_, node)| node.busy)
            {
                stand_in(next, group, instance_id, node.name, facts.now);
                return;
            }
        }
    } else if holds_surplus(subject, facts) {
        // AWS took the old instance before we ended it, its group has replaced it, and by now everything that
        // could be ended at once runs pods: the story's own Spot node goes back like a fallback.
        let share = facts.ledger.share(GroupKind::Spot, &subject.name);
        if waited_to_settle(next, facts.now)
            && let Some((instance_id, node)) = serving_node(share, GroupKind::Spot, facts)
        {
            stand_in(next, GroupKind::Spot, instance_id, node.name, facts.now);
        }
        return;
    }
    let late = facts.ledger.share(GroupKind::OnDemand, &subject.name).filter(|share| share.is_raised());
    if let Some((instance_id, node)) =
        serving_node(late, GroupKind::OnDemand, facts).filter(|(_, node)| node.busy)
    {
        // Pods moved to an on-demand node that came too late: it goes back like any other fallback.
        stand_in(next, GroupKind::OnDemand, instance_id, node.name, facts.now);
        return;
    }
    let open = [GroupKind::Spot, GroupKind::OnDemand]
        .into_iter()
        .any(|group| facts.ledger.share(group, &subject.name).is_some());
    // A request of a story that was cancelled may not be in the ledger yet that we know.
    let heard = facts.withdrawn || next.old != EndState::Released;
    if !open && heard {
        finish(next, subject, "nothing of the story is left in either group", facts.now);
    }
}

/// A story that was settled goes on with an instance that has to go back.
fn stand_in(
    next: &mut ReplacementStatus,
    group: GroupKind,
    instance_id: String,
    node: String,
    now: Timestamp,
) {
    next.capacity = Some(Capacity { group, instance_id, node_name: node, ready_at: now });
    next.fallback = true;
    (next.return_capacity, next.return_started_at) = (None, None);
    next.return_drain = DrainState::NotStarted;
    next.fallback_end = EndState::Kept;
}

/// Whether only the ledger's shares are left to be forgotten.
fn is_settled(status: &ReplacementStatus) -> bool {
    match status.old {
        EndState::Gone => status.capacity.is_some() && !status.fallback,
        EndState::Released => !status.fallback,
        EndState::Kept | EndState::Ending => false,
    }
}

fn finish(next: &mut ReplacementStatus, subject: &Subject, text: &str, now: Timestamp) {
    next.blocking.clear();
    next.finished_at = Some(now);
    let (phase, outcome) = match next.old {
        EndState::Released => (Phase::Cancelled, Outcome::Cancelled),
        _ => (Phase::Completed, Outcome::CleanedUp),
    };
    next.enter(phase, now);
    set_condition(&mut next.conditions, "Completed", true, &format!("{outcome:?}"), text, now);
    next.step(FlowBox::CleanUp, outcome, &subject.node, text.to_owned(), now);
}

/// Whether the old instance is neither in its group nor in the cluster.
fn is_gone(subject: &Subject, facts: &Facts<'_>) -> bool {
    facts.old_node.is_none()
        && facts.freshness.is_current(WatchedKind::Node)
        && (!subject.in_pool
            || facts.view.is_some_and(|view| view.spot.instance(&subject.instance_id).is_none()))
}

/// The phase follows from the rest of the record.
fn settle_phase(next: &mut ReplacementStatus, now: Timestamp) {
    if next.phase.is_finished() {
        return;
    }
    let phase = if next.old.is_over() && next.fallback {
        match (next.fallback_end, next.return_drain) {
            (EndState::Ending | EndState::Gone, _) => Phase::ScalingDown,
            (_, DrainState::NotStarted) => Phase::OnFallback,
            _ => Phase::Returning,
        }
    } else if next.old == EndState::Released {
        Phase::Cancelling
    } else if next.capacity.is_some() && next.old != EndState::Kept {
        Phase::Ending
    } else if next.drain != DrainState::NotStarted && next.old == EndState::Kept {
        Phase::Draining
    } else if next.next_attempt_at.is_some() {
        Phase::BackingOff
    } else if next.on_demand_asked_at.is_some() {
        Phase::FallingBack
    } else if next.spot_asked_at.is_some() {
        Phase::ScalingUp
    } else if next.drain != DrainState::NotStarted {
        Phase::Draining
    } else {
        Phase::Received
    };
    next.enter(phase, now);
}

/// What must hold in the world for this record.
#[must_use]
pub fn commands(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> Commands {
    let mut commands = Commands::default();
    let mode = mode_for(subject, status, facts);
    if status.phase.is_finished() || mode == Mode::Observe {
        return commands;
    }
    commands.taken.insert(subject.instance_id.clone());
    // An empty node keeps its marks until its instance is gone.
    if status.drain != DrainState::NotStarted && !status.old.is_over() {
        commands.drains.push(DrainCommand {
            replacement: subject.name.clone(),
            node: subject.node.clone(),
            instance_id: subject.instance_id.clone(),
            purpose: DrainPurpose::Replace,
            deadline: status.deadline,
            since: status.drain_started_at,
        });
    }
    // What a cancelled story asked for is taken back in any mode.
    if mode != Mode::Act && status.old != EndState::Released {
        return commands;
    }
    if status.phase != Phase::Received {
        let shares =
            [GroupKind::Spot, GroupKind::OnDemand].map(|kind| facts.ledger.share(kind, &subject.name));
        let brought = shares.into_iter().flatten().filter_map(|share| share.instance_id.clone());
        commands.protected.extend(brought);
        commands.protected.extend(status.capacity.as_ref().map(|capacity| capacity.instance_id.clone()));
        if !status.old.is_over() {
            commands.protected.insert(subject.instance_id.clone());
        }
    }
    let settled = is_settled(status);
    let capacity_from = status.capacity.as_ref().map(|capacity| capacity.group);
    if let Some(capacity) = &status.capacity {
        commands.taken.insert(capacity.instance_id.clone());
    }
    let zone = facts.old_node.and_then(|node| node.volume_zone.clone());
    let gone = facts.view.is_some_and(|view| !view.spot.is_active(&subject.instance_id));
    let instance = |stood_in_for, gone| Want::Instance {
        attempt: status.asked(),
        deadline: status.deadline,
        stood_in_for,
        zone: zone.clone(),
        gone,
    };
    if status.spot_asked_at.is_some() {
        let ends = capacity_from == Some(GroupKind::Spot) && status.fallback_end != EndState::Kept;
        let want = if status.old == EndState::Released && capacity_from != Some(GroupKind::Spot) {
            Want::Nothing
        } else if settled || ends {
            Want::Done
        } else {
            instance(capacity_from == Some(GroupKind::OnDemand), gone)
        };
        commands.wants.insert((GroupKind::Spot, subject.name.clone()), want);
    }
    if status.on_demand_asked_at.is_some() || facts.ledger.share(GroupKind::OnDemand, &subject.name).is_some()
    {
        let want = match capacity_from {
            Some(GroupKind::Spot) => Want::Nothing,
            None if status.old == EndState::Released => Want::Nothing,
            _ if settled || status.fallback_end != EndState::Kept => Want::Done,
            _ => instance(false, false),
        };
        commands.wants.insert((GroupKind::OnDemand, subject.name.clone()), want);
    }
    let disputed = |id: &str, node: &str, group| !disputed(id, node, group, facts).is_empty();
    if status.old == EndState::Ending && !disputed(&subject.instance_id, &subject.node, GroupKind::Spot) {
        commands.ends.insert(End {
            group: GroupKind::Spot,
            instance_id: subject.instance_id.clone(),
            replacement: subject.name.clone(),
            pressed: is_pressed(status, facts),
        });
    }
    if let Some(capacity) = &status.capacity {
        if status.return_drain != DrainState::NotStarted && status.fallback_end != EndState::Gone {
            commands.drains.push(DrainCommand {
                replacement: subject.name.clone(),
                node: capacity.node_name.clone(),
                instance_id: capacity.instance_id.clone(),
                purpose: DrainPurpose::Return,
                deadline: None,
                since: status.return_started_at,
            });
        }
        let disputed = disputed(&capacity.instance_id, &capacity.node_name, capacity.group);
        if status.fallback_end == EndState::Ending && !disputed {
            commands.ends.insert(End {
                group: capacity.group,
                instance_id: capacity.instance_id.clone(),
                replacement: subject.name.clone(),
                pressed: false,
            });
        }
    }
    commands
}
