//! What the process tells about itself: liveness, readiness, metrics, traces.

pub mod events;
pub mod liveness;
pub mod metrics;
pub mod readiness;
pub mod tracing;
