//! Watch channels by key, work on threads that may block, and locks of memory.

pub mod blocking;
mod mutex;
pub mod watched;

pub use mutex::lock;
