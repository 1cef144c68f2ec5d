//! A cluster as it is read, before it is indexed.

use super::budget::DisruptionBudget;
use super::labels::Labels;
use super::node::Node;
use super::pod::Pod;
use super::storage::Storage;
use super::volume::Claim;
use std::collections::HashMap;
use std::sync::Arc;

/// What a [`Snapshot`] is made from.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// All nodes.
    pub nodes: Vec<Arc<Node>>,
    /// All pods.
    pub pods: Vec<Arc<Pod>>,
    /// All budgets.
    pub budgets: Vec<DisruptionBudget>,
    /// The claims, by namespace and name.
    pub claims: HashMap<(Arc<str>, Arc<str>), Claim>,
    /// What is attached where, drivers and classes.
    pub storage: Storage,
    /// The labels of the namespaces. Where one is missing, terms that select namespaces by label are read
    /// the cautious way.
    pub namespaces: HashMap<Arc<str>, Labels>,
}
