//! Whether Spot Guard may act on the two groups of a pool, and what stands in the way.
//!
//! A group has one owner: what replaces, rebalances or drains by itself would undo what a story does, or do it
//! twice. Rules and their sources: EC2 Auto Scaling User Guide ("Capacity Rebalancing", "Suspend and resume",
//! "Launch instances synchronously"), API Reference (Operator, TerminateInstanceInAutoScalingGroup).

#[cfg(test)]
mod tests;

use crate::group::{GroupView, PoolView};
use crate::ledger::Ledger;
use crate::record::GroupKind;
use std::fmt;

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing, but it is worth to know.
    Note,
    /// The pool works less well than it could, or not at all for now.
    Degraded,
    /// Spot Guard does not act on the pool.
    Refused,
}

/// What was found about a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The group that it is about.
    pub group: String,
    /// What it is.
    pub problem: Problem,
}

/// What may be wrong with a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// There is no such group in this account and Region.
    NoSuchGroup,
    /// Another, older pool has it.
    OtherPool(String),
    /// The group replaces instances at risk by itself.
    CapacityRebalance,
    /// Another AWS service owns it.
    Operator(String),
    /// EKS replaces and drains its nodes by itself.
    EksManaged(String),
    /// The Spot group buys on-demand instances, too.
    NotAllSpot,
    /// The on-demand group buys Spot instances, too.
    NotAllOnDemand,
    /// The group may end other instances than ours, to even out its zones.
    AzRebalance,
    /// It ends nothing.
    TerminateSuspended,
    /// It launches nothing.
    LaunchSuspended(String),
    /// There is no room for one more instance.
    NoRoom(i32),
    /// LaunchInstances cannot be used: failures are seen later.
    NoLaunchInstances(String),
    /// The group cannot shrink below it, so what is owed to a fallback stays in it.
    AtMinimum(i32),
}

impl Problem {
    /// One word, for machines: the reason of conditions and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchGroup => "NoSuchGroup",
            Self::OtherPool(_) => "GroupOfOtherPool",
            Self::CapacityRebalance => "CapacityRebalance",
            Self::Operator(_) => "OperatorOwned",
            Self::EksManaged(_) => "EksManagedNodeGroup",
            Self::NotAllSpot => "NotAllSpot",
            Self::NotAllOnDemand => "NotAllOnDemand",
            Self::AzRebalance => "AzRebalance",
            Self::TerminateSuspended => "TerminateSuspended",
            Self::LaunchSuspended(_) => "LaunchSuspended",
            Self::NoRoom(_) => "NoRoom",
            Self::NoLaunchInstances(_) => "NoLaunchInstances",
            Self::AtMinimum(_) => "AtMinimum",
        }
    }

    /// What follows from it.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::NoSuchGroup
            | Self::OtherPool(_)
            | Self::CapacityRebalance
            | Self::Operator(_)
            | Self::EksManaged(_)
            | Self::NotAllSpot
            | Self::NotAllOnDemand
            | Self::AzRebalance
            | Self::TerminateSuspended => Severity::Refused,
            // A group that launches nothing is what the other one is there for.
            Self::LaunchSuspended(_) | Self::NoRoom(_) => Severity::Degraded,
            Self::NoLaunchInstances(_) | Self::AtMinimum(_) => Severity::Note,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = &self.group;
        match &self.problem {
            Problem::NoSuchGroup => write!(f, "Auto Scaling group {group} does not exist"),
            Problem::OtherPool(pool) => write!(f, "{group} belongs to SpotPool {pool} already"),
            Problem::CapacityRebalance => {
                write!(f, "{group} replaces instances at risk by itself; turn its CapacityRebalance off")
            }
            Problem::Operator(principal) => write!(f, "{group} may be changed by {principal} alone"),
            Problem::EksManaged(name) => write!(
                f,
                "{group} belongs to the EKS managed node group {name}, which replaces its nodes by itself"
            ),
            Problem::NotAllSpot => write!(
                f,
                "{group} is not all Spot; set OnDemandBaseCapacity and OnDemandPercentageAboveBaseCapacity to 0"
            ),
            Problem::NotAllOnDemand => {
                write!(f, "{group} is not all on-demand; set OnDemandPercentageAboveBaseCapacity to 100")
            }
            Problem::AzRebalance => write!(
                f,
                "{group} may end instances by itself to even out its zones; suspend its process AZRebalance, or \
                 accept it with spec.acceptAzRebalance"
            ),
            Problem::TerminateSuspended => {
                write!(f, "{group} ends nothing; resume its process Terminate")
            }
            Problem::LaunchSuspended(reason) => {
                write!(f, "{group} launches nothing, {reason}; resume its process Launch")
            }
            Problem::NoRoom(max) => {
                write!(f, "{group} has no room for one more instance; raise its maximum of {max}")
            }
            Problem::NoLaunchInstances(why) => write!(
                f,
                "{group} is asked by SetDesiredCapacity, and its failures are read from its activities: {why}"
            ),
            Problem::AtMinimum(min) => write!(
                f,
                "{group} is at its minimum of {min}: what it owes a fallback it goes on launching by itself"
            ),
        }
    }
}

/// What a pool says of its groups.
#[derive(Clone, Copy, Debug)]
pub struct PoolNames<'a> {
    /// The pool.
    pub name: &'a str,
    /// Its Spot group.
    pub spot: &'a str,
    /// Its on-demand group.
    pub on_demand: &'a str,
    /// Whether AZRebalance was accepted by a person.
    pub accepts_az_rebalance: bool,
}

/// What a person ought to know about a pool, the gravest first. `owner` is the pool that has a group.
#[must_use]
pub fn check(
    pool: PoolNames<'_>,
    view: &PoolView,
    ledger: &Ledger,
    owner: &dyn Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in [GroupKind::Spot, GroupKind::OnDemand] {
        let group = view.group(kind);
        let mut add = |problem| found.push(Finding { group: group.name.clone(), problem });
        if let Some(other) = owner(&group.name).filter(|other| other != pool.name) {
            add(Problem::OtherPool(other));
        }
        check_group(kind, group, pool.accepts_az_rebalance, &mut add);
        let ours = ledger.shares(kind).filter(|share| share.is_raised()).count();
        let desired = group.desired - i32::try_from(ours).unwrap_or(0);
        if desired >= group.max {
            add(Problem::NoRoom(group.max));
        }
        if kind == GroupKind::Spot && desired <= group.min && group.min > 0 {
            add(Problem::AtMinimum(group.min));
        }
        if let Some(refused) = ledger.cannot_launch.iter().find(|held| held.group_name == group.name) {
            add(Problem::NoLaunchInstances(refused.reason.clone()));
        }
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.problem.severity()));
    found
}

fn check_group(kind: GroupKind, group: &GroupView, accepts_az_rebalance: bool, add: &mut dyn FnMut(Problem)) {
    let setup = &group.setup;
    if setup.capacity_rebalance {
        add(Problem::CapacityRebalance);
    }
    if let Some(principal) = &setup.operator {
        add(Problem::Operator(principal.clone()));
    }
    if let Some(name) = &setup.eks_node_group {
        add(Problem::EksManaged(name.clone()));
    }
    match (kind, setup.mixed) {
        (GroupKind::Spot, Some(mixed)) if !mixed.all_spot() => add(Problem::NotAllSpot),
        (GroupKind::OnDemand, Some(mixed)) if !mixed.all_on_demand() => add(Problem::NotAllOnDemand),
        _ => {}
    }
    if group.zones.len() > 1 && !setup.suspended.contains_key("AZRebalance") && !accepts_az_rebalance {
        add(Problem::AzRebalance);
    }
    if setup.suspended.contains_key("Terminate") {
        add(Problem::TerminateSuspended);
    }
    if let Some(reason) = setup.launch_suspended() {
        add(Problem::LaunchSuspended(reason));
    }
    if setup.launch_configuration {
        add(Problem::NoLaunchInstances("it has no launch template".to_owned()));
    } else if setup.warm_pool {
        add(Problem::NoLaunchInstances("it has a warm pool".to_owned()));
    }
}

/// Why a pool is not acted on; empty if it is accepted.
#[must_use]
pub fn refusals(findings: &[Finding]) -> Vec<String> {
    let refused = |finding: &&Finding| finding.problem.severity() == Severity::Refused;
    findings.iter().filter(refused).map(ToString::to_string).collect()
}
