//! Assignments for submitters, from statements. The generated program is a few lines of Python, with a JSON document
//! of the work beside it. SQL text is never pasted into source code, and no shell is involved.

mod assignment;
mod build;
mod confinement;
pub mod gob;
mod spec;

pub use assignment::{AssignOptions, Assigner, DATA_SOURCE, secrets_of};
pub use build::{job_steps, step_specs};
pub use confinement::ConfinementOptions;
pub use spec::{InputSpec, OutputSpec, RemovalSpec, ReplaySpec, STEP_VERSION, StepSpec, VisibilityRule};
