//! What an operator and a user see of jobs: traces in a real Jaeger.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod traces;
