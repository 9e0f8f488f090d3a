//! Prepares an attempt: workspace and inputs of its command, or the kept output that it only publishes.

use std::path::Path;
use std::sync::Arc;

use sqlflow_model_storage::RetryPolicy;
use sqlflow_os::run_as::RunAs;
use sqlflow_proto::agent::{Assignment, AttemptRef};
use tokio::task::spawn_blocking;

use super::{RunConfig, Runner, attempt_of};
use crate::input::{self, InputError};
use crate::output::link::Link;
use crate::publish::Publication;
use crate::supervisor::{Event, PrepareEvent};
use crate::{known_models, workspace};

impl Runner {
    /// Prepares in another thread, which sends an event at the end.
    pub(super) fn prepare(&mut self) {
        let assignment = self.assignment();
        let attempt = attempt_of(&assignment);
        let config = self.config.clone();
        // The workspace of the attempt whose output is published.
        let root = match (&config.run_dir, assignment.publish_attempt) {
            (Some(dir), earlier @ 1..) => workspace::of_attempt(dir, attempt.step, earlier),
            _ => config.root.clone(),
        };
        match Publication::new(&attempt, &assignment.outputs, &root, config.publish_retry) {
            Ok(publication) => {
                let publication = publication.suggesting(assignment.visibility.as_ref());
                let publication = publication.reading_as(config.run_as);
                self.publication = Some(Arc::new(publication));
            }
            Err(why) => return self.send(Event::Prepare(PrepareEvent::WorkspaceFailed(why))),
        }
        self.link.outbox.hold_ends(assignment.outputs.iter().filter_map(|output| output.statement));
        let (publication, link) = (self.publication(), self.link.clone());
        let warns = |link: &Arc<Link>| {
            let link = Arc::clone(link);
            move |text| link.outbox.warn(text)
        };
        publication.on_failing_storage(warns(&link));
        self.fetching.on_failing(warns(&link));
        let (retry, events) = (self.fetching.clone(), self.events.clone());
        spawn_blocking(move || {
            let prepared = prepare(&config, &root, &assignment, &retry);
            let outputs = match prepared {
                Event::Prepare(PrepareEvent::Prepared) if assignment.publish_attempt == 0 => {
                    let outputs = publication.prepare(&|text| link.outbox.warn(text));
                    outputs.and_then(|()| give(&root, config.run_as))
                }
                _ => Ok(()),
            };
            let _ = events.send(match outputs {
                Ok(()) => prepared,
                Err(why) => Event::Prepare(PrepareEvent::WorkspaceFailed(why)),
            });
        });
    }
}

/// Gives the workspace to the user of the command, if that is another one.
fn give(root: &Path, user: Option<RunAs>) -> Result<(), String> {
    user.map_or(Ok(()), |user| workspace::give(root, user).map_err(|error| format!("{error:#}")))
}

/// Prepares everything below `root`. Blocks.
fn prepare(config: &RunConfig, root: &Path, assignment: &Assignment, retry: &Arc<RetryPolicy>) -> Event {
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
    let removed = if config.run_as.is_some() { workspace::remove(root) } else { Ok(()) };
    if let Err(error) = removed.and_then(|()| workspace::create(root, &assignment.files, retry)) {
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
