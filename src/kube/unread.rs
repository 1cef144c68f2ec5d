//! What an object counts as whose fields cannot be read: it is there, and what depends on it waits.

use crate::kube::convert::{Converter, UNREADABLE};
use crate::kube::slim::Head;
use serde_json::error::Category;
use spot_guard_core::cluster::{
    DisruptionBudget, LabelSelector, Node, Phase, Pod, PodSpec, Resources, VolumeLimits,
};
use spot_guard_core::freshness::WatchedKind;
use std::collections::BTreeMap;
use std::fmt;

/// Of so many objects of a kind the names are told; the others are counted.
const NAMED: usize = 100;
/// The driver whose limit is the first to matter on EC2.
const EBS: &str = "ebs.csi.aws.com";

/// Where reading an object ended. It holds nothing of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A field is not of its type, at this byte.
    Field(usize),
    /// It is no JSON from this byte on.
    Syntax(usize),
    /// It is larger than objects can be.
    TooLarge,
    /// It has more rules, other parts or labels than are read.
    TooMany,
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        match error.classify() {
            Category::Data => Self::Field(error.column()),
            Category::Io | Category::Syntax | Category::Eof => Self::Syntax(error.column()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(at) => write!(f, "a field that ends at byte {at} is not of its type"),
            Self::Syntax(at) => write!(f, "it is no JSON from byte {at} on"),
            Self::TooLarge => f.write_str("it is too large"),
            Self::TooMany => f.write_str("it has more rules, parts or labels than are read"),
        }
    }
}

/// An object that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub problem: Problem,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{} ({})", self.name, self.problem)
    }
}

/// The objects of a kind that are not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadOfKind {
    /// How many there are.
    pub count: usize,
    /// The first of them by namespace and name, 100 at most.
    pub named: Vec<Unread>,
}

impl UnreadOfKind {
    /// From all of them.
    pub(super) fn of<'a>(count: usize, all: impl Iterator<Item = (&'a str, &'a str, Problem)>) -> Self {
        let unread = |(namespace, name, problem): (&str, &str, Problem)| Unread {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            problem,
        };
        Self { count, named: all.take(NAMED).map(unread).collect() }
    }
}

/// All objects that are not understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotUnderstood(BTreeMap<WatchedKind, UnreadOfKind>);

impl NotUnderstood {
    /// The kinds that have some.
    pub fn kinds(&self) -> impl Iterator<Item = (WatchedKind, &UnreadOfKind)> {
        self.0.iter().map(|(kind, unread)| (*kind, unread))
    }

    /// The names of a kind, 100 at most.
    pub fn names(&self, kind: WatchedKind) -> impl Iterator<Item = &str> {
        self.0.get(&kind).into_iter().flat_map(|unread| &unread.named).map(|unread| unread.name.as_str())
    }

    /// Whether the object of this name may be there without being understood. With more of them than are named it may
    /// be any.
    #[must_use]
    pub fn may_hold(&self, kind: WatchedKind, name: &str) -> bool {
        let unread = self.0.get(&kind);
        unread.is_some_and(|unread| {
            unread.count > unread.named.len() || unread.named.iter().any(|unread| unread.name == name)
        })
    }

    pub(super) fn set(&mut self, kind: WatchedKind, unread: UnreadOfKind) {
        if unread.count == 0 {
            self.0.remove(&kind);
        } else {
            self.0.insert(kind, unread);
        }
    }
}

impl Converter {
    /// It takes its place, whatever it asks for, and fits nowhere else.
    pub(super) fn unread_pod(&mut self, head: &Head) -> Pod {
        let metadata = &head.metadata;
        let node = head.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let requests =
            Resources { cpu_millis: UNREADABLE, memory: UNREADABLE, pods: 0, ..Resources::default() };
        let not_understood = Some("its fields cannot be read".into());
        Pod {
            namespace: self.string(metadata.namespace.as_deref().unwrap_or("default")),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            node: node.filter(|name| !name.is_empty()).map(|name| self.string(name)),
            phase: Phase::Unknown,
            labels: self.label_set(metadata.labels.as_ref()),
            spec: self.spec(PodSpec { requests, not_understood, ..PodSpec::default() }),
            ..Pod::default()
        }
    }

    /// It is there, on the instance that it was on, and takes no pods.
    pub(super) fn unread_node(&mut self, head: &Head, before: Option<&Node>) -> Node {
        let provider_id = head.spec.as_ref().and_then(|spec| spec.provider_id.as_deref());
        let before = before.cloned().unwrap_or_default();
        Node {
            name: self.string(head.metadata.name.as_deref().unwrap_or_default()),
            provider_id: provider_id.map_or(before.provider_id.clone(), Into::into),
            labels: head.metadata.labels.as_ref().map_or(before.labels.clone(), |l| self.label_set(Some(l))),
            unschedulable: true,
            ready: false,
            ready_changed: None,
            allocatable: Resources::default(),
            ..before
        }
    }

    /// It covers whatever is in its namespace and allows nothing.
    pub(super) fn unread_budget(&mut self, head: &Head) -> DisruptionBudget {
        DisruptionBudget {
            namespace: self.string(head.metadata.namespace.as_deref().unwrap_or("default")),
            name: self.string(head.metadata.name.as_deref().unwrap_or_default()),
            selector: Some(LabelSelector::default()),
            disruptions_allowed: 0,
            observed: true,
            ..DisruptionBudget::default()
        }
    }

    /// As many as before, or none of the driver that has a limit on EC2.
    pub(super) fn unread_limits(&mut self, before: Option<&VolumeLimits>) -> VolumeLimits {
        before
            .filter(|before| !before.is_empty())
            .cloned()
            .unwrap_or_else(|| Box::from([(self.string(EBS), 0)]))
    }
}
