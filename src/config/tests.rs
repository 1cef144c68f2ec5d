use super::*;

const SHIPPED: &str = include_str!("../../config/spot-guard.yaml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "spot-guard.yaml")
}

#[track_caller]
fn assert_refused(text: &str, message: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), message);
}

#[test]
fn nothing_written_is_the_defaults() {
    for text in ["", "\n", "# a comment\n", "---\n", "{}"] {
        assert_eq!(parse(text).unwrap(), Config::default(), "{text:?}");
    }
}

#[test]
fn what_is_written_counts_and_the_rest_keeps_its_default() {
    let config = parse("lease: {renewSeconds: 2}\ndefaults:\n  stabilitySeconds: 60\n").unwrap();
    assert_eq!(config.lease, LeaseConfig { renew_seconds: 2, ..LeaseConfig::default() });
    assert_eq!(config.policy(), Policy { stability_seconds: 60, ..Policy::default() });
}

#[test]
fn an_unknown_key_is_named() {
    let error = parse("listen: 127.0.0.1:1\nlisen: 127.0.0.1:2\n").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:2: ") && error.contains("lisen"), "{error}");
    let error = parse("defaults:\n  stabilityMinutes: 2\n").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:2: ") && error.contains("stabilityMinutes"), "{error}");
    let error = parse("lease:\n  ttl: 2\n").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:2: ") && error.contains("ttl"), "{error}");
}

#[test]
fn reading_without_a_token_is_for_loopback() {
    assert_refused(
        "localListen: 0.0.0.0:8081\n",
        "spot-guard.yaml:1: localListen: 0.0.0.0:8081 is not on loopback: everybody could read there",
    );
    assert_eq!(parse("localListen: null\n").unwrap().local_listen, None);
    assert!(parse("localListen: '[::1]:8081'\n").unwrap().local_listen.is_some());
    let error = parse("tls:\n  certificate: a.pem\n").unwrap_err().to_string();
    assert!(error.contains("key"), "{error}");
    let tls = parse("tls: {certificate: a.pem, key: b.pem}\n").unwrap().tls.unwrap();
    assert_eq!((tls.certificate, tls.key), ("a.pem".into(), "b.pem".into()));
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    for (text, key, line) in [
        ("listen: localhost\n", "listen", 1),
        ("defaults:\n  spotTimeoutSeconds: 3 min\n", "spotTimeoutSeconds", 2),
        ("defaults:\n  spotTimeoutSeconds: -3\n", "spotTimeoutSeconds", 2),
        ("defaults:\n  deleteAtDeadline: sometimes\n", "deleteAtDeadline", 2),
        ("lease: 15\n", "lease", 1),
        ("# first\naws:\n  callTimeoutSeconds: [1]\n", "callTimeoutSeconds", 3),
    ] {
        let error = parse(text).unwrap_err().to_string();
        let place = format!("spot-guard.yaml:{line}: ");
        assert!(error.starts_with(&place) && error.contains(key), "{text:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_value_that_is_no_number_is_refused_in_plain_words() {
    assert_refused(
        "defaults:\n  spotTimeoutSeconds: 1h\n",
        "spot-guard.yaml:2: spotTimeoutSeconds: not a whole number",
    );
}

#[test]
fn a_key_written_twice_and_broken_yaml_are_refused() {
    let error = parse("taintKey: a/b\ntaintKey: a/c\n").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:2: ") && error.contains("taintKey"), "{error}");
    let error = parse("lease: {name: a\n").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:"), "{error}");
    let error = parse("a list is no configuration").unwrap_err().to_string();
    assert!(error.starts_with("spot-guard.yaml:1: "), "{error}");
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() {
    assert_refused(
        "defaults:\n  # share\n  maxUtilisationPercent: 101\n",
        "spot-guard.yaml:3: defaults.maxUtilisationPercent: 101 is not between 1 and 100",
    );
    assert_refused(
        "defaults:\n  joinTimeoutSeconds: 9\n",
        "spot-guard.yaml:2: defaults.joinTimeoutSeconds: 9 is not between 10 and 86400",
    );
    assert_refused(
        "lease:\n  name: a\naws:\n  callTimeoutSeconds: 0\n",
        "spot-guard.yaml:4: aws.callTimeoutSeconds: 0 is not between 1 and 120",
    );
}

#[test]
fn a_call_must_fit_into_what_is_left_of_the_lease() {
    assert_refused(
        "aws:\n  callTimeoutSeconds: 11\n",
        "spot-guard.yaml:2: aws.callTimeoutSeconds: 11 is more than the 10 seconds that are left of the lease \
         when it is renewed (lease.durationSeconds less lease.renewSeconds)",
    );
    let error = parse("lease: {renewSeconds: 15}\n").unwrap_err().to_string();
    assert!(error.contains("aws.callTimeoutSeconds: 10 is more than the 0 seconds"), "{error}");
}

#[test]
fn names_that_kubernetes_would_refuse_are_refused_here() {
    assert_refused(
        "lease:\n  name: My Lease\n",
        r#"spot-guard.yaml:2: lease.name: "My Lease" is not a Kubernetes name"#,
    );
    for name in ["\" \"".to_owned(), "\"a\\nb\"".to_owned(), "a".repeat(101)] {
        let error = parse(&format!("clusterName: {name}\n")).unwrap_err().to_string();
        assert!(error.starts_with("spot-guard.yaml:1: clusterName: "), "{error}");
    }
    assert_eq!(parse("clusterName: Berlin (blue)\n").unwrap().cluster_name.unwrap(), "Berlin (blue)");
    for key in ["RebalanceRecommendation", "a/", "/b", "a/b c", "A/b", "a/-b"] {
        let error = parse(&format!("taintKey: {key}\n")).unwrap_err().to_string();
        assert!(error.starts_with("spot-guard.yaml:1: taintKey: "), "{error}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(&folder.path().join("missing.yaml")).unwrap_err().to_string();
    assert!(error.contains("missing.yaml: cannot be read"), "{error}");
    assert!(Config::load(folder.path()).is_err());
    let path = folder.path().join("given.yaml");
    std::fs::write(&path, "listen: 0.0.0.0:9090\n").unwrap();
    assert_eq!(Config::load(&path).unwrap().listen.port(), 9090);
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = parse(SHIPPED).unwrap();
    assert_eq!(shipped.policy(), Policy::default());
    assert_eq!(Config { defaults: PolicySpec::default(), ..shipped }, Config::default());
}

/// A setting of a pool.
struct Setting {
    /// The box, or boxes, of the flow.
    boxes: String,
    name: String,
    default: serde_json::Value,
    range: String,
    meaning: String,
}

/// Every setting of a pool, in the order of the flow.
fn settings() -> Vec<Setting> {
    let schema = serde_json::to_value(schemars::schema_for!(PolicySpec)).unwrap();
    let defaults = serde_json::to_value(parse(SHIPPED).unwrap().defaults).unwrap();
    let of = |(name, property): (&String, &serde_json::Value)| {
        let description = property["description"].as_str().unwrap().replace('\n', " ");
        let (boxes, meaning) = description.split_once(": ").expect("a setting begins with its box");
        let limit = |end: &str| property[end].as_u64();
        let range = match (limit("minimum"), limit("maximum")) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            _ if !property["items"].is_null() => "a list".to_owned(),
            _ => "true or false".to_owned(),
        };
        Setting {
            boxes: boxes.trim_start_matches("Boxes ").trim_start_matches("Box ").to_owned(),
            name: name.clone(),
            default: defaults[name].clone(),
            range,
            meaning: meaning.to_owned(),
        }
    };
    let mut settings: Vec<Setting> = schema["properties"].as_object().unwrap().iter().map(of).collect();
    let first_box = |setting: &Setting| setting.boxes.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    settings.sort_by(|a, b| first_box(a).partial_cmp(&first_box(b)).unwrap().then(a.name.cmp(&b.name)));
    settings
}

#[test]
fn the_shipped_file_shows_every_setting() {
    for Setting { name, default, .. } in settings() {
        assert!(!default.is_null(), "config/spot-guard.yaml lacks defaults.{name}");
    }
    for key in [
        "listen",
        "localListen",
        "tls",
        "lease",
        "name",
        "namespace",
        "durationSeconds",
        "renewSeconds",
        "aws",
        "taintKey",
    ] {
        assert!(line_of(SHIPPED, key).is_some(), "config/spot-guard.yaml lacks {key}");
    }
}

#[test]
fn the_documents_show_every_setting() {
    let mut table = "| box | setting | default | range | meaning |\n|---|---|---|---|---|\n".to_owned();
    for Setting { boxes, name, default, range, meaning } in settings() {
        table += &format!("| {boxes} | `{name}` | {default} | {range} | {meaning} |\n");
    }
    let document = include_str!("../../docs/configuration.md");
    assert!(document.contains(&table), "docs/configuration.md lacks this table:\n{table}");
}

#[test]
fn the_manifests_hold_a_configuration_and_a_pool_that_can_be_used() {
    let map = include_str!("../../deploy/manifests/controller-config.yaml");
    let map: k8s_openapi::api::core::v1::ConfigMap = serde_saphyr::from_str(map).unwrap();
    let config = parse(&map.data.unwrap()["spot-guard.yaml"]).unwrap();
    let Config { listen, probe_listen, .. } = Config::default();
    assert_eq!(Config { listen, probe_listen, ..config }, Config::default());

    let pool = include_str!("../../deploy/manifests/example-pool.yaml");
    let pool: crate::crd::SpotPool = serde_saphyr::from_str(pool).unwrap();
    pool.spec.policy.validate().unwrap();
}
