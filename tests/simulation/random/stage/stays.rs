//! Pods that stay: those that nothing makes anew, those whose budget never opens, and those that are spread
//! over the zones and would rather wait than lean to one.

use super::{Place, Stage};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use spot_guard::crd::NodeReplacement;
use spot_guard_cloud::cluster::{Cluster, Deployment};
use spot_guard_core::reason::ReasonCode;
use spot_guard_core::record::FlowBox;
use std::collections::BTreeSet;

/// How the names of runners begin.
const RUNNER: &str = "runner-";
/// The application whose budget never opens.
const LONE: &str = "lone";
/// By it a pod asks to stay (Karpenter, "Disruption").
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

/// The replacements that waited for what stays, by name.
#[derive(Default)]
pub struct Waits {
    /// For pods that ask to stay, or that nothing makes anew.
    pub for_pods: BTreeSet<String>,
    /// For a budget that never opens, before anything was requested.
    pub by_budgets: BTreeSet<String>,
}

impl Waits {
    /// Takes in what the records say now.
    pub fn look(&mut self, cluster: &Cluster) {
        for record in cluster.list::<NodeReplacement>() {
            let name = record.metadata.name.unwrap_or_default();
            for held in record.status.unwrap_or_default().blocking {
                match (held.flow_box, held.reason) {
                    (_, ReasonCode::PodUnmanaged | ReasonCode::NotSafeToEvict | ReasonCode::DoNotDisrupt) => {
                        self.for_pods.insert(name.clone());
                    }
                    (FlowBox::Notice, ReasonCode::BudgetExhausted) => {
                        self.by_budgets.insert(name.clone());
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Stage<'_> {
    /// A bare pod on the node of an instance, if it has joined.
    pub fn run_on(&mut self, place: Place, number: usize) {
        let Some(instance) = self.instance(place, number) else { return };
        let node = self.cluster.get_json("nodes", "", &instance.node_name);
        // The scheduler binds none to a node that is cordoned.
        if node.is_none_or(|node| node["spec"]["unschedulable"] == true) {
            return;
        }
        self.say(format!("a runner begins on {}", instance.node_name));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "default", "name": format!("{RUNNER}{}", self.happened.len()) },
            "spec": {
                "nodeName": instance.node_name, "containers": [{ "name": "main", "image": "runner:1" }],
            },
        });
        self.cluster.create_json(pod).expect("a pod");
    }
}

/// So many pods that are spread over the zones.
pub fn spread(cluster: &Cluster, pods: u32) {
    if pods == 0 {
        return;
    }
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "spread" } },
    });
    let options = Deployment {
        pod_spec: Some(json!({ "topologySpreadConstraints": [constraint] })),
        ..Deployment::default()
    };
    cluster.add_deployment("spread", pods.into(), 200, 256 << 20, options).expect("a deployment");
    cluster.add_pdb("spread", &[("app", "spread")], None, Some(json!(1))).expect("a budget");
    cluster.settle();
}

/// The spread pods are no longer wanted. A pod that fits in one zone alone holds a return for as long as Spot
/// has no node there.
pub fn spread_ends(cluster: &Cluster) {
    let found = cluster.get_json("deployments.apps", "default", "spread");
    if found.is_some_and(|set| set["spec"]["replicas"] != 0) {
        cluster.edit("deployments.apps", "default", "spread", |set| set["spec"]["replicas"] = json!(0));
        cluster.settle();
    }
}

/// One pod, and a budget that wants one to be there.
pub fn never_opens(cluster: &Cluster) {
    if cluster.get_json("poddisruptionbudgets.policy", "default", LONE).is_some() {
        return;
    }
    cluster.add_deployment(LONE, 1, 100, 1 << 20, Deployment::default()).expect("a deployment");
    cluster.add_pdb(LONE, &[("app", LONE)], Some(json!(1)), None).expect("a budget");
}

/// Their owners let the lone pod and those that asked to stay go after all, and the runners have done their
/// work: such pods hold a return for as long as they run.
pub fn opens(cluster: &Cluster) {
    for pod in cluster.list::<Pod>() {
        let name = pod.metadata.name.unwrap_or_default();
        if name.starts_with(RUNNER) {
            cluster.delete_pod("default", &name);
        } else if pod.metadata.annotations.is_some_and(|held| held.contains_key(DO_NOT_DISRUPT)) {
            cluster.edit("pods", "default", &name, |pod| {
                pod["metadata"]["annotations"] = json!({});
            });
        }
    }
    if cluster.get_json("poddisruptionbudgets.policy", "default", LONE).is_some() {
        cluster.edit("poddisruptionbudgets.policy", "default", LONE, |budget| {
            budget["spec"]["minAvailable"] = json!(0);
        });
    }
}
