//! What the cluster says of storage besides its claims: what is attached where, drivers and classes.

use super::volume::{Attachment, ClassTerms, DriverTerms};
use crate::ids::NodeName;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Attachments, drivers and classes, by name.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    attachments: HashMap<Arc<str>, Attachment>,
    /// Names of attachments by node.
    attached: HashMap<NodeName, BTreeMap<Arc<str>, Attachment>>,
    drivers: HashMap<Arc<str>, DriverTerms>,
    classes: HashMap<Arc<str>, ClassTerms>,
}

impl Storage {
    /// Says what a VolumeAttachment attaches; `None`: there is no such attachment.
    pub fn set_attachment(&mut self, name: Arc<str>, attachment: Option<Attachment>) {
        if let Some(before) = self.attachments.remove(&name)
            && let Some(there) = self.attached.get_mut(&before.node)
        {
            there.remove(&name);
            if there.is_empty() {
                self.attached.remove(&before.node);
            }
        }
        if let Some(attachment) = attachment {
            let there = self.attached.entry(attachment.node.clone()).or_default();
            there.insert(name.clone(), attachment.clone());
            self.attachments.insert(name, attachment);
        }
    }

    /// Says what a CSIDriver asks of nodes; `None`: there is no such driver.
    pub fn set_driver(&mut self, name: Arc<str>, terms: Option<DriverTerms>) {
        match terms {
            Some(terms) => self.drivers.insert(name, terms),
            None => self.drivers.remove(&name),
        };
    }

    /// Says where a StorageClass makes volumes; `None`: there is no such class.
    pub fn set_class(&mut self, name: Arc<str>, terms: Option<ClassTerms>) {
        match terms {
            Some(terms) => self.classes.insert(name, terms),
            None => self.classes.remove(&name),
        };
    }

    /// What is attached to a node.
    pub fn attached_to(&self, node: &NodeName) -> impl Iterator<Item = &Attachment> {
        self.attached.get(node).into_iter().flat_map(BTreeMap::values)
    }

    /// How many volumes are attached to a node.
    #[must_use]
    pub fn count_on(&self, node: &NodeName) -> usize {
        self.attached.get(node).map_or(0, BTreeMap::len)
    }

    /// Whether a node without this driver may not take a pod with one of its volumes.
    #[must_use]
    pub fn must_be_installed(&self, driver: &str) -> bool {
        self.drivers.get(driver).is_some_and(|terms| terms.must_be_installed)
    }

    /// Whether a new volume of the class can be made wherever its pod goes, as far as that is known.
    #[must_use]
    pub fn follows_pod(&self, class: &str) -> bool {
        self.classes.get(class).is_some_and(|terms| {
            terms.follows_pod
                && self.drivers.get(&terms.provisioner).is_none_or(|driver| !driver.counts_capacity)
        })
    }
}
