//! Requests to groups that the pool no longer names.
//!
//! A SpotPool whose spec names another group has two accounts: what Spot Guard changed in the old group, and
//! nothing in the new one. So a request keeps the name of its group, and is set aside while the pool names
//! another one. The new group owes nothing for it: nothing is claimed, lowered or terminated there on its
//! account.

use super::answers::reduced;
use super::inputs::Inputs;
use super::wants::Want;
use crate::ids::ReplacementName;
use crate::ledger::{Balance, Ledger, LeftBehind, RequestState, Share};
use crate::record::GroupKind;

/// Sets aside what is about other groups than those of the pool, and takes up again what is about them.
pub(super) fn sort(ledger: &mut Ledger, inputs: &Inputs<'_>) {
    let view = inputs.view;
    if let Some(reduction) =
        ledger.reduction.take_if(|reduction| !view.names(reduction.group, &reduction.group_name))
    {
        // Whether it took effect is not read any more. Booked as done, it lowers desired capacity once at
        // most.
        reduced(ledger, &reduction);
    }
    let left =
        ledger.scaling_requests.extract_if(.., |request| !view.names(request.group, &request.group_name));
    let left: Vec<_> = left.map(|request| LeftBehind { since: inputs.now, request }).collect();
    let back = ledger
        .left_behind
        .extract_if(.., |left| view.names(left.request.group, &left.request.group_name))
        .map(|left| left.request);
    ledger.scaling_requests.extend(back);
    ledger.left_behind.extend(left);
    prune(ledger, inputs);
}

/// Forgets the shares of replacements that are over and have nothing in the old group any more: neither is
/// its desired capacity raised for them, nor do they owe it anything.
fn prune(ledger: &mut Ledger, inputs: &Inputs<'_>) {
    for LeftBehind { request, .. } in &mut ledger.left_behind {
        let (kind, made) = (request.group, request.state == RequestState::Applied);
        let is_over = |share: &Share| inputs.want(kind, &share.replacement) == Some(&Want::Done);
        request.shares.retain(|share| !made || share.balance != Balance::Even || !is_over(share));
    }
    ledger.left_behind.retain(|left| !left.request.shares.is_empty());
}

impl Ledger {
    /// Whether a request for the replacement was left behind in another group of that kind.
    pub(super) fn is_left_behind(&self, kind: GroupKind, replacement: &ReplacementName) -> bool {
        let requests =
            self.left_behind.iter().map(|left| &left.request).filter(|request| request.group == kind);
        requests.flat_map(|request| &request.shares).any(|share| share.replacement == replacement)
    }
}
