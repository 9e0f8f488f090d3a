#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod check;
mod observed;
mod program;
mod schedule;
