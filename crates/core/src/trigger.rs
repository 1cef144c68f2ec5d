//! What people ask for beside the notices, and what comes of it.
//!
//! [`decide`] says what a trigger leads to. What it asks for is written into the records first ([`take_in`], with the
//! trigger's name); only then it is told in the trigger's own status. So a trigger is followed once, whenever the
//! process dies between the two.

#[cfg(test)]
mod tests;

use crate::neighbours::Neighbour;
use crate::record::{
    Condition, FlowBox, NoticeKind, OldNodeState, Outcome, Phase, ReplacementStatus, UtilisationPercent,
    set_condition,
};
use crate::replacement::{self, Subject};
use crate::time::since;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A trigger is kept for so long at least after it was refused or is complete: for longer than the id of a webhook's
/// message, after which the API names a trigger, may be used again (five minutes).
const KEPT_AT_LEAST: Duration = Duration::from_secs(600);

/// What a trigger asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TriggerAction {
    /// Replace a node, as on a rebalance recommendation.
    Replace,
    /// Return a fallback to Spot now: stability is not waited for, safety is.
    Return,
    /// End the story of a node whose old instance is still wanted.
    Cancel,
    /// Let no replacement and no return begin, in a pool or everywhere, until a `Resume` for the same.
    Pause,
    /// End the pauses that were asked for the same pool, or for everything.
    Resume,
}

impl std::fmt::Display for TriggerAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Why a trigger is refused or followed: the reason of its conditions, for machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TriggerReason {
    /// It is followed.
    Accepted,
    /// It asks for what is so already.
    NothingToDo,
    /// What it asked for is written in the records.
    Recorded,
    /// A pause is in force.
    InForce,
    /// A pause was ended by a `Resume`.
    Resumed,
    /// Its target does not fit its action.
    BadTarget,
    /// There is no such pool, node or replacement.
    UnknownTarget,
    /// The node belongs to no pool.
    NotInPool,
    /// Another tool has the node in its hands.
    LeftToNeighbour,
    /// The node is an on-demand instance of a pool.
    OnDemandInstance,
    /// The story is being cancelled.
    BeingCancelled,
    /// The replacement is no open fallback.
    NoOpenFallback,
    /// The story is over.
    StoryOver,
    /// EC2 takes the instance at a deadline.
    DeadlinePresses,
    /// The old instance is being ended.
    OldInstanceEnding,
    /// The old instance is gone.
    OldInstanceGone,
}

impl std::fmt::Display for TriggerReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A trigger, as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name.
    pub name: String,
    /// What it asks for.
    pub action: TriggerAction,
    /// The pool that it is about.
    pub pool: Option<String>,
    /// The node that it is about.
    pub node: Option<String>,
    /// The replacement that it is about.
    pub replacement: Option<String>,
    /// Who asked.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// When it was made, and which of those made in the same second came first.
    pub order: (Option<Timestamp>, u64),
    /// How far it has come.
    pub stage: Stage,
}

/// How far a trigger has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was said of it.
    Pending,
    /// It is followed; a pause is in force.
    Accepted,
    /// It was refused, or is complete.
    Over,
}

impl Stage {
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
        self.action == TriggerAction::Pause && self.stage != Stage::Over
    }

    /// Whether a pause was asked for before this trigger. Versions tell the order of what nobody has changed yet.
    fn ends(&self, pause: &Self) -> bool {
        let same_second = pause.order.0 == self.order.0;
        let earlier = pause.stage == Stage::Accepted || pause.order.1 < self.order.1;
        pause.pauses()
            && pause.pool == self.pool
            && (pause.order.0 < self.order.0 || (same_second && earlier))
    }

    /// Who asked, by what, and why, in plain words.
    #[must_use]
    pub fn told(&self) -> String {
        let by = self.by.as_ref().map_or_else(String::new, |by| format!(" by {by}"));
        let why = self.reason.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("asked for{by} (trigger {}){why}", self.name)
    }

    /// What a pause or its end is about.
    fn scope(&self) -> String {
        self.pool.as_ref().map_or_else(|| "everything".to_owned(), |pool| format!("pool {pool}"))
    }
}

/// A story as triggers see it.
#[derive(Clone, Debug)]
pub struct Story<'a> {
    /// The replacement's name.
    pub name: &'a str,
    /// The old node.
    pub node: &'a str,
    /// The old instance.
    pub instance_id: &'a str,
    /// Its pool.
    pub pool: Option<&'a str>,
    /// The record.
    pub status: &'a ReplacementStatus,
}

impl Story<'_> {
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
pub enum Place {
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
        pool: String,
        /// Its instance.
        instance_id: String,
    },
    /// It is in the on-demand group of a pool.
    OnDemand {
        /// The pool.
        pool: String,
    },
}

/// Everything that a trigger's effect depends on.
pub struct Facts<'a> {
    /// All stories that are stored.
    pub stories: &'a [Story<'a>],
    /// All triggers.
    pub triggers: &'a [Ask],
    /// Whether there is a pool of that name.
    pub is_pool: &'a dyn Fn(&str) -> bool,
    /// Where a node belongs.
    pub place: &'a dyn Fn(&str) -> Place,
    /// Why a pool, or everything, is paused beside the pauses for just that which triggers asked for.
    pub otherwise_paused: &'a dyn Fn(Option<&str>) -> Option<String>,
}

/// What comes of a trigger now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It cannot be told yet.
    Wait,
    /// The record of this instance has to be made first.
    Begin {
        /// The pool.
        pool: String,
        /// The instance.
        instance_id: String,
    },
    /// These records have to take it in first, by name.
    Record(Vec<String>),
    /// These pauses have to be ended first, by name.
    EndPauses(Vec<String>),
    /// To be told in its status.
    Tell(Verdict),
}

/// What is told in a trigger's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The condition `Accepted`, if it changes: whether the trigger is followed, and why.
    pub accepted: Option<(bool, TriggerReason)>,
    /// The condition `Complete`, if it changes: whether nothing is left to do for it.
    pub complete: Option<(bool, TriggerReason)>,
    /// In plain words.
    pub message: String,
    /// The replacements that it led to.
    pub replacements: Vec<String>,
}

impl Verdict {
    fn new(
        accepted: Option<(bool, TriggerReason)>,
        complete: Option<(bool, TriggerReason)>,
        message: String,
    ) -> Self {
        Self { accepted, complete, message, replacements: Vec::new() }
    }

    /// What a `Resume` tells of a pause that it ends.
    #[must_use]
    pub fn ended_by(resume: &Ask) -> Self {
        let by = resume.by.as_ref().map_or_else(String::new, |by| format!(", asked for by {by}"));
        let text = format!("ended by trigger {}{by}", resume.name);
        Self::new(None, Some((true, TriggerReason::Resumed)), text)
    }

    /// Whether the trigger is refused.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.accepted.is_some_and(|(accepted, _)| !accepted)
    }

    /// Sets the conditions.
    pub fn tell(&self, conditions: &mut Vec<Condition>, now: Timestamp) {
        for (type_, told) in [("Accepted", self.accepted), ("Complete", self.complete)] {
            if let Some((status, reason)) = told {
                set_condition(conditions, type_, status, &reason.to_string(), &self.message, now);
            }
        }
    }
}

fn refuse(reason: TriggerReason, message: String) -> Decision {
    Decision::Tell(Verdict::new(Some((false, reason)), None, message))
}

fn accept(message: String, replacements: Vec<String>) -> Decision {
    let (accepted, complete) = (Some((true, TriggerReason::Accepted)), Some((true, TriggerReason::Recorded)));
    Decision::Tell(Verdict { replacements, ..Verdict::new(accepted, complete, message) })
}

fn nothing_to_do(message: String, replacements: Vec<String>) -> Decision {
    let told = Some((true, TriggerReason::NothingToDo));
    Decision::Tell(Verdict { replacements, ..Verdict::new(told, told, message) })
}

/// What comes of a trigger that is not over.
#[must_use]
pub fn decide(ask: &Ask, facts: &Facts<'_>) -> Decision {
    match ask.action {
        TriggerAction::Replace => replace(ask, facts),
        TriggerAction::Return => go_back(ask, facts),
        TriggerAction::Cancel => cancel(ask, facts),
        TriggerAction::Pause => pause(ask, facts),
        TriggerAction::Resume => resume(ask, facts),
    }
}

fn bad_target(ask: &Ask, wants: &str) -> Decision {
    refuse(TriggerReason::BadTarget, format!("action {} needs {wants}", ask.action))
}

fn replace(ask: &Ask, facts: &Facts<'_>) -> Decision {
    let Some(node) = &ask.node else { return bad_target(ask, "spec.node") };
    if let Some(story) = facts.stories.iter().find(|story| story.knows(ask)) {
        return accept(
            format!("replacement {} is about node {node}", story.name),
            vec![story.name.to_owned()],
        );
    }
    if let Some(story) = facts.stories.iter().find(|story| story.is_open() && story.node == node) {
        if story.status.old_node.is_retained() {
            let text = format!("the story {} of node {node} is being cancelled; ask again then", story.name);
            return refuse(TriggerReason::BeingCancelled, text);
        }
        return Decision::Record(vec![story.name.to_owned()]);
    }
    match (facts.place)(node) {
        Place::Missing => refuse(TriggerReason::UnknownTarget, format!("there is no node {node}")),
        Place::Unread => Decision::Wait,
        Place::Nowhere => {
            let text = format!("node {node} is in the Spot group of no pool");
            refuse(TriggerReason::NotInPool, text)
        }
        Place::Neighbour(neighbour) => {
            let text = format!("node {node} is left to {neighbour}, which has it in its hands");
            refuse(TriggerReason::LeftToNeighbour, text)
        }
        Place::OnDemand { pool } => {
            let text = format!(
                "node {node} is an on-demand instance of pool {pool}: fallbacks are returned, not replaced"
            );
            refuse(TriggerReason::OnDemandInstance, text)
        }
        Place::Spot { pool, instance_id } => {
            match facts.stories.iter().find(|story| story.instance_id == instance_id) {
                Some(story) if story.status.phase == Phase::Cancelled => {
                    Decision::Record(vec![story.name.to_owned()])
                }
                Some(story) => {
                    let text = format!("node {node} was replaced already, by replacement {}", story.name);
                    refuse(TriggerReason::StoryOver, text)
                }
                None => Decision::Begin { pool, instance_id },
            }
        }
    }
}

fn go_back(ask: &Ask, facts: &Facts<'_>) -> Decision {
    let stories = facts.stories.iter();
    let taken_in: Vec<String> =
        stories.clone().filter(|story| story.knows(ask)).map(|story| story.name.to_owned()).collect();
    let open: Vec<&Story<'_>> = stories
        .clone()
        .filter(|story| {
            let stands_in = story.status.capacity.taken().map(|capacity| capacity.node_name.as_str());
            let meant = match (&ask.replacement, &ask.node, &ask.pool) {
                (Some(name), _, _) => story.name == name,
                (_, Some(node), _) => story.node == node || stands_in == Some(node),
                (_, _, pool) => pool.is_some() && story.pool == pool.as_deref(),
            };
            meant && story.is_open_fallback()
        })
        .collect();
    let lacking: Vec<String> =
        open.iter().filter(|story| !story.knows(ask)).map(|story| story.name.to_owned()).collect();
    if !lacking.is_empty() {
        return Decision::Record(lacking);
    }
    if !taken_in.is_empty() {
        let text =
            "it goes back to Spot as soon as that is safe; stability, budget and windows are not waited for";
        return accept(text.to_owned(), taken_in);
    }
    match (&ask.replacement, &ask.node, &ask.pool) {
        (Some(name), _, _) => match facts.stories.iter().find(|story| story.name == name) {
            None => refuse(TriggerReason::UnknownTarget, format!("there is no NodeReplacement {name}")),
            Some(story) => {
                let text = format!("replacement {name} is no open fallback: it is {:?}", story.status.phase);
                refuse(TriggerReason::NoOpenFallback, text)
            }
        },
        (_, Some(node), _) => {
            let text = format!("node {node} neither stands in for another one, nor does one for it");
            refuse(TriggerReason::NoOpenFallback, text)
        }
        (_, _, Some(pool)) if !(facts.is_pool)(pool) => {
            refuse(TriggerReason::UnknownTarget, format!("there is no SpotPool {pool}"))
        }
        (_, _, Some(pool)) => nothing_to_do(format!("pool {pool} has no open fallback"), Vec::new()),
        (None, None, None) => bad_target(ask, "spec.replacement, spec.node or spec.pool"),
    }
}

fn cancel(ask: &Ask, facts: &Facts<'_>) -> Decision {
    let meant = |story: &&Story<'_>| match (&ask.replacement, &ask.node) {
        (Some(name), _) => story.name == name,
        (_, node) => node.as_deref() == Some(story.node),
    };
    let mut found: Vec<&Story<'_>> = facts.stories.iter().filter(meant).collect();
    found.sort_by_key(|story| (!story.knows(ask), !story.is_open(), story.status.phase != Phase::Cancelled));
    let Some(story) = found.first() else {
        return match (&ask.replacement, &ask.node) {
            (Some(name), _) => {
                refuse(TriggerReason::UnknownTarget, format!("there is no NodeReplacement {name}"))
            }
            (_, Some(node)) => {
                refuse(TriggerReason::UnknownTarget, format!("there is no replacement of a node {node}"))
            }
            (None, None) => bad_target(ask, "spec.replacement or spec.node"),
        };
    };
    let name = story.name.to_owned();
    if story.knows(ask) {
        return accept(format!("the story {name} is ended; what it brought goes back"), vec![name]);
    }
    if story.status.old_node.is_retained() {
        return nothing_to_do(format!("the story {name} was cancelled already"), vec![name]);
    }
    match cancel_refused(story) {
        Some((reason, message)) => refuse(reason, message),
        None => Decision::Record(vec![name]),
    }
}

/// Why a story cannot be cancelled, if so.
fn cancel_refused(story: &Story<'_>) -> Option<(TriggerReason, String)> {
    let Story { name, instance_id, status, .. } = story;
    if status.phase.is_finished() {
        return Some((TriggerReason::StoryOver, format!("the story {name} is over")));
    }
    if let Some(deadline) = status.deadline {
        let text = format!("EC2 takes {instance_id} at {deadline:.0}: the story {name} cannot be cancelled");
        return Some((TriggerReason::DeadlinePresses, text));
    }
    match status.old_node {
        OldNodeState::Kept {}
        | OldNodeState::Draining(_)
        | OldNodeState::Drained(_)
        | OldNodeState::Retained {} => None,
        OldNodeState::Terminating(_) => {
            let text = format!("the old instance {instance_id} is being ended already");
            Some((TriggerReason::OldInstanceEnding, text))
        }
        OldNodeState::Gone {} if status.fallback.is_open() => {
            let text = format!(
                "the old instance {instance_id} is gone and fallback {name} stands in for it: return it (action \
                 Return), or wait until it goes back by itself"
            );
            Some((TriggerReason::OldInstanceGone, text))
        }
        OldNodeState::Gone {} => {
            Some((TriggerReason::OldInstanceGone, format!("the old instance {instance_id} is gone")))
        }
    }
}

fn pause(ask: &Ask, facts: &Facts<'_>) -> Decision {
    if ask.stage == Stage::Accepted {
        return Decision::Wait;
    }
    if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
        return refuse(TriggerReason::UnknownTarget, format!("there is no SpotPool {pool}"));
    }
    let (accepted, complete) = (Some((true, TriggerReason::Accepted)), Some((false, TriggerReason::InForce)));
    Decision::Tell(Verdict::new(accepted, complete, format!("in force until a Resume of {}", ask.scope())))
}

fn resume(ask: &Ask, facts: &Facts<'_>) -> Decision {
    let ended: Vec<&Ask> = facts.triggers.iter().filter(|pause| ask.ends(pause)).collect();
    if ask.stage == Stage::Accepted {
        if !ended.is_empty() {
            return Decision::EndPauses(ended.into_iter().map(|pause| pause.name.clone()).collect());
        }
        let complete = Some((true, TriggerReason::Resumed));
        return Decision::Tell(Verdict::new(None, complete, resumed(ask, "its pauses are over", facts)));
    }
    if ended.is_empty() {
        if let Some(pool) = ask.pool.as_ref().filter(|pool| !(facts.is_pool)(pool)) {
            return refuse(TriggerReason::UnknownTarget, format!("there is no SpotPool {pool}"));
        }
        let text = format!("no trigger has paused {}", ask.scope());
        return nothing_to_do(resumed(ask, &text, facts), Vec::new());
    }
    let names: Vec<&str> = ended.iter().map(|pause| pause.name.as_str()).collect();
    let text = resumed(ask, &format!("it ends {}", names.join(", ")), facts);
    Decision::Tell(Verdict::new(Some((true, TriggerReason::Accepted)), None, text))
}

/// What a `Resume` did, and what it could not.
fn resumed(ask: &Ask, text: &str, facts: &Facts<'_>) -> String {
    match (facts.otherwise_paused)(ask.pool.as_deref()) {
        Some(still) => format!("{text}; a Resume of {} does not change that {still}", ask.scope()),
        None => text.to_owned(),
    }
}

/// Takes a trigger into a record that is not over, if that still can follow it; what came meanwhile decides. To be
/// stored before it is told in the trigger's status.
pub fn take_in(ask: &Ask, subject: &Subject, status: &mut ReplacementStatus, now: Timestamp) {
    if status.triggers.contains(&ask.name) || status.phase.is_finished() {
        return;
    }
    let told = ask.told();
    match ask.action {
        TriggerAction::Replace if !status.old_node.is_retained() => {
            // What waits for a limit that advice has to keep goes on as what a person asked for.
            let waits = status.phase == Phase::Received && status.deadline.is_none();
            if waits && status.notice == Some(NoticeKind::RebalanceRecommendation) {
                status.notice = Some(NoticeKind::Manual);
            }
            status.step(
                FlowBox::Notice,
                Outcome::Asked,
                &subject.node,
                format!("its replacement is {told}"),
                now,
            );
        }
        TriggerAction::Return if status.fallback.is_open() => {
            if let Some(open) = status.fallback.open_mut() {
                open.requested_at = Some(now);
                open.not_before = None;
                // What Spot owes is asked for at once.
                open.next_probe_at = open.next_probe_at.map(|at| at.min(now));
            }
            let node = status.capacity.taken().map_or(&subject.node, |held| &held.node_name).clone();
            status.step(FlowBox::Monitor, Outcome::Asked, &node, format!("its return now is {told}"), now);
        }
        TriggerAction::Cancel => {
            let story = Story {
                name: &subject.name,
                node: &subject.node,
                instance_id: &subject.instance_id,
                pool: None,
                status,
            };
            if status.old_node.is_retained() || cancel_refused(&story).is_some() {
                return;
            }
            replacement::cancel(status, now);
            status.step(
                FlowBox::CleanUp,
                Outcome::Asked,
                &subject.node,
                format!("the end of its story is {told}"),
                now,
            );
        }
        _ => return,
    }
    status.take_in_trigger(&ask.name);
}

/// A fresh record for a node whose replacement was asked for.
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
        step.message = format!("its replacement is {}", ask.told());
    }
    status.take_in_trigger(&ask.name);
    status
}

/// Whether a trigger can be removed, if those that are over are kept for `keep`. A pause that holds never is.
#[must_use]
pub fn is_removable(conditions: &[Condition], keep: Duration, now: Timestamp) -> bool {
    let last = conditions.iter().map(|held| held.last_transition_time).max();
    let long_ago = last.is_some_and(|at| since(at, now) >= keep.max(KEPT_AT_LEAST));
    Stage::of(conditions) == Stage::Over && long_ago
}
