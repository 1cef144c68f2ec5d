//! Volumes, and how many of them a node takes.

use super::Converter;
use crate::kube::closed::Accounted as _;
use crate::kube::slim::{self as api, CSINode};
use spot_guard_core::cluster::{
    Attachment, ClaimTerms, ClassTerms, DriverTerms, NodeSelectorTerm, Requirement, Volume, VolumeLimits,
    VolumeReach,
};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Converter {
    /// The drivers of a node, and how many volumes each can attach.
    pub fn volume_limits(&mut self, csi: &CSINode) -> VolumeLimits {
        let limits: BTreeMap<Arc<str>, i64> = csi
            .spec
            .drivers
            .iter()
            .map(|d| {
                // One of which more is said than is understood takes no volume.
                let unlimited = if d.unknown().is_some() { 0 } else { i64::MAX };
                let count = d.allocatable.as_ref().and_then(|allocatable| allocatable.count);
                (self.string(&d.name), count.map_or(unlimited, i64::from))
            })
            .collect();
        limits.into_iter().collect()
    }

    /// What a claim says of itself. A new pod cannot use one that is lost or deleted, or not bound for good.
    ///
    /// Rules: `podHasPVCs` in pkg/scheduler/framework/plugins/volumebinding/volume_binding.go,
    /// `isPVCFullyBound` in its binder.go.
    pub fn claim(&mut self, claim: &api::PersistentVolumeClaim) -> ClaimTerms {
        let (metadata, spec) = (&claim.metadata, claim.spec.as_ref());
        let lost = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Lost");
        let bound = metadata.annotations.as_ref().is_some_and(|a| a.bound.is_some());
        let usable = bound
            && !lost
            && metadata.deletion_timestamp.is_none()
            && spec.unknown().or_else(|| claim.status.unknown()).is_none();
        let volume = spec.and_then(|s| s.volume_name.as_deref()).filter(|_| usable);
        let modes = || spec.and_then(|s| s.access_modes.as_ref()).into_iter().flatten();
        ClaimTerms {
            volume: self.string(volume.unwrap_or_default()),
            class: self.string(spec.and_then(|s| s.storage_class_name.as_deref()).unwrap_or_default()),
            one_pod: modes().any(|mode| mode == "ReadWriteOncePod"),
            one_node: modes().all(|mode| mode == "ReadWriteOnce") && modes().next().is_some(),
        }
    }

    /// What is attached where.
    pub fn attachment(&mut self, attachment: &api::VolumeAttachment) -> Attachment {
        let spec = &attachment.spec;
        Attachment {
            node: self.string(&spec.node_name).into(),
            driver: Some(self.string(&spec.attacher)).filter(|driver| !driver.is_empty()),
            volume: spec.source.persistent_volume_name.as_deref().map(|name| self.string(name)),
        }
    }

    /// What a driver asks of nodes.
    #[must_use]
    pub fn driver(driver: &api::CSIDriver) -> DriverTerms {
        let unclear = driver.spec.unknown().is_some();
        DriverTerms {
            must_be_installed: unclear || driver.spec.prevent_pod_scheduling_if_missing == Some(true),
            counts_capacity: unclear || driver.spec.storage_capacity == Some(true),
        }
    }

    /// Where a class makes new volumes.
    pub fn class(&mut self, class: &api::StorageClass) -> ClassTerms {
        ClassTerms {
            provisioner: self.string(&class.provisioner),
            follows_pod: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
                && class.allowed_topologies.as_ref().is_none_or(Vec::is_empty)
                && !matches!(&*class.provisioner, "" | "kubernetes.io/no-provisioner")
                && class.unknown().is_none(),
        }
    }

    /// A volume.
    pub fn volume(&mut self, volume: &api::PersistentVolume) -> Volume {
        let Some(spec) = volume.spec.as_ref().filter(|spec| spec.unknown().is_none()) else {
            return Volume { reach: VolumeReach::Unknown, ..Volume::default() };
        };
        let driver = match (&spec.csi, &spec.aws_elastic_block_store) {
            (Some(csi), _) => Some(self.string(&csi.driver)),
            // Served by the driver since in-tree volumes were migrated (1.23).
            (None, Some(_)) => Some(self.string("ebs.csi.aws.com")),
            (None, None) => None,
        };
        let required = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
        let mut terms = required.map(|r| self.node_terms(&r.node_selector_terms)).map(Vec::from);
        let zones = self.volume_zones(volume);
        if !zones.is_empty() {
            for term in terms.get_or_insert_with(|| vec![NodeSelectorTerm::default()]) {
                // An empty term meets nothing, and must go on doing so.
                if required.is_none() || !term.labels.is_empty() || !term.fields.is_empty() {
                    term.labels = term.labels.iter().chain(&zones).cloned().collect();
                }
            }
        }
        let reach = terms.map_or(VolumeReach::Anywhere, |terms| VolumeReach::Nodes(terms.into()));
        let claim = spec.claim_ref.as_ref();
        let claim = claim.and_then(|claim| Some((claim.namespace.as_deref()?, claim.name.as_deref()?)));
        let claim = claim.map(|(namespace, name)| (self.string(namespace), self.string(name)));
        Volume { driver, reach, claim }
    }

    /// Zone and region by the volume's labels, the older way to say where it is.
    ///
    /// Rules: pkg/scheduler/framework/plugins/volumezone/volume_zone.go.
    fn volume_zones(&mut self, volume: &api::PersistentVolume) -> Vec<Requirement> {
        let keys = [
            ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
            ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
            ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
            ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ];
        let labels = volume.metadata.labels.as_ref();
        keys.iter()
            .filter_map(|(key, today)| {
                let value = labels?.get(*key)?;
                let values: Vec<String> = value.split("__").map(|v| v.trim().to_owned()).collect();
                Some(self.requirement(today, "In", Some(&values)))
            })
            .collect()
    }
}
