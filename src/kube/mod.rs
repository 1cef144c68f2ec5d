//! The edge to the Kubernetes API.

pub mod asked;
pub mod autoscaler;
mod caps;
pub mod client;
mod closed;
pub mod convert;
pub mod counted;
pub mod crowd;
mod follower;
pub mod lease;
pub mod marks;
mod picture;
pub mod pods;
pub mod problem;
pub mod scheduled;
pub mod slim;
pub mod splitter;
pub mod time;
pub mod unread;
pub mod values;
pub mod view;
pub mod watch;
