//! Which nodes a pod or a volume may be on.

use super::labels::Requirement;
use super::node::Node;

/// One of the alternatives of a required node affinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSelectorTerm {
    /// About the node's labels.
    pub labels: Box<[Requirement]>,
    /// About the node's fields; only `metadata.name` exists.
    pub fields: Box<[Requirement]>,
}

impl NodeSelectorTerm {
    /// Whether the node meets the term. An empty term meets nothing.
    ///
    /// Rules: staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let field = |r: &Requirement| match &*r.key {
            "metadata.name" => r.matches(Some(&node.name)),
            _ => false,
        };
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(node.labels.get(&r.key)))
            && self.fields.iter().all(field)
    }
}
