//! Random small clusters: a node that is to be given back, and everything that the scheduler looks at.

use fastrand::Rng;
use newer::Newer;
use serde_json::{Value, json};

mod newer;

/// The namespaces that clusters use, with the value of their label `team`. They outlive a cluster.
pub const NAMESPACES: [(&str, &str); 2] = [("alpha", "x"), ("beta", "y")];
/// The driver whose volumes are limited in number.
pub const DRIVER: &str = "ebs.csi.aws.com";
/// The driver that makes volumes on the nodes themselves, and its class.
pub const LOCAL: &str = "local.csi.example.com";
/// The name of such a volume in its pod.
pub const SCRATCH: &str = "scratch";
/// The node that is to be given back.
pub const LEAVING: &str = "leaving";

/// The clusters up to this seed know nothing of what `newer.rs` adds: they are those of docs/benchmarks.md.
const PLAIN: u64 = 1000;

/// The key of the taint that it gets.
pub const TAINT: &str = "spotguard.dev/leaving";

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

/// The pods of one template.
pub struct App {
    pub name: String,
    pub namespace: &'static str,
    /// Labels and spec, without node and volumes.
    template: Value,
    /// Each pod has a volume of its own.
    volumes: bool,
    cpu: i64,
    memory: i64,
    /// What the kubelet says of those that were resized in place.
    pub resized: Option<Value>,
}

/// One pod, which keeps its volume when it is made anew under another name.
#[derive(Clone, Debug)]
pub struct PodPlan {
    pub app: usize,
    pub name: String,
    /// Where it runs; `None`: it waits for a node.
    pub node: Option<String>,
    claim: Option<String>,
}

/// One random cluster. Objects are as the API takes them.
pub struct Cluster {
    pub nodes: Vec<Value>,
    pub csi_nodes: Vec<Value>,
    pub volumes: Vec<Value>,
    /// With their namespaces.
    pub claims: Vec<(&'static str, Value)>,
    /// With their namespaces.
    pub budgets: Vec<(&'static str, Value)>,
    pub apps: Vec<App>,
    /// On other nodes.
    pub bystanders: Vec<PodPlan>,
    /// On the leaving node.
    pub movers: Vec<PodPlan>,
    /// Without a node.
    pub waiting: Vec<PodPlan>,
    /// Nodes not to be counted on, although the scheduler uses them.
    pub excluded: Vec<String>,
    pub csi_drivers: Vec<Value>,
    pub attachments: Vec<Value>,
    pub classes: Vec<Value>,
    pub capacities: Vec<Value>,
    /// Without a node, and of another scheduler.
    pub foreign: Vec<PodPlan>,
}

impl Cluster {
    /// The pod as the API takes it: on `node`, or for the scheduler's profile `profile`.
    pub fn pod(&self, plan: &PodPlan, name: &str, node: Option<&str>, profile: &str) -> Value {
        let app = &self.apps[plan.app];
        let mut pod = app.template.clone();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!(app.namespace);
        pod["spec"]["schedulerName"] = json!(profile);
        if let Some(node) = node {
            pod["spec"]["nodeName"] = json!(node);
        }
        if let Some(claim) = &plan.claim {
            pod["spec"]["volumes"] =
                json!([{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }]);
        }
        pod
    }

    /// The namespace of a pod.
    pub fn namespace(&self, plan: &PodPlan) -> &'static str {
        self.apps[plan.app].namespace
    }

    /// Whether the driver of local volumes counts the capacity of each node: the check counts on none then.
    pub fn counts_capacity(&self) -> bool {
        self.csi_drivers.iter().any(|driver| driver["spec"]["storageCapacity"] == json!(true))
    }

    /// Whether each pod has a local volume of its own, which is made anew with it.
    pub fn has_scratch(&self, plan: &PodPlan) -> bool {
        self.apps[plan.app].template["spec"]["volumes"][0]["name"] == json!(SCRATCH)
    }

    /// What a pod asks for: CPU in thousandths, memory in mebibytes.
    pub fn asks(&self, plan: &PodPlan) -> (i64, i64) {
        let app = &self.apps[plan.app];
        (app.cpu, app.memory)
    }
}

/// The cluster of a seed.
pub fn generate(seed: u64) -> Cluster {
    let rng = Rng::with_seed(seed);
    let subject = (seed > PLAIN).then(|| Newer::of(seed));
    let (zones, app_names, focus) = (Vec::new(), Vec::new(), Vec::new());
    Generator { rng, subject, zones, lonely: false, app_names, focus }.cluster()
}

struct Generator {
    rng: Rng,
    subject: Option<Newer>,
    zones: Vec<&'static str>,
    /// Few nodes are in the zone of the one that leaves.
    lonely: bool,
    app_names: Vec<String>,
    /// What this cluster is about: these things are frequent in it and others rare, so that it is they that
    /// decide where pods can go.
    focus: Vec<&'static str>,
}

/// What a cluster can be about.
const SUBJECTS: [&str; 20] = [
    "room", "room", "init", "gpu", "ports", "priority", "taints", "taints", "selector", "near", "apart",
    "apart", "shunned", "shunned", "spread", "spread", "volumes", "volumes", "waiting", "budget",
];
/// The pods that the pods of others keep away, in a cluster that is about them, and those that do so.
const SHUNNED: usize = 0;
const SHUNNING: usize = 1;

struct Node {
    name: String,
    zone: &'static str,
    cpu: i64,
    memory: i64,
    pods: i64,
    used: (i64, i64, i64),
    usable: bool,
}

impl Generator {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    /// With this chance, in per cent, in a cluster that is about `subject`; rarely in another.
    fn likely(&mut self, subject: &str, percent: u32) -> bool {
        let about = self.focus.contains(&subject);
        self.chance(if about { percent } else { percent / 10 })
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(0..from.len())]
    }

    fn cluster(mut self) -> Cluster {
        // What is newer narrows the choice of nodes by itself: with more subjects nothing would be safe.
        let subjects = self.rng.usize(if self.subject.is_some() { 0..=1 } else { 1..=3 });
        self.focus = (0..subjects).map(|_| SUBJECTS[self.rng.usize(0..SUBJECTS.len())]).collect();
        if self.subject.is_some_and(Newer::is_about_volumes) {
            self.focus.push("volumes");
        }
        let (about_zones, about_shunned) = (self.focus.contains(&"volumes"), self.focus.contains(&"shunned"));
        self.zones = ["a", "b", "c"][..self.rng.usize(if about_zones { 2..=3 } else { 1..=3 })].to_vec();
        let apps = self.rng.usize(if about_shunned { 2..=4 } else { 1..=4 });
        self.app_names = (0..apps).map(|i| format!("app{i}")).collect();
        let apps: Vec<App> = (0..self.app_names.len()).map(|i| self.app(i)).collect();
        let mut result = Cluster {
            nodes: Vec::new(),
            csi_nodes: Vec::new(),
            volumes: Vec::new(),
            claims: Vec::new(),
            budgets: Vec::new(),
            apps,
            bystanders: Vec::new(),
            movers: Vec::new(),
            waiting: Vec::new(),
            excluded: Vec::new(),
            csi_drivers: Vec::new(),
            attachments: Vec::new(),
            classes: Vec::new(),
            capacities: Vec::new(),
            foreign: Vec::new(),
        };
        let mut nodes = Vec::new();
        // The volumes of the node that leaves are where few others are.
        self.lonely = about_zones && self.chance(70);
        for i in 0..=self.rng.usize(3..=8) {
            let name = if i == 0 { LEAVING.to_owned() } else { format!("n{i}") };
            let node = self.node(&name, &mut result);
            nodes.push(node);
        }
        self.fill(&nodes, &mut result);
        for _ in 0..self.rng.usize(1..=6) {
            let place = Some((LEAVING, nodes[0].zone));
            let plan = if about_shunned && self.chance(60) {
                self.plan_of(SHUNNED, place, "m", &mut result)
            } else {
                self.plan(place, "m", &mut result)
            };
            result.movers.push(plan);
        }
        if self.likely("waiting", 90) {
            for _ in 0..self.rng.usize(1..=3) {
                let plan = self.plan(None, "w", &mut result);
                result.waiting.push(plan);
            }
        }
        if self.chance(8) && nodes.len() > 2 {
            result.excluded.push(nodes[1].name.clone());
        }
        if self.likely("budget", 90) {
            self.budget(&mut result);
        }
        if let Some(subject) = self.subject {
            subject.add_to(&mut result, &mut self.rng);
        }
        result
    }

    fn node(&mut self, name: &str, cluster: &mut Cluster) -> Node {
        let zones = self.zones.clone();
        let zone = match (self.lonely, name == LEAVING) {
            (true, true) => zones[0],
            (true, false) if !self.chance(12) => self.pick(&zones[1..]),
            _ => self.pick(&zones),
        };
        let (cpu, memory, pods) = (
            self.pick(&[1000, 2000, 2000, 4000]),
            self.pick(&[2048, 4096, 8192]),
            self.pick(&[4, 8, 12, 30]),
        );
        let mut labels = json!({ HOST: name, ZONE: zone, "gen": self.rng.u32(1..6).to_string() });
        if self.chance(75) {
            labels["disk"] = json!(self.pick(&["ssd", "ssd", "hdd"]));
        }
        if self.chance(70) {
            labels["rack"] = json!(self.pick(&["r1", "r2"]));
        }
        let mut taints = Vec::new();
        for (percent, key, value, effect) in [
            (40, "dedicated", "batch", "NoSchedule"),
            (30, "team", "x", "NoExecute"),
            (50, "soft", "", "PreferNoSchedule"),
        ] {
            if self.likely("taints", percent) {
                taints.push(json!({ "key": key, "value": value, "effect": effect }));
            }
        }
        let other = name != LEAVING;
        let ready = !(other && self.chance(7));
        let cordoned = other && self.chance(7);
        // What the node lifecycle controller adds.
        if !ready {
            taints.push(json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }));
        }
        if cordoned {
            taints.push(json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }));
        }
        let mut has = json!({
            "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi"), "pods": pods.to_string(), "ephemeral-storage": "10Gi",
        });
        if self.chance(70) {
            has["example.com/gpu"] = json!(self.rng.u32(1..4).to_string());
        }
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
        cluster.nodes.push(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "providerID": format!("aws:///{zone}/i-{name}"), "unschedulable": cordoned, "taints": taints },
            "status": { "capacity": has, "allocatable": has, "conditions": [condition] },
        }));
        let driver = json!({
            "name": DRIVER, "nodeID": name, "allocatable": { "count": self.rng.u32(1..5) },
        });
        cluster.csi_nodes.push(json!({ "metadata": { "name": name }, "spec": { "drivers": [driver] } }));
        Node { name: name.to_owned(), zone, cpu, memory, pods, used: (0, 0, 0), usable: ready && !cordoned }
    }

    /// Pods on the other nodes, up to a random share of each.
    fn fill(&mut self, nodes: &[Node], cluster: &mut Cluster) {
        for node in nodes.iter().skip(1) {
            let full: &[i64] = if self.focus.contains(&"room") { &[40, 60, 80, 90] } else { &[0, 20, 40] };
            let share = self.pick(full);
            let mut used = node.used;
            let mut shunning = self.focus.contains(&"shunned") && self.chance(85);
            for _ in 0..8 {
                let plan = if std::mem::take(&mut shunning) {
                    SHUNNING
                } else {
                    self.rng.usize(0..cluster.apps.len())
                };
                let app = &cluster.apps[plan];
                let next = (used.0 + app.cpu, used.1 + app.memory, used.2 + 1);
                if !node.usable
                    || next.0 * 100 > node.cpu * share
                    || next.1 * 100 > node.memory * share
                    || next.2 > node.pods
                {
                    continue;
                }
                used = next;
                let plan = self.plan_of(plan, Some((&node.name, node.zone)), "b", cluster);
                cluster.bystanders.push(plan);
            }
        }
    }

    fn plan(&mut self, place: Option<(&str, &str)>, prefix: &str, cluster: &mut Cluster) -> PodPlan {
        let app = self.rng.usize(0..cluster.apps.len());
        self.plan_of(app, place, prefix, cluster)
    }

    fn plan_of(
        &mut self,
        app: usize,
        place: Option<(&str, &str)>,
        prefix: &str,
        cluster: &mut Cluster,
    ) -> PodPlan {
        let number = cluster.bystanders.len() + cluster.movers.len() + cluster.waiting.len();
        let name = format!("{prefix}{number}");
        let claim = cluster.apps[app].volumes.then(|| {
            let zone = place.map_or_else(|| self.pick(&self.zones.clone()), |(_, zone)| zone);
            self.volume(&name, zone, app, cluster)
        });
        PodPlan { app, name, node: place.map(|(node, _)| node.to_owned()), claim }
    }

    /// A claim bound to a volume that can be used in the zone.
    fn volume(&mut self, pod: &str, zone: &str, app: usize, cluster: &mut Cluster) -> String {
        let namespace = cluster.apps[app].namespace;
        let claim = format!("data-{pod}");
        let volume = format!("pv-{pod}");
        let mut spec = json!({
            "capacity": { "storage": "1Gi" },
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": { "namespace": namespace, "name": claim },
        });
        if self.chance(70) {
            spec["csi"] = json!({ "driver": DRIVER, "volumeHandle": volume });
        } else {
            spec["nfs"] = json!({ "server": "example.invalid", "path": "/" });
        }
        let mut labels = json!({});
        match self.rng.u32(0..10) {
            0..5 => {
                let term = json!({ "key": ZONE, "operator": "In", "values": [zone] });
                spec["nodeAffinity"] =
                    json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [term] }] } });
            }
            5..7 => labels[ZONE] = json!(zone),
            _ => {}
        }
        cluster.volumes.push(json!({ "metadata": { "name": volume, "labels": labels }, "spec": spec }));
        let bound = json!({ "pv.kubernetes.io/bind-completed": "yes" });
        cluster.claims.push((
            namespace,
            json!({
                "metadata": { "name": claim, "annotations": bound },
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "storageClassName": "",
                    "volumeName": volume,
                    "resources": { "requests": { "storage": "1Gi" } },
                },
            }),
        ));
        claim
    }

    fn budget(&mut self, cluster: &mut Cluster) {
        let app = self.rng.usize(0..cluster.apps.len());
        let plans = cluster.bystanders.iter().chain(&cluster.movers);
        let healthy = plans.filter(|plan| plan.app == app).count();
        for i in 0..if self.chance(15) { 2 } else { 1 } {
            let spare = self.pick(&[0, 1, 1, 2]);
            let App { name, namespace, .. } = &cluster.apps[app];
            let budget = json!({
                "metadata": { "name": format!("budget{i}") },
                "spec": {
                    "minAvailable": healthy.saturating_sub(spare),
                    "selector": { "matchLabels": { "app": name } },
                },
            });
            cluster.budgets.push((namespace, budget));
        }
    }

    fn app(&mut self, index: usize) -> App {
        let name = self.app_names[index].clone();
        let namespace = if self.chance(80) { "alpha" } else { "beta" };
        let labels = json!({
            "app": name, "tier": self.pick(&["front", "back"]), "version": self.pick(&["v1", "v2"]),
        });
        let (cpu, memory, mut spec) = self.containers();
        self.rules(&name, &mut spec);
        if index == SHUNNING && self.focus.contains(&"shunned") {
            let selector = json!({ "matchLabels": { "app": self.app_names[SHUNNED] } });
            let key = if self.chance(70) { HOST } else { ZONE };
            let mut term = json!({ "labelSelector": selector, "topologyKey": key });
            if self.chance(50) {
                term["namespaceSelector"] = json!({});
            }
            spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!([term]);
        }
        let owner = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": format!("owner-{name}"),
            "controller": true,
        }]);
        let template = json!({ "metadata": { "labels": labels, "ownerReferences": owner }, "spec": spec });
        let volumes = self.likely("volumes", 80);
        App { name, namespace, template, volumes, cpu, memory, resized: None }
    }

    /// What the pods ask for, as the generator reckons it, and the containers that do.
    fn containers(&mut self) -> (i64, i64, Value) {
        let request = |cpu: i64, memory: i64| json!({ "requests": { "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi") } });
        let (mut cpu, mut memory) =
            (self.pick(&[0, 100, 250, 400, 500, 800]), self.pick(&[0, 64, 256, 512, 1024]));
        let mut main =
            json!({ "name": "main", "image": "example.invalid/main", "resources": request(cpu, memory) });
        if self.chance(10) {
            main["resources"]["requests"]["ephemeral-storage"] = json!(self.pick(&["1Gi", "4Gi"]));
        }
        if self.likely("gpu", 60) {
            let amount = json!(self.pick(&["1", "2"]));
            main["resources"]["requests"]["example.com/gpu"] = amount.clone();
            main["resources"]["limits"] = json!({ "example.com/gpu": amount });
        }
        if self.likely("ports", 70) {
            let mut port = json!({ "containerPort": 80, "hostPort": self.pick(&[8080, 8081]) });
            if self.chance(30) {
                port["hostIP"] = json!(self.pick(&["10.0.0.1", "0.0.0.0", "10.0.0.2"]));
            }
            if self.chance(20) {
                port["protocol"] = json!("UDP");
            }
            main["ports"] = json!([port]);
        }
        let mut containers = vec![main];
        if self.chance(20) {
            containers.push(json!({ "name": "second", "image": "example.invalid/second", "resources": request(100, 128) }));
            (cpu, memory) = (cpu + 100, memory + 128);
        }
        let mut before = Vec::new();
        if self.likely("init", 50) {
            before.push(json!({
                "name": "sidecar", "image": "example.invalid/sidecar", "restartPolicy": "Always",
                "resources": request(200, 128),
            }));
            (cpu, memory) = (cpu + 200, memory + 128);
        }
        if self.likely("init", 60) {
            let (first_cpu, first_memory) = (self.pick(&[100, 400, 1500]), self.pick(&[64, 700]));
            before.push(json!({
                "name": "init", "image": "example.invalid/init", "resources": request(first_cpu, first_memory),
            }));
            (cpu, memory) = (cpu.max(first_cpu), memory.max(first_memory));
        }
        self.rng.shuffle(&mut before);
        let mut spec = json!({ "containers": containers, "initContainers": before });
        if self.likely("init", 30) {
            // Its overhead is added by an admission plugin.
            spec["runtimeClassName"] = json!("heavy");
            (cpu, memory) = (cpu + 250, memory + 120);
        }
        if self.likely("init", 20) {
            (cpu, memory) = (cpu + 300, memory + 300);
            spec["resources"] = request(cpu, memory);
        }
        (cpu, memory, spec)
    }

    fn rules(&mut self, app: &str, spec: &mut Value) {
        if self.likely("priority", 75) {
            let class = self.pick(&["low", "high", "high-patient"]);
            spec["priorityClassName"] = json!(class);
        }
        let mut tolerations = Vec::new();
        for (percent, toleration) in [
            (
                25,
                json!({ "key": "dedicated", "operator": "Equal", "value": "batch", "effect": "NoSchedule" }),
            ),
            (40, json!({ "key": "team", "operator": "Exists" })),
            (20, json!({ "key": "dedicated", "operator": "Equal", "value": "other" })),
            (20, json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists" })),
            (15, json!({ "operator": "Exists" })),
            (15, json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" })),
            (15, json!({ "key": TAINT, "operator": "Exists", "effect": "NoSchedule" })),
        ] {
            if self.likely("taints", percent) {
                tolerations.push(toleration);
            }
        }
        spec["tolerations"] = json!(tolerations);
        if self.likely("selector", 40) {
            spec["nodeSelector"] = match self.rng.u32(0..3) {
                0 => json!({ "disk": "ssd" }),
                1 => json!({ ZONE: self.pick(&self.zones.clone()) }),
                _ => json!({ "rack": self.pick(&["r1", "r2"]) }),
            };
        }
        if self.likely("selector", 60) {
            let terms: Vec<Value> = (0..self.rng.usize(1..=2)).map(|_| self.node_term()).collect();
            spec["affinity"]["nodeAffinity"] = json!({
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms },
            });
        }
        for (subject, kind, own) in [("near", "podAffinity", 60), ("apart", "podAntiAffinity", 70)] {
            if self.likely(subject, 70) {
                let count = if self.chance(15) { 2 } else { 1 };
                let terms: Vec<Value> = (0..count).map(|_| self.pod_term(app, own)).collect();
                spec["affinity"][kind] = json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms });
            }
        }
        if self.likely("spread", 75) {
            let mut keys = vec![HOST, ZONE, "rack"];
            self.rng.shuffle(&mut keys);
            keys.truncate(if self.chance(20) { 2 } else { 1 });
            let all: Vec<Value> = keys.into_iter().map(|key| self.spread(app, key)).collect();
            spec["topologySpreadConstraints"] = json!(all);
        }
    }

    fn node_term(&mut self) -> Value {
        if self.chance(10) {
            let operator = self.pick(&["In", "NotIn"]);
            return json!({ "matchFields": [
                { "key": "metadata.name", "operator": operator, "values": [self.pick(&["n1", "n2", "n3"])] },
            ] });
        }
        let count = if self.chance(25) { 2 } else { 1 };
        let expressions: Vec<Value> = (0..count)
            .map(|_| match self.rng.u32(0..6) {
                0 => json!({ "key": ZONE, "operator": "In", "values": [self.pick(&["a", "b"]), "c"] }),
                1 => json!({ "key": "disk", "operator": "NotIn", "values": ["hdd"] }),
                2 => json!({ "key": "gen", "operator": "Gt", "values": ["2"] }),
                3 => json!({ "key": "gen", "operator": "Lt", "values": ["5"] }),
                4 => json!({ "key": "rack", "operator": "Exists" }),
                _ => json!({ "key": "rack", "operator": "DoesNotExist" }),
            })
            .collect();
        json!({ "matchExpressions": expressions })
    }

    fn topology(&mut self) -> &'static str {
        self.pick(&[HOST, HOST, HOST, ZONE, ZONE, "rack"])
    }

    fn selector(&mut self, app: &str, own: u32) -> Value {
        let other = self.app_names[self.rng.usize(0..self.app_names.len())].clone();
        match self.rng.u32(0..100) {
            roll if roll < own => json!({ "matchLabels": { "app": app } }),
            roll if roll < 90 => json!({ "matchLabels": { "app": other } }),
            roll if roll < 97 => json!({ "matchExpressions": [
                { "key": "tier", "operator": self.pick(&["In", "NotIn"]), "values": ["front"] },
            ] }),
            _ => json!({}),
        }
    }

    fn pod_term(&mut self, app: &str, own: u32) -> Value {
        let selector = self.selector(app, own);
        let mut term = json!({ "labelSelector": selector, "topologyKey": self.topology() });
        match self.rng.u32(0..100) {
            0..6 => term["namespaces"] = json!(["beta"]),
            6..10 => term["namespaceSelector"] = json!({}),
            10..15 => term["namespaceSelector"] = json!({ "matchLabels": { "team": "x" } }),
            15..18 => term["matchLabelKeys"] = json!(["version"]),
            18..21 => term["mismatchLabelKeys"] = json!(["version"]),
            _ => {}
        }
        term
    }

    fn spread(&mut self, app: &str, key: &str) -> Value {
        let selector = self.selector(app, 85);
        let mut constraint = json!({
            "labelSelector": selector, "topologyKey": key, "maxSkew": self.pick(&[1, 1, 2]),
            "whenUnsatisfiable": if self.chance(85) { "DoNotSchedule" } else { "ScheduleAnyway" },
        });
        if constraint["whenUnsatisfiable"] == "DoNotSchedule" && self.chance(15) {
            constraint["minDomains"] = json!(self.rng.u32(1..4));
        }
        if self.chance(15) {
            constraint["nodeAffinityPolicy"] = json!("Ignore");
        }
        if self.chance(20) {
            constraint["nodeTaintsPolicy"] = json!("Honor");
        }
        if self.chance(10) {
            constraint["matchLabelKeys"] = json!(["version"]);
        }
        constraint
    }
}
