//! What the scheduler has learned to look at since 1.35, and what others leave behind.

use super::{App, Cluster, DRIVER, HOST, LEAVING, LOCAL, PodPlan, SCRATCH};
use fastrand::Rng;
use serde_json::json;

/// What a kubelet declares for pods that restart all their containers (KEP-5532).
const FEATURE: &str = "RestartAllContainersOnContainerExits";

/// One of them for each cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Newer {
    /// Kubelets of two versions declare different features.
    Features,
    /// Pods that were resized in place as a whole have more than they ask for.
    Resized,
    /// Volumes are attached that no pod claims any more.
    LeftAttached,
    /// A driver that must be installed is missing on some nodes.
    MissingDriver,
    /// Pods of another scheduler wait, which puts them wherever there is room.
    Foreign,
    /// Volumes are made on the nodes themselves, by a driver that may count the capacity of each node.
    Local,
}

impl Newer {
    pub(super) fn of(seed: u64) -> Self {
        if seed.is_multiple_of(7) {
            return Self::Local;
        }
        let all = [Self::Features, Self::Resized, Self::LeftAttached, Self::MissingDriver, Self::Foreign];
        all[(seed % 5) as usize]
    }

    pub(super) fn is_about_volumes(self) -> bool {
        matches!(self, Self::LeftAttached | Self::MissingDriver)
    }

    pub(super) fn add_to(self, cluster: &mut Cluster, rng: &mut Rng) {
        match self {
            Self::Features => features(cluster, rng),
            Self::Resized => resized(cluster, rng),
            Self::LeftAttached => left_attached(cluster, rng),
            Self::MissingDriver => missing_driver(cluster, rng),
            Self::Foreign => foreign(cluster, rng),
            Self::Local => local(cluster, rng),
        }
    }
}

fn some(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

fn features(cluster: &mut Cluster, rng: &mut Rng) {
    for node in &mut cluster.nodes {
        let declared = if some(rng, 80) { vec![FEATURE] } else { vec![] };
        node["status"]["declaredFeatures"] = json!(declared);
    }
    let app = cluster.movers[0].app;
    let main = &mut cluster.apps[app].template["spec"]["containers"][0];
    main["restartPolicy"] = json!("Never");
    main["restartPolicyRules"] = json!([
        { "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [1] } },
    ]);
}

fn resized(cluster: &mut Cluster, rng: &mut Rng) {
    for app in &mut cluster.apps {
        let request =
            |cpu: i64, memory: i64| json!({ "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") });
        let (cpu, memory) = (app.cpu + 100, app.memory + 64);
        app.template["spec"]["resources"] = json!({ "requests": request(cpu, memory) });
        let has = request(cpu + 100 * rng.i64(0..8), memory + 64 * rng.i64(0..8));
        app.resized = Some(json!({ "allocatedResources": has, "resources": { "requests": has } }));
        (app.cpu, app.memory) = (cpu, memory);
    }
}

fn left_attached(cluster: &mut Cluster, rng: &mut Rng) {
    let names: Vec<String> = names(cluster);
    for node in names {
        for i in 0..rng.usize(0..3) {
            let volume = format!("pv-left-{node}-{i}");
            cluster.volumes.push(json!({
                "metadata": { "name": volume },
                "spec": {
                    "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "",
                    "csi": { "driver": DRIVER, "volumeHandle": volume },
                },
            }));
            cluster.attachments.push(json!({
                "metadata": { "name": format!("left-{node}-{i}") },
                "spec": { "attacher": DRIVER, "nodeName": node, "source": { "persistentVolumeName": volume } },
            }));
        }
    }
}

fn missing_driver(cluster: &mut Cluster, rng: &mut Rng) {
    let must = some(rng, 80);
    cluster.csi_drivers.push(json!({
        "metadata": { "name": DRIVER },
        "spec": { "attachRequired": true, "preventPodSchedulingIfMissing": must },
    }));
    for node in &mut cluster.csi_nodes {
        if some(rng, 50) {
            node["spec"]["drivers"] = json!([]);
        } else {
            node["spec"]["drivers"][0]["allocatable"]["count"] = json!(20);
        }
    }
}

fn foreign(cluster: &mut Cluster, rng: &mut Rng) {
    let (cpu, memory) = (100 * rng.i64(2..12), 64 * rng.i64(1..8));
    let requests = json!({ "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") });
    let container =
        json!({ "name": "main", "image": "example.invalid/main", "resources": { "requests": requests } });
    // It does not mind what kube-scheduler does.
    let template = json!({
        "metadata": { "labels": { "app": "foreign" } },
        "spec": { "containers": [container], "nodeSelector": { "disk": "none" } },
    });
    cluster.apps.push(App {
        name: "foreign".to_owned(),
        namespace: "alpha",
        template,
        volumes: false,
        cpu,
        memory,
        resized: None,
    });
    let app = cluster.apps.len() - 1;
    for i in 0..rng.usize(1..=2) {
        cluster.foreign.push(PodPlan { app, name: format!("f{i}"), node: None, claim: None });
    }
}

fn local(cluster: &mut Cluster, rng: &mut Rng) {
    cluster.csi_drivers.push(json!({
        "metadata": { "name": LOCAL },
        "spec": { "attachRequired": false, "storageCapacity": some(rng, 40) },
    }));
    cluster.classes.push(json!({
        "metadata": { "name": SCRATCH }, "provisioner": LOCAL, "volumeBindingMode": "WaitForFirstConsumer",
    }));
    for node in &mut cluster.csi_nodes {
        let name = node["metadata"]["name"].clone();
        let driver = json!({ "name": LOCAL, "nodeID": name, "topologyKeys": [HOST] });
        node["spec"]["drivers"].as_array_mut().expect("drivers").push(driver);
        cluster.capacities.push(json!({
            "metadata": { "name": name }, "storageClassName": SCRATCH,
            "nodeTopology": { "matchLabels": { HOST: name } },
            "capacity": if some(rng, 70) { "100Gi" } else { "1Gi" },
        }));
    }
    for app in cluster.apps.iter_mut().filter(|app| !app.volumes) {
        let claim = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": SCRATCH,
            "resources": { "requests": { "storage": "2Gi" } },
        });
        let volume = json!({ "name": SCRATCH, "ephemeral": { "volumeClaimTemplate": { "spec": claim } } });
        app.template["spec"]["volumes"] = json!([volume]);
    }
}

fn names(cluster: &Cluster) -> Vec<String> {
    let names = cluster.nodes.iter().filter_map(|node| node["metadata"]["name"].as_str());
    names.filter(|name| *name != LEAVING).map(str::to_owned).collect()
}
