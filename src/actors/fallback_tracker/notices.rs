//! Notices: which are believed, as [`spot_guard_core::notices`] judges it, and which records they ask for.

use super::store::Write;
use super::triggers::reopened;
use super::turn_view::TurnView;
use crate::crd::{InterruptionNotice, NodeReplacement, NodeReplacementSpec};
use jiff::Timestamp;
use kube::ResourceExt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::notices::{self, Holder, Judgement, Known, NodeState, Proof, Recorded, Refusal, Seen};
use spot_guard_core::record::Phase;
use spot_guard_core::replacement::{self, Subject};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A notice that is believed.
#[derive(Clone)]
pub(super) struct Accepted {
    pub(super) notice: Arc<InterruptionNotice>,
    /// Its deadline, if EC2 may have given it.
    pub(super) deadline: Option<Timestamp>,
    proof: Proof,
}

/// What a turn makes of the notices.
#[derive(Default)]
pub(super) struct Told {
    /// New stories, and cancelled ones that begin anew. Escalations come with [`TurnView::advance`].
    pub(super) writes: Vec<Write>,
    /// To be removed.
    pub(super) refused: Vec<Refused>,
    /// Whether time alone may decide about one of them.
    pub(super) waits: bool,
}

/// A notice that is to be removed, and why.
pub(super) type Refused = (Arc<InterruptionNotice>, Refusal);

/// What comes of a notice that is believed and has no record yet.
enum Opening {
    Begin(Box<NodeReplacement>),
    Wait,
    Refuse(Refusal),
}

fn seen<'a>(notice: &'a InterruptionNotice, now: Timestamp) -> Seen<'a> {
    Seen {
        name: notice.metadata.name.as_deref().unwrap_or_default(),
        node: &notice.spec.node_name,
        instance_id: &notice.spec.instance_id,
        kind: notice.spec.kind,
        deadline: notice.spec.deadline,
        created: notice.creation_timestamp().map_or(now, |time| time.0),
    }
}

impl TurnView<'_> {
    /// Judges the notices, and says what they lead to.
    pub(super) fn hear(
        &mut self,
        records: &BTreeMap<String, NodeReplacement>,
        notices: &[Arc<InterruptionNotice>],
    ) -> Told {
        let (snapshot, now) = (self.snapshot.clone(), self.deps.clock.now());
        let all: Vec<Seen<'_>> = notices.iter().map(|notice| seen(notice, now)).collect();
        let instance_of = |node: &str| snapshot.node(node).and_then(|node| node.instance_id());
        let (picked, surplus) = notices::pick(&all, instance_of);
        let nodes_are_current = self.freshness.is_current(WatchedKind::Node);
        let mut told = Told::default();
        if nodes_are_current {
            told.refused.extend(surplus.into_iter().map(|index| (notices[index].clone(), Refusal::TooMany)));
        } else {
            told.waits |= !surplus.is_empty();
        }
        for index in picked {
            let (one, notice) = (&all[index], notices[index].clone());
            let record = record_of(records, one.node, one.instance_id);
            let mut holders = snapshot.nodes_of_instance(one.instance_id);
            let known = Known {
                node: match snapshot.node(one.node) {
                    None => NodeState::Missing,
                    Some(node) if node.provider_id.is_empty() => NodeState::WithoutInstance,
                    Some(node) => NodeState::Has(node.instance_id()),
                },
                holder: match (holders.next(), holders.next()) {
                    (None, _) => Holder::Nobody,
                    (Some(node), None) => Holder::One(&node.name),
                    (Some(_), Some(_)) => Holder::Several,
                },
                record: record
                    .map(|held| Recorded { node: &held.spec.node_name, open: super::is_open(held) }),
                nodes_are_current,
                now,
            };
            match notices::judge(one, &known) {
                Judgement::Wait => told.waits = true,
                Judgement::Over => {}
                Judgement::Refused(refusal) => told.refused.push((notice, refusal)),
                Judgement::Accepted(proof) => {
                    let deadline = notices::deadline(one, now);
                    let began = record.and_then(|held| held.status.as_ref()?.started_at);
                    if deadline.is_none() && began.is_some() && notices::was_implausible(one) {
                        told.refused.push((notice.clone(), Refusal::ImplausibleDeadline));
                    }
                    let accepted = Accepted { notice, deadline, proof };
                    self.accepted.entry(one.instance_id.to_owned()).or_default().push(accepted);
                }
            }
        }
        self.open_stories(records, &mut told);
        told
    }

    /// The notices that are believed and are about this record.
    pub(super) fn notices_of(&self, record: &NodeReplacement) -> Vec<Accepted> {
        let own = self.accepted.get(&record.spec.instance_id).into_iter().flatten();
        own.filter(|held| held.notice.spec.node_name == record.spec.node_name).cloned().collect()
    }

    fn open_stories(&self, records: &BTreeMap<String, NodeReplacement>, told: &mut Told) {
        let mut writes = BTreeMap::new();
        let not_understood = self.deps.view.not_understood();
        let mut accepted: Vec<&Accepted> = self.accepted.values().flatten().collect();
        accepted.sort_by_key(|held| (held.deadline.is_none(), held.notice.spec.detected_at));
        for held in accepted {
            let spec = &held.notice.spec;
            let record = record_of(records, &spec.node_name, &spec.instance_id)
                .filter(|record| record.spec.node_name == spec.node_name);
            let name = record.map_or_else(|| held.record_name(records), ResourceExt::name_any);
            if writes.contains_key(&name) || record.is_some_and(|record| !begins_anew(record, held)) {
                continue;
            }
            // Its record is there and cannot be read: nobody knows how far it is.
            if record.is_none() && not_understood.may_hold(WatchedKind::Replacement, &name) {
                continue;
            }
            match (self.open_story(held, &name), record) {
                (Opening::Wait, _) => told.waits = true,
                (Opening::Refuse(refusal), _) => told.refused.push((held.notice.clone(), refusal)),
                (Opening::Begin(fresh), None) => {
                    writes.insert(name, Write::Create(*fresh));
                }
                (Opening::Begin(fresh), Some(record)) => {
                    writes.insert(name, reopened(record, fresh.status.unwrap_or_default()));
                }
            }
        }
        told.writes = writes.into_values().collect();
    }

    fn open_story(&self, held: &Accepted, name: &str) -> Opening {
        let spec = &held.notice.spec;
        let pool = if self.all_read() {
            // A pool whose groups cannot be used has its nodes, too.
            self.pool_of(&spec.instance_id).or_else(|| self.pool_last_seen_with(&spec.instance_id))
        } else {
            // Before every pool was read once, nobody knows whose instance it is, but from what an earlier life has
            // read. Advice waits; before a deadline the pods have to leave, whether AWS can be read or not.
            let last = held.deadline.and_then(|_| self.pool_last_seen_with(&spec.instance_id));
            let Some(pool) = last else { return Opening::Wait };
            Some(pool)
        };
        let node = self.snapshot.node(&spec.node_name);
        // What nothing but the notice says puts no node into a pool. Of several nodes that say they run on its instance
        // each may be its member.
        let says_so = node.is_some_and(|node| node.instance_id() == Some(&spec.instance_id));
        let bound = held.proof != Proof::Reporter || says_so;
        let pool = pool.filter(|_| bound);
        if pool.is_none() {
            if bound && node.is_some_and(|node| self.may_be_unread(node)) {
                return Opening::Wait;
            }
            if !self.deps.drain_outside_pools {
                let pools_are_known = self.freshness.is_current(WatchedKind::Pool)
                    && self.deps.view.not_understood().names(WatchedKind::Pool).next().is_none();
                return match pools_are_known {
                    true => Opening::Refuse(Refusal::OutsidePools),
                    false => Opening::Wait,
                };
            }
        }
        // Without a proof that the instance is the node's, its pods are moved, and nothing is ended.
        let pool = pool.filter(|_| name == spec.instance_id);
        let subject = Subject {
            name: name.to_owned(),
            node: spec.node_name.clone(),
            instance_id: spec.instance_id.clone(),
            in_pool: pool.is_some(),
        };
        let status = replacement::open(
            &subject,
            spec.kind,
            held.deadline,
            pool.as_ref().map(|pool| self.utilisation(pool)),
            spec.traceparent.clone(),
            self.deps.clock.now(),
        );
        let (node_name, instance_id) = (subject.node, subject.instance_id);
        let mut record =
            NodeReplacement::new(&subject.name, NodeReplacementSpec { pool, node_name, instance_id });
        record.status = Some(status);
        Opening::Begin(Box::new(record))
    }
}

impl Accepted {
    /// The name of the record that it begins: that of the instance, which only such a node gets that has shown that the
    /// instance is its own, before another one has.
    fn record_name(&self, records: &BTreeMap<String, NodeReplacement>) -> String {
        let spec = &self.notice.spec;
        let taken = records.contains_key(&spec.instance_id);
        match self.proof {
            Proof::Node | Proof::Record if !taken => spec.instance_id.clone(),
            _ => unproven(&spec.node_name, &spec.instance_id),
        }
    }
}

/// The name of a record that was begun without a proof that the instance is the node's alone.
fn unproven(node: &str, instance: &str) -> String {
    format!("{node}.{instance}")
}

/// The record that a notice is about: its own, or that of another node which has the instance.
fn record_of<'a>(
    records: &'a BTreeMap<String, NodeReplacement>,
    node: &str,
    instance: &str,
) -> Option<&'a NodeReplacement> {
    let proven = records.get(instance);
    let own = proven.is_none_or(|held| held.spec.node_name != node);
    own.then(|| records.get(&unproven(node, instance))).flatten().or(proven)
}

/// Whether the notice begins a cancelled story anew: one with a deadline does, for a story that had one cannot be
/// cancelled, and advice that came after its end. The node must be there, with the instance of the story.
fn begins_anew(record: &NodeReplacement, held: &Accepted) -> bool {
    let Some(status) = record.status.as_ref().filter(|status| status.phase == Phase::Cancelled) else {
        return false;
    };
    let same = held.proof == Proof::Node && held.notice.spec.node_name == record.spec.node_name;
    let came = held.notice.creation_timestamp().map(|time| time.0);
    same && (held.deadline.is_some() || came > status.finished_at)
}
