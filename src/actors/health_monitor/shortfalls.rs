//! What stands in for Spot capacity that is missing without an interruption notice: how much, or what
//! holds it.

use crate::actors::deps::{Deps, PoolConfig};
use crate::actors::messages::PoolObserved;
use crate::crd::NodeReplacement;
use crate::kube::autoscaler;
use jiff::Timestamp;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::StaleWatch;
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::PoolName;
use spot_guard_core::preflight;
use spot_guard_core::reason::Reason;
use spot_guard_core::replacement::Mode;
use spot_guard_core::shortfall::{
    self, Circumstances, ModeInForce, OwnRecord, Shapes, Shortfall, ShortfallMode,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A pool that lacks Spot instances is assessed this often.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Whether a pool's Spot group lacks instances that no replacement waits for.
pub(super) fn is_short(pool: &PoolConfig, observed: Option<&PoolObserved>) -> bool {
    let lacks = |observed: &PoolObserved| !observed.ledger.empty_places.is_empty();
    !pool.deleted && pool.shortfall.is_on() && observed.is_some_and(lacks)
}

/// What else counts when a pool's shortfall is judged.
pub(super) struct Around {
    /// The groups of the pools that come before this one and look after pods that wait: each counts once.
    earlier: Vec<Arc<PoolView>>,
    /// What holds all voluntary work.
    pub(super) held: Vec<Reason>,
}

impl Around {
    pub(super) fn of(
        pool: &PoolConfig,
        all: &BTreeMap<PoolName, PoolConfig>,
        observed: &BTreeMap<PoolName, PoolObserved>,
        stale: &[StaleWatch],
    ) -> Self {
        let before = all.range(..pool.name.clone()).filter(|(name, other)| {
            let acts = other.mode == Mode::Act && other.shortfall.mode != Some(ShortfallMode::Observe);
            acts && other.pause.is_none() && is_short(other, observed.get(*name))
        });
        let earlier = before.filter_map(|(name, _)| Some(observed.get(name)?.view.clone())).collect();
        let pause = pool.pause.clone().map(Reason::Paused);
        let rollout = observed.get(&pool.name).and_then(|observed| preflight::rollout(&observed.view));
        let stale = stale.iter().cloned().map(Reason::StaleWatch);
        let held = pause.into_iter().chain(rollout).chain(stale).collect();
        Self { earlier, held }
    }
}

/// The mode in force, which was `held` before. Whether a cluster-autoscaler leads is asked only where that
/// decides.
pub(super) async fn in_force(deps: Deps, pool: &PoolConfig, held: Option<ModeInForce>) -> ModeInForce {
    let leads = match pool.shortfall.mode_said(pool.mode) {
        Some(_) => None,
        None => autoscaler::leads(deps.client, &deps.autoscaler_lease, deps.clock.now()).await,
    };
    ModeInForce::next(held, &pool.shortfall, pool.mode, leads, deps.clock.now())
}

/// How much stands in, or what holds it.
pub(super) fn judge(
    pool: &PoolConfig,
    observed: &PoolObserved,
    mode: ShortfallMode,
    around: &Around,
    (records, snapshot, taint_key): (&[Arc<NodeReplacement>], &Snapshot, &str),
    now: Timestamp,
) -> Shortfall {
    let own = records.iter().filter(|record| record.spec.pool.as_ref() == Some(&pool.name));
    let known: Vec<OwnRecord<'_>> = own.filter_map(|record| record.in_pool()).collect();
    let view = &*observed.view;
    let shapes = |view: &PoolView| Shapes::of(view, snapshot, taint_key);
    let need = || {
        let earlier: Vec<Shapes> = around.earlier.iter().map(|view| shapes(view)).collect();
        let stand_ins = shortfall::standing(&known, now);
        shapes(view).need(view, snapshot, &earlier, &pool.policy, &stand_ins, now)
    };
    shortfall::judge(&Circumstances {
        spec: &pool.shortfall,
        mode,
        policy: &pool.policy,
        view,
        ledger: &observed.ledger,
        known: &known,
        need: &need,
        held: &around.held,
        now,
    })
}
