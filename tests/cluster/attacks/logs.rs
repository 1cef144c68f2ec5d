//! Secrets that must not reach a log.
