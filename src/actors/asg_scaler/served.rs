//! Whom a call is made for: its span is a part of their traces.

use crate::actors::deps::Deps;
use crate::crd::NodeReplacement;
use crate::telemetry::call_trace::{call_span, is_about};
use spot_guard_core::ids::ReplacementName;
use spot_guard_core::ledger::Ledger;
use spot_guard_core::scaling::calls::Call;
use std::collections::BTreeSet;
use tracing::Span;

/// The span to make a call in, about the group of this name or one instance of it.
pub(super) fn span_of(deps: &Deps, ledger: &Ledger, group: &str, call: &Call) -> Span {
    let records = || deps.view.replacements.state();
    let served = with_shares(ledger, call);
    let is_for = |record: &NodeReplacement| served.contains(&record.replacement_name());
    match call {
        Call::Launch { .. } => call_span("LaunchInstances", group, records, is_for),
        Call::SetDesired { .. } => call_span("SetDesiredCapacity", group, records, is_for),
        Call::Terminate { instance_id, .. } => {
            let operation = "TerminateInstanceInAutoScalingGroup";
            call_span(operation, instance_id, records, |record| is_about(record, instance_id))
        }
    }
}

/// The replacements with a share of the request that the call is made for.
fn with_shares<'a>(ledger: &'a Ledger, call: &Call) -> BTreeSet<&'a ReplacementName> {
    let requests = ledger.scaling_requests.iter().filter(|held| Call::of(held).as_ref() == Some(call));
    requests.flat_map(|held| &held.shares).map(|share| &share.replacement).collect()
}
