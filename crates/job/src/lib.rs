//! Jobs: ids, state, and two pure functions. `Job::apply` applies an event to the state, `Job::next` decides the next
//! action of a reconciler. Nothing here does I/O or reads a clock.

mod apply;
mod attempt;
mod cleanup;
mod executor;
mod failure;
#[cfg(any(test, feature = "test-support"))]
pub mod fixture;
mod ids;
mod job;
mod launcher_id;
mod next;
mod outcome;
mod statement_ends;
mod step;
#[cfg(test)]
mod tests;

pub use apply::{Basis, Change, Event, Rejection};
pub use attempt::{Attempt, EndedBy, InstanceHash, Milestones, Phase, Role, Stage};
pub use cleanup::{MAX_CLEANUPS, unclear_grant};
pub use executor::{ExecutorProof, ExecutorRef};
pub use failure::{Cause, Failure};
pub use ids::{AttemptId, CursorToken, JobId, JobKey, ParseIdError, Token, TokenHash};
pub use job::{Job, JobState};
pub use launcher_id::{LauncherId, LauncherKind};
pub use next::{Again, Evidence, MAX_ATTEMPTS, MAX_PUBLISH_ATTEMPTS, Next};
pub use outcome::{Outcome, Reason};
pub use statement_ends::StatementEnds;
pub use step::{Step, StepKind};
