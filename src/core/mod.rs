//! The decisions. Nothing here reads a clock, a socket or a log: the same input gives the same answer.

pub mod cluster;
pub mod drain;
pub mod placement;
pub mod safety;

#[cfg(test)]
pub(crate) mod testing;
