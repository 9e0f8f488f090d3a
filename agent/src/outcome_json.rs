//! The file with an attempt's outcome as a line of JSON: a Pod's termination message, or the file of `--outcome`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use sqlflow_os::durable;
use sqlflow_proto::agent::Outcome;
use sqlflow_termination_message::{MAX_BYTES, TerminationMessage};

use crate::output::terminal_records::TerminalRecords;

/// The outcome alone.
pub(crate) fn encode(outcome: &Outcome) -> String {
    TerminationMessage::new(outcome).encode()
}

/// With what a server needs to accept a success when all other records are lost.
pub(crate) fn encode_with(outcome: &Outcome, records: &TerminalRecords) -> String {
    let message = TerminationMessage::new(outcome);
    message.with_terminal_records(records.last_result, &records.records).encode()
}

/// Writes the line. A kill of this process at any moment leaves a whole line, or none.
///
/// # Errors
/// Those of the file system.
pub(crate) fn write(path: &Path, json: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            durable::replace_unsynced(path, |file| file.write_all(json.as_bytes()))
        }
        // A Pod's termination log cannot be replaced, and a file that is there has an owner and a mode.
        _ => write_over(path, json),
    }
}

fn write_over(path: &Path, json: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    let kind = file.metadata()?;
    // One write covers the old content, since JSON may end with blanks. It is one page, and the kernel writes a page
    // completely before it handles signals.
    let old = usize::try_from(kind.len()).unwrap_or(usize::MAX).min(MAX_BYTES);
    file.write_all(format!("{json:old$}").as_bytes())?;
    if kind.is_file() { file.set_len(json.len() as u64) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn file_is_never_seen_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcome.json");
        let text = encode(&Outcome { message: "x".repeat(3000), ..Outcome::default() });
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(found) = fs::read_to_string(&path) else { continue };
                    if found != text {
                        return Err(found);
                    }
                    reads += 1;
                }
                Ok(reads)
            });
            for _ in 0..3000 {
                write(&path, &text).unwrap();
                fs::remove_file(&path).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            assert!(reader.join().unwrap().unwrap() > 0, "nothing was read");
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no temporary file is left");
    }

    #[test]
    fn older_content_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outcome.json");
        for old in [0, 10, MAX_BYTES, 20 * MAX_BYTES] {
            fs::write(&path, "x".repeat(old)).unwrap();
            let text = encode(&Outcome::default());
            write(&path, &text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
