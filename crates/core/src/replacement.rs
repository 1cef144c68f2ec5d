//! The state machine of a replacement: one node's way through the boxes of the flow.
//!
//! [`advance`] takes the record and the facts and gives the next record; it is stored before anything is
//! done. [`commands`] derives from a stored record what must hold in the world now; every command may be
//! repeated. So a replacement is resumed from its record alone, after any crash.

mod begin;
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
pub use commands::{Commands, commands};
pub use facts::{Facts, Fit, Mode, NodeFact, RebalanceMode, Subject};

use crate::flow::Finish;
use crate::notices;
use crate::reason::Reason;
use crate::record::{FlowBox, ReplacementStatus};
use facts::Turn;

/// The next record of a replacement.
#[must_use]
pub fn advance(subject: &Subject, status: &ReplacementStatus, facts: &Facts<'_>) -> ReplacementStatus {
    let mut next = status.clone();
    if next.is_finished() {
        return next;
    }
    // EC2 cannot have given one that is so far away, whoever wrote it.
    next.deadline = next.deadline.filter(|at| !notices::is_too_far(*at, facts.now));
    next.spot_group = next.spot_group.or_else(|| facts.group_of_old(subject));
    let turn = Turn::new(subject, status, facts);
    if next.old_node.is_retained() && !next.capacity.is_requested() {
        close::finish(&mut next, Finish::NothingRequested, &turn);
        return next;
    }
    let mode = facts.mode_for(subject, &next);
    let reasons = begin::held_back(&next, subject, mode, facts);
    if !reasons.is_empty() {
        wait(&mut next, reasons, &turn);
        return next;
    }
    next.blocking.retain(|reason| reason.flow_box != FlowBox::Notice);
    // Before the groups and the ledger were read once, nothing can be said of capacity.
    let known = facts.view.is_some();
    if mode == Mode::Act && known {
        unusable::report(&mut next, &turn);
        capacity::find(&mut next, &turn);
    }
    leave::drain(&mut next, mode, &turn);
    if mode == Mode::Act && known {
        leave::terminate(&mut next, &turn);
        go_back::go_back(&mut next, &turn);
        close::close(&mut next, &turn);
    } else if next.old_node.is_retained() {
        if known {
            close::close(&mut next, &turn);
        }
    } else if close::is_gone(&turn) {
        close::finish(&mut next, Finish::NodeGone, &turn);
    }
    next.settle_phase(facts.now);
    next
}

/// Box 1 lets nothing begin.
fn wait(next: &mut ReplacementStatus, reasons: Vec<Reason>, turn: &Turn<'_>) {
    let now = turn.facts.now;
    if let Some(event) = reasons.iter().find_map(begin::reported) {
        event.add_to(next, &turn.subject.node, now);
    }
    next.block(FlowBox::Notice, reasons, now);
    if close::is_gone(turn) {
        close::finish(next, Finish::InstanceGone, turn);
    }
}
