//! On-demand instances above a pool's baseline that no replacement requested: how many, since when, and which
//! may be adopted. And what a group is to have without our changes.

use crate::group::GroupView;
use crate::ids::{InstanceId, ReplacementName};
use crate::ledger::{Balance, Ledger, RequestState};
use crate::record::{Excess, GroupKind};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of the names of records that are about adopted instances.
pub(crate) const ADOPTED: &str = ".adopted-";

/// How a group stands with what was changed for replacements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStanding {
    /// Its desired capacity without our changes, in instances.
    pub baseline: i32,
    /// How many instances it owes to replacements.
    pub owed: i32,
}

impl GroupStanding {
    /// That of a group which is to have `desired` instances now.
    #[must_use]
    pub fn of(ledger: &Ledger, group: GroupKind, desired: i32) -> Self {
        let shares = |balance: Balance| {
            let count = ledger.shares(group).filter(|share| share.balance == balance).count();
            i32::try_from(count).unwrap_or(i32::MAX)
        };
        let lowered = shares(Balance::OwedByUs);
        let baseline = desired.saturating_sub(shares(Balance::Raised)).saturating_add(lowered);
        Self { baseline, owed: lowered.saturating_add(shares(Balance::OwedByGroup)) }
    }
}

/// How many on-demand instances are above the baseline that no replacement requested; `None` while a call of
/// ours is under way.
#[must_use]
pub fn excess(ledger: &Ledger, on_demand: &GroupView, baseline: u32) -> Option<u32> {
    Some(theirs(ledger, on_demand)?.saturating_sub(baseline))
}

/// Whether the baseline needs the instance that this replacement adopted: others have ended as many
/// meanwhile, or it was raised. Of several adopted ones as many are needed as are missing, in the order of
/// their names.
#[must_use]
pub fn needs_back(
    ledger: &Ledger,
    on_demand: &GroupView,
    baseline: Option<u32>,
    replacement: &ReplacementName,
) -> bool {
    let Some(baseline) = baseline else { return true };
    let Some(theirs) = theirs(ledger, on_demand) else { return false };
    let raised = ledger.shares(GroupKind::OnDemand).filter(|share| share.is_raised());
    let is_adopted = |name: &ReplacementName| name.contains(ADOPTED) && name < replacement;
    let earlier = raised.filter(|share| is_adopted(&share.replacement)).count();
    earlier < usize::try_from(baseline.saturating_sub(theirs)).unwrap_or(usize::MAX)
}

/// How many instances the group is to have without those that replacements requested or adopted.
fn theirs(ledger: &Ledger, on_demand: &GroupView) -> Option<u32> {
    let kind = GroupKind::OnDemand;
    let applied = ledger.requests(kind).all(|request| request.state == RequestState::Applied);
    let lowers = ledger.reduction.as_ref().is_some_and(|reduction| reduction.group == kind);
    let doubted = ledger.doubts.iter().any(|doubt| doubt.group == kind);
    if !applied || lowers || doubted || !ledger.left_behind.is_empty() {
        return None;
    }
    let raised = ledger.shares(kind).filter(|share| share.is_raised()).count();
    let theirs = usize::try_from(on_demand.desired).unwrap_or(0).saturating_sub(raised);
    Some(u32::try_from(theirs).unwrap_or(u32::MAX))
}

/// Keeps in the ledger since when there is excess. While a call of ours is under way nothing can be said, and
/// what was seen stands.
pub fn watch(ledger: &mut Ledger, on_demand: &GroupView, baseline: Option<u32>, now: Timestamp) {
    let Some(baseline) = baseline else {
        ledger.excess = None;
        return;
    };
    let Some(instances) = excess(ledger, on_demand, baseline) else { return };
    let stood = ledger.excess.filter(|held| instances <= held.instances).map(|held| held.since);
    ledger.excess = (instances > 0).then(|| Excess { instances, since: stood.unwrap_or(now) });
}

/// Whether an instance may be adopted, which is to be written into the ledger; `None` while nobody knows.
#[must_use]
pub fn may_adopt(
    ledger: &Ledger,
    on_demand: &GroupView,
    id: &InstanceId,
    baseline: Option<u32>,
) -> Option<bool> {
    let Some(baseline) = baseline else { return Some(false) };
    let is_free = on_demand.is_in_service(id) && !ledger.claimed(GroupKind::OnDemand).contains(id);
    if !is_free {
        return Some(false);
    }
    excess(ledger, on_demand, baseline).map(|instances| instances > 0)
}
