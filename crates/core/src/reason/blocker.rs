//! What stands against a drain: in the check of box 9 before it, or in its own report.

use super::code::ReasonCode;
use super::unplaced::{PodName, Reasons};
use crate::ids::NodeName;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Why a pod must not be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BlockedReason {
    /// Annotation `cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`.
    NotSafeToEvict,
    /// Annotation `karpenter.sh/do-not-disrupt`.
    DoNotDisrupt,
    /// No controller would make it anew.
    Unmanaged,
    /// The content of its emptyDir would be lost.
    EmptyDir,
}

/// What the eviction API answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictionAnswer {
    /// 201: the pod ends.
    Evicted,
    /// 404, or another pod has the name now: there is nothing left to evict.
    Gone,
    /// 429 with the cause `DisruptionBudget`.
    BudgetExhausted {
        /// How long to wait, if the answer says so (it says 0 for an exhausted budget).
        retry_after: Option<Duration>,
    },
    /// 429 without that cause: the API server has too much to do.
    RateLimited {
        /// How long to wait, if the answer says so.
        retry_after: Option<Duration>,
    },
    /// 500: more than one budget covers the pod.
    SeveralBudgets,
    /// 403: not allowed, not in this namespace, or a budget whose count went wrong.
    Forbidden {
        /// What it said.
        message: String,
    },
    /// 409 or a timeout while the budget was written.
    Conflict,
    /// Anything else; status 0 without an answer.
    Failed {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
}

/// A disruption budget with too little room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShutBudget {
    /// The budget.
    pub budget: PodName,
    /// The node's pods that share it.
    pub pods: Vec<PodName>,
    /// How many of them do not come back elsewhere.
    pub for_good: usize,
    /// The disruptions that it takes until all are gone, with one for pods that are leaving other nodes.
    pub needed: i64,
    /// The disruptions that it allows now.
    pub allowed: i64,
    /// Its healthy pods.
    pub current_healthy: i64,
    /// The healthy pods it requires.
    pub desired_healthy: i64,
    /// The pods there are to be.
    pub expected_pods: i64,
}

impl ShutBudget {
    /// Whether it requires all pods that are expected.
    #[must_use]
    pub fn never_opens(&self) -> bool {
        self.expected_pods <= self.desired_healthy
    }
}

/// Something that stands against the drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Blocker {
    /// The node is not in the cluster.
    NodeUnknown {
        /// Its name.
        node: NodeName,
    },
    /// A pod finds no node, or may find none.
    PodDoesNotFit {
        /// The pod.
        pod: PodName,
        /// Why the nodes are out.
        reasons: Reasons,
        /// It found one when the pods were placed in another order.
        fits_in_some_order: bool,
    },
    /// A budget has too little room for the node's pods that share it, one after another.
    BudgetExhausted(ShutBudget),
    /// A budget's status is older than its spec.
    BudgetNotObserved {
        /// The budget.
        budget: PodName,
    },
    /// More than one budget covers a pod: the eviction API refuses that.
    SeveralBudgets {
        /// The pod.
        pod: PodName,
        /// The budgets.
        budgets: Vec<PodName>,
    },
    /// A pod must not be evicted.
    NotEvictable {
        /// The pod.
        pod: PodName,
        /// Why.
        reason: BlockedReason,
    },
    /// A pod may come back to the node: neither taint nor cordon keeps it away.
    ToleratesDrain {
        /// The pod.
        pod: PodName,
    },
    /// The pool would be too full.
    BufferExceeded {
        /// Of what, as Kubernetes calls the resource.
        resource: String,
        /// The share in use afterwards.
        after: f64,
        /// The share that may be in use.
        limit: f64,
    },
    /// It cannot be said whether it is safe: finding out is more work than a check may be.
    CheckTooLarge {
        /// The pod of the cluster whose rules are most to compare.
        heaviest: Option<PodName>,
    },
}

impl BlockedReason {
    /// Its code.
    #[must_use]
    pub fn code(self) -> ReasonCode {
        match self {
            Self::NotSafeToEvict => ReasonCode::NotSafeToEvict,
            Self::DoNotDisrupt => ReasonCode::DoNotDisrupt,
            Self::Unmanaged => ReasonCode::PodUnmanaged,
            Self::EmptyDir => ReasonCode::PodWithEmptyDir,
        }
    }
}

impl EvictionAnswer {
    /// The code of an answer that was no.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::BudgetExhausted { .. } => ReasonCode::BudgetExhausted,
            Self::SeveralBudgets => ReasonCode::SeveralBudgets,
            Self::Forbidden { .. } => ReasonCode::EvictionForbidden,
            Self::RateLimited { .. } | Self::Conflict | Self::Failed { .. } => ReasonCode::EvictionFailed,
            Self::Evicted | Self::Gone => ReasonCode::PodTerminating,
        }
    }
}

impl Blocker {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::NodeUnknown { .. } => ReasonCode::NodeUnknown,
            Self::PodDoesNotFit { .. } => ReasonCode::PodDoesNotFit,
            Self::BudgetExhausted { .. } => ReasonCode::BudgetExhausted,
            Self::BudgetNotObserved { .. } => ReasonCode::BudgetNotObserved,
            Self::SeveralBudgets { .. } => ReasonCode::SeveralBudgets,
            Self::NotEvictable { reason, .. } => reason.code(),
            Self::ToleratesDrain { .. } => ReasonCode::ToleratesDrain,
            Self::BufferExceeded { .. } => ReasonCode::BufferExceeded,
            Self::CheckTooLarge { .. } => ReasonCode::CheckTooLarge,
        }
    }
}
