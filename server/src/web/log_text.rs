//! A job's output as text.

use std::collections::{HashMap, VecDeque};

use sqlflow_proto::record::{StoredRecord, gap, notice, output::Stream, record::Payload};

use sqlflow_job::JobState;

/// Maximum number of streams with an incomplete character: two for each running attempt.
const MAX_STREAMS: usize = 64;

/// Maximum bytes of a line; the rest of it is left out.
const MAX_LINE: usize = 8 << 10;

/// Converts records to text, in whole characters.
#[derive(Debug, Default)]
pub(super) struct LogText {
    /// First bytes of an incomplete character.
    torn: HashMap<StreamKey, Vec<u8>>,
}

/// A stream of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct StreamKey {
    step: u32,
    attempt: u32,
    stream: i32,
}

/// A piece of a log for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: PieceKind,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Stdout,
    Stderr,
    /// A complete line of SQLFlow.
    Notice,
}

impl PieceKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
            Self::Notice => "note",
        }
    }
}

impl LogText {
    /// The readable text of this record.
    pub(super) fn take(&mut self, stored: &StoredRecord) -> Option<Piece> {
        let payload = stored.record.as_ref()?.payload.as_ref()?;
        let notice = |text: String| Some(Piece { kind: PieceKind::Notice, text });
        match payload {
            Payload::Output(output) => {
                let key = StreamKey { step: stored.step, attempt: stored.attempt, stream: output.stream };
                let text = self.whole_characters(key, &output.data);
                let kind =
                    if output.stream() == Stream::Stderr { PieceKind::Stderr } else { PieceKind::Stdout };
                (!text.is_empty()).then_some(Piece { kind, text })
            }
            Payload::Notice(notice_record) if notice_record.kind() == notice::Kind::Warning => {
                notice(format!("warning: {}", notice_record.text))
            }
            // The page shows the reason for a failure once, above the log.
            Payload::Notice(notice_record)
                if notice_record.kind() == notice::Kind::End && notice_record.text != JobState::SUCCEEDED =>
            {
                notice("the job has ended; why is said above".to_owned())
            }
            Payload::Notice(notice_record) => notice(notice_record.text.clone()),
            Payload::Gap(gap) if gap.reason() == gap::Reason::Retention => {
                notice("… older output was dropped".to_owned())
            }
            Payload::Gap(_) => notice("… output is missing here".to_owned()),
            _ => None,
        }
    }

    fn whole_characters(&mut self, key: StreamKey, data: &[u8]) -> String {
        let mut bytes = self.torn.remove(&key).unwrap_or_default();
        bytes.extend_from_slice(data);
        let rest = bytes.len() - torn_bytes(&bytes);
        let torn = bytes.split_off(rest);
        if !torn.is_empty() && self.torn.len() < MAX_STREAMS {
            self.torn.insert(key, torn);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Pieces as lines. A carriage return restarts a line, as in a terminal. The unfinished line of a stream stays in
/// place while the other stream prints. The page's script follows the same rule.
#[derive(Debug)]
pub(super) struct Lines {
    /// The last lines, at most this many.
    lines: VecDeque<Piece>,
    most: usize,
    /// Number of lines that were dropped before them.
    dropped: usize,
    /// Unfinished lines of stdout and stderr, counted from the first that was dropped.
    unfinished: [Option<usize>; 2],
}

impl Lines {
    /// Returns the last lines of these pieces, at most this many, and the number of those before them. A piece may hold
    /// millions.
    pub(super) fn last_of(most: usize, pieces: impl IntoIterator<Item = Piece>) -> (Vec<Piece>, usize) {
        let mut all = Self { lines: VecDeque::new(), most: most.max(1), dropped: 0, unfinished: [None; 2] };
        for Piece { kind, text } in pieces {
            let stream = match kind {
                PieceKind::Stdout => 0,
                PieceKind::Stderr => 1,
                PieceKind::Notice => {
                    all.begin(kind, text);
                    continue;
                }
            };
            for part in text.split_inclusive('\n') {
                all.push(stream, kind, part);
            }
        }
        (all.lines.into(), all.dropped)
    }

    /// Begins a line; returns its number.
    fn begin(&mut self, kind: PieceKind, text: String) -> usize {
        if self.lines.len() == self.most {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(Piece { kind, text });
        self.dropped + self.lines.len() - 1
    }

    fn push(&mut self, stream: usize, kind: PieceKind, part: &str) {
        // An unfinished line that was dropped is begun again.
        let at = self.unfinished[stream]
            .filter(|at| *at >= self.dropped)
            .unwrap_or_else(|| self.begin(kind, String::new()));
        let line = &mut self.lines[at - self.dropped].text;
        let is_over = part.ends_with('\n');
        let body = part.trim_end_matches('\n').trim_end_matches('\r');
        // Only the part is looked at: a line may come in thousands of them.
        let restart = body.rfind('\r');
        if restart.is_some() || (line.ends_with('\r') && !body.is_empty()) {
            line.clear();
        }
        let added = &part[restart.map_or(0, |it| it + 1)..];
        let room = MAX_LINE.saturating_sub(line.len());
        line.push_str(&added[..added.floor_char_boundary(room)]);
        if room < added.len() && is_over {
            line.push('\n');
        } else if room < added.len() && added.ends_with('\r') && !line.ends_with('\r') {
            line.push('\r');
        }
        self.unfinished[stream] = (!is_over).then_some(at);
    }
}

/// Number of bytes at the end that begin an incomplete character.
fn torn_bytes(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(3)..];
    let begun = tail.iter().rposition(|byte| byte & 0xc0 == 0xc0);
    let Some(begun) = begun else { return 0 };
    let needed = match tail[begun] {
        0xf0..=0xf4 => 4,
        0xe0..=0xef => 3,
        0xc2..=0xdf => 2,
        _ => return 0,
    };
    let there = tail.len() - begun;
    if there < needed { there } else { 0 }
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::record::{Output, Record};

    use super::*;

    fn output(stream: Stream, data: &[u8]) -> StoredRecord {
        let output = Output { stream: stream.into(), offset: 0, data: data.to_vec().into() };
        let record = Record { payload: Some(Payload::Output(output)), ..Record::default() };
        StoredRecord { record: Some(record), ..StoredRecord::default() }
    }

    #[test]
    fn progress_bar_becomes_one_line_with_its_last_state() {
        let piece = |kind, text: &str| Piece { kind, text: text.to_owned() };
        use PieceKind::{Notice, Stderr, Stdout};
        let (lines, _) = Lines::last_of(
            9,
            [
                piece(Stderr, "\r 10%|# |"),
                piece(Stdout, "one\ntw"),
                piece(Stderr, "\r 20%|##|"),
                piece(Notice, "waits"),
                piece(Stdout, "o\r\n"),
                piece(Stderr, "\r100%|##|\nlast"),
            ],
        );
        let lines: Vec<_> = lines.iter().map(|it| (it.kind, it.text.as_str())).collect();
        let expected = [
            (Stderr, "100%|##|\n"),
            (Stdout, "one\n"),
            (Stdout, "two\r\n"),
            (Notice, "waits"),
            (Stderr, "last"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn long_lines_are_bounded_and_restart() {
        let piece = |text: &str| Piece { kind: PieceKind::Stdout, text: text.to_owned() };
        let long = "é".repeat(MAX_LINE);
        let texts = |parts: &[&str]| -> Vec<String> {
            let (lines, _) = Lines::last_of(9, parts.iter().map(|it| piece(it)));
            lines.into_iter().map(|it| it.text).collect()
        };
        let cut = texts(&[&long, "x", "\n", "b"]);
        assert!(cut[0].len() <= MAX_LINE + 1 && cut[0].ends_with("é\n") && cut[1] == "b", "{cut:?}");
        assert_eq!(texts(&[&long, "x\r", "y\n"]), ["y\n"]);
        assert_eq!(texts(&[&long, "x\ry", "\r", "\n"]), ["y\r\n"]);
        assert_eq!(texts(&["a\r", "\r\n"]), ["a\r\r\n"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let piece = |kind, text: &str| Piece { kind, text: text.to_owned() };
        let pieces = [
            piece(PieceKind::Stderr, "unfinished"),
            piece(PieceKind::Stdout, &"\n".repeat(1 << 20)),
            piece(PieceKind::Stdout, "one\ntwo\n"),
            piece(PieceKind::Stderr, " again\n"),
        ];
        let (lines, dropped) = Lines::last_of(3, pieces);
        let texts: Vec<_> = lines.iter().map(|it| it.text.as_str()).collect();
        assert_eq!((texts, dropped), (vec!["one\n", "two\n", " again\n"], (1 << 20) + 1));
    }

    #[test]
    fn split_characters_are_joined() {
        let text = "aé€😀z".as_bytes();
        for cut in 0..text.len() {
            let mut log = LogText::default();
            let mut said = String::new();
            for part in [&text[..cut], &text[cut..]] {
                // The other stream is between them.
                assert_eq!(log.take(&output(Stream::Stderr, b"x")).unwrap().text, "x");
                said.push_str(&log.take(&output(Stream::Stdout, part)).map(|it| it.text).unwrap_or_default());
            }
            assert_eq!(said, "aé€😀z", "cut at {cut}");
        }
        assert_eq!(
            LogText::default().take(&output(Stream::Stdout, b"\xff\x80")).unwrap().text,
            "\u{fffd}\u{fffd}"
        );
    }
}
