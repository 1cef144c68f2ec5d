//! What comes of a placement.

use crate::effort::TooMuch;
use crate::ids::NodeName;
use crate::reason::{PodName, Unplaced};

/// What [`place`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Pods without a node in the first packing that failed. Empty: the pods fit.
    pub unplaced: Vec<Unplaced>,
    /// Another packing placed them all: the scheduler may succeed, or may not.
    pub fits_in_some_order: bool,
    /// No choice of the scheduler can leave a pod without a node.
    pub certain: bool,
    /// The first packing: each pod that found a node and that node's name.
    pub example: Vec<(PodName, NodeName)>,
    /// How many packings were tried.
    pub packings: usize,
    /// It cannot be said whether they fit: finding out is more work than a check may be.
    pub gave_up: Option<TooMuch>,
}

impl Placement {
    pub(super) fn given_up(why: TooMuch) -> Self {
        Self { gave_up: Some(why), ..Self::default() }
    }

    /// Whether all pods find a place, in whatever order.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.unplaced.is_empty() && self.gave_up.is_none()
    }
}
