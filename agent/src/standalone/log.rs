//! A folder that keeps a command's output: `stdout` and `stderr` byte for byte, and `records.jsonl`, a line for every
//! piece of them, warning and gap, in the order in which they came.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Record, record::Payload};

/// The files are written as the records come, and synced at the end: what the agent took survives its own death, and
/// after a good end also the machine's.
#[derive(Debug)]
pub(super) struct LogFolder {
    stdout: Growing,
    stderr: Growing,
    records: Growing,
}

/// A file of which only what was written whole counts.
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

    /// Writes what is pending. After an error the file is as if nothing had been written, and it can be tried again.
    fn write(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(&self.pending)?;
        self.length += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl LogFolder {
    /// Makes the folder, and its files anew.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            stdout: Growing::create(dir, "stdout")?,
            stderr: Growing::create(dir, "stderr")?,
            records: Growing::create(dir, "records.jsonl")?,
        })
    }

    /// Appends records. After an error call it again with the same ones.
    pub(super) fn write(&mut self, records: &[Record]) -> io::Result<()> {
        for file in [&mut self.stdout, &mut self.stderr, &mut self.records] {
            file.pending.clear();
        }
        // A stream that was written before another one failed must not get the same bytes twice.
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

    /// Adds the outcome, and makes all of it durable.
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
        // Only submitters say such things.
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
    fn streams_are_apart_and_their_order_is_kept() {
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

    #[test]
    fn a_folder_of_another_run_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        LogFolder::create(dir.path()).unwrap();
        assert_eq!(LogFolder::create(dir.path()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
