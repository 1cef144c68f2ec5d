//! Notices of an agent about what is not its own.
