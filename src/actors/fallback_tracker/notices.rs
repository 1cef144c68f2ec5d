//! Notices: which are believed and what they begin, as [`spot_guard_core::notices`] decides it.

use super::known::Accepted;
use super::refusals::Refused;
use super::store::Write;
use super::turn_view::TurnView;
use crate::crd::{InterruptionNotice, NodeReplacement, NodeReplacementSpec};
use crate::kube::marks;
use jiff::Timestamp;
use kube::ResourceExt;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::ids::{InstanceId, NodeName, PoolName, ReplacementName};
use spot_guard_core::notices::{
    self, Beginning, Believed, Holder, Judgement, Known, KnownPools, NodeState, NoticeRefusal, Proof,
    Recorded, Seen,
};
use spot_guard_core::record::{NoticeKind, Phase, ReplacedBy};
use spot_guard_core::replacement::{self, Mode, Subject};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a turn makes of the notices.
#[derive(Default)]
pub(super) struct Heard {
    /// New replacements, and cancelled ones that begin anew. Escalations come with [`TurnView::advance`].
    pub(super) writes: Vec<Write>,
    /// To be removed.
    pub(super) refused: Vec<Refused>,
    /// Whether time alone may decide about one of them.
    pub(super) waits: bool,
}

fn seen<'a>(notice: &'a InterruptionNotice, now: Timestamp) -> Seen<'a> {
    Seen {
        name: notice.metadata.name.as_deref().unwrap_or_default(),
        node: &notice.spec.node_name,
        instance_id: &notice.spec.instance_id,
        kind: notice.spec.kind,
        deadline: notice.spec.deadline,
        detected: notice.spec.detected_at,
        created: notice.creation_timestamp().map_or(now, |time| time.0),
    }
}

impl TurnView<'_> {
    /// Judges the notices, and says what they lead to.
    pub(super) fn hear(
        &mut self,
        records: &BTreeMap<ReplacementName, NodeReplacement>,
        notices: &[Arc<InterruptionNotice>],
    ) -> Heard {
        let (snapshot, now) = (self.snapshot, self.deps.clock.now());
        let all: Vec<Seen<'_>> = notices.iter().map(|notice| seen(notice, now)).collect();
        let instance_of = |node: &NodeName| snapshot.node(node).and_then(|node| node.instance_id());
        let (picked, surplus) = notices::pick(&all, instance_of);
        let nodes_are_current = self.freshness.is_current(WatchedKind::Node);
        let mut heard = Heard::default();
        if nodes_are_current {
            heard.refused =
                surplus.iter().map(|index| Refused::of(&notices[*index], NoticeRefusal::TooMany)).collect();
        } else {
            heard.waits = !surplus.is_empty();
        }
        for index in picked {
            let (one, notice) = (&all[index], notices[index].clone());
            let record = record_of(records, one.node, one.instance_id);
            let known = Known {
                node: NodeState::of(snapshot, one.node),
                holder: Holder::of(snapshot, one.instance_id),
                record: record.map(|held| Recorded {
                    node: &held.spec.node_name,
                    open: held.is_open(),
                    disbelieved: held
                        .status
                        .as_ref()
                        .is_some_and(|status| notices::is_disbelieved(status, now)),
                }),
                marked: snapshot
                    .node(one.node)
                    .is_some_and(|node| marks::any_set(node, &self.deps.taint_key)),
                nodes_are_current,
                now,
            };
            match notices::judge(one, &known) {
                Judgement::Wait => heard.waits = true,
                Judgement::Over => {}
                Judgement::Refused(refusal) => heard.refused.push(Refused::of(&notice, refusal)),
                Judgement::Accepted(proof) => {
                    let deadline = notices::deadline(one, now);
                    heard.waits |= notices::is_to_come(one, now);
                    let began = record.and_then(|held| held.status.as_ref()?.started_at);
                    if deadline.is_none() && began.is_some() && notices::was_implausible(one) {
                        heard.refused.push(Refused::of(&notice, NoticeRefusal::ImplausibleDeadline));
                    }
                    let accepted = Accepted { notice, deadline, proof };
                    self.accepted.entry(one.instance_id.clone()).or_default().push(accepted);
                }
            }
        }
        self.begin(records, &mut heard);
        heard
    }

    /// The notices that are believed and are about this record.
    pub(super) fn notices_of(&self, record: &NodeReplacement) -> Vec<Accepted> {
        let own = self.accepted.get(&record.spec.instance_id).into_iter().flatten();
        own.filter(|held| held.notice.spec.node_name == record.spec.node_name).cloned().collect()
    }

    /// The records that the notices which are believed ask for, those with a deadline first.
    fn begin(&self, records: &BTreeMap<ReplacementName, NodeReplacement>, heard: &mut Heard) {
        let mut writes = BTreeMap::new();
        // One stand-in on advice at a time: the next turn counts with it.
        let mut stood_in_for = BTreeSet::new();
        let mut accepted: Vec<&Accepted> = self.accepted.values().flatten().collect();
        accepted.sort_by_key(|held| (held.deadline.is_none(), held.notice.spec.detected_at));
        let statuses = records.values().filter_map(|record| record.status.as_ref());
        let going_back: BTreeSet<&InstanceId> =
            statuses.filter_map(|status| Some(&status.goes_back()?.instance_id)).collect();
        for held in accepted {
            let believed = self.believed(held);
            let taken = records.contains_key(believed.instance_id.as_str());
            // A record that was begun without a proof is none once there is one: the node gets its own.
            let unproven = believed.proof == Proof::Node && !taken;
            let record = record_of(records, believed.node, believed.instance_id)
                .filter(|record| record.spec.node_name == believed.node && !unproven);
            let name = record.map_or_else(|| believed.record_name(taken), NodeReplacement::replacement_name);
            let begins_anew = |record: &NodeReplacement| {
                let status = record.status.as_ref().filter(|status| status.phase() == Phase::Cancelled);
                status.is_some_and(|status| believed.begins_anew(status.finished_at))
            };
            if writes.contains_key(&name) || record.is_some_and(|record| !begins_anew(record)) {
                continue;
            }
            // Its record is there and cannot be read: nobody knows how far it is.
            if record.is_none() && self.deps.view.may_hide_record(&name) {
                continue;
            }
            let instance = believed.instance_id;
            // What its group ends is drained, whichever of the two groups that is.
            let group_ends_it = believed.kind == NoticeKind::GroupTermination;
            let stands_in = group_ends_it.then(|| self.pool_standing_in_with(instance)).flatten();
            let owner = self.pool_of(instance).or_else(|| stands_in.clone());
            let owner_last_seen = self.pool_last_seen_with(instance).or(stands_in);
            let owners = (owner.as_ref(), owner_last_seen.as_ref());
            let pools = self.known_pools(believed.node, owners, going_back.contains(instance));
            match believed.begins(&name, &pools, self.deps.clock.now()) {
                Beginning::Wait => heard.waits = true,
                Beginning::Refused(refusal) => heard.refused.push(Refused::of(&held.notice, refusal)),
                Beginning::Drain => {
                    heard.waits = true;
                    let name = believed.record_name(true);
                    if !records.contains_key(&name) && !self.deps.view.may_hide_record(&name) {
                        writes.insert(name.clone(), Write::Create(self.fresh_record(held, &name, None)));
                    }
                }
                Beginning::Replacement(pool) => {
                    let by_group = pool.filter(|pool| self.is_left_to_group(pool, held.deadline));
                    let fresh = match by_group {
                        Some(pool) => self
                            .on_advice(held, &name, pool, records)
                            .filter(|_| stood_in_for.insert(pool.clone())),
                        None => Some(self.fresh_record(held, &name, pool)),
                    };
                    let Some(fresh) = fresh else { continue };
                    let write = match record {
                        None => Write::Create(fresh),
                        Some(record) => Write::reopen(record, fresh.status.unwrap_or_default()),
                    };
                    writes.insert(name, write);
                }
            }
        }
        heard.writes = writes.into_values().collect();
    }

    /// Whether the pool's Spot group replaces an instance when it has a better one.
    fn is_left_to_group(&self, pool: &PoolName, deadline: Option<Timestamp>) -> bool {
        deadline.is_none() && self.replacer(pool) == Some(ReplacedBy::Group)
    }

    fn believed<'a>(&self, held: &'a Accepted) -> Believed<'a> {
        let spec = &held.notice.spec;
        let node = self.snapshot.node(&spec.node_name);
        Believed {
            node: &spec.node_name,
            instance_id: &spec.instance_id,
            kind: spec.kind,
            proof: held.proof,
            says_so: node.is_some_and(|node| node.instance_id().as_ref() == Some(&spec.instance_id)),
            deadline: held.deadline,
            created: held.notice.creation_timestamp().map(|time| time.0),
        }
    }

    fn known_pools<'a>(
        &self,
        node: &NodeName,
        (owner, owner_last_seen): (Option<&'a PoolName>, Option<&'a PoolName>),
        goes_back: bool,
    ) -> KnownPools<'a> {
        let not_understood = self.deps.view.not_understood();
        KnownPools {
            owner,
            owner_last_seen,
            all_read: self.all_read(),
            all_known: self.freshness.is_current(WatchedKind::Pool)
                && not_understood.names(WatchedKind::Pool).next().is_none(),
            may_be_unread: self.snapshot.node(node).is_some_and(|node| self.may_be_unread(node)),
            drain_outside: self.deps.drain_outside_pools,
            some_observe: self.configs.values().any(|pool| pool.mode == Mode::Observe),
            goes_back,
        }
    }

    pub(super) fn fresh_record(
        &self,
        held: &Accepted,
        name: &ReplacementName,
        pool: Option<&PoolName>,
    ) -> NodeReplacement {
        let spec = &held.notice.spec;
        let subject = Subject {
            name: name.clone(),
            node: spec.node_name.clone(),
            instance_id: spec.instance_id.clone(),
            in_pool: pool.is_some(),
            adopted: false,
        };
        let mut status = replacement::open(
            &subject,
            spec.kind,
            held.deadline,
            pool.map(|pool| self.utilisation(pool)),
            spec.traceparent.clone(),
            self.deps.clock.now(),
        );
        status.node_uid = self.uid_of(&subject.node);
        let (node_name, instance_id) = (subject.node, subject.instance_id);
        let spec =
            NodeReplacementSpec { pool: pool.cloned(), node_name, instance_id, place: None, adopted: None };
        let mut record = NodeReplacement::new(&subject.name, spec);
        record.status = Some(status);
        record
    }
}

fn record_of<'a>(
    records: &'a BTreeMap<ReplacementName, NodeReplacement>,
    node: &NodeName,
    instance: &InstanceId,
) -> Option<&'a NodeReplacement> {
    notices::record_of(node, instance, |name| records.get(name), |record| &record.spec.node_name)
}
