//! Watch channels by key, and work on threads that may block.

pub mod blocking;
pub mod watched;
