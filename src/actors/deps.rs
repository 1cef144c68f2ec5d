//! What the actors of the controller share.

use crate::actors::heavy::Heavy;
use crate::actors::last_readings::LastReadings;
use crate::aws::AutoScaling;
use crate::aws::queue::SqsQueue;
use crate::clock::Clock;
use crate::crd::SpotPool;
use crate::kube::autoscaler::AutoscalerLease;
use crate::kube::lease::Fence;
use crate::kube::view::View;
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notifications::Notifications;
use crate::telemetry::readiness::Readiness;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use spot_guard_core::adoption::OnDemandSpec;
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::group::{LaunchInstances, PoolView};
use spot_guard_core::ids::{GroupName, PoolName, ReplacementName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::limits::Pause;
use spot_guard_core::notices::{self, GroupClaim};
use spot_guard_core::policy::Policy;
use spot_guard_core::preflight::{self, Finding, PoolNames};
use spot_guard_core::record::{GroupKind, ReplacedBy};
use spot_guard_core::replacement::{Mode, RebalanceMode};
use spot_guard_core::shortfall::ShortfallSpec;
use spot_guard_core::spot_action::RequestedAction;
use spot_guard_core::stand_ins::CoverSpec;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Handles to the world; clones share them.
#[derive(Clone)]
pub struct Deps {
    /// The Kubernetes API.
    pub client: Client,
    /// The cluster, kept by watches.
    pub view: View,
    /// The Auto Scaling API.
    pub aws: AutoScaling,
    /// The queue of notices, if there is one.
    pub queue: Option<SqsQueue>,
    /// The time.
    pub clock: Clock,
    /// Whether this process may change anything now.
    pub fence: Fence,
    /// How long one call may take.
    pub call_timeout: Duration,
    /// The settings that pools start from.
    pub defaults: Policy,
    /// Whether nodes outside every pool are drained when EC2 takes them.
    pub drain_outside_pools: bool,
    /// The Lease of cluster-autoscaler.
    pub autoscaler_lease: Arc<AutoscalerLease>,
    /// The key of our taint.
    pub taint_key: Arc<str>,
    /// The namespace of Spot Guard.
    pub namespace: Arc<str>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What works and what does not.
    pub readiness: Readiness,
    /// What `kubectl describe` shows.
    pub events: Events,
    /// What people are told unasked.
    pub notifications: Notifications,
    /// Where checks are made.
    pub heavy: Heavy,
    /// When the groups of each pool were last read.
    pub last_readings: LastReadings,
}

/// A pool with its settings resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolConfig {
    /// The SpotPool's name.
    pub name: PoolName,
    /// The Spot group's name.
    pub spot_group: GroupName,
    /// The on-demand group's name.
    pub on_demand_group: GroupName,
    /// How it is treated.
    pub mode: Mode,
    /// What advice starts.
    pub rebalance: RebalanceMode,
    /// Whether a person paused it.
    pub pause: Option<Pause>,
    /// Which groups LaunchInstances is used on.
    pub launch_instances: LaunchInstances,
    /// Who is to replace its Spot nodes, if a person said so.
    pub replaced_by: Option<ReplacedBy>,
    /// Whether lifecycle actions of its groups are held until their nodes are drained.
    pub complete_lifecycle_actions: bool,
    /// What is done about Spot capacity that is missing without a notice.
    pub shortfall: ShortfallSpec,
    /// What on-demand stands in for if the Spot group replaces its nodes by itself.
    pub cover: CoverSpec,
    /// How many on-demand instances it is to have.
    pub on_demand: OnDemandSpec,
    /// When it was made: of two pools that name a group, the older one has it.
    pub created: Option<Timestamp>,
    /// Whether it was deleted, and stays until its requests are settled. Nothing begins in it any more.
    pub deleted: bool,
    /// Its settings.
    pub policy: Policy,
}

impl PoolConfig {
    /// The pool with what it leaves open filled in.
    #[must_use]
    pub fn of(pool: &SpotPool, defaults: &Policy, pause: Option<Pause>) -> Self {
        Self {
            name: pool.name_any().into(),
            spot_group: pool.spec.spot_group.clone(),
            on_demand_group: pool.spec.on_demand_group.clone(),
            mode: pool.spec.mode,
            rebalance: pool.spec.rebalance,
            pause,
            launch_instances: pool.spec.launch_instances,
            replaced_by: pool.spec.replaced_by,
            complete_lifecycle_actions: pool.spec.complete_lifecycle_actions,
            shortfall: pool.spec.shortfall.clone(),
            cover: pool.spec.cover,
            on_demand: pool.spec.on_demand.clone(),
            created: pool.creation_timestamp().map(|time| time.0),
            deleted: pool.metadata.deletion_timestamp.is_some(),
            policy: defaults.overridden(&pool.spec.policy),
        }
    }

    /// The name of the group of that kind.
    #[must_use]
    pub fn group(&self, kind: GroupKind) -> &GroupName {
        match kind {
            GroupKind::Spot => &self.spot_group,
            GroupKind::OnDemand => &self.on_demand_group,
        }
    }

    /// Who replaces its Spot nodes, by its groups as they are.
    #[must_use]
    pub fn replacer(&self, view: &PoolView) -> ReplacedBy {
        preflight::replaced_by(self.replaced_by, view)
    }

    /// Its claim to what it names.
    #[must_use]
    pub fn claim(&self) -> GroupClaim<'_> {
        GroupClaim { created: self.created, pool: &self.name }
    }

    /// What is to be said of its groups, among all pools. `cluster` is what is known of the Nodes.
    #[must_use]
    pub fn findings(
        &self,
        all: &BTreeMap<PoolName, Self>,
        view: &PoolView,
        ledger: &Ledger,
        cluster: Option<&Snapshot>,
    ) -> Vec<Finding> {
        let names = PoolNames {
            name: &self.name,
            spot: &self.spot_group,
            on_demand: &self.on_demand_group,
            launch_instances: self.launch_instances,
            replaced_by: self.replaced_by,
            baseline: self.on_demand.baseline,
        };
        let owner = |group: &GroupName| {
            let named = all.values().filter(|pool| pool.spot_group == group || pool.on_demand_group == group);
            notices::owner_of(named.map(Self::claim)).cloned()
        };
        preflight::check(names, view, ledger, &owner, cluster)
    }
}

/// What is paused, and by whom.
#[derive(Clone, Debug)]
pub struct Pauses {
    /// Whether the namespace of Spot Guard says so.
    label: bool,
    /// The SpotActions that pause something.
    asked: Vec<RequestedAction>,
}

impl Pauses {
    /// The pauses that hold now; `label` is whether the namespace of Spot Guard says that everything is
    /// paused.
    #[must_use]
    pub fn of(label: bool, spot_actions: impl IntoIterator<Item = RequestedAction>) -> Self {
        Self { label, asked: spot_actions.into_iter().filter(RequestedAction::pauses).collect() }
    }

    /// The SpotActions that pause something.
    #[must_use]
    pub fn asked(&self) -> &[RequestedAction] {
        &self.asked
    }

    /// Why everything is paused, if it is.
    #[must_use]
    pub fn of_everything(&self) -> Option<Pause> {
        self.label.then_some(Pause::Everything).or_else(|| self.asked_for(None))
    }

    /// Why the pool is paused, if it is.
    #[must_use]
    pub fn of_pool(&self, pool: &SpotPool) -> Option<Pause> {
        let own = pool.spec.paused.then_some(Pause::Pool);
        self.of_everything().or(own).or_else(|| self.asked_for(Some(&pool.name_any().into())))
    }

    /// The pauses that a `Resume` of the pool, or of everything, would leave.
    #[must_use]
    pub fn beside(&self, scope: Option<&PoolName>) -> Self {
        let other = |ask: &&RequestedAction| ask.pool.as_ref() != scope;
        Self { label: self.label, asked: self.asked.iter().filter(other).cloned().collect() }
    }

    fn asked_for(&self, scope: Option<&PoolName>) -> Option<Pause> {
        let held = self.asked.iter().filter(|ask| ask.pool.as_ref() == scope).min_by_key(|ask| &ask.order)?;
        let (spot_action, by) = (held.name.clone(), held.by.clone());
        Some(Pause::SpotAction { spot_action, by, everything: scope.is_none() })
    }
}

impl Deps {
    /// What is paused now.
    #[must_use]
    pub fn pauses(&self) -> Pauses {
        Pauses::of(*self.view.paused.borrow(), self.view.open_spot_actions.pauses())
    }

    /// The pools as they are defined now, by name.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<PoolName, PoolConfig> {
        let pauses = self.pauses();
        self.view
            .pools
            .state()
            .iter()
            .map(|pool| PoolConfig::of(pool, &self.defaults, pauses.of_pool(pool)))
            .map(|pool| (pool.name.clone(), pool))
            .collect()
    }

    /// The settings for nodes outside every pool: nobody has allowed more there than evictions.
    #[must_use]
    pub fn outside_pools(&self) -> Policy {
        Policy { delete_at_deadline: false, ..self.defaults.clone() }
    }

    /// The settings for a replacement: its pool's, or those that pools start from.
    #[must_use]
    pub fn policy_of(&self, replacement: &ReplacementName, pools: &BTreeMap<PoolName, PoolConfig>) -> Policy {
        let Some(pool) = self.pool_of(replacement) else {
            return self.outside_pools();
        };
        pools.get(&pool).map_or_else(|| self.defaults.clone(), |config| config.policy.clone())
    }

    /// The pool of a replacement, if it is in one.
    #[must_use]
    pub fn pool_of(&self, replacement: &ReplacementName) -> Option<PoolName> {
        let record = self.view.replacements.get(&ObjectRef::new(replacement))?;
        record.spec.pool.clone()
    }
}
