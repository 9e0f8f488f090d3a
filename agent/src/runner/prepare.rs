//! Prepares an attempt: workspace and inputs of its command, or the kept output that it only publishes.

use std::path::Path;
use std::sync::Arc;

use sqlflow_model_storage::RetryPolicy;
use sqlflow_proto::agent::{Assignment, AttemptRef};

use super::{RunConfig, attempt_of};
use crate::input::{self, InputError};
use crate::supervisor::{Event, PrepareEvent};
use crate::{known_models, workspace};

/// Prepares everything below `root`. Blocks.
pub(super) fn prepare(
    config: &RunConfig,
    root: &Path,
    assignment: &Assignment,
    retry: &Arc<RetryPolicy>,
) -> Event {
    if let Some(dir) = config.run_dir.as_ref().filter(|_| config.keeps_output) {
        remove_earlier(dir, &attempt_of(assignment), assignment.publish_attempt);
    }
    if assignment.publish_attempt > 0 {
        return match std::fs::metadata(root) {
            Ok(_) => Event::Prepare(PrepareEvent::Prepared),
            Err(error) => Event::Prepare(PrepareEvent::OutputMissing(format!(
                "cannot publish the output of attempt {}: {}: {error}",
                assignment.publish_attempt,
                root.display()
            ))),
        };
    }
    if let Err(error) = workspace::create(root, &assignment.files, retry) {
        return Event::Prepare(PrepareEvent::WorkspaceFailed(format!("{error:#}")));
    }
    let visibility = assignment.visibility.as_ref();
    for input in &assignment.inputs {
        let attempt = attempt_of(assignment);
        if let Err(error) = input::fetch(root, input, &attempt, visibility, config.cache.as_ref(), retry) {
            let user_error = matches!(error, InputError::Missing { .. });
            return Event::Prepare(PrepareEvent::InputFailed { message: error.to_string(), user_error });
        }
    }
    for model in &assignment.required {
        if let Err(error) = input::require(root, model, &attempt_of(assignment), visibility, retry) {
            let user_error = matches!(error, InputError::Missing { .. });
            return Event::Prepare(PrepareEvent::InputFailed {
                message: format!("a later statement cannot run: {error}"),
                user_error,
            });
        }
    }
    for listing in &assignment.listings {
        if let Err(error) = known_models::list(root, listing, visibility, retry) {
            return Event::Prepare(PrepareEvent::InputFailed {
                message: format!("{error:#}"),
                user_error: false,
            });
        }
    }
    Event::Prepare(PrepareEvent::Prepared)
}

/// Removes workspaces of earlier attempts on the same volume, except kept output.
fn remove_earlier(run_dir: &Path, attempt: &AttemptRef, but: u32) {
    for earlier in (1..attempt.attempt).filter(|it| *it != but) {
        let workspace = workspace::of_attempt(run_dir, attempt.step, earlier);
        match std::fs::remove_dir_all(&workspace) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, workspace = %workspace.display(), "cannot remove an earlier attempt's workspace");
            }
            _ => {}
        }
    }
}
