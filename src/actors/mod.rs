//! The actors: each box of the flow has one mailbox. They translate between the core and the world, and hold
//! no decisions.

pub mod supervision;
