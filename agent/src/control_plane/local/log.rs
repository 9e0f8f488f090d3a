//! Log folder of a command: `stdout` and `stderr` byte for byte, and `records.jsonl` with a line for every piece of
//! output, warning and gap, in order.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Record, record::Payload};

const FILES: [&str; 2] = ["stdout", "stderr"];
const RECORDS: &str = "records.jsonl";

/// The files are written with each record, and synced at the end. So the log survives a kill of the agent, and after a
/// regular end also a crash of the machine.
#[derive(Debug)]
pub(super) struct LogFolder {
    stdout: Growing,
    stderr: Growing,
    records: Growing,
}

/// A file to which each write is made completely or not at all.
#[derive(Debug)]
struct Growing {
    file: File,
    length: u64,
    pending: Vec<u8>,
}

impl Growing {
    fn create(dir: &Path, name: &str) -> io::Result<Self> {
        // New, so that two commands never mix their output.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(dir.join(name))
            .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self { file, length: 0, pending: Vec::new() })
    }

    /// Writes the pending bytes. After an error nothing counts as written, and it can be retried.
    fn write(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&self.pending)?;
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl LogFolder {
    /// Creates the folder and its files. Files of an earlier run, for example before a restart of the container, are
    /// renamed: `stdout.1`.
    ///
    /// # Errors
    /// Those of the file system; another run uses the folder now.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        // The kernel releases the lock when its process ends.
        let _earlier =
            lock(OpenOptions::new().write(true).create(true).truncate(false).open(dir.join(RECORDS))?)?;
        move_aside(dir)?;
        let mut records = Growing::create(dir, RECORDS)?;
        records.file = lock(records.file)?;
        Ok(Self { stdout: Growing::create(dir, "stdout")?, stderr: Growing::create(dir, "stderr")?, records })
    }

    /// Appends records. After an error, call it again with the same ones.
    pub(super) fn write(&mut self, records: &[Record]) -> io::Result<()> {
        for file in [&mut self.stdout, &mut self.stderr, &mut self.records] {
            file.pending.clear();
        }
        // After a failure of one file, the bytes in the others must not be written twice.
        let lengths = [self.stdout.length, self.stderr.length];
        for record in records {
            if let Some(Payload::Output(output)) = &record.payload {
                let file = match output.stream() {
                    Stream::Stderr => &mut self.stderr,
                    Stream::Stdout | Stream::Unspecified => &mut self.stdout,
                };
                file.pending.extend_from_slice(&output.data);
            }
            serde_json::to_writer(&mut self.records.pending, &line(record))?;
            self.records.pending.push(b'\n');
        }
        let written =
            [&mut self.stdout, &mut self.stderr, &mut self.records].into_iter().try_for_each(Growing::write);
        if written.is_err() {
            [self.stdout.length, self.stderr.length] = lengths;
        }
        written
    }

    /// Appends the outcome, and makes everything durable.
    pub(super) fn end(&mut self, outcome: &str) -> io::Result<()> {
        self.records.pending.clear();
        writeln!(self.records.pending, "{outcome}")?;
        self.records.write()?;
        for file in [&self.stdout, &self.stderr, &self.records] {
            file.file.sync_all()?;
        }
        Ok(())
    }
}

fn lock(file: File) -> io::Result<File> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "another run uses it now; use another folder"))
        }
        // Some file systems do not support locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Renames the files of an earlier run, with numbers from 1.
fn move_aside(dir: &Path) -> io::Result<()> {
    if fs::metadata(dir.join(RECORDS))?.len() == 0 && FILES.iter().all(|it| !dir.join(it).exists()) {
        return fs::remove_file(dir.join(RECORDS));
    }
    let mut last = 0;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|it| it.rsplit_once('.')).and_then(|(_, it)| it.parse().ok());
        last = last.max(number.unwrap_or(0_u64));
    }
    for name in FILES.iter().chain([&RECORDS]) {
        match fs::rename(dir.join(name), dir.join(format!("{name}.{}", last.saturating_add(1)))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
    }
    tracing::info!(number = last.saturating_add(1), "renamed the log of an earlier run");
    Ok(())
}

fn line(record: &Record) -> Value {
    let mut line = json!({ "seq": record.seq, "time_unix_micros": record.time_unix_micros });
    let (kind, value) = match &record.payload {
        Some(Payload::Output(output)) => {
            let stream = if output.stream() == Stream::Stderr { "stderr" } else { "stdout" };
            ("output", json!({ "stream": stream, "offset": output.offset, "bytes": output.data.len() }))
        }
        Some(Payload::Gap(gap)) => {
            ("gap", json!({ "reason": gap.reason().as_str_name(), "bytes": gap.bytes }))
        }
        Some(Payload::Notice(notice)) => ("notice", json!(notice.text)),
        Some(Payload::Model(model)) => ("published", json!({ "uri": model.uri, "name": model.name })),
        // Only submitters send other records.
        _ => ("other", Value::Null),
    };
    line[kind] = value;
    line
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::Output;

    use super::*;

    fn output(seq: u64, stream: Stream, text: &str) -> Record {
        let data = text.as_bytes().to_vec().into();
        let output = Output { stream: stream.into(), offset: 0, data };
        Record { seq, payload: Some(Payload::Output(output)), ..Record::default() }
    }

    #[test]
    fn records_keep_the_order_of_separate_streams() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = LogFolder::create(dir.path()).unwrap();
        log.write(&[output(1, Stream::Stdout, "a"), output(2, Stream::Stderr, "b")]).unwrap();
        log.write(&[output(3, Stream::Stdout, "c")]).unwrap();
        log.end("{}").unwrap();
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((&*read("stdout"), &*read("stderr")), ("ac", "b"));
        let lines = read("records.jsonl");
        let streams: Vec<_> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["output"]["stream"].clone())
            .collect();
        assert_eq!(streams, [json!("stdout"), json!("stderr"), json!("stdout"), Value::Null]);
    }

    /// As after a restart of the container.
    #[test]
    fn earlier_logs_are_numbered_and_a_running_one_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        for text in ["first", "second", "third"] {
            let mut log = LogFolder::create(dir.path()).unwrap();
            log.write(&[output(1, Stream::Stdout, text)]).unwrap();
            let refused = LogFolder::create(dir.path()).unwrap_err();
            assert!(refused.to_string().contains("another run uses it now"), "{refused}");
            assert_eq!(read("stdout"), text);
        }
        assert_eq!((&*read("stdout.1"), &*read("stdout.2"), &*read("stdout")), ("first", "second", "third"));
        assert!(read("records.jsonl.2").contains("output") && read("records.jsonl").contains("output"));
    }
}
