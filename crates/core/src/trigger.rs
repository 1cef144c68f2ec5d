//! What people request beside the notices, and the answer.
//!
//! [`decide`] says what a trigger leads to. What it asks for is written into the records first ([`take_in`],
//! with the trigger's name); only then it is told in the trigger's own status. So a trigger is followed once,
//! whenever the process dies between the two.

#[cfg(test)]
mod tests;

pub use crate::trigger_answer::{TriggerAction, TriggerAnswer, TriggerReason, TriggerUpdate};

use crate::flow::{Event, Wish};
use crate::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use crate::neighbours::Neighbour;
use crate::reason::Pause;
use crate::record::{Condition, NoticeKind, OldNodeState, Phase, ReplacementStatus, UtilisationPercent};
use crate::replacement::{self, Subject};
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// A trigger is kept for so long at least after it was refused or is complete: for longer than the id of a
/// webhook's message, after which the API names a trigger, may be used again (five minutes).
const KEPT_AT_LEAST: Duration = Duration::from_secs(600);

/// A trigger, as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub action: TriggerAction,
    /// The pool that it is about.
    pub pool: Option<PoolName>,
    /// The node that it is about.
    pub node: Option<NodeName>,
    /// The replacement that it is about.
    pub replacement: Option<ReplacementName>,
    /// Who requested it.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When it was made, and which of those made in the same second came first.
    pub order: (Option<Timestamp>, u64),
    /// How far it has come.
    pub stage: TriggerStage,
}

/// How far a trigger has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerStage {
    /// Nothing was said of it.
    Pending,
    /// It is followed; a pause is in force.
    Accepted,
    /// It was refused, or is complete.
    Over,
}

impl TriggerStage {
    /// The stage that conditions tell of.
    #[must_use]
    pub fn of(conditions: &[Condition]) -> Self {
        let is = |type_: &str, status: &str| {
            conditions.iter().any(|held| held.type_ == type_ && held.status == status)
        };
        if is("Accepted", "False") || is("Complete", "True") {
            Self::Over
        } else if is("Accepted", "True") {
            Self::Accepted
        } else {
            Self::Pending
        }
    }
}

impl Ask {
    /// Whether it is a pause that holds: from the moment when it is seen, until it is over.
    #[must_use]
    pub fn pauses(&self) -> bool {
        self.action == TriggerAction::Pause && self.stage != TriggerStage::Over
    }

    /// Whether something is to be decided about it: not once it is over, and not while it is a pause in
    /// force.
    #[must_use]
    pub fn needs_look(&self) -> bool {
        match self.stage {
            TriggerStage::Pending => true,
            TriggerStage::Accepted => self.action != TriggerAction::Pause,
            TriggerStage::Over => false,
        }
    }

    /// Whether a pause was requested before this trigger. Versions tell the order of what nobody has
    /// changed yet.
    fn ends(&self, pause: &Self) -> bool {
        let same_second = pause.order.0 == self.order.0;
        let earlier = pause.stage == TriggerStage::Accepted || pause.order.1 < self.order.1;
        pause.pauses()
            && pause.pool == self.pool
            && (pause.order.0 < self.order.0 || (same_second && earlier))
    }

    /// What is recorded when it is followed.
    fn event(&self, wish: Wish) -> Event {
        let (trigger, by, reason) = (self.name.clone(), self.by.clone(), self.reason.clone());
        Event::Triggered { wish, trigger, by, reason }
    }
}

/// A replacement as triggers see it.
#[derive(Clone, Debug)]
pub struct StoredReplacement<'a> {
    /// The replacement's name.
    pub name: ReplacementName,
    /// The old node.
    pub node: &'a NodeName,
    /// The old instance.
    pub instance_id: &'a InstanceId,
    /// Its pool.
    pub pool: Option<&'a PoolName>,
    /// The record.
    pub status: &'a ReplacementStatus,
}

impl StoredReplacement<'_> {
    fn is_open(&self) -> bool {
        !self.status.phase.is_finished()
    }

    fn is_open_fallback(&self) -> bool {
        self.is_open() && self.status.fallback.is_open()
    }

    /// Whether the record has taken in that trigger.
    fn knows(&self, ask: &Ask) -> bool {
        self.status.triggers.contains(&ask.name)
    }
}

/// Where a node belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// There is no such node.
    Missing,
    /// The groups were not read since it came.
    Unread,
    /// It is in no group of any pool.
    Nowhere,
    /// Another tool has it in its hands.
    Neighbour(Neighbour),
    /// It is in the Spot group of a pool.
    Spot {
        /// The pool.
        pool: PoolName,
        /// Its instance.
        instance_id: InstanceId,
    },
    /// It is in the on-demand group of a pool.
    OnDemand {
        /// The pool.
        pool: PoolName,
    },
}

/// Everything that a trigger's effect depends on.
pub struct TriggerFacts<'a> {
    /// All replacements that are stored.
    pub stories: &'a [StoredReplacement<'a>],
    /// The triggers that pause something.
    pub triggers: &'a [Ask],
    /// Whether there is a pool of that name.
    pub is_pool: &'a dyn Fn(&PoolName) -> bool,
    /// Where a node belongs.
    pub place: &'a dyn Fn(&NodeName) -> Membership,
    /// Why a pool, or everything, is paused beside the pauses for just that which triggers asked for.
    pub otherwise_paused: &'a dyn Fn(Option<&PoolName>) -> Option<Pause>,
}

/// What comes of a trigger now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The answer is not known yet.
    Wait,
    /// The record of this instance has to be made first.
    Begin {
        /// The pool.
        pool: PoolName,
        /// The instance.
        instance_id: InstanceId,
    },
    /// These records have to take it in first, by name.
    Record(Vec<ReplacementName>),
    /// These pauses have to be ended first, by name.
    EndPauses(Vec<String>),
    /// To be written in its status.
    Tell(TriggerUpdate),
}

fn refuse(answer: TriggerAnswer) -> Decision {
    let accepted = Some((false, answer.reason()));
    Decision::Tell(TriggerUpdate::new(accepted, None, answer))
}

fn accept(answer: TriggerAnswer, replacements: Vec<ReplacementName>) -> Decision {
    let (accepted, complete) = (Some((true, answer.reason())), Some((true, TriggerReason::Recorded)));
    Decision::Tell(TriggerUpdate { replacements, ..TriggerUpdate::new(accepted, complete, answer) })
}

fn nothing_to_do(answer: TriggerAnswer, replacements: Vec<ReplacementName>) -> Decision {
    let told = Some((true, answer.reason()));
    Decision::Tell(TriggerUpdate { replacements, ..TriggerUpdate::new(told, told, answer) })
}

/// What comes of a trigger that is not over.
#[must_use]
pub fn decide(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    match ask.action {
        TriggerAction::Replace => replace(ask, facts),
        TriggerAction::Return => go_back(ask, facts),
        TriggerAction::Cancel => cancel(ask, facts),
        TriggerAction::Pause => pause(ask, facts),
        TriggerAction::Resume => resume(ask, facts),
    }
}

fn bad_target(ask: &Ask, needs: &'static str) -> Decision {
    refuse(TriggerAnswer::BadTarget { action: ask.action, needs })
}

fn replace(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    let Some(node) = ask.node.clone() else { return bad_target(ask, "spec.node") };
    if let Some(story) = facts.stories.iter().find(|story| story.knows(ask)) {
        let replacement = story.name.clone();
        return accept(
            TriggerAnswer::Replacing { node, replacement: replacement.clone() },
            vec![replacement],
        );
    }
    if let Some(story) = facts.stories.iter().find(|story| story.is_open() && *story.node == node) {
        if story.status.old_node.is_retained() {
            return refuse(TriggerAnswer::BeingCancelled { node, replacement: story.name.clone() });
        }
        return Decision::Record(vec![story.name.clone()]);
    }
    match (facts.place)(&node) {
        Membership::Missing => refuse(TriggerAnswer::NoSuchNode { node }),
        Membership::Unread => Decision::Wait,
        Membership::Nowhere => refuse(TriggerAnswer::NotInPool { node }),
        Membership::Neighbour(neighbour) => refuse(TriggerAnswer::LeftToNeighbour { node, neighbour }),
        Membership::OnDemand { pool } => refuse(TriggerAnswer::OnDemandInstance { node, pool }),
        Membership::Spot { pool, instance_id } => {
            match facts.stories.iter().find(|story| *story.instance_id == instance_id) {
                Some(story) if story.status.phase == Phase::Cancelled => {
                    Decision::Record(vec![story.name.clone()])
                }
                Some(story) => {
                    refuse(TriggerAnswer::ReplacedAlready { node, replacement: story.name.clone() })
                }
                None => Decision::Begin { pool, instance_id },
            }
        }
    }
}

fn go_back(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    let stories = facts.stories.iter();
    let taken_in: Vec<ReplacementName> =
        stories.clone().filter(|story| story.knows(ask)).map(|story| story.name.clone()).collect();
    let open: Vec<&StoredReplacement<'_>> = stories
        .clone()
        .filter(|story| {
            let stands_in = story.status.capacity.taken().map(|capacity| &capacity.node_name);
            let meant = match (&ask.replacement, &ask.node, &ask.pool) {
                (Some(name), _, _) => story.name == *name,
                (_, Some(node), _) => story.node == node || stands_in == Some(node),
                (_, _, pool) => pool.is_some() && story.pool == pool.as_ref(),
            };
            meant && story.is_open_fallback()
        })
        .collect();
    let lacking: Vec<ReplacementName> =
        open.iter().filter(|story| !story.knows(ask)).map(|story| story.name.clone()).collect();
    if !lacking.is_empty() {
        return Decision::Record(lacking);
    }
    if !taken_in.is_empty() {
        return accept(TriggerAnswer::Returning, taken_in);
    }
    match (&ask.replacement, &ask.node, &ask.pool) {
        (Some(name), _, _) => match facts.stories.iter().find(|story| story.name == *name) {
            None => refuse(TriggerAnswer::NoSuchReplacement { replacement: name.clone() }),
            Some(story) => {
                refuse(TriggerAnswer::NoFallback { replacement: name.clone(), phase: story.status.phase })
            }
        },
        (_, Some(node), _) => refuse(TriggerAnswer::NoFallbackOfNode { node: node.clone() }),
        (_, _, Some(pool)) if !(facts.is_pool)(pool) => {
            refuse(TriggerAnswer::NoSuchPool { pool: pool.clone() })
        }
        (_, _, Some(pool)) => {
            nothing_to_do(TriggerAnswer::NoFallbackInPool { pool: pool.clone() }, Vec::new())
        }
        (None, None, None) => bad_target(ask, "spec.replacement, spec.node or spec.pool"),
    }
}

fn cancel(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    let meant = |story: &&StoredReplacement<'_>| match (&ask.replacement, &ask.node) {
        (Some(name), _) => story.name == *name,
        (_, node) => node.as_ref() == Some(story.node),
    };
    let mut found: Vec<&StoredReplacement<'_>> = facts.stories.iter().filter(meant).collect();
    found.sort_by_key(|story| (!story.knows(ask), !story.is_open(), story.status.phase != Phase::Cancelled));
    let Some(story) = found.first() else {
        return match (&ask.replacement, &ask.node) {
            (Some(name), _) => refuse(TriggerAnswer::NoSuchReplacement { replacement: name.clone() }),
            (_, Some(node)) => refuse(TriggerAnswer::NoReplacementOfNode { node: node.clone() }),
            (None, None) => bad_target(ask, "spec.replacement or spec.node"),
        };
    };
    let name = story.name.clone();
    if story.knows(ask) {
        return accept(TriggerAnswer::Cancelling { replacement: name.clone() }, vec![name]);
    }
    if story.status.old_node.is_retained() {
        return nothing_to_do(TriggerAnswer::CancelledAlready { replacement: name.clone() }, vec![name]);
    }
    match cancel_refused(story) {
        Some(answer) => refuse(answer),
        None => Decision::Record(vec![name]),
    }
}

/// Why a replacement cannot be cancelled, if so.
fn cancel_refused(story: &StoredReplacement<'_>) -> Option<TriggerAnswer> {
    let (replacement, instance_id) = (story.name.clone(), story.instance_id.clone());
    if story.status.phase.is_finished() {
        return Some(TriggerAnswer::ReplacementOver { replacement });
    }
    if let Some(deadline) = story.status.deadline {
        return Some(TriggerAnswer::DeadlinePresses { replacement, instance_id, deadline });
    }
    match *story.status.old_node {
        OldNodeState::Kept {}
        | OldNodeState::Draining(_)
        | OldNodeState::Drained(_)
        | OldNodeState::Retained {} => None,
        OldNodeState::Terminating(_) => Some(TriggerAnswer::OldInstanceEnding { instance_id }),
        OldNodeState::Gone {} if story.status.fallback.is_open() => {
            Some(TriggerAnswer::FallbackStandsIn { replacement, instance_id })
        }
        OldNodeState::Gone {} => Some(TriggerAnswer::OldInstanceGone { instance_id }),
    }
}

fn pause(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    if ask.stage == TriggerStage::Accepted {
        return Decision::Wait;
    }
    if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
        return refuse(TriggerAnswer::NoSuchPool { pool: pool.clone() });
    }
    let answer = TriggerAnswer::Paused { pool: ask.pool.clone() };
    let (accepted, complete) = (Some((true, answer.reason())), Some((false, TriggerReason::InForce)));
    Decision::Tell(TriggerUpdate::new(accepted, complete, answer))
}

fn resume(ask: &Ask, facts: &TriggerFacts<'_>) -> Decision {
    let ended: Vec<&Ask> = facts.triggers.iter().filter(|pause| ask.ends(pause)).collect();
    let still = (facts.otherwise_paused)(ask.pool.as_ref());
    if ask.stage == TriggerStage::Accepted {
        if !ended.is_empty() {
            return Decision::EndPauses(ended.into_iter().map(|pause| pause.name.clone()).collect());
        }
        let answer = TriggerAnswer::PausesOver { still };
        return Decision::Tell(TriggerUpdate::new(None, Some((true, answer.reason())), answer));
    }
    if ended.is_empty() {
        if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
            return refuse(TriggerAnswer::NoSuchPool { pool: pool.clone() });
        }
        return nothing_to_do(TriggerAnswer::NotPaused { pool: ask.pool.clone(), still }, Vec::new());
    }
    let pauses = ended.iter().map(|pause| pause.name.clone()).collect();
    let answer = TriggerAnswer::Ends { pauses, still };
    Decision::Tell(TriggerUpdate::new(Some((true, answer.reason())), None, answer))
}

/// Takes a trigger into a record that is not over, if that still can follow it; what came meanwhile
/// decides. To be stored before the answer is written in the trigger's status.
pub fn take_in(ask: &Ask, subject: &Subject, status: &mut ReplacementStatus, now: Timestamp) {
    if status.triggers.contains(&ask.name) || status.phase.is_finished() {
        return;
    }
    match ask.action {
        TriggerAction::Replace if !status.old_node.is_retained() => {
            // What waits for a limit that advice has to keep goes on as what a person requested.
            let waits = status.phase == Phase::Received && status.deadline.is_none();
            if waits && status.notice.is_some() {
                status.notice = Some(NoticeKind::Manual);
            }
            ask.event(Wish::Replacement).add_to(status, &subject.node, now);
        }
        TriggerAction::Return if status.fallback.is_open() => {
            if let Some(open) = status.fallback.open_mut() {
                open.requested_at = Some(now);
                open.not_before = None;
                // What Spot owes is requested at once.
                open.next_probe_at = open.next_probe_at.map(|at| at.min(now));
            }
            let node = status.capacity.taken().map_or(&subject.node, |held| &held.node_name).clone();
            ask.event(Wish::Return).add_to(status, &node, now);
        }
        TriggerAction::Cancel => {
            let story = StoredReplacement {
                name: subject.name.clone(),
                node: &subject.node,
                instance_id: &subject.instance_id,
                pool: None,
                status,
            };
            if status.old_node.is_retained() || cancel_refused(&story).is_some() {
                return;
            }
            replacement::cancel(status, now);
            ask.event(Wish::Cancellation).add_to(status, &subject.node, now);
        }
        _ => return,
    }
    status.take_in_trigger(&ask.name);
}

/// A fresh record for a node whose replacement was requested.
#[must_use]
pub fn open(
    ask: &Ask,
    subject: &Subject,
    utilisation: Option<UtilisationPercent>,
    traceparent: Option<String>,
    now: Timestamp,
) -> ReplacementStatus {
    let mut status = replacement::open(subject, NoticeKind::Manual, None, utilisation, traceparent, now);
    if let Some(step) = status.steps.last_mut() {
        step.message = ask.event(Wish::Replacement).to_string();
    }
    status.take_in_trigger(&ask.name);
    status
}

/// Whether a trigger can be removed, if those that are over are kept for `keep`. A pause that holds never is.
#[must_use]
pub fn is_removable(conditions: &[Condition], keep: Duration, now: Timestamp) -> bool {
    let last = conditions.iter().map(|held| held.last_transition_time).max();
    let long_ago = last.is_some_and(|at| since(at, now) >= keep.max(KEPT_AT_LEAST));
    TriggerStage::of(conditions) == TriggerStage::Over && long_ago
}
