//! Taints and tolerations.

use std::fmt;
use std::sync::Arc;

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// New pods that do not tolerate it stay away.
    NoSchedule,
    /// New pods avoid it if they can; no obstacle.
    PreferNoSchedule,
    /// As `NoSchedule`, and pods that are there leave.
    NoExecute,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Its key.
    pub key: Arc<str>,
    /// Its value; may be empty.
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{:?}", self.effect)
    }
}

/// How a toleration compares a taint's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This value.
    Equal(Arc<str>),
    /// An operator that we do not know: tolerates nothing.
    Unknown,
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// The taint's key; `None` means every key.
    pub key: Option<Arc<str>>,
    /// How the value is compared.
    pub operator: TolerationOperator,
    /// The taint's effect; `None` means every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Whether the taint is tolerated.
    ///
    /// Rules: `ToleratesTaint` in staging/src/k8s.io/api/core/v1/toleration.go.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.as_ref().is_none_or(|k| *k == taint.key)
            && match &self.operator {
                TolerationOperator::Exists => true,
                TolerationOperator::Equal(value) => *value == taint.value,
                TolerationOperator::Unknown => false,
            }
    }
}
