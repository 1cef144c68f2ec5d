//! What the simulated parts and the real ones must both do.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

#[cfg(feature = "sim")]
mod autoscaling;
#[cfg(feature = "sim")]
mod kubernetes;
#[cfg(feature = "sim")]
mod kubernetes_runs;
