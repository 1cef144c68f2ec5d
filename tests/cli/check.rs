//! `spot-guard check` against stubs of the Auto Scaling API: what it says of groups, that a broken answer is
//! told and nothing panics, and that region, partition, FIPS, proxy, endpoint and credentials are the SDK's
//! own. Against a stub of the Kubernetes API: what it says of nodes and neighbours.

use crate::stub::{Asked, Stub};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Output};

/// The check of a pair of groups in an environment of its own.
fn check(variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .args(["check", "--spot-group", "spot", "--on-demand-group", "on-demand"])
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .output()
        .expect("spot-guard runs")
}

fn told(output: &Output) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// With keys and a region, asking `stub`.
fn check_at(stub: &Stub) -> Output {
    check(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDSTATIC"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_AUTO_SCALING", &stub.url()),
    ])
}

/// A group in the words of the API; `more` are elements beside the usual ones.
fn group(name: &str, more: &str) -> String {
    format!(
        "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><MinSize>0</MinSize><MaxSize>9</MaxSize>\
         <DesiredCapacity>1</DesiredCapacity><DefaultCooldown>300</DefaultCooldown><AvailabilityZones>\
         <member>eu-central-1a</member></AvailabilityZones><HealthCheckType>EC2</HealthCheckType>\
         <CreatedTime>2026-01-01T00:00:00Z</CreatedTime><LaunchTemplate><LaunchTemplateName>t\
         </LaunchTemplateName></LaunchTemplate>{more}</member>"
    )
}

fn page(groups: &[String], next: &str) -> String {
    format!(
        "<DescribeAutoScalingGroupsResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
         <DescribeAutoScalingGroupsResult><AutoScalingGroups>{}</AutoScalingGroups>{next}\
         </DescribeAutoScalingGroupsResult></DescribeAutoScalingGroupsResponse>",
        groups.concat()
    )
}

fn error(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

/// A lifecycle hook for this transition, or none.
fn hooks(transition: Option<&str>) -> (u16, String) {
    let hook = |transition| {
        format!(
            "<member><LifecycleHookName>drain</LifecycleHookName>\
             <LifecycleTransition>{transition}</LifecycleTransition></member>"
        )
    };
    let text = format!(
        "<DescribeLifecycleHooksResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
         <DescribeLifecycleHooksResult><LifecycleHooks>{}</LifecycleHooks>\
         </DescribeLifecycleHooksResult></DescribeLifecycleHooksResponse>",
        transition.map(hook).unwrap_or_default()
    );
    (200, text)
}

/// A stub that knows the instance refresh of the Spot group, if there is one, and else answers as it is told.
fn refreshing(
    status: Option<&'static str>,
    answer: impl Fn(&Asked) -> (u16, String) + Send + 'static,
) -> Stub {
    Stub::answering(move |asked| {
        if !asked.body.contains("Action=DescribeInstanceRefreshes") {
            return answer(asked);
        }
        let status = status.filter(|_| asked.body.contains("AutoScalingGroupName=spot"));
        let found = status.map(|status| format!("<member><Status>{status}</Status></member>"));
        let text = format!(
            "<DescribeInstanceRefreshesResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
             <DescribeInstanceRefreshesResult><InstanceRefreshes>{}</InstanceRefreshes>\
             </DescribeInstanceRefreshesResult></DescribeInstanceRefreshesResponse>",
            found.unwrap_or_default()
        );
        (200, text)
    })
}

/// The same without an instance refresh.
fn answering(answer: impl Fn(&Asked) -> (u16, String) + Send + 'static) -> Stub {
    refreshing(None, answer)
}

fn both(spot: &str, on_demand: &str) -> (u16, String) {
    (200, page(&[group("spot", spot), group("on-demand", on_demand)], ""))
}

#[test]
fn two_plain_groups_can_be_used() {
    let stub = answering(|_| both("", ""));
    let output = check_at(&stub);
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("ok        pool of the command line"), "{text}");
}

#[test]
fn a_missing_region_and_missing_credentials_are_told_with_what_to_do() {
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDSTATIC"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    for (variables, words) in [
        (&[][..], "no region: set AWS_REGION"),
        (&keys[..], "no region: set AWS_REGION"),
        (&[("AWS_REGION", "eu-central-1")][..], "no credentials: set AWS_PROFILE"),
    ] {
        let output = check(variables);
        let text = told(&output);
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("failed")).collect();
        assert!(failed.len() == 1 && failed[0].contains(words), "{text}");
        let dumped = ["NoConnection", "dispatch failure", "Attempted"].iter().any(|word| text.contains(word));
        assert!(!dumped && output.status.code() == Some(1), "{text}");
    }
}

#[test]
fn a_missing_kubeconfig_is_told_once_with_what_to_do() {
    let home = tempfile::tempdir().expect("a folder");
    for (arguments, words) in [
        (&["check"][..], "and not inside a cluster: name one by --kubeconfig FILE or KUBECONFIG"),
        (
            &["check", "--kubeconfig", "/no/such/file"][..],
            "cannot read the kubeconfig /no/such/file: No such",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spot-guard"));
        command.args(arguments).env_clear().env("HOME", home.path());
        let output = command.env("AWS_EC2_METADATA_DISABLED", "true").output().expect("spot-guard runs");
        let text = told(&output);
        let about = |about: &str| text.lines().filter(|line| line.contains(about)).count();
        assert_eq!((about("failed    kubernetes"), about("no region: set AWS_REGION")), (1, 1), "{text}");
        assert!(text.contains(words) && text.matches("No such file").count() <= 1, "{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
}

#[test]
fn an_instance_refresh_is_told_and_so_is_that_the_role_may_not_see_it() {
    let under_way = check_at(&refreshing(Some("InProgress"), |_| both("", "")));
    let text = told(&under_way);
    assert!(under_way.status.success(), "{text}");
    assert!(text.contains("an instance refresh of spot is under way (InProgress)"), "{text}");
    let over = told(&check_at(&refreshing(Some("Successful"), |_| both("", ""))));
    assert!(!over.contains("refresh"), "{over}");
    let denied = check_at(&Stub::answering(|asked| {
        let may_see = asked.body.contains("Action=DescribeAutoScalingGroups");
        let may_not = "is not authorized to perform: autoscaling:DescribeInstanceRefreshes";
        if may_see { both("", "") } else { (403, error("AccessDenied", may_not)) }
    }));
    let text = told(&denied);
    assert_eq!(denied.status.code(), Some(1), "{text}");
    assert!(text.contains("degraded  group spot") && text.contains("DescribeInstanceRefreshes"), "{text}");
}

#[test]
fn each_finding_is_told_with_its_group_and_what_to_do() {
    let suspended = |process: &str| {
        format!(
            "<SuspendedProcesses><member><ProcessName>{process}</ProcessName><SuspensionReason>by a person\
             </SuspensionReason></member></SuspendedProcesses>"
        )
    };
    let mixed = "<MixedInstancesPolicy><InstancesDistribution><OnDemandBaseCapacity>1</OnDemandBaseCapacity>\
                 <OnDemandPercentageAboveBaseCapacity>0</OnDemandPercentageAboveBaseCapacity>\
                 </InstancesDistribution></MixedInstancesPolicy>";
    for (spot, word, reason) in [
        (
            "<Operator><Principal>x.amazonaws.com</Principal></Operator>".to_owned(),
            "refused",
            "OperatorOwned",
        ),
        (mixed.to_owned(), "refused", "NotAllSpot"),
        (suspended("Terminate"), "refused", "TerminateSuspended"),
        (suspended("Launch"), "degraded", "LaunchSuspended"),
    ] {
        let stub = answering(move |_| both(&spot, ""));
        let output = check_at(&stub);
        let text = told(&output);
        let line =
            text.lines().find(|line| line.contains(reason)).unwrap_or_else(|| panic!("{reason}: {text}"));
        assert!(line.starts_with(word) && line.contains("spot"), "{line}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
}

#[test]
fn groups_as_aws_makes_them_are_accepted_and_told() {
    let zones =
        "<AvailabilityZones><member>eu-central-1a</member><member>eu-central-1b</member></AvailabilityZones>";
    let tag = "<Tags><member><Key>eks:nodegroup-name</Key><Value>workers</Value></member></Tags>";
    let rebalances = "<CapacityRebalance>true</CapacityRebalance>";
    for (spot, on_demand, who, reason) in [
        (zones, "", "SpotGuard", Some("AzRebalance: spot")),
        ("", zones, "SpotGuard", Some("AzRebalance: on-demand")),
        ("", tag, "SpotGuard", Some("NoLaunchInstances: on-demand")),
        ("", rebalances, "SpotGuard", None),
        (rebalances, "", "Group", None),
        (tag, "", "Group", None),
    ] {
        let stub = answering(move |asked| match asked.body.contains("Action=DescribeLifecycleHooks") {
            true => hooks(Some("autoscaling:EC2_INSTANCE_TERMINATING")),
            false => both(spot, on_demand),
        });
        let output = check_at(&stub);
        let text = told(&output);
        let about = text.lines().filter(|line| line.contains("pool of the command line"));
        let about: Vec<_> = about.collect();
        let word = if reason.is_some() { "note" } else { "ok" };
        assert!(about.len() == 2 && about[0].contains(&format!("replacedBy: {who}")), "{text}");
        assert!(about[1].starts_with(word), "{text}");
        assert!(reason.is_none_or(|reason| about[1].contains(reason)), "{text}");
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn a_group_that_replaces_by_itself_without_a_termination_hook_is_degraded() {
    let rebalances = "<CapacityRebalance>true</CapacityRebalance>";
    for hook in [None, Some("autoscaling:EC2_INSTANCE_LAUNCHING")] {
        let stub = answering(move |asked| match asked.body.contains("Action=DescribeLifecycleHooks") {
            true => hooks(hook),
            false => both(rebalances, ""),
        });
        let output = check_at(&stub);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let is_meant = |line: &str| line.starts_with("degraded") && line.contains("NoTerminationHook: spot");
        assert!(text.lines().any(is_meant), "{text}");
    }
}

#[test]
fn a_managed_node_group_as_both_groups_is_refused() {
    let tag = "<Tags><member><Key>eks:nodegroup-name</Key><Value>workers</Value></member></Tags>";
    let stub = answering(move |_| both(tag, tag));
    let output = check_at(&stub);
    let text = told(&output);
    assert!(text.contains("refused") && text.contains("SameNodeGroup: on-demand"), "{text}");
    assert!(text.contains("spec.onDemandGroup") && output.status.code() == Some(1), "{text}");
}

#[test]
fn a_group_that_does_not_exist_is_named() {
    let stub = answering(|_| (200, page(&[group("spot", "")], "")));
    let output = check_at(&stub);
    let text = told(&output);
    assert!(text.contains("refused") && text.contains("NoSuchGroup: Auto Scaling group on-demand"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn an_answer_that_is_broken_or_an_error_is_told_and_nothing_panics() {
    let cases: Vec<(u16, String, &str)> = vec![
        (200, "<html>a proxy's page</html>".to_owned(), "cut short, or is not from the API"),
        (200, String::new(), "cut short, or is not from the API"),
        (200, "{\"json\": true}".to_owned(), "cut short, or is not from the API"),
        (200, page(&[group("spot", "<DesiredCapacity>many</DesiredCapacity>")], ""), "DesiredCapacity"),
        (400, error("ValidationError", "a name is too long"), "ValidationError: a name is too long"),
        (400, error("Throttling", "Rate exceeded"), "Throttling: Rate exceeded"),
        (403, error("AccessDenied", "not you"), "AccessDenied: not you"),
        (403, error("ExpiredToken", "too old"), "ExpiredToken: too old"),
        (500, error("InternalFailure", "sorry"), "InternalFailure: sorry"),
        (503, "Service Unavailable".to_owned(), "Http503"),
        (404, "<html>no such page</html>".to_owned(), "Http404"),
    ];
    for (status, body, words) in cases {
        let stub = answering(move |_| (status, body.clone()));
        let output = check_at(&stub);
        let text = told(&output);
        assert!(text.contains("failed    auto scaling") && text.contains(words), "{words}: {text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    }
}

#[test]
fn a_truncated_answer_is_never_taken_for_a_usable_pool() {
    let whole = page(&[group("spot", ""), group("on-demand", "")], "");
    for part in 1..8 {
        let cut = whole[..whole.len() * part / 8].to_owned();
        let stub = answering(move |_| (200, cut.clone()));
        let output = check_at(&stub);
        let text = told(&output);
        assert!(text.contains("cut short"), "{part} of 8: {text}");
        assert_eq!(output.status.code(), Some(1), "{part} of 8: {text}");
    }
}

#[test]
fn pages_are_read_to_the_end_and_an_endless_answer_ends() {
    let stub = answering(|asked: &Asked| {
        let second = asked.body.contains("NextToken=more");
        let next = if second { "" } else { "<NextToken>more</NextToken>" };
        (200, page(&[group(if second { "on-demand" } else { "spot" }, "")], next))
    });
    assert!(check_at(&stub).status.success());
    let endless = answering(|_| (200, page(&[group("spot", "")], "<NextToken>again</NextToken>")));
    let output = check_at(&endless);
    let text = told(&output);
    assert!(text.contains("failed") && text.contains("NextToken"), "{text}");
}

#[test]
fn an_instance_without_a_zone_or_an_id_and_a_group_without_anything_are_no_obstacle() {
    let instances = "<Instances><member><InstanceId>i-0123456789abcdef0</InstanceId><LifecycleState>InService\
                     </LifecycleState></member><member><LifecycleState>Strange</LifecycleState></member></Instances>";
    let stub = answering(move |_| both(instances, "<Instances/><Tags/><SuspendedProcesses/>"));
    let output = check_at(&stub);
    assert!(output.status.success(), "{}", told(&output));
}

/// The host that a proxy is asked to connect to.
fn host_for(variables: &[(&str, &str)]) -> String {
    let proxy = answering(|_| (502, String::new()));
    let url = proxy.url();
    let mut all = vec![
        ("AWS_ACCESS_KEY_ID", "AKIDSTATIC"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("HTTPS_PROXY", url.as_str()),
    ];
    all.extend_from_slice(variables);
    let output = check(&all);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let asked = proxy.asked();
    let line = &asked.first().unwrap_or_else(|| panic!("the proxy is not used: {text}")).line;
    line.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).expect("a CONNECT").to_owned()
}

#[test]
fn region_partition_and_fips_are_those_of_the_sdk_through_a_proxy() {
    for (region, fips, host) in [
        ("us-east-1", "false", "autoscaling.us-east-1.amazonaws.com:443"),
        ("us-east-1", "true", "autoscaling-fips.us-east-1.amazonaws.com:443"),
        ("cn-north-1", "false", "autoscaling.cn-north-1.amazonaws.com.cn:443"),
        ("us-gov-west-1", "false", "autoscaling.us-gov-west-1.amazonaws.com:443"),
        ("us-iso-east-1", "false", "autoscaling.us-iso-east-1.c2s.ic.gov:443"),
    ] {
        let found = host_for(&[("AWS_REGION", region), ("AWS_USE_FIPS_ENDPOINT", fips)]);
        assert_eq!(found, host, "{region}, FIPS {fips}");
    }
}

/// The key by which the groups were asked for, and the session token.
fn signed_with(stub: &Stub) -> (String, Option<String>) {
    let asked = stub.asked();
    let request = asked.last().expect("a request");
    let signature = request.header("authorization").expect("a signature");
    let key = signature.split("Credential=").nth(1).and_then(|rest| rest.split('/').next()).expect("a key");
    (key.to_owned(), request.header("x-amz-security-token").map(str::to_owned))
}

#[test]
fn a_role_for_service_accounts_is_found_by_the_default_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "a.web.token").expect("a token");
    let sts = answering(|asked| {
        assert!(asked.body.contains("WebIdentityToken=a.web.token"), "{}", asked.body);
        let mut text = String::from(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>AKIDROLE</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>",
        );
        let _ = write!(
            text,
            "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             </AssumeRoleWithWebIdentityResponse>"
        );
        (200, text)
    });
    let stub = answering(|_| both("", ""));
    let output = check(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/spot-guard"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().expect("a path")),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
        ("AWS_ENDPOINT_URL_AUTO_SCALING", &stub.url()),
    ]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(signed_with(&stub), ("AKIDROLE".to_owned(), Some("session".to_owned())));
}

#[test]
fn pod_identity_is_found_by_the_default_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "a-pod-token").expect("a token");
    let agent = answering(|asked| {
        assert_eq!(asked.header("authorization"), Some("a-pod-token"));
        let text = "{\"AccessKeyId\":\"AKIDPOD\",\"SecretAccessKey\":\"secret\",\"Token\":\"session\",\
                    \"Expiration\":\"2099-01-01T00:00:00Z\"}";
        (200, text.to_owned())
    });
    let stub = answering(|_| both("", ""));
    let output = check(&[
        ("AWS_REGION", "eu-central-1"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/v1/credentials", agent.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.to_str().expect("a path")),
        ("AWS_ENDPOINT_URL_AUTO_SCALING", &stub.url()),
    ]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(signed_with(&stub), ("AKIDPOD".to_owned(), Some("session".to_owned())));
}

/// An API server that allows everything. It has a pool, these nodes, these agents, and these pods beside.
fn api_server(nodes: Value, agents: Value, pods: Value) -> Stub {
    let pools = json!([{
        "apiVersion": "spotguard.dev/v1alpha1", "kind": "SpotPool", "metadata": { "name": "workers" },
        "spec": { "spotGroup": "spot", "onDemandGroup": "on-demand" },
    }]);
    // What the policy that binds the agents says.
    let refusal = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": 403,
        "reason": "Forbidden", "message": "ValidatingAdmissionPolicy 'spot-guard-notices' denied the request",
    });
    let review = json!({ "metadata": {}, "spec": {}, "status": { "allowed": true } });
    Stub::answering(move |asked| {
        let list = |items: &Value| {
            let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items });
            (200, list.to_string())
        };
        match asked.line.split([' ', '?']).nth(1).unwrap_or_default() {
            "/api/v1/nodes" => list(&nodes),
            "/api/v1/namespaces/spot-guard/pods" => list(&agents),
            "/api/v1/pods" => list(&pods),
            "/apis/spotguard.dev/v1alpha1/spotpools" => list(&pools),
            "/apis/spotguard.dev/v1alpha1/interruptionnotices" => (403, refusal.to_string()),
            _ => (200, review.to_string()),
        }
    })
}

/// A Ready node.
fn node(name: &str, provider_id: &str) -> Value {
    json!({
        "metadata": { "name": name }, "spec": { "providerID": provider_id },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// The agent's pod on a node, as the DaemonSet makes it.
fn agent(node: &str, ready: &str) -> Value {
    let name = format!("spot-guard-agent-{node}");
    json!({
        "metadata": {
            "namespace": "spot-guard", "name": name,
            "labels": { "app.kubernetes.io/name": "spot-guard", "app.kubernetes.io/component": "agent" },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "spot-guard-agent", "uid": "u",
                "controller": true,
            }],
        },
        "spec": { "nodeName": node, "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    })
}

/// The ids of the Spot instances that are in service.
const SPOT_INSTANCES: [&str; 2] = ["i-0000000000000000a", "i-0000000000000000b"];

/// The check of everything in a cluster.
fn check_cluster(api_server: &Stub) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": api_server.url() } }],
        "users": [{ "name": "u", "user": {} }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
    });
    fs::write(&kubeconfig, text.to_string()).expect("a kubeconfig");
    let instance = |id: &str| {
        format!(
            "<member><InstanceId>{id}</InstanceId><AvailabilityZone>eu-central-1a</AvailabilityZone>\
             <LifecycleState>InService</LifecycleState><HealthStatus>Healthy</HealthStatus></member>"
        )
    };
    let instances = format!("<Instances>{}</Instances>", SPOT_INSTANCES.map(instance).concat());
    let groups = answering(move |_| both(&instances, ""));
    Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .args(["check", "--kubeconfig"])
        .arg(kubeconfig)
        .env_clear()
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "AKIDSTATIC")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL_AUTO_SCALING", groups.url())
        .output()
        .expect("spot-guard runs")
}

#[test]
fn spot_nodes_without_an_agent_a_termination_handler_and_nodes_that_name_no_instance_are_named() {
    let [first, second] = SPOT_INSTANCES.map(|id| format!("aws:///eu-central-1a/{id}"));
    let (first, second) = (node("spot-1", &first), node("spot-2", &second));
    let handler = json!([{ "metadata": { "namespace": "kube-system", "name": "nth" } }]);
    let output = check_cluster(&api_server(
        json!([first, second, node("edge", "k3s://edge")]),
        json!([agent("spot-1", "True"), agent("spot-2", "False")]),
        handler,
    ));
    let text = told(&output);
    for (verdict, words) in [
        ("degraded", "1 of 2 Spot nodes are not watched by a ready agent: spot-2"),
        ("degraded", "TerminationHandlerRuns: aws-node-termination-handler (kube-system/nth)"),
        ("note", "1 of 3 name no EC2 instance: edge has the providerID k3s://edge"),
    ] {
        let says = |line: &str| line.starts_with(verdict) && line.contains(words);
        assert!(text.lines().any(says), "{words}: {text}");
    }
    assert_eq!(output.status.code(), Some(1), "{text}");

    let agents = json!([agent("spot-1", "True"), agent("spot-2", "True")]);
    let output = check_cluster(&api_server(json!([first, second]), agents, json!([])));
    let text = told(&output);
    assert!(text.contains("all 2 Spot nodes are watched"), "{text}");
    assert!(!text.contains("TerminationHandlerRuns") && !text.contains("name no EC2 instance"), "{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn one_group_of_a_pair_is_bad_input() {
    let output = Command::new(env!("CARGO_BIN_EXE_spot-guard"))
        .args(["check", "--spot-group", "spot"])
        .output()
        .expect("spot-guard runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("--on-demand-group"));
}
