//! What the process tells about itself: liveness, readiness, metrics, traces, events, notifications.

pub mod call_trace;
pub mod connections;
pub mod escape;
pub mod events;
mod held_calls;
pub mod liveness;
pub mod log_filter;
pub mod metrics;
pub mod notifications;
pub mod readiness;
pub mod repeats;
pub mod replacement_trace;
pub mod trace_context;
pub mod trace_export;
mod trace_tls;
pub mod tracing;
