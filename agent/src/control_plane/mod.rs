//! The control plane of an attempt assigns it, takes its records, grants its commit and acknowledges its outcome.
//! `remote` is a server, `local` replaces one for `exec`. Both send [`Incoming`] to the runner, and share the [`Link`]
//! with it. Neither depends on the runner.

pub(crate) mod local;
pub(crate) mod remote;

use std::sync::Arc;

use sqlflow_proto::agent::{Assignment, AttemptRef};
use tokio::sync::mpsc;

use crate::output::link::Link;
use crate::supervisor::Event;
use local::LocalControlPlane;
use remote::RemoteControlPlane;

/// A server, or its replacement.
#[derive(Debug)]
pub(crate) enum ControlPlane {
    Remote(Box<RemoteControlPlane>),
    Local(Box<LocalControlPlane>),
}

impl ControlPlane {
    /// Starts the task that serves the attempt until the agent ends.
    pub(crate) fn spawn(self, link: Arc<Link>, incoming: mpsc::UnboundedSender<Incoming>) {
        match self {
            Self::Remote(remote) => tokio::spawn(remote.run(link, incoming)),
            Self::Local(local) => tokio::spawn(local.run(link, incoming)),
        };
    }
}

/// A message of the control plane to the runner.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// The assignment is complete.
    Assigned(Box<Assignment>),
    /// Any other event.
    Event(Event),
}

/// The attempt of an assignment. Both control planes set it.
pub(crate) fn attempt_of(assignment: &Assignment) -> AttemptRef {
    assignment.attempt.clone().unwrap_or_default()
}
