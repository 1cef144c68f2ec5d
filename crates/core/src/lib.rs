//! The decisions, pure: no runtime, no network, no clock of its own, no log. Actors bring facts in and carry
//! commands out.

pub mod adoption;
pub mod agents;
pub mod baseline;
pub mod classify;
pub mod cluster;
mod codes;
pub mod drain;
pub mod effort;
pub mod flow;
pub mod freshness;
pub mod group;
pub mod group_kind;
pub mod health;
pub mod ids;
pub mod imds;
pub mod ledger;
pub mod limits;
pub mod lookback;
#[cfg(test)]
mod model;
pub mod neighbours;
pub mod node_trouble;
pub mod notices;
pub mod notification;
pub mod placement;
pub mod policy;
pub mod preflight;
pub mod queue;
pub mod readings;
pub mod reason;
pub mod record;
pub mod replacement;
pub mod safety;
pub mod savings;
pub mod scaling;
pub mod shortfall;
pub mod spot_action;
pub mod spot_action_answer;
pub mod stand_ins;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod windows;
mod wording;
