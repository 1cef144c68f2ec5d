mod adopted;
mod answers;
mod claims;
mod instances;
mod late_calls;
mod left_behind;
mod observe;
mod releases;
mod requests;
mod resume;
mod unusable;
mod wants;

use super::answers::{accepted, launch_refused, launched, refused};
use super::calls::{Call, Deferred};
use super::instances::InstanceFacts;
use super::wants::{End, Want, Wants};
use super::*;
use crate::freshness::Freshness;
use crate::group::{FailedActivity, FailureClass, GroupSetup, GroupView, Instance, Lifecycle, PoolView};
use crate::ledger::{Balance, DesiredSeen, Ledger, Method, Reduction, RequestState, Share};
use crate::record::GroupKind;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

const NOW: &str = "2026-01-01T00:00:00Z";

const JOIN_TIMEOUT: Duration = Duration::from_secs(900);

fn now() -> Timestamp {
    NOW.parse().expect("a time")
}

/// A group over two zones that AWS does not even out.
fn group(name: &str, desired: i32, instances: &[(&str, Lifecycle)]) -> GroupView {
    let suspended = [("AZRebalance".to_owned(), "User suspended".to_owned())].into();
    GroupView {
        name: name.into(),
        desired,
        min: 0,
        max: 5,
        zones: vec!["a".to_owned(), "b".to_owned()],
        can_launch: false,
        setup: GroupSetup { suspended, ..GroupSetup::default() },
        instances: instances
            .iter()
            .map(|(id, lifecycle)| Instance {
                id: (*id).into(),
                zone: "a".to_owned(),
                lifecycle: *lifecycle,
                protected: false,
            })
            .collect(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: now(),
    }
}

/// Three Spot instances in service, `i-1` to `i-3`; nothing on demand.
fn usual() -> PoolView {
    use Lifecycle::InService;
    let spot = [("i-1", InService), ("i-2", InService), ("i-3", InService)];
    PoolView { spot: group("spot", 3, &spot), on_demand: group("on-demand", 0, &[]) }
}

fn add(view: &mut PoolView, kind: GroupKind, id: &str, lifecycle: Lifecycle) {
    let group = match kind {
        GroupKind::Spot => &mut view.spot,
        GroupKind::OnDemand => &mut view.on_demand,
    };
    group.instances.push(Instance { id: id.into(), zone: "a".to_owned(), lifecycle, protected: false });
}

fn wanted(attempt: u32, deadline: Option<Timestamp>) -> Want {
    let (stood_in_for, zone, gone, join_timeout) = (false, None, false, JOIN_TIMEOUT);
    Want::Instance { attempt, deadline, stood_in_for, zone, gone, join_timeout }
}

fn of_attempt(attempt: u32) -> Want {
    wanted(attempt, None)
}

fn instance() -> Want {
    of_attempt(0)
}

/// Its time is over.
fn urgent() -> Want {
    wanted(0, Some(now()))
}

fn wants<const N: usize>(all: [(GroupKind, &str, Want); N]) -> Wants {
    all.into_iter().map(|(kind, name, want)| ((kind, name.into()), want)).collect()
}

fn spot(name: &str) -> Wants {
    wants([(GroupKind::Spot, name, instance())])
}

fn plan(
    ledger: &Ledger,
    view: &PoolView,
    wants: &Wants,
    ends: &BTreeSet<End>,
    instances: &InstanceFacts,
    deferred: &Deferred,
    now: Timestamp,
) -> Plan {
    super::plan(&Inputs { ledger, view, wants, ends, instances, deferred, now })
}

fn next(ledger: &Ledger, view: &PoolView, wants: &Wants) -> Plan {
    plan(ledger, view, wants, &BTreeSet::new(), &InstanceFacts::default(), &Deferred::default(), now())
}

fn set(group: GroupKind, desired: i32) -> Option<Call> {
    Some(Call::SetDesired { group, desired })
}

fn end(id: &str, decrement: bool) -> Option<Call> {
    Some(Call::Terminate { group: GroupKind::Spot, instance_id: id.into(), decrement })
}

fn ends(id: &str, replacement: &str) -> BTreeSet<End> {
    let (instance_id, replacement) = (id.to_owned(), replacement.to_owned());
    [End {
        group: GroupKind::Spot,
        instance_id: instance_id.into(),
        replacement: replacement.into(),
        pressed: false,
    }]
    .into()
}

/// A SetDesiredCapacity for `i-1` took effect, and nothing came yet.
fn asked_by_desired() -> (Ledger, PoolView) {
    let mut view = usual();
    let asked = next(&Ledger::default(), &view, &spot("i-1"));
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    view.spot.desired = 4;
    (ledger, view)
}

/// The ledger and the view after one more was asked for `i-1` and brought `i-4`.
fn served() -> (Ledger, PoolView) {
    let (ledger, mut view) = asked_by_desired();
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::InService);
    (next(&ledger, &view, &spot("i-1")).ledger, view)
}

fn share(ledger: &Ledger, replacement: &str) -> Share {
    ledger.share(GroupKind::Spot, &replacement.into()).expect("a share").clone()
}

fn failure(seconds_ago: i64, class: FailureClass) -> FailedActivity {
    let started_at = now() - SignedDuration::from_secs(seconds_ago);
    FailedActivity { started_at, zone: Some("a".to_owned()), class, message: "text".to_owned() }
}

/// A launch failed in each zone so many seconds ago.
fn out_of_capacity(group: &mut GroupView, seconds_ago: i64) {
    let of_zone = |zone: &String| FailedActivity {
        zone: Some(zone.clone()),
        ..failure(seconds_ago, FailureClass::Capacity)
    };
    group.failures = group.zones.iter().map(of_zone).collect();
}

/// The pool with groups that LaunchInstances can be used on.
fn launching() -> PoolView {
    let mut view = usual();
    (view.spot.can_launch, view.on_demand.can_launch) = (true, true);
    view
}

fn zone_of(call: Option<&Call>) -> Option<(&str, &str)> {
    match call {
        Some(Call::Launch { zone, token, .. }) => Some((zone, token)),
        _ => None,
    }
}

/// A ledger in which `i-1` has asked Spot and `i-2` on-demand, neither answered yet.
fn both_asked() -> (Ledger, PoolView, Wants) {
    let wants = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::OnDemand, "i-2", instance())]);
    (next(&Ledger::default(), &usual(), &wants).ledger, usual(), wants)
}
