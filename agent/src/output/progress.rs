//! Condenses progress bars for readers of lines, such as a container's log. A text that is overwritten with `\r` is
//! shown as a line once a second, and its last state always. All other bytes pass unchanged. Pure.

use std::time::{Duration, Instant};

/// Time between two states of a bar.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum length of a state. A longer text is not a progress bar, and passes.
const LONGEST: usize = 4 << 10;

/// Filter of one stream.
#[derive(Debug)]
pub(super) struct ProgressLines {
    begun: Instant,
    bar: Option<Bar>,
    /// A `\r` came last; a `\n` may follow.
    after_return: bool,
    /// Text without a newline has passed.
    is_within_line: bool,
    shown_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Bar {
    /// Since the last `\r`.
    state: Vec<u8>,
    /// The overwritten state.
    before: Vec<u8>,
    is_shown: bool,
}

impl Bar {
    fn latest(&self) -> &[u8] {
        if self.state.is_empty() { &self.before } else { &self.state }
    }
}

impl ProgressLines {
    /// A new stream.
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, bar: None, after_return: false, is_within_line: false, shown_at: None }
    }

    /// Filters the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if std::mem::take(&mut self.after_return) && byte != b'\n' {
                self.begin_state(&mut out);
            }
            match (byte, &mut self.bar) {
                (b'\r', _) => self.after_return = true,
                (b'\n', Some(bar)) => {
                    if !bar.is_shown {
                        out.extend_from_slice(bar.latest());
                        out.push(b'\n');
                    }
                    self.bar = None;
                }
                (_, Some(bar)) => {
                    bar.state.push(byte);
                    bar.is_shown = false;
                    if bar.state.len() > LONGEST {
                        out.append(&mut bar.state);
                        (self.bar, self.is_within_line) = (None, true);
                    }
                }
                (_, None) => {
                    out.push(byte);
                    self.is_within_line = byte != b'\n';
                }
            }
        }
        if self.due().is_some_and(|due| due <= now) {
            self.show(&mut out, now);
        }
        out
    }

    fn begin_state(&mut self, out: &mut Vec<u8>) {
        if self.bar.is_none() && std::mem::take(&mut self.is_within_line) {
            out.push(b'\n');
        }
        let bar = self.bar.get_or_insert_default();
        if !bar.state.is_empty() {
            bar.before = std::mem::take(&mut bar.state);
        }
    }

    /// Time at which a state has to be shown, if nothing else comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.bar.as_ref().filter(|bar| !bar.is_shown && !bar.latest().is_empty())?;
        Some(self.shown_at.map_or(self.begun, |shown| shown + EVERY))
    }

    /// Output for that time, or for the end of the stream.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        if self.due().is_some() {
            self.show(&mut out, now);
        }
        out
    }

    fn show(&mut self, out: &mut Vec<u8>, now: Instant) {
        if let Some(bar) = &mut self.bar {
            out.extend_from_slice(bar.latest());
            out.push(b'\n');
            bar.is_shown = true;
            self.shown_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(pieces: &[(u64, &str)]) -> String {
        let begin = Instant::now();
        let mut lines = ProgressLines::new(begin);
        let mut out = Vec::new();
        let mut now = begin;
        for (millis, piece) in pieces {
            now = begin + Duration::from_millis(*millis);
            out.extend(lines.push(piece.as_bytes(), now));
        }
        out.extend(lines.flush(now));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn progress_bar_is_shown_once_a_second_and_at_its_end() {
        let bar: Vec<_> = (0..=100).map(|percent| (percent * 50, format!("\r{percent:3}%"))).collect();
        let mut pieces: Vec<_> = bar.iter().map(|(at, piece)| (*at, piece.as_str())).collect();
        pieces.push((5001, "\ndone\n"));
        assert_eq!(shown(&pieces), "  0%\n 20%\n 40%\n 60%\n 80%\n100%\ndone\n");
    }

    #[test]
    fn last_state_is_shown_without_more_output() {
        assert_eq!(shown(&[(0, "\r 1%"), (10, "\r 2%"), (20, "\r 3%")]), " 1%\n 3%\n");
    }

    #[test]
    fn carriage_return_before_newline_is_a_line_end() {
        assert_eq!(shown(&[(0, "one\r\ntwo\r"), (1, "\nthree\n")]), "one\ntwo\nthree\n");
        assert_eq!(shown(&[(0, "loading"), (1, "\r50%\r\n")]), "loading\n50%\n");
    }

    proptest! {
        #[test]
        fn text_without_carriage_returns_passes_unchanged(text in "[^\r]{0,300}", cut in 0_usize..300) {
            let mut lines = ProgressLines::new(Instant::now());
            let cut = cut.min(text.len());
            let mut out = lines.push(&text.as_bytes()[..cut], Instant::now());
            out.extend(lines.push(&text.as_bytes()[cut..], Instant::now()));
            prop_assert_eq!(out, text.into_bytes());
        }

        #[test]
        fn memory_is_bounded_and_lines_survive(pieces in prop::collection::vec("[ab\r\n]{0,5000}", 0..10)) {
            let mut lines = ProgressLines::new(Instant::now());
            let mut out = Vec::new();
            for piece in &pieces {
                out.extend(lines.push(piece.as_bytes(), Instant::now()));
            }
            out.extend(lines.flush(Instant::now()));
            prop_assert!(!out.contains(&b'\r'));
            if let Some(bar) = &lines.bar {
                prop_assert!(bar.state.len() <= LONGEST && bar.before.len() <= LONGEST);
            }
        }
    }
}
