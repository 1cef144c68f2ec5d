//! Tests against the real parts: a control plane, nodes and pods by KWOK, AWS's metadata mock.
//!
//! `testbed/build` builds them; the first time that takes minutes.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod access;
mod adoption;
mod agent;
mod attacks;
mod audit;
#[path = "../contract/autoscaling.rs"]
mod autoscaling;
mod bad_input;
mod bench;
mod chart;
mod chart_upgrade;
mod check;
mod contract;
mod crds;
mod demo;
mod differential;
mod documents;
mod drain;
mod helpers;
mod imds;
#[path = "../contract/kubernetes.rs"]
mod kubernetes;
mod kustomize;
mod leadership;
mod monitoring;
mod moto;
mod nodes;
mod process;
mod product;
mod queue;
mod real_parts;
mod shortfall;
#[path = "../cli/shown.rs"]
mod shown;
mod spot_actions;
mod stories;
mod terraform;
mod testbed;
mod traces;
mod webhook;
