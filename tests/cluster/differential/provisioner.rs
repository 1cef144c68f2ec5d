//! Makes the local volumes that the scheduler has chosen a node for, as their driver would, and binds them,
//! as the controller of persistent volumes would.

use super::generator::{LOCAL, SCRATCH};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Where the scheduler wants the volume (KEP-1472; `AnnSelectedNode` of component-helpers).
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// Works until it is aborted.
pub fn start(client: &Client) -> JoinHandle<()> {
    let client = client.clone();
    tokio::spawn(async move {
        let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
        let mut events = std::pin::pin!(watcher::watcher(claims, watcher::Config::default()));
        while let Some(event) = events.next().await {
            let Ok(Event::Apply(claim) | Event::InitApply(claim)) = event else { continue };
            // A pod that is gone takes its claim along; a call that fails is made again at the next event.
            if let Err(error) = provision(&client, &claim).await {
                println!("a local volume: {error}");
            }
        }
    })
}

async fn provision(client: &Client, claim: &PersistentVolumeClaim) -> Result<(), kube::Error> {
    let Some(node) = claim.annotations().get(SELECTED) else { return Ok(()) };
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.storage_class_name.as_deref() != Some(SCRATCH) || spec.volume_name.is_some() {
        return Ok(());
    }
    let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
    let volume = format!("pv-{}", claim.uid().unwrap_or_default());
    let term = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    let value = json!({
        "metadata": { "name": volume },
        "spec": {
            "capacity": { "storage": "2Gi" }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "storageClassName": SCRATCH,
            "csi": { "driver": LOCAL, "volumeHandle": volume },
            "claimRef": { "namespace": namespace, "name": name, "uid": claim.uid() },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [term] }] } },
        },
    });
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let object: PersistentVolume = crate::helpers::object(value);
    match volumes.create(&PostParams::default(), &object).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let merge = async |patch: Value| {
        let bound = claims.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        bound.map(drop)
    };
    let bound = json!({ "pv.kubernetes.io/bind-completed": "yes" });
    merge(json!({ "metadata": { "annotations": bound }, "spec": { "volumeName": volume } })).await
}
