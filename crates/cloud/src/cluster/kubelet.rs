//! The kubelets, the node lifecycle controller and the pod collector.

use super::json::{
    ObjectKey, annotation, condition_true, items, number, seconds, section, set_condition, text,
};
use super::placement::tolerated;
use super::view::{PodView, Taint};
use super::world::{Job, World};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

/// What daemon pods tolerate without being asked.
pub(super) const NODE_DAEMON_TOLERATIONS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

const NOT_READY: &str = "node.kubernetes.io/not-ready";

impl World {
    /// What the kubelet of a pod's node, or the collector of pods without a node, has to do about it.
    pub(super) fn sync_pod(&mut self, key: &ObjectKey) {
        let Some(pod) = self.view.pods.get(key).cloned() else { return };
        if pod.node.is_empty() {
            return;
        }
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        let Some(node) = self.view.nodes.get(&pod.node) else {
            self.arm_in(Job::CollectPod { key, uid }, self.timing.pod_collection);
            return;
        };
        // A kubelet that is not heard of does nothing; it goes on when it is back.
        if !node.ready {
            return;
        }
        if pod.terminating {
            let stop = duration_of(&pod.object, "sim/stop-seconds").unwrap_or(self.timing.pod_stop);
            let due = text(&pod.object, "/metadata/deletionTimestamp")
                .and_then(|at| at.parse::<Timestamp>().ok())
                .unwrap_or(Timestamp::MAX);
            let stopped = self.now().checked_add(stop).unwrap_or(Timestamp::MAX);
            self.disarm(&Job::StartPod { key: key.clone(), uid: uid.clone() });
            self.arm(Job::StopPod { key, uid }, stopped.min(due));
        } else if pod.phase == "Pending" {
            let start = duration_of(&pod.object, "sim/start-seconds").unwrap_or(self.timing.pod_start);
            self.arm_in(Job::StartPod { key, uid }, start);
        }
    }

    /// The pod, if it is still the one that a job was made for and its kubelet is there.
    fn pod_for_job(&self, key: &ObjectKey, uid: &str) -> Option<PodView> {
        let pod = self.view.pods.get(key).filter(|pod| pod.uid == uid)?;
        self.view.nodes.get(&pod.node).filter(|node| node.ready)?;
        Some(pod.clone())
    }

    pub(super) fn start_pod(&mut self, key: &ObjectKey, uid: &str) {
        let Some(pod) = self.pod_for_job(key, uid) else { return };
        if pod.terminating || pod.phase != "Pending" {
            return;
        }
        let now = self.now();
        let ip =
            format!("10.{}.{}.{}", self.random.u8(0..=255), self.random.u8(0..=255), self.random.u8(1..=254));
        self.edit("pods", key, |object| {
            let containers: Vec<Value> = items(object, "/spec/containers")
                .iter()
                .map(|container| {
                    json!({ "name": container["name"], "image": container["image"], "imageID": "",
                        "ready": true, "started": true, "restartCount": 0,
                        "state": { "running": { "startedAt": seconds(now) } } })
                })
                .collect();
            let status = section(object, "status");
            status.insert("phase".to_owned(), json!("Running"));
            status.insert("startTime".to_owned(), json!(seconds(now)));
            status.insert("podIP".to_owned(), json!(ip));
            status.insert("podIPs".to_owned(), json!([{ "ip": ip }]));
            status.insert("containerStatuses".to_owned(), Value::Array(containers));
            for kind in ["Initialized", "ContainersReady", "Ready"] {
                set_condition(object, kind, "True", "", "", now);
            }
        });
    }

    pub(super) fn stop_pod(&mut self, key: &ObjectKey, uid: &str) {
        let Some(pod) = self.pod_for_job(key, uid) else { return };
        if !pod.terminating {
            return;
        }
        if items(&pod.object, "/metadata/finalizers").is_empty() {
            self.remove("pods", key);
        } else {
            let now = self.now();
            self.edit("pods", key, |object| {
                section(object, "metadata").insert("deletionGracePeriodSeconds".to_owned(), json!(0));
                set_condition(object, "Ready", "False", "PodCompleted", "", now);
            });
        }
    }

    /// The node is gone: so is the pod.
    pub(super) fn collect_pod(&mut self, key: &ObjectKey, uid: &str) {
        let orphaned = self
            .view
            .pods
            .get(key)
            .is_some_and(|pod| pod.uid == uid && !self.view.nodes.contains_key(&pod.node));
        if orphaned {
            self.remove("pods", key);
        }
    }

    /// A mirror pod stands for a file on its node: deleting it does not delete the file.
    pub(super) fn remake_mirror(&mut self, mirror: &Value) {
        let mut pod = mirror.clone();
        let metadata = section(&mut pod, "metadata");
        for field in ["resourceVersion", "uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            metadata.remove(field);
        }
        self.create_as_controller("pods", pod);
    }

    /// Taints of a node follow its condition, its pods' readiness follows too, and taints that do not let run
    /// take effect.
    pub(super) fn sync_node(&mut self, name: &str) {
        if !self.view.nodes.contains_key(name) {
            let lost: Vec<PodView> = self.view.pods_on(name).cloned().collect();
            for pod in lost {
                let (key, uid) = (pod.key.clone(), pod.uid.clone());
                self.arm_in(Job::CollectPod { key, uid }, self.timing.pod_collection);
            }
            return;
        }
        let now = self.now();
        self.edit("nodes", &ObjectKey::new("", name), |node| {
            let ready = condition_true(node, "Ready");
            let taints = section(node, "spec").entry("taints").or_insert_with(|| json!([]));
            let Value::Array(list) = taints else { return };
            if ready {
                list.retain(|taint| taint["key"].as_str() != Some(NOT_READY));
            } else if !list.iter().any(|taint| taint["key"].as_str() == Some(NOT_READY)) {
                list.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
                list.push(json!({ "key": NOT_READY, "effect": "NoExecute", "timeAdded": seconds(now) }));
            }
            if list.is_empty() {
                section(node, "spec").remove("taints");
            }
        });
        let Some(node) = self.view.nodes.get(name).cloned() else { return };
        let pods: Vec<PodView> = self.view.pods_on(name).filter(|pod| !pod.finished()).cloned().collect();
        for pod in pods {
            let running = pod.phase == "Running" && !pod.terminating;
            if running && pod.ready != node.ready && (node.ready || pod.ready) {
                self.follow_node(&pod, node.ready);
            }
            self.work.pods.insert(pod.key.clone());
            self.obey_taints(&pod, &node.taints);
        }
    }

    /// A node that is not heard of takes the readiness of its pods along, and brings back what it took.
    fn follow_node(&mut self, pod: &PodView, ready: bool) {
        let by_node = items(&pod.object, "/status/conditions").iter().any(|condition| {
            condition["type"].as_str() == Some("Ready")
                && condition["reason"].as_str() == Some("NodeNotReady")
        });
        if ready && !by_node {
            return;
        }
        let now = self.now();
        self.edit("pods", &pod.key, |object| {
            let (status, reason) = if ready { ("True", "") } else { ("False", "NodeNotReady") };
            set_condition(object, "Ready", status, reason, "", now);
        });
    }

    /// Taints with the effect `NoExecute` delete the pods that do not tolerate them, at once or when their
    /// patience ends.
    fn obey_taints(&mut self, pod: &PodView, taints: &[Taint]) {
        let job = Job::TaintDeletesPod { key: pod.key.clone(), uid: pod.uid.clone() };
        let tolerations = items(&pod.object, "/spec/tolerations");
        let mut due: Option<Timestamp> = None;
        for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
            let matching: Vec<&Value> =
                tolerations.iter().filter(|toleration| tolerated(toleration, taint)).collect();
            let patience =
                matching.iter().filter_map(|toleration| number(toleration, "/tolerationSeconds")).min();
            if !matching.is_empty() && patience.is_none() {
                continue;
            }
            let since = taint.added.as_ref().and_then(|at| at.parse().ok()).unwrap_or_else(|| self.now());
            let until =
                since.checked_add(SignedDuration::from_secs(patience.unwrap_or(0))).unwrap_or(Timestamp::MAX);
            due = Some(due.map_or(until, |earlier| earlier.min(until)));
        }
        match due {
            Some(at) if !pod.terminating => self.arm(job, at),
            _ => self.disarm(&job),
        }
    }

    pub(super) fn delete_for_taint(&mut self, key: &ObjectKey, uid: &str) {
        if self.view.pods.get(key).is_none_or(|pod| pod.uid != uid || pod.terminating) {
            return;
        }
        let now = self.now();
        self.edit("pods", key, |pod| {
            let (reason, message) =
                ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
            set_condition(pod, "DisruptionTarget", "True", reason, message, now);
        });
        self.delete_as_controller("pods", key);
    }
}

/// A number of seconds in an annotation.
fn duration_of(object: &Value, name: &str) -> Option<Duration> {
    let seconds: f64 = annotation(object, name)?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
