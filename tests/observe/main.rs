//! Observability of jobs: pages in a real browser, log lines, metrics, traces in a real Jaeger.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod collector;
mod exported;
mod logs;
mod metrics;
mod pages;
mod traces;

/// Tests with browsers or comparisons of times need the machine for themselves, so they run one after the other.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
