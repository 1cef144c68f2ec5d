//! An on-demand instance above the baseline goes back to Spot.

use super::*;
use crate::adoption::{self, Adopted, Candidate};
use crate::ledger::wants::Want;

const BASELINE: Option<u32> = Some(0);

fn adopted(requests_spot: bool) -> Stage {
    let instance = Candidate { instance_id: "od".into(), node: "od".into() };
    let mut stage = Stage::new();
    stage.serve(GroupKind::OnDemand, "od");
    let status = adoption::open(&Adopted { instance, requests_spot }, &stage.view.spot, now());
    Stage { status, adopted: true, baseline: BASELINE, old_node: false, ..stage }
}

fn want(stage: &Stage, group: GroupKind) -> Option<Want> {
    stage.commands().wants.get(&(group, OLD.into())).cloned()
}

fn is_instance(want: Option<Want>) -> bool {
    matches!(want, Some(Want::Instance { gone: false, .. }))
}

fn safe(stage: &mut Stage) {
    let successor = stage.status.fallback.successor().map(|held| held.instance_id.clone());
    let found = ReturnAssessment { of: Some("od".into()), successor, ..ReturnAssessment::default() };
    stage.assessment = Some(found);
    stage.go();
}

#[test]
pub(super) fn nothing_is_done_before_the_ledger_holds_what_others_raised_for_it() {
    let mut stage = adopted(false);
    stage.serve(GroupKind::Spot, OLD);
    // The second assessment is about the Spot node that the first one found.
    safe(&mut stage);
    safe(&mut stage);
    assert_eq!(stage.phase(), Phase::OnFallback);
    let instance_id = "od".into();
    assert_eq!(want(&stage, GroupKind::OnDemand), Some(Want::Adopted { instance_id, baseline: 0 }));
    assert_eq!(want(&stage, GroupKind::Spot), None, "nothing is asked of Spot");
    assert!(stage.commands().protected.is_empty(), "cluster-autoscaler may scale it down");

    stage.share(GroupKind::OnDemand, Some("od"), None).go();
    safe(&mut stage);
    assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
    stage.drained().go();
    assert!(stage.commands().ends.iter().any(|end| end.instance_id == "od"));
    stage.settle(GroupKind::OnDemand).lose("od").go();
    assert_eq!(want(&stage, GroupKind::OnDemand), Some(Want::Done));
    stage.ledger = Ledger::default();
    stage.go();
    assert_eq!(stage.phase(), Phase::Completed, "{:#?}", stage.status);
    assert!(stage.has(FlowBox::ScaleDown, Outcome::ScaledDown));
}

#[test]
fn spot_keeps_what_came_for_it_once_it_is_gone() {
    let mut stage = adopted(true);
    stage.share(GroupKind::OnDemand, Some("od"), None).go();
    assert!(is_instance(want(&stage, GroupKind::Spot)), "{:?}", stage.commands().wants);
    assert!(is_instance(want(&stage, GroupKind::OnDemand)));
    stage.share(GroupKind::Spot, Some("i-4"), None).go();
    safe(&mut stage);
    assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
    stage.drained().go().settle(GroupKind::OnDemand).lose("od").go();
    assert_eq!(want(&stage, GroupKind::Spot), Some(Want::Left), "it is the group's own from now on");
    stage.ledger = Ledger::default();
    assert_eq!(stage.go().phase(), Phase::Completed, "{:#?}", stage.status);
}

#[test]
fn it_is_released_if_its_return_stays_unsafe_or_nothing_is_above_the_baseline() {
    let mut stage = adopted(true);
    stage.share(GroupKind::OnDemand, Some("od"), None);
    stage.share(GroupKind::Spot, Some("i-4"), None).go();
    safe(&mut stage);
    let mut stage = adopted(true);
    stage.share(GroupKind::OnDemand, Some("od"), None);
    stage.share(GroupKind::Spot, Some("i-4"), None).go();
    let of = Some("od".into());
    let (successor, unsafe_) = (Some("i-4".into()), vec![Reason::NoSpotInstance]);
    stage.assessment = Some(ReturnAssessment { of, successor, unsafe_, ..ReturnAssessment::default() });
    assert_eq!(stage.go().pass(1799).go().phase(), Phase::OnFallback);
    stage.pass(1).go();
    assert!(stage.has(FlowBox::Monitor, Outcome::Released), "{:#?}", stage.status);
    assert_eq!(want(&stage, GroupKind::OnDemand), Some(Want::Left), "it stays, and is others' again");
    assert_eq!(want(&stage, GroupKind::Spot), Some(Want::Nothing), "what came for it goes back");
    stage.ledger = Ledger::default();
    assert_eq!(stage.go().phase(), Phase::Completed);

    let mut lowered = adopted(false);
    lowered.view.on_demand.desired = 0;
    assert!(lowered.go().has(FlowBox::Monitor, Outcome::Released));
    assert_eq!(lowered.phase(), Phase::Completed, "{:#?}", lowered.status);
}

#[test]
fn its_drain_ends_when_others_have_ended_as_many_meanwhile() {
    for terminates in [false, true] {
        let mut stage = adopted(false);
        stage.share(GroupKind::OnDemand, Some("od"), None);
        stage.serve(GroupKind::Spot, OLD);
        safe(&mut stage);
        safe(&mut stage);
        assert_eq!(stage.phase(), Phase::Returning, "{:#?}", stage.status);
        if terminates {
            stage.drained().go();
        }
        // A person raised it, which is the same.
        stage.baseline = Some(1);
        stage.go();
        assert!(stage.has(FlowBox::Monitor, Outcome::Released), "{terminates}: {:#?}", stage.status);
        let commands = stage.commands();
        assert!(commands.ends.is_empty() && commands.drains.is_empty());
    }
}

#[test]
fn somebody_else_may_terminate_it_at_any_time() {
    let mut stage = adopted(true);
    stage.share(GroupKind::OnDemand, Some("od"), None);
    stage.share(GroupKind::Spot, None, None).go();
    stage.lose("od").view.on_demand.desired = 0;
    for request in stage.ledger.scaling_requests.iter_mut().filter(|held| held.group == GroupKind::OnDemand) {
        request
            .shares
            .iter_mut()
            .for_each(|share| (share.instance_id, share.balance) = (None, Balance::Even));
    }
    stage.go();
    assert_eq!(want(&stage, GroupKind::Spot), Some(Want::Nothing), "{:#?}", stage.status);
    stage.ledger = Ledger::default();
    assert_eq!(stage.go().phase(), Phase::Completed);
}
