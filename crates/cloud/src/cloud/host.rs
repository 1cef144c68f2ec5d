//! Where the nodes of the simulated instances live.

use super::spec::Market;
use futures::future::BoxFuture;

/// A node that registers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeJoin {
    /// Name of the Node object: the instance's private DNS name.
    pub node_name: String,
    /// EC2 instance id.
    pub instance_id: String,
    /// `spec.providerID`: `aws:///<zone>/<instance id>`; empty if it comes later.
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
    /// Taints that it keeps: key, value and effect.
    pub taints: Vec<(String, String, String)>,
    /// Whether it joins cordoned.
    pub cordoned: bool,
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
    /// The cloud controller sets the node's `spec.providerID`.
    fn identify(&self, node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>> {
        let _ = node;
        Box::pin(async { Ok(()) })
    }
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
    Identify(Box<NodeJoin>),
    Ready(String),
    Stopped(String),
    Leave(String),
}

impl HostCall {
    pub(super) fn node_name(&self) -> &str {
        match self {
            Self::Join(node) | Self::Identify(node) => &node.node_name,
            Self::Ready(name) | Self::Stopped(name) | Self::Leave(name) => name,
        }
    }

    /// Whether the call only makes sense while the machine runs.
    pub(super) fn needs_machine(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Identify(_) | Self::Ready(_))
    }
}
