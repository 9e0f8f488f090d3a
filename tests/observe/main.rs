//! What an operator and a user see of jobs: pages in a real browser, log lines, metrics, traces in a real Jaeger.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod logs;
mod metrics;
mod pages;
mod traces;

/// Browsers, and what compares times, take a machine for themselves: such tests run one after the other.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
