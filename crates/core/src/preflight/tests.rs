use super::*;
use crate::group::{CapacityUnit, GroupSetup, Instance, MixedMarkets, Rollout};
use crate::ids::{GroupName, PoolName};
use crate::reason::ReasonCode;
use crate::testing::leaked;

fn group(name: &str) -> GroupView {
    GroupView {
        name: name.into(),
        desired: 2,
        min: 0,
        max: 5,
        zones: vec!["a".to_owned()],
        can_launch: true,
        setup: GroupSetup::default(),
        instances: Vec::<Instance>::new(),
        failures: Vec::new(),
        unlisted_launches: 0,
        observed_at: "2026-01-01T00:00:00Z".parse().expect("a time"),
    }
}

/// A pool of the two groups.
fn names(name: &PoolName) -> PoolNames<'_> {
    let (spot, on_demand) = (leaked("spot"), leaked("on-demand"));
    PoolNames {
        name,
        spot,
        on_demand,
        launch_instances: LaunchInstances::Auto,
        replaced_by: None,
        baseline: None,
    }
}

fn found(change: impl Fn(&mut PoolView)) -> Vec<(GroupName, ReasonCode, Severity)> {
    found_where(None, change)
}

/// The findings where a person said who replaces the nodes.
fn found_where(
    replaced_by: Option<ReplacedBy>,
    change: impl Fn(&mut PoolView),
) -> Vec<(GroupName, ReasonCode, Severity)> {
    let mut view = PoolView { spot: group("spot"), on_demand: group("on-demand") };
    change(&mut view);
    let pool = PoolNames { replaced_by, ..names(leaked("pool")) };
    let owner = |_: &GroupName| Some("pool".into());
    let findings = check(pool, &view, &Ledger::default(), &owner, None);
    for finding in &findings {
        let text = finding.to_string();
        assert!(text.contains(&*finding.group), "{text}");
    }
    findings
        .into_iter()
        .map(|finding| (finding.group, finding.problem.code(), finding.problem.severity()))
        .collect()
}

fn suspend(group: &mut GroupView, process: &str) {
    group.setup.suspended.insert(process.to_owned(), "User suspended at 2026-01-01T00:00:00Z".to_owned());
}

#[test]
fn a_pool_of_two_plain_groups_has_no_findings() {
    assert_eq!(found(|_| {}), []);
}

#[test]
fn each_set_up_that_another_owns_or_that_cannot_work_is_refused() {
    type Change = fn(&mut PoolView);
    let mixed = |on_demand_base, on_demand_percentage| MixedMarkets { on_demand_base, on_demand_percentage };
    let rows: [(&str, ReasonCode, Change); 6] = [
        ("spot", ReasonCode::OperatorOwned, |view| {
            view.spot.setup.operator = Some("eks.amazonaws.com".to_owned())
        }),
        ("spot", ReasonCode::CountedInUnits, |view| view.spot.setup.counted_in = Some(CapacityUnit::Weights)),
        ("on-demand", ReasonCode::CountedInUnits, |view| {
            view.on_demand.setup.counted_in = Some(CapacityUnit::Type("memory-mib".to_owned()));
        }),
        ("spot", ReasonCode::GroupBeingDeleted, |view| {
            view.spot.setup.status = Some("Delete in progress".to_owned());
        }),
        ("spot", ReasonCode::TerminateSuspended, |view| suspend(&mut view.spot, "Terminate")),
        ("on-demand", ReasonCode::TerminateSuspended, |view| suspend(&mut view.on_demand, "Terminate")),
    ];
    for (group, reason, change) in rows {
        assert_eq!(found(change), [(group.into(), reason, Severity::Refused)]);
    }
    for (base, percentage, spot_ok, on_demand_ok) in
        [(0, 0, true, false), (1, 0, false, false), (0, 50, false, false), (0, 100, false, true)]
    {
        let set = |view: &mut PoolView| {
            view.spot.setup.mixed = Some(mixed(base, percentage));
            view.on_demand.setup.mixed = Some(mixed(base, percentage));
        };
        let all = found(set);
        let reasons: Vec<_> = all.iter().map(|(_, reason, _)| *reason).collect();
        assert_eq!(!reasons.contains(&ReasonCode::NotAllSpot), spot_ok, "{base} {percentage}");
        assert_eq!(!reasons.contains(&ReasonCode::NotAllOnDemand), on_demand_ok, "{base} {percentage}");
    }
}

#[test]
fn az_rebalance_in_several_zones_is_told_and_refuses_nothing() {
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let change = |suspended: bool| {
            found(|view| {
                let group = if kind == GroupKind::Spot { &mut view.spot } else { &mut view.on_demand };
                group.zones.push("b".to_owned());
                if suspended {
                    suspend(group, "AZRebalance");
                }
            })
        };
        assert_eq!(change(true), []);
        let told = change(false);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((told[0].1, told[0].2), (ReasonCode::AzRebalance, Severity::Note));
    }
}

#[test]
fn an_on_demand_group_of_a_managed_node_group_is_accepted_and_its_call_told() {
    let managed = |view: &mut PoolView| view.on_demand.setup.eks_node_group = Some("workers".to_owned());
    assert_eq!(found(managed), [("on-demand".into(), ReasonCode::NoLaunchInstances, Severity::Note)]);
    let mut view = PoolView { spot: group("spot"), on_demand: group("on-demand") };
    managed(&mut view);
    let pool = PoolNames { launch_instances: LaunchInstances::Always, ..names(leaked("pool")) };
    assert_eq!(check(pool, &view, &Ledger::default(), &|_| None, None), []);
    for (allowed, can_launch) in [(LaunchInstances::Auto, false), (LaunchInstances::Always, true)] {
        let mut view = view.clone();
        allowed.limit(&mut view);
        assert_eq!((view.spot.can_launch, view.on_demand.can_launch), (true, can_launch));
    }
}

#[test]
fn capacity_rebalancing_of_an_on_demand_group_does_nothing_and_is_no_finding() {
    assert_eq!(found(|view| view.on_demand.setup.capacity_rebalance = true), []);
}

#[test]
fn what_only_degrades_a_pool_does_not_refuse_it() {
    use Severity::{Degraded, Note};
    let spot = |reason, severity| vec![(GroupName::from("spot"), reason, severity)];
    assert_eq!(found(|view| suspend(&mut view.spot, "Launch")), spot(ReasonCode::LaunchSuspended, Degraded));
    let unhealthy = found(|view| suspend(&mut view.spot, "ReplaceUnhealthy"));
    assert_eq!(unhealthy, spot(ReasonCode::ReplaceUnhealthySuspended, Degraded));
    let unchecked = found(|view| suspend(&mut view.spot, "HealthCheck"));
    assert_eq!(unchecked, spot(ReasonCode::ReplaceUnhealthySuspended, Degraded));
    let aging = found(|view| view.spot.setup.max_instance_lifetime = Some(86_400));
    assert_eq!(aging, spot(ReasonCode::MaxInstanceLifetime, Note));
    for (rollout, code) in [
        (Rollout::InstanceRefresh("InProgress".to_owned()), ReasonCode::InstanceRefresh),
        (Rollout::NodeGroupUpdate("workers".to_owned()), ReasonCode::NodeGroupUpdate),
    ] {
        assert_eq!(found(|view| view.spot.setup.rollout = Some(rollout.clone())), spot(code, Note));
    }
    assert_eq!(found(|view| view.spot.max = 2), spot(ReasonCode::NoRoom, Degraded));
    assert_eq!(
        found(|view| view.spot.setup.launch_configuration = true),
        spot(ReasonCode::NoLaunchInstances, Note)
    );
    assert_eq!(found(|view| view.spot.setup.warm_pool = true), spot(ReasonCode::NoLaunchInstances, Note));
    assert_eq!(found(|view| view.spot.min = 2), spot(ReasonCode::AtMinimum, Note));
}

#[test]
fn a_group_belongs_to_one_pool() {
    let view = PoolView { spot: group("spot"), on_demand: group("on-demand") };
    let pool = names(leaked("new"));
    let owner = |group: &GroupName| Some(if group == "spot" { "old" } else { "new" }.into());
    let findings = check(pool, &view, &Ledger::default(), &owner, None);
    let refused = Finding { group: "spot".into(), problem: GroupProblem::OtherPool("old".into()) };
    assert_eq!(refusals(&findings), [Reason::PoolRefused(refused)]);
}

#[test]
fn a_node_that_names_no_instance_is_told_while_an_instance_has_no_node() {
    use crate::testing::{cluster, node};
    let mut view = PoolView { spot: group("spot"), on_demand: group("on-demand") };
    let instance =
        |id: &str, lifecycle| Instance { id: id.into(), zone: "a".to_owned(), lifecycle, protected: false };
    view.spot.instances = vec![instance("i-a", Lifecycle::InService), instance("i-b", Lifecycle::Pending)];
    let named = |name: &str, provider_id: &str| Node { provider_id: provider_id.into(), ..node(name) };
    for (nodes, told) in [
        (vec![named("a", "k3s://a")], Some("k3s://a")),
        (vec![named("b", "rancher://b"), named("a", "kind://docker/kind/a")], Some("kind://docker/kind/a")),
        (vec![named("f", "aws:///a/9/fargate-ip-10-0-0-1.ec2.internal")], None),
        (vec![named("on-premises", "eks-hybrid:///x")], None),
        // It comes late, which is usual.
        (vec![named("a", "")], None),
        // Each instance has its Node: the other one is somewhere else.
        (vec![named("x", "aws:///a/i-a"), named("on-premises", "eks-hybrid:///x")], None),
    ] {
        let pool = names(leaked("pool"));
        let cluster = cluster(nodes, vec![]);
        let findings = check(pool, &view, &Ledger::default(), &|_| None, Some(&cluster));
        let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), told.iter().len(), "{found:?}");
        assert!(told.is_none_or(|told| found[0].contains(told)), "{found:?}");
        assert!(findings.iter().all(|finding| finding.problem.severity() == Severity::Degraded));
    }
}

#[test]
fn a_group_that_terminates_instances_at_risk_needs_a_hook_unless_eks_drains_its_nodes() {
    let told = |hook: Option<bool>, eks: bool| {
        found_where(None, |view| {
            view.spot.setup.capacity_rebalance = true;
            view.spot.setup.eks_node_group = eks.then(|| "spot-workers".to_owned());
            view.spot.setup.termination_hook = hook;
        })
    };
    let without = [("spot".into(), ReasonCode::NoTerminationHook, Severity::Degraded)];
    assert_eq!(told(Some(false), false), without);
    for (hook, eks) in [(Some(true), false), (None, false), (Some(false), true)] {
        assert_eq!(told(hook, eks), [], "{hook:?}, of EKS: {eks}");
    }
}

#[test]
fn who_replaces_is_derived_from_the_spot_group_and_a_person_may_not_contradict_it() {
    use ReasonCode::{CapacityRebalance, EksManagedNodeGroup, GroupDoesNotReplace};
    use ReplacedBy::{Group, SpotGuard};
    type Change = fn(&mut PoolView);
    let plain: Change = |_| {};
    let rebalances: Change = |view| view.spot.setup.capacity_rebalance = true;
    let managed: Change = |view| {
        view.spot.setup.capacity_rebalance = true;
        view.spot.setup.eks_node_group = Some("spot-workers".to_owned());
    };
    for (change, said, who, refused) in [
        (plain, None, SpotGuard, None),
        (plain, Some(SpotGuard), SpotGuard, None),
        (plain, Some(Group), Group, Some(GroupDoesNotReplace)),
        (rebalances, None, Group, None),
        (rebalances, Some(Group), Group, None),
        (rebalances, Some(SpotGuard), SpotGuard, Some(CapacityRebalance)),
        (managed, None, Group, None),
        (managed, Some(Group), Group, None),
        (managed, Some(SpotGuard), SpotGuard, Some(EksManagedNodeGroup)),
    ] {
        let mut view = PoolView { spot: group("spot"), on_demand: group("on-demand") };
        change(&mut view);
        assert_eq!(replaced_by(said, &view), who);
        let expected = refused.map(|code| ("spot".into(), code, Severity::Refused));
        assert_eq!(found_where(said, change), Vec::from_iter(expected), "{said:?}");
    }
}

#[test]
fn a_managed_node_group_as_both_groups_is_refused_with_the_field() {
    let both = |view: &mut PoolView| {
        view.spot.setup.capacity_rebalance = true;
        for group in [&mut view.spot, &mut view.on_demand] {
            group.setup.eks_node_group = Some("workers".to_owned());
        }
    };
    let refused = found(both).into_iter().filter(|(.., severity)| *severity == Severity::Refused);
    assert_eq!(Vec::from_iter(refused), [("on-demand".into(), ReasonCode::SameNodeGroup, Severity::Refused)]);
    let text = GroupProblem::SameNodeGroup("workers".to_owned());
    let text = Finding { group: "on-demand".into(), problem: text }.to_string();
    assert!(text.contains("spec.onDemandGroup"), "{text}");
}

#[test]
fn what_is_not_asked_of_a_group_that_replaces_by_itself_is_no_finding() {
    let full = |view: &mut PoolView| {
        view.spot.setup.capacity_rebalance = true;
        (view.spot.max, view.spot.min, view.spot.setup.warm_pool) = (2, 2, true);
    };
    assert_eq!(found(full), []);
}
