//! SpotActions: what people request, as [`spot_guard_core::spot_action`] decides it.
//!
//! A turn looks at a few of them, the oldest first, whatever a tenant or a webhook creates. Answers are
//! written beside the records, so that a slow one delays none.

use super::store::{self, Write};
use super::turn_view::{TurnView, subject};
use crate::actors::deps::{Deps, Pauses};
use crate::crd::{NodeReplacement, NodeReplacementSpec, SpotAction, version};
use crate::kube::asked::{OpenAction, OpenActions};
use futures::StreamExt;
use kube::ResourceExt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::neighbours;
use spot_guard_core::reason::Pause;
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement::Subject;
use spot_guard_core::spot_action::{
    self, ActionFacts, ActionUpdate, Decision, Membership, RequestedAction, StoredReplacement,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many SpotActions are looked at in a turn, those included whose answers are being written.
const LOOKED_AT: usize = 64;
/// How many answers are written at the same time.
const PARALLEL: usize = 8;

/// An answer to a SpotAction.
pub(super) struct Reply(Arc<SpotAction>, ActionUpdate);

/// An answer that was written, or not: the name and the version of its SpotAction.
pub(super) struct Replied {
    name: String,
    version: u64,
    written: bool,
}

/// Which SpotActions need no look now.
#[derive(Default)]
pub(super) struct Replies {
    /// The versions that were answered: the watch may show them for a moment yet.
    answered: BTreeMap<String, u64>,
    /// Those whose answers are being written.
    under_way: BTreeSet<String>,
    /// Those of which nothing could be told yet, and the turn that looked at them last.
    waiting: BTreeMap<String, u64>,
    turns: u64,
}

impl Replies {
    /// The SpotActions to look at in this turn, and whether more have had no look yet. Those of which nothing
    /// could be told yet come last, and in turns.
    fn next(&mut self, open: &OpenActions) -> (Vec<OpenAction>, bool) {
        self.turns += 1;
        let is_shown =
            |name: &String, seen: &u64| open.get(name).is_some_and(|held| held.ask.order.1 == *seen);
        self.answered.retain(|name, seen| is_shown(name, seen));
        self.waiting.retain(|name, _| open.get(name).is_some());
        let places = LOOKED_AT.saturating_sub(self.under_way.len());
        let is_new = |ask: &RequestedAction| {
            ask.needs_look() && !self.has_answer(ask) && !self.waiting.contains_key(&ask.name)
        };
        let mut looks = open.oldest(places + 1, is_new);
        let more = looks.len() > places;
        looks.truncate(places);
        let mut waiting: Vec<(&u64, &String)> =
            self.waiting.iter().map(|(name, turn)| (turn, name)).collect();
        waiting.sort();
        let waiting = waiting.into_iter().filter_map(|(_, name)| open.get(name));
        looks.extend(waiting.filter(|held| !self.has_answer(&held.ask)).take(places - looks.len()));
        looks.sort_by_key(|held| held.ask.order);
        (looks, more)
    }

    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    fn has_answer(&self, ask: &RequestedAction) -> bool {
        self.under_way.contains(&ask.name) || self.answered.get(&ask.name) == Some(&ask.order.1)
    }

    fn waits(&mut self, ask: &RequestedAction) {
        self.waiting.insert(ask.name.clone(), self.turns);
    }

    /// The answers to be written now.
    pub(super) fn begin(&mut self, replies: Vec<Reply>) -> Vec<Reply> {
        self.under_way.extend(replies.iter().map(|Reply(spot_action, _)| spot_action.name_any()));
        replies
    }

    /// Takes in which answers were written; whether all were.
    pub(super) fn ended(&mut self, replied: Vec<Replied>) -> bool {
        let all = replied.iter().all(|reply| reply.written);
        for Replied { name, version, written } in replied {
            self.under_way.remove(&name);
            if written {
                self.answered.insert(name, version);
            }
        }
        all
    }
}

/// Writes the answers.
pub(super) async fn reply(deps: Deps, replies: Vec<Reply>) -> Vec<Replied> {
    let deps = &deps;
    let written = futures::stream::iter(replies).map(|Reply(spot_action, verdict)| async move {
        let written = store::answer(deps, &spot_action, &verdict).await;
        Replied { name: spot_action.name_any(), version: version(&*spot_action), written }
    });
    written.buffer_unordered(PARALLEL).collect().await
}

/// What a turn makes of the SpotActions.
#[derive(Default)]
pub(super) struct Followed {
    /// New replacements, and cancelled ones that begin anew.
    pub(super) writes: Vec<Write>,
    pub(super) replies: Vec<Reply>,
    /// Whether more SpotActions are to be looked at.
    pub(super) more: bool,
}

impl TurnView<'_> {
    /// What the SpotActions lead to that this turn looks at. Records that are open take theirs in as they go
    /// on.
    pub(super) fn follow_spot_actions(
        &mut self,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
        replies: &mut Replies,
        begun: &[Write],
    ) -> Followed {
        let open = &self.deps.view.open_spot_actions;
        let (looks, more) = replies.next(open);
        let mut followed = Followed { more, ..Followed::default() };
        if looks.is_empty() {
            return followed;
        }
        let none = ReplacementStatus::default();
        // Nobody knows how far a record is that cannot be read any more, and nothing can be written into it.
        let not_understood = self.deps.view.not_understood();
        let unread: BTreeSet<&str> = not_understood.names(WatchedKind::Replacement).collect();
        let readable = records.iter().filter(|(name, _)| !unread.contains(name.as_str()));
        let stories: Vec<StoredReplacement<'_>> =
            readable.map(|(name, held)| story(name, held, &none)).collect();
        let pauses = self.deps.pauses();
        let mut taken_in: BTreeMap<ReplacementName, Vec<RequestedAction>> = BTreeMap::new();
        let begins = |name: &str| begun.iter().any(|write| write.record() == Some(name));
        for held in looks {
            let ask = &held.ask;
            let facts = ActionFacts {
                stories: &stories,
                spot_actions: pauses.asked(),
                is_pool: &|name| self.configs.get(name).is_some_and(|pool| !pool.deleted),
                place: &|node| self.place(node),
                otherwise_paused: &|scope| self.paused_beside(&pauses, scope),
            };
            match spot_action::decide(ask, &facts) {
                Decision::Wait => replies.waits(ask),
                Decision::Tell(verdict) => followed.replies.push(Reply(held.spot_action.clone(), verdict)),
                Decision::EndPauses(names) => {
                    let ended = names.iter().filter_map(|name| open.get(name));
                    let ended = ended.filter(|pause| !replies.has_answer(&pause.ask)).take(LOOKED_AT);
                    let verdict = ActionUpdate::ended_by(ask.name.clone(), ask.by.clone());
                    followed.replies.extend(ended.map(|pause| Reply(pause.spot_action, verdict.clone())));
                }
                Decision::Begin { pool, instance_id } => {
                    let is_begun =
                        followed.writes.iter().any(|write: &Write| write.record() == Some(&instance_id));
                    // One that this turn begins by other means takes the SpotAction in at the next.
                    if !is_begun && !begins(&instance_id) && !self.deps.view.may_hide_record(&instance_id) {
                        followed.writes.push(self.asked_record(&held, pool, instance_id));
                    }
                }
                Decision::Record(names) => {
                    for name in names {
                        match records.get(&name).filter(|record| !record.is_open()) {
                            None => taken_in.entry(name).or_default().push(ask.clone()),
                            Some(cancelled) if !begins(&name) => {
                                let fresh = self.asked_for(ask, &held.spot_action, cancelled);
                                followed.writes.push(Write::reopen(cancelled, fresh));
                            }
                            Some(_) => {}
                        }
                    }
                }
            }
        }
        self.asked = taken_in;
        followed
    }

    /// The record of a replacement that a SpotAction asks for.
    fn asked_record(
        &self,
        OpenAction { ask, spot_action }: &OpenAction,
        pool: PoolName,
        instance_id: InstanceId,
    ) -> Write {
        let node_name = ask.node.clone().unwrap_or_default();
        let spec =
            NodeReplacementSpec { pool: Some(pool), node_name, instance_id, place: None, adopted: None };
        let mut record = NodeReplacement::new(&spec.instance_id.clone(), spec);
        record.status = Some(self.asked_for(ask, spot_action, &record));
        Write::Create(record)
    }

    /// Where the node belongs.
    fn place(&self, name: &NodeName) -> Membership {
        let Some(node) = self.snapshot.node(name) else { return Membership::Missing };
        if let Some(neighbour) = neighbours::owner(node) {
            return Membership::Neighbour(neighbour);
        }
        let Some(instance) = node.instance_id() else { return Membership::Nowhere };
        if self.snapshot.node_of_instance(&instance).is_none() {
            // Another node says that it runs on it, too.
            return Membership::Nowhere;
        }
        if !self.all_read() {
            return Membership::Unread;
        }
        if let Some(pool) = self.pool_of(&instance) {
            return Membership::Spot { pool, instance_id: instance };
        }
        let on_demand = |pool: &PoolName| {
            self.view(pool).is_some_and(|view| view.on_demand.instance(&instance).is_some())
        };
        match self.owner_of(on_demand) {
            Some(pool) => Membership::OnDemand { pool },
            None if self.may_be_unread(node) => Membership::Unread,
            None => Membership::Nowhere,
        }
    }

    /// What pauses the pool, or everything, beside the pauses for just that which SpotActions asked for.
    fn paused_beside(&self, pauses: &Pauses, scope: Option<&PoolName>) -> Option<Pause> {
        let others = pauses.beside(scope);
        match scope {
            None => others.of_everything(),
            Some(name) => {
                let pools = self.deps.view.pools.state();
                let pool = pools.iter().find(|pool| pool.name_any() == **name)?;
                others.of_pool(pool)
            }
        }
    }

    /// The first state of a record that a SpotAction asks for.
    pub(super) fn asked_for(
        &self,
        ask: &RequestedAction,
        spot_action: &SpotAction,
        record: &NodeReplacement,
    ) -> ReplacementStatus {
        let utilisation = record.spec.pool.as_ref().map(|pool| self.utilisation(pool));
        let traceparent = spot_action.spec.traceparent.clone();
        let now = self.deps.clock.now();
        let mut status = spot_action::open(ask, &subject(record), utilisation, traceparent, now);
        status.node_uid = self.uid_of(&record.spec.node_name);
        status
    }

    /// Takes the SpotActions in that ask something of this record.
    pub(super) fn take_in_spot_actions(
        &self,
        record: &NodeReplacement,
        subject: &Subject,
        status: &mut ReplacementStatus,
    ) {
        for ask in self.asked.get(&record.replacement_name()).into_iter().flatten() {
            let named = |spot_action: &SpotAction| spot_action.metadata.name.as_ref() == Some(&ask.name);
            if status.started_at.is_none()
                && let Some(spot_action) = self.deps.view.spot_actions.find(named)
            {
                // The process died between the record and its first status.
                *status = self.asked_for(ask, &spot_action, record);
            } else {
                spot_action::take_in(ask, subject, status, self.deps.clock.now());
            }
        }
    }
}

fn story<'a>(
    name: &ReplacementName,
    held: &'a NodeReplacement,
    none: &'a ReplacementStatus,
) -> StoredReplacement<'a> {
    StoredReplacement {
        name: name.clone(),
        node: &held.spec.node_name,
        instance_id: &held.spec.instance_id,
        pool: held.spec.pool.as_ref(),
        status: held.status.as_ref().unwrap_or(none),
    }
}
