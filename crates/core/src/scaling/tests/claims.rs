use super::*;

#[test]
fn a_new_instance_goes_to_the_most_urgent_story_and_never_to_a_second_one() {
    let both = wants([(GroupKind::Spot, "i-1", instance()), (GroupKind::Spot, "i-2", urgent())]);
    let asked = next(&Ledger::default(), &usual(), &both);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    let mut view = usual();
    view.spot.desired = 5;
    add(&mut view, GroupKind::Spot, "i-4", Lifecycle::Pending);
    let ledger = next(&ledger, &view, &both).ledger;
    assert_eq!(share(&ledger, "i-2").instance_id.as_deref(), Some("i-4"));
    assert_eq!(share(&ledger, "i-1").instance_id, None);
}

#[test]
fn a_share_that_goes_back_claims_nothing_more() {
    let mut view = usual();
    let on_demand = wants([(GroupKind::OnDemand, "i-1", instance())]);
    let asked = next(&Ledger::default(), &view, &on_demand);
    let mut ledger = asked.ledger;
    accepted(&mut ledger, &asked.call.expect("a call"));
    ledger.scaling_requests[0].shares[0].balance = Balance::Even;
    view.on_demand.desired = 1;
    add(&mut view, GroupKind::OnDemand, "theirs", Lifecycle::InService);
    let nothing = wants([(GroupKind::OnDemand, "i-1", Want::Nothing)]);
    let plan = next(&ledger, &view, &nothing);
    assert_eq!((plan.call, plan.ledger), (None, Ledger::default()));
}

#[test]
fn an_instance_whose_plus_one_is_settled_belongs_to_the_group_and_is_not_ended() {
    let (mut ledger, mut view) = served();
    ledger.scaling_requests[0].shares[0].balance = Balance::Even;
    view.spot.desired = 3;
    view.spot.instances.remove(0);
    let nothing = wants([(GroupKind::Spot, "i-1", Want::Nothing)]);
    assert_eq!(next(&ledger, &view, &nothing), Plan::default());
}
