//! The edge to the Kubernetes API.

mod caps;
pub mod client;
pub mod convert;
mod follower;
pub mod lease;
pub mod marks;
mod picture;
pub mod pods;
pub mod problem;
pub mod slim;
pub mod splitter;
pub mod unread;
pub mod view;
pub mod watch;
