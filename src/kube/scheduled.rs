//! The objects that the scheduler reads, with every field of the API's structs accounted for.
//!
//! What is irrelevant is so by the filters of kube-scheduler (pkg/scheduler/framework/plugins): what only
//! scores, what the kubelet does with a pod that it has, and what admission has written into other fields.

use crate::kube::caps::{part_list, part_map, parts, rule_list, rule_map, rules};
use crate::kube::closed::closed;
use crate::kube::values::{Amounts, Image, ObjectCondition, ObjectMeta, Time};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

closed! {
    /// What is wanted of a node.
    NodeSpec {
        #[serde(rename = "providerID")] provider_id: Option<String>,
        unschedulable: Option<bool>,
        #[serde(deserialize_with = "rules")] taints: Option<Vec<Taint>>,
    }
    irrelevant ["configSource" "externalID" "podCIDR" "podCIDRs" "podPreemptionPolicy"] blocks []
    /// A taint.
    Taint { key: String, value: Option<String>, effect: String, }
    irrelevant ["timeAdded"] blocks []
    /// What a node says of itself.
    NodeStatus {
        #[serde(deserialize_with = "parts")] conditions: Option<Vec<ObjectCondition>>,
        #[serde(deserialize_with = "part_map")] allocatable: Option<Amounts>,
        #[serde(deserialize_with = "parts")] declared_features: Option<Vec<String>>,
    }
    irrelevant [
        "addresses" "capacity" "config" "daemonEndpoints" "features" "images" "nodeInfo" "phase"
        "runtimeHandlers" "volumesAttached" "volumesInUse"
    ] blocks []
    /// What is wanted of a pod.
    PodSpec {
        node_name: Option<String>,
        scheduler_name: Option<String>,
        scheduling_gates: Option<Vec<IgnoredAny>>,
        #[serde(deserialize_with = "part_list")] containers: Vec<Container>,
        #[serde(deserialize_with = "parts")] init_containers: Option<Vec<Container>>,
        #[serde(deserialize_with = "part_map")] overhead: Option<Amounts>,
        resources: Option<ResourceRequirements>,
        #[serde(deserialize_with = "rules")] tolerations: Option<Vec<Toleration>>,
        #[serde(deserialize_with = "rule_map")] node_selector: Option<BTreeMap<String, String>>,
        affinity: Option<Affinity>,
        #[serde(deserialize_with = "rules")]
        topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
        priority: Option<i32>,
        preemption_policy: Option<String>,
        #[serde(deserialize_with = "rules")] volumes: Option<Vec<Volume>>,
        termination_grace_period_seconds: Option<i64>,
        host_network: Option<bool>,
        host_users: Option<bool>,
        restart_policy: Option<String>,
    }
    irrelevant [
        "activeDeadlineSeconds" "automountServiceAccountToken" "dnsConfig" "dnsPolicy" "enableServiceLinks"
        "ephemeralContainers" "evictionResponders" "hostAliases" "hostIPC" "hostPID" "hostname"
        "hostnameOverride" "imagePullSecrets" "os" "priorityClassName" "readinessGates"
        "runtimeClassName" "securityContext" "serviceAccount" "serviceAccountName" "setHostnameAsFQDN"
        "shareProcessNamespace" "subdomain"
    ] blocks ["resourceClaims" "schedulingGroup"]
    /// A container.
    Container {
        name: String,
        image: Image,
        resources: Option<ResourceRequirements>,
        restart_policy: Option<String>,
        #[serde(deserialize_with = "parts")] restart_policy_rules: Option<Vec<ContainerRestartRule>>,
        #[serde(deserialize_with = "parts")] ports: Option<Vec<ContainerPort>>,
        #[serde(deserialize_with = "parts")] volume_mounts: Option<Vec<VolumeMount>>,
    }
    irrelevant [
        "args" "command" "env" "envFrom" "imagePullPolicy" "lifecycle" "livenessProbe" "readinessProbe"
        "resizePolicy" "securityContext" "startupProbe" "stdin" "stdinOnce" "terminationMessagePath"
        "terminationMessagePolicy" "tty" "volumeDevices" "workingDir"
    ] blocks []
    /// What a container's end leads to.
    ContainerRestartRule { action: String, }
    irrelevant ["exitCodes"] blocks []
    /// Where a container sees a volume.
    VolumeMount { bind_mount_options: Option<Vec<IgnoredAny>>, }
    irrelevant [
        "mountPath" "mountPropagation" "name" "readOnly" "recursiveReadOnly" "subPath" "subPathExpr"
    ] blocks []
    /// What a container or a pod asks for.
    ResourceRequirements {
        #[serde(deserialize_with = "part_map")] requests: Option<Amounts>,
    }
    irrelevant ["limits"] blocks ["claims"]
    /// A port of a container.
    ContainerPort {
        host_port: Option<i32>,
        #[serde(rename = "hostIP")] host_ip: Option<String>,
        protocol: Option<String>,
    }
    irrelevant ["containerPort" "name"] blocks []
    /// A toleration.
    Toleration {
        key: Option<String>,
        operator: Option<String>,
        value: Option<String>,
        effect: Option<String>,
    }
    irrelevant ["tolerationSeconds"] blocks []
    /// Rules about nodes and other pods.
    Affinity {
        node_affinity: Option<NodeAffinity>,
        pod_affinity: Option<PodAffinity>,
        pod_anti_affinity: Option<PodAffinity>,
    }
    irrelevant [] blocks []
    /// Rules about nodes.
    NodeAffinity { required_during_scheduling_ignored_during_execution: Option<NodeSelector>, }
    irrelevant ["preferredDuringSchedulingIgnoredDuringExecution"] blocks []
    /// Rules about other pods, for or against.
    PodAffinity {
        #[serde(deserialize_with = "rules")]
        required_during_scheduling_ignored_during_execution: Option<Vec<PodAffinityTerm>>,
    }
    irrelevant ["preferredDuringSchedulingIgnoredDuringExecution"] blocks []
    /// Alternatives.
    NodeSelector {
        #[serde(deserialize_with = "rule_list")] node_selector_terms: Vec<NodeSelectorTerm>,
    }
    irrelevant [] blocks []
    /// One of them.
    NodeSelectorTerm {
        #[serde(deserialize_with = "rules")] match_expressions: Option<Vec<SelectorRequirement>>,
        #[serde(deserialize_with = "rules")] match_fields: Option<Vec<SelectorRequirement>>,
    }
    irrelevant [] blocks []
    /// A line of a selector.
    SelectorRequirement {
        key: String,
        operator: String,
        #[serde(deserialize_with = "rules")] values: Option<Vec<String>>,
    }
    irrelevant [] blocks []
    /// A rule about other pods.
    PodAffinityTerm {
        label_selector: Option<LabelSelector>,
        #[serde(deserialize_with = "rules")] match_label_keys: Option<Vec<String>>,
        #[serde(deserialize_with = "rules")] mismatch_label_keys: Option<Vec<String>>,
        #[serde(deserialize_with = "rules")] namespaces: Option<Vec<String>>,
        namespace_selector: Option<LabelSelector>,
        topology_key: String,
    }
    irrelevant [] blocks []
    /// A selector of labels.
    LabelSelector {
        #[serde(deserialize_with = "rule_map")] match_labels: Option<BTreeMap<String, String>>,
        #[serde(deserialize_with = "rules")] match_expressions: Option<Vec<SelectorRequirement>>,
    }
    irrelevant [] blocks []
    /// A rule about even spread.
    TopologySpreadConstraint {
        max_skew: i32,
        topology_key: String,
        when_unsatisfiable: String,
        label_selector: Option<LabelSelector>,
        #[serde(deserialize_with = "rules")] match_label_keys: Option<Vec<String>>,
        min_domains: Option<i32>,
        node_affinity_policy: Option<String>,
        node_taints_policy: Option<String>,
    }
    irrelevant [] blocks []
    /// A volume of a pod. Of those that stand in the pod itself, some are counted or kept apart by node
    /// (nodevolumelimits/csi.go, volumerestrictions/volume_restrictions.go).
    Volume {
        name: String,
        persistent_volume_claim: Option<ClaimSource>,
        ephemeral: Option<IgnoredAny>,
        empty_dir: Option<IgnoredAny>,
    }
    irrelevant [
        "cephfs" "configMap" "csi" "downwardAPI" "fc" "flexVolume" "flocker" "gitRepo" "glusterfs" "hostPath"
        "image" "nfs" "photonPersistentDisk" "projected" "quobyte" "scaleIO" "secret" "storageos"
    ] blocks [
        "awsElasticBlockStore" "azureDisk" "azureFile" "cinder" "gcePersistentDisk" "iscsi" "portworxVolume"
        "rbd" "vsphereVolume"
    ]
    /// The claim that a pod names.
    ClaimSource { claim_name: String, }
    irrelevant ["readOnly"] blocks []
    /// What is so of a pod.
    PodStatus {
        phase: Option<String>,
        nominated_node_name: Option<String>,
        start_time: Option<Time>,
        #[serde(deserialize_with = "parts")] conditions: Option<Vec<ObjectCondition>>,
        #[serde(deserialize_with = "parts")] container_statuses: Option<Vec<ContainerStatus>>,
        #[serde(deserialize_with = "parts")] init_container_statuses: Option<Vec<ContainerStatus>>,
        #[serde(deserialize_with = "part_map")] allocated_resources: Option<Amounts>,
        resources: Option<ResourceRequirements>,
        node_allocatable_resource_claim_statuses: Option<Vec<IgnoredAny>>,
    }
    irrelevant [
        "ephemeralContainerStatuses" "hostIP" "hostIPs" "message" "observedGeneration" "podIP" "podIPs"
        "qosClass" "reason" "resize" "resourceClaimStatuses" "volumeHealth"
    ] blocks ["extendedResourceClaimStatus"]
    /// What is so of a container.
    ContainerStatus {
        name: String,
        #[serde(deserialize_with = "part_map")] allocated_resources: Option<Amounts>,
        resources: Option<ResourceRequirements>,
    }
    irrelevant [
        "allocatedResourcesStatus" "containerID" "image" "imageID" "lastState" "ready" "restartCount"
        "started" "state" "stopSignal" "user" "volumeMounts"
    ] blocks []
    /// The drivers of a node.
    CSINodeSpec {
        #[serde(deserialize_with = "part_list")] drivers: Vec<CSINodeDriver>,
    }
    irrelevant [] blocks []
    /// A driver on a node.
    CSINodeDriver { name: String, allocatable: Option<VolumeNodeResources>, }
    irrelevant ["nodeID" "topologyKeys"] blocks []
    /// How many volumes it can attach.
    VolumeNodeResources { count: Option<i32>, }
    irrelevant [] blocks []
    /// What a claim asks for. Only one that is bound, or is made with its pod, lets a pod go elsewhere.
    PersistentVolumeClaimSpec {
        volume_name: Option<String>,
        storage_class_name: Option<String>,
        #[serde(deserialize_with = "parts")] access_modes: Option<Vec<String>>,
    }
    irrelevant [
        "dataSource" "dataSourceRef" "resources" "selector" "volumeAttributesClassName" "volumeMode"
    ] blocks []
    /// What is so of a claim.
    PersistentVolumeClaimStatus { phase: Option<String>, }
    irrelevant [
        "accessModes" "allocatedResourceStatuses" "allocatedResources" "capacity" "conditions"
        "currentVolumeAttributesClassName" "healthStatus" "modifyVolumeStatus"
    ] blocks []
    /// What a volume is. The in-tree kinds that block are counted by a driver that is not known here.
    PersistentVolumeSpec {
        csi: Option<CSIPersistentVolumeSource>,
        aws_elastic_block_store: Option<IgnoredAny>,
        node_affinity: Option<VolumeNodeAffinity>,
        claim_ref: Option<ObjectReference>,
    }
    irrelevant [
        "accessModes" "capacity" "cephfs" "fc" "flexVolume" "flocker" "glusterfs" "hostPath" "iscsi" "local"
        "mountOptions" "nfs" "persistentVolumeReclaimPolicy" "photonPersistentDisk" "quobyte" "rbd" "scaleIO"
        "storageClassName" "storageos" "volumeAttributesClassName" "volumeMode"
    ] blocks [
        "azureDisk" "azureFile" "cinder" "gcePersistentDisk" "portworxVolume" "vsphereVolume"
    ]
    /// The driver of a volume.
    CSIPersistentVolumeSource { driver: String, }
    irrelevant [
        "controllerExpandSecretRef" "controllerPublishSecretRef" "fsType" "nodeExpandSecretRef"
        "nodePublishSecretRef" "nodeStageSecretRef" "readOnly" "volumeAttributes" "volumeHandle"
    ] blocks []
    /// Where a volume can be used.
    VolumeNodeAffinity { required: Option<NodeSelector>, }
    irrelevant [] blocks []
    /// The claim that a volume is for.
    ObjectReference { namespace: Option<String>, name: Option<String>, }
    irrelevant ["apiVersion" "fieldPath" "kind" "resourceVersion" "uid"] blocks []
    /// What is attached where.
    VolumeAttachmentSpec { attacher: String, node_name: String, source: VolumeAttachmentSource, }
    irrelevant [] blocks []
    /// The volume that is attached.
    VolumeAttachmentSource { persistent_volume_name: Option<String>, }
    irrelevant ["inlineVolumeSpec"] blocks []
    /// What a driver asks of nodes.
    CSIDriverSpec { prevent_pod_scheduling_if_missing: Option<bool>, storage_capacity: Option<bool>, }
    irrelevant [
        "attachRequired" "fsGroupPolicy" "nodeAllocatableUpdatePeriodSeconds" "podInfoOnMount"
        "requiresRepublish" "seLinuxMount" "serviceAccountTokenInSecrets" "tokenRequests"
        "volumeLifecycleModes"
    ] blocks []
    /// Where new volumes are made.
    StorageClass {
        metadata: ObjectMeta,
        provisioner: String,
        volume_binding_mode: Option<String>,
        allowed_topologies: Option<Vec<IgnoredAny>>,
    }
    irrelevant [
        "apiVersion" "kind" "allowVolumeExpansion" "mountOptions" "parameters" "reclaimPolicy"
    ] blocks []
}
