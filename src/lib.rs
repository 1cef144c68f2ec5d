//! Spot Guard replaces a Spot node before AWS takes it, falls back to on-demand when Spot is out of
//! capacity, and brings the cluster back to Spot when that is safe.

pub mod actors;
pub mod agent;
pub mod aws;
pub mod causes;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
pub mod controller;
pub mod crd;
pub mod http;
pub mod kube;
pub mod lookback;
#[cfg(feature = "sim")]
pub mod sim;
pub mod telemetry;
