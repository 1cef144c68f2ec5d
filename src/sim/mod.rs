//! The simulated cloud: the outside world of Spot Guard, in memory, speaking the real protocols.

pub mod cluster;
