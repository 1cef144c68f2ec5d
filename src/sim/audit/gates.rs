//! The gates between the controllers and their world, where each call is judged.

use super::drains::MARKS_GO_WITHIN;
use super::{Auditor, is_write};
use crate::sim::world::Gates;
use spot_guard_cloud::cloud::{self, GateCall};
use spot_guard_cloud::cluster::{self, RequestInfo};
use std::sync::Arc;

impl Auditor {
    /// Gates that see what a controller does before `next` does.
    #[must_use]
    pub fn gates(&self, next: Gates) -> Gates {
        Gates {
            kube: Some(Arc::new(KubeGate { auditor: self.clone(), next: next.kube })),
            aws: Some(Arc::new(AwsGate { auditor: self.clone(), next: next.aws })),
            clock: next.clock,
        }
    }
}

struct AwsGate {
    auditor: Auditor,
    next: Option<Arc<dyn cloud::CallGate>>,
}

impl cloud::CallGate for AwsGate {
    fn before_call(&self, call: &GateCall) -> cloud::CallFate {
        let verdict = self.next.as_ref().map_or(cloud::CallFate::Pass, |next| next.before_call(call));
        if call.changes() && matches!(verdict, cloud::CallFate::Pass | cloud::CallFate::Delay(_)) {
            self.auditor.before_change(call);
        }
        verdict
    }

    fn after_call(&self, call: &GateCall) -> cloud::CallFate {
        self.next.as_ref().map_or(cloud::CallFate::Pass, |next| next.after_call(call))
    }
}

struct KubeGate {
    auditor: Auditor,
    next: Option<Arc<dyn cluster::RequestGate>>,
}

impl cluster::RequestGate for KubeGate {
    fn before(&self, request: &RequestInfo) -> cluster::RequestFate {
        let verdict = self.next.as_ref().map_or(cluster::RequestFate::Pass, |next| next.before(request));
        if is_write(request)
            && matches!(request.resource.as_str(), "nodereplacements" | "interruptionnotices")
        {
            self.auditor.read_notices();
        }
        if is_write(request)
            && request.resource == "pods"
            && let (Some(namespace), Some(pod)) = (&request.namespace, &request.name)
        {
            self.auditor.check_leaves(namespace, pod);
        }
        if is_write(request)
            && request.resource == "nodes"
            && let Some(node) = &request.name
            && self.auditor.is_marked(node)
        {
            self.auditor.state().marked_before.insert(node.clone());
        }
        verdict
    }

    fn after(&self, request: &RequestInfo, status: u16) -> cluster::RequestFate {
        let auditor = &self.auditor;
        if is_write(request) {
            match (request.resource.as_str(), request.subresource.as_str()) {
                ("nodes", _) => {
                    let node = request.name.clone().unwrap_or_default();
                    let before = auditor.state().marked_before.remove(&node);
                    let now = auditor.is_marked(&node);
                    if now && !before {
                        auditor.check_marked(&node);
                    } else if before && !now {
                        auditor.note(format!("{node} is no longer marked"));
                    }
                }
                ("nodereplacements", _) => auditor.watch_records(),
                ("pods", subresource) => {
                    let what = if subresource == "eviction" { "eviction" } else { "deletion" };
                    let pod = request.name.as_deref().unwrap_or_default();
                    auditor.note(format!("{what} of pod {pod}: {status}"));
                    auditor.watch_budgets();
                }
                _ => {}
            }
            auditor.watch_marks(MARKS_GO_WITHIN);
        }
        self.next.as_ref().map_or(cluster::RequestFate::Pass, |next| next.after(request, status))
    }
}
