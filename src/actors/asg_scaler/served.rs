//! Whom a call is made for: its span is a part of their traces.

use crate::actors::deps::Deps;
use crate::crd::NodeReplacement;
use crate::telemetry::call_trace::{call_span, is_about};
use spot_guard_core::ledger::Ledger;
use spot_guard_core::scaling::calls::Call;
use tracing::Span;

/// The span to make a call in, about the group of this name or one instance of it.
pub(super) fn span_of(deps: &Deps, ledger: &Ledger, group: &str, call: &Call) -> Span {
    let records = || deps.view.replacements.state();
    let is_for = |record: &NodeReplacement| has_share(ledger, call, record);
    match call {
        Call::Launch { .. } => call_span("LaunchInstances", group, records, is_for),
        Call::SetDesired { .. } => call_span("SetDesiredCapacity", group, records, is_for),
        Call::Terminate { instance_id, .. } => {
            let operation = "TerminateInstanceInAutoScalingGroup";
            call_span(operation, instance_id, records, |record| is_about(record, instance_id))
        }
    }
}

/// Whether the request that the call is made for has a share of this replacement.
fn has_share(ledger: &Ledger, call: &Call, record: &NodeReplacement) -> bool {
    let name = record.replacement_name();
    let requests = ledger.scaling_requests.iter().filter(|held| Call::of(held).as_ref() == Some(call));
    requests.flat_map(|held| &held.shares).any(|share| share.replacement == name)
}
