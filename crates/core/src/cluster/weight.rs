//! How much there is to compare in a selector or in what pods ask for, in units of
//! [`Effort`](crate::effort::Effort).

use super::labels::{LabelSelector, Operator, Requirement};
use super::node_selector::NodeSelectorTerm;
use super::pod::{AffinityTerm, PodSpec};

/// So many values of a requirement are compared in the time of one label.
const VALUES: usize = 8;

impl Requirement {
    fn weight(&self) -> usize {
        match &self.operator {
            Operator::In(values) | Operator::NotIn(values) => 1 + values.len() / VALUES,
            _ => 1,
        }
    }
}

impl LabelSelector {
    /// What it costs to compare it with one set of labels.
    #[must_use]
    pub fn weight(&self) -> usize {
        1 + self.requirements.iter().map(Requirement::weight).sum::<usize>()
    }
}

impl NodeSelectorTerm {
    /// What it costs to compare it with one node.
    #[must_use]
    pub fn weight(&self) -> usize {
        1 + self.labels.iter().chain(&self.fields).map(Requirement::weight).sum::<usize>()
    }
}

impl AffinityTerm {
    /// What it costs to compare it with one pod.
    #[must_use]
    pub fn weight(&self) -> usize {
        let selectors = self.selector.iter().chain(&self.namespace_selector);
        1 + self.namespaces.len() / VALUES + selectors.map(LabelSelector::weight).sum::<usize>()
    }
}

impl PodSpec {
    /// What it costs to compare `nodeSelector` and node affinity with one node.
    #[must_use]
    pub fn node_weight(&self) -> usize {
        let terms = self.node_affinity.iter().flatten();
        self.node_selector.len() + terms.map(NodeSelectorTerm::weight).sum::<usize>()
    }

    /// How much there is in it: what it costs to go through all of it once.
    #[must_use]
    pub fn weight(&self) -> usize {
        let terms = self.pod_affinity.iter().chain(&self.pod_anti_affinity);
        let spread = self.topology_spread.iter().map(|constraint| &constraint.selector);
        let spread = spread.map(|selector| 1 + selector.as_ref().map_or(0, LabelSelector::weight));
        self.requests.extended.len()
            + self.host_ports.len()
            + self.tolerations.len()
            + self.claims.len()
            + self.node_weight()
            + terms.map(AffinityTerm::weight).sum::<usize>()
            + spread.sum::<usize>()
    }
}
