//! What pods ask for and nodes have.

use std::sync::Arc;

/// What a pod asks for, or what a node has to give.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resources {
    /// In thousandths of a core.
    pub cpu_millis: i64,
    /// In bytes.
    pub memory: i64,
    /// In bytes.
    pub ephemeral_storage: i64,
    /// Number of pods; of a node only.
    pub pods: i64,
    /// Everything else (GPUs, huge pages, device plugins), in whole units, sorted by name.
    pub extended: Box<[(Arc<str>, i64)]>,
}

impl Resources {
    /// How much there is of the extended resource `name`.
    #[must_use]
    pub fn extended(&self, name: &str) -> i64 {
        let at = self.extended.binary_search_by(|(known, _)| (**known).cmp(name));
        at.map_or(0, |at| self.extended[at].1)
    }
}

/// Adds one pod's requests to what is used.
pub(crate) fn add(used: &mut Resources, pod: &Resources) {
    change(used, pod, 1);
}

/// Takes one pod's requests off what is free.
pub(crate) fn take_off(free: &mut Resources, pod: &Resources) {
    change(free, pod, -1);
}

/// Adds one pod's requests to what is used (`by` is 1), or takes them off (-1).
pub(super) fn change(used: &mut Resources, pod: &Resources, by: i64) {
    used.cpu_millis = used.cpu_millis.saturating_add(by * pod.cpu_millis);
    used.memory = used.memory.saturating_add(by * pod.memory);
    used.ephemeral_storage = used.ephemeral_storage.saturating_add(by * pod.ephemeral_storage);
    used.pods += by;
    add_extended(&mut used.extended, &pod.extended, by);
}

/// Adds amounts to others, `by` times each; both are sorted by name, and nothing is left of what comes to 0.
pub(crate) fn add_extended(sum: &mut Box<[(Arc<str>, i64)]>, more: &[(Arc<str>, i64)], by: i64) {
    if more.is_empty() {
        return;
    }
    let mut merged = Vec::with_capacity(sum.len() + more.len());
    let mut amounts = std::mem::take(sum).into_vec().into_iter().peekable();
    for (name, amount) in more {
        while let Some(before) = amounts.next_if(|(known, _)| known < name) {
            merged.push(before);
        }
        let before = amounts.next_if(|(known, _)| known == name).map_or(0, |(_, amount)| amount);
        merged.push((name.clone(), before.saturating_add(amount.saturating_mul(by))));
    }
    merged.extend(amounts);
    merged.retain(|(_, amount)| *amount != 0);
    *sum = merged.into();
}
