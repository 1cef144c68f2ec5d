//! All English of the decisions: what happened, what holds something up, and what a SpotAction is answered.
//!
//! A text begins with a small letter and has no full stop, for several may stand in one line. It names the
//! setting that it is about. It says what would clear the obstacle where that is not plain. The hints of
//! reasons are whole sentences, as in docs/reasons.md.

mod answers;
mod blockers;
mod events;
mod hints;
mod reasons;
