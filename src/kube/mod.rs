//! The edge to the Kubernetes API.

pub mod client;
pub mod convert;
pub mod lease;
pub mod marks;
pub mod pods;
pub mod problem;
pub mod view;
