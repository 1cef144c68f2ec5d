//! The real controller and the real agents on the simulated cloud, on paused time, with seeds: every story
//! of the demo, and what must always hold.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod adoption;
mod autoscaler;
mod crashes;
mod drain;
mod errors;
mod full_cluster;
mod groups;
mod holds;
mod hooks;
mod leadership;
mod limits;
mod logs;
mod market;
mod metrics;
mod mishaps;
mod nodes;
mod notices;
mod outages;
mod play;
mod pools;
mod queue;
mod random;
mod records;
mod returns;
mod rights;
mod scaling;
mod shortfall;
mod spot_actions;
mod stale;
mod stories;
mod supervision;
mod unread;
mod unusable;
