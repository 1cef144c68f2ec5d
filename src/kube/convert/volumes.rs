//! Volumes, and how many of them a node takes.

use super::Converter;
use crate::kube::slim::{self as api, CSINode};
use spot_guard_core::cluster::{NodeSelectorTerm, Requirement, Volume, VolumeLimits, VolumeReach};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Converter {
    /// How many volumes a node can attach.
    pub fn volume_limits(&mut self, csi: &CSINode) -> VolumeLimits {
        let limits: BTreeMap<Arc<str>, i64> = csi
            .spec
            .drivers
            .iter()
            .filter_map(|d| {
                let count = d.allocatable.as_ref()?.count?;
                Some((self.string(&d.name), count.into()))
            })
            .collect();
        limits.into_iter().collect()
    }

    /// The name of the volume that a claim is bound to; empty while it is not.
    pub fn bound_volume(&mut self, claim: &api::PersistentVolumeClaim) -> Arc<str> {
        self.string(claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default())
    }

    /// A volume.
    pub fn volume(&mut self, volume: &api::PersistentVolume) -> Volume {
        let Some(spec) = volume.spec.as_ref() else {
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
