//! `spot-guard check`: whether it could do its work, asked before it has to.

mod line;

use crate::actors::deps::PoolConfig;
use crate::aws::advice::{NO_REGION, what_to_do};
use crate::aws::queue::SqsQueue;
use crate::aws::{AutoScaling, Described};
use crate::clock::Clock;
use crate::config::Config;
use crate::crd::{InterruptionNotice, InterruptionNoticeSpec, SpotPool, SpotPoolSpec, notice_name};
use crate::kube::autoscaler::AutoscalerLease;
use crate::kube::problem::RequestProblem;
use crate::telemetry::escape::escaped;
use crate::telemetry::metrics::Metrics;
use aws_config::SdkConfig;
use clap::Args;
use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1 as core_v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use line::{Line, Verdict};
use spot_guard_core::agents::{AGENT_LABELS, WatchedNodes};
use spot_guard_core::cluster::{Node, Owner, OwnerKind, Parts, Pod, Snapshot};
use spot_guard_core::group::{GroupView, PoolView, Rollout};
use spot_guard_core::ids::{GroupName, InstanceId, NodeName, PoolName};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::neighbours;
use spot_guard_core::placement::PodName;
use spot_guard_core::policy::Policy;
use spot_guard_core::preflight::{Finding, GroupProblem, Severity};
use spot_guard_core::reason::Reason;
use spot_guard_core::record::{NoticeKind, ReplacedBy};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// What the role has to allow.
const NEEDED: &str = "the calls in deploy/iam";
/// How many Nodes are listed at a time.
const NODES_AT_A_TIME: u32 = 500;
/// Questions to the API server that are under way at the same time.
const PARALLEL: usize = 8;

/// What the command line gives.
#[derive(Args, Clone, Debug)]
pub struct CheckOptions {
    /// The controller's configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The kubeconfig for the Kubernetes API; by default the pod's own service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Check this pair of groups only, and nothing of a cluster: the Spot group
    #[arg(long, value_name = "NAME", requires = "on_demand_group")]
    pub spot_group: Option<GroupName>,
    /// The on-demand group of the pair
    #[arg(long, value_name = "NAME", requires = "spot_group")]
    pub on_demand_group: Option<GroupName>,
}

/// The policy that holds whoever reports a notice to their own node.
const NOTICES_POLICY: &str = "spot-guard-notices";

/// What the controller does in the cluster: API group, resource (with its subresource), verbs. The manifests'
/// roles allow exactly this and the lease.
const PERMISSIONS: &[(&str, &str, &[&str])] = &[
    ("", "nodes", &["get", "list", "watch", "patch"]),
    ("", "pods", &["list", "watch", "delete"]),
    ("", "pods/eviction", &["create"]),
    ("", "namespaces", &["list", "watch"]),
    ("", "persistentvolumes", &["list", "watch"]),
    ("", "persistentvolumeclaims", &["list", "watch"]),
    ("storage.k8s.io", "csinodes", &["list", "watch"]),
    ("storage.k8s.io", "csidrivers", &["list", "watch"]),
    ("storage.k8s.io", "storageclasses", &["list", "watch"]),
    ("storage.k8s.io", "volumeattachments", &["list", "watch"]),
    ("policy", "poddisruptionbudgets", &["list", "watch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
    ("authentication.k8s.io", "tokenreviews", &["create"]),
    ("authorization.k8s.io", "subjectaccessreviews", &["create"]),
    ("spotguard.dev", "spotpools", &["get", "list", "watch", "patch"]),
    ("spotguard.dev", "spotpools/status", &["patch"]),
    ("spotguard.dev", "interruptionnotices", &["list", "watch", "create", "delete"]),
    ("spotguard.dev", "nodereplacements", &["get", "list", "watch", "create", "delete"]),
    ("spotguard.dev", "nodereplacements/status", &["update"]),
    ("spotguard.dev", "spotactions", &["get", "list", "watch", "create", "delete", "ask-for-others"]),
    ("spotguard.dev", "spotactions/status", &["patch"]),
];

/// What the controller may do besides where there is a notice queue: it reports for other nodes.
const QUEUE_PERMISSION: (&str, &str, &str) = ("spotguard.dev", "interruptionnotices", "report-for-others");

/// What shows which nodes are watched.
struct Seen<'a> {
    cluster: &'a Snapshot,
    /// Where Spot Guard is.
    namespace: &'a str,
    /// Whether the notice queue can be read.
    by_queue: bool,
}

/// Checks and prints a line for each; whether nothing stands in the way.
pub async fn run(options: CheckOptions, config: &Config) -> bool {
    let aws = crate::aws::settings::load().await;
    let mut lines = vec![Line::new(Verdict::Ok, "configuration", "can be used")];
    let has_region = aws.region().is_some();
    if !has_region {
        lines.push(Line::new(Verdict::Failed, "auto scaling", NO_REGION));
    }
    let mut cluster = None;
    let pools = match (options.spot_group, options.on_demand_group) {
        (Some(spot_group), Some(on_demand_group)) => {
            let spec = SpotPoolSpec { spot_group, on_demand_group, ..SpotPoolSpec::default() };
            Some(vec![SpotPool::new("of the command line", spec)])
        }
        _ => match crate::kube::client::infer(options.kubeconfig.as_deref()).await {
            Ok(client) => {
                cluster = nodes(&client, &config.lease.namespace, &mut lines).await;
                kubernetes(&client, config, &mut lines).await
            }
            Err(error) => {
                lines.push(Line::new(Verdict::Failed, "kubernetes", format!("{error:#}")));
                None
            }
        },
    };
    if let Some(pools) = pools.filter(|_| has_region) {
        let by_queue = queue(&aws, config, &mut lines).await;
        let namespace = config.lease.namespace.as_str();
        let seen = cluster.as_ref().map(|cluster| Seen { cluster, namespace, by_queue });
        groups(&aws, &pools, &config.policy(), seen.as_ref(), &mut lines).await;
    }
    for line in &lines {
        println!("{}", escaped(&line.to_string()));
    }
    lines.iter().all(|line| line.verdict <= Verdict::Note)
}

/// What may be done in the cluster, and the pools that there are.
async fn kubernetes(client: &Client, config: &Config, lines: &mut Vec<Line>) -> Option<Vec<SpotPool>> {
    let lease = Some(config.lease.namespace.as_str());
    let name = Some(config.lease.name.as_str());
    let mut questions: Vec<ResourceAttributes> = PERMISSIONS
        .iter()
        .flat_map(|(group, resource, verbs)| {
            verbs.iter().map(|verb| question(group, resource, verb, None, None))
        })
        .collect();
    if config.queue.url.is_some() {
        let (group, resource, verb) = QUEUE_PERMISSION;
        questions.push(question(group, resource, verb, None, None));
    }
    questions.push(question("coordination.k8s.io", "leases", "create", lease, None));
    questions
        .extend(["get", "update"].map(|verb| question("coordination.k8s.io", "leases", verb, lease, name)));
    let AutoscalerLease { name, namespace } = &config.autoscaler_lease;
    questions.push(question("coordination.k8s.io", "leases", "get", Some(namespace), Some(name)));
    let answers: Vec<_> =
        futures::stream::iter(questions).map(|asked| may(client, asked)).buffered(PARALLEL).collect().await;
    let mut missing = Vec::new();
    for answer in answers {
        match answer {
            Ok((_, true)) => {}
            Ok((asked, false)) => missing.push(asked),
            Err(error) => {
                lines.push(Line::new(Verdict::Failed, "kubernetes", RequestProblem(&error).to_string()));
                return None;
            }
        }
    }
    if missing.is_empty() {
        lines.push(Line::new(Verdict::Ok, "kubernetes", "the account has all permissions of the controller"));
    }
    lines.extend(
        missing
            .into_iter()
            .map(|asked| Line::new(Verdict::Refused, "kubernetes", format!("the account may not {asked}"))),
    );
    lines.push(notices_are_bound(client, config.queue.url.is_some()).await);
    lines.extend(termination_handler(client).await);
    let pools: Api<SpotPool> = Api::all(client.clone());
    match pools.list(&ListParams::default()).await {
        Ok(found) => {
            if found.items.is_empty() {
                lines.push(Line::new(Verdict::Note, "pools", "there is no SpotPool yet"));
            }
            Some(found.items)
        }
        Err(error) => {
            lines.push(Line::new(Verdict::Failed, "pools", RequestProblem(&error).to_string()));
            None
        }
    }
}

/// Whether the notice queue can be read; without one it is none.
async fn queue(aws: &SdkConfig, config: &Config, lines: &mut Vec<Line>) -> bool {
    let Some(url) = &config.queue.url else { return false };
    let queue = SqsQueue::new(aws, url, CALL_TIMEOUT, Arc::new(Metrics::new()));
    let (verdict, text) = match queue.has_dead_letters().await {
        Ok(true) => (Verdict::Ok, "it can be seen, and has a dead-letter queue".to_owned()),
        Ok(false) => (Verdict::Note, "it can be seen; it has no dead-letter queue".to_owned()),
        Err(error) => (Verdict::Failed, what_to_do(&error, NEEDED)),
    };
    lines.push(Line::new(verdict, "notice queue", text));
    verdict != Verdict::Failed
}

/// Whether aws-node-termination-handler drains the same nodes. Pods that cannot be listed were told already.
async fn termination_handler(client: &Client) -> Option<Line> {
    let pods: Api<core_v1::Pod> = Api::all(client.clone());
    let mut found = None;
    for label in neighbours::NAME_LABELS {
        let label = format!("{label}={}", neighbours::TERMINATION_HANDLER);
        let labelled = ListParams::default().labels(&label).limit(1);
        found = found.or(pods.list_metadata(&labelled).await.ok()?.items.into_iter().next());
    }
    let pod = found?;
    let workload = PodName { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() };
    let reason = Reason::TerminationHandlerRuns { workload };
    Some(Line::new(Verdict::Degraded, "neighbours", format!("{}: {reason}", reason.code())))
}

/// Whether an agent can report its own node only: tried by a dry run, about a node that nobody
/// is on.
async fn notices_are_bound(client: &Client, reports_for_others: bool) -> Line {
    let (node, instance) = (NodeName::from("spot-guard-check.invalid"), InstanceId::from("i-00000000"));
    let kind = NoticeKind::RebalanceRecommendation;
    let spec = InterruptionNoticeSpec {
        node_name: node.clone(),
        instance_id: instance.clone(),
        kind,
        notice_time: None,
        deadline: None,
        detected_at: Clock::System.now(),
        traceparent: None,
    };
    let mut name = notice_name(&node, &instance, kind);
    if reports_for_others {
        // This account may report any node. That the policy is there shows by a name that it refuses.
        name.push_str("-check");
    }
    let notice = InterruptionNotice::new(&name, spec);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let notices: Api<InterruptionNotice> = Api::all(client.clone());
    let (verdict, text) = match notices.create(&dry_run, &notice).await {
        Ok(_) => (
            Verdict::Refused,
            "any agent can report any node: apply deploy/manifests/admission-policy.yaml".to_owned(),
        ),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(NOTICES_POLICY) => {
            (Verdict::Ok, "an agent can report its own node only".to_owned())
        }
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("cannot create") => (
            Verdict::Note,
            "this account may not create notices, so the admission policy cannot be checked".to_owned(),
        ),
        Err(error) => (Verdict::Failed, RequestProblem(&error).to_string()),
    };
    Line::new(verdict, "admission policy", text)
}

fn question(
    group: &str,
    resource: &str,
    verb: &str,
    namespace: Option<&str>,
    name: Option<&str>,
) -> ResourceAttributes {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        group: given(group),
        resource: given(resource),
        subresource: given(subresource),
        verb: given(verb),
        namespace: namespace.and_then(given),
        name: name.and_then(given),
        ..ResourceAttributes::default()
    }
}

/// Asks whether it is allowed; with what was asked, in words.
async fn may(client: &Client, asked: ResourceAttributes) -> Result<(String, bool), kube::Error> {
    let part = |text: &Option<String>, before: &str| {
        text.as_ref().map_or_else(String::new, |t| format!("{before}{t}"))
    };
    let words = format!(
        "{} {}{}{}{}",
        part(&asked.verb, ""),
        part(&asked.resource, ""),
        part(&asked.subresource, "/"),
        part(&asked.group, "."),
        part(&asked.namespace, " in "),
    );
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..Default::default() },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok((words, answer.status.is_some_and(|status| status.allowed)))
}

/// The Nodes as far as they tell which instances they run on, and what is to be said of them.
async fn nodes(client: &Client, namespace: &str, lines: &mut Vec<Line>) -> Option<Snapshot> {
    let api: Api<core_v1::Node> = Api::all(client.clone());
    let mut page = ListParams::default().limit(NODES_AT_A_TIME);
    let mut nodes = Vec::new();
    loop {
        let found = match api.list(&page).await {
            Ok(found) => found,
            Err(error) => {
                lines.push(Line::new(Verdict::Failed, "nodes", RequestProblem(&error).to_string()));
                return None;
            }
        };
        nodes.extend(found.items.iter().map(|node| {
            let provider_id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
            let (name, provider_id) = (node.name_any().into(), provider_id.unwrap_or_default().into());
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            let ready =
                conditions.into_iter().flatten().any(|held| held.type_ == "Ready" && held.status == "True");
            Arc::new(Node { name, provider_id, ready, ..Node::default() })
        }));
        page.continue_token = found.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            break;
        }
    }
    lines.extend(nodes_line(&nodes));
    let labels = AGENT_LABELS.map(|(key, value)| format!("{key}={value}")).join(",");
    let pods: Api<core_v1::Pod> = Api::namespaced(client.clone(), namespace);
    match pods.list(&ListParams::default().labels(&labels)).await {
        Ok(found) => {
            let pods = found.items.iter().map(|pod| Arc::new(agent(pod))).collect();
            Some(Snapshot::new(Parts { nodes, pods, ..Parts::default() }))
        }
        Err(error) => {
            lines.push(Line::new(Verdict::Failed, "agents", RequestProblem(&error).to_string()));
            None
        }
    }
}

/// A pod, as far as it may be an agent.
fn agent(pod: &core_v1::Pod) -> Pod {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let owners = pod.metadata.owner_references.iter().flatten();
    let of_daemon_set = |owner: &OwnerReference| owner.kind == "DaemonSet" && owner.controller == Some(true);
    let kind = if owners.into_iter().any(of_daemon_set) { OwnerKind::DaemonSet } else { OwnerKind::Other };
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    Pod {
        namespace: pod.namespace().unwrap_or_default().into(),
        name: pod.name_any().into(),
        node: node.map(Into::into),
        ready: conditions.into_iter().flatten().any(|held| held.type_ == "Ready" && held.status == "True"),
        deletion: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        owner: Owner { kind, name: "".into() },
        labels: pod.labels().iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        ..Pod::default()
    }
}

/// Which of a pool's Spot nodes are not watched, if there are any.
fn watched_line(about: String, spot: &GroupView, seen: &Seen<'_>) -> Option<Line> {
    let Seen { cluster, namespace, by_queue } = *seen;
    let watched = WatchedNodes::in_cluster(spot, cluster, namespace, by_queue, Clock::System.now());
    let verdict = if watched.unwatched.is_empty() { Verdict::Ok } else { Verdict::Degraded };
    (watched.nodes > 0).then(|| Line::new(verdict, about, watched.to_string()))
}

/// What is to be said of Nodes that name no EC2 instance: whichever of them is of a pool, no notice finds it.
fn nodes_line(nodes: &[Arc<Node>]) -> Option<Line> {
    let is_foreign = |node: &&Arc<Node>| node.has_foreign_provider_id() && !node.names_its_cloud();
    let foreign: Vec<_> = nodes.iter().filter(is_foreign).collect();
    let first = foreign.iter().min_by_key(|node| &node.name)?;
    let none_is_of_ec2 = nodes.iter().all(|node| node.instance_id().is_none());
    let verdict = if none_is_of_ec2 { Verdict::Degraded } else { Verdict::Note };
    let (count, all, name, id) = (foreign.len(), nodes.len(), &first.name, &first.provider_id);
    let text = format!("{count} of {all} name no EC2 instance: {name} has the providerID {id}");
    Some(Line::new(verdict, "nodes", text))
}

/// Who replaces the Spot nodes of a pool.
fn replacer_line(about: &str, replacer: ReplacedBy) -> Line {
    let who = match replacer {
        ReplacedBy::SpotGuard => "replacedBy: SpotGuard",
        ReplacedBy::Group => "replacedBy: Group, on-demand stands in for what it does not bring",
    };
    Line::new(Verdict::Ok, about, who)
}

/// Reads of each group what its description does not say.
async fn read_setups(api: &AutoScaling, found: &mut Described, lines: &mut Vec<Line>) {
    for (name, group) in found {
        match api.refresh(name).await {
            Ok(status) => group.setup.rollout = status.map(Rollout::InstanceRefresh),
            Err(error) => {
                let text = what_to_do(&error, NEEDED);
                lines.push(Line::new(Verdict::Degraded, format!("group {name}"), text));
            }
        }
        if group.setup.needs_termination_hook() {
            match api.has_termination_hook(name).await {
                Ok(found) => group.setup.termination_hook = Some(found),
                Err(error) => {
                    let text = what_to_do(&error, NEEDED);
                    lines.push(Line::new(Verdict::Note, format!("group {name}"), text));
                }
            }
        }
    }
}

/// What is to be said of the groups of each pool.
async fn groups(
    aws: &SdkConfig,
    pools: &[SpotPool],
    defaults: &Policy,
    seen: Option<&Seen<'_>>,
    lines: &mut Vec<Line>,
) {
    let configs: BTreeMap<PoolName, PoolConfig> = pools
        .iter()
        .map(|pool| PoolConfig::of(pool, defaults, None))
        .map(|config| (config.name.clone(), config))
        .collect();
    let names: Vec<GroupName> =
        configs.values().flat_map(|pool| [pool.spot_group.clone(), pool.on_demand_group.clone()]).collect();
    if names.is_empty() {
        return;
    }
    let api = AutoScaling::new(aws, CALL_TIMEOUT, Clock::System, Arc::new(Metrics::new()));
    let mut found = match api.groups(&names, true).await {
        Ok(found) => Described::clone(&found),
        Err(error) => {
            lines.push(Line::new(Verdict::Failed, "auto scaling", what_to_do(&error, NEEDED)));
            return;
        }
    };
    lines.push(Line::new(
        Verdict::Note,
        "auto scaling",
        "groups can be read; calls that change groups are not checked, since they would change something",
    ));
    read_setups(&api, &mut found, lines).await;
    for pool in pools {
        let config = &configs[pool.name_any().as_str()];
        let ledger: Ledger = pool.status.clone().unwrap_or_default().ledger;
        let about = format!("pool {}", config.name);
        let findings = match (found.get(&config.spot_group), found.get(&config.on_demand_group)) {
            (Some(spot), Some(on_demand)) => {
                let view = PoolView { spot: spot.clone(), on_demand: on_demand.clone() };
                lines.push(replacer_line(&about, config.replacer(&view)));
                config.findings(&configs, &view, &ledger, seen.map(|seen| seen.cluster))
            }
            _ => [&config.spot_group, &config.on_demand_group]
                .into_iter()
                .filter(|name| !found.contains_key(*name))
                .map(|name| Finding { group: name.clone(), problem: GroupProblem::NoSuchGroup })
                .collect(),
        };
        if findings.is_empty() {
            lines.push(Line::new(Verdict::Ok, about.clone(), "both groups can be used"));
        }
        lines.extend(findings.iter().map(|finding| {
            let verdict = match finding.problem.severity() {
                Severity::Note => Verdict::Note,
                Severity::Degraded => Verdict::Degraded,
                Severity::Refused => Verdict::Refused,
            };
            Line::new(verdict, about.clone(), format!("{}: {finding}", finding.problem.code()))
        }));
        let known = seen.zip(found.get(&config.spot_group));
        lines.extend(known.and_then(|(seen, spot)| watched_line(about, spot, seen)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_name_no_instance_are_told_before_any_notice() {
        let node = |name: &str, provider_id: &str| {
            let (name, provider_id) = (name.into(), provider_id.into());
            Arc::new(Node { name, provider_id, ..Node::default() })
        };
        let told = |nodes: &[Arc<Node>]| nodes_line(nodes).map(|line| (line.verdict, line.text));
        assert_eq!(told(&[node("a", "aws:///a/i-1"), node("b", "")]), None);
        let text = "1 of 2 name no EC2 instance: b has the providerID k3s://b".to_owned();
        let mixed = [node("a", "aws:///a/i-1"), node("b", "k3s://b")];
        assert_eq!(told(&mixed), Some((Verdict::Note, text.clone())));
        let none = [node("a", ""), node("b", "k3s://b")];
        assert_eq!(told(&none), Some((Verdict::Degraded, text)));
    }
}
