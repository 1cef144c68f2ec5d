//! Selectors, affinity and spread constraints.

use super::Converter;
use crate::kube::slim::{self as api};
use spot_guard_core::cluster::{
    AffinityTerm, LabelSelector, NodeSelectorTerm, Operator, Requirement, SpreadConstraint,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

impl Converter {
    pub(super) fn node_terms(&mut self, terms: &[api::NodeSelectorTerm]) -> Box<[NodeSelectorTerm]> {
        terms
            .iter()
            .map(|t| NodeSelectorTerm {
                labels: self.node_requirements(t.match_expressions.as_deref()),
                fields: self.node_requirements(t.match_fields.as_deref()),
            })
            .collect()
    }

    pub(super) fn node_requirements(
        &mut self,
        list: Option<&[api::SelectorRequirement]>,
    ) -> Box<[Requirement]> {
        let list = list.unwrap_or_default();
        list.iter().map(|r| self.requirement(&r.key, &r.operator, r.values.as_deref())).collect()
    }

    pub(super) fn requirement(
        &mut self,
        key: &str,
        operator: &str,
        values: Option<&[String]>,
    ) -> Requirement {
        let values = values.unwrap_or_default();
        let number = values.first().and_then(|v| v.parse().ok());
        let all: Box<[Arc<str>]> = values.iter().map(|v| self.string(v)).collect();
        let operator = match (operator, number) {
            ("In", _) => Operator::In(all),
            ("NotIn", _) => Operator::NotIn(all),
            ("Exists", _) => Operator::Exists,
            ("DoesNotExist", _) => Operator::DoesNotExist,
            ("Gt", Some(limit)) => Operator::Gt(limit),
            ("Lt", Some(limit)) => Operator::Lt(limit),
            _ => Operator::Unknown,
        };
        Requirement { key: self.string(key), operator }
    }

    pub(super) fn selector(&mut self, selector: &api::LabelSelector) -> LabelSelector {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(self.requirement(key, "In", Some(std::slice::from_ref(value))));
        }
        for r in selector.match_expressions.iter().flatten() {
            requirements.push(self.requirement(&r.key, &r.operator, r.values.as_deref()));
        }
        LabelSelector { requirements: requirements.into() }
    }

    /// The selector with the pod's own values of `same` added, and those of `different` excluded, as
    /// `matchLabelKeys` and `mismatchLabelKeys` want it. Newer API servers have done so already; once more
    /// changes nothing.
    pub(super) fn selector_with(
        &mut self,
        selector: Option<&api::LabelSelector>,
        same: Option<&[String]>,
        different: Option<&[String]>,
        own: Option<&BTreeMap<String, String>>,
    ) -> Option<LabelSelector> {
        let result = self.selector(selector?);
        let same = same.unwrap_or_default().iter().map(|key| (key, "In"));
        let different = different.unwrap_or_default().iter().map(|key| (key, "NotIn"));
        let extra = same.chain(different).filter_map(|(key, operator)| Some((key, operator, own?.get(key)?)));
        let extra: Vec<Requirement> = extra
            .map(|(key, operator, value)| self.requirement(key, operator, Some(std::slice::from_ref(value))))
            .collect();
        if extra.is_empty() {
            return Some(result);
        }
        let mut known: HashSet<&Requirement> = result.requirements.iter().collect();
        let new: Vec<&Requirement> = extra.iter().filter(|requirement| known.insert(*requirement)).collect();
        let all = result.requirements.iter().chain(new).cloned();
        Some(LabelSelector { requirements: all.collect() })
    }

    pub(super) fn affinity_terms(
        &mut self,
        terms: Option<&[api::PodAffinityTerm]>,
        own: Option<&BTreeMap<String, String>>,
    ) -> Box<[AffinityTerm]> {
        let terms = terms.unwrap_or_default().iter();
        terms
            .map(|t| AffinityTerm {
                selector: self.selector_with(
                    t.label_selector.as_ref(),
                    t.match_label_keys.as_deref(),
                    t.mismatch_label_keys.as_deref(),
                    own,
                ),
                namespaces: t.namespaces.iter().flatten().map(|n| self.string(n)).collect(),
                namespace_selector: t.namespace_selector.as_ref().map(|s| self.selector(s)),
                topology_key: self.string(&t.topology_key),
            })
            .collect()
    }

    pub(super) fn spread(
        &mut self,
        c: &api::TopologySpreadConstraint,
        own: Option<&BTreeMap<String, String>>,
    ) -> SpreadConstraint {
        SpreadConstraint {
            max_skew: c.max_skew.into(),
            topology_key: self.string(&c.topology_key),
            selector: self.selector_with(c.label_selector.as_ref(), c.match_label_keys.as_deref(), None, own),
            min_domains: c.min_domains.unwrap_or(1).into(),
            honour_node_affinity: c.node_affinity_policy.as_deref() != Some("Ignore"),
            honour_taints: c.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}
