//! cluster-autoscaler in a random story.

use super::{Stage, ledger, no_change_is_under_way, numbers_in_doubt};
use spot_guard::sim::world::PoolStart;
use spot_guard_cloud::autoscaler::{self, Autoscaler, AutoscalerTimes};
use spot_guard_core::record::GroupKind;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

impl Stage<'_> {
    /// Lets it scale all groups. It changes a group only while no controller is in the middle of a change, as
    /// everybody else does in these stories.
    pub(super) fn start_autoscaler(&self) -> JoinHandle<()> {
        let pools: Vec<_> = self.plot.pools.iter().map(|pool| pool.start.clone()).collect();
        let groups = pools.iter().flat_map(PoolStart::scaled_groups).collect();
        let (cluster, faults) = (self.cluster.clone(), self.faults.clone());
        let may_change = move |group: &str, desired: u32| {
            pools.iter().all(|pool| {
                let kind = if group == pool.spot() {
                    GroupKind::Spot
                } else if group == pool.on_demand() {
                    GroupKind::OnDemand
                } else {
                    return true;
                };
                let ledger = ledger(&cluster, &pool.name);
                no_change_is_under_way(&ledger) && !numbers_in_doubt(&ledger, kind).contains(&desired)
            }) && faults.is_quiet()
        };
        let client = self.cluster.client();
        let autoscaler = Autoscaler::new(self.cloud.clone(), client, groups, AutoscalerTimes::default());
        actix::spawn(autoscaler.when(may_change).run())
    }

    /// Ends it. It takes its marks off the nodes whenever it starts; here nothing starts it again.
    pub(super) async fn stop_autoscaler(&mut self) {
        let Some(running) = self.autoscaler.take() else { return };
        running.abort();
        let client = self.cluster.client();
        // Attacks on the API may go on for minutes.
        let mut why = None;
        for _ in 0..600 {
            match autoscaler::clean_up(&client).await {
                Ok(()) => return,
                Err(error) => why = Some(error),
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("its marks stay on the nodes: {why:?}");
    }
}
