//! Watch channels by key, blocking work on threads for it, and mutexes without poisoning.

pub mod blocking;
mod mutex;
pub mod watched;

pub use mutex::lock;
