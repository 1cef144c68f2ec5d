use super::quantity::BadQuantity;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use spot_guard_core::cluster::*;

#[track_caller]
fn reads(text: &str, milli_up: i64, one_up: i64, one_down: i64) {
    assert_eq!(quantity(text, Unit::Milli, Rounding::Up), Ok(milli_up), "{text} in thousandths");
    assert_eq!(quantity(text, Unit::One, Rounding::Up), Ok(one_up), "{text} rounded up");
    assert_eq!(quantity(text, Unit::One, Rounding::Down), Ok(one_down), "{text} rounded down");
}

#[test]
fn quantities_are_read_as_the_api_reads_them() {
    reads("0", 0, 0, 0);
    reads("1", 1000, 1, 1);
    reads("100m", 100, 1, 0);
    reads("0.5", 500, 1, 0);
    reads(".5", 500, 1, 0);
    reads("5.", 5000, 5, 5);
    reads("1500m", 1500, 2, 1);
    reads("+2", 2000, 2, 2);
    reads("1e3", 1_000_000, 1000, 1000);
    reads("1E3", 1_000_000, 1000, 1000);
    reads("1e-3", 1, 1, 0);
    reads("12e+2", 1_200_000, 1200, 1200);
    reads("1k", 1_000_000, 1000, 1000);
    reads("1Ki", 1_024_000, 1024, 1024);
    reads("1.5Gi", 1_610_612_736_000, 1_610_612_736, 1_610_612_736);
    reads("2M", 2_000_000_000, 2_000_000, 2_000_000);
    reads("100n", 1, 1, 0);
    reads("250u", 1, 1, 0);
    reads("0.0000000001", 1, 1, 0);
    reads("00012", 12_000, 12, 12);
    reads("1Ti", 1_099_511_627_776_000, 1 << 40, 1 << 40);
    reads("7Ei", i64::MAX, 7 << 60, 7 << 60);
    reads("8Ei", i64::MAX, i64::MAX, i64::MAX);
    reads("1e99", i64::MAX, i64::MAX, i64::MAX);
    reads("1e-99", 1, 1, 0);
    reads("123456789012345678901234567890", i64::MAX, i64::MAX, i64::MAX);
    reads("-1", -1000, -1, -1);
    reads("-0.5", -500, 0, -1);
}

#[test]
fn what_is_no_quantity_is_an_error_and_no_panic() {
    for text in [
        "", " ", "m", "Gi", "1 Gi", "1gi", "1KI", "1e", "1ee3", "1e3.5", "1.2.3", "--1", "abc", ".", "+",
        "1i", "NaN", "½",
    ] {
        assert_eq!(quantity(text, Unit::One, Rounding::Up), Err(BadQuantity(text.into())));
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[-+]?[0-9.]{0,45}[a-zA-Z+-]{0,3}[0-9]{0,12}|\\PC*") {
        let up = quantity(&text, Unit::One, Rounding::Up);
        let down = quantity(&text, Unit::One, Rounding::Down);
        prop_assert_eq!(up.is_ok(), down.is_ok());
        if let (Ok(up), Ok(down)) = (up, down) {
            prop_assert!(up - down <= 1 && up >= down);
        }
    }

    #[test]
    fn whole_numbers_are_read_exactly(n in any::<u32>(), shift in 0..4usize) {
        let suffix = ["", "Ki", "Mi", "Gi"][shift];
        let text = format!("{n}{suffix}");
        prop_assert_eq!(quantity(&text, Unit::One, Rounding::Down), Ok(i64::from(n) << (10 * shift)));
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn pod(spec: Value) -> Converted<Pod> {
    let metadata = json!({"namespace": "ns", "name": "p", "labels": {"app": "web", "rev": "7"}});
    Converter::default().pod(&read(json!({"metadata": metadata, "spec": spec})))
}

fn requests(spec: Value) -> Resources {
    let converted = pod(spec);
    assert_eq!(converted.problems, []);
    converted.object.spec.requests.clone()
}

fn container(cpu: &str, memory: &str) -> Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

fn sidecar(cpu: &str, memory: &str) -> Value {
    let mut container = container(cpu, memory);
    container["name"] = "s".into();
    container["restartPolicy"] = "Always".into();
    container
}

#[track_caller]
fn asks(spec: Value, cpu_millis: i64, memory: i64) {
    let found = requests(spec.clone());
    assert_eq!((found.cpu_millis, found.memory), (cpu_millis, memory), "{spec}");
}

#[test]
fn requests_are_the_larger_of_init_phase_and_containers_with_sidecars_and_overhead() {
    let two = || json!([container("100m", "10"), container("200m", "20")]);
    asks(json!({"containers": two()}), 300, 30);
    asks(json!({"containers": two(), "initContainers": [container("250m", "50")]}), 300, 50);
    let inits = json!([container("400m", "5"), container("350m", "5")]);
    asks(json!({"containers": two(), "initContainers": inits}), 400, 30);
    asks(json!({"containers": two(), "initContainers": [sidecar("50m", "1")]}), 350, 31);
    // The init container runs next to the sidecar that was started before it, not to the one after it.
    let mixed = json!([sidecar("50m", "1"), container("400m", "5"), sidecar("60m", "1")]);
    asks(json!({"containers": two(), "initContainers": mixed}), 450, 32);
    asks(json!({"containers": two(), "overhead": {"cpu": "10m", "memory": "1"}}), 310, 31);
    let whole = json!({"requests": {"cpu": "1"}});
    asks(json!({"containers": two(), "resources": whole, "overhead": {"cpu": "10m"}}), 1010, 30);
    asks(json!({"containers": [{"name": "c"}]}), 0, 0);
}

#[test]
fn extended_resources_are_added_up_and_zero_is_none() {
    let gpu = |n: &str| json!({"name": "c", "resources": {"requests": {"nvidia.com/gpu": n, "x/y": "0"}}});
    let found = requests(json!({"containers": [gpu("1"), gpu("2")]}));
    assert_eq!(found.extended("nvidia.com/gpu"), 3);
    assert_eq!(found.extended("x/y"), 0);
}

#[test]
fn extended_resources_of_sidecars_stay_in_use_beside_what_runs_next_to_them() {
    let asks = |amounts: Value| json!({"requests": amounts});
    let side = |amounts: Value| json!({"name": "s", "restartPolicy": "Always", "resources": asks(amounts)});
    let plain = |amounts: Value| json!({"name": "c", "resources": asks(amounts)});
    for (init, gpus) in [
        (json!([side(json!({"gpu": "2"})), plain(json!({"gpu": "3"}))]), 5),
        (json!([side(json!({"gpu": "2"})), plain(json!({"cpu": "1"}))]), 3),
        (json!([plain(json!({"gpu": "4"})), side(json!({"gpu": "2"}))]), 4),
        (json!([side(json!({"gpu": "2"})), side(json!({"gpu": "2"})), plain(json!({"gpu": "1"}))]), 5),
    ] {
        let spec = json!({"initContainers": init, "containers": [plain(json!({"gpu": "1"}))]});
        assert_eq!(requests(spec).extended("gpu"), gpus, "{init}");
    }
}

#[test]
fn while_a_pod_is_resized_the_larger_size_counts() {
    let converted = Converter::default().pod(&read(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [container("100m", "10")]},
        "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "allocatedResources": {"cpu": "300m", "memory": "5"}}]},
    })));
    let found = &converted.object.spec.requests;
    assert_eq!((found.cpu_millis, found.memory), (300, 10));
}

#[test]
fn a_request_that_cannot_be_read_is_reported_and_fits_nowhere() {
    for bad in ["lots", "-1"] {
        let converted = pod(json!({"containers": [container(bad, "10")]}));
        assert_eq!(
            converted.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!("pod ns/p: the amount \"{bad}\" of cpu cannot be read")]
        );
        let spec = &converted.object.spec;
        assert!(spec.not_understood.is_some());
        assert!(spec.requests.cpu_millis > 1_000_000_000, "{bad} takes the whole node");
    }
}

#[test]
fn an_allocatable_that_cannot_be_read_is_none() {
    let node =
        json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "many", "memory": "1Gi"}}});
    let converted = Converter::default().node(&read(node), VolumeLimits::default());
    assert_eq!(converted.object.allocatable.cpu_millis, 0);
    assert_eq!(converted.object.allocatable.memory, 1 << 30);
    assert_eq!(converted.problems.len(), 1);
}

#[test]
fn empty_objects_are_read_without_a_panic() {
    let mut converter = Converter::default();
    let node = converter.node(&api::Node::default(), VolumeLimits::default()).object;
    assert!(!node.ready);
    let pod = converter.pod(&api::Pod::default()).object;
    assert_eq!((pod.phase, pod.node, pod.spec.grace_period_seconds), (PodPhase::Pending, None, 30));
    let budget = converter.budget(&PodDisruptionBudget::default());
    assert_eq!((budget.disruptions_allowed, budget.selector), (0, None));
    assert_eq!(converter.claim(&api::PersistentVolumeClaim::default()), ClaimTerms::default());
    assert_eq!(converter.volume(&api::PersistentVolume::default()).reach, VolumeReach::Unknown);
}

#[test]
fn a_whole_node_is_read() {
    let node = read(json!({
        "metadata": {"name": "ip-10-0-0-1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"topology.kubernetes.io/zone": "eu-west-1a", "x": "y"}},
        "spec": {"providerID": "aws:///eu-west-1a/i-1", "unschedulable": true,
            "taints": [{"key": "a", "effect": "NoExecute"}, {"key": "b", "value": "c", "effect": "New"}]},
        "status": {"allocatable": {"cpu": "3920m", "memory": "7Gi", "pods": "58", "hugepages-2Mi": "0",
                "nvidia.com/gpu": "1"},
            "conditions": [{"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}]},
    }));
    let csi = read(json!({"metadata": {"name": "ip-10-0-0-1"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "nodeID": "i-1", "allocatable": {"count": 25}},
        {"name": "efs.csi.aws.com", "nodeID": "i-1"}]}}));
    let mut converter = Converter::default();
    let limits = converter.volume_limits(&csi);
    insta::assert_debug_snapshot!(converter.node(&node, limits));
}

#[test]
fn a_whole_pod_is_read() {
    let converted = Converter::default().pod(&read(json!({
        "metadata": {"namespace": "ns", "name": "web-0", "uid": "u", "finalizers": ["x/y"],
            "labels": {"app": "web", "rev": "7"},
            "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "karpenter.sh/do-not-disrupt": "30m"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "o",
                "controller": true}]},
        "spec": {"nodeName": "n", "priority": 7, "terminationGracePeriodSeconds": 60,
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"},
                {"key": "n", "operator": "Gt", "value": "1"}],
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080},
                {"containerPort": 81}]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}},
                {"name": "tmp", "ephemeral": {}}, {"name": "e", "emptyDir": {}}],
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["3"]}],
                     "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}},
                "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}},
                     "matchLabelKeys": ["rev"], "namespaceSelector": {}}],
                    "preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
                 "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
                 "nodeTaintsPolicy": "Honor", "minDomains": 3},
                {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:01:00Z"}]},
    })));
    insta::assert_debug_snapshot!(converted);
}

#[test]
fn owners_are_the_controllers_and_mirrors_are_told_by_their_annotation() {
    let kind = |references: Value, annotations: Value| {
        let metadata = json!({"name": "p", "ownerReferences": references, "annotations": annotations});
        Converter::default().pod(&read(json!({"metadata": metadata}))).object.owner.kind
    };
    let by = |kind: &str, controller: bool| json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": controller}]);
    assert_eq!(kind(by("DaemonSet", true), json!({})), OwnerKind::DaemonSet);
    assert_eq!(kind(by("ReplicaSet", true), json!({})), OwnerKind::ReplicaSet);
    assert_eq!(kind(by("Rollout", true), json!({})), OwnerKind::Other);
    assert_eq!(kind(by("ReplicaSet", false), json!({})), OwnerKind::None);
    assert_eq!(kind(by("Node", true), json!({})), OwnerKind::Mirror);
    assert_eq!(kind(json!([]), json!({"kubernetes.io/config.mirror": "x"})), OwnerKind::Mirror);
    assert_eq!(kind(json!([]), json!({})), OwnerKind::None);
}

#[test]
fn what_the_placement_check_does_not_know_is_said() {
    let why = |spec: Value| pod(spec).object.spec.not_understood.clone();
    assert_eq!(why(json!({"containers": []})), None);
    let unknown = |spec: Value| why(spec).map(|field| field.to_string());
    let claims = json!({"containers": [], "resourceClaims": [{"name": "gpu"}]});
    assert_eq!(unknown(claims).as_deref(), Some("PodSpec.resourceClaims"));
    let spread = json!({"containers": [], "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule", "minReplicas": 3}]});
    assert_eq!(unknown(spread).as_deref(), Some("TopologySpreadConstraint.minReplicas"));
    let disk =
        json!({"containers": [], "volumes": [{"name": "d", "awsElasticBlockStore": {"volumeID": "v"}}]});
    assert_eq!(unknown(disk).as_deref(), Some("Volume.awsElasticBlockStore"));
    let nothing = json!({"containers": [], "quiet": null, "none": [], "nobody": {}, "silent": ""});
    assert_eq!(unknown(nothing), None);
    assert_eq!(unknown(json!({"containers": [], "flag": false})).as_deref(), Some("PodSpec.flag"));
}

#[test]
fn a_budget_is_observed_when_its_status_is_of_the_newest_spec() {
    let budget = |generation: i64, observed: i64| {
        let spec = json!({"selector": {"matchLabels": {"app": "web"}},
            "unhealthyPodEvictionPolicy": "AlwaysAllow"});
        let status = json!({"observedGeneration": observed, "disruptionsAllowed": 1, "currentHealthy": 3,
            "desiredHealthy": 2, "expectedPods": 3});
        let metadata = json!({"namespace": "ns", "name": "b", "generation": generation});
        Converter::default().budget(&read(json!({"metadata": metadata, "spec": spec, "status": status})))
    };
    assert!(budget(2, 2).observed);
    assert!(!budget(3, 2).observed);
    let read = budget(2, 2);
    assert_eq!((read.disruptions_allowed, read.current_healthy, read.desired_healthy), (1, 3, 2));
    assert_eq!(read.unhealthy_pods, UnhealthyPods::AlwaysAllow);
    assert!(read.covers(&pod(json!({"containers": []})).object));
}

#[test]
fn a_volume_reaches_what_its_affinity_and_its_zone_labels_allow() {
    let mut converter = Converter::default();
    let claim = read(json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "pv-1"}}));
    let name = converter.claim(&claim);
    let unknown = Claim { volume: "pv-1".into(), reach: VolumeReach::Unknown, ..Claim::default() };
    assert_eq!(Claim::bound_to(name.clone(), None), unknown);
    let mut reach = |volume: Value| Claim::bound_to(name.clone(), Some(&converter.volume(&read(volume))));
    let plain = reach(json!({"spec": {"csi": {"driver": "efs.csi.aws.com", "volumeHandle": "h"}}}));
    assert_eq!((plain.reach, plain.driver.as_deref()), (VolumeReach::Anywhere, Some("efs.csi.aws.com")));
    let zone = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["a"]}]}]}});
    let ebs = reach(json!({"spec": {"nodeAffinity": zone, "csi": {"driver": "e", "volumeHandle": "h"}}}));
    let old = reach(json!({
        "metadata": {"labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}},
        "spec": {"awsElasticBlockStore": {"volumeID": "v"}}}));
    assert_eq!(old.driver.as_deref(), Some("ebs.csi.aws.com"));
    let on = |reach: &VolumeReach, key: &str, zone: &str| {
        let node = Node { labels: [(key, zone)].into_iter().collect(), ..Node::default() };
        matches!(reach, VolumeReach::Nodes(terms) if terms.iter().any(|t| t.matches(&node)))
    };
    assert!(on(&ebs.reach, "topology.ebs.csi.aws.com/zone", "a"));
    assert!(!on(&ebs.reach, "topology.ebs.csi.aws.com/zone", "b"));
    assert!(on(&old.reach, "topology.kubernetes.io/zone", "b"));
    assert!(!on(&old.reach, "topology.kubernetes.io/zone", "c"));
}

#[test]
fn pods_of_one_template_share_their_spec_and_labels_until_nothing_uses_them() {
    let mut converter = Converter::default();
    let mut read_pod = |name: &str| {
        let metadata = json!({"name": name, "labels": {"app": "web"}});
        converter
            .pod(&read(json!({"metadata": metadata, "spec": {"containers": [container("1", "1")]}})))
            .object
    };
    let (first, second) = (read_pod("a"), read_pod("b"));
    assert!(Arc::ptr_eq(&first.spec, &second.spec));
    let parts = spot_guard_core::cluster::Parts {
        pods: vec![first.into(), second.into()],
        ..spot_guard_core::cluster::Parts::default()
    };
    let snapshot = spot_guard_core::cluster::Snapshot::new(parts);
    assert_eq!(snapshot.groups().len(), 1);
    drop(snapshot);
    converter.forget_unused();
    assert_eq!((converter.specs.len(), converter.labels.len()), (0, 0));
    converter.forget_unused();
    assert_eq!(converter.strings.len(), 0);
}

#[test]
fn a_device_behind_an_extended_resource_is_named_and_is_not_insufficient_for_ever() {
    let claim = json!({"resourceClaimName": "p-gpu", "requestMappings": []});
    let converted = Converter::default().pod(&read(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]},
        "status": {"extendedResourceClaimStatus": claim},
    })));
    let spec = &converted.object.spec;
    assert_eq!(spec.not_understood.as_deref(), Some("PodStatus.extendedResourceClaimStatus"));
}

#[test]
fn while_a_pod_is_resized_as_a_whole_the_larger_of_what_it_has_and_asks_for_counts() {
    let requests = |asked: Value, status: Value| {
        let spec = json!({"containers": [container("100m", "10")], "resources": {"requests": asked}});
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let found = Converter::default().pod(&read(pod)).object.spec.requests.clone();
        (found.cpu_millis, found.memory)
    };
    let asked = || json!({"cpu": "200m", "memory": "20"});
    assert_eq!(requests(asked(), json!({})), (200, 20));
    assert_eq!(requests(asked(), json!({"allocatedResources": {"cpu": "900m", "memory": "5"}})), (900, 20));
    let actual = json!({"resources": {"requests": {"cpu": "50m", "memory": "90"}}});
    assert_eq!(requests(asked(), actual), (200, 90));
    assert_eq!(requests(json!({}), json!({"allocatedResources": {"cpu": "300m"}})), (300, 10));
    let devices = json!({"nodeAllocatableResourceClaimStatuses": [{"resourceClaimName": "c"}]});
    assert!(requests(asked(), devices).1 > 1 << 50);
}

#[test]
fn a_pod_names_the_features_that_its_kubelet_must_declare() {
    let needs = |spec: Value| {
        let converted = pod(spec);
        converted.object.spec.required_features.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let with = |field: &str, value: Value| json!({"containers": [{"name": "c", field: value}]});
    let rules = |action: &str| with("restartPolicyRules", json!([{"action": action}]));
    assert_eq!(needs(rules("Restart")), [""; 0]);
    assert_eq!(needs(rules("RestartAllContainers")), ["RestartAllContainersOnContainerExits"]);
    let mount = |options: Value| with("volumeMounts", json!([{"name": "v", "bindMountOptions": options}]));
    assert_eq!(needs(mount(json!([]))), [""; 0]);
    assert_eq!(needs(mount(json!(["noexec"]))), ["VolumeBindMountOptions"]);
    let users = |network: bool| json!({"containers": [], "hostNetwork": network, "hostUsers": false});
    assert_eq!(needs(users(false)), [""; 0]);
    assert_eq!(needs(users(true)), ["UserNamespacesHostNetworkSupport"]);
    let node = json!({"metadata": {"name": "n"}, "status": {"declaredFeatures": ["B", "A"], "quota": 3}});
    let node = Converter::default().node(&read(node), VolumeLimits::default()).object;
    assert_eq!(node.features.iter().map(|f| &**f).collect::<Vec<_>>(), ["A", "B"]);
    assert_eq!(node.not_understood.as_deref(), Some("NodeStatus.quota"));
}

#[test]
fn a_new_pod_cannot_use_a_claim_that_is_deleted_lost_or_not_bound_for_good() {
    let claim = |spoil: fn(&mut Value)| {
        let mut claim = json!({
            "metadata": {"name": "c", "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": "pv-1", "storageClassName": "fast", "accessModes": ["ReadWriteOncePod"]},
            "status": {"phase": "Bound"}});
        spoil(&mut claim);
        Converter::default().claim(&read(claim))
    };
    let whole = claim(|_| {});
    assert_eq!((&*whole.volume, &*whole.class, whole.one_pod), ("pv-1", "fast", true));
    let spoilt: [fn(&mut Value); 4] = [
        |c| c["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
        |c| c["status"]["phase"] = json!("Lost"),
        |c| c["metadata"]["annotations"] = json!({}),
        |c| c["spec"]["shards"] = json!(3),
    ];
    assert!(spoilt.into_iter().all(|spoil| claim(spoil).volume.is_empty()));
}

#[test]
fn a_class_follows_the_pod_only_if_it_waits_for_it_and_excludes_nothing() {
    let class = |mode: &str, topologies: Value| {
        let class = json!({"metadata": {"name": "fast"}, "provisioner": "ebs.csi.aws.com",
            "volumeBindingMode": mode, "allowedTopologies": topologies, "parameters": {"type": "gp3"}});
        Converter::default().class(&read(class)).follows_pod
    };
    assert!(class("WaitForFirstConsumer", json!(null)));
    assert!(!class("Immediate", json!(null)));
    assert!(!class("WaitForFirstConsumer", json!([{"matchLabelExpressions": []}])));
    let driver = |spec: Value| Converter::driver(&read(json!({"spec": spec})));
    assert_eq!(driver(json!({"attachRequired": true})), DriverTerms::default());
    let terms = driver(json!({"preventPodSchedulingIfMissing": true, "storageCapacity": true}));
    assert!(terms.must_be_installed && terms.counts_capacity);
    let unknown = driver(json!({"onlyOnTuesdays": true}));
    assert!(unknown.must_be_installed && unknown.counts_capacity);
}

#[test]
fn a_pod_that_runs_to_an_end_for_a_controller_that_nobody_knows_is_nobodys() {
    let of = |kind: &str, policy: Value| {
        let owners = json!([{ "kind": kind, "name": "x", "controller": true }]);
        let pod = json!({ "metadata": { "name": "p", "ownerReferences": owners },
            "spec": { "containers": [], "restartPolicy": policy } });
        Converter::default().pod(&read(pod)).object.owner.kind
    };
    for policy in [json!("Never"), json!("OnFailure")] {
        assert_eq!(of("EphemeralRunner", policy.clone()), OwnerKind::None);
        assert_eq!(of("Job", policy), OwnerKind::Job);
    }
    assert_eq!(of("StrimziPodSet", json!("Always")), OwnerKind::Other);
    assert_eq!(of("CloneSet", json!(null)), OwnerKind::Other, "Always is the default");
}

#[test]
fn what_may_not_be_evicted_before_its_end_is_not_safe_to_evict() {
    for (value, expected) in [
        ("true", Some(true)),
        ("false", Some(false)),
        ("on-completion", Some(false)),
        ("", None),
        ("maybe", None),
    ] {
        let key = "cluster-autoscaler.kubernetes.io/safe-to-evict";
        let pod = json!({ "metadata": { "name": "p", "annotations": { key: value } }, "spec": { "containers": [] } });
        assert_eq!(Converter::default().pod(&read(pod)).object.safe_to_evict, expected, "{value}");
    }
}

#[test]
fn a_node_that_is_being_deleted_takes_no_pods_and_an_unknown_policy_lets_no_unready_pod_go() {
    let node = json!({ "metadata": { "name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z" } });
    assert!(Converter::default().node(&read(node), VolumeLimits::default()).object.unschedulable);
    for (policy, expected) in [
        (json!(null), UnhealthyPods::IfHealthyBudget),
        (json!("IfHealthyBudget"), UnhealthyPods::IfHealthyBudget),
        (json!("AlwaysAllow"), UnhealthyPods::AlwaysAllow),
        (json!("Sometimes"), UnhealthyPods::Unknown),
    ] {
        let spec = json!({ "selector": {}, "unhealthyPodEvictionPolicy": policy });
        let budget = json!({ "metadata": { "name": "b", "namespace": "default" }, "spec": spec });
        assert_eq!(Converter::default().budget(&read(budget)).unhealthy_pods, expected);
    }
}

#[test]
fn a_rule_whose_value_nobody_knows_keeps_the_pod_where_it_is() {
    let of = |operator: &str, taints: &str, unsatisfiable: &str| {
        let spread = json!([{ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": unsatisfiable,
            "nodeTaintsPolicy": taints }]);
        let tolerations = json!([{ "key": "sla", "operator": operator, "value": "950" }]);
        let spec =
            json!({ "containers": [], "topologySpreadConstraints": spread, "tolerations": tolerations });
        let pod = json!({ "metadata": { "name": "p" }, "spec": spec });
        Converter::default().pod(&read(pod)).object.spec.not_understood.as_deref().map(str::to_owned)
    };
    assert_eq!(of("Gt", "Honor", "DoNotSchedule").as_deref(), Some("Toleration.operator"));
    assert_eq!(of("Gt", "Ignore", "DoNotSchedule"), None, "it tolerates nothing");
    assert_eq!(of("Equal", "Honor", "DoNotSchedule"), None);
    let unclear = "TopologySpreadConstraint.whenUnsatisfiable";
    assert_eq!(of("Equal", "Ignore", "Perhaps").as_deref(), Some(unclear));
}

#[test]
fn a_wish_not_to_be_disrupted_ends_a_duration_after_the_start_of_its_pod() {
    let until = |value: &str, started: Value| {
        let pod = json!({
            "metadata": {"name": "web-0", "annotations": {"karpenter.sh/do-not-disrupt": value}},
            "status": {"startTime": started},
        });
        Converter::default().pod(&read(pod)).object.do_not_disrupt.map(|until| until.to_string())
    };
    let started = json!("2026-01-01T00:00:00Z");
    let for_ever = Some(Timestamp::MAX.to_string());
    for (value, expected) in [
        ("30m", Some("2026-01-01T00:30:00Z".to_owned())),
        ("1h30m45s", Some("2026-01-01T01:30:45Z".to_owned())),
        ("0s", Some("2026-01-01T00:00:00Z".to_owned())),
        ("true", for_ever.clone()),
        ("-5m", for_ever.clone()),
        ("soon", for_ever.clone()),
        ("", for_ever.clone()),
        ("false", None),
    ] {
        assert_eq!(until(value, started.clone()), expected, "{value}");
    }
    assert_eq!(until("30m", Value::Null), for_ever, "nobody knows since when it runs");
}

#[test]
fn a_wish_not_to_be_evicted_is_one_not_to_be_disrupted_for_ever() {
    let until = |annotations: Value| {
        let pod = json!({
            "metadata": {"name": "web-0", "annotations": annotations},
            "status": {"startTime": "2026-01-01T00:00:00Z"},
        });
        Converter::default().pod(&read(pod)).object.do_not_disrupt
    };
    let evict = "karpenter.sh/do-not-evict";
    assert_eq!(until(json!({evict: "true"})), Some(Timestamp::MAX));
    assert_eq!(until(json!({evict: "true", "karpenter.sh/do-not-disrupt": "30m"})), Some(Timestamp::MAX));
    assert_eq!(until(json!({evict: "true", "karpenter.sh/do-not-disrupt": "false"})), Some(Timestamp::MAX));
    for value in ["false", "30m", ""] {
        assert_eq!(until(json!({evict: value})), None, "only \"true\" meant anything: {value}");
    }
}

#[test]
fn a_termination_handler_is_told_by_its_image() {
    let runs = |images: &[&str]| {
        let containers: Vec<Value> =
            images.iter().map(|image| json!({"name": "c", "image": image})).collect();
        let pod = json!({"metadata": {"name": "nth-x"}, "spec": {"containers": containers}});
        let object = Converter::default().pod(&read(pod)).object;
        assert_eq!(object.spec.not_understood, None);
        object.spec.termination_handler
    };
    let image = "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1.25.0";
    assert!(runs(&[image]) && runs(&["sidecar:1", image]));
    assert!(!runs(&["web:1"]) && !runs(&[]));
    let nameless = json!([{"name": "c", "image": null}]);
    let bare = read(json!({"metadata": {"name": "p"}, "spec": {"containers": nameless}}));
    assert!(!Converter::default().pod(&bare).object.spec.termination_handler);
}
