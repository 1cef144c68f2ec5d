//! A simulated world that speaks the real protocols: demos and tests run the product against it unchanged.

pub mod cloud;
