//! The simulated cloud: the outside world of Spot Guard, in memory, speaking the real protocols.

pub mod cluster;
//! A simulated world that speaks the real protocols: demos and tests run the product against it unchanged.

pub mod cloud;
