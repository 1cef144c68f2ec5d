use super::*;
use serde_json::json;

#[test]
fn what_the_versions_of_one_pod_asked_for_is_not_kept_for_long() {
    let mut picture = Picture::default();
    for version in 0..250 {
        let tolerations: Vec<_> =
            (0..1_500).map(|at| json!({ "key": format!("{version}-{at}-{}", "x".repeat(50)) })).collect();
        let pod = json!({ "metadata": { "name": "p" }, "spec": { "tolerations": tolerations } });
        let pod = serde_json::from_value(pod).expect("a pod");
        picture.pod(Change::Is(Key::new("default", "p"), pod));
        let kept = picture.converter.kept();
        assert!(kept < 250_000, "{kept} texts are kept after {version} versions of one pod");
    }
}
