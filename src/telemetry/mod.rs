//! What the process tells about itself: readiness, metrics, traces.

pub mod events;
pub mod metrics;
pub mod readiness;
pub mod tracing;
