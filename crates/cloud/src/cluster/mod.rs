//! The Kubernetes half of the simulated cloud: an API server in memory, with the controllers that keep a
//! cluster alive.
//!
//! A request goes `client` (identity, gate) → `apiserver` (verbs) → `objects` (rules of writing) → `store`
//! (versions and history) → `world` (files the work that the change makes). [`Cluster::run`] wakes up for
//! that work and for nothing else: `controllers`, `scheduler`, `kubelet` and `disruption` do it. `watch`
//! reads the history, `eviction` guards pods by their budgets, `scenario` is the side door for tests and
//! stories.

mod answer;
mod apiserver;
mod client;
mod controllers;
mod deletion;
mod discovery;
mod disruption;
mod eviction;
mod handle;
mod json;
mod kubelet;
mod list;
mod notes;
mod notice_names;
mod objects;
mod patch;
mod placement;
mod refusal;
mod request;
mod resources;
mod review;
mod scenario;
mod scheduler;
mod selector;
mod store;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod world;

pub use answer::{Body, BoxError};
pub use handle::Cluster;
pub use json::ObjectKey;
pub(crate) use json::quantity;
pub(crate) use notice_names::{is_name_of, name_demanded};
pub use refusal::{Refusal, refusal};
pub use request::{Identity, OpenGate, RequestFate, RequestGate, RequestInfo};
pub use resources::ResourceKind;
pub use scenario::{Deployment, NodeSpec, readable};
pub use store::ChangeKind;
pub use world::{Change, PdbViolation, Policy, Timing, Validator};
