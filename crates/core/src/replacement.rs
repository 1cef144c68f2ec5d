//! The state machine of a replacement: one node's way through the boxes of the flow.
//!
//! [`advance`] takes the record and the facts and gives the next record; it is stored before anything is
//! done. [`commands`] derives from a stored record what must hold in the world now; every command may be
//! repeated. So a replacement is resumed from its record alone, after any crash.

mod adopted;
mod begin;
mod by_group;
mod capacity;
mod close;
mod commands;
mod facts;
mod go_back;
mod leave;
#[cfg(test)]
mod tests;
mod unusable;

pub use crate::drain::{DrainCommand, DrainEnd, DrainReport};
pub use crate::reason::ReturnAssessment;
pub use crate::record::DrainPurpose;
pub use begin::{cancel, escalate, open, reopen};
pub use by_group::queue;
pub use commands::{Commands, commands};
pub use facts::{Facts, Fit, Mode, NodeFact, Queue, RebalanceMode, Subject};

use crate::flow::Finish;
use crate::notices;
use crate::reason::Reason;
use crate::record::{BlockingReason, FlowBox, ReplacementStatus};
use facts::Turn;

/// The next record of a replacement.
///
/// What holds it up is found anew in each step, so no reason outlives its cause. What holds it up at the
/// same box as before does so since then, but for a change between waiting for a turn and being unsafe.
#[must_use]
pub fn advance(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> ReplacementStatus {
    if status.is_finished() {
        return status.clone();
    }
    let mut next = ReplacementStatus { blocking: Vec::new(), ..status.clone() };
    step(subject, status, &mut next, facts);
    for reason in &mut next.blocking {
        // To wait for one's turn is not to be unsafe.
        let is_alike = |before: &&BlockingReason| {
            before.flow_box == reason.flow_box
                && facts::waits_for_turn(before.reason) == facts::waits_for_turn(reason.reason)
        };
        let before = status.blocking.iter().find(is_alike);
        reason.since = before.map_or(reason.since, |before| before.since);
    }
    next
}

fn step(subject: &Subject, status: &ReplacementStatus, next: &mut ReplacementStatus, facts: &Facts<'_>) {
    // EC2 cannot have given one that is so far away, whoever wrote it.
    next.deadline = next.deadline.filter(|at| !notices::is_too_far(*at, facts.now));
    next.spot_group = next.spot_group.take().or_else(|| facts.group_of_old(subject));
    next.zone = next.zone.take().or_else(|| facts.zone_of_old(subject));
    if !next.capacity.is_requested() && subject.in_pool {
        next.replaced_by = facts.replaced_by.or(next.replaced_by);
    }
    let turn = Turn::new(subject, status, facts);
    if facts.taken_over {
        close::finish(next, Finish::TakenOver, &turn);
        return;
    }
    if next.old_node.is_retained() && !next.capacity.is_requested() {
        close::finish(next, Finish::NothingRequested, &turn);
        return;
    }
    let mode = facts.mode_for(subject, next);
    let reasons = begin::held_back(next, subject, mode, facts);
    if !reasons.is_empty() {
        wait(next, reasons, &turn);
        return;
    }
    // Before the groups and the ledger were read once, nothing can be said of capacity.
    let known = facts.view.is_some();
    if mode == Mode::Act && known {
        unusable::report(next, &turn);
        if next.is_replaced_by_group() {
            by_group::find(next, &turn);
            leave::give_up_advice(next, &turn);
            leave::give_up_false_notice(next, &turn);
        } else {
            capacity::find(next, &turn);
            leave::give_up(next, &turn);
        }
    }
    leave::drain(next, mode, &turn);
    if mode == Mode::Act && known {
        leave::terminate(next, &turn);
        go_back::go_back(next, &turn);
        close::close(next, &turn);
    } else if next.old_node.is_retained() {
        if known {
            close::close(next, &turn);
        }
    } else if close::is_gone(next, &turn) {
        close::finish(next, Finish::NodeGone, &turn);
    } else {
        leave::await_end(next, &turn);
    }
    if mode == Mode::Act && !known && next.blocking.is_empty() {
        // Until the groups are read, what they held up counts.
        next.blocking.clone_from(&status.blocking);
        next.blocking.retain(|reason| !matches!(reason.flow_box, FlowBox::Notice | FlowBox::Drain));
    }
    next.settle_phase(facts.now);
}

/// Box 1 lets nothing begin.
fn wait(next: &mut ReplacementStatus, reasons: Vec<Reason>, turn: &Turn<'_>) {
    let now = turn.facts.now;
    if let Some(event) = reasons.iter().find_map(begin::reported) {
        event.add_to(next, &turn.subject.node, now);
    }
    next.block(FlowBox::Notice, reasons, now);
    if close::is_gone(next, turn) {
        close::finish(next, Finish::InstanceGone, turn);
    }
}
