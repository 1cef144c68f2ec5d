//! The actors: each box of the flow has one mailbox. They translate between the core and the world, and hold
//! no decisions.

pub mod asg_scaler;
pub mod deps;
pub mod drainer;
pub mod fallback_tracker;
pub mod health_monitor;
pub mod heavy;
pub mod imds_poller;
pub mod janitor;
pub mod messages;
pub mod supervision;
