//! Attacks on Spot Guard as its manifests install it, on a real API server: each was run against a version
//! that fell.
//!
//! SECURITY.md tells what whoever holds a token can do and cannot, with the name of its test.

mod agents;
mod blinding;
mod checks;
mod connections;
mod floods;
mod identity;
mod logs;
mod rights;
