//! The cloud half of the simulated world: Auto Scaling groups, their Spot and on-demand capacity, and the
//! instance metadata of every instance.
//!
//! The product reaches it through the real protocols: the Auto Scaling Query API and IMDSv2, in process
//! ([`Cloud::sdk_config`], [`Cloud::imds_client`]) or over loopback ([`Cloud::serve_autoscaling`]). What
//! happens to the nodes goes to a [`NodeHost`]. A scenario drives it with the methods of [`Cloud`].
//!
//! Everything random comes from the seed, and time from one [`CloudClock`], so that the same scenario gives
//! the same story. Each request and each control first lets everything happen that was due before it.

mod activity;
mod aside;
mod autoscaling;
mod describe;
mod event;
mod faults;
mod groups;
mod handle;
mod host;
mod imds;
mod launch_instances;
mod lifecycle;
mod listing;
mod messages;
mod query;
mod queue;
mod run;
mod sdk;
mod serve;
mod snapshot;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use activity::Activity;
pub use event::{CallRecord, CloudEvent, EventKind};
pub use faults::{CallFate, CallGate, ErrorAnswer, GateCall, ScriptedGate};
pub use handle::Cloud;
pub use host::{NodeHost, NodeJoin, NullHost};
pub use serve::Served;
pub use snapshot::{CloudSnapshot, GroupSnapshot, InstanceSnapshot};
pub use spec::{
    BootFault, BootTimes, CloudSettings, GroupSpec, ImdsMode, LaunchFailure, Market, MixedPolicy,
    NoticeQueue, Supply,
};
pub use state::LifecycleState;
