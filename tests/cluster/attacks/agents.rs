//! A pool on a real API server, and what agents say of its nodes.
//!
//! The tokens of agents are bound to pods. The API server tells the policies of the node of such a token as
//! `authentication.kubernetes.io/node-name`; here it is told so by impersonation, which ends in the same
//! place, and goes on after the pod is gone, as a token does for a while. `crate::agent` shows real tokens.

use crate::helpers::wait_for;
use crate::product::{self, AGENT, NAMESPACE, PATIENCE, Service};
use crate::testbed::{Options, Testbed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, SpotPool, SpotPoolSpec, notice_name};
use spot_guard::sim::nodes::KubeNodes;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, InstanceSnapshot, Market, Served};
use spot_guard_core::record::NoticeKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// A notice, whatever it says.
pub fn says(name: &str, node: &str, instance: &str, kind: NoticeKind, deadline: Option<Timestamp>) -> Value {
    json!({
        "apiVersion": "spotguard.dev/v1alpha1",
        "kind": "InterruptionNotice",
        "metadata": { "name": name },
        "spec": { "nodeName": node, "instanceId": instance, "kind": kind, "deadline": deadline,
            "detectedAt": CloudClock::System.now() },
    })
}

/// Who speaks as the agents of any node.
#[derive(Clone)]
pub struct Agents {
    client: Client,
    user: String,
    server: String,
    kubeconfig: std::path::PathBuf,
}

impl Agents {
    /// The agents that are installed in that namespace.
    pub fn of(testbed: &Testbed, namespace: &str) -> Self {
        Self {
            client: testbed.client(),
            user: format!("system:serviceaccount:{namespace}:{AGENT}"),
            server: testbed.api_url(),
            kubeconfig: testbed.kubeconfig().to_owned(),
        }
    }

    /// Stores what the agent of `node` says; the status of the answer.
    pub async fn post(&self, node: &str, notice: &Value) -> u16 {
        let request = http::Request::post(PATH)
            .header("content-type", "application/json")
            .header("impersonate-user", &self.user)
            .header("impersonate-group", "system:serviceaccounts")
            .header("impersonate-group", "system:authenticated")
            .header("impersonate-extra-authentication.kubernetes.io%2fnode-name", node);
        answer(&self.client, request.body(notice.to_string().into_bytes()).expect("a request")).await
    }

    /// The same with every right, and no node.
    pub async fn post_as_admin(&self, notice: &Value) -> u16 {
        post_plainly(&self.client, notice).await
    }

    /// The same with this token.
    pub async fn post_with(&self, token: &str, notice: &Value) -> u16 {
        let mut file = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        for user in file.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
            user.token = Some(token.to_owned().into());
        }
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let mut config = config.expect("a configuration");
        config.cluster_url = self.server.parse().expect("an address");
        config.proxy_url = None;
        post_plainly(&Client::try_from(config).expect("a client"), notice).await
    }

    /// Waits until the policy holds: it takes a moment to take effect.
    pub async fn are_bound(&self) {
        let kind = NoticeKind::RebalanceRecommendation;
        let name = notice_name(&"nobody".into(), &"i-00000000".into(), kind);
        let foreign = says(&name, "nobody", "i-00000000", kind, None);
        wait_for("the policy", PATIENCE, async || match self.post("somebody", &foreign).await {
            403 => Some(()),
            _ => {
                let notices: Api<InterruptionNotice> = Api::all(self.client.clone());
                let _ = notices.delete(&name, &Default::default()).await;
                None
            }
        })
        .await;
    }
}

const PATH: &str = "/apis/spotguard.dev/v1alpha1/interruptionnotices";

async fn post_plainly(client: &Client, notice: &Value) -> u16 {
    let request = http::Request::post(PATH).header("content-type", "application/json");
    answer(client, request.body(notice.to_string().into_bytes()).expect("a request")).await
}

async fn answer(client: &Client, request: http::Request<Vec<u8>>) -> u16 {
    match client.request::<Value>(request).await {
        Ok(_) => 201,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("no answer: {error}"),
    }
}

/// A pool of nodes, and the controller that looks after it.
pub struct Site {
    pub controller: Service,
    pub agents: Agents,
    pub cloud: Cloud,
    /// Of the Spot group.
    pub instances: Vec<InstanceSnapshot>,
    autoscaling: Served,
    running: tokio::task::JoinHandle<()>,
    pub testbed: Testbed,
}

impl Site {
    /// With so many Spot nodes.
    pub async fn set_up(name: &str, nodes: u32) -> Self {
        let options = Options { pod_ready_delay: Duration::ZERO, ..Options::default() };
        let testbed = Testbed::start_with(name, options).await;
        product::install(&testbed).await;
        let cloud = Cloud::new(CloudClock::System, 1);
        let hosts = KubeNodes::new(testbed.client(), Arc::new(drop), Clock::System);
        let running = actix::spawn(cloud.clone().run(Arc::new(hosts)));
        let second = Duration::from_secs(1);
        let boot = BootTimes { launch: second, node_join: second, node_ready: second };
        // The last one is in no pool.
        let groups =
            [("spot", Market::Spot, nodes), ("on-demand", Market::OnDemand, 0), ("others", Market::Spot, 1)];
        for (group, market, desired) in groups {
            let zones = vec!["us-east-1a".to_owned()];
            cloud.add_group(GroupSpec { zones, desired, boot, ..GroupSpec::new(group, market) });
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let autoscaling = cloud.serve_autoscaling(listener).expect("the cloud answers");
        let spec = SpotPoolSpec {
            spot_group: "spot".into(),
            on_demand_group: "on-demand".into(),
            ..SpotPoolSpec::default()
        };
        let pools: Api<SpotPool> = Api::all(testbed.client());
        pools.create(&PostParams::default(), &SpotPool::new("workers", spec)).await.expect("a pool");
        let instances = cloud.group("spot").expect("the group").instances;
        let all: Api<Node> = Api::all(testbed.client());
        for instance in &instances {
            wait_for("a node", PATIENCE, async || all.get_opt(&instance.node_name).await.ok().flatten())
                .await;
        }
        let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
        controller.leads().await;
        wait_for("the pool to be read", PATIENCE, async || pools.get("workers").await.ok()?.status?.spot)
            .await;
        let agents = Agents::of(&testbed, NAMESPACE);
        agents.are_bound().await;
        Self { controller, agents, cloud, instances, autoscaling, running, testbed }
    }

    /// Waits until no notice of that node about that instance is left. Nothing is refused by a picture before
    /// it would be known as old, which takes a minute.
    pub async fn removed(&self, node: &str, instance: &str) {
        let notices: Api<InterruptionNotice> = Api::all(self.testbed.client());
        wait_for(&format!("{node}'s notice of {instance} to be removed"), PATIENCE * 2, async || {
            let held = notices.list(&Default::default()).await.ok()?.items;
            let about = |notice: &InterruptionNotice| {
                notice.spec.node_name == node && notice.spec.instance_id == instance
            };
            (!held.iter().any(about)).then_some(())
        })
        .await;
    }

    /// Whether there is a Node of that name.
    pub async fn has_node(&self, name: &str) -> bool {
        let nodes: Api<Node> = Api::all(self.testbed.client());
        nodes.get_opt(name).await.expect("an answer").is_some()
    }

    /// Ends everything, and demands that the controller ends well.
    pub async fn ends_well(self) {
        self.controller.ends_well().await;
        self.autoscaling.stop().await;
        self.running.abort();
    }
}
