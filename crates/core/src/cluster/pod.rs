//! Pods, and what their specs demand.

use super::labels::{LabelSelector, Labels};
use super::node::Node;
use super::node_selector::NodeSelectorTerm;
use super::resources::Resources;
use super::taints::{Effect, Taint, Toleration};
use crate::ids::NodeName;
use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;

/// A required inter-pod affinity or anti-affinity term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Which pods are meant; `None` means none.
    pub selector: Option<LabelSelector>,
    /// The namespaces that are meant, next to `namespace_selector`. Both empty: the pod's own.
    pub namespaces: Box<[Arc<str>]>,
    /// The namespaces that are meant, by label; an empty selector means all.
    pub namespace_selector: Option<LabelSelector>,
    /// The node label whose equal values make one place.
    pub topology_key: Arc<str>,
}

/// A topology spread constraint with `whenUnsatisfiable: DoNotSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpreadConstraint {
    /// By how many pods a domain may be ahead of the emptiest.
    pub max_skew: i64,
    /// The node label whose equal values make one domain.
    pub topology_key: Arc<str>,
    /// Which pods of the pod's namespace are counted; `None` means none.
    pub selector: Option<LabelSelector>,
    /// With fewer domains than this the emptiest counts as having none.
    pub min_domains: i64,
    /// Nodes that the pod's node affinity excludes are no domain (`nodeAffinityPolicy: Honor`, the default).
    pub honour_node_affinity: bool,
    /// Nodes whose taints the pod does not tolerate are no domain (`nodeTaintsPolicy: Honor`, not the
    /// default).
    pub honour_taints: bool,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The address it is bound to; `0.0.0.0` means all.
    pub ip: Arc<str>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Arc<str>,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// Whether both cannot be on one node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A PersistentVolumeClaim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimRef {
    /// The claim's name, in the pod's namespace.
    pub name: Arc<str>,
    /// Made for this pod and deleted with it: its successor gets a new one, wherever it runs.
    pub ephemeral: bool,
}

/// What the pods of one template have in common, and what does not change while a pod lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodSpec {
    /// What the scheduler reserves for it: the larger of the init phase and the sum of the containers,
    /// sidecars and overhead included. `pods` is 0 and not used.
    pub requests: Resources,
    /// Ports of the node.
    pub host_ports: Box<[HostPort]>,
    /// Tolerations.
    pub tolerations: Box<[Toleration]>,
    /// `nodeSelector`.
    pub node_selector: Labels,
    /// Required node affinity: one of the terms must be met. `None`: no restriction.
    pub node_affinity: Option<Box<[NodeSelectorTerm]>>,
    /// Required inter-pod affinity: all terms must be met.
    pub pod_affinity: Box<[AffinityTerm]>,
    /// Required inter-pod anti-affinity: no term may be met.
    pub pod_anti_affinity: Box<[AffinityTerm]>,
    /// Topology spread that is a must.
    pub topology_spread: Box<[SpreadConstraint]>,
    /// The resolved priority.
    pub priority: i32,
    /// It takes nobody's place (`preemptionPolicy: Never`).
    pub never_preempts: bool,
    /// PersistentVolumeClaims.
    pub claims: Box<[ClaimRef]>,
    /// Has an emptyDir volume, whose content is lost when the pod moves.
    pub uses_empty_dir: bool,
    /// Runs an image of aws-node-termination-handler ([`crate::neighbours::is_termination_handler`]).
    pub termination_handler: bool,
    /// The features that a kubelet must declare before the scheduler gives it the pod, sorted (KEP-5328).
    pub required_features: Box<[Arc<str>]>,
    /// Its scheduler, unless that is `default-scheduler`: nobody knows the rules of another one.
    pub scheduler: Option<Arc<str>>,
    /// A field in use that the placement check does not understand, as the API names it: the pod is never
    /// said to fit.
    pub not_understood: Option<Arc<str>>,
    /// In seconds; 30 unless the pod says otherwise.
    pub grace_period_seconds: i64,
}

impl Default for PodSpec {
    fn default() -> Self {
        Self {
            requests: Resources::default(),
            host_ports: Box::default(),
            tolerations: Box::default(),
            node_selector: Labels::default(),
            node_affinity: None,
            pod_affinity: Box::default(),
            pod_anti_affinity: Box::default(),
            topology_spread: Box::default(),
            priority: 0,
            never_preempts: false,
            claims: Box::default(),
            uses_empty_dir: false,
            termination_handler: false,
            required_features: Box::default(),
            scheduler: None,
            not_understood: None,
            grace_period_seconds: 30,
        }
    }
}

impl PodSpec {
    /// Whether the pod tolerates all taints that keep new pods away; if not, the first that it does not.
    pub fn untolerated<'n>(&self, node: &'n Node) -> Option<&'n Taint> {
        node.taints.iter().find(|taint| {
            taint.effect != Effect::PreferNoSchedule && !self.tolerations.iter().any(|t| t.tolerates(taint))
        })
    }

    /// Whether the pod only keeps a place: its priority is below that of placeholders, if there are any.
    #[must_use]
    pub fn is_placeholder(&self, placeholders_below: Option<i32>) -> bool {
        placeholders_below.is_some_and(|limit| self.priority < limit)
    }

    /// Whether `nodeSelector` and required node affinity allow the node.
    #[must_use]
    pub fn selects(&self, node: &Node) -> bool {
        self.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
            && self.node_affinity.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(node)))
    }
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Not all containers have started; also pods that no node has yet.
    #[default]
    Pending,
    /// Started.
    Running,
    /// All containers ended well.
    Succeeded,
    /// Ended, and not well.
    Failed,
    /// The node does not answer.
    Unknown,
}

impl PodPhase {
    /// Succeeded or failed: takes no room any more.
    #[must_use]
    pub fn finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// What sort of controller a pod belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// None: nobody makes the pod anew.
    #[default]
    None,
    /// A static pod of the kubelet, shown in the API by a mirror.
    Mirror,
    /// One pod per node.
    DaemonSet,
    /// Usually of a Deployment.
    ReplicaSet,
    /// Pods with an identity.
    StatefulSet,
    /// Runs to an end.
    Job,
    /// Another controller.
    Other,
}

/// The controller of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// What sort.
    pub kind: OwnerKind,
    /// Its name; empty without one.
    pub name: Arc<str>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID: a successor of the same name has another.
    pub uid: Arc<str>,
    /// The node it is bound to.
    pub node: Option<NodeName>,
    /// The node that the scheduler keeps for it while it waits (`status.nominatedNodeName`).
    pub nominated: Option<NodeName>,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Its Ready condition is true.
    pub ready: bool,
    /// When the Ready condition last changed.
    pub ready_changed: Option<Timestamp>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it must be gone; set once it is asked to end.
    pub deletion: Option<Timestamp>,
    /// Has finalizers: may stay after its containers have ended.
    pub finalizers: bool,
    /// Waits for a scheduling gate; the scheduler does not look at it.
    pub gated: bool,
    /// Since when the scheduler finds no node for it (condition `PodScheduled`, reason `Unschedulable`).
    pub unschedulable_since: Option<Timestamp>,
    /// Its controller.
    pub owner: Owner,
    /// Its labels.
    pub labels: Labels,
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict`, if set.
    pub safe_to_evict: Option<bool>,
    /// Until when `karpenter.sh/do-not-disrupt` asks to leave it alone: for ever, or for a duration after its
    /// start (Karpenter, "Well-Known Annotations"; from 1.12 on). For ever, too, where
    /// `karpenter.sh/do-not-evict` is `true`, as it was called before (Karpenter, "Upgrade Guide", v0.32).
    pub do_not_disrupt: Option<Timestamp>,
    /// What it shares with the other pods of its template.
    pub spec: Arc<PodSpec>,
}

impl Pod {
    /// Asked to end, and not gone yet.
    #[must_use]
    pub fn terminating(&self) -> bool {
        self.deletion.is_some()
    }

    /// Whether its successor is made only when it is gone, and needs its place then: its name and its volumes
    /// are those of the pod (Kubernetes, "StatefulSets").
    #[must_use]
    pub fn comes_after_its_end(&self) -> bool {
        self.owner.kind == OwnerKind::StatefulSet
    }

    /// What pods of one template share: their namespace, and where their labels and spec lie in memory. Told
    /// apart for sure only while such a pod is held.
    #[must_use]
    pub fn template(&self) -> (&str, usize, usize) {
        (&self.namespace, self.labels.address(), Arc::as_ptr(&self.spec).cast::<u8>() as usize)
    }

    /// `namespace/name`.
    #[must_use]
    pub fn key(&self) -> PodKey<'_> {
        PodKey { namespace: &self.namespace, name: &self.name }
    }
}

/// A pod's namespace and name, shown as `namespace/name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for PodKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
