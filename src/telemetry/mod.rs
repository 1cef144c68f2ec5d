//! What the process tells about itself: readiness, metrics, traces.

pub mod readiness;
