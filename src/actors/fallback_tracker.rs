//! Boxes 6 (tracking) and 11 (removal), and the thread of every story: owns the NodeReplacements.
//!
//! Hears [`PoolObserved`] and [`PoolRefused`] from the AsgScaler, [`DrainsReported`] from the Drainer, [`PoolAssessed`] from the
//! HealthMonitor, and the notices from the watch. Feeds them into [`spot_guard_core::replacement`], stores the
//! records, and only then tells the AsgScaler [`ScaleGroups`] and the Drainer [`DrainNodes`]: always the
//! complete picture, so that a lost message costs one turn and nothing else.

mod fits;
mod notices;
mod refusals;
mod store;
mod triggers;
mod turn_view;

use crate::actors::asg_scaler::{AsgScaler, PoolObserved, PoolRefused, ScaleGroups};
use crate::actors::deps::Deps;
use crate::actors::drainer::{DrainNodes, Drainer, DrainsReported};
use crate::actors::health_monitor::PoolAssessed;
use crate::actors::supervision::{Link, answers_ping, jittered};
use crate::crd::{InterruptionNotice, NodeReplacement, version};
use crate::telemetry::events::{self, Told};
use crate::telemetry::notifications::Notification;
use crate::telemetry::tracing::box_span;
use actix::prelude::*;
use fits::Fits;
use futures::StreamExt;
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use notices::Refused;
use refusals::{Batch, Removals};
use spot_guard_core::freshness::{Freshness, Step, WatchedKind};
use spot_guard_core::record::GroupKind;
use spot_guard_core::replacement::{DrainPurpose, DrainReport, ReturnAssessment};
use spot_guard_core::scaling::{Ledger, PoolView, Want};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Stored, store};
use turn_view::TurnView;

/// Time alone moves a story too (timeouts, retries): how often the records are gone through.
const TURN: Duration = Duration::from_secs(1);
/// How many records are written at the same time.
const PARALLEL_WRITES: usize = 8;

/// Go through the records.
#[derive(Message)]
#[rtype(result = "()")]
struct Turn;

/// The writes of a turn ended: the records as they are stored now.
#[derive(Message)]
#[rtype(result = "()")]
struct TurnEnded {
    stored: Vec<Stored>,
    failed: bool,
}

/// What is known of a pool's groups.
enum PoolFacts {
    Observed {
        view: Arc<PoolView>,
        ledger: Arc<Ledger>,
        withdrawn: Arc<BTreeSet<String>>,
        /// Idle instances to be cordoned, and those that were and are on their way out or gone.
        cordon: BTreeSet<String>,
    },
    /// They cannot be used, for this reason.
    Refused(String),
}

impl PoolFacts {
    fn view(&self) -> Option<&PoolView> {
        match self {
            Self::Observed { view, .. } => Some(view),
            Self::Refused(_) => None,
        }
    }

    /// Whether the ledger was written when it was known that the story wants nothing more of the Spot group.
    fn has_withdrawn(&self, replacement: &str) -> bool {
        matches!(self, Self::Observed { withdrawn, .. } if withdrawn.contains(replacement))
    }

    fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Observed { ledger, .. } => Some(ledger),
            Self::Refused(_) => None,
        }
    }
}

/// The actor.
pub struct FallbackTracker {
    deps: Deps,
    scaler: Link<AsgScaler>,
    drainer: Link<Drainer>,
    pools: BTreeMap<String, PoolFacts>,
    drains: BTreeMap<(String, DrainPurpose), DrainReport>,
    assessments: BTreeMap<String, ReturnAssessment>,
    /// When the API server listed each node as empty that is cordoned to be ended.
    found_empty: BTreeMap<String, Timestamp>,
    /// Which watches showed an old picture when it was looked last.
    freshness: Freshness,
    /// The records as this actor stored them last: newer than the watch.
    records: BTreeMap<String, NodeReplacement>,
    /// The uid of each record that the watch shows. One that it showed and shows no more was deleted.
    shown: BTreeMap<String, Option<String>>,
    /// The versions of triggers that were answered: the watch may show them for a moment yet.
    answered: BTreeMap<String, u64>,
    removals: Removals,
    /// Whether time alone may decide about a notice, or one is still to be removed.
    notices_wait: bool,
    fits: Fits,
    busy: bool,
    again: bool,
}

impl FallbackTracker {
    /// A tracker that has read nothing yet.
    #[must_use]
    pub fn new(deps: Deps, scaler: Link<AsgScaler>, drainer: Link<Drainer>) -> Self {
        let fits = Fits::new(deps.heavy.clone());
        Self {
            deps,
            scaler,
            drainer,
            pools: BTreeMap::new(),
            drains: BTreeMap::new(),
            assessments: BTreeMap::new(),
            found_empty: BTreeMap::new(),
            freshness: Freshness::default(),
            records: BTreeMap::new(),
            shown: BTreeMap::new(),
            answered: BTreeMap::new(),
            removals: Removals::default(),
            notices_wait: false,
            fits,
            busy: false,
            again: false,
        }
    }

    /// Says which watches show an old picture, once per change. What was judged by one is judged anew.
    fn look_at_watches(&mut self) {
        let freshness = self.deps.view.freshness();
        if !freshness.allows(Step::Return) {
            self.assessments.clear();
        }
        if freshness == self.freshness {
            return;
        }
        self.deps.metrics.stale_watches(&freshness);
        let kinds =
            |held: &Freshness| held.stale.iter().map(|held| held.kind).collect::<BTreeSet<WatchedKind>>();
        let (before, now) = (kinds(&self.freshness), kinds(&freshness));
        for held in freshness.stale.iter().filter(|held| !before.contains(&held.kind)) {
            tracing::warn!("{held}: nothing that cannot be taken back is done by it");
        }
        for kind in before.difference(&now) {
            tracing::info!(kind = kind.plural(), "the watch is current again");
        }
        self.freshness = freshness;
    }

    /// Takes in what the watch knows: records that are gone, and records that this life has not seen.
    fn merge_watch(&mut self) {
        let triggers = self.deps.view.triggers.state();
        self.answered.retain(|name, seen| {
            triggers.iter().any(|held| held.name_any() == *name && version(&**held) == *seen)
        });
        let seen = self.deps.view.replacements.state();
        let shown: BTreeMap<String, Option<String>> =
            seen.iter().map(|record| (record.name_any(), record.uid())).collect();
        let not_understood = self.deps.view.not_understood();
        self.records.retain(|name, record| {
            // The watch has not come to a record that was only just created, and cannot show one that it cannot read.
            let may_be_there = self.shown.get(name) != Some(&record.uid())
                || not_understood.may_hold(WatchedKind::Replacement, name);
            shown.contains_key(name) || is_open(record) && may_be_there
        });
        self.shown = shown;
        for record in seen {
            let newer =
                self.records.get(&record.name_any()).is_none_or(|held| version(&*record) > version(held));
            if newer {
                self.records.insert(record.name_any(), (*record).clone());
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
            if actor.notices_wait || actor.records.values().any(is_open) {
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

fn is_open(record: &NodeReplacement) -> bool {
    record.status.as_ref().is_none_or(|status| !status.phase.is_finished())
}

/// Deadlines first, then the oldest: in this order stories take the places that a pool has.
fn urgency(record: &NodeReplacement) -> (bool, Option<Timestamp>) {
    let status = record.status.as_ref();
    (status.is_none_or(|status| status.deadline.is_none()), status.and_then(|status| status.started_at))
}

impl Handler<PoolObserved> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolObserved, ctx: &mut Self::Context) {
        let PoolObserved { pool, view, ledger, withdrawn, cordon } = message;
        let mut cordon = BTreeSet::clone(&cordon);
        if let Some(PoolFacts::Observed { cordon: before, .. }) = self.pools.remove(&pool) {
            // A node is Ready for a while after its instance was ended: nothing is to be bound to it.
            let snapshot = self.deps.view.snapshot();
            let active = |id: &str| view.spot.is_active(id) || view.on_demand.is_active(id);
            let ended = |id: &String| !active(id) && snapshot.nodes_of_instance(id).next().is_some();
            cordon.extend(before.into_iter().filter(ended));
        }
        let facts = PoolFacts::Observed { view, ledger, withdrawn, cordon };
        self.pools.insert(pool, facts);
        ctx.notify(Turn);
    }
}

impl Handler<PoolRefused> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, PoolRefused { pool, reason }: PoolRefused, ctx: &mut Self::Context) {
        self.pools.insert(pool, PoolFacts::Refused(reason));
        ctx.notify(Turn);
    }
}

impl Handler<DrainsReported> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: DrainsReported, ctx: &mut Self::Context) {
        let DrainsReported { reports, found_empty } = message;
        if self.drains != reports || self.found_empty != found_empty {
            (self.drains, self.found_empty) = (reports, found_empty);
            ctx.notify(Turn);
        }
    }
}

impl Handler<PoolAssessed> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, message: PoolAssessed, ctx: &mut Self::Context) {
        for (name, assessment) in message.assessment.returns {
            self.assessments.insert(name, assessment);
        }
        ctx.notify(Turn);
    }
}

impl Handler<Turn> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, _: Turn, ctx: &mut Self::Context) {
        if self.busy {
            self.again = true;
            return;
        }
        self.look_at_watches();
        self.merge_watch();
        let mut turn = TurnView::new(
            &self.deps,
            &self.records,
            &self.pools,
            &self.drains,
            &self.assessments,
            &self.fits,
        );
        let notices = self.deps.view.notices.state();
        let told = turn.hear(&self.records, &notices);
        let mut writes = told.writes;
        writes.extend(turn.follow_triggers(&self.records, &self.answered, &writes));
        let mut open: Vec<&NodeReplacement> =
            self.records.values().filter(|record| is_open(record)).collect();
        open.sort_by_key(|record| urgency(record));
        for record in open {
            if let Some(write) = turn.advance(record) {
                writes.push(write);
            }
        }
        self.notices_wait = told.waits || !told.refused.is_empty();
        if let Some(batch) = self.removable(told.refused, &notices) {
            self.remove(batch, ctx);
        }
        if writes.is_empty() {
            self.tell(ctx);
            return;
        }
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        self.busy = true;
        let deps = self.deps.clone();
        let stored = async move {
            let results: Vec<_> = futures::stream::iter(writes)
                .map(|write| store(&deps, write))
                .buffer_unordered(PARALLEL_WRITES)
                .collect()
                .await;
            let failed = results.iter().any(Option::is_none);
            TurnEnded { stored: results.into_iter().flatten().flatten().collect(), failed }
        };
        ctx.spawn(stored.into_actor(self).map(|ended, _, ctx| ctx.notify(ended)));
    }
}

impl Handler<TurnEnded> for FallbackTracker {
    type Result = ();

    fn handle(&mut self, TurnEnded { stored, failed }: TurnEnded, ctx: &mut Self::Context) {
        self.busy = false;
        for stored in stored {
            let record = match stored {
                Stored::Record(record) => *record,
                Stored::Answer(name, version) => {
                    self.answered.insert(name, version);
                    continue;
                }
            };
            let name = record.name_any();
            self.log_steps(self.records.get(&name), &record);
            if !is_open(&record) {
                self.assessments.remove(&name);
            }
            self.records.insert(name, record);
        }
        self.tell(ctx);
        if std::mem::take(&mut self.again) && !failed {
            ctx.notify(Turn);
        } else if failed {
            ctx.notify_later(Turn, TURN);
        }
    }
}

answers_ping!(FallbackTracker);

impl FallbackTracker {
    /// The refused notices to remove now.
    fn removable(&mut self, refused: Vec<Refused>, seen: &[Arc<InterruptionNotice>]) -> Option<Batch> {
        let not_understood = self.deps.view.not_understood();
        let unread = not_understood.names(WatchedKind::Notice).map(str::to_owned).collect();
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return None;
        }
        self.removals.next(refused, seen, &unread)
    }

    /// Removes refused notices beside the mailbox. What is left comes with a later turn.
    fn remove(&self, batch: Batch, ctx: &mut Context<Self>) {
        let work = refusals::remove(self.deps.clone(), batch).into_actor(self);
        ctx.spawn(work.map(|gone, actor, ctx| {
            let goes_on = actor.removals.ended(gone);
            let pause = if goes_on { Duration::ZERO } else { jittered(refusals::PAUSE) };
            ctx.run_later(pause, |actor, ctx| {
                actor.removals.rested();
                ctx.notify(Turn);
            });
        }));
    }

    /// Tells the AsgScaler and the Drainer what must hold for the stored records.
    fn tell(&mut self, ctx: &mut Context<Self>) {
        if !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let turn = TurnView::new(
            &self.deps,
            &self.records,
            &self.pools,
            &self.drains,
            &self.assessments,
            &self.fits,
        );
        let mut by_pool: BTreeMap<String, ScaleGroups> = BTreeMap::new();
        let mut cordoned = BTreeSet::new();
        for name in turn.configs.keys() {
            let mut wanted = ScaleGroups { pool: name.clone(), ..ScaleGroups::default() };
            if let Some(PoolFacts::Observed { view, cordon, .. }) = self.pools.get(name) {
                wanted.instances.found_empty = self.instances_found_empty(view, &turn);
                wanted.instances.look_at(view, &turn.snapshot, &turn.freshness, self.deps.clock.now());
                cordoned.extend(turn.nodes_of(cordon));
            }
            by_pool.insert(name.clone(), wanted);
        }
        let mut drains = Vec::new();
        let mut protected = BTreeSet::new();
        let mut questions = Vec::new();
        for record in self.records.values().filter(|record| is_open(record)) {
            let commands = turn.commands(record);
            drains.extend(commands.drains);
            protected.extend(turn.nodes_of(&commands.protected));
            questions.extend(turn.questions(record, commands.questions));
            let Some(wanted) = record.spec.pool.as_ref().and_then(|pool| by_pool.get_mut(pool)) else {
                continue;
            };
            wanted.wants.extend(commands.wants);
            wanted.ends.extend(commands.ends);
            wanted.instances.taken.extend(commands.taken);
        }
        let not_understood = self.deps.view.not_understood();
        for (name, wanted) in by_pool {
            let mut wanted = wanted;
            if let Some(ledger) = self.pools.get(&name).and_then(PoolFacts::ledger) {
                for kind in [GroupKind::Spot, GroupKind::OnDemand] {
                    for share in ledger.shares(kind) {
                        // Its record is there and cannot be read: what it holds stays as it is.
                        if not_understood.may_hold(WatchedKind::Replacement, &share.replacement) {
                            continue;
                        }
                        // Nobody's any more: its record was finished or deleted.
                        wanted.wants.entry((kind, share.replacement.clone())).or_insert(Want::Done);
                    }
                }
            }
            self.scaler.send(wanted);
        }
        self.drainer.send(DrainNodes { drains, cordoned, protected });
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
    fn instances_found_empty(&self, view: &PoolView, turn: &TurnView<'_>) -> BTreeMap<String, Timestamp> {
        let found = |id: &String| {
            let node = turn.snapshot.node_of_instance(id)?;
            Some((id.clone(), *self.found_empty.get(&*node.name)?))
        };
        let all = view.spot.instances.iter().chain(&view.on_demand.instances);
        all.filter_map(|instance| found(&instance.id)).collect()
    }

    /// One log line, one span and one event for each step that was stored, and a notification for some.
    fn log_steps(&self, before: Option<&NodeReplacement>, after: &NodeReplacement) {
        let Some(status) = &after.status else { return };
        let known = before.and_then(|record| record.status.as_ref()).map_or(&[][..], |status| &status.steps);
        for step in status.steps.iter().filter(|step| !known.contains(step)) {
            let span = box_span(
                step.flow_box,
                &after.name_any(),
                &step.node,
                after.spec.pool.as_deref(),
                status.traceparent.as_deref(),
            );
            span.in_scope(|| tracing::info!(outcome = ?step.outcome, "{}", step.message));
            let told = Told {
                warning: step.outcome.is_warning(),
                reason: &format!("{:?}", step.outcome),
                action: format!("Box{}", step.flow_box.number()),
                note: &step.message,
                secondary: Some(after.object_ref(&())),
            };
            self.deps.events.tell(events::node(&step.node), told);
            if let Some(told) = Notification::of(&after.name_any(), after.spec.pool.as_deref(), step) {
                self.deps.notifications.tell(&told);
            }
        }
        self.deps.metrics.record_stored(before.and_then(|record| record.status.as_ref()), status);
    }
}
