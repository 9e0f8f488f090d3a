//! What is shown of a job: records in, text or JSON out. Nothing here does I/O; a [`Screen`] takes what comes out.

mod csv;
mod description;
mod expanded;
mod held_line;
pub(crate) mod job;
pub(crate) mod json;
pub(crate) mod logs;
pub(crate) mod model;
pub(crate) mod program_error;
pub(crate) mod progress;
pub(crate) mod result_set;
pub(crate) mod table;
pub(crate) mod text;

use std::io;

use sqlflow_proto::v1::{JobStatus, Response};

use crate::failure::Failure;
use progress::ProgressView;

/// Text of a result set is handed on in pieces of about this many bytes.
const PIECE: usize = 64 * 1024;

/// How a line for the person is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A result.
    Plain,
    /// By the way: what is happening, and why it waits.
    Dim,
    /// Something is missing or strange.
    Warning,
}

/// Where a view's output goes.
pub(crate) trait Screen {
    /// Writes results: standard output.
    fn results(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Writes one line for the person: standard error. A person who can't be told is no reason to stop.
    fn line(&mut self, tone: Tone, text: &str);
    /// Passes on the job's own output as it is: standard error.
    fn log(&mut self, bytes: &[u8]);
    /// Shows how far a statement is; replaces what was shown before.
    fn progress(&mut self, view: &ProgressView);
    /// The statement is no longer in progress.
    fn end_progress(&mut self);
    /// Keeps a display as a file, if the person asked for that; gives the line that says where it is or how to get it.
    fn save(&mut self, name: &str, data: &[u8]) -> Result<String, Failure>;
}

/// One way of showing a job.
pub(crate) trait View {
    /// Shows one record.
    fn show(&mut self, response: &Response, screen: &mut dyn Screen) -> Result<(), Failure>;
    /// Takes the job's state after each page; `next` is the token to go on with.
    fn status(&mut self, status: &JobStatus, next: &str, screen: &mut dyn Screen) -> Result<(), Failure>;
    /// Shows what it kept back: the reader leaves before the job's end.
    fn left(&mut self, _screen: &mut dyn Screen) {}
}

#[cfg(test)]
pub(crate) mod test_screen {
    use super::*;

    /// Keeps all that is shown, as text that a test can read.
    #[derive(Debug, Default)]
    pub(crate) struct TestScreen {
        pub(crate) results: String,
        pub(crate) lines: Vec<String>,
        pub(crate) log: String,
        pub(crate) progress: Vec<String>,
        pub(crate) saved: Vec<String>,
    }

    impl Screen for TestScreen {
        fn results(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.results.push_str(std::str::from_utf8(bytes).expect("views write UTF-8 here"));
            Ok(())
        }

        fn line(&mut self, _tone: Tone, text: &str) {
            self.lines.push(text.to_owned());
        }

        fn log(&mut self, bytes: &[u8]) {
            self.log.push_str(&String::from_utf8_lossy(bytes));
        }

        fn progress(&mut self, view: &ProgressView) {
            self.progress.push(view.to_string());
        }

        fn end_progress(&mut self) {
            self.progress.push("end".to_owned());
        }

        fn save(&mut self, name: &str, data: &[u8]) -> Result<String, Failure> {
            self.saved.push(name.to_owned());
            Ok(format!("saved {} bytes", data.len()))
        }
    }
}
