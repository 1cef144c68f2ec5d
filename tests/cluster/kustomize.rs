//! The kustomizations, by the real kubectl and the real API server, and what an overlay that moves the
//! namespace leaves where it was.

use crate::chart::root;
use crate::helpers::wait_for;
use crate::product::{self, CONTROLLER, NAMESPACE, PATIENCE, kubectl, spot_guard};
use crate::testbed::Testbed;
use serde_json::Value;
use spot_guard::config::Config;
use std::fs;
use std::path::{Path, PathBuf};

const ELSEWHERE: &str = "elsewhere";

/// What a kustomization renders.
struct Rendered {
    file: PathBuf,
    objects: Vec<Value>,
}

impl Rendered {
    fn of(testbed: &Testbed, kustomization: &Path) -> Self {
        let folder = kustomization.to_str().expect("a path in UTF-8");
        let text = String::from_utf8(kubectl(testbed, &["kustomize", folder]).stdout).expect("text");
        let file = testbed.dir().join("rendered.yaml");
        fs::write(&file, &text).expect("a file is written");
        let objects = text.split("\n---\n").map(|one| serde_saphyr::from_str(one).expect("YAML")).collect();
        Self { file, objects }
    }

    /// As `kubectl apply -k` has it, but that nothing is stored.
    fn is_taken(&self, testbed: &Testbed) {
        let file = self.file.to_str().expect("a path in UTF-8");
        kubectl(testbed, &["apply", "--dry-run=server", "--validate=strict", "-f", file]);
    }

    /// The controller's object of that kind.
    fn of_controller(&self, kind: &str) -> &Value {
        let mut objects = self.objects.iter();
        let found = objects.find(|one| one["kind"] == kind && one["metadata"]["name"] == CONTROLLER);
        found.unwrap_or_else(|| panic!("no {kind}"))
    }

    /// The text of the controller's configuration.
    fn settings(&self) -> &str {
        self.of_controller("ConfigMap")["data"]["spot-guard.yaml"].as_str().expect("the file")
    }

    fn configuration(&self) -> Config {
        Config::parse(self.settings(), "spot-guard.yaml").expect("the controller takes it")
    }

    /// The objects that name the namespace of the manifests, by kind and name.
    fn still_name_the_old_namespace(&self) -> Vec<String> {
        let names_it = |object: &&Value| {
            let text = object.to_string();
            let forms =
                ["\"namespace\":\"spot-guard\"", "[\"spot-guard\"]", "namespace: spot-guard", ":spot-guard:"];
            forms.iter().any(|form| text.contains(form))
        };
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let title =
            |object: &Value| format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]));
        let mut found: Vec<String> = self.objects.iter().filter(names_it).map(title).collect();
        found.sort();
        found
    }
}

#[actix::test]
async fn the_api_server_and_the_controller_take_both_kustomizations() {
    let testbed = Testbed::start_without_kubelets("kustomize").await;
    kubectl(&testbed, &["create", "namespace", NAMESPACE, "--save-config"]);
    let plain = Rendered::of(&testbed, &root().join("deploy/manifests"));
    plain.is_taken(&testbed);
    let with_tls = Rendered::of(&testbed, &root().join("deploy/tls"));
    with_tls.is_taken(&testbed);

    let config = with_tls.configuration();
    let tls = config.tls.clone().expect("a certificate");
    assert_eq!(Config { tls: None, ..config }, plain.configuration(), "deploy/tls changes something else");
    let pod = &with_tls.of_controller("Deployment")["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["name"] == "tls").expect("the Secret is mounted");
    let folder = Path::new(mount["mountPath"].as_str().expect("a path"));
    assert_eq!((tls.certificate.parent(), tls.key.parent()), (Some(folder), Some(folder)));
    let volumes = pod["volumes"].as_array().expect("volumes");
    let secret = &volumes.iter().find(|volume| volume["name"] == "tls").expect("a volume")["secret"];
    assert_eq!(secret["secretName"], "spot-guard-controller-tls");
}

/// An overlay as a user writes it, beside a copy of the manifests: kustomize takes no absolute path.
fn overlay(testbed: &Testbed) -> PathBuf {
    let folder = testbed.dir().join("overlay");
    let base = folder.join("manifests");
    fs::create_dir_all(&base).expect("a folder");
    for entry in fs::read_dir(root().join("deploy/manifests")).expect("the manifests") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), base.join(entry.file_name())).expect("a copy");
    }
    let version = "apiVersion: kustomize.config.k8s.io/v1beta1";
    let text = format!("{version}\nkind: Kustomization\nnamespace: {ELSEWHERE}\nresources: [manifests]\n");
    fs::write(folder.join("kustomization.yaml"), text).expect("an overlay");
    folder
}

/// What `spot-guard check` says with these settings, as the controller of the other namespace.
async fn check(testbed: &Testbed, settings: &str) -> String {
    let (config, account) = (
        testbed.dir().join("spot-guard.yaml"),
        testbed.kubeconfig_for_service_account(ELSEWHERE, CONTROLLER).await,
    );
    fs::write(&config, settings).expect("the configuration is written");
    let mut check = spot_guard();
    check.arg("check").arg("--config").arg(config).arg("--kubeconfig").arg(account);
    let output = check.env("AWS_REGION", "us-east-1").output().expect("spot-guard runs");
    String::from_utf8(output.stdout).expect("text")
}

/// The roles move, and the admission policies name no namespace and hold. The rest is for a patch of the
/// overlay; the chart names its own namespace everywhere.
#[actix::test]
async fn an_overlay_moves_all_but_the_configuration_and_the_flow_schemas() {
    let testbed = Testbed::start_without_kubelets("overlay").await;
    kubectl(&testbed, &["create", "namespace", ELSEWHERE, "--save-config"]);
    let moved = Rendered::of(&testbed, &overlay(&testbed));
    assert_eq!(
        moved.still_name_the_old_namespace(),
        [
            "ConfigMap spot-guard-controller",
            "FlowSchema spot-guard-agent",
            "FlowSchema spot-guard-controller",
            "FlowSchema spot-guard-lease",
        ]
    );
    assert_eq!(moved.configuration().lease.namespace, NAMESPACE);
    moved.is_taken(&testbed);
    product::apply(&testbed, &moved.file);

    let settings = moved.settings();
    let old = wait_for("the policy to bind", PATIENCE, async || {
        let told = check(&testbed, settings).await;
        told.contains("an agent can report its own node only").then_some(told)
    })
    .await;
    assert!(old.contains("leases.coordination.k8s.io in spot-guard"), "the lease is where it was: {old}");
    let patched = settings.replace("namespace: spot-guard", &format!("namespace: {ELSEWHERE}"));
    let new = check(&testbed, &patched).await;
    assert!(new.contains("the account has all permissions of the controller"), "{new}");
}
