//! A submitter channel, and what its program may send there.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::BytesMut;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

use crate::channel::codec::Content;
use crate::channel::replies::Answer;
use crate::supervisor::Program;

/// The frames that a program may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rights {
    /// All.
    All,
    /// Those that are no results. Only the companion of this name may send results.
    NoResults {
        /// Name of the companion.
        companion: String,
    },
    /// All. The sender is the companion of this name.
    OfCompanion(String),
}

impl Rights {
    pub(super) fn check(&self, content: &Content) -> Result<(), String> {
        match (self, content.result_kind()) {
            (Self::NoResults { companion }, Some(kind)) => Err(format!(
                "cannot accept the frame `{kind}` from the command: only {companion} may send it; \
                 use the submitter of the agent's version"
            )),
            (Self::NoResults { .. }, None) | (Self::All | Self::OfCompanion(_), _) => Ok(()),
        }
    }

    /// Names the sender of a bad frame, if there are two.
    pub(super) fn blame(&self, cause: &str) -> String {
        match self {
            Self::All => cause.to_owned(),
            Self::NoResults { .. } => format!("the command: {cause}"),
            Self::OfCompanion(name) => format!("{name}: {cause}"),
        }
    }
}

/// The agent's end of a submitter channel.
#[derive(Debug)]
pub struct Channel {
    pub(super) program: Program,
    pub(super) rights: Rights,
    /// Number of frames so far.
    pub(super) frames: Arc<AtomicU64>,
    pub(super) incoming: OwnedReadHalf,
    /// The beginning of a frame.
    pub(super) buffer: BytesMut,
    /// Acknowledgements that are due later.
    pub(super) answers: mpsc::Sender<Answer>,
}

impl Channel {
    /// With nothing read yet.
    pub fn new(
        program: Program,
        rights: Rights,
        incoming: OwnedReadHalf,
        answers: mpsc::Sender<Answer>,
    ) -> Self {
        Self { program, rights, frames: Arc::default(), incoming, buffer: BytesMut::new(), answers }
    }

    /// Number of frames so far.
    pub fn frames(&self) -> Arc<AtomicU64> {
        self.frames.clone()
    }
}
