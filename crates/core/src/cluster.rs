//! The cluster as the decisions see it: only the fields that they need, cheap to keep for 150,000 pods.
//!
//! Nodes and pods are shared (`Arc`), and so is what all pods of one template have in common ([`PodSpec`],
//! [`Labels`]). [`Snapshot`] adds the indexes that the placement check looks things up in; it groups pods
//! by those shared parts, so a selector is matched once per template and not once per pod. [`Live`] keeps a
//! snapshot up to date, change by change.

use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// A set of labels, sorted by key. Cloning shares it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of `key`, if it is set.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a clone of this set is in use elsewhere.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Where the labels lie in memory: equal for clones of one set.
    fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<u8>() as usize
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

/// What a pod asks for, or what a node has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// In thousandths of a core.
    pub cpu_millis: i64,
    /// In bytes.
    pub memory: i64,
    /// In bytes.
    pub ephemeral_storage: i64,
    /// Number of pods; of a node only.
    pub pods: i64,
    /// Everything else (GPUs, huge pages, device plugins), in whole units, sorted by name.
    pub extended: Box<[(Arc<str>, i64)]>,
}

impl Resources {
    /// How much there is of the extended resource `name`.
    #[must_use]
    pub fn extended(&self, name: &str) -> i64 {
        let at = self.extended.binary_search_by(|(known, _)| (**known).cmp(name));
        at.map_or(0, |at| self.extended[at].1)
    }
}

/// How a [`Requirement`] compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is one of these.
    In(Box<[Arc<str>]>),
    /// The value is none of these, or the key is missing.
    NotIn(Box<[Arc<str>]>),
    /// The key is there.
    Exists,
    /// The key is missing.
    DoesNotExist,
    /// The value is a number greater than this.
    Gt(i64),
    /// The value is a number less than this.
    Lt(i64),
    /// An operator that we do not know: never met.
    Unknown,
}

/// One line of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key, or the field's name.
    pub key: Arc<str>,
    /// How its value is compared.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a label with this value (`None`: not set) meets the requirement.
    ///
    /// Rules: `Requirement.Matches` in staging/src/k8s.io/apimachinery/pkg/labels/selector.go.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        match (&self.operator, value) {
            (Operator::In(values), Some(v)) => values.iter().any(|x| &**x == v),
            (Operator::NotIn(values), Some(v)) => values.iter().all(|x| &**x != v),
            (Operator::Exists, Some(_)) | (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::Gt(limit), Some(v)) => number(v).is_some_and(|n| n > *limit),
            (Operator::Lt(limit), Some(v)) => number(v).is_some_and(|n| n < *limit),
            _ => false,
        }
    }
}

/// A label selector. All requirements must be met; without any it matches everything.
///
/// A selector that is not set in the API matches nothing: that is `Option::None` where one is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// `matchLabels` and `matchExpressions` together.
    pub requirements: Box<[Requirement]>,
}

impl LabelSelector {
    /// Whether the labels meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.matches(labels.get(&r.key)))
    }

    /// A label that every match must have, key and value, if there is one: by it the matches are looked up.
    #[must_use]
    pub fn required_label(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(values) if values.len() == 1 => Some((&*requirement.key, &*values[0])),
            _ => None,
        })
    }

    /// The selector for exactly these labels.
    #[must_use]
    pub fn of_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(k, v): (&str, &str)| Requirement {
            key: k.into(),
            operator: Operator::In(Box::from([v.into()])),
        };
        Self { requirements: pairs.into_iter().map(requirement).collect() }
    }
}

/// One of the alternatives of a required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSelectorTerm {
    /// About the node's labels.
    pub labels: Box<[Requirement]>,
    /// About the node's fields; only `metadata.name` exists.
    pub fields: Box<[Requirement]>,
}

impl NodeSelectorTerm {
    /// Whether the node meets the term. An empty term meets nothing.
    ///
    /// Rules: staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let field = |r: &Requirement| match &*r.key {
            "metadata.name" => r.matches(Some(&node.name)),
            _ => false,
        };
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(node.labels.get(&r.key)))
            && self.fields.iter().all(field)
    }
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods that do not tolerate it stay away.
    NoSchedule,
    /// New pods avoid it if they can; no obstacle.
    PreferNoSchedule,
    /// As `NoSchedule`, and pods that are there leave.
    NoExecute,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Its key.
    pub key: Arc<str>,
    /// Its value; may be empty.
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{:?}", self.effect)
    }
}

/// How a toleration compares a taint's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This value.
    Equal(Arc<str>),
    /// An operator that we do not know: tolerates nothing.
    Unknown,
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The taint's key; `None` means every key.
    pub key: Option<Arc<str>>,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// The taint's effect; `None` means every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether the taint is tolerated.
    ///
    /// Rules: `ToleratesTaint` in staging/src/k8s.io/api/core/v1/toleration.go.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.as_ref().is_none_or(|k| *k == taint.key)
            && match &self.operator {
                TolerationOperator::Exists => true,
                TolerationOperator::Equal(value) => *value == taint.value,
                TolerationOperator::Unknown => false,
            }
    }
}

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
    /// Nodes whose taints the pod does not tolerate are no domain (`nodeTaintsPolicy: Honor`, not the default).
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
    /// Asks for something that the placement check does not understand (dynamic resource claims, a request
    /// that could not be read): it is never said to fit.
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
pub enum Phase {
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

impl Phase {
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
    pub node: Option<Arc<str>>,
    /// Where it is in its life.
    pub phase: Phase,
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
    /// Its controller.
    pub owner: Owner,
    /// Its labels.
    pub labels: Labels,
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict`, if set.
    pub safe_to_evict: Option<bool>,
    /// `karpenter.sh/do-not-disrupt` is set, to `true` or to a duration.
    pub do_not_disrupt: bool,
    /// What it shares with the other pods of its template.
    pub spec: Arc<PodSpec>,
}

impl Pod {
    /// Asked to end, and not gone yet.
    #[must_use]
    pub fn terminating(&self) -> bool {
        self.deletion.is_some()
    }

    /// What pods of one template share: their namespace, and where their labels and spec lie in memory. Told apart
    /// for sure only while such a pod is held.
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

/// How many volumes each CSI driver can attach to a node, sorted by driver; one not listed has no limit.
pub type VolumeLimits = Box<[(Arc<str>, i64)]>;

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// `spec.providerID`; empty while the cloud has not set it.
    pub provider_id: Arc<str>,
    /// `topology.kubernetes.io/zone`; empty if not set.
    pub zone: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Box<[Taint]>,
    /// Cordoned.
    pub unschedulable: bool,
    /// Its Ready condition is true.
    pub ready: bool,
    /// When the Ready condition last changed.
    pub ready_changed: Option<Timestamp>,
    /// What pods can have of it.
    pub allocatable: Resources,
    /// How many volumes each CSI driver can attach.
    pub volume_limits: VolumeLimits,
    /// When it joined.
    pub created: Option<Timestamp>,
    /// Whether cluster-autoscaler may take it away.
    pub scale_down: ScaleDown,
}

/// Whether cluster-autoscaler may take a node away for being little used (its FAQ, `scale-down-disabled`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleDown {
    /// It may.
    #[default]
    Allowed,
    /// It may not, because of us.
    DisabledByUs,
    /// It may not, because of somebody else: nothing of ours is to be added or taken off.
    DisabledByOther,
}

impl Node {
    /// The EC2 instance behind it: the last part of its providerID, `aws:///<zone>/<id>`.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        let id = self.provider_id.strip_prefix("aws://")?.rsplit('/').next()?;
        id.starts_with("i-").then_some(id)
    }

    /// Whether it runs on the instance, as far as it says: it may not have said anything yet.
    #[must_use]
    pub fn may_run_on(&self, instance_id: &str) -> bool {
        self.provider_id.is_empty() || self.instance_id() == Some(instance_id)
    }
}

/// What a budget says of pods that are not ready (`unhealthyPodEvictionPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnhealthyPods {
    /// They may go while enough others are healthy. The default.
    #[default]
    IfHealthyBudget,
    /// They may always go.
    AlwaysAllow,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// Its namespace: it holds for pods there.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its pods; `None` means none.
    pub selector: Option<LabelSelector>,
    /// How many healthy pods may go now.
    pub disruptions_allowed: i64,
    /// The status belongs to the newest spec.
    pub observed: bool,
    /// Healthy pods now.
    pub current_healthy: i64,
    /// Healthy pods it wants.
    pub desired_healthy: i64,
    /// The pods there are to be: what their controllers want, or, if `minAvailable` is a number, those there are.
    pub expected_pods: i64,
    /// What it says of pods that are not ready.
    pub unhealthy_pods: UnhealthyPods,
}

impl DisruptionBudget {
    /// Whether the budget holds for the pod.
    #[must_use]
    pub fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.namespace && self.selector.as_ref().is_some_and(|s| s.matches(&pod.labels))
    }
}

/// Where a volume may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VolumeReach {
    /// Everywhere.
    #[default]
    Anywhere,
    /// On nodes that meet one of these terms: the bound volume's node affinity.
    Nodes(Box<[NodeSelectorTerm]>),
    /// Not known, for instance because the claim is not bound.
    Unknown,
}

/// A PersistentVolumeClaim and what it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The bound volume's name; empty if there is none.
    pub volume: Arc<str>,
    /// The bound volume's CSI driver, if it is one.
    pub driver: Option<Arc<str>>,
    /// Where the volume may be used.
    pub reach: VolumeReach,
}

impl Claim {
    /// The claim that names `volume`, of which `found` is known.
    #[must_use]
    pub fn bound_to(volume: Arc<str>, found: Option<&Volume>) -> Self {
        match found {
            Some(found) if !volume.is_empty() => {
                Self { volume, driver: found.driver.clone(), reach: found.reach.clone() }
            }
            _ => Self { volume, driver: None, reach: VolumeReach::Unknown },
        }
    }
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its CSI driver, if it has one.
    pub driver: Option<Arc<str>>,
    /// Where it may be used.
    pub reach: VolumeReach,
    /// Namespace and name of the claim that it is for.
    pub claim: Option<(Arc<str>, Arc<str>)>,
}

/// What a [`Snapshot`] is made from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// All budgets.
    pub budgets: Vec<DisruptionBudget>,
    /// The claims, by namespace and name.
    pub claims: HashMap<(Arc<str>, Arc<str>), Claim>,
    /// The labels of the namespaces. Where one is missing, terms that select namespaces by label are read
    /// the cautious way.
    pub namespaces: HashMap<Arc<str>, Labels>,
}

/// Adds one pod's requests to what is used.
pub(crate) fn add(used: &mut Resources, pod: &Resources) {
    change(used, pod, 1);
}

/// Adds one pod's requests to what is used (`by` is 1), or takes them off (-1).
fn change(used: &mut Resources, pod: &Resources, by: i64) {
    used.cpu_millis = used.cpu_millis.saturating_add(by * pod.cpu_millis);
    used.memory = used.memory.saturating_add(by * pod.memory);
    used.ephemeral_storage = used.ephemeral_storage.saturating_add(by * pod.ephemeral_storage);
    used.pods += by;
    add_extended(&mut used.extended, &pod.extended, by);
}

/// Adds amounts to others, `by` times each; both are sorted by name, and nothing is left of what comes to 0.
pub(super) fn add_extended(sum: &mut Box<[(Arc<str>, i64)]>, more: &[(Arc<str>, i64)], by: i64) {
    if more.is_empty() {
        return;
    }
    let mut merged = Vec::with_capacity(sum.len() + more.len());
    let mut held = std::mem::take(sum).into_vec().into_iter().peekable();
    for (name, amount) in more {
        while let Some(before) = held.next_if(|(known, _)| known < name) {
            merged.push(before);
        }
        let before = held.next_if(|(known, _)| known == name).map_or(0, |(_, amount)| amount);
        merged.push((name.clone(), before.saturating_add(amount.saturating_mul(by))));
    }
    merged.extend(held);
    merged.retain(|(_, amount)| *amount != 0);
    *sum = merged.into();
}

pub use snapshot::{Live, PodGroup, Snapshot};

mod budgets;
mod snapshot;
mod weight;

#[cfg(test)]
mod tests;
