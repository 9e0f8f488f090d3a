//! State machine of an attempt: `apply(event) → actions`. Pure: no clock, process or network.
//!
//! ```text
//! attaching → preparing → running → draining → staging → asking → committing → flushing → reporting → done
//!     │           │          │          └── nothing to publish ──────────────────↑
//!     │           └──────────┴── it cannot start ──────────────────────────────────↑
//!     └── refused, or no server in time ───────────────────────────────────────────────────────────→ done
//! ```
//! With a server, a start that fails for exhaustion goes to `starting`, and from there to `running` again. Only `exec`
//! flushes: with a server the records hold all output, and are sent while reporting.
//!
//! `event` defines events and actions, `machine` states and transitions. `budget` divides the time after a TERM,
//! `programs` finds the cause of the end of a command with a companion, `exit_report` makes the report at the end. Only [`crate::runner`] feeds events and carries out actions.

mod budget;
mod event;
mod exit_report;
mod machine;
mod programs;
#[cfg(test)]
mod tests;

pub use budget::{Budget, Load};
pub use event::{
    Action, AttachEvent, CommandEvent, Event, GrantEvent, OutputSink, Plan, PrepareEvent, PublishEvent,
    ReportEvent, Timer,
};
pub use exit_report::{EXIT_FAULT, Exit, ExitReport, ExitStatus, PublishFault, StartFault};
pub use machine::Attempt;
pub use programs::Program;
