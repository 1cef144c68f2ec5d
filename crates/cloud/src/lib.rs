//! The simulated cloud: EC2 Auto Scaling, instance metadata and Kubernetes in memory, by their real
//! protocols. It imports nothing of the product that it judges.

pub mod admission;
pub mod autoscaler;
pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod eks;
