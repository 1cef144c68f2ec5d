//! The roles of a manifest.

use serde_json::Value;

/// Tells each right that the roles of a manifest grant: its group, resource and verb, and the names of the
/// only objects that it is for, if there are any.
pub fn each_right(manifest: &str, mut tell: impl FnMut(&str, &str, &str, &[String])) {
    let documents =
        manifest.split("\n---\n").map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
    let roles = documents.filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
    for rule in roles.flat_map(|role| role["rules"].as_array().cloned().expect("rules")) {
        let texts = |field: &str| -> Vec<String> {
            let all = rule[field].as_array().into_iter().flatten();
            all.map(|text| text.as_str().expect("a text").to_owned()).collect()
        };
        let (groups, names, verbs) = (texts("apiGroups"), texts("resourceNames"), texts("verbs"));
        for resource in texts("resources") {
            for (group, verb) in groups.iter().flat_map(|group| verbs.iter().map(move |verb| (group, verb))) {
                tell(group, &resource, verb, &names);
            }
        }
    }
}
