//! From what is read of the Kubernetes API's objects to the types of [`spot_guard_core::cluster`].
//!
//! Pure and tolerant: a missing field is what the API's default says, and what cannot be read is taken the
//! cautious way (a request as more than any node has, a node's room as none) and reported.

use crate::kube::slim::{self as api, CSINode, PodDisruptionBudget, Quantity};
use jiff::Timestamp;
use spot_guard_core::cluster::{
    AffinityTerm, ClaimRef, DisruptionBudget, Effect, HostPort, LabelSelector, Labels, Node,
    NodeSelectorTerm, Operator, Owner, OwnerKind, Phase, Pod, PodSpec, Requirement, Resources, ScaleDown,
    SpreadConstraint, Taint, Toleration, TolerationOperator, UnhealthyPods, Volume, VolumeLimits,
    VolumeReach,
};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// Stands for a request that could not be read: more than any node has, and small enough to add up.
pub(super) const UNREADABLE: i64 = 1 << 52;

/// After so many bytes that came in, what nothing uses is forgotten: with pods of the usual size, some ten thousand.
const FORGET_AFTER: usize = 32 << 20;
/// What is kept for each text besides its bytes, about.
const ENTRY: usize = 64;

/// Something in an object that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object, as `kind namespace/name`.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

/// Which unit a quantity is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Whole units: bytes, pods, devices.
    One,
    /// Thousandths: CPU.
    Milli,
}

/// What becomes of a remainder that the unit cannot show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Up: for what pods ask.
    Up,
    /// Down: for what nodes have.
    Down,
}

/// A quantity that is not of the form that Kubernetes allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a quantity")]
pub struct BadQuantity(pub String);

/// Reads a quantity: `100m`, `1Gi`, `1e3`, `0.5`. What is too large becomes `i64::MAX`.
///
/// Format: staging/src/k8s.io/apimachinery/pkg/api/resource/quantity.go.
///
/// # Errors
/// If the text is not a quantity.
pub fn quantity(text: &str, unit: Unit, rounding: Rounding) -> Result<i64, BadQuantity> {
    exact(text, unit, rounding).ok_or_else(|| BadQuantity(text.to_owned()))
}

fn exact(text: &str, unit: Unit, rounding: Rounding) -> Option<i64> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let (binary, mut decimal): (u32, i32) = match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    if unit == Unit::Milli {
        decimal = decimal.saturating_add(3);
    }
    decimal = decimal.saturating_sub(i32::try_from(fraction.len()).ok()?);

    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let too_large = if negative { i64::MIN } else { i64::MAX };
    // The value is digits * 10^decimal * 2^binary. 20 digits are more than an i64 holds, and times 2^60
    // they still fit an i128; the others can only round.
    let keep = digits.len().min(20);
    let dropped = digits[keep..].bytes().any(|b| b != b'0');
    decimal = decimal.saturating_add(i32::try_from(digits.len() - keep).ok()?);
    let value = digits[..keep].parse::<i128>().ok()? << binary;
    let power = 10i128.checked_pow(decimal.unsigned_abs());
    let (value, remainder) = match (power, decimal < 0) {
        (Some(divisor), true) => (value / divisor, value % divisor),
        (None, true) => (0, value),
        (Some(factor), false) => match value.checked_mul(factor) {
            Some(product) => (product, 0),
            None => return Some(too_large),
        },
        (None, false) => return Some(too_large),
    };
    let away_from_zero = (rounding == Rounding::Up) != negative;
    let value = value + i128::from(away_from_zero && (remainder != 0 || dropped));
    Some(i64::try_from(if negative { -value } else { value }).unwrap_or(too_large))
}

/// Converts, and shares what is equal: strings, label sets and pod specs are kept once.
#[derive(Debug, Default)]
pub struct Converter {
    strings: HashSet<Arc<str>>,
    labels: HashSet<Labels>,
    specs: HashSet<Arc<PodSpec>>,
    /// How many bytes came in since what nothing uses was forgotten, about.
    taken_in: usize,
}

/// An object, and what could not be read in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The object, the cautious way where something could not be read.
    pub object: T,
    /// What could not be read; usually empty.
    pub problems: Vec<Problem>,
}

impl Converter {
    /// Forgets what nothing uses any more, once so much came in that it may weigh. To be called after each change.
    pub fn tidy(&mut self) {
        if self.taken_in > FORGET_AFTER {
            self.forget_unused();
        }
    }

    /// How many texts, label sets and specs are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.strings.len() + self.labels.len() + self.specs.len()
    }

    /// Forgets what nothing uses any more.
    pub fn forget_unused(&mut self) {
        self.taken_in = 0;
        self.specs.retain(|s| Arc::strong_count(s) > 1);
        self.labels.retain(Labels::is_shared);
        self.strings.retain(|s| Arc::strong_count(s) > 1);
    }

    pub(super) fn string(&mut self, text: &str) -> Arc<str> {
        self.taken_in += text.len() + ENTRY;
        if let Some(known) = self.strings.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.strings.insert(new.clone());
        new
    }

    pub(super) fn label_set(&mut self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs: Vec<_> =
            labels.into_iter().flatten().map(|(k, v)| (self.string(k), self.string(v))).collect();
        let new: Labels = pairs.into_iter().collect();
        shared(&mut self.labels, new)
    }

    /// The labels of a namespace.
    pub fn namespace(&mut self, namespace: &api::Namespace) -> (Arc<str>, Labels) {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        (self.string(name), self.label_set(namespace.metadata.labels.as_ref()))
    }

    /// A node that can attach as many volumes as its CSINode says.
    pub fn node(&mut self, node: &api::Node, volume_limits: VolumeLimits) -> Converted<Node> {
        let mut problems = Problems::of("node", &node.metadata);
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|c| c.type_ == "Ready"));
        let labels = self.label_set(node.metadata.labels.as_ref());
        let zone = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]
            .iter()
            .find_map(|key| labels.get(key))
            .unwrap_or_default();
        let zone = self.string(zone);
        let taints = spec.and_then(|s| s.taints.as_ref()).into_iter().flatten();
        let taints: Vec<(&api::Taint, Effect)> = taints
            .map(|t| {
                let known = effect(&t.effect);
                if known.is_none() {
                    problems.add(format!("taint {} has the unknown effect {}", t.key, t.effect));
                }
                (t, known.unwrap_or(Effect::NoSchedule))
            })
            .collect();
        let taints = taints
            .into_iter()
            .map(|(t, effect)| Taint {
                key: self.string(&t.key),
                value: self.string(t.value.as_deref().unwrap_or_default()),
                effect,
            })
            .collect();
        let object = Node {
            name: self.string(node.metadata.name.as_deref().unwrap_or_default()),
            provider_id: spec.and_then(|s| s.provider_id.as_deref()).unwrap_or_default().into(),
            zone,
            labels,
            taints,
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| time(c.last_transition_time.as_ref())),
            allocatable: self.resources(
                status.and_then(|s| s.allocatable.as_ref()),
                Rounding::Down,
                &mut problems,
            ),
            volume_limits,
            created: time(node.metadata.creation_timestamp.as_ref()),
            scale_down: scale_down(node),
        };
        Converted { object, problems: problems.list }
    }

    /// How many volumes a node can attach.
    pub fn volume_limits(&mut self, csi: &CSINode) -> VolumeLimits {
        let limits: BTreeMap<Arc<str>, i64> = csi
            .spec
            .drivers
            .iter()
            .filter_map(|d| {
                let count = d.allocatable.as_ref()?.count?;
                Some((self.string(&d.name), count.into()))
            })
            .collect();
        limits.into_iter().collect()
    }

    fn resources(
        &mut self,
        list: Option<&BTreeMap<String, Quantity>>,
        rounding: Rounding,
        problems: &mut Problems,
    ) -> Resources {
        let mut sum = Resources::default();
        let mut extended = BTreeMap::new();
        for (name, amount) in list.into_iter().flatten() {
            let unit = if name == "cpu" { Unit::Milli } else { Unit::One };
            let value = match quantity(&amount.0, unit, rounding) {
                Ok(value) if value >= 0 => value.min(UNREADABLE),
                _ => {
                    problems.add(format!("the amount \"{}\" of {name} cannot be read", amount.0));
                    if rounding == Rounding::Up { UNREADABLE } else { 0 }
                }
            };
            match name.as_str() {
                "cpu" => sum.cpu_millis = value,
                "memory" => sum.memory = value,
                "ephemeral-storage" => sum.ephemeral_storage = value,
                "pods" => sum.pods = value,
                _ => {
                    extended.insert(self.string(name), value);
                }
            }
        }
        sum.extended = extended.into_iter().filter(|(_, amount)| *amount != 0).collect();
        sum
    }

    /// A pod.
    pub fn pod(&mut self, pod: &api::Pod) -> Converted<Pod> {
        let mut problems = Problems::of("pod", &pod.metadata);
        let status = pod.status.as_ref();
        let annotations = pod.metadata.annotations.as_ref();
        let ready = status
            .and_then(|s| s.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|c| c.type_ == "Ready"));
        let spec = pod.spec.as_ref();
        let mirror = annotations.is_some_and(|a| a.mirror.is_some());
        let object = Pod {
            namespace: self.string(pod.metadata.namespace.as_deref().unwrap_or("default")),
            name: pod.metadata.name.as_deref().unwrap_or_default().into(),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            node: spec
                .and_then(|s| s.node_name.as_deref())
                .filter(|n| !n.is_empty())
                .map(|name| self.string(name)),
            phase: match status.and_then(|s| s.phase.as_deref()) {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| time(c.last_transition_time.as_ref())),
            created: time(pod.metadata.creation_timestamp.as_ref()),
            deletion: time(pod.metadata.deletion_timestamp.as_ref()),
            finalizers: pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()),
            gated: spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty()),
            owner: self.owner(pod.metadata.owner_references.as_deref().unwrap_or_default(), mirror),
            labels: self.label_set(pod.metadata.labels.as_ref()),
            safe_to_evict: match annotations.and_then(|a| a.safe_to_evict.as_deref()) {
                Some("true") => Some(true),
                Some("false") => Some(false),
                _ => None,
            },
            do_not_disrupt: annotations
                .and_then(|a| a.do_not_disrupt.as_deref())
                .is_some_and(|v| v != "false"),
            spec: spec.map_or_else(Arc::default, |s| self.pod_spec(pod, s, &mut problems)),
        };
        Converted { object, problems: problems.list }
    }

    fn owner(&mut self, references: &[api::OwnerReference], mirror: bool) -> Owner {
        let controller = references.iter().find(|r| r.controller == Some(true));
        let kind = match controller.map(|c| c.kind.as_str()) {
            _ if mirror => OwnerKind::Mirror,
            None => OwnerKind::None,
            Some("Node") => OwnerKind::Mirror,
            Some("DaemonSet") => OwnerKind::DaemonSet,
            Some("ReplicaSet") => OwnerKind::ReplicaSet,
            Some("StatefulSet") => OwnerKind::StatefulSet,
            Some("Job") => OwnerKind::Job,
            Some(_) => OwnerKind::Other,
        };
        Owner { kind, name: self.string(controller.map_or("", |c| &c.name)) }
    }

    fn pod_spec(&mut self, pod: &api::Pod, spec: &api::PodSpec, problems: &mut Problems) -> Arc<PodSpec> {
        let before = problems.list.len();
        let requests = self.requests(pod, spec, problems);
        let mut not_understood = problems.list.get(before).map(|p| p.message.clone());
        if spec.resource_claims.as_ref().is_some_and(|c| !c.is_empty()) {
            not_understood = Some("it asks for devices by dynamic resource claims".to_owned());
        }
        if spec.scheduling_group.is_some() {
            not_understood = Some("it is scheduled as a member of a group".to_owned());
        }
        let affinity = spec.affinity.as_ref();
        let own = pod.metadata.labels.as_ref();
        let node_affinity = affinity
            .and_then(|a| a.node_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|required| self.node_terms(&required.node_selector_terms));
        let together = affinity
            .and_then(|a| a.pod_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let apart = affinity
            .and_then(|a| a.pod_anti_affinity.as_ref())
            .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_deref());
        let volumes = spec.volumes.as_deref().unwrap_or_default();
        let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
        let new = PodSpec {
            requests,
            host_ports: self.host_ports(spec),
            tolerations: spec.tolerations.iter().flatten().map(|t| self.toleration(t)).collect(),
            node_selector: self.label_set(spec.node_selector.as_ref()),
            node_affinity,
            pod_affinity: self.affinity_terms(together, own),
            pod_anti_affinity: self.affinity_terms(apart, own),
            topology_spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
                .map(|c| self.spread(c, own))
                .collect(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            claims: volumes.iter().filter_map(|v| claim_ref(v, pod_name)).collect(),
            uses_empty_dir: volumes.iter().any(|v| v.empty_dir.is_some()),
            not_understood: not_understood.map(Into::into),
            grace_period_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
        };
        self.spec(new)
    }

    pub(super) fn spec(&mut self, new: PodSpec) -> Arc<PodSpec> {
        shared(&mut self.specs, Arc::new(new))
    }

    /// What the scheduler reserves for a pod.
    ///
    /// Rules: `PodRequests` in staging/src/k8s.io/component-helpers/resource/helpers.go. Init containers run
    /// one after another, next to the sidecars (restartable init containers) started before them; a request
    /// for the pod as a whole replaces the sum of its containers; while a pod is resized in place, the
    /// larger of what it has and what it asks for counts.
    fn requests(&mut self, pod: &api::Pod, spec: &api::PodSpec, problems: &mut Problems) -> Resources {
        let status = pod.status.as_ref();
        let running = by_name(status.and_then(|s| s.container_statuses.as_deref()));
        let started = by_name(status.and_then(|s| s.init_container_statuses.as_deref()));
        let mut of = |container: &api::Container, statuses: &BTreeMap<&str, &api::ContainerStatus>| {
            let asked = container.resources.as_ref().and_then(|r| r.requests.as_ref());
            let mut sum = self.resources(asked, Rounding::Up, problems);
            if let Some(now) = statuses.get(&*container.name) {
                let actual = now.resources.as_ref().and_then(|r| r.requests.as_ref());
                for list in [now.allocated_resources.as_ref(), actual] {
                    sum = combine(&sum, &self.resources(list, Rounding::Up, problems), i64::max);
                }
            }
            sum
        };
        let plus = i64::saturating_add;
        let mut total = Sums::default();
        for container in &spec.containers {
            total.take(&of(container, &running), plus);
        }
        let mut sidecars = Sums::default();
        let mut init = Sums::default();
        for container in spec.init_containers.iter().flatten() {
            let one = of(container, &started);
            // Only of what it asks for: of the rest the peak is that of the sidecars, which counts already.
            let peak = sidecars.next_to(&one);
            if container.restart_policy.as_deref() == Some("Always") {
                total.take(&one, plus);
                sidecars.take(&one, plus);
            }
            init.take(&peak, i64::max);
        }
        total.take(&init.into(), i64::max);
        let mut total = Resources::from(total);
        let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
        if let Some(whole) = whole {
            let asked = self.resources(Some(whole), Rounding::Up, problems);
            if whole.contains_key("cpu") {
                total.cpu_millis = asked.cpu_millis;
            }
            if whole.contains_key("memory") {
                total.memory = asked.memory;
            }
            let mut extended: BTreeMap<_, _> = total.extended.iter().cloned().collect();
            extended.extend(asked.extended.iter().cloned());
            total.extended = extended.into_iter().collect();
        }
        let overhead = self.resources(spec.overhead.as_ref(), Rounding::Up, problems);
        combine(&total, &overhead, plus)
    }

    fn host_ports(&mut self, spec: &api::PodSpec) -> Box<[HostPort]> {
        let sidecars =
            spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
        ports
            .filter_map(|p| {
                let port = u16::try_from(p.host_port?).ok().filter(|p| *p != 0)?;
                let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
                Some(HostPort {
                    ip: self.string(ip),
                    protocol: self.string(p.protocol.as_deref().unwrap_or("TCP")),
                    port,
                })
            })
            .collect()
    }

    fn toleration(&mut self, t: &api::Toleration) -> Toleration {
        let operator = match t.operator.as_deref() {
            Some("Exists") => TolerationOperator::Exists,
            None | Some("" | "Equal") => {
                TolerationOperator::Equal(self.string(t.value.as_deref().unwrap_or_default()))
            }
            Some(_) => TolerationOperator::Unknown,
        };
        let named = t.effect.as_deref().filter(|e| !e.is_empty());
        let effect = named.and_then(effect);
        Toleration {
            key: t.key.as_deref().filter(|k| !k.is_empty()).map(|k| self.string(k)),
            // An effect that we do not know is not every effect.
            operator: if named.is_some() && effect.is_none() {
                TolerationOperator::Unknown
            } else {
                operator
            },
            effect,
        }
    }

    fn node_terms(&mut self, terms: &[api::NodeSelectorTerm]) -> Box<[NodeSelectorTerm]> {
        terms
            .iter()
            .map(|t| NodeSelectorTerm {
                labels: self.node_requirements(t.match_expressions.as_deref()),
                fields: self.node_requirements(t.match_fields.as_deref()),
            })
            .collect()
    }

    fn node_requirements(&mut self, list: Option<&[api::SelectorRequirement]>) -> Box<[Requirement]> {
        let list = list.unwrap_or_default();
        list.iter().map(|r| self.requirement(&r.key, &r.operator, r.values.as_deref())).collect()
    }

    fn requirement(&mut self, key: &str, operator: &str, values: Option<&[String]>) -> Requirement {
        let values = values.unwrap_or_default();
        let number = values.first().and_then(|v| v.parse().ok());
        let all: Box<[Arc<str>]> = values.iter().map(|v| self.string(v)).collect();
        let operator = match (operator, number) {
            ("In", _) => Operator::In(all),
            ("NotIn", _) => Operator::NotIn(all),
            ("Exists", _) => Operator::Exists,
            ("DoesNotExist", _) => Operator::DoesNotExist,
            ("Gt", Some(limit)) => Operator::Gt(limit),
            ("Lt", Some(limit)) => Operator::Lt(limit),
            _ => Operator::Unknown,
        };
        Requirement { key: self.string(key), operator }
    }

    fn selector(&mut self, selector: &api::LabelSelector) -> LabelSelector {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(self.requirement(key, "In", Some(std::slice::from_ref(value))));
        }
        for r in selector.match_expressions.iter().flatten() {
            requirements.push(self.requirement(&r.key, &r.operator, r.values.as_deref()));
        }
        LabelSelector { requirements: requirements.into() }
    }

    /// The selector with the pod's own values of `same` added, and those of `different` excluded, as `matchLabelKeys`
    /// and `mismatchLabelKeys` want it. Newer API servers have done so already; once more changes nothing.
    fn selector_with(
        &mut self,
        selector: Option<&api::LabelSelector>,
        same: Option<&[String]>,
        different: Option<&[String]>,
        own: Option<&BTreeMap<String, String>>,
    ) -> Option<LabelSelector> {
        let result = self.selector(selector?);
        let same = same.unwrap_or_default().iter().map(|key| (key, "In"));
        let different = different.unwrap_or_default().iter().map(|key| (key, "NotIn"));
        let extra = same.chain(different).filter_map(|(key, operator)| Some((key, operator, own?.get(key)?)));
        let extra: Vec<Requirement> = extra
            .map(|(key, operator, value)| self.requirement(key, operator, Some(std::slice::from_ref(value))))
            .collect();
        if extra.is_empty() {
            return Some(result);
        }
        let mut known: HashSet<&Requirement> = result.requirements.iter().collect();
        let new: Vec<&Requirement> = extra.iter().filter(|requirement| known.insert(*requirement)).collect();
        let all = result.requirements.iter().chain(new).cloned();
        Some(LabelSelector { requirements: all.collect() })
    }

    fn affinity_terms(
        &mut self,
        terms: Option<&[api::PodAffinityTerm]>,
        own: Option<&BTreeMap<String, String>>,
    ) -> Box<[AffinityTerm]> {
        let terms = terms.unwrap_or_default().iter();
        terms
            .map(|t| AffinityTerm {
                selector: self.selector_with(
                    t.label_selector.as_ref(),
                    t.match_label_keys.as_deref(),
                    t.mismatch_label_keys.as_deref(),
                    own,
                ),
                namespaces: t.namespaces.iter().flatten().map(|n| self.string(n)).collect(),
                namespace_selector: t.namespace_selector.as_ref().map(|s| self.selector(s)),
                topology_key: self.string(&t.topology_key),
            })
            .collect()
    }

    fn spread(
        &mut self,
        c: &api::TopologySpreadConstraint,
        own: Option<&BTreeMap<String, String>>,
    ) -> SpreadConstraint {
        SpreadConstraint {
            max_skew: c.max_skew.into(),
            topology_key: self.string(&c.topology_key),
            selector: self.selector_with(c.label_selector.as_ref(), c.match_label_keys.as_deref(), None, own),
            min_domains: c.min_domains.unwrap_or(1).into(),
            honour_node_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honour_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// The name of the volume that a claim is bound to; empty while it is not.
    pub fn bound_volume(&mut self, claim: &api::PersistentVolumeClaim) -> Arc<str> {
        self.string(claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default())
    }

    /// A volume.
    pub fn volume(&mut self, volume: &api::PersistentVolume) -> Volume {
        let Some(spec) = volume.spec.as_ref() else {
            return Volume { reach: VolumeReach::Unknown, ..Volume::default() };
        };
        let driver = match (&spec.csi, &spec.aws_elastic_block_store) {
            (Some(csi), _) => Some(self.string(&csi.driver)),
            // Served by the driver since in-tree volumes were migrated (1.23).
            (None, Some(_)) => Some(self.string("ebs.csi.aws.com")),
            (None, None) => None,
        };
        let required = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        let mut terms = required.map(|r| self.node_terms(&r.node_selector_terms)).map(Vec::from);
        let zones = self.volume_zones(volume);
        if !zones.is_empty() {
            for term in terms.get_or_insert_with(|| vec![NodeSelectorTerm::default()]) {
                // An empty term meets nothing, and must go on doing so.
                if required.is_none() || !term.labels.is_empty() || !term.fields.is_empty() {
                    term.labels = term.labels.iter().chain(&zones).cloned().collect();
                }
            }
        }
        let reach = terms.map_or(VolumeReach::Anywhere, |terms| VolumeReach::Nodes(terms.into()));
        let claim = spec.claim_ref.as_ref();
        let claim = claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.as_deref()?)));
        let claim = claim.map(|(namespace, name)| (self.string(namespace), self.string(name)));
        Volume { driver, reach, claim }
    }

    /// Zone and region by the volume's labels, the older way to say where it is.
    ///
    /// Rules: pkg/scheduler/framework/plugins/volumezone/volume_zone.go.
    fn volume_zones(&mut self, volume: &api::PersistentVolume) -> Vec<Requirement> {
        let keys = [
            ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
            ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
            ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
            ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ];
        let labels = volume.metadata.labels.as_ref();
        keys.iter()
            .filter_map(|(key, today)| {
                let value = labels?.get(*key)?;
                let values: Vec<String> = value.split("__").map(|v| v.trim().to_owned()).collect();
                Some(self.requirement(today, "In", Some(&values)))
            })
            .collect()
    }

    /// A budget.
    pub fn budget(&mut self, budget: &PodDisruptionBudget) -> DisruptionBudget {
        let spec = budget.spec.as_ref();
        let status = budget.status.as_ref();
        let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
        DisruptionBudget {
            namespace: self.string(budget.metadata.namespace.as_deref().unwrap_or("default")),
            name: self.string(budget.metadata.name.as_deref().unwrap_or_default()),
            selector: spec.and_then(|s| s.selector.as_ref()).map(|s| self.selector(s)),
            disruptions_allowed: status.and_then(|s| s.disruptions_allowed).unwrap_or(0).into(),
            observed: observed >= budget.metadata.generation.unwrap_or(0),
            current_healthy: status.and_then(|s| s.current_healthy).unwrap_or(0).into(),
            desired_healthy: status.and_then(|s| s.desired_healthy).unwrap_or(0).into(),
            expected_pods: status.and_then(|s| s.expected_pods).unwrap_or(0).into(),
            unhealthy_pods: match spec.and_then(|s| s.unhealthy_pod_eviction_policy.as_deref()) {
                Some("AlwaysAllow") => UnhealthyPods::AlwaysAllow,
                _ => UnhealthyPods::IfHealthyBudget,
            },
        }
    }
}

struct Problems {
    object: String,
    list: Vec<Problem>,
}

impl Problems {
    fn of<A>(kind: &str, metadata: &api::ObjectMeta<A>) -> Self {
        let name = metadata.name.as_deref().unwrap_or_default();
        let object = match metadata.namespace.as_deref() {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        };
        Self { object, list: Vec::new() }
    }

    fn add(&mut self, message: String) {
        self.list.push(Problem { object: self.object.clone(), message });
    }
}

fn shared<T: Hash + Eq + Clone>(known: &mut HashSet<T>, new: T) -> T {
    if let Some(old) = known.get(&new) {
        return old.clone();
    }
    known.insert(new.clone());
    new
}

fn time(time: Option<&api::Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn effect(text: &str) -> Option<Effect> {
    match text {
        "NoSchedule" => Some(Effect::NoSchedule),
        "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
        "NoExecute" => Some(Effect::NoExecute),
        _ => None,
    }
}

fn claim_ref(volume: &api::Volume, pod: &str) -> Option<ClaimRef> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(ClaimRef { name: claim.claim_name.as_str().into(), ephemeral: false });
    }
    volume.ephemeral.as_ref()?;
    Some(ClaimRef { name: format!("{pod}-{}", volume.name).into(), ephemeral: true })
}

/// The first of each name.
fn by_name(statuses: Option<&[api::ContainerStatus]>) -> BTreeMap<&str, &api::ContainerStatus> {
    statuses.unwrap_or_default().iter().rev().map(|status| (&*status.name, status)).collect()
}

/// What comes together of many containers.
#[derive(Default)]
struct Sums {
    cpu_millis: i64,
    memory: i64,
    ephemeral_storage: i64,
    extended: BTreeMap<Arc<str>, i64>,
}

impl Sums {
    /// No amount is below zero, so what `one` does not name stays.
    fn take(&mut self, one: &Resources, with: fn(i64, i64) -> i64) {
        self.cpu_millis = with(self.cpu_millis, one.cpu_millis);
        self.memory = with(self.memory, one.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, one.ephemeral_storage);
        for (name, amount) in &one.extended {
            let sum = self.extended.entry(name.clone()).or_default();
            *sum = with(*sum, *amount);
        }
    }

    /// What is in use while `one` runs, of what it asks for.
    fn next_to(&self, one: &Resources) -> Resources {
        let beside = |name: &Arc<str>| self.extended.get(name).copied().unwrap_or_default();
        let extended =
            one.extended.iter().map(|(name, amount)| (name.clone(), amount.saturating_add(beside(name))));
        Resources {
            cpu_millis: self.cpu_millis.saturating_add(one.cpu_millis),
            memory: self.memory.saturating_add(one.memory),
            ephemeral_storage: self.ephemeral_storage.saturating_add(one.ephemeral_storage),
            pods: 0,
            extended: extended.collect(),
        }
    }
}

impl From<Sums> for Resources {
    fn from(sums: Sums) -> Self {
        let Sums { cpu_millis, memory, ephemeral_storage, extended } = sums;
        Self { cpu_millis, memory, ephemeral_storage, pods: 0, extended: extended.into_iter().collect() }
    }
}

fn combine(a: &Resources, b: &Resources, with: fn(i64, i64) -> i64) -> Resources {
    let names: BTreeSet<&Arc<str>> = a.extended.iter().chain(&b.extended).map(|(name, _)| name).collect();
    Resources {
        cpu_millis: with(a.cpu_millis, b.cpu_millis),
        memory: with(a.memory, b.memory),
        ephemeral_storage: with(a.ephemeral_storage, b.ephemeral_storage),
        pods: 0,
        extended: names.into_iter().map(|n| (n.clone(), with(a.extended(n), b.extended(n)))).collect(),
    }
}

#[cfg(test)]
mod tests;

fn scale_down(node: &api::Node) -> ScaleDown {
    let annotations = node.metadata.annotations.as_ref();
    let disabled = annotations.and_then(|all| all.scale_down_disabled.as_deref());
    match annotations.and_then(|all| all.protected_by) {
        Some(_) => ScaleDown::DisabledByUs,
        None if disabled == Some("true") => ScaleDown::DisabledByOther,
        None => ScaleDown::Allowed,
    }
}
