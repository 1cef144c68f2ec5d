//! Removes what finished replacements leave behind, every 10 min.
//!
//! - Boxes: 11
//! - Hears: nobody
//! - Sends: nothing
//! - Decided in: [`spot_guard_core::limits`], [`spot_guard_core::notices`], [`spot_guard_core::spot_action`]
//!
//! A finished record goes after 24 h with its notices, and so does a SpotAction that is over. What EC2 has
//! scheduled for later keeps both, as long as the instance has its node: it may begin the replacement anew. A
//! taint that no record accounts for is taken off by the Drainer, a share of a ledger without a record by the
//! AsgScaler: both see the complete picture each time.

use crate::actors::deps::Deps;
use crate::actors::supervision::answers_ping;
use crate::crd::{InterruptionNotice, NodeReplacement, SpotAction};
use crate::kube::problem::RequestProblem;
use actix::prelude::*;
use k8s_openapi::ClusterResourceScope;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use spot_guard_core::freshness::WatchedKind;
use spot_guard_core::ids::InstanceId;
use spot_guard_core::policy::seconds;
use spot_guard_core::{limits, notices, spot_action};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// Time to clean up.
#[derive(Message)]
#[rtype(result = "()")]
struct CleanUp;

/// The actor.
pub struct Janitor {
    deps: Deps,
    under_way: bool,
}

impl Janitor {
    /// A Janitor that starts with a clean-up.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self { deps, under_way: false }
    }

    /// Until the next clean-up: the shortest that a pool asks for.
    fn pause(&self) -> Duration {
        let pools = self.deps.pools().into_values().map(|pool| pool.policy.cleanup_seconds);
        seconds(pools.min().unwrap_or(self.deps.defaults.cleanup_seconds))
    }

    fn finished_long_ago(&self) -> Vec<Arc<NodeReplacement>> {
        let (now, pools) = (self.deps.clock.now(), self.deps.pools());
        let to_be_maintained = self.to_be_maintained();
        let old = |record: &NodeReplacement| {
            let policy = self.deps.policy_of(&record.replacement_name(), &pools);
            record.status.as_ref().is_some_and(|status| limits::is_removable(status, &policy, now))
                && !to_be_maintained.contains(&record.spec.instance_id)
        };
        self.deps.view.replacements.state().into_iter().filter(|record| old(record)).collect()
    }

    /// The instances with a node of which EC2 has scheduled maintenance. Without their records the notices
    /// would begin the replacements anew at once, and without the notices nobody would at their time.
    fn to_be_maintained(&self) -> BTreeSet<InstanceId> {
        let (now, view) = (self.deps.clock.now(), &self.deps.view);
        // In this order: what is current now is so in the snapshot, too.
        let nodes_are_current = view.freshness().is_current(WatchedKind::Node);
        let snapshot = view.snapshot();
        let notices = view.notices.state().into_iter().filter(|notice| {
            let spec = &notice.spec;
            let has_node = snapshot.nodes_of_instance(&spec.instance_id).next().is_some();
            notices::is_scheduled(spec.kind, spec.deadline, now) && (has_node || !nodes_are_current)
        });
        notices.map(|notice| notice.spec.instance_id.clone()).collect()
    }

    fn spot_actions_over_long_ago(&self) -> Vec<Arc<SpotAction>> {
        let now = self.deps.clock.now();
        let pools = self.deps.pools().into_values().map(|pool| pool.policy.keep_finished_seconds);
        let keep = seconds(pools.min().unwrap_or(self.deps.defaults.keep_finished_seconds));
        let over = |spot_action: &SpotAction| {
            spot_action
                .status
                .as_ref()
                .is_some_and(|status| spot_action::is_removable(&status.conditions, keep, now))
        };
        self.deps.view.spot_actions.state().into_iter().filter(|spot_action| over(spot_action)).collect()
    }
}

impl Actor for Janitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.notify(CleanUp);
    }
}

impl Handler<CleanUp> for Janitor {
    type Result = ();

    fn handle(&mut self, _: CleanUp, ctx: &mut Self::Context) {
        ctx.notify_later(CleanUp, self.pause());
        if self.under_way || !self.deps.fence.may_act(self.deps.call_timeout) {
            return;
        }
        let finished = self.finished_long_ago();
        let spot_actions = self.spot_actions_over_long_ago();
        if finished.is_empty() && spot_actions.is_empty() {
            return;
        }
        self.under_way = true;
        let deps = self.deps.clone();
        let work = async move {
            for record in finished {
                if let Err(error) = remove(&deps, &record).await {
                    tracing::warn!(
                        replacement = record.name_any(),
                        error = %RequestProblem(&error),
                        "a finished record could not be removed"
                    );
                }
            }
            for spot_action in spot_actions {
                if let Err(error) = remove_exactly(&deps, &*spot_action).await {
                    tracing::warn!(
                        spot_action = spot_action.name_any(),
                        error = %RequestProblem(&error),
                        "a SpotAction that is over could not be removed"
                    );
                }
            }
        };
        ctx.spawn(work.into_actor(self).map(|(), actor, _| actor.under_way = false));
    }
}

/// Notices first: a notice without a record would begin the replacement anew.
async fn remove(deps: &Deps, record: &NodeReplacement) -> Result<(), kube::Error> {
    let notices: Api<InterruptionNotice> = Api::all(deps.client.clone());
    for notice in deps.view.notices.state() {
        if notice.spec.instance_id == record.spec.instance_id {
            gone(notices.delete(&notice.name_any(), &DeleteParams::default()).await)?;
        }
    }
    remove_exactly(deps, record).await?;
    tracing::info!(replacement = record.name_any(), "the finished record was removed");
    Ok(())
}

/// Removes the object if it is still as it was seen: a cancelled replacement may begin anew.
async fn remove_exactly<K>(deps: &Deps, object: &K) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(deps.client.clone());
    let exactly = Preconditions { uid: object.uid(), resource_version: object.resource_version() };
    gone(api.delete(&object.name_any(), &DeleteParams::default().preconditions(exactly)).await)
}

fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

answers_ping!(Janitor);
