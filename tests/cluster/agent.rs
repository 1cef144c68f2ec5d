//! The agent of one node: deployed by the manifests, against a real API server and AWS's metadata mock.

use crate::helpers::{NodeSpec, create_node, wait_for};
use crate::imds::ImdsMock;
use crate::product::{self, AGENT, NAMESPACE, PATIENCE};
use crate::testbed::{Options, Testbed};
use aws_config::imds::client::Builder;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use spot_guard::agent;
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, InterruptionNoticeSpec, notice_name};
use spot_guard_core::record::NoticeKind;
use std::path::Path;
use std::time::Duration;

const INSTANCE: &str = "i-0a1b2c3d4e5f60718";
const OTHER_INSTANCE: &str = "i-0a1b2c3d4e5f60719";

/// A cluster with two Spot nodes on which the DaemonSet runs.
async fn cluster(name: &str) -> Testbed {
    let testbed =
        Testbed::start_with(name, Options { pod_ready_delay: Duration::ZERO, ..Options::default() }).await;
    product::install(&testbed).await;
    for (name, id) in [("spot-a", INSTANCE), ("spot-b", OTHER_INSTANCE)] {
        let provider_id = format!("aws:///us-east-1a/{id}");
        create_node(&testbed.client(), &NodeSpec { name, provider_id: &provider_id, ..NodeSpec::default() })
            .await;
    }
    testbed
}

/// The API as the DaemonSet's pod on that node sees it.
async fn client_of_agent(testbed: &Testbed, node: &str) -> Client {
    client(&product::kubeconfig_of_agent(testbed, node).await).await
}

async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a configuration");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

/// A notice about `node` and `instance`, as its agent would send it.
fn notice(node: &str, instance: &str) -> InterruptionNotice {
    InterruptionNotice::new(
        &notice_name(&node.into(), &instance.into(), NoticeKind::RebalanceRecommendation),
        InterruptionNoticeSpec {
            node_name: node.into(),
            instance_id: instance.into(),
            kind: NoticeKind::RebalanceRecommendation,
            notice_time: None,
            deadline: None,
            detected_at: Clock::System.now(),
            traceparent: None,
        },
    )
}

#[track_caller]
fn assert_forbidden<T: std::fmt::Debug>(answer: Result<T, Error>, what: &str) -> String {
    match answer {
        Err(Error::Api(status)) if status.code == 403 => status.message,
        other => panic!("{what} must be forbidden, but the answer is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_create_notices_of_its_own_node_and_nothing_else() {
    let testbed = cluster("agent-rights").await;
    let agent: Api<InterruptionNotice> = Api::all(client_of_agent(&testbed, "spot-a").await);
    let create = PostParams::default();

    // The policy takes a moment to take effect: until then RBAC alone lets this pass.
    let admin: Api<InterruptionNotice> = Api::all(testbed.client());
    wait_for("the policy", PATIENCE, async || {
        match agent.create(&create, &notice("spot-b", OTHER_INSTANCE)).await {
            Err(Error::Api(status)) if status.code == 403 => Some(()),
            _ => {
                let name = notice_name(
                    &"spot-b".into(),
                    &OTHER_INSTANCE.into(),
                    NoticeKind::RebalanceRecommendation,
                );
                let _ = admin.delete(&name, &DeleteParams::default()).await;
                None
            }
        }
    })
    .await;
    let message =
        assert_forbidden(agent.create(&create, &notice("spot-b", OTHER_INSTANCE)).await, "another node");
    assert!(message.contains("spec.nodeName must be the agent's own node spot-a, not spot-b"), "{message}");

    agent.create(&create, &notice("spot-a", INSTANCE)).await.expect("its own node");
    match agent.create(&create, &notice("spot-a", INSTANCE)).await {
        Err(Error::Api(status)) => assert!(status.is_already_exists(), "{status:?}"),
        other => panic!("the notice exists, but the answer is {other:?}"),
    }

    let name = notice_name(&"spot-a".into(), &INSTANCE.into(), NoticeKind::RebalanceRecommendation);
    let patch = Patch::Merge(serde_json::json!({ "metadata": { "labels": { "x": "y" } } }));
    assert_forbidden(agent.get(&name).await, "get");
    assert_forbidden(agent.list(&ListParams::default()).await, "list");
    assert_forbidden(agent.patch(&name, &PatchParams::default(), &patch).await, "patch");
    assert_forbidden(agent.delete(&name, &DeleteParams::default()).await, "delete");

    // A token that is bound to no pod names no node.
    let plain = client(&testbed.kubeconfig_for_service_account(NAMESPACE, AGENT).await).await;
    let plain: Api<InterruptionNotice> = Api::all(plain);
    let message = assert_forbidden(plain.create(&create, &notice("spot-b", OTHER_INSTANCE)).await, "no node");
    assert!(message.contains("the token names no node"), "{message}");

    // Nobody is excepted.
    let message = assert_forbidden(admin.create(&create, &notice("spot-b", OTHER_INSTANCE)).await, "anybody");
    assert!(message.contains("the token names no node"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_and_interruption_of_the_metadata_mock_become_one_notice_each() {
    let mut testbed = cluster("agent-reports").await;
    let client = client_of_agent(&testbed, "spot-a").await;
    let mut imds = ImdsMock::quiet(INSTANCE, "us-east-1a").await;
    let endpoint = imds.endpoint();
    let (handle_sender, handle) = tokio::sync::oneshot::channel();
    let system = std::thread::spawn(move || {
        actix::System::new().block_on(async move {
            let builder = Builder::default().endpoint(endpoint).expect("an address");
            let poll_every = Duration::from_millis(500);
            let agent = agent::start("spot-a", client, builder, Clock::System, poll_every);
            handle_sender.send(agent.clone()).ok();
            agent.shutdown.finished().await;
        });
    });
    let agent = handle.await.expect("the agent starts");
    let notices: Api<InterruptionNotice> = Api::all(testbed.client());
    let stored = async |kind| {
        notices.get_opt(&notice_name(&"spot-a".into(), &INSTANCE.into(), kind)).await.ok().flatten()
    };

    imds.announce_rebalance().await;
    let advice =
        wait_for("the advice", PATIENCE, async || stored(NoticeKind::RebalanceRecommendation).await).await;
    assert_eq!(advice.spec.node_name, "spot-a");
    assert!(advice.spec.notice_time.is_some() && advice.spec.deadline.is_none(), "{:?}", advice.spec);

    // The API server is away when the interruption is announced.
    testbed.stop_apiserver();
    imds.announce_interruption("2026-03-01T12:02:00Z").await;
    wait_for("a failed attempt", PATIENCE, async || agent.readiness.reasons().get("notices").cloned()).await;
    testbed.start_apiserver().await;
    let interruption =
        wait_for("the notice", PATIENCE, async || stored(NoticeKind::SpotInterruption).await).await;
    assert_eq!(interruption.spec.deadline.map(|at| at.to_string()).as_deref(), Some("2026-03-01T12:02:00Z"));
    wait_for("readiness", PATIENCE, async || agent.readiness.reasons().is_empty().then_some(())).await;
    assert_eq!(notices.list(&ListParams::default()).await.expect("a list").items.len(), 2);
    assert_eq!(agent.metrics.notices_reported(NoticeKind::RebalanceRecommendation), 1);

    agent.stop().await;
    system.join().expect("the system ends");
}
