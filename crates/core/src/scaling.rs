//! How capacity is requested from a group, and how instances are terminated: boxes 2, 3, 3.2, 5 and 10.
//!
//! [`plan`] takes the ledger, what the groups look like, and what the replacements want. It gives the
//! next ledger and at most one call. The ledger is stored before the call is made, so a crash at any
//! point is resumed here.

pub mod answers;
pub mod calls;
mod claims;
mod even_zones;
pub mod inputs;
pub mod instances;
mod late_calls;
mod left_behind;
mod observe;
mod releases;
mod requests;
mod resume;
#[cfg(test)]
mod tests;
pub mod unusable;
pub mod zones;

pub use crate::ledger::wants;

use crate::ids::InstanceId;
use crate::ledger::Ledger;
use crate::record::GroupKind;
use calls::Call;
use inputs::Inputs;
use releases::SpareInstances;
use std::collections::BTreeSet;

/// The next ledger, and the call that it announces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be stored before the call.
    pub ledger: Ledger,
    /// To be made after the ledger is stored.
    pub call: Option<Call>,
    /// Spare instances that are terminated once they are cordoned; complete only in a plan without a call.
    pub cordon: BTreeSet<InstanceId>,
}

/// The next step for a pool.
///
/// Repeating the call that a plan names is without harm: it is planned from a fresh reading of the groups.
#[must_use]
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut ledger = inputs.ledger.clone();
    left_behind::sort(&mut ledger, inputs);
    ledger.take_in_arrived(inputs.view);
    ledger.note_moved();
    if let Some(call) = resume::resume(&mut ledger, inputs) {
        return Plan { ledger, call: Some(call), ..Plan::default() };
    }
    if let Some(call) = late_calls::find_late_calls(&mut ledger, inputs) {
        return Plan { ledger, call: Some(call), ..Plan::default() };
    }
    let pausing = observe::refresh_shares(&mut ledger, inputs);
    observe::take_in_erased(&mut ledger, inputs);
    claims::adopt(&mut ledger, inputs);
    claims::claim(&mut ledger, inputs, &pausing);
    claims::bind_to_successors(&mut ledger, inputs, &pausing);
    unusable::watch(&mut ledger, inputs);
    let mut spare = SpareInstances::new(inputs, &pausing);
    let mut call = requests::request_capacity(&mut ledger, inputs);
    if ledger.reduction.is_none() {
        call = call
            .or_else(|| releases::end_instances(&mut ledger, inputs, &mut spare))
            .or_else(|| unusable::end(&mut ledger, inputs, &mut spare))
            .or_else(|| releases::withdraw(&mut ledger, inputs, &mut spare));
    }
    let cordon = spare.cordon;
    ledger.drop_empty();
    observe::watch_desired(&mut ledger, inputs, call.as_ref());
    Plan { ledger, call, cordon }
}

/// The next request of one group for capacity, and what its instances serve. Nothing is ended, and nothing
/// lowered.
///
/// For the end of a turn in which a call of the other group got no answer: what became of that call is not
/// known, and a deadline cannot wait for it.
#[must_use]
pub fn plan_requests(inputs: &Inputs<'_>, kind: GroupKind) -> Plan {
    let mut ledger = inputs.ledger.clone();
    if let Some(call) = resume::repeat_requests(&mut ledger, inputs, &[kind]) {
        return Plan { ledger, call: Some(call), ..Plan::default() };
    }
    let pausing = observe::refresh_shares(&mut ledger, inputs);
    observe::take_in_erased(&mut ledger, inputs);
    claims::claim_from(&mut ledger, inputs, kind, &pausing);
    let call = requests::request_from(&mut ledger, inputs, kind);
    observe::watch_desired(&mut ledger, inputs, call.as_ref());
    Plan { ledger, call, ..Plan::default() }
}
