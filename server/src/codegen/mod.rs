//! From statements to submitters. The generated program is a few lines of Python; what it is to do is a JSON
//! document beside it. No SQL text is ever pasted into source code, and no shell is on the way.

mod assignment;
mod build;
pub mod gob;
mod spec;

pub use assignment::{AssignOptions, Assigner, DATA_SOURCE};
pub use build::{job_steps, step_specs};
pub use spec::{InputSpec, OutputSpec, RemovalSpec, ReplaySpec, STEP_VERSION, StepSpec};
