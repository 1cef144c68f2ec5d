//! Triggers: what people ask for, as [`spot_guard_core::trigger`] decides it.

use super::PoolFacts;
use super::store::Write;
use super::turn_view::{TurnView, subject};
use crate::actors::deps::Pauses;
use crate::crd::{NodeReplacement, NodeReplacementSpec, Trigger};
use kube::ResourceExt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::neighbours;
use spot_guard_core::reason::Pause;
use spot_guard_core::record::ReplacementStatus;
use spot_guard_core::replacement::{self, Subject};
use spot_guard_core::trigger::{self, Ask, Decision, Facts, Place, Stage, Story, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

impl TurnView<'_> {
    /// What the triggers that are not over lead to. Records that are open take theirs in as they go on.
    pub(super) fn follow_triggers(
        &mut self,
        records: &BTreeMap<String, NodeReplacement>,
        answered: &BTreeMap<String, u64>,
        begun: &[Write],
    ) -> Vec<Write> {
        let triggers = self.deps.view.triggers.state();
        if triggers.is_empty() {
            return Vec::new();
        }
        let mut all: Vec<(Ask, Arc<Trigger>)> =
            triggers.into_iter().map(|trigger| (trigger.ask(), trigger)).collect();
        all.sort_by_key(|(ask, _)| ask.order);
        let asks: Vec<Ask> = all.iter().map(|(ask, _)| ask.clone()).collect();
        let none = ReplacementStatus::default();
        let stories: Vec<Story<'_>> = records.iter().map(|(name, held)| story(name, held, &none)).collect();
        let pauses = Pauses::of(*self.deps.view.paused.borrow(), &self.deps.view.triggers);
        let mut writes = Vec::new();
        let mut taken_in: BTreeMap<String, Vec<Ask>> = BTreeMap::new();
        let begins = |name: &str| begun.iter().any(|write| write.record() == Some(name));
        let not_understood = self.deps.view.not_understood();
        // Its record is there and cannot be read: nobody knows how far it is.
        let unread = |name: &str| {
            !records.contains_key(name) && not_understood.may_hold(WatchedKind::Replacement, name)
        };
        let waits = |ask: &Ask| ask.stage != Stage::Over && answered.get(&ask.name) != Some(&ask.order.1);
        for (ask, trigger) in all.iter().filter(|(ask, _)| waits(ask)) {
            let facts = Facts {
                stories: &stories,
                triggers: &asks,
                is_pool: &|name| self.configs.contains_key(name),
                place: &|node| self.place(node),
                otherwise_paused: &|scope| self.paused_beside(&pauses, scope),
            };
            match trigger::decide(ask, &facts) {
                Decision::Wait => {}
                Decision::Tell(verdict) => writes.push(Write::Tell(trigger.clone(), verdict)),
                Decision::EndPauses(names) => {
                    let ended = all.iter().filter(|(pause, _)| names.contains(&pause.name) && waits(pause));
                    writes.extend(ended.map(|(_, pause)| {
                        Write::Tell(pause.clone(), Verdict::ended_by(ask.name.clone(), ask.by.clone()))
                    }));
                }
                // One that this turn begins by other means takes the trigger in at the next.
                Decision::Begin { instance_id, .. } if begins(&instance_id) || unread(&instance_id) => {}
                Decision::Begin { pool, instance_id } => {
                    let node = ask.node.clone().unwrap_or_default();
                    let spec = NodeReplacementSpec { pool: Some(pool), node_name: node, instance_id };
                    if writes.iter().any(|write: &Write| write.record() == Some(&spec.instance_id)) {
                        continue;
                    }
                    let mut record = NodeReplacement::new(&spec.instance_id.clone(), spec);
                    record.status = Some(self.asked_for(ask, trigger, &record));
                    writes.push(Write::Create(record));
                }
                Decision::Record(names) => {
                    for name in names {
                        let cancelled = records.get(&name).filter(|held| is_over(held));
                        match cancelled {
                            None => taken_in.entry(name).or_default().push(ask.clone()),
                            Some(held) if !begins(&name) => {
                                let fresh = self.asked_for(ask, trigger, held);
                                writes.push(reopened(held, fresh));
                            }
                            Some(_) => {}
                        }
                    }
                }
            }
        }
        self.asked = taken_in;
        writes
    }

    /// Where the node belongs.
    fn place(&self, name: &str) -> Place {
        let Some(node) = self.snapshot.node(name) else { return Place::Missing };
        if let Some(neighbour) = neighbours::owner(node) {
            return Place::Neighbour(neighbour);
        }
        let Some(instance) = node.instance_id() else { return Place::Nowhere };
        if self.snapshot.node_of_instance(instance).is_none() {
            // Another node says that it runs on it, too.
            return Place::Nowhere;
        }
        if !self.all_read() {
            return Place::Unread;
        }
        if let Some(pool) = self.pool_of(instance) {
            return Place::Spot { pool, instance_id: instance.to_owned() };
        }
        let on_demand =
            |facts: &PoolFacts| facts.view().is_some_and(|view| view.on_demand.instance(instance).is_some());
        match self.pools.iter().find(|(name, facts)| self.configs.contains_key(*name) && on_demand(facts)) {
            Some((pool, _)) => Place::OnDemand { pool: pool.clone() },
            None if self.may_be_unread(node) => Place::Unread,
            None => Place::Nowhere,
        }
    }

    /// What pauses the pool, or everything, beside the pauses for just that which triggers asked for.
    fn paused_beside(&self, pauses: &Pauses, scope: Option<&str>) -> Option<Pause> {
        let others = pauses.beside(scope);
        match scope {
            None => others.of_everything(),
            Some(name) => {
                let pools = self.deps.view.pools.state();
                let pool = pools.iter().find(|pool| pool.name_any() == name)?;
                others.of_pool(pool)
            }
        }
    }

    /// The first state of a record that a trigger asks for.
    pub(super) fn asked_for(
        &self,
        ask: &Ask,
        trigger: &Trigger,
        record: &NodeReplacement,
    ) -> ReplacementStatus {
        let utilisation = record.spec.pool.as_deref().map(|pool| self.utilisation(pool));
        let traceparent = trigger.spec.traceparent.clone();
        trigger::open(ask, &subject(record), utilisation, traceparent, self.deps.clock.now())
    }

    /// Takes the triggers in that ask something of this record.
    pub(super) fn take_in_triggers(
        &self,
        record: &NodeReplacement,
        subject: &Subject,
        status: &mut ReplacementStatus,
    ) {
        for ask in self.asked.get(&record.name_any()).into_iter().flatten() {
            let named = |trigger: &Trigger| trigger.metadata.name.as_ref() == Some(&ask.name);
            if status.started_at.is_none()
                && let Some(trigger) = self.deps.view.triggers.find(named)
            {
                // The process died between the record and its first status.
                *status = self.asked_for(ask, &trigger, record);
            } else {
                trigger::take_in(ask, subject, status, self.deps.clock.now());
            }
        }
    }
}

fn story<'a>(name: &'a str, held: &'a NodeReplacement, none: &'a ReplacementStatus) -> Story<'a> {
    Story {
        name,
        node: &held.spec.node_name,
        instance_id: &held.spec.instance_id,
        pool: held.spec.pool.as_deref(),
        status: held.status.as_ref().unwrap_or(none),
    }
}

fn is_over(record: &NodeReplacement) -> bool {
    record.status.as_ref().is_some_and(|status| status.phase.is_finished())
}

/// The write by which a cancelled story begins anew.
pub(super) fn reopened(held: &NodeReplacement, fresh: ReplacementStatus) -> Write {
    let mut record = held.clone();
    record.status = held.status.as_ref().map(|cancelled| replacement::reopen(cancelled, fresh));
    Write::Status(record)
}
