//! Pods.

use super::quantity::Rounding;
use super::{Converted, Converter, Problems, UNREADABLE, effect, time};
use crate::kube::closed::Accounted as _;
use crate::kube::slim::{self as api};
use jiff::{SignedDuration, Timestamp};
use spot_guard_core::cluster::{
    ClaimRef, HostPort, KNOWN_FEATURES, Owner, OwnerKind, Pod, PodPhase, PodSpec, Resources, Toleration,
    TolerationOperator,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Converter {
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
        let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
        let policy = spec.and_then(|s| s.restart_policy.as_deref());
        let restarts = policy.is_none_or(|policy| policy == "Always");
        let object = Pod {
            namespace: self.string(pod.metadata.namespace.as_deref().unwrap_or("default")),
            name: pod.metadata.name.as_deref().unwrap_or_default().into(),
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            node: spec
                .and_then(|s| s.node_name.as_deref())
                .filter(|n| !n.is_empty())
                .map(|name| self.string(name).into()),
            nominated: status
                .and_then(|s| s.nominated_node_name.as_deref())
                .filter(|name| !name.is_empty() && spec.is_some_and(|s| s.node_name.is_none()))
                .map(|name| self.string(name).into()),
            phase: match status.and_then(|s| s.phase.as_deref()) {
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                Some("Unknown") => PodPhase::Unknown,
                _ => PodPhase::Pending,
            },
            ready: ready.is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| time(c.last_transition_time.as_ref())),
            created: time(pod.metadata.creation_timestamp.as_ref()),
            deletion: time(pod.metadata.deletion_timestamp.as_ref()),
            finalizers: pod.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()),
            gated: spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty()),
            unschedulable_since: status
                .and_then(|s| s.conditions.as_ref())
                .and_then(|all| all.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False"))
                .filter(|c| c.reason.as_deref() == Some("Unschedulable"))
                .and_then(|c| time(c.last_transition_time.as_ref())),
            owner: self.owner(owners, mirror, restarts),
            labels: self.label_set(pod.metadata.labels.as_ref()),
            safe_to_evict: match annotations.and_then(|a| a.safe_to_evict.as_deref()) {
                Some("true") => Some(true),
                // It runs to its end first (cluster-autoscaler's FAQ, from 1.36 on).
                Some("false" | "on-completion") => Some(false),
                _ => None,
            },
            do_not_disrupt: annotations
                .and_then(|a| do_not_disrupt(a, status.and_then(|s| time(s.start_time.as_ref())))),
            spec: spec.map_or_else(Arc::default, |s| self.pod_spec(pod, s, &mut problems)),
        };
        Converted { object, problems: problems.list }
    }

    fn owner(&mut self, references: &[api::OwnerReference], mirror: bool, restarts: bool) -> Owner {
        let controller = references.iter().find(|r| r.controller == Some(true));
        let kind = match controller.map(|c| c.kind.as_str()) {
            _ if mirror => OwnerKind::Mirror,
            None => OwnerKind::None,
            Some("Node") => OwnerKind::Mirror,
            Some("DaemonSet") => OwnerKind::DaemonSet,
            Some("ReplicaSet") => OwnerKind::ReplicaSet,
            Some("StatefulSet") => OwnerKind::StatefulSet,
            Some("Job") => OwnerKind::Job,
            // What runs to an end nobody is known to make anew: a runner, a step of a workflow.
            Some(_) if !restarts => OwnerKind::None,
            Some(_) => OwnerKind::Other,
        };
        Owner { kind, name: self.string(controller.map_or("", |c| &c.name)) }
    }

    fn pod_spec(&mut self, pod: &api::Pod, spec: &api::PodSpec, problems: &mut Problems) -> Arc<PodSpec> {
        let before = problems.list.len();
        let requests = self.requests(pod, spec, problems);
        let unreadable = (problems.list.len() > before).then_some("ResourceRequirements.requests");
        let not_understood =
            spec.unknown().or_else(|| pod.status.unknown()).or(unreadable).or_else(|| unclear_rule(spec));
        let scheduler = spec.scheduler_name.as_deref().unwrap_or_default();
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
            termination_handler: spec.containers.iter().any(|c| c.image.is_termination_handler),
            required_features: self.required_features(spec),
            scheduler: (!matches!(scheduler, "" | "default-scheduler")).then(|| self.string(scheduler)),
            not_understood: not_understood.map(|field| self.string(field)),
            grace_period_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
        };
        self.spec(new)
    }

    /// What the scheduler reserves for a pod.
    ///
    /// Rules: `PodRequests` in staging/src/k8s.io/component-helpers/resource/helpers.go. Init containers run
    /// one after another, next to the sidecars (restartable init containers) started before them; a request
    /// for the pod as a whole replaces the sum of its containers; while a pod is resized in place, as a whole
    /// or by its containers, the larger of what it has and what it asks for counts. What dynamic resource
    /// claims take of a node's CPU and memory is not added up: such a pod counts as more than any node has.
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
        let actual = status.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
        for list in [status.and_then(|s| s.allocated_resources.as_ref()), actual] {
            total = combine(&total, &self.resources(list, Rounding::Up, problems), i64::max);
        }
        let claimed = status.and_then(|s| s.node_allocatable_resource_claim_statuses.as_ref());
        if claimed.is_some_and(|claims| !claims.is_empty()) {
            total.memory = UNREADABLE;
        }
        let overhead = self.resources(spec.overhead.as_ref(), Rounding::Up, problems);
        combine(&total, &overhead, plus)
    }

    /// What the kubelet of its node must declare, sorted.
    ///
    /// Rules: `InferForScheduling` of the features in
    /// staging/src/k8s.io/component-helpers/nodedeclaredfeatures/features.
    fn required_features(&mut self, spec: &api::PodSpec) -> Box<[Arc<str>]> {
        let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let restarts = |rule: &api::ContainerRestartRule| rule.action == "RestartAllContainers";
        let bound =
            |mount: &api::VolumeMount| mount.bind_mount_options.as_ref().is_some_and(|o| !o.is_empty());
        // In the order of their names.
        let needed = [
            containers().any(|c| c.restart_policy_rules.iter().flatten().any(restarts)),
            spec.host_network == Some(true) && spec.host_users == Some(false),
            containers().any(|c| c.volume_mounts.iter().flatten().any(bound)),
        ];
        let wanted = KNOWN_FEATURES.into_iter().zip(needed).filter(|(_, needed)| *needed);
        wanted.map(|(feature, _)| self.string(feature)).collect()
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
}

/// A rule whose value nobody here knows. A toleration that is not understood tolerates nothing, which may
/// leave domains out where taints count for the spread.
fn unclear_rule(spec: &api::PodSpec) -> Option<&'static str> {
    let operator =
        |t: &api::Toleration| !matches!(t.operator.as_deref(), None | Some("" | "Equal" | "Exists"));
    let counts_taints = |c: &api::TopologySpreadConstraint| c.node_taints_policy.as_deref() == Some("Honor");
    let spreads = || spec.topology_spread_constraints.iter().flatten();
    if spreads().any(|c| !matches!(&*c.when_unsatisfiable, "DoNotSchedule" | "ScheduleAnyway")) {
        return Some("TopologySpreadConstraint.whenUnsatisfiable");
    }
    let unclear = spreads().any(counts_taints) && spec.tolerations.iter().flatten().any(operator);
    unclear.then_some("Toleration.operator")
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

/// Until when a pod that started at that time asks to be left alone, by either name of the annotation. The
/// later time counts.
fn do_not_disrupt(annotations: &api::PodAnnotations, started: Option<Timestamp>) -> Option<Timestamp> {
    let wish = annotations.do_not_disrupt.as_deref().filter(|value| *value != "false");
    let of_old = annotations.do_not_evict.as_deref() == Some("true");
    wish.map(|value| not_disrupted_until(value, started)).max(of_old.then_some(Timestamp::MAX))
}

/// Until when such a value asks for it. What is no duration of Go is for ever,
/// as is one that nobody knows the beginning of.
fn not_disrupted_until(value: &str, started: Option<Timestamp>) -> Timestamp {
    let duration = value.parse::<SignedDuration>().ok().filter(|duration| !duration.is_negative());
    let end = started.zip(duration).and_then(|(started, duration)| started.checked_add(duration).ok());
    end.unwrap_or(Timestamp::MAX)
}
