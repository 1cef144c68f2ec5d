//! What people request beside the notices, and the answer.
//!
//! [`decide`] says what a SpotAction leads to. What it asks for is written into the records first
//! ([`take_in`], with the SpotAction's name); only then it is told in the SpotAction's own status. So a
//! SpotAction is followed once, whenever the process dies between the two.

#[cfg(test)]
mod tests;

pub use crate::spot_action_answer::{ActionAnswer, ActionKind, ActionReason, ActionUpdate};

use crate::flow::{Event, Wish};
use crate::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use crate::neighbours::Neighbour;
use crate::reason::Pause;
use crate::record::{Condition, NoticeKind, OldNodeState, Phase, ReplacementStatus, UtilisationPercent};
use crate::replacement::{self, Subject};
use crate::time::since;
use jiff::Timestamp;
use std::time::Duration;

/// A SpotAction is kept for so long at least after it was refused or is complete: for longer than the id of a
/// webhook's message, after which the API names a SpotAction, may be used again (five minutes).
const KEPT_AT_LEAST: Duration = Duration::from_secs(600);

/// A SpotAction, as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedAction {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub action: ActionKind,
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
    pub stage: ActionStage,
}

/// How far a SpotAction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionStage {
    /// Nothing was said of it.
    Pending,
    /// It is followed; a pause is in force.
    Accepted,
    /// It was refused, or is complete.
    Over,
}

impl ActionStage {
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

impl RequestedAction {
    /// Whether it is a pause that holds: from the moment when it is seen, until it is over.
    #[must_use]
    pub fn pauses(&self) -> bool {
        self.action == ActionKind::Pause && self.stage != ActionStage::Over
    }

    /// Whether something is to be decided about it: not once it is over, and not while it is a pause in
    /// force.
    #[must_use]
    pub fn needs_look(&self) -> bool {
        match self.stage {
            ActionStage::Pending => true,
            ActionStage::Accepted => self.action != ActionKind::Pause,
            ActionStage::Over => false,
        }
    }

    /// Whether a pause was requested before this SpotAction. Versions tell the order of what nobody has
    /// changed yet.
    fn ends(&self, pause: &Self) -> bool {
        let same_second = pause.order.0 == self.order.0;
        let earlier = pause.stage == ActionStage::Accepted || pause.order.1 < self.order.1;
        pause.pauses()
            && pause.pool == self.pool
            && (pause.order.0 < self.order.0 || (same_second && earlier))
    }

    /// What is recorded when it is followed.
    fn event(&self, wish: Wish) -> Event {
        let (spot_action, by, reason) = (self.name.clone(), self.by.clone(), self.reason.clone());
        Event::ActionFollowed { wish, spot_action, by, reason }
    }
}

/// A replacement as SpotActions see it.
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
        !self.status.phase().is_finished()
    }

    fn is_open_fallback(&self) -> bool {
        self.is_open() && self.status.fallback.is_open()
    }

    /// Whether the record has taken in that SpotAction.
    fn knows(&self, ask: &RequestedAction) -> bool {
        self.status.spot_actions.contains(&ask.name)
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

/// Everything that a SpotAction's effect depends on.
pub struct ActionFacts<'a> {
    /// All replacements that are stored.
    pub stories: &'a [StoredReplacement<'a>],
    /// The SpotActions that pause something.
    pub spot_actions: &'a [RequestedAction],
    /// Whether there is a pool of that name.
    pub is_pool: &'a dyn Fn(&PoolName) -> bool,
    /// Where a node belongs.
    pub place: &'a dyn Fn(&NodeName) -> Membership,
    /// Why a pool, or everything, is paused beside the pauses for just that which SpotActions asked for.
    pub otherwise_paused: &'a dyn Fn(Option<&PoolName>) -> Option<Pause>,
}

/// What comes of a SpotAction now.
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
    Tell(ActionUpdate),
}

fn refuse(answer: ActionAnswer) -> Decision {
    let accepted = Some((false, answer.reason()));
    Decision::Tell(ActionUpdate::new(accepted, None, answer))
}

fn accept(answer: ActionAnswer, replacements: Vec<ReplacementName>) -> Decision {
    let (accepted, complete) = (Some((true, answer.reason())), Some((true, ActionReason::Recorded)));
    Decision::Tell(ActionUpdate { replacements, ..ActionUpdate::new(accepted, complete, answer) })
}

fn nothing_to_do(answer: ActionAnswer, replacements: Vec<ReplacementName>) -> Decision {
    let told = Some((true, answer.reason()));
    Decision::Tell(ActionUpdate { replacements, ..ActionUpdate::new(told, told, answer) })
}

/// What comes of a SpotAction that is not over.
#[must_use]
pub fn decide(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
    match ask.action {
        ActionKind::Replace => replace(ask, facts),
        ActionKind::Return => go_back(ask, facts),
        ActionKind::Cancel => cancel(ask, facts),
        ActionKind::Pause => pause(ask, facts),
        ActionKind::Resume => resume(ask, facts),
    }
}

fn bad_target(ask: &RequestedAction, needs: &'static str) -> Decision {
    refuse(ActionAnswer::BadTarget { action: ask.action, needs })
}

fn replace(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
    let Some(node) = ask.node.clone() else { return bad_target(ask, "spec.node") };
    if let Some(story) = facts.stories.iter().find(|story| story.knows(ask)) {
        let replacement = story.name.clone();
        return accept(ActionAnswer::Replacing { node, replacement: replacement.clone() }, vec![replacement]);
    }
    if let Some(story) = facts.stories.iter().find(|story| story.is_open() && *story.node == node) {
        if story.status.old_node.is_retained() {
            return refuse(ActionAnswer::BeingCancelled { node, replacement: story.name.clone() });
        }
        return Decision::Record(vec![story.name.clone()]);
    }
    match (facts.place)(&node) {
        Membership::Missing => refuse(ActionAnswer::NoSuchNode { node }),
        Membership::Unread => Decision::Wait,
        Membership::Nowhere => refuse(ActionAnswer::NotInPool { node }),
        Membership::Neighbour(neighbour) => refuse(ActionAnswer::LeftToNeighbour { node, neighbour }),
        Membership::OnDemand { pool } => refuse(ActionAnswer::OnDemandInstance { node, pool }),
        Membership::Spot { pool, instance_id } => {
            match facts.stories.iter().find(|story| *story.instance_id == instance_id) {
                Some(story) if story.status.phase() == Phase::Cancelled => {
                    Decision::Record(vec![story.name.clone()])
                }
                Some(story) => {
                    refuse(ActionAnswer::ReplacedAlready { node, replacement: story.name.clone() })
                }
                None => Decision::Begin { pool, instance_id },
            }
        }
    }
}

fn go_back(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
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
        return accept(ActionAnswer::Returning, taken_in);
    }
    match (&ask.replacement, &ask.node, &ask.pool) {
        (Some(name), _, _) => match facts.stories.iter().find(|story| story.name == *name) {
            None => refuse(ActionAnswer::NoSuchReplacement { replacement: name.clone() }),
            Some(story) => {
                refuse(ActionAnswer::NoFallback { replacement: name.clone(), phase: story.status.phase() })
            }
        },
        (_, Some(node), _) => refuse(ActionAnswer::NoFallbackOfNode { node: node.clone() }),
        (_, _, Some(pool)) if !(facts.is_pool)(pool) => {
            refuse(ActionAnswer::NoSuchPool { pool: pool.clone() })
        }
        (_, _, Some(pool)) => {
            nothing_to_do(ActionAnswer::NoFallbackInPool { pool: pool.clone() }, Vec::new())
        }
        (None, None, None) => bad_target(ask, "spec.replacement, spec.node or spec.pool"),
    }
}

fn cancel(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
    let meant = |story: &&StoredReplacement<'_>| match (&ask.replacement, &ask.node) {
        (Some(name), _) => story.name == *name,
        (_, node) => node.as_ref() == Some(story.node),
    };
    let mut found: Vec<&StoredReplacement<'_>> = facts.stories.iter().filter(meant).collect();
    found
        .sort_by_key(|story| (!story.knows(ask), !story.is_open(), story.status.phase() != Phase::Cancelled));
    let Some(story) = found.first() else {
        return match (&ask.replacement, &ask.node) {
            (Some(name), _) => refuse(ActionAnswer::NoSuchReplacement { replacement: name.clone() }),
            (_, Some(node)) => refuse(ActionAnswer::NoReplacementOfNode { node: node.clone() }),
            (None, None) => bad_target(ask, "spec.replacement or spec.node"),
        };
    };
    let name = story.name.clone();
    if story.knows(ask) {
        return accept(ActionAnswer::Cancelling { replacement: name.clone() }, vec![name]);
    }
    if story.status.old_node.is_retained() {
        return nothing_to_do(ActionAnswer::CancelledAlready { replacement: name.clone() }, vec![name]);
    }
    match cancel_refused(story) {
        Some(answer) => refuse(answer),
        None => Decision::Record(vec![name]),
    }
}

/// Why a replacement cannot be cancelled, if so.
fn cancel_refused(story: &StoredReplacement<'_>) -> Option<ActionAnswer> {
    let (replacement, instance_id) = (story.name.clone(), story.instance_id.clone());
    if story.status.phase().is_finished() {
        return Some(ActionAnswer::ReplacementOver { replacement });
    }
    if let Some(deadline) = story.status.deadline {
        return Some(ActionAnswer::DeadlinePresses { replacement, instance_id, deadline });
    }
    match *story.status.old_node {
        OldNodeState::Kept {}
        | OldNodeState::Draining(_)
        | OldNodeState::Drained(_)
        | OldNodeState::Retained {} => None,
        OldNodeState::Terminating(_) => Some(ActionAnswer::OldInstanceTerminating { instance_id }),
        OldNodeState::Gone {} if story.status.fallback.is_open() => {
            Some(ActionAnswer::FallbackStandsIn { replacement, instance_id })
        }
        OldNodeState::Gone {} => Some(ActionAnswer::OldInstanceGone { instance_id }),
    }
}

fn pause(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
    if ask.stage == ActionStage::Accepted {
        return Decision::Wait;
    }
    if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
        return refuse(ActionAnswer::NoSuchPool { pool: pool.clone() });
    }
    let answer = ActionAnswer::Paused { pool: ask.pool.clone() };
    let (accepted, complete) = (Some((true, answer.reason())), Some((false, ActionReason::InForce)));
    Decision::Tell(ActionUpdate::new(accepted, complete, answer))
}

fn resume(ask: &RequestedAction, facts: &ActionFacts<'_>) -> Decision {
    let ended: Vec<&RequestedAction> = facts.spot_actions.iter().filter(|pause| ask.ends(pause)).collect();
    let still = (facts.otherwise_paused)(ask.pool.as_ref());
    if ask.stage == ActionStage::Accepted {
        if !ended.is_empty() {
            return Decision::EndPauses(ended.into_iter().map(|pause| pause.name.clone()).collect());
        }
        let answer = ActionAnswer::PausesOver { still };
        return Decision::Tell(ActionUpdate::new(None, Some((true, answer.reason())), answer));
    }
    if ended.is_empty() {
        if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
            return refuse(ActionAnswer::NoSuchPool { pool: pool.clone() });
        }
        return nothing_to_do(ActionAnswer::NotPaused { pool: ask.pool.clone(), still }, Vec::new());
    }
    let pauses = ended.iter().map(|pause| pause.name.clone()).collect();
    let answer = ActionAnswer::Ends { pauses, still };
    Decision::Tell(ActionUpdate::new(Some((true, answer.reason())), None, answer))
}

/// Takes a SpotAction into a record that is not over, if that still can follow it; what came meanwhile
/// decides. To be stored before the answer is written in the SpotAction's status.
pub fn take_in(ask: &RequestedAction, subject: &Subject, status: &mut ReplacementStatus, now: Timestamp) {
    if status.spot_actions.contains(&ask.name) || status.phase().is_finished() {
        return;
    }
    match ask.action {
        ActionKind::Replace if !status.old_node.is_retained() => {
            // What waits for a limit that advice has to keep goes on as what a person requested.
            let waits = status.phase() == Phase::Received && status.deadline.is_none();
            if waits && status.notice.is_some() {
                status.notice = Some(NoticeKind::Manual);
            }
            ask.event(Wish::Replacement).add_to(status, &subject.node, now);
        }
        ActionKind::Return if status.fallback.is_open() => {
            if let Some(open) = status.fallback.open_mut() {
                open.requested_at = Some(now);
                open.not_before = None;
                // What Spot owes is requested at once.
                open.next_probe_at = open.next_probe_at.map(|at| at.min(now));
            }
            let node = status.capacity.taken().map_or(&subject.node, |held| &held.node_name).clone();
            ask.event(Wish::Return).add_to(status, &node, now);
        }
        ActionKind::Cancel => {
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
    status.take_in_spot_action(&ask.name);
}

/// A fresh record for a node whose replacement was requested.
#[must_use]
pub fn open(
    ask: &RequestedAction,
    subject: &Subject,
    utilisation: Option<UtilisationPercent>,
    traceparent: Option<String>,
    now: Timestamp,
) -> ReplacementStatus {
    let mut status = replacement::open(subject, NoticeKind::Manual, None, utilisation, traceparent, now);
    if let Some(step) = status.steps.last_mut() {
        step.message = ask.event(Wish::Replacement).to_string();
    }
    status.take_in_spot_action(&ask.name);
    status
}

/// Whether a SpotAction can be removed, if those that are over are kept for `keep`. A pause that holds never
/// is.
#[must_use]
pub fn is_removable(conditions: &[Condition], keep: Duration, now: Timestamp) -> bool {
    let last = conditions.iter().map(|held| held.last_transition_time).max();
    let long_ago = last.is_some_and(|at| since(at, now) >= keep.max(KEPT_AT_LEAST));
    ActionStage::of(conditions) == ActionStage::Over && long_ago
}
