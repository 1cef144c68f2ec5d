//! What each node has left.

use super::packer::{CPU, Dimension, KEPT, MEMORY, PODS, Packer, claims};
use crate::cluster::index32;
use crate::cluster::{Pod, Resources};
use crate::effort::TooMuch;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// CPU, memory, ephemeral storage and pods come before what is named.
const KEPT_FREE: usize = 4;

impl Packer<'_> {
    /// What each node has left, without the pods that leave.
    pub(super) fn count_room(
        &mut self,
        leaving: &HashSet<u32>,
        extra: Option<(usize, Resources)>,
    ) -> Result<(), TooMuch> {
        let drivers = self.find_dimensions()?;
        let width = self.dimensions.len();
        self.free = vec![0; self.nodes.len() * width];
        let reaches = self.classes.iter().any(|c| !c.pod.spec.host_ports.is_empty());
        let look = reaches || !drivers.is_empty() || self.free_below.is_some();
        for n in 0..self.nodes.len() {
            let has = &self.nodes[n].allocatable;
            #[allow(clippy::cast_precision_loss, reason = "a score")]
            self.scale.push([1.0 / has.cpu_millis.max(1) as f64, 1.0 / has.memory.max(1) as f64]);
            if self.out[n].is_some() {
                continue;
            }
            self.subtract_used(n);
            let there = if n < self.snapshot.nodes().len() { self.snapshot.pod_indexes_on(n) } else { &[] };
            let any_leaves = !leaving.is_empty() && there.iter().any(|i| leaving.contains(i));
            if look || any_leaves {
                self.look_at_pods(n, there, leaving, &drivers, reaches)?;
            }
        }
        if let Some((node, reserved)) = extra {
            let free = &mut self.free[node * width..(node + 1) * width];
            free[CPU] = free[CPU].saturating_sub(reserved.cpu_millis);
            free[MEMORY] = free[MEMORY].saturating_sub(reserved.memory);
            free[2] = free[2].saturating_sub(reserved.ephemeral_storage);
            free[PODS] = free[PODS].saturating_sub(reserved.pods);
            for (dimension, free) in self.dimensions.iter().zip(free).skip(KEPT_FREE) {
                if let Dimension::Resource(name) = dimension {
                    *free = free.saturating_sub(reserved.extended(name));
                }
            }
        }
        Ok(())
    }

    /// What is counted per node, and what the classes need of it; gives the drivers of their volumes.
    fn find_dimensions(&mut self) -> Result<BTreeSet<Arc<str>>, TooMuch> {
        let effort = self.effort;
        let resource = |name: &str| Dimension::Resource(name.into());
        let mut dimensions =
            vec![resource("cpu"), resource("memory"), resource("ephemeral-storage"), resource("pods")];
        let mut extended = BTreeSet::new();
        let mut drivers = BTreeSet::new();
        for class in &self.classes {
            effort.spend(1 + 4 * class.pod.spec.claims.len() + class.pod.spec.requests.extended.len())?;
            extended.extend(class.pod.spec.requests.extended.iter().map(|(name, _)| name.clone()));
            drivers.extend(claims(self.snapshot, class.pod).filter_map(|c| c.driver.clone()));
        }
        dimensions.extend(extended.into_iter().map(Dimension::Resource));
        dimensions.extend(drivers.iter().cloned().map(Dimension::Volumes));
        self.dimensions = dimensions;
        effort.spend(self.nodes.len().saturating_mul(KEPT * self.dimensions.len()))?;
        let offered: Vec<bool> = self.dimensions.iter().map(|dimension| self.is_offered(dimension)).collect();
        for class in 0..self.classes.len() {
            effort.spend(4 * (self.dimensions.len() + self.classes[class].pod.spec.claims.len()))?;
            let mut need = self.needs(self.classes[class].pod);
            if !self.classes[class].moves {
                // A device of a DeviceClass with an extended resource name stands on no node (KEP-5004).
                need.iter_mut().zip(&offered).filter(|(_, offered)| !**offered).for_each(|(n, _)| *n = 0);
            }
            self.classes[class].need = need;
        }
        Ok(drivers)
    }

    /// Whether some node says that it has any.
    fn is_offered(&self, dimension: &Dimension) -> bool {
        match dimension {
            Dimension::Resource(name)
                if !matches!(&**name, "cpu" | "memory" | "ephemeral-storage" | "pods") =>
            {
                self.nodes.iter().any(|node| node.allocatable.extended(name) > 0)
            }
            Dimension::Resource(_) | Dimension::Volumes(_) => true,
        }
    }

    /// What a node has, less what its pods ask for.
    fn subtract_used(&mut self, n: usize) {
        let node = self.nodes[n];
        let has = &node.allocatable;
        let nothing = Resources::default();
        let used = if n < self.snapshot.nodes().len() { self.snapshot.used(n) } else { &nothing };
        let width = self.dimensions.len();
        let free = &mut self.free[n * width..(n + 1) * width];
        free[CPU] = has.cpu_millis.saturating_sub(used.cpu_millis);
        free[MEMORY] = has.memory.saturating_sub(used.memory);
        free[2] = has.ephemeral_storage.saturating_sub(used.ephemeral_storage);
        free[PODS] = has.pods.saturating_sub(used.pods);
        for (d, dimension) in self.dimensions.iter().enumerate().skip(4) {
            free[d] = match dimension {
                Dimension::Resource(name) => has.extended(name).saturating_sub(used.extended(name)),
                Dimension::Volumes(driver) => {
                    node.volume_limits.iter().find(|(d, _)| d == driver).map_or(i64::MAX, |(_, l)| *l)
                }
            };
        }
    }

    /// Gives back what the pods that leave ask for; ports and volumes of those that stay are taken.
    fn look_at_pods(
        &mut self,
        n: usize,
        there: &[u32],
        leaving: &HashSet<u32>,
        drivers: &BTreeSet<Arc<str>>,
        reaches: bool,
    ) -> Result<(), TooMuch> {
        let (snapshot, effort, width) = (self.snapshot, self.effort, self.dimensions.len());
        let free = &mut self.free[n * width..(n + 1) * width];
        let mut attached: HashSet<&str> = HashSet::new();
        for index in there {
            effort.spend(1)?;
            let pod = &*snapshot.pods()[*index as usize];
            if pod.phase.finished() {
                continue;
            }
            let claims_looked_at = if drivers.is_empty() { 0 } else { pod.spec.claims.len() };
            effort.spend(pod.spec.host_ports.len() + claims_looked_at.saturating_mul(2 + drivers.len()))?;
            if leaving.contains(index) || pod.spec.is_placeholder(self.free_below) {
                effort.spend(width)?;
                give_back(&self.dimensions, free, pod);
                continue;
            }
            if reaches && !pod.spec.host_ports.is_empty() {
                self.ports.entry(index32(n)).or_default().extend(pod.spec.host_ports.iter());
            }
            for claim in claims(snapshot, pod).filter(|_| !drivers.is_empty()) {
                if claim.driver.is_none() || !attached.insert(&claim.volume) {
                    continue;
                }
                take_slot(&self.dimensions, free, claim.driver.as_ref());
            }
        }
        if drivers.is_empty() {
            return Ok(());
        }
        // What is attached still, or already, and no pod there uses.
        let (storage, node) = (snapshot.storage(), &self.nodes[n].name);
        effort.spend(storage.count_on(node).saturating_mul(2 + drivers.len()))?;
        for attachment in storage.attached_to(node) {
            if attachment.volume.as_ref().is_none_or(|volume| !attached.contains(&**volume)) {
                take_slot(&self.dimensions, free, attachment.driver.as_ref());
            }
        }
        Ok(())
    }

    fn needs(&self, pod: &Pod) -> Vec<i64> {
        let asks = &pod.spec.requests;
        let mut volumes: HashMap<&Arc<str>, i64> = HashMap::new();
        for driver in claims(self.snapshot, pod).filter_map(|claim| claim.driver.as_ref()) {
            *volumes.entry(driver).or_default() += 1;
        }
        let of = |dimension: &Dimension| match dimension {
            Dimension::Resource(name) => asks.extended(name),
            Dimension::Volumes(driver) => volumes.get(driver).copied().unwrap_or(0),
        };
        let mut need = vec![asks.cpu_millis, asks.memory, asks.ephemeral_storage, 1];
        need.extend(self.dimensions.iter().skip(4).map(of));
        need
    }
}

/// Takes one volume off what a node can still attach for a driver; if that is not known, for each.
fn take_slot(dimensions: &[Dimension], free: &mut [i64], driver: Option<&Arc<str>>) {
    for (free, dimension) in free.iter_mut().zip(dimensions) {
        if matches!(dimension, Dimension::Volumes(of) if driver.is_none_or(|driver| driver == of)) {
            *free = free.saturating_sub(1);
        }
    }
}

fn give_back(dimensions: &[Dimension], free: &mut [i64], pod: &Pod) {
    let asks = &pod.spec.requests;
    free[CPU] = free[CPU].saturating_add(asks.cpu_millis);
    free[MEMORY] = free[MEMORY].saturating_add(asks.memory);
    free[2] = free[2].saturating_add(asks.ephemeral_storage);
    free[PODS] = free[PODS].saturating_add(1);
    for (free, dimension) in free.iter_mut().zip(dimensions).skip(4) {
        if let Dimension::Resource(name) = dimension {
            *free = free.saturating_add(asks.extended(name));
        }
    }
}
