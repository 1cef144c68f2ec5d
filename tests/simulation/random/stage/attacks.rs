//! Lets attackers act in a random story, and says what they must not have achieved.

use super::Stage;
use crate::random::attacks::{Act, Lie, Poison};
use crate::random::faults::Blindness;
use jiff::Timestamp;
use serde_json::{Value, json};
use spot_guard::crd::NodeReplacement;
use spot_guard::crd::notice_name;
use spot_guard_cloud::cloud::{InstanceSnapshot, LifecycleState};
use spot_guard_cloud::cluster::{Cluster, Identity};
use spot_guard_core::record::NoticeKind;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The API server takes it, as Go reads it; our types cannot hold it.
const UNREADABLE_TIME: &str = "9999-12-31T23:59:59Z";
const NOTICES: &str = "interruptionnotices.spotguard.dev";
const RECORDS: &str = "nodereplacements.spotguard.dev";
/// So many notices are a flood.
const FLOOD: u64 = 50;
/// The instances of a flood have ids that begin so: none of the cloud's does.
const NO_INSTANCE: &str = "i-f100d";

/// The node and the instance that a notice speaks of.
struct Subject {
    node: String,
    instance: String,
}

impl Subject {
    fn of(instance: &InstanceSnapshot) -> Self {
        Self { node: instance.node_name.clone(), instance: instance.id.clone() }
    }
}

fn managed_fields() -> Value {
    json!([{ "manager": "somebody", "operation": "Update", "apiVersion": "v1", "time": UNREADABLE_TIME,
        "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": {} } }])
}

fn agent_of(node: &str) -> Identity {
    Identity::service_account("spot-guard", "spot-guard-agent").on_node(node)
}

/// The nodes of open stories, old and new.
fn nodes_in_stories(cluster: &Cluster) -> Vec<String> {
    let records = cluster.list::<NodeReplacement>();
    let open = records.into_iter().filter_map(|record| {
        let status = record.status.filter(|status| !status.phase.is_finished())?;
        let new = status.capacity.taken().map(|capacity| capacity.node_name.to_string());
        Some([Some(record.spec.node_name.to_string()), new])
    });
    open.flatten().flatten().filter(|node| cluster.get_json("nodes", "", node).is_some()).collect()
}

impl Stage<'_> {
    /// Lets it happen; what takes time happens beside the story.
    pub(super) fn attack(&mut self, act: &Act) -> Option<JoinHandle<()>> {
        match *act {
            Act::Poisoned(poison, number, seconds) => {
                let (resource, namespace, name) = self.poison(poison, number)?;
                self.say(format!("poisoned: {resource} {namespace}/{name}"));
                seconds.map(|seconds| {
                    self.cured(poison, resource, namespace, name, Duration::from_secs(seconds))
                })
            }
            Act::Lied(lie, own, other) => {
                self.tell_a_lie(lie, own, other);
                None
            }
            Act::Squatted(own, other) => {
                self.squat(own, other);
                None
            }
            Act::Blinded(resource, how, seconds, number) => {
                Some(self.blind(resource, how, Duration::from_secs(seconds), number))
            }
            Act::Flooded(own) => {
                self.flood(own);
                None
            }
        }
    }

    /// A Spot instance whose node is there, by number.
    fn reporter(&self, number: usize) -> Option<InstanceSnapshot> {
        let groups = self.cloud.snapshot().groups;
        let is_spot = |name: &String| self.plot.pools.iter().any(|pool| pool.start.spot() == *name);
        let spot = groups.into_iter().filter(|group| is_spot(&group.name));
        let all: Vec<InstanceSnapshot> = spot
            .flat_map(|group| group.instances)
            .filter(|held| held.machine_runs && self.cluster.get_json("nodes", "", &held.node_name).is_some())
            .collect();
        let count = all.len();
        all.into_iter().nth(number % count.max(1))
    }

    fn poison(&self, poison: Poison, number: usize) -> Option<(&'static str, String, String)> {
        match poison {
            Poison::Managed(resource) => {
                if resource == "persistentvolumeclaims" {
                    let _ = self.cluster.create_json(json!({
                        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                        "metadata": { "name": "data", "namespace": "default" },
                        "spec": { "accessModes": ["ReadWriteOnce"] },
                    }));
                }
                self.edit_one(resource, number, |object| {
                    object["metadata"]["managedFields"] = managed_fields();
                })
            }
            Poison::Started => self.edit_one("pods", number, |pod| {
                pod["status"]["startTime"] = json!(UNREADABLE_TIME);
            }),
            Poison::Notice => {
                let own = self.reporter(number)?;
                let instance = format!("i-{:017x}", self.happened.len());
                let kind = NoticeKind::RebalanceRecommendation;
                let name = notice_name(&own.node_name.as_str().into(), &instance.as_str().into(), kind);
                let mut notice = self.notice(&name, &own.node_name, &instance, kind, None);
                notice["spec"]["detectedAt"] = json!(UNREADABLE_TIME);
                let _ = self.cluster.create_json_as(notice, &agent_of(&own.node_name));
                Some((NOTICES, String::new(), name))
            }
            Poison::SpotAction => {
                let name = format!("unreadable-{}", self.happened.len());
                let _ = self.cluster.create_json(json!({
                    "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotAction",
                    "metadata": { "name": name },
                    "spec": { "action": "Resume" },
                    "status": { "conditions": [{ "type": "Accepted", "status": "False", "reason": "None",
                        "message": "", "lastTransitionTime": UNREADABLE_TIME }] },
                }));
                Some(("spotactions.spotguard.dev", String::new(), name))
            }
            Poison::Record => {
                let name = format!("i-{:017x}", self.happened.len());
                let _ = self.cluster.create_json(json!({
                    "apiVersion": "spotguard.dev/v1alpha1", "kind": "NodeReplacement",
                    "metadata": { "name": name },
                    "spec": { "pool": "workers", "nodeName": "no-node", "instanceId": name },
                    "status": { "phase": "Requested", "startedAt": UNREADABLE_TIME },
                }));
                Some((RECORDS, String::new(), name))
            }
        }
    }

    /// Changes one of the objects of a resource, if there is any.
    fn edit_one(
        &self,
        resource: &'static str,
        number: usize,
        change: impl FnOnce(&mut Value),
    ) -> Option<(&'static str, String, String)> {
        let all = self.cluster.list_json(resource);
        let found = all.get(number % all.len().max(1))?;
        let text = |field: &str| found["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text("namespace"), text("name"));
        self.cluster.edit(resource, &namespace, &name, change);
        Some((resource, namespace, name))
    }

    /// Somebody takes away what cannot be read.
    fn cured(
        &self,
        poison: Poison,
        resource: &'static str,
        namespace: String,
        name: String,
        after: Duration,
    ) -> JoinHandle<()> {
        let cluster = self.cluster.clone();
        actix::spawn(async move {
            sleep(after).await;
            match poison {
                Poison::Managed(_) | Poison::Started => {
                    cluster.edit(resource, &namespace, &name, |object| {
                        for (outer, field) in [("metadata", "managedFields"), ("status", "startTime")] {
                            if let Some(Value::Object(map)) = object.get_mut(outer) {
                                map.remove(field);
                            }
                        }
                    });
                }
                Poison::Notice | Poison::SpotAction | Poison::Record => {
                    cluster.remove(resource, &namespace, &name);
                }
            }
        })
    }

    fn tell_a_lie(&mut self, lie: Lie, own: usize, other: usize) {
        let (Some(own), Some(other)) = (self.reporter(own), self.reporter(other)) else { return };
        let now = self.now();
        let (own, other) = (Subject::of(&own), Subject::of(&other));
        let hours = |count: i64| Some(now + jiff::SignedDuration::from_hours(count));
        let (node, instance, deadline) = match lie {
            Lie::Foreign if own.node == other.node => return,
            Lie::Foreign => (own.node, other.instance, Some(now + Duration::from_secs(120))),
            Lie::FromTheGrave => {
                let gone = "ip-10-255-255-254.ec2.internal".to_owned();
                (gone, other.instance, Some(now - Duration::from_secs(60)))
            }
            Lie::FarOff => (own.node, own.instance, Some("9998-12-31T23:59:59Z".parse().expect("a time"))),
            Lie::LongOver => (own.node, own.instance, hours(-1)),
            Lie::Tomorrow => (own.node, own.instance, hours(24)),
        };
        self.say(format!("{node} says of {instance}: deadline {deadline:?}"));
        self.tell(&node, &instance, NoticeKind::SpotInterruption, deadline);
    }

    /// Creates a notice with the token of the agent of `node`.
    fn tell(&self, node: &str, instance: &str, kind: NoticeKind, deadline: Option<Timestamp>) {
        let name = notice_name(&node.into(), &instance.into(), kind);
        let notice = self.notice(&name, node, instance, kind, deadline);
        // A name that is taken refuses it.
        let _ = self.cluster.create_json_as(notice, &agent_of(node));
    }

    fn squat(&mut self, own: usize, other: usize) {
        let (Some(own), Some(other)) = (self.reporter(own), self.reporter(other)) else { return };
        if own.id == other.id {
            return;
        }
        let kind = NoticeKind::RebalanceRecommendation;
        let name = notice_name(&other.node_name.as_str().into(), &other.id.as_str().into(), kind);
        // Under its own node, and with the other one's.
        for node in [&own.node_name, &other.node_name] {
            let notice = self.notice(&name, node, &own.id, kind, None);
            if self.cluster.create_json_as(notice, &agent_of(&own.node_name)).is_ok() {
                let found = format!("a squatter was let in: {} holds {name}", own.node_name);
                self.admitted.push(found);
            }
        }
    }

    fn flood(&self, own: usize) {
        let Some(own) = self.reporter(own) else { return };
        for number in 0..FLOOD {
            let instance = format!("{NO_INSTANCE}{:012x}", number + 1000 * self.happened.len() as u64);
            self.tell(&own.node_name, &instance, NoticeKind::RebalanceRecommendation, None);
        }
    }

    /// A kind can neither be watched nor listed; meanwhile the pods of a node are replaced, and more come.
    fn blind(
        &self,
        resource: &'static str,
        how: Blindness,
        duration: Duration,
        number: usize,
    ) -> JoinHandle<()> {
        self.faults.blind(resource, how, duration);
        // What a mark is judged by (`Step::Undo`).
        if matches!(resource, "nodes" | "nodereplacements" | "spotpools") {
            self.auditor.note_blindness(duration);
        }
        let cluster = self.cluster.clone();
        let app = self.plot.apps[number % self.plot.apps.len()].clone();
        let node = self.reporter(number).map(|held| held.node_name);
        actix::spawn(async move {
            let scale = |replicas: u32| {
                cluster.edit("deployments.apps", "default", &app.name, |deployment| {
                    deployment["spec"]["replicas"] = json!(replicas);
                });
                cluster.settle();
            };
            for round in 0..4_usize {
                sleep(duration / 5).await;
                let moving = nodes_in_stories(&cluster);
                let target = moving.get((number + round) % moving.len().max(1)).or(node.as_ref());
                for pod in target.into_iter().flat_map(|node| cluster.movable_pods_on(node)) {
                    cluster.delete_pod(&pod.namespace, &pod.name);
                }
                scale(app.replicas + 1 + u32::from(round == 2));
            }
            sleep(duration / 5).await;
            scale(app.replicas);
        })
    }

    /// Whether the instance is in the Spot group of a managed node group.
    fn replaces_by_itself(&self, id: &str) -> bool {
        let managed = self.plot.pools.iter().filter(|pool| pool.start.managed);
        let groups = managed.filter_map(|pool| self.cloud.group(&pool.start.spot()));
        groups.flat_map(|group| group.instances).any(|held| held.id == id)
    }

    /// What attackers have achieved and must not, as far as it can be told before the end.
    pub(super) fn harm(&self) -> Vec<String> {
        let mut found = self.admitted.clone();
        let (instances, mut refused) = (self.instances(), 0);
        for notice in self.cluster.list_json(NOTICES) {
            let text = |field: &str| notice["spec"][field].as_str().unwrap_or_default().to_owned();
            let (node, id) = (text("nodeName"), text("instanceId"));
            refused += usize::from(id.starts_with(NO_INSTANCE));
            let serves = instances.iter().any(|held| {
                held.id == id
                    && held.node_name == node
                    && held.state == LifecycleState::InService
                    && held.machine_runs
            });
            // A group that replaces by itself does so on advice, too. What EC2 never gives is no deadline.
            let at = |field| text(field).parse::<Timestamp>().ok();
            let left = at("deadline").zip(at("detectedAt")).map(|(deadline, told)| deadline - told);
            let is_given = left.is_some_and(|left| (0..=600).contains(&left.get_seconds()));
            if self.replaces_by_itself(&id) && !is_given {
                continue;
            }
            let has_node = self.cluster.get_json("nodes", "", &node).is_some();
            let has_record = self.cluster.get_json(RECORDS, "", &id).is_some();
            if serves && has_node && !has_record {
                found.push(format!("a story is lost: {node} was reported, and nothing came of it"));
            }
        }
        if refused > 0 {
            found.push(format!("refused notices are left: {refused}"));
        }
        found
    }
}
