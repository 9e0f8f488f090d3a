//! What an operator and a user see of jobs: pages in a real browser, metrics, traces in a real Jaeger.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod metrics;
mod pages;
mod traces;
