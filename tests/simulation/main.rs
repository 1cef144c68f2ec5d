//! The real controller and the real agents on the simulated cloud, on paused time, with seeds: every story
//! of the demo, and what must always hold.

mod busy;
mod crashes;
mod errors;
mod mishaps;
mod notices;
mod play;
mod stories;
