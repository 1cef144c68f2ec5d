//! Owns the NodeReplacements: the thread of every replacement, from its notice to its end.
//!
//! - Boxes: 6
//! - Part of: 11 (the replacement is closed)
//! - Hears: [`PoolObserved`], [`PoolRefused`], [`DrainsReported`], [`PoolAssessed`]; notices and SpotActions
//!   from the watch
//! - Sends: [`ScaleGroups`], [`DrainNodes`]
//! - Decided in: [`spot_guard_core::replacement`], [`spot_guard_core::notices`],
//!   [`spot_guard_core::spot_action`]
//!
//! A turn reads the world once, lets the records advance, stores them, and only then sends what follows from
//! them.

mod fits;
mod known;
mod notices;
mod refusals;
mod spot_actions;
mod stand_ins;
mod steps;
mod store;
mod turn_view;

use crate::actors::deps::Deps;
use crate::actors::messages::{
    DrainNodes, DrainsReported, PoolAssessed, PoolObserved, PoolRefused, ScaleGroups,
};
use crate::actors::supervision::{MessageLink, answers_ping};
use crate::crd::{NodeReplacement, version};
use actix::prelude::*;
use fits::Fits;
use futures::StreamExt;
use jiff::Timestamp;
use known::{Known, PoolFacts, Reading, SentWants};
use kube::ResourceExt;
use refusals::{Refused, Removals};
use spot_actions::{Replies, Reply};
use spot_guard_core::adoption::Adopted;
use spot_guard_core::drain::NodeInstance;
use spot_guard_core::freshness::{Freshness, Step, WatchedKind};
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::{InstanceId, PoolName, ReplacementName};
use spot_guard_core::scaling::wants;
use spot_guard_core::stand_ins::failures_matter_to_advice_since;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use store::{Write, store};
use turn_view::TurnView;

/// Time alone moves a replacement too (timeouts, retries): how often the records are gone through.
const TURN: Duration = Duration::from_secs(1);
/// After this time more SpotActions are looked at, unless something else begins a turn.
const NEXT_LOOK: Duration = Duration::from_millis(100);
/// How many records are written at the same time.
const PARALLEL_WRITES: usize = 8;

/// What a turn leads to.
struct Plan {
    /// Of records.
    writes: Vec<Write>,
    /// Notices that are to be removed.
    refused: Vec<Refused>,
    /// To SpotActions.
    replies: Vec<Reply>,
    /// Whether more SpotActions are to be looked at.
    more: bool,
}

/// Go through the records.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// The writes of a turn ended: the records as they are stored now.
#[derive(Message)]
#[rtype(result = "()")]
struct TurnEnded {
    reading: Reading,
    stored: Vec<NodeReplacement>,
    failed: bool,
}

/// The actor.
pub struct FallbackTracker {
    deps: Deps,
    /// Which life of the actor this is.
    life: u64,
    scale: MessageLink<ScaleGroups>,
    drain: MessageLink<DrainNodes>,
    /// What the AsgScaler was sent last, by pool.
    sent: BTreeMap<PoolName, SentWants>,
    known: Known,
    /// Which watches showed an old picture when it was looked last.
    freshness: Freshness,
    /// The uid of each record that the watch shows. One that it showed and shows no more was deleted.
    shown: BTreeMap<ReplacementName, Option<String>>,
    replies: Replies,
    /// Whether a turn is due for SpotActions that had no look yet.
    looks_again: bool,
    removals: Removals,
    /// Whether time alone may decide about a notice, or one is still to be removed.
    notices_wait: bool,
    /// How many stand-ins each pool wants that have not begun.
    stand_ins: BTreeMap<PoolName, usize>,
    /// Which instance each pool adopts next.
    adoptions: BTreeMap<PoolName, Adopted>,
    fits: Fits,
    under_way: bool,
    again: bool,
}

impl FallbackTracker {
    /// A tracker that has read nothing yet. `life` is its incarnation.
    #[must_use]
    pub fn new(
        deps: Deps,
        life: u64,
        scale: MessageLink<ScaleGroups>,
        drain: MessageLink<DrainNodes>,
    ) -> Self {
        let fits = Fits::new(deps.heavy.clone(), deps.metrics.clone());
        Self {
            deps,
            life,
            scale,
            drain,
            sent: BTreeMap::new(),
            known: Known::default(),
            freshness: Freshness::default(),
            shown: BTreeMap::new(),
            replies: Replies::default(),
            looks_again: false,
            removals: Removals::default(),
            notices_wait: false,
            stand_ins: BTreeMap::new(),
            adoptions: BTreeMap::new(),
            fits,
            under_way: false,
            again: false,
        }
    }

    /// Says which watches show an old picture, once per change. What was judged by one is judged anew.
    fn look_at_watches(&mut self) {
        let freshness = self.deps.view.freshness();
        if !freshness.allows(Step::Return) {
            self.known.assessments.clear();
        }
        if freshness == self.freshness {
            return;
        }
        self.deps.metrics.stale_watches(&freshness);
        let kinds =
            |held: &Freshness| held.stale.iter().map(|held| held.kind).collect::<BTreeSet<WatchedKind>>();
        let (before, now) = (kinds(&self.freshness), kinds(&freshness));
        for held in freshness.stale.iter().filter(|held| !before.contains(&held.kind)) {
            tracing::warn!(since = %held.since, "{held}: nothing irreversible is done on its data");
        }
        for kind in before.difference(&now) {
            tracing::info!(kind = kind.plural(), "the watch is current again");
        }
        self.freshness = freshness;
    }

    /// Takes in what the watch knows: records that are gone, and records that this life has not seen.
    fn merge_watch(&mut self) {
        let view = &self.deps.view;
        // One that could not be read as soon as it had a status.
        let has_begun_nothing = |record: &NodeReplacement| {
            record.status.is_none() && view.may_hide_record(&record.replacement_name())
        };
        let mut seen = view.replacements.state();
        seen.retain(|record| !has_begun_nothing(record));
        let shown: BTreeMap<ReplacementName, Option<String>> =
            seen.iter().map(|record| (record.replacement_name(), record.uid())).collect();
        self.known.records.retain(|name, record| {
            // The watch has not come to a record that was only just created, and cannot show one that it
            // cannot read.
            let may_be_there = self.shown.get(name) != Some(&record.uid()) || view.may_hide_record(name);
            shown.contains_key(name) || !has_begun_nothing(record) && record.is_open() && may_be_there
        });
        self.shown = shown;
        for record in seen {
            let newer = self
                .known
                .records
                .get(&record.replacement_name())
                .is_none_or(|held| version(&*record) > version(held));
            if newer {
                if !self.known.records.contains_key(&record.replacement_name()) {
                    self.tell_recent_steps(&record);
                }
                self.known.records.insert(record.replacement_name(), (*record).clone());
            }
        }
    }
}

impl Actor for FallbackTracker {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(Turn);
        ctx.run_interval(TURN, |actor, ctx| {
            actor.look_at_watches();
            if actor.notices_wait || actor.known.records.values().any(NodeReplacement::is_open) {
                ctx.notify(Turn);
            }
        });
        let changes = self.deps.view.subscribe();
        let stream = futures::stream::unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            Some((Turn, changes))
        });
        ctx.add_message_stream(stream);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        // Who does not lead takes no steps that could wait.
        self.deps.metrics.stale_watches(&Freshness::default());
    }
}

/// Deadlines first, then the oldest: in this order replacements take the places that a pool has.
fn urgency(record: &NodeReplacement) -> (bool, Option<Timestamp>) {
    let status = record.status.as_ref();
    (status.is_none_or(|status| status.deadline.is_none()), status.and_then(|status| status.started_at))
}

impl Handler<PoolObserved> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolObserved, ctx: &mut Self::Context) {
        let PoolObserved { pool, view, ledger, revision, cordon } = message;
        let withdrawn = self.sent.get(&pool).map(|sent| sent.withdrawn_by(revision)).unwrap_or_default();
        let mut cordon = BTreeSet::clone(&cordon);
        if let Some(PoolFacts::Observed { cordon: before, .. }) = self.known.pools.remove(&pool) {
            // A node is Ready for a while after its instance was ended: nothing is to be bound to it. Later
            // its object alone may be left, for ever.
            let snapshot = self.deps.view.snapshot();
            let active = |id: &InstanceId| view.spot.is_active(id) || view.on_demand.is_active(id);
            let serves = |id: &InstanceId| snapshot.nodes_of_instance(id).any(|node| node.ready);
            let ended = |id: &InstanceId| !active(id) && serves(id);
            cordon.extend(before.into_iter().filter(ended));
        }
        let facts = PoolFacts::Observed { view, ledger, withdrawn, cordon };
        self.known.pools.insert(pool, facts);
        ctx.notify(Turn);
    }
}

impl Handler<PoolRefused> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, PoolRefused { pool, finding }: PoolRefused, ctx: &mut Self::Context) {
        self.known.pools.insert(pool, PoolFacts::Refused(finding));
        ctx.notify(Turn);
    }
}

impl Handler<DrainsReported> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: DrainsReported, ctx: &mut Self::Context) {
        let DrainsReported { reports, found_empty } = message;
        if self.known.drains != reports || self.known.found_empty != found_empty {
            (self.known.drains, self.known.found_empty) = (reports, found_empty);
            ctx.notify(Turn);
        }
    }
}

impl Handler<PoolAssessed> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolAssessed, ctx: &mut Self::Context) {
        for (name, assessment) in message.assessment.returns {
            self.known.assessments.insert(name, assessment);
        }
        self.adoptions.extend(message.adoption.next.map(|next| (message.pool.clone(), next)));
        self.stand_ins.insert(message.pool, message.shortfall.wanted);
        ctx.notify(Turn);
    }
}

impl Handler<Turn> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        if self.under_way {
            self.again = true;
            return;
        }
        self.look_at_watches();
        self.merge_watch();
        let reading = Reading::of(&self.deps);
        let Plan { writes, refused, replies, more } = self.plan(&reading);
        let may_act = self.deps.fence.may_act(self.deps.call_timeout);
        if may_act {
            self.remove(refused, ctx);
            self.reply(replies, ctx);
        }
        if more && may_act {
            self.look_again(ctx);
        }
        if writes.is_empty() {
            self.tell(&reading, ctx);
            return;
        }
        if !may_act {
            return;
        }
        self.under_way = true;
        let deps = self.deps.clone();
        let stored = async move {
            let results: Vec<_> = futures::stream::iter(writes)
                .map(|write| store(&deps, write))
                .buffer_unordered(PARALLEL_WRITES)
                .collect()
                .await;
            let failed = results.iter().any(Option::is_none);
            TurnEnded { reading, stored: results.into_iter().flatten().flatten().collect(), failed }
        };
        ctx.spawn(stored.into_actor(self).map(|ended, _, ctx| ctx.notify(ended)));
    }
}

impl Handler<TurnEnded> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, TurnEnded { reading, stored, failed }: TurnEnded, ctx: &mut Self::Context) {
        self.under_way = false;
        for record in stored {
            let name = record.replacement_name();
            self.log_steps(self.known.records.get(&name), &record);
            if !record.is_open() {
                self.known.assessments.remove(&name);
            }
            self.known.records.insert(name, record);
        }
        self.tell(&reading, ctx);
        if std::mem::take(&mut self.again) && !failed {
            ctx.notify(Turn);
        } else if failed {
            ctx.notify_later(Turn, TURN);
        }
    }
}

answers_ping!(FallbackTracker);

impl FallbackTracker {
    /// What this turn makes of the notices, the SpotActions and the open records.
    fn plan(&mut self, reading: &Reading) -> Plan {
        let mut turn = TurnView::new(&self.deps, reading, &self.known, &self.fits);
        let heard = turn.hear(&self.known.records, &self.deps.view.notices.state());
        let mut writes = heard.writes;
        let followed = turn.follow_spot_actions(&self.known.records, &mut self.replies, &writes);
        writes.extend(followed.writes);
        for (pool, wanted) in std::mem::take(&mut self.stand_ins) {
            writes.extend(turn.stand_in(&pool, wanted, &self.known.records));
        }
        for (pool, adopted) in std::mem::take(&mut self.adoptions) {
            writes.extend(turn.adopt(&pool, adopted, &self.known.records));
        }
        let mut open: Vec<&NodeReplacement> =
            self.known.records.values().filter(|record| record.is_open()).collect();
        open.sort_by_key(|record| urgency(record));
        writes.extend(open.into_iter().filter_map(|record| turn.advance(record)));
        self.notices_wait =
            heard.waits || !heard.refused.is_empty() || !self.deps.view.crowded_out.is_empty();
        Plan { writes, refused: heard.refused, replies: followed.replies, more: followed.more }
    }

    /// Removes refused notices beside the mailbox. What is left comes with a later turn.
    fn remove(&mut self, refused: Vec<Refused>, ctx: &mut Context<Self>) {
        let Some(batch) = self.removals.next(refused, &self.deps.view) else { return };
        let work = refusals::remove(self.deps.clone(), batch).into_actor(self);
        ctx.spawn(work.map(|gone, actor, ctx| {
            let pause = actor.removals.ended(gone);
            ctx.run_later(pause, |actor, ctx| {
                actor.removals.rested();
                ctx.notify(Turn);
            });
        }));
    }

    /// Begins a turn for the SpotActions that had no look yet, unless the end of an answer does.
    fn look_again(&mut self, ctx: &mut Context<Self>) {
        if self.looks_again || self.replies.are_under_way() {
            return;
        }
        self.looks_again = true;
        ctx.run_later(NEXT_LOOK, |actor, ctx| {
            actor.looks_again = false;
            ctx.notify(Turn);
        });
    }

    /// Answers SpotActions beside the mailbox.
    fn reply(&mut self, replies: Vec<Reply>, ctx: &mut Context<Self>) {
        if replies.is_empty() {
            return;
        }
        let work = spot_actions::reply(self.deps.clone(), self.replies.begin(replies)).into_actor(self);
        ctx.spawn(work.map(|replied, actor, ctx| {
            let pause = if actor.replies.ended(replied) { Duration::ZERO } else { TURN };
            ctx.notify_later(Turn, pause);
        }));
    }

    /// Tells the AsgScaler and the Drainer what must hold for the stored records.
    fn tell(&mut self, reading: &Reading, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let turn = TurnView::new(&self.deps, reading, &self.known, &self.fits);
        self.sent.retain(|pool, _| reading.configs.contains_key(pool));
        let mut by_pool: BTreeMap<PoolName, ScaleGroups> = BTreeMap::new();
        let mut cordoned = BTreeSet::new();
        for name in turn.configs.keys() {
            let mut wanted = ScaleGroups { pool: name.clone(), ..ScaleGroups::default() };
            if let Some(PoolFacts::Observed { view, cordon, .. }) = self.known.pools.get(name) {
                wanted.instances.found_empty = self.instances_found_empty(view, &turn);
                let (now, key) = (self.deps.clock.now(), &self.deps.taint_key);
                wanted.instances.interrupted_zones = self.known.interrupted_zones(name, now);
                wanted.instances.look_at(view, turn.snapshot, turn.freshness, key, now);
                cordoned.extend(cordon.iter().cloned());
                cordoned.extend(turn.marked_and_leaving(view));
            }
            if turn.awaits_failed_launch(name) {
                let now = self.deps.clock.now();
                wanted.spot_failures_since = Some(failures_matter_to_advice_since(now));
            }
            by_pool.insert(name.clone(), wanted);
        }
        let mut drains = Vec::new();
        let mut protected = BTreeSet::new();
        let mut questions = Vec::new();
        for record in self.known.records.values().filter(|record| record.is_open()) {
            let commands = turn.commands(record);
            drains.extend(commands.drains);
            protected.extend(commands.protected);
            questions.extend(turn.questions(record, commands.questions));
            let Some(wanted) = record.spec.pool.as_ref().and_then(|pool| by_pool.get_mut(pool)) else {
                continue;
            };
            wanted.wants.extend(commands.wants);
            wanted.ends.extend(commands.ends);
            wanted.instances.taken.extend(commands.taken);
            wanted.instances.misfits.extend(commands.misfits);
            let watched = [wanted.spot_failures_since, commands.spot_failures_since];
            wanted.spot_failures_since = watched.into_iter().flatten().min();
        }
        let is_unreadable = |name: &str| self.deps.view.may_hide_record(name);
        for (name, mut wanted) in by_pool {
            if let Some(ledger) = self.known.pools.get(&name).and_then(PoolFacts::ledger) {
                wants::end_orphans(&mut wanted.wants, ledger, &is_unreadable);
            }
            let sent = self.sent.entry(name).or_default();
            self.scale.send(sent.revise(wanted, self.life));
        }
        self.drain.send(DrainNodes { drains, cordoned, protected });
        self.fits.ask(questions);
        self.look_for_answers(ctx);
    }

    /// Finds out beside the mailbox what the next steps have to know.
    fn look_for_answers(&mut self, ctx: &mut Context<Self>) {
        if let Some(work) = self.fits.open(&self.deps.view.snapshot()) {
            ctx.spawn(work.into_actor(self).map(|found, actor, ctx| {
                actor.fits.learn(found);
                ctx.notify(Turn);
            }));
        }
    }

    /// When the node of each instance of a pool was found empty, if it was.
    fn instances_found_empty(&self, view: &PoolView, turn: &TurnView<'_>) -> BTreeMap<InstanceId, Timestamp> {
        let found = |id: &InstanceId| {
            let node = turn.snapshot.node_of_instance(id)?.name.clone();
            let found = NodeInstance { node, instance_id: id.clone() };
            Some((id.clone(), *self.known.found_empty.get(&found)?))
        };
        view.instances().filter_map(|instance| found(&instance.id)).collect()
    }
}
