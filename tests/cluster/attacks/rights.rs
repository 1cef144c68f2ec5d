//! What each role may do, and no more.
