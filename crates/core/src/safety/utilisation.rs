//! How full a pool is.

use crate::record::UtilisationPercent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What pods have reserved of each resource, as a share of what the nodes have (1 is all). What nobody has
/// reserved is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Utilisation(BTreeMap<String, f64>);

impl Utilisation {
    /// The share of `resource`, as Kubernetes calls it: `cpu`, `memory`, `pods`, `nvidia.com/gpu`.
    #[must_use]
    pub fn of(&self, resource: &str) -> f64 {
        self.0.get(resource).copied().unwrap_or(0.0)
    }
}

impl<S: Into<String>> FromIterator<(S, f64)> for Utilisation {
    fn from_iter<I: IntoIterator<Item = (S, f64)>>(shares: I) -> Self {
        Self(shares.into_iter().map(|(resource, share)| (resource.into(), share)).collect())
    }
}

impl From<&UtilisationPercent> for Utilisation {
    fn from(percent: &UtilisationPercent) -> Self {
        percent.0.iter().map(|(resource, percent)| (resource, f64::from(*percent) / 100.0)).collect()
    }
}

impl From<Utilisation> for UtilisationPercent {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, not negative")]
    fn from(shares: Utilisation) -> Self {
        // What a record can hold. What every node has is kept first.
        let percent = |share: f64| (share * 100.0).ceil().min(f64::from(MOST_PERCENT)) as u32;
        let common = ["cpu", "memory", "ephemeral-storage", "pods"];
        let (first, rest): (Vec<_>, Vec<_>) =
            shares.0.into_iter().partition(|(resource, _)| common.contains(&resource.as_str()));
        let kept = first.into_iter().chain(rest).take(MOST_RESOURCES);
        Self(kept.map(|(resource, share)| (resource, percent(share))).collect())
    }
}

/// More is not told of how full a pool is: the record's schema has limits.
const MOST_PERCENT: u32 = 1_000_000;
const MOST_RESOURCES: usize = 64;
