//! What stands in for Spot capacity that is missing without an interruption notice: how much, or what
//! holds it.

use crate::actors::deps::PoolConfig;
use crate::actors::messages::PoolObserved;
use crate::crd::NodeReplacement;
use jiff::Timestamp;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::freshness::StaleWatch;
use spot_guard_core::group::PoolView;
use spot_guard_core::ids::PoolName;
use spot_guard_core::preflight;
use spot_guard_core::reason::Reason;
use spot_guard_core::shortfall::{self, Circumstances, OwnRecord, Shapes, Shortfall, ShortfallMode};
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
    /// `in_force` is the mode of a pool's shortfalls that is in force.
    pub(super) fn of(
        pool: &PoolConfig,
        all: &BTreeMap<PoolName, PoolConfig>,
        observed: &BTreeMap<PoolName, PoolObserved>,
        records: &[Arc<NodeReplacement>],
        in_force: &dyn Fn(&PoolName) -> Option<ShortfallMode>,
        (stale, now): (&[StaleWatch], Timestamp),
    ) -> Self {
        // One that does nothing for its pods leaves them to the next.
        let looks_after = |(name, other): (&PoolName, &PoolConfig)| {
            let observed = observed.get(name).filter(|observed| is_short(other, Some(observed)))?;
            let (view, ledger) = (&observed.view, &observed.ledger);
            let own = records.iter().filter(|record| record.spec.pool.as_ref() == Some(name));
            let known = own.filter_map(|record| record.in_pool());
            let acts = in_force(name) == Some(ShortfallMode::Act) && other.pause.is_none();
            let accepted = || preflight::refusals(&other.findings(all, view, ledger, None)).is_empty();
            let lacks = || !shortfall::uncovered(ledger, &view.spot, known, now).is_empty();
            (acts && lacks() && accepted()).then(|| view.clone())
        };
        let earlier = all.range(..pool.name.clone()).filter_map(looks_after).collect();
        let pause = pool.pause.clone().map(Reason::Paused);
        let rollout = observed.get(&pool.name).and_then(|observed| preflight::rollout(&observed.view));
        let stale = stale.iter().cloned().map(Reason::StaleWatch);
        let held = pause.into_iter().chain(rollout).chain(stale).collect();
        Self { earlier, held }
    }
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
