//! Labels and selectors.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A set of labels, sorted by key. Cloning shares it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of `key`, if it is set.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a clone of this set is in use elsewhere.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Where the labels lie in memory: equal for clones of one set.
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<u8>() as usize
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

/// How a [`Requirement`] compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The value is one of these.
    In(Box<[Arc<str>]>),
    /// The value is none of these, or the key is missing.
    NotIn(Box<[Arc<str>]>),
    /// The key is there.
    Exists,
    /// The key is missing.
    DoesNotExist,
    /// The value is a number greater than this.
    Gt(i64),
    /// The value is a number less than this.
    Lt(i64),
    /// An operator that we do not know: never met.
    Unknown,
}

/// One line of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key, or the field's name.
    pub key: Arc<str>,
    /// How its value is compared.
    pub operator: Operator,
}

impl Requirement {
    /// Whether a label with this value (`None`: not set) meets the requirement.
    ///
    /// Rules: `Requirement.Matches` in staging/src/k8s.io/apimachinery/pkg/labels/selector.go.
    #[must_use]
    pub fn matches(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        match (&self.operator, value) {
            (Operator::In(values), Some(v)) => values.iter().any(|x| &**x == v),
            (Operator::NotIn(values), Some(v)) => values.iter().all(|x| &**x != v),
            (Operator::Exists, Some(_)) | (Operator::NotIn(_) | Operator::DoesNotExist, None) => true,
            (Operator::Gt(limit), Some(v)) => number(v).is_some_and(|n| n > *limit),
            (Operator::Lt(limit), Some(v)) => number(v).is_some_and(|n| n < *limit),
            _ => false,
        }
    }
}

/// A label selector. All requirements must be met; without any it matches everything.
///
/// A selector that is not set in the API matches nothing: that is `Option::None` where one is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// `matchLabels` and `matchExpressions` together.
    pub requirements: Box<[Requirement]>,
}

impl LabelSelector {
    /// Whether the labels meet all requirements.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.matches(labels.get(&r.key)))
    }

    /// A label that every match must have, key and value, if there is one: by it the matches are looked up.
    #[must_use]
    pub fn required_label(&self) -> Option<(&str, &str)> {
        self.requirements.iter().find_map(|requirement| match &requirement.operator {
            Operator::In(values) if values.len() == 1 => Some((&*requirement.key, &*values[0])),
            _ => None,
        })
    }

    /// The selector for exactly these labels.
    #[must_use]
    pub fn of_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirement = |(k, v): (&str, &str)| Requirement {
            key: k.into(),
            operator: Operator::In(Box::from([v.into()])),
        };
        Self { requirements: pairs.into_iter().map(requirement).collect() }
    }
}
