//! What the processes do when the world is not as it should be: an API server that is away, groups that do
//! not exist, a metadata service that answers anything but what it should.

use crate::helpers::wait_for;
use crate::product::{self, CONTROLLER, NAMESPACE, PATIENCE};
use crate::testbed::{Options, Testbed};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use spot_guard::clock::Clock;
use spot_guard::crd::{InterruptionNotice, SpotPool, SpotPoolSpec, notice_name};
use spot_guard::sim::nodes::KubeNodes;
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, ImdsMode, Market, Served};
use spot_guard_core::policy::PolicySpec;
use spot_guard_core::record::NoticeKind;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

fn group(name: &str, market: Market, desired: u32) -> GroupSpec {
    let boot = BootTimes {
        launch: Duration::from_secs(1),
        node_join: Duration::from_secs(1),
        node_ready: Duration::from_secs(1),
    };
    GroupSpec { zones: vec!["us-east-1a".to_owned()], desired, boot, ..GroupSpec::new(name, market) }
}

fn served(cloud: &Cloud) -> Served {
    cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("the cloud answers")
}

#[actix::test]
async fn a_controller_waits_for_the_api_server_and_says_so() {
    let mut testbed = Testbed::start_without_kubelets("api-down").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let autoscaling = served(&cloud);
    let kubeconfig = testbed.kubeconfig_for_service_account(NAMESPACE, CONTROLLER).await;

    testbed.stop_apiserver();
    let mut controller =
        product::start_controller_with(&testbed, "controller", &autoscaling.url(), &kubeconfig);
    let reasons = controller.is_not_ready_because("Connection refused").await;
    for part in ["watch-nodes", "watch-pods", "watch-pools", "watch-notices"] {
        assert!(reasons.contains(part), "{reasons}");
    }
    let health = controller.get("/healthz").await.expect("an answer");
    assert_eq!(health.status, 200, "it waits, and is not restarted for it");

    testbed.start_apiserver().await;
    controller.becomes_ready().await;
    controller.leads().await;

    // The same while it runs.
    testbed.stop_apiserver();
    controller.is_not_ready_because("watch-nodes").await;
    testbed.start_apiserver().await;
    controller.becomes_ready().await;
    controller.leads().await;
    controller.ends_well().await;
    autoscaling.stop().await;
}

#[actix::test]
async fn a_pool_whose_group_is_missing_is_named_until_the_group_appears() {
    let testbed = Testbed::start_without_kubelets("missing-group").await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    cloud.add_group(group("here-spot", Market::Spot, 0));
    cloud.add_group(group("here-on-demand", Market::OnDemand, 0));
    cloud.add_group(group("there-spot", Market::Spot, 0));
    let autoscaling = served(&cloud);
    let mut controller = product::start_controller(&testbed, "controller", &autoscaling.url()).await;
    controller.becomes_ready().await;
    controller.leads().await;

    let pools: Api<SpotPool> = Api::all(testbed.client());
    for (name, monitor_seconds) in [("here", 1), ("there", 3)] {
        let spec = SpotPoolSpec {
            spot_group: format!("{name}-spot").into(),
            on_demand_group: format!("{name}-on-demand").into(),
            policy: PolicySpec { monitor_seconds: Some(monitor_seconds), ..PolicySpec::default() },
            ..SpotPoolSpec::default()
        };
        pools.create(&PostParams::default(), &SpotPool::new(name, spec)).await.expect("a pool");
    }
    let accepted = async |pool: &str, status: &str| {
        wait_for(&format!("pool {pool} to be Accepted={status}"), PATIENCE, async || {
            let status_of_pool = pools.get(pool).await.ok()?.status?;
            let found = status_of_pool.conditions.into_iter().find(|found| found.type_ == "Accepted")?;
            (serde_json::to_value(found.status).ok()? == status).then_some(found.message)
        })
        .await
    };
    let message = accepted("there", "False").await;
    assert!(message.contains("there-on-demand"), "{message}");
    accepted("here", "True").await;
    // A pool that works does not hide one that does not, and a name that is wrong takes no replica away.
    for _ in 0..20 {
        let answer = controller.get("/readyz").await.expect("an answer");
        let told = (answer.body.contains("there-on-demand"), answer.body.contains("here-spot"));
        assert_eq!((answer.status, told), (200, (true, false)), "{}", answer.body);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    cloud.add_group(group("there-on-demand", Market::OnDemand, 0));
    accepted("there", "True").await;
    controller.becomes_ready().await;
    controller.ends_well().await;
    autoscaling.stop().await;
}

#[actix::test]
async fn agents_outlive_a_misbehaving_metadata_service_and_report_once_it_is_right_again() {
    // What the service does, and what the agent says of it.
    let modes = [
        (ImdsMode::Garbage, "unreadable answer"),
        (ImdsMode::Unauthorized, "401"),
        (ImdsMode::Status(500), "500"),
        (ImdsMode::Silent, "no answer"),
        (ImdsMode::Proxy { gives_token: false }, "something else answers in the place of IMDS"),
        (ImdsMode::Proxy { gives_token: true }, "unexpected status 404"),
    ];
    let testbed =
        Testbed::start_with("imds", Options { pod_ready_delay: Duration::ZERO, ..Options::default() }).await;
    product::install(&testbed).await;
    let cloud = Cloud::new(CloudClock::System, 1);
    let nodes = KubeNodes::new(testbed.client(), Arc::new(drop), Clock::System);
    let running = actix::spawn(cloud.clone().run(Arc::new(nodes)));
    cloud.add_group(group("spot", Market::Spot, u32::try_from(modes.len()).expect("a small number")));

    let mut agents = Vec::new();
    let instances = cloud.group("spot").expect("the group").instances;
    for (instance, (mode, says)) in instances.iter().zip(modes) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let imds = cloud.serve_imds(&instance.id, listener).expect("the metadata service answers");
        cloud.set_imds_mode(&instance.id, mode).expect("the instance");
        cloud.rebalance(&instance.id).expect("the instance");
        let is_odd = |letter: char| !letter.is_ascii_alphanumeric();
        let name = format!("agent-{mode:?}").replace(is_odd, "-");
        let agent = product::start_agent_named(&testbed, &name, &instance.node_name, &imds.url()).await;
        agents.push((agent, imds, mode, says));
    }
    for (agent, _, mode, says) in &mut agents {
        let reasons = agent.is_not_ready_because("imds").await;
        assert!(reasons.contains(*says), "{mode:?}: {reasons}");
        println!("{mode:?}: {}", reasons.trim());
    }
    let notices: Api<InterruptionNotice> = Api::all(testbed.client());
    let reported = async || -> BTreeSet<String> {
        let list = notices.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        list.iter().map(ResourceExt::name_any).collect()
    };
    assert_eq!(reported().await, BTreeSet::new(), "nothing can be known yet");

    for instance in &instances {
        cloud.set_imds_mode(&instance.id, ImdsMode::Normal).expect("the instance");
    }
    let expected: BTreeSet<String> = instances
        .iter()
        .map(|instance| {
            notice_name(
                &instance.node_name.as_str().into(),
                &instance.id.as_str().into(),
                NoticeKind::RebalanceRecommendation,
            )
        })
        .collect();
    wait_for("all notices", PATIENCE, async || (reported().await == expected).then_some(())).await;
    for (mut agent, imds, _, _) in agents {
        agent.becomes_ready().await;
        agent.ends_well().await;
        imds.stop().await;
    }
    running.abort();
}
