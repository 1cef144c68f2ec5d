//! Label and field selectors.

use super::json::{Labels, at, items, strings, text};
use super::refusal::{Refusal, bad_request};
use super::resources::ResourceKind;
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// Node affinity only.
    Above(String, i64),
    /// Node affinity only.
    Below(String, i64),
}

impl Term {
    fn matches(&self, labels: &Labels) -> bool {
        let number = |key: &String| labels.get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::Absent(key) => !labels.contains_key(key),
            Self::Above(key, limit) => number(key).is_some_and(|value| value > *limit),
            Self::Below(key, limit) => number(key).is_some_and(|value| value < *limit),
        }
    }
}

/// All terms must match; no terms match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LabelSelector(Vec<Term>);

impl LabelSelector {
    /// The form of the query string: `a=b,c!=d,e in (f,g),h,!i`.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            terms.push(
                parse_term(part)
                    .ok_or_else(|| bad_request(format!("unable to parse requirement: {part:?}")))?,
            );
        }
        Ok(Self(terms))
    }

    /// `metav1.LabelSelector`. `None` if it is absent, which matches nothing, or malformed.
    pub(super) fn from_object(selector: &Value) -> Option<Self> {
        if !selector.is_object() {
            return None;
        }
        let mut terms: Vec<Term> = strings(selector, "/matchLabels")
            .into_iter()
            .map(|(key, value)| Term::In(key, vec![value]))
            .collect();
        terms.extend(expressions(items(selector, "/matchExpressions"))?);
        Some(Self(terms))
    }

    /// The expressions of a node selector term.
    pub(super) fn from_expressions(list: &[Value]) -> Option<Self> {
        expressions(list).map(Self)
    }

    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| term.matches(labels))
    }
}

fn expressions(list: &[Value]) -> Option<Vec<Term>> {
    list.iter()
        .map(|expression| {
            let key = expression["key"].as_str()?.to_owned();
            let values: Vec<String> =
                items(expression, "/values").iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            let limit = || values.first().and_then(|value| value.parse().ok());
            Some(match expression["operator"].as_str()? {
                "In" => Term::In(key, values),
                "NotIn" => Term::NotIn(key, values),
                "Exists" => Term::Exists(key),
                "DoesNotExist" => Term::Absent(key),
                "Gt" => Term::Above(key, limit()?),
                "Lt" => Term::Below(key, limit()?),
                _ => return None,
            })
        })
        .collect()
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_term(part: &str) -> Option<Term> {
    let word = |text: &str| {
        let text = text.trim();
        (!text.is_empty() && !text.contains(char::is_whitespace)).then(|| text.to_owned())
    };
    if let Some((head, list)) = part.split_once('(') {
        let values = list.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => Some(Term::In(word(key)?, values)),
            "notin" => Some(Term::NotIn(word(key)?, values)),
            _ => None,
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Some(Term::NotIn(word(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Term::In(word(key)?, vec![value.trim().to_owned()]));
    }
    match part.strip_prefix('!') {
        Some(key) => Some(Term::Absent(word(key)?)),
        None => Some(Term::Exists(word(part)?)),
    }
}

/// Which objects of a resource a list or watch covers.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    namespace: Option<String>,
    labels: LabelSelector,
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    pointer: String,
    value: String,
    equal: bool,
}

impl Filter {
    pub(super) fn new(
        kind: &ResourceKind,
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Refusal> {
        let mut parsed = Vec::new();
        for part in fields.unwrap_or_default().split(',').filter(|part| !part.trim().is_empty()) {
            parsed.push(parse_field(kind, part)?);
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: LabelSelector::parse(labels.unwrap_or_default())?,
            fields: parsed,
        })
    }

    /// No selector narrows it, so that the number of remaining items is known.
    pub(super) fn is_plain(&self) -> bool {
        self.labels.0.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| text(object, "/metadata/namespace") == Some(wanted))
            && self
                .fields
                .iter()
                .all(|field| (field_text(object, &field.pointer) == field.value) == field.equal)
            && (self.labels.0.is_empty() || self.labels.matches(&strings(object, "/metadata/labels")))
    }
}

/// Fields read as text; an absent one as the empty string, as in the real API.
fn field_text(object: &Value, pointer: &str) -> String {
    match at(object, pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        _ => String::new(),
    }
}

fn parse_field(kind: &ResourceKind, part: &str) -> Result<Field, Refusal> {
    let (name, value, equal) = if let Some((name, value)) = part.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (name, value, true)
    } else {
        return Err(bad_request(format!("invalid field selector: {part:?}")));
    };
    let name = name.trim();
    let own: &[&str] = match kind.id().as_str() {
        "pods" => &["spec.nodeName", "status.phase", "spec.schedulerName", "spec.restartPolicy"],
        "nodes" => &["spec.unschedulable"],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "reason",
            "type",
        ],
        _ => &[],
    };
    if !(["metadata.name", "metadata.namespace"].contains(&name) || own.contains(&name)) {
        return Err(bad_request(format!("field label not supported: {name}")));
    }
    let pointer = format!("/{}", name.replace('.', "/"));
    let value = value.trim();
    // A node that never was unschedulable has no such field; the real API compares it as "false".
    if name == "spec.unschedulable" {
        return Ok(Field { pointer, value: "true".to_owned(), equal: equal == (value == "true") });
    }
    Ok(Field { pointer, value: value.to_owned(), equal })
}
