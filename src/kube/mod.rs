//! The edge to the Kubernetes API.

pub mod convert;
