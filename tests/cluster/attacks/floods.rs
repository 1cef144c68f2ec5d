//! Floods of objects by one agent token.
