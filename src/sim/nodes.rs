//! The nodes of simulated instances, made and removed through the Kubernetes API: the simulated one or a
//! real one (kind, KWOK).

use crate::clock::Clock;
use anyhow::Context as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use spot_guard_cloud::cloud::{NodeHost, NodeJoin};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The label of the nodes that a world made; its applications run nowhere else.
pub const DEMO_LABEL: &str = "spotguard.dev/simulated";

/// Told when a node can run an agent, and when it cannot any more.
pub type NodeListener = Arc<dyn Fn(NodeChange) + Send + Sync>;

/// What became of a node.
#[derive(Clone, Debug)]
pub enum NodeChange {
    /// It is Ready.
    Ready {
        /// Its name.
        node: String,
        /// Its instance.
        instance_id: String,
    },
    /// Its machine has stopped.
    Stopped {
        /// Its name.
        node: String,
    },
}

/// Makes and removes Node objects.
pub struct KubeNodes {
    api: Api<Node>,
    listener: NodeListener,
    clock: Clock,
    /// The instance of each node that has joined: its Node may say it later.
    instances: Mutex<BTreeMap<String, String>>,
}

impl KubeNodes {
    /// A host of nodes on this cluster.
    #[must_use]
    pub fn new(client: Client, listener: NodeListener, clock: Clock) -> Self {
        Self { api: Api::all(client), listener, clock, instances: Mutex::default() }
    }

    async fn set_ready(&self, name: &str, ready: bool) -> anyhow::Result<()> {
        let status = json!({ "status": { "conditions": self.changed(ready) } });
        done(self.api.patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await)
    }

    /// The conditions of a node that has just become so.
    fn changed(&self, ready: bool) -> Value {
        let mut changed = conditions(ready);
        changed[0]["lastTransitionTime"] = json!(self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        changed
    }

    /// Whether the Node of that name is another EC2 instance than the one that joined under it.
    async fn is_of_another(&self, name: &str) -> bool {
        let joined = self.instances().get(name).cloned().unwrap_or_default();
        let node = self.api.get_opt(name).await.ok().flatten();
        let provider_id = node.and_then(|node| node.spec?.provider_id).unwrap_or_default();
        provider_id.starts_with("aws://") && !provider_id.ends_with(&joined)
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn create(&self, join: NodeJoin) -> anyhow::Result<()> {
        self.instances().insert(join.node_name.clone(), join.instance_id.clone());
        let node: Node = serde_json::from_value(object(&join)).context("a node object")?;
        match self.api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            answer => done(answer)?,
        }
        let resources = resources(&join);
        let status = json!({ "status": {
            "capacity": resources,
            "allocatable": resources,
            "conditions": self.changed(false),
            "addresses": [{ "type": "InternalIP", "address": join.address }],
        } });
        done(
            self.api.patch_status(&join.node_name, &PatchParams::default(), &Patch::Strategic(&status)).await,
        )
    }
}

impl NodeHost for KubeNodes {
    fn join(&self, node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.create(node))
    }

    fn identify(&self, node: NodeJoin) -> BoxFuture<'_, anyhow::Result<()>> {
        let spec = json!({ "spec": { "providerID": node.provider_id } });
        let patched = async move {
            done(self.api.patch(&node.node_name, &PatchParams::default(), &Patch::Merge(&spec)).await)
        };
        Box::pin(patched)
    }

    fn ready(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let name = node_name.to_owned();
        Box::pin(async move {
            self.set_ready(&name, true).await?;
            let instance_id = self.instances().get(&name).cloned().unwrap_or_default();
            (self.listener)(NodeChange::Ready { node: name, instance_id });
            Ok(())
        })
    }

    fn stopped(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let name = node_name.to_owned();
        Box::pin(async move {
            (self.listener)(NodeChange::Stopped { node: name.clone() });
            self.set_ready(&name, false).await
        })
    }

    fn leave(&self, node_name: &str) -> BoxFuture<'_, anyhow::Result<()>> {
        let name = node_name.to_owned();
        Box::pin(async move {
            (self.listener)(NodeChange::Stopped { node: name.clone() });
            if self.is_of_another(&name).await {
                return Ok(());
            }
            match self.api.delete(&name, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => done(other),
            }
        })
    }
}

/// What was asked for is done, too, if the answer holds what our types cannot.
fn done<T>(answer: kube::Result<T>) -> anyhow::Result<()> {
    match answer {
        Err(kube::Error::SerdeError(_)) => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn object(join: &NodeJoin) -> Value {
    let mut labels: serde_json::Map<String, Value> =
        join.labels.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    labels.insert(DEMO_LABEL.to_owned(), Value::String("true".to_owned()));
    let taints = join.taints.iter();
    let taints: Vec<Value> =
        taints.map(|(key, value, effect)| json!({ "key": key, "value": value, "effect": effect })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": join.node_name, "labels": labels },
        "spec": {
            "providerID": Some(&join.provider_id).filter(|id| !id.is_empty()),
            "taints": taints,
            "unschedulable": join.cordoned,
        },
    })
}

fn resources(join: &NodeJoin) -> Value {
    json!({
        "cpu": format!("{}m", join.cpu_millis),
        "memory": join.memory_bytes.to_string(),
        "pods": join.pods.to_string(),
    })
}

pub(super) fn conditions(ready: bool) -> Value {
    let (status, reason) = if ready { ("True", "KubeletReady") } else { ("False", "KubeletNotReady") };
    json!([{ "type": "Ready", "status": status, "reason": reason }])
}
