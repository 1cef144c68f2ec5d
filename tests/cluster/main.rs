//! Tests against the real parts: a control plane, nodes and pods by KWOK, AWS's metadata mock.
//!
//! `testbed/build` builds them; the first time that takes minutes.

mod agent;
mod demo;
mod helpers;
mod imds;
mod process;
mod real_parts;
mod testbed;
