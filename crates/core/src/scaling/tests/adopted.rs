//! On-demand above the baseline is taken into the ledger, and left again.

use super::*;

fn adopt(id: &str) -> Want {
    Want::Adopted { instance_id: id.into(), baseline: 1 }
}

/// Two on-demand instances, of which one is above the baseline.
fn above() -> PoolView {
    use Lifecycle::InService;
    PoolView { on_demand: group("on-demand", 2, &[("i-d1", InService), ("i-d2", InService)]), ..usual() }
}

#[test]
fn what_others_raised_counts_as_raised_for_the_replacement_and_nothing_is_called() {
    let wanted = wants([(GroupKind::OnDemand, "a", adopt("i-d2"))]);
    let found = next(&Ledger::default(), &above(), &wanted);
    assert_eq!(found.call, None);
    let share = found.ledger.share(GroupKind::OnDemand, &"a".into()).expect("a share");
    assert_eq!((share.balance, share.instance_id.as_deref()), (Balance::Raised, Some("i-d2")));
    let again = next(&found.ledger, &above(), &wanted);
    assert_eq!((again.call, &again.ledger), (None, &found.ledger), "once");

    let second = wants([(GroupKind::OnDemand, "b", adopt("i-d1"))]);
    let second = second.into_iter().chain(wanted.clone()).collect();
    let beside = next(&found.ledger, &above(), &second);
    assert_eq!(beside.ledger.share(GroupKind::OnDemand, &"b".into()), None, "only one is above the baseline");

    let mut view = above();
    view.on_demand.desired = 1;
    assert_eq!(next(&Ledger::default(), &view, &wanted).ledger, Ledger::default());
    let unknown = wants([(GroupKind::OnDemand, "a", adopt("i-d9"))]);
    assert_eq!(next(&Ledger::default(), &above(), &unknown).ledger, Ledger::default());
}

#[test]
fn what_is_given_back_takes_the_raised_capacity_with_it_and_what_is_left_stays_raised() {
    let wanted = wants([(GroupKind::OnDemand, "a", adopt("i-d2"))]);
    let held = next(&Ledger::default(), &above(), &wanted).ledger;
    let instance = wants([(GroupKind::OnDemand, "a", instance())]);
    let end = [End {
        group: GroupKind::OnDemand,
        instance_id: "i-d2".into(),
        replacement: "a".into(),
        pressed: false,
    }];
    let (facts, deferred) = (InstanceFacts::default(), Deferred::default());
    let given = plan(&held, &above(), &instance, &end.into(), &facts, &deferred, now());
    let (group, instance_id) = (GroupKind::OnDemand, "i-d2".into());
    assert_eq!(given.call, Some(Call::Terminate { group, instance_id, decrement: true }));

    let left = next(&held, &above(), &wants([(GroupKind::OnDemand, "a", Want::Left)]));
    assert_eq!((left.call, left.ledger.scaling_requests.len()), (None, 0));
}
