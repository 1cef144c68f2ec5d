//! Whether Spot Guard may act on the two groups of a pool, and what stands in the way.
//!
//! A group has one owner: what replaces, rebalances or drains by itself would undo what a replacement
//! does, or do it twice. Rules and their sources: EC2 Auto Scaling User Guide ("Capacity Rebalancing",
//! "Suspend and resume", "Launch instances synchronously"), API Reference (Operator,
//! TerminateInstanceInAutoScalingGroup).

#[cfg(test)]
mod tests;

use crate::cluster::{Node, Snapshot};
use crate::group::{GroupView, LaunchInstances, Lifecycle, PoolView};
use crate::ids::{GroupName, PoolName};
use crate::ledger::Ledger;
use crate::reason::Reason;
pub use crate::reason::{Finding, GroupProblem, NoLaunch, Severity};
use crate::record::{GroupKind, ReplacedBy};
use std::sync::Arc;

/// What a pool says of its groups.
#[derive(Clone, Copy, Debug)]
pub struct PoolNames<'a> {
    /// The pool.
    pub name: &'a PoolName,
    /// Its Spot group.
    pub spot: &'a GroupName,
    /// Its on-demand group.
    pub on_demand: &'a GroupName,
    /// Which groups LaunchInstances is used on.
    pub launch_instances: LaunchInstances,
    /// Who is to replace its Spot nodes, if a person said so.
    pub replaced_by: Option<ReplacedBy>,
    /// How many on-demand instances it is to have, if a person said so.
    pub baseline: Option<u32>,
}

/// Who replaces the Spot nodes of a pool: as a person said, else as the Spot group is set up. Capacity
/// Rebalancing and EKS replace instances by themselves (EC2 Auto Scaling User Guide, "Capacity Rebalancing";
/// EKS User Guide, "Managed node groups").
#[must_use]
pub fn replaced_by(said: Option<ReplacedBy>, view: &PoolView) -> ReplacedBy {
    let by_itself = view.spot.setup.replaces_by_itself();
    said.unwrap_or(if by_itself { ReplacedBy::Group } else { ReplacedBy::SpotGuard })
}

/// What a person ought to know about a pool, the gravest first. `owner` is the pool that has a group;
/// `cluster` are the Nodes, if they are known.
#[must_use]
pub fn check(
    pool: PoolNames<'_>,
    view: &PoolView,
    ledger: &Ledger,
    owner: &dyn Fn(&GroupName) -> Option<PoolName>,
    cluster: Option<&Snapshot>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = view.group(kind);
        let mut add = |problem| found.push(Finding { group: group.name.clone(), problem });
        if let Some(other) = owner(&group.name).filter(|other| other != pool.name) {
            add(GroupProblem::OtherPool(other));
        }
        let serves_itself =
            kind == GroupKind::Spot && replaced_by(pool.replaced_by, view) == ReplacedBy::Group;
        if let Some(baseline) = pool.baseline.filter(|_| kind == GroupKind::OnDemand) {
            check_baseline(baseline, group, &mut add);
        }
        check_replacer(kind, view, serves_itself, &mut add);
        check_group(kind, group, pool.launch_instances, serves_itself, &mut add);
        if let Some(foreign) = cluster.and_then(|cluster| foreign_node(group, cluster)) {
            let (node, provider_id) = (foreign.name.clone(), foreign.provider_id.to_string());
            add(GroupProblem::ForeignProviderIds { node, provider_id });
        }
        let ours = ledger.shares(kind).filter(|share| share.is_raised()).count();
        let desired = group.desired - i32::try_from(ours).unwrap_or(0);
        // A group that replaces by itself may exceed its maximum for it.
        if desired >= group.max && !serves_itself {
            add(GroupProblem::NoRoom(group.max));
        }
        if kind == GroupKind::Spot && desired <= group.min && group.min > 0 && !serves_itself {
            add(GroupProblem::AtMinimum(group.min));
        }
        if let Some(refused) = ledger.cannot_launch.iter().find(|refused| refused.group_name == group.name) {
            add(GroupProblem::NoLaunchInstances(NoLaunch::Refused(refused.message.clone())));
        }
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.problem.severity()));
    found
}

/// Whether the on-demand group can have as many instances as its baseline says.
fn check_baseline(baseline: u32, group: &GroupView, add: &mut dyn FnMut(GroupProblem)) {
    let (wanted, min, max) = (i64::from(baseline), group.min, group.max);
    if wanted < i64::from(min) || wanted > i64::from(max) {
        add(GroupProblem::BaselineOutOfRange { baseline, min, max });
    }
}

/// Whether the Spot group is set up to be replaced by whom the pool says.
fn check_replacer(kind: GroupKind, view: &PoolView, serves_itself: bool, add: &mut dyn FnMut(GroupProblem)) {
    let (setup, of_spot) = (&view.group(kind).setup, &view.spot.setup.eks_node_group);
    if kind == GroupKind::OnDemand {
        // Capacity Rebalancing is about Spot instances alone: here it does nothing.
        if let Some(name) = setup.eks_node_group.as_ref().filter(|name| of_spot.as_ref() == Some(name)) {
            add(GroupProblem::SameNodeGroup(name.clone()));
        }
    } else if serves_itself {
        if !setup.replaces_by_itself() {
            add(GroupProblem::DoesNotReplace);
        } else if setup.needs_termination_hook() && setup.termination_hook == Some(false) {
            add(GroupProblem::NoTerminationHook);
        }
    } else if let Some(name) = &setup.eks_node_group {
        add(GroupProblem::EksManaged(name.clone()));
    } else if setup.capacity_rebalance {
        add(GroupProblem::CapacityRebalance);
    }
}

fn check_group(
    kind: GroupKind,
    group: &GroupView,
    launch_instances: LaunchInstances,
    serves_itself: bool,
    add: &mut dyn FnMut(GroupProblem),
) {
    let setup = &group.setup;
    if let Some(principal) = &setup.operator {
        add(GroupProblem::Operator(principal.clone()));
    }
    match (kind, setup.mixed) {
        (GroupKind::Spot, Some(mixed)) if !mixed.all_spot() => add(GroupProblem::NotAllSpot),
        (GroupKind::OnDemand, Some(mixed)) if !mixed.all_on_demand() => add(GroupProblem::NotAllOnDemand),
        _ => {}
    }
    if let Some(unit) = &setup.counted_in {
        add(GroupProblem::CountedInUnits(unit.clone()));
    }
    if setup.status.as_deref().is_some_and(|status| status.starts_with("Delete")) {
        add(GroupProblem::BeingDeleted);
    }
    if group.evens_out_zones() {
        add(GroupProblem::AzRebalance);
    }
    if setup.suspended.contains_key("Terminate") {
        add(GroupProblem::TerminateSuspended);
    }
    let keeps_unhealthy = ["ReplaceUnhealthy", "HealthCheck"];
    if let Some(process) = keeps_unhealthy.into_iter().find(|process| setup.suspended.contains_key(*process))
    {
        add(GroupProblem::ReplaceUnhealthySuspended(process));
    }
    if let Some(rollout) = &setup.rollout {
        add(GroupProblem::Rollout(rollout.clone()));
    }
    if let Some(seconds) = setup.max_instance_lifetime {
        add(GroupProblem::MaxInstanceLifetime(seconds));
    }
    if let Some(reason) = setup.launch_suspended() {
        add(GroupProblem::LaunchSuspended(reason.to_string()));
    }
    // It is asked for nothing.
    if serves_itself {
        return;
    }
    if setup.launch_configuration {
        add(GroupProblem::NoLaunchInstances(NoLaunch::LaunchConfiguration));
    } else if setup.warm_pool {
        add(GroupProblem::NoLaunchInstances(NoLaunch::WarmPool));
    } else if let Some(name) = &setup.eks_node_group
        && kind == GroupKind::OnDemand
        && !launch_instances.allows(setup)
    {
        add(GroupProblem::NoLaunchInstances(NoLaunch::ManagedNodeGroup(name.clone())));
    }
}

/// A Node that names no EC2 instance, if an instance of the group that is in service has no Node: it may be
/// the one. It is told before EC2 says anything of the instance.
fn foreign_node<'c>(group: &GroupView, cluster: &'c Snapshot) -> Option<&'c Node> {
    let serving = group.instances.iter().filter(|held| held.lifecycle == Lifecycle::InService);
    let mut without_node = serving.filter(|held| cluster.nodes_of_instance(&held.id).next().is_none());
    without_node.next()?;
    let is_foreign = |node: &&Arc<Node>| node.has_foreign_provider_id() && !node.names_its_cloud();
    let foreign = cluster.nodes().iter().filter(is_foreign);
    foreign.map(|node| &**node).min_by_key(|node| &node.name)
}

/// Why a pool is not acted on; empty if it is accepted.
#[must_use]
pub fn refusals(findings: &[Finding]) -> Vec<Reason> {
    let refused = |finding: &&Finding| finding.problem.severity() == Severity::Refused;
    findings.iter().filter(refused).cloned().map(Reason::PoolRefused).collect()
}

/// The rollout that replaces the instances of one of the groups. Meanwhile nothing begins that can wait: both
/// would replace the same nodes.
#[must_use]
pub fn rollout(view: &PoolView) -> Option<Reason> {
    let of = |group: &GroupView| {
        let rollout = group.setup.rollout.clone()?;
        Some(Reason::Rollout { group: group.name.clone(), rollout })
    };
    of(&view.spot).or_else(|| of(&view.on_demand))
}
