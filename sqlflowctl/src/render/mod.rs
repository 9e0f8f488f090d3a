//! Turns a job's records into text or JSON. Does no I/O; a [`Screen`] takes the output.

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

use sqlflow_proto::v1::{EncodedRows, JobStatus, Response, Rows};
use sqlflow_text::cell::Batch;

use crate::failure::Failure;
use progress::ProgressView;

/// Approximate size of the pieces in which a result set is written.
const PIECE: usize = 64 * 1024;

/// Decodes rows.
fn decoded(rows: &EncodedRows) -> Result<Rows, Failure> {
    rows.decoded().map_err(|error| Failure::Server(format!("the server sent invalid rows: {error}")))
}

/// Checks rows.
fn batch(rows: &Rows) -> Result<Batch<'_>, Failure> {
    Batch::new(rows).map_err(|torn| Failure::Server(format!("the server sent invalid rows: {torn}")))
}

/// Kind of a line for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A result.
    Plain,
    /// Background information, such as pending reasons.
    Dim,
    /// Something is missing or suspicious.
    Warning,
}

/// Destination of a view's output.
pub(crate) trait Screen {
    /// Writes results to standard output.
    fn results(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Writes one line for the user to standard error. Errors are ignored.
    fn line(&mut self, tone: Tone, text: &str);
    /// Writes the job's own output to standard output; on a terminal, with control sequences escaped.
    fn output(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Writes the job's own output to standard error; on a terminal, with control sequences escaped.
    fn log(&mut self, bytes: &[u8]);
    /// Shows the progress of a statement, in place of earlier progress.
    fn progress(&mut self, view: &ProgressView);
    /// Removes the progress: the statement has ended.
    fn end_progress(&mut self);
    /// Saves a display to a file, if the user wants that. Returns the file's path, or how to get it.
    fn save(&mut self, name: &str, data: &[u8]) -> Result<String, Failure>;
}

/// A format for a job.
pub(crate) trait View {
    /// Shows one record.
    fn show(&mut self, response: &Response, screen: &mut dyn Screen) -> Result<(), Failure>;
    /// Called with the job's status after each page; `next` is the token for the next one.
    fn status(&mut self, status: &JobStatus, next: &str, screen: &mut dyn Screen) -> Result<(), Failure>;
    /// Shows what was held back: the command stops reading before the job's end.
    fn left(&mut self, _screen: &mut dyn Screen) {}
}

#[cfg(test)]
pub(crate) mod test_screen {
    use super::*;

    /// Keeps the output for tests.
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

        fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.results(bytes)
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
