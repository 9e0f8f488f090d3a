//! Lines of programs' output, put together from its pieces: the published clients show each message as a line of its own.

use std::collections::BTreeMap;

use sqlflow_proto::v1::LogChunk;

/// Maximum bytes of a line; a longer one is split.
const MAX_LINE: usize = 64 * 1024;
/// Maximum number of streams with an unfinished line.
const MAX_STREAMS: usize = 16;

/// A stream of an attempt: step, attempt, rank and number of the stream.
type Stream = (u32, u32, u32, i32);

/// Unfinished lines. At most 1 MiB.
#[derive(Debug, Default)]
pub(super) struct Lines {
    unfinished: BTreeMap<Stream, Vec<u8>>,
}

impl Lines {
    /// Adds a piece with at most one line break, at its end, and appends the lines that are complete then.
    pub(super) fn push(&mut self, chunk: &LogChunk, piece: &[u8], out: &mut Vec<String>) {
        let stream = stream(chunk);
        if !self.unfinished.contains_key(&stream) && self.unfinished.len() >= MAX_STREAMS {
            self.flush(out);
        }
        let line = self.unfinished.entry(stream).or_default();
        line.extend_from_slice(piece);
        if line.ends_with(b"\n") || line.len() >= MAX_LINE {
            let line = self.unfinished.remove(&stream).unwrap_or_default();
            out.extend(line.chunks(MAX_LINE).map(text));
        }
    }

    /// Whether the chunk's stream has an unfinished line.
    pub(super) fn is_unfinished(&self, chunk: &LogChunk) -> bool {
        self.unfinished.contains_key(&stream(chunk))
    }

    /// Forgets the unfinished line of the chunk's stream.
    pub(super) fn forget(&mut self, chunk: &LogChunk) {
        self.unfinished.remove(&stream(chunk));
    }

    /// Appends the unfinished lines as they are.
    pub(super) fn flush(&mut self, out: &mut Vec<String>) {
        out.extend(std::mem::take(&mut self.unfinished).into_values().map(|line| text(&line)));
    }
}

fn stream(chunk: &LogChunk) -> Stream {
    (chunk.step, chunk.attempt, chunk.rank, chunk.stream)
}

/// A line as a terminal shows it: what stands before a carriage return is written over.
fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let start = line.iter().rposition(|byte| *byte == b'\r').map_or(0, |place| place + 1);
    String::from_utf8_lossy(&line[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_streams_are_put_together() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let stdout = LogChunk { stream: 1, ..LogChunk::default() };
        let stderr = LogChunk { stream: 2, ..LogChunk::default() };
        let euro = "€".as_bytes();
        for (chunk, piece) in
            [(&stdout, &euro[..1]), (&stderr, b"10 %\r20 %\r\n"), (&stdout, &euro[1..]), (&stdout, b"\n")]
        {
            lines.push(chunk, piece, &mut out);
        }
        assert_eq!(out, ["20 %", "€"]);
        lines.push(&stderr, b"unfinished", &mut out);
        assert!(lines.is_unfinished(&stderr) && !lines.is_unfinished(&stdout));
        lines.flush(&mut out);
        assert_eq!(out[2..], ["unfinished"]);
    }

    #[test]
    fn unfinished_lines_are_bounded() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for attempt in 0..100 {
            let chunk = LogChunk { attempt, ..LogChunk::default() };
            lines.push(&chunk, &vec![b'x'; 3 * MAX_LINE - 1], &mut out);
            lines.push(&chunk, b"y", &mut out);
            assert!(lines.unfinished.len() <= MAX_STREAMS);
        }
        assert!(out.iter().all(|line| line.len() <= MAX_LINE));
        lines.flush(&mut out);
        assert_eq!(out.iter().map(String::len).sum::<usize>(), 100 * 3 * MAX_LINE);
    }
}
