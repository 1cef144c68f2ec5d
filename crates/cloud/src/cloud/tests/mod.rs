//! The simulated cloud through the real SDK clients, on paused time.

mod groups;
mod imds;
mod launch_instances;
mod lifecycle;
mod loopback;
mod protocol;

use super::*;
use crate::clock::CloudClock;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::Activity as SdkActivity;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Keeps what the cloud told it, with the second at which it did.
#[derive(Default)]
struct Witness {
    told: Mutex<Vec<String>>,
    /// Calls that are still refused.
    refusals: Mutex<u32>,
}

impl Witness {
    fn note(&self, what: &str, node: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let mut refusals = self.refusals.lock().unwrap();
        let outcome = if *refusals > 0 {
            *refusals -= 1;
            Err(anyhow::anyhow!("not now"))
        } else {
            self.told.lock().unwrap().push(format!("{what} {node}"));
            Ok(())
        };
        Box::pin(async { outcome })
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl NodeHost for Witness {
    fn join(&self, node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>> {
        self.note("join", &node.node_name)
    }

    fn ready(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        self.note("ready", node_name)
    }

    fn stopped(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        self.note("stopped", node_name)
    }

    fn leave(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        self.note("leave", node_name)
    }
}

struct Stage {
    cloud: Cloud,
    client: Client,
    host: Arc<Witness>,
    run: JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.run.abort();
    }
}

/// A running cloud with these groups, on paused time.
fn stage(groups: impl IntoIterator<Item = GroupSpec>) -> Stage {
    let epoch = "2026-01-05T08:00:00Z".parse().unwrap();
    let cloud = Cloud::new(CloudClock::simulated(epoch), 7);
    groups.into_iter().for_each(|group| cloud.add_group(group));
    let host = Arc::new(Witness::default());
    let run = tokio::spawn(cloud.clone().run(host.clone()));
    let client = Client::new(&cloud.sdk_config(None));
    Stage { cloud, client, host, run }
}

fn spot() -> GroupSpec {
    GroupSpec::new("spot", Market::Spot)
}

fn on_demand() -> GroupSpec {
    GroupSpec { desired: 0, ..GroupSpec::new("on-demand", Market::OnDemand) }
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl Stage {
    fn group(&self, name: &str) -> GroupSnapshot {
        self.cloud.group(name).unwrap()
    }

    fn ids(&self, name: &str) -> Vec<String> {
        self.group(name).instances.into_iter().map(|instance| instance.id).collect()
    }

    fn count(&self, name: &str, state: LifecycleState) -> usize {
        self.group(name).instances.iter().filter(|instance| instance.state == state).count()
    }

    async fn activities(&self, group: &str) -> Vec<SdkActivity> {
        let call = self.client.describe_scaling_activities().auto_scaling_group_name(group);
        call.send().await.unwrap().activities.unwrap_or_default()
    }

    async fn set_desired(&self, group: &str, desired: i32) {
        let call = self.client.set_desired_capacity().auto_scaling_group_name(group);
        call.desired_capacity(desired).send().await.unwrap();
    }
}
