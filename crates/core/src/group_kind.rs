//! The two groups of a pool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which of a pool's two groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GroupKind {
    /// The Spot group.
    Spot,
    /// The on-demand group.
    OnDemand,
}

impl GroupKind {
    /// The other group of a pool.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Spot => Self::OnDemand,
            Self::OnDemand => Self::Spot,
        }
    }

    /// The kind as a part of a name or a label.
    #[must_use]
    pub fn slug(self) -> &'static str {
        match self {
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spot => "Spot",
            Self::OnDemand => "on-demand",
        })
    }
}
