//! What the simulated parts and the real ones must both do.

mod autoscaling;
