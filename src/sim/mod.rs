//! The simulated cloud: a world in memory that speaks the real protocols. Demos and tests run the product
//! against it unchanged.

pub mod admission;
pub mod audit;
pub mod cloud;
pub mod cluster;
pub mod crash;
pub mod demo;
pub mod kubelet;
pub mod nodes;
pub mod scenario;
pub mod story;
pub mod world;
