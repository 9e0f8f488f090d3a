//! The attempt's life, decided: `apply(event) → actions`, with no clock, process or network.
//!
//! ```text
//! attaching → preparing → running → draining → staging → asking → committing → flushing → reporting → done
//!     │           │          │          └── nothing to publish ──────────────────↑
//!     │           └──────────┴── it cannot start ──────────────────────────────────↑
//!     └── refused, or no server in time ───────────────────────────────────────────────────────────→ done
//! ```
//! With a server, a start that fails because something is used up goes to `starting`, and from there to `running` again.
//! Only `exec` flushes; with a server the records hold everything, and wait for it while reporting.
//!
//! `event` names what happens and what is done, `machine` holds the states and transitions, `budget` divides the time after
//! a TERM, `exit_report` turns what is known at the end into an outcome. Only [`crate::runner`] feeds events and carries out
//! actions.

mod budget;
mod event;
mod exit_report;
mod machine;
#[cfg(test)]
mod tests;

pub use budget::{Budget, Load};
pub use event::{Action, Event, OutputSink, Plan, Timer};
pub use exit_report::{EXIT_FAULT, Exit, ExitReport, ExitStatus, PublishFault, StartFault};
pub use machine::Attempt;
