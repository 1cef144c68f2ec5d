//! The picture of the cluster that the watches paint: what becomes of it with each change.

use crate::kube::convert::Converter;
use crate::kube::slim::{
    CSIDriver, CSINode, Head, Namespace, Node as ApiNode, PersistentVolume, PersistentVolumeClaim, Pod,
    PodDisruptionBudget, StorageClass, VolumeAttachment,
};
use spot_guard_core::cluster::{
    Claim, ClaimTerms, DriverTerms, Live, Node, Snapshot, Volume, VolumeLimits, VolumeReach,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// On the namespace of Spot Guard it pauses every pool, with any value but `false`.
pub const PAUSED_LABEL: &str = "spotguard.dev/paused";

/// Namespace (empty for cluster-scoped kinds) and name, in one allocation: every watched object has one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(Box<str>);

impl Key {
    pub(super) fn new(namespace: &str, name: &str) -> Self {
        // Neither holds a slash (IsValidPathSegmentName in apimachinery/pkg/api/validation/path/name.go).
        Self(format!("{namespace}/{name}").into())
    }

    fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> &str {
        self.parts().0
    }

    pub(super) fn name(&self) -> &str {
        self.parts().1
    }
}

/// What a watch says of an object.
pub(super) enum Change<K> {
    /// It is so now.
    Is(Key, K),
    /// It is there, and its fields cannot be read.
    Unread(Key, Box<Head>),
    /// It is gone.
    Gone(Key),
}

#[derive(Default)]
pub(super) struct Picture {
    converter: Converter,
    live: Live,
    /// How many volumes of each driver the nodes can attach.
    volume_limits: BTreeMap<Key, VolumeLimits>,
    /// What claims say of themselves.
    claims: BTreeMap<Key, ClaimTerms>,
    volumes: BTreeMap<Arc<str>, Volume>,
}

impl Picture {
    /// The cluster now.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.live.snapshot()
    }

    pub(super) fn pod(&mut self, change: Change<Pod>) {
        match change {
            Change::Is(_, pod) => self.live.set_pod(Arc::new(self.converter.pod(&pod).object)),
            Change::Unread(_, head) => self.live.set_pod(Arc::new(self.converter.unread_pod(&head))),
            Change::Gone(key) => self.live.remove_pod(key.namespace(), key.name()),
        }
        self.converter.tidy();
    }

    pub(super) fn node(&mut self, change: Change<ApiNode>) {
        match change {
            Change::Is(key, node) => {
                let limits = self.volume_limits.get(&key).cloned().unwrap_or_default();
                self.live.set_node(Arc::new(self.converter.node(&node, limits).object));
            }
            Change::Unread(key, head) => {
                let snapshot = self.live.snapshot();
                let node = self.converter.unread_node(&head, snapshot.node(&key.name().into()));
                drop(snapshot);
                self.live.set_node(Arc::new(node));
            }
            Change::Gone(key) => self.live.remove_node(&key.name().into()),
        }
        self.converter.tidy();
    }

    pub(super) fn csi_node(&mut self, change: Change<CSINode>) {
        let (key, limits) = match change {
            Change::Is(key, csi) => (key, self.converter.volume_limits(&csi)),
            Change::Unread(key, _) => {
                let limits = self.converter.unread_limits(self.volume_limits.get(&key));
                (key, limits)
            }
            Change::Gone(key) => (key, VolumeLimits::default()),
        };
        let known = self.live.snapshot().node(&key.name().into()).cloned();
        if let Some(node) = known {
            self.live.set_node(Arc::new(Node { volume_limits: limits.clone(), ..node }));
        }
        if limits.is_empty() {
            self.volume_limits.remove(&key);
        } else {
            self.volume_limits.insert(key, limits);
        }
        self.converter.tidy();
    }

    pub(super) fn budget(&mut self, change: Change<PodDisruptionBudget>) {
        match change {
            Change::Is(_, budget) => self.live.set_budget(self.converter.budget(&budget)),
            Change::Unread(_, head) => self.live.set_budget(self.converter.unread_budget(&head)),
            Change::Gone(key) => self.live.remove_budget(key.namespace(), key.name()),
        }
        self.converter.tidy();
    }

    pub(super) fn claim(&mut self, change: Change<PersistentVolumeClaim>) {
        match change {
            Change::Is(key, claim) => {
                let terms = self.converter.claim(&claim);
                self.claims.insert(key.clone(), terms);
                self.bind(&key);
            }
            Change::Unread(key, _) => {
                // Bound to nothing that is known, so it may be anywhere.
                self.claims.insert(key.clone(), ClaimTerms::default());
                self.bind(&key);
            }
            Change::Gone(key) => {
                self.claims.remove(&key);
                self.live.set_claim(key.namespace().into(), key.name().into(), None);
            }
        }
        self.converter.tidy();
    }

    pub(super) fn volume(&mut self, change: Change<PersistentVolume>) {
        let claim = match change {
            Change::Is(key, volume) => {
                let volume = self.converter.volume(&volume);
                let claim = volume.claim.clone();
                let before = self.volumes.insert(key.name().into(), volume);
                claim.or(before.and_then(|volume| volume.claim))
            }
            Change::Unread(key, _) => {
                let claim = self.volumes.get(key.name()).and_then(|volume| volume.claim.clone());
                let volume = Volume { driver: None, reach: VolumeReach::Unknown, claim: claim.clone() };
                self.volumes.insert(key.name().into(), volume);
                claim
            }
            Change::Gone(key) => self.volumes.remove(key.name()).and_then(|volume| volume.claim),
        };
        if let Some((namespace, name)) = claim {
            self.bind(&Key::new(&namespace, &name));
        }
        self.converter.tidy();
    }

    /// Brings claim and volume together. Either may come first.
    fn bind(&mut self, key: &Key) {
        let Some(terms) = self.claims.get(key) else { return };
        let claim = Claim::bound_to(terms.clone(), self.volumes.get(&terms.volume));
        self.live.set_claim(key.namespace().into(), key.name().into(), Some(claim));
    }

    pub(super) fn attachment(&mut self, change: Change<VolumeAttachment>) {
        let (key, attachment) = match change {
            Change::Is(key, attachment) => (key, Some(self.converter.attachment(&attachment))),
            Change::Unread(key, head) => (key, self.converter.unread_attachment(&head)),
            Change::Gone(key) => (key, None),
        };
        self.live.storage_mut().set_attachment(key.name().into(), attachment);
        self.converter.tidy();
    }

    pub(super) fn driver(&mut self, change: Change<CSIDriver>) {
        let (key, terms) = match change {
            Change::Is(key, driver) => (key, Some(Converter::driver(&driver))),
            Change::Unread(key, _) => {
                (key, Some(DriverTerms { must_be_installed: true, counts_capacity: true }))
            }
            Change::Gone(key) => (key, None),
        };
        self.live.storage_mut().set_driver(key.name().into(), terms);
    }

    pub(super) fn storage_class(&mut self, change: Change<StorageClass>) {
        let (key, terms) = match change {
            Change::Is(key, class) => (key, Some(self.converter.class(&class))),
            // It may be any: not known.
            Change::Unread(key, _) | Change::Gone(key) => (key, None),
        };
        self.live.storage_mut().set_class(key.name().into(), terms);
        self.converter.tidy();
    }

    pub(super) fn namespace(&mut self, change: Change<Namespace>) {
        match change {
            Change::Is(_, namespace) => {
                let (name, labels) = self.converter.namespace(&namespace);
                self.live.set_namespace(name, Some(labels));
            }
            Change::Unread(key, head) => {
                let labels =
                    head.metadata.labels.as_ref().map(|labels| self.converter.label_set(Some(labels)));
                self.live.set_namespace(key.name().into(), labels);
            }
            Change::Gone(key) => self.live.set_namespace(key.name().into(), None),
        }
        self.converter.tidy();
    }
}

/// Whether everything is paused from now on, if the change is about our own namespace.
pub(super) fn pauses(change: &Change<Namespace>, own: &Key) -> Option<bool> {
    let labels = match change {
        Change::Is(key, namespace) if key == own => namespace.metadata.labels.as_ref(),
        // As it was, unless it can be read.
        Change::Unread(key, head) if key == own => Some(head.metadata.labels.as_ref()?),
        Change::Gone(key) if key == own => return Some(false),
        Change::Is(..) | Change::Unread(..) | Change::Gone(_) => return None,
    };
    let value = labels.and_then(|labels| labels.get(PAUSED_LABEL));
    Some(value.is_some_and(|value| value != "false"))
}

#[cfg(test)]
mod tests;
