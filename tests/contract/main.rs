//! What the simulated parts and the real ones must both do.

#[cfg(feature = "sim")]
mod autoscaling;
#[cfg(feature = "sim")]
mod kubernetes;
#[cfg(feature = "sim")]
mod kubernetes_runs;
