//! What a large cluster costs the controller: 5,000 nodes and 150,000 pods, served over HTTP by the simulated
//! API.
//!
//! The controller runs in a process of its own (this program again), so that its memory is its own. How long
//! its mailboxes are blocked is measured as the CPU time of their thread between two turns of a timer: what
//! other processes take does not count.

#![allow(clippy::disallowed_methods, clippy::expect_used, reason = "a measurement may fail")]

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::BodyStream;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use spot_guard::actors::supervision::Shutdown;
use spot_guard::clock::Clock;
use spot_guard::controller::{CALL_TIMEOUT, Controller, ControllerSettings};
use spot_guard::crd::{InterruptionNotice, InterruptionNoticeSpec, SpotPool, SpotPoolSpec, notice_name};
use spot_guard::kube::autoscaler::AutoscalerLease;
use spot_guard::kube::lease::LeaseTimes;
use spot_guard::sim::nodes::KubeNodes;
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, Market};
use spot_guard_cloud::cluster::{Cluster, NodeSpec};
use spot_guard_core::cluster::Snapshot;
use spot_guard_core::ids::NodeName;
use spot_guard_core::policy::Policy;
use spot_guard_core::record::NoticeKind;
use spot_guard_core::safety::{SafetyContext, SafetyPolicy, check_return};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PODS_PER_NODE: usize = 30;
/// The instances of the Spot group; the rest of the cluster is somebody else's.
const SPOT: u32 = 100;
const ON_DEMAND: u32 = 20;
/// How long the controller is left alone, to count its calls.
const QUIET: Duration = Duration::from_secs(65);
/// How long pods change and stories run.
const BUSY: Duration = Duration::from_secs(60);
/// Changes of pods per second meanwhile.
const CHANGES: u64 = 100;

fn main() {
    let role = std::env::var("SCALE_KUBERNETES");
    actix::System::new().block_on(async {
        match role {
            Ok(url) => controller(&url).await,
            Err(_) => {
                // NODES=n measures one size only.
                let one = std::env::var("NODES").ok().map(|text| text.parse().expect("NODES is a number"));
                for nodes in one.map_or(vec![500, 5000], |one| vec![one]) {
                    cluster(nodes).await;
                }
            }
        }
    });
}

/// Builds the cluster, serves it, and watches what the controller does with it.
async fn cluster(nodes: usize) {
    let began = Instant::now();
    let cluster = Cluster::new(Clock::System.into(), 1);
    let cloud = Cloud::new(Clock::System.into(), 1);
    let boot = BootTimes { launch: s(2), node_join: s(1), node_ready: s(1) };
    for (name, market, desired) in [("spot", Market::Spot, SPOT), ("on-demand", Market::OnDemand, ON_DEMAND)]
    {
        cloud.add_group(GroupSpec {
            zones: vec!["us-east-1a".to_owned()],
            min: 0,
            max: 500,
            desired,
            cpu_millis: 4000,
            memory_bytes: 16 << 30,
            boot,
            ..GroupSpec::new(name, market)
        });
    }
    let host = KubeNodes::new(cluster.client(), Arc::new(|_| {}), Clock::System);
    actix::spawn(cloud.clone().run(Arc::new(host)));
    fill(&cluster, nodes).await;
    actix::spawn(cluster.clone().run());
    println!("{nodes} nodes, {} pods: made in {:.0} s", nodes * PODS_PER_NODE, began.elapsed().as_secs_f64());

    let calls = Arc::new(AtomicU64::new(0));
    let kubernetes = serve(&cluster, calls.clone());
    let aws = cloud.serve_autoscaling(TcpListener::bind("127.0.0.1:0").expect("a port")).expect("it serves");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .env("SCALE_KUBERNETES", &kubernetes)
        .env("AWS_ENDPOINT_URL", aws.url())
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AWS_REGION", "us-east-1")
        .stdin(Stdio::null())
        .spawn()
        .expect("the controller starts");

    let records = || cluster.list_json("nodereplacements.spotguard.dev").len();
    let leases = || cluster.list_json("leases.coordination.k8s.io").len();
    while leases() == 0 {
        assert!(child.try_wait().expect("it can be asked for").is_none(), "the controller has ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The first cycle.
    tokio::time::sleep(s(15)).await;
    let before = calls.load(Relaxed);
    tokio::time::sleep(QUIET).await;
    let quiet = calls.load(Relaxed) - before;
    println!("Kubernetes API calls in {} s without a story: {quiet}", QUIET.as_secs());
    let busy = Instant::now();
    let mut count = 0;
    while busy.elapsed() < BUSY {
        if count == 5 * CHANGES {
            give_notices(&cluster).await;
        }
        let name = format!("p{}", fastrand::usize(0..nodes * PODS_PER_NODE));
        cluster.edit("pods", "default", &name, |pod| {
            pod["metadata"]["annotations"]["touched"] = json!(count.to_string())
        });
        count += 1;
        tokio::time::sleep(Duration::from_secs(1) / u32::try_from(CHANGES).expect("small")).await;
    }
    println!("{count} changes of pods, {} stories", records());
    while child.try_wait().expect("it can be asked for").is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    aws.stop().await;
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn give_notices(cluster: &Cluster) {
    let client = cluster.client();
    let api: Api<InterruptionNotice> = Api::all(client);
    let nodes: Vec<k8s_openapi::api::core::v1::Node> = cluster.list();
    let of_pool = nodes.iter().filter_map(|node| {
        let provider = node.spec.as_ref()?.provider_id.as_deref()?;
        let spot = node.metadata.name.as_deref()?;
        node.metadata.labels.as_ref()?.get("spotguard.dev/simulated")?;
        Some((spot.to_owned(), provider.rsplit('/').next()?.to_owned()))
    });
    for (node_name, instance_id) in of_pool.take(20) {
        let name = notice_name(
            &node_name.as_str().into(),
            &instance_id.as_str().into(),
            NoticeKind::RebalanceRecommendation,
        );
        let spec = InterruptionNoticeSpec {
            node_name: node_name.into(),
            instance_id: instance_id.clone().into(),
            kind: NoticeKind::RebalanceRecommendation,
            notice_time: None,
            deadline: None,
            detected_at: Clock::System.now(),
            traceparent: None,
        };
        let notice = InterruptionNotice::new(&name, spec);
        api.create(&PostParams::default(), &notice).await.expect("a notice is taken");
    }
}

/// The nodes that are nobody's, and the pods: of 3,000 templates, some of them with rules, a third with a
/// budget.
async fn fill(cluster: &Cluster, nodes: usize) {
    let spec = SpotPoolSpec {
        spot_group: "spot".into(),
        on_demand_group: "on-demand".into(),
        ..SpotPoolSpec::default()
    };
    let pools: Api<SpotPool> = Api::all(cluster.client());
    pools.create(&PostParams::default(), &SpotPool::new("workers", spec)).await.expect("a pool is taken");
    let own = (SPOT + ON_DEMAND) as usize;
    while cluster.list_json("nodes").len() < own {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for i in own..nodes {
        let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][i % 3];
        let provider = format!("aws:///{zone}/i-{i:017x}");
        cluster.add_node(&NodeSpec::new(&format!("n{i}"), &provider, zone));
    }
    let all: Vec<String> = cluster
        .list_json("nodes")
        .iter()
        .filter_map(|node| Some(node["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    for i in 0..nodes * PODS_PER_NODE {
        let template = (i * 7 + i / nodes) % 3000;
        let mut pod = pod(template, &format!("p{i}"), &all[i % nodes]);
        pod["metadata"]["uid"] = json!(format!("uid-{i}"));
        cluster.create_json(pod).unwrap_or_else(|refusal| panic!("a pod is refused: {refusal}"));
    }
    for template in (0..3000).step_by(3) {
        let app = format!("app{template}");
        let budget = cluster.add_pdb(&app, &[("app", &app)], Some(json!(1)), None);
        budget.unwrap_or_else(|refusal| panic!("a budget is refused: {refusal}"));
    }
}

fn pod(template: usize, name: &str, node: &str) -> Value {
    let app = format!("app{template}");
    let selector = json!({ "matchLabels": { "app": app } });
    let zone = "topology.kubernetes.io/zone";
    let host = "kubernetes.io/hostname";
    let spread = |key| json!([{ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector }]);
    let requests = json!({
        "cpu": format!("{}m", 60 + template % 7 * 12),
        "memory": format!("{}Mi", 256 + template % 5 * 51),
    });
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": { "app": app, "pod-template-hash": "5d4f8c7b9", "app.kubernetes.io/managed-by": "Helm" },
            "annotations": { "prometheus.io/scrape": "true", "prometheus.io/port": "9090" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true }],
            "managedFields": [{ "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                "fieldsType": "FieldsV1", "fieldsV1": { "f:metadata": { "f:labels": { "f:app": {}, "f:pod-template-hash": {} } },
                "f:spec": { "f:containers": {}, "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {} } } }],
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "default", "schedulerName": "default-scheduler",
            "containers": [{ "name": "main", "image": "registry.invalid/app:1", "resources": { "requests": requests },
                "env": [{ "name": "LOG", "value": "info" }, { "name": "MODE", "value": "production" }],
                "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets" }] }],
            "volumes": [{ "name": "token", "projected": { "sources": [] } }],
            "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": conditions,
            "containerStatuses": [{ "name": "main", "ready": true, "restartCount": 0, "image": "registry.invalid/app:1",
                "imageID": "sha256:0123456789abcdef", "containerID": "containerd://0123456789abcdef", "started": true }],
        },
    });
    match template % 10 {
        0 => pod["spec"]["topologySpreadConstraints"] = spread(zone),
        1 => {
            pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!([{ "labelSelector": selector, "topologyKey": host }]);
        }
        3 => pod["spec"]["topologySpreadConstraints"] = spread(host),
        _ => {}
    }
    pod
}

/// Serves the cluster on loopback, watches included, and counts the requests. Returns where.
fn serve(cluster: &Cluster, calls: Arc<AtomicU64>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let cluster = cluster.clone();
    let server = HttpServer::new(move || {
        let (cluster, calls) = (cluster.clone(), calls.clone());
        App::new().app_data(web::PayloadConfig::new(1 << 24)).default_service(web::to(
            move |head: HttpRequest, body: Bytes| {
                let (cluster, calls) = (cluster.clone(), calls.clone());
                async move {
                    calls.fetch_add(1, Relaxed);
                    let builder =
                        http::Request::builder().method(head.method().as_str()).uri(head.uri().to_string());
                    let headers = head.headers().iter();
                    let request = headers
                        .fold(builder, |builder, (name, value)| {
                            builder.header(name.as_str(), value.as_bytes())
                        })
                        .body(body)
                        .expect("what was a request is one");
                    let (parts, body) = cluster.handle(request).await.into_parts();
                    let status =
                        actix_web::http::StatusCode::from_u16(parts.status.as_u16()).expect("a status");
                    let frames = BodyStream::new(body).map(|frame| {
                        frame
                            .map(|frame| frame.into_data().unwrap_or_default())
                            .map_err(std::io::Error::other)
                    });
                    HttpResponse::build(status).content_type("application/json").streaming(frames)
                }
            },
        ))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)
    .expect("it listens")
    .run();
    actix::spawn(server);
    url
}

/// The controller in a process of its own.
async fn controller(url: &str) {
    let mut config = kube::Config::new(url.parse().expect("a URL"));
    config.default_retry = false;
    let client = kube::Client::try_from(config).expect("a client");
    let aws = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let settings = ControllerSettings {
        queue_url: None,
        namespace: "default".to_owned(),
        lease: "spot-guard".to_owned(),
        identity: "bench".to_owned(),
        times: LeaseTimes { duration: s(15), renew: s(5), call_timeout: CALL_TIMEOUT },
        autoscaler_lease: AutoscalerLease::default(),
        taint_key: spot_guard::config::DEFAULT_TAINT_KEY.to_owned(),
        notifications: Vec::new(),
        defaults: Policy::default(),
        drain_outside_pools: false,
    };
    let began = Instant::now();
    let controller = Controller::new(settings, client, &aws, Clock::System);
    let view = controller.view.clone();
    view.synced().await;
    println!(
        "all watches listed after {:.1} s; memory {} MB, {} MB at the most",
        began.elapsed().as_secs_f64(),
        memory("VmRSS"),
        memory("VmHWM")
    );
    let snapshot = view.snapshot();
    checks(&snapshot);
    let copy = Instant::now();
    let copied = Snapshot::clone(&snapshot);
    println!("copy of the snapshot, if it changes while in use: {:.1} ms", ms(copy.elapsed()));
    drop((snapshot, copied));

    let end = Shutdown::new();
    let blocked = Arc::new(AtomicU64::new(0));
    actix::spawn(heartbeat(blocked.clone()));
    let running = actix::spawn(controller.run(end.clone()));
    tokio::time::sleep(s(15)).await;
    blocked.store(0, Relaxed);
    tokio::time::sleep(QUIET).await;
    let told = |what: &str| {
        let longest = Duration::from_nanos(blocked.swap(0, Relaxed));
        println!(
            "{what}: mailboxes blocked for {:.1} ms at the most, memory {} MB",
            ms(longest),
            memory("VmRSS")
        );
    };
    told("without a story");
    tokio::time::sleep(BUSY).await;
    told("pods changing, 20 stories");
    end.trigger();
    running.await.expect("the controller ends");
    println!("memory {} MB at the most", memory("VmHWM"));
}

/// One safety check, and the assessment of 20 fallback nodes, none of which may be counted on for the others.
fn checks(snapshot: &Snapshot) {
    let names: Vec<NodeName> = snapshot.nodes().iter().map(|node| node.name.clone()).collect();
    let policy = SafetyPolicy::default();
    let some = names.iter().step_by(names.len() / 20).take(20).cloned().collect::<Vec<_>>();
    let context = SafetyContext {
        excluded: some.iter().cloned().collect(),
        pool_nodes: names.iter().cloned().collect(),
        ..SafetyContext::default()
    };
    let (mut slowest, mut slowest_cpu, mut safe) = (Duration::ZERO, 0, 0);
    let (began, began_cpu) = (Instant::now(), cpu_time());
    for node in &some {
        let (one, one_cpu) = (Instant::now(), cpu_time());
        safe += usize::from(check_return(node, snapshot, &policy, &context).safe);
        slowest = slowest.max(one.elapsed());
        slowest_cpu = slowest_cpu.max(cpu_time() - one_cpu);
    }
    let cpu = |nanos: u64| ms(Duration::from_nanos(nanos));
    println!(
        "assessment of 20 nodes with {PODS_PER_NODE} pods: {:.1} ms ({:.1} of CPU), the slowest {:.1} ms ({:.1} of \
         CPU); {safe} safe",
        ms(began.elapsed()),
        cpu(cpu_time() - began_cpu),
        ms(slowest),
        cpu(slowest_cpu)
    );
}

/// Notes the most CPU time that this thread spent between two turns of a timer.
async fn heartbeat(longest: Arc<AtomicU64>) {
    loop {
        let before = cpu_time();
        tokio::time::sleep(Duration::from_millis(1)).await;
        longest.fetch_max(cpu_time() - before, Relaxed);
    }
}

/// The CPU time of this thread, in nanoseconds.
fn cpu_time() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a plain system call that fills the struct.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "the clock can be read");
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}

/// A line of this process's status, in MB.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value =
        status.lines().find_map(|l| l.strip_prefix(line)?.split_whitespace().nth(1)?.parse::<u64>().ok());
    value.unwrap_or_default() / 1024
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
