//! A pause.

/// Why nothing is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The pool is paused by its spec.
    Pool,
    /// All pools are paused by a label.
    Everything,
    /// A SpotAction has paused the pool, or everything.
    SpotAction {
        /// Its name.
        spot_action: String,
        /// Who requested it.
        by: Option<String>,
        /// Whether all pools are paused, not only this one.
        everything: bool,
    },
}
