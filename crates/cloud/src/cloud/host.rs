//! Where the nodes of the simulated instances live, and the loop that brings them there.

use super::Cloud;
use crate::cloud::spec::Market;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause before a call to the host is repeated.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// A node that registers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoin {
    /// Name of the Node object: the instance's private DNS name.
    pub node_name: String,
    /// EC2 instance id.
    pub instance_id: String,
    /// `spec.providerID`: `aws:///<zone>/<instance id>`.
    pub provider_id: String,
    /// Auto Scaling group.
    pub group: String,
    /// Availability Zone.
    pub zone: String,
    /// AWS Region.
    pub region: String,
    /// EC2 instance type.
    pub instance_type: String,
    /// How the instance is bought.
    pub market: Market,
    /// Private IPv4 address.
    pub address: String,
    /// All labels, the well-known ones included.
    pub labels: Vec<(String, String)>,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory_bytes: u64,
    /// Most pods.
    pub pods: u32,
}

/// The Kubernetes side of the instances. A call that fails is repeated until it succeeds or the instance is
/// gone, so every method must bear repetition.
pub trait NodeHost: Send + Sync {
    /// The kubelet registers its node, not Ready yet.
    fn join(&self, node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>>;
    /// The node becomes Ready.
    fn ready(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>>;
    /// The machine has stopped: the kubelet is silent from now on, its Node object still exists.
    fn stopped(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let _ = node_name;
        Box::pin(async { Ok(()) })
    }
    /// The instance is gone and its Node object has to go, as cloud-controller-manager sees to.
    fn leave(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>>;
}

/// A host without nodes.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullHost;

impl NodeHost for NullHost {
    fn join(&self, _node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn ready(&self, _node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn leave(&self, _node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// One call that the cloud owes its host.
#[derive(Clone, Debug)]
pub(super) enum HostCall {
    Join(Box<NodeJoin>),
    Ready(String),
    Stopped(String),
    Leave(String),
}

impl HostCall {
    fn node_name(&self) -> &str {
        match self {
            Self::Join(node) => &node.node_name,
            Self::Ready(name) | Self::Stopped(name) | Self::Leave(name) => name,
        }
    }

    /// Whether the call only makes sense while the machine runs.
    fn needs_machine(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Ready(_))
    }
}

impl Cloud {
    /// Lets time work on the cloud until dropped: boots, interruptions, retries, and the calls to `host`.
    ///
    /// One loop per cloud. It sleeps until the next thing is due or something changes.
    pub async fn run(self, host: Arc<dyn NodeHost>) {
        // Calls about one node keep their order; those about different nodes do not wait for each other.
        let mut waiting: HashMap<String, VecDeque<HostCall>> = HashMap::new();
        let mut under_way = FuturesUnordered::new();
        loop {
            let (next_due, calls) = self.tick();
            for call in calls {
                let name = call.node_name().to_owned();
                if let Some(queue) = waiting.get_mut(&name) {
                    queue.push_back(call);
                } else {
                    waiting.insert(name, VecDeque::new());
                    under_way.push(self.deliver(host.clone(), call));
                }
            }
            tokio::select! {
                biased;
                Some(name) = under_way.next(), if !under_way.is_empty() => {
                    let next = waiting.get_mut(&name).and_then(VecDeque::pop_front);
                    match next {
                        Some(call) => under_way.push(self.deliver(host.clone(), call)),
                        None => { waiting.remove(&name); }
                    }
                }
                () = self.changed() => {}
                () = sleep_opt(next_due) => {}
            }
        }
    }

    /// Makes one call, again and again until it succeeds; gives back the node's name.
    async fn deliver(&self, host: Arc<dyn NodeHost>, call: HostCall) -> String {
        let name = call.node_name().to_owned();
        let mut pause = RETRY_FIRST;
        loop {
            if call.needs_machine() && !self.machine_runs(&name) {
                return name;
            }
            let outcome = match &call {
                HostCall::Join(node) => host.join((**node).clone()).await,
                HostCall::Ready(name) => host.ready(name).await,
                HostCall::Stopped(name) => host.stopped(name).await,
                HostCall::Leave(name) => host.leave(name).await,
            };
            match outcome {
                Ok(()) => return name,
                Err(error) => {
                    tracing::debug!(node = %name, ?call, "node host refused, trying again: {error:#}")
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

async fn sleep_opt(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
