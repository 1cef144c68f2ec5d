//! What the pages tell people to type, from the first line to the removal, on a real API server.
//!
//! Real here: kubectl, Helm, Spot Guard's own commands, and a controller, which is a process in the place of
//! its pods. Simulated: Auto Scaling. What has no place here (aws, docker, and a kubelet that forwards ports)
//! is a stub.

use crate::chart::{helm, labelled, root};
use crate::helpers::{NodeSpec, create_node, wait_for};
use crate::process::binaries;
use crate::product::{self, NAMESPACE, PATIENCE};
use crate::testbed::Testbed;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use spot_guard::clock::Clock;
use spot_guard::sim::nodes::KubeNodes;
use spot_guard::sim::world::{ON_DEMAND, POOL, SPOT};
use spot_guard_cloud::clock::CloudClock;
use spot_guard_cloud::cloud::{BootTimes, Cloud, GroupSpec, Market};
use std::convert::Infallible;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long all of it may take.
const BOUND: Duration = Duration::from_secs(480);

/// Programs that people have and a test has not.
const STUBS: [&str; 4] = ["aws", "docker", "eksctl", "terraform"];

/// What the pages give them, in this order.
const GIVEN: [&str; 11] = [
    "aws sts get-caller-identity --query Account --output text",
    "aws autoscaling create-or-update-tags --tags ResourceId=workers-spot,ResourceType=auto-scaling-group,\
     Key=spotguard.dev/cluster,Value=production,PropagateAtLaunch=false",
    "aws autoscaling create-or-update-tags --tags ResourceId=workers-on-demand,ResourceType=auto-scaling-group,\
     Key=spotguard.dev/cluster,Value=production,PropagateAtLaunch=false",
    "aws eks describe-nodegroup --cluster-name production --nodegroup-name workers-on-demand \
     --query nodegroup.resources.autoScalingGroups[0].name --output text",
    "aws eks create-addon --cluster-name production --addon-name eks-pod-identity-agent",
    "aws iam create-policy --policy-name spot-guard --policy-document file://policy.json",
    "aws iam create-role --role-name spot-guard --assume-role-policy-document { \"Version\": \"2012-10-17\", \
     \"Statement\": [{ \"Effect\": \"Allow\", \"Principal\": {\"Service\": \"pods.eks.amazonaws.com\"}, \
     \"Action\": [\"sts:AssumeRole\", \"sts:TagSession\"] }] }",
    "aws iam attach-role-policy --role-name spot-guard --policy-arn arn:aws:iam::123456789012:policy/spot-guard",
    "aws eks create-pod-identity-association --cluster-name production --namespace spot-guard \
     --service-account spot-guard-controller --role-arn arn:aws:iam::123456789012:role/spot-guard",
    "docker build -f deploy/Dockerfile -t registry.example.com/spot-guard:0.1.0 .",
    "docker push registry.example.com/spot-guard:0.1.0",
];

/// Commands that are among those of the pages, in this order.
const RUN: [&str; 11] = [
    "spot-guard check ",
    "helm install spot-guard ",
    "kubectl wait --for=condition=Ready spotpool/workers ",
    "spot-guard status",
    "spotguard.dev/paused=true",
    "scale deployment spot-guard-controller --replicas 0",
    "helm upgrade spot-guard ",
    "helm rollback spot-guard ",
    "kubectl delete spotpools --all",
    "helm uninstall spot-guard ",
    "kubectl delete crd ",
];

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).expect("a program is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a program");
}

/// Makes the folder that stands first in the PATH. `calls` gets a line for each call of a stub; `api` holds
/// the address of the controller while one runs.
fn add_programs(folder: &Path, helm: &Path, calls: &Path, api: &Path) {
    fs::create_dir(folder).expect("a folder");
    symlink(helm, folder.join("helm")).expect("a link");
    // The second one is the plugin of kubectl.
    for name in ["spot-guard", "kubectl-spot_guard"] {
        symlink(env!("CARGO_BIN_EXE_spot-guard"), folder.join(name)).expect("a link");
    }
    let (calls, api) = (calls.display(), api.display());
    for name in STUBS {
        let text = format!(
            "#!/bin/sh\n{{ printf {name}; printf ' %s' \"$@\"; }} | tr -s '\\n ' ' ' >> '{calls}'\necho >> '{calls}'\n\
             case \"$*\" in sts*) echo 123456789012 ;; esac\n"
        );
        write_program(&folder.join(name), &text);
    }
    // It ends with who has called it, as a forwarded port does.
    let kubectl = binaries().join("kubectl");
    let text = format!(
        "#!/bin/sh\ncase \" $* \" in *' port-forward '*)\n\
         until [ -s '{api}' ] || ! kill -0 \"$PPID\" 2>/dev/null; do sleep 0.1; done\n\
         echo \"Forwarding from $(cat '{api}') -> 8081\"\nexec tail --pid=\"$PPID\" -f /dev/null ;;\nesac\n\
         exec '{}' \"$@\"\n",
        kubectl.display()
    );
    write_program(&folder.join("kubectl"), &text);
}

/// The script, as somebody runs it in a clone of the repository, with nothing of the test's environment.
fn script(testbed: &Testbed, programs: &Path, helm: &Command, aws: &str, node: &str) -> Command {
    // What it writes goes here, and not into the repository.
    let clone = testbed.dir().join("clone");
    fs::create_dir(&clone).expect("a folder");
    symlink(root().join("deploy"), clone.join("deploy")).expect("a link");
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = [programs.to_owned()].into_iter().chain(std::env::split_paths(&inherited));
    let mut script = Command::new(root().join("docs/getting-started"));
    script.env_clear().envs(helm.get_envs().filter_map(|(name, value)| Some((name, value?))));
    script.env("PATH", std::env::join_paths(path).expect("a PATH")).env("HOME", testbed.dir());
    script
        .env("KUBECONFIG", testbed.kubeconfig())
        .env("NODE", node)
        .env("NAME", POOL)
        .env("CONTEXT", "admin");
    script.envs([
        ("AWS_ENDPOINT_URL_AUTO_SCALING", aws),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    let log = |name: &str| File::create(testbed.dir().join(name)).expect("a log");
    script.stdin(Stdio::null()).stdout(log(TOLD)).stderr(log(COMPLAINED)).current_dir(clone);
    script
}

/// What the script printed.
const TOLD: &str = "getting-started.log";
/// What it printed as errors.
const COMPLAINED: &str = "getting-started-errors.log";

/// The script with all that it has started, which ends with this value.
struct Group(libc::pid_t);

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: a plain system call; the group is of a process that this test has started.
        unsafe { libc::kill(-self.0, libc::SIGKILL) };
    }
}

/// Runs it to its end.
async fn run(mut script: Command) -> ExitStatus {
    script.process_group(0);
    let mut child = tokio::process::Command::from(script).spawn().expect("the script starts");
    let group = Group(libc::pid_t::try_from(child.id().expect("it runs")).expect("a process id"));
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("it ends in time");
    // Its number may be somebody else's from now on.
    std::mem::forget(group);
    status.expect("it can be waited for")
}

/// Runs a controller whenever the Deployment has pods, for nothing runs in those here. `api` says where it
/// answers.
async fn work_in_the_place_of_pods(testbed: &Testbed, aws: &str, api: &Path) -> Infallible {
    let pods: Api<Pod> = Api::namespaced(testbed.client(), NAMESPACE);
    let controllers = ListParams::default().labels("app.kubernetes.io/component=controller");
    let run = async || -> Option<bool> {
        let found = pods.list(&controllers).await.ok()?.items;
        let runs = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
        };
        Some(found.iter().any(runs))
    };
    let mut number = 0;
    loop {
        wait_for("pods of the controller", BOUND, async || run().await.filter(|runs| *runs)).await;
        number += 1;
        let mut controller = product::start_controller(testbed, &format!("controller-{number}"), aws).await;
        controller.becomes_ready().await;
        fs::write(api, controller.address.to_string()).expect("the address is written");
        wait_for("no pods of the controller", BOUND, async || run().await.filter(|runs| !*runs)).await;
        fs::remove_file(api).expect("the address is removed");
        println!("controller {number} ended: {}", controller.process.terminate().await);
    }
}

/// A cloud with the groups of the pages, and the name of the one Spot node.
fn groups() -> (Cloud, String) {
    let cloud = Cloud::new(CloudClock::System, 1);
    for (name, market, desired) in [(SPOT, Market::Spot, 1), (ON_DEMAND, Market::OnDemand, 0)] {
        let second = Duration::from_secs(1);
        let boot = BootTimes { launch: second, node_join: second, node_ready: second };
        cloud.add_group(GroupSpec { desired, boot, ..GroupSpec::new(name, market) });
    }
    let node = cloud.group(SPOT).expect("the group").instances[0].node_name.clone();
    (cloud, node)
}

#[actix::test]
async fn the_pages_can_be_followed_from_the_first_line_to_the_removal() {
    let testbed = Testbed::start("getting-started").await;
    let (cloud, node) = groups();
    let hosts = KubeNodes::new(testbed.client(), Arc::new(drop), Clock::System);
    let running = actix::spawn(cloud.clone().run(Arc::new(hosts)));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let autoscaling = cloud.serve_autoscaling(listener).expect("the cloud answers");
    for (name, zone, provider_id) in [
        ("system-a", "us-east-1a", "aws:///us-east-1a/i-0000000a"),
        ("system-b", "us-east-1b", "aws:///us-east-1b/i-0000000b"),
    ] {
        create_node(&testbed.client(), &NodeSpec { name, zone, provider_id, ..NodeSpec::default() }).await;
    }
    let nodes: Api<Node> = Api::all(testbed.client());
    wait_for("the Spot node", PATIENCE, async || nodes.get(&node).await.ok().map(drop)).await;

    let [programs, calls, api] = ["programs", "calls", "api"].map(|name| testbed.dir().join(name));
    let helm = helm(testbed.dir());
    add_programs(&programs, Path::new(helm.get_program()), &calls, &api);
    let aws = autoscaling.url();
    let status = tokio::select! {
        status = run(script(&testbed, &programs, &helm, &aws, &node)) => status,
        never = work_in_the_place_of_pods(&testbed, &aws, &api) => match never {},
    };
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let [told, complained] = [TOLD, COMPLAINED].map(|name| read(&testbed.dir().join(name)));
    assert!(status.success(), "{status}\n{told}\n{complained}");
    assert!(!product::warns(&complained), "{complained}");
    let mut rest = told.as_str();
    for command in RUN {
        let at = rest.split_once(command);
        rest = at.unwrap_or_else(|| panic!("{command:?} is not run, or not in its turn: {told}")).1;
    }
    assert_eq!(read(&calls).lines().collect::<Vec<_>>(), GIVEN);
    let policy = read(&testbed.dir().join("clone/policy.json"));
    assert!(policy.contains("\"production\"") && !policy.contains("CLUSTER_NAME"), "{policy}");
    wait_for("everything to be gone", PATIENCE, async || labelled(&testbed).is_empty().then_some(())).await;
    running.abort();
    autoscaling.stop().await;
}
