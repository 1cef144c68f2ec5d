//! The actors: each box of the flow has one mailbox. They translate between the core and the world, and hold
//! no decisions.
//!
//! What they send each other stands in [`messages`], in the order of the flow. An actor holds a link for each
//! message that it sends and knows no other actor. Its file begins with its boxes, what it hears, what it
//! sends, and where that is decided.

pub mod asg_scaler;
pub mod deps;
pub mod drainer;
pub mod fallback_tracker;
pub mod health_monitor;
pub mod heavy;
pub mod imds_poller;
pub mod janitor;
pub mod last_readings;
pub mod messages;
pub mod queue_poller;
pub mod supervision;

#[cfg(test)]
mod tests;
