//! The last line of standard error, kept back while it may be the sentence that the job ends with.

/// Bytes that are kept back at most: an error is one sentence.
const MOST: usize = 8 * 1024;
/// Pages without a record after which the line is shown. The server waits a second before it sends such a page, and a
/// failure follows the line at once, unless the job's server or its network has an outage.
const QUIET_PAGES: u32 = 5;

/// What was not shown yet of standard error: at most one line, and blank ones behind it.
#[derive(Debug, Default)]
pub(super) struct HeldLine {
    bytes: Vec<u8>,
    /// The beginning of the line was shown already.
    is_partial: bool,
    quiet_pages: u32,
}

impl HeldLine {
    /// Takes output. Returns what to show before it: all but the last line.
    pub(super) fn push(&mut self, data: &[u8]) -> Vec<u8> {
        self.quiet_pages = 0;
        self.bytes.extend_from_slice(data);
        let written = self.bytes.trim_ascii_end();
        let begin = written.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let rest = self.bytes.split_off(begin);
        let mut shown = std::mem::replace(&mut self.bytes, rest);
        self.is_partial &= shown.is_empty();
        if self.bytes.len() > MOST {
            shown.append(&mut self.take());
        }
        shown
    }

    /// Returns what to show now.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.quiet_pages = 0;
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(last) = bytes.last() {
            self.is_partial = *last != b'\n';
        }
        bytes
    }

    /// Drops the line if `message` says it: as the whole sentence, as its first clause, or as its last one.
    pub(super) fn drop_if_in(&mut self, message: &str) {
        let Ok(line) = std::str::from_utf8(&self.bytes) else { return };
        let line = line.trim();
        let message = message.strip_prefix("warning: ").unwrap_or(message).trim();
        let is_first =
            message.strip_prefix(line).is_some_and(|rest| rest.is_empty() || rest.starts_with("; "));
        let is_last = message.strip_suffix(line).is_some_and(|before| before.ends_with(": "));
        if !line.is_empty() && !self.is_partial && (is_first || is_last) {
            self.bytes.clear();
        }
    }

    /// Notes a page without records. Returns whether the line was kept back for long enough.
    pub(super) fn note_quiet_page(&mut self) -> bool {
        self.quiet_pages += 1;
        self.quiet_pages >= QUIET_PAGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(held: &mut HeldLine, data: &str) -> String {
        String::from_utf8(held.push(data.as_bytes())).unwrap()
    }

    #[test]
    fn only_the_last_line_is_kept_back() {
        let mut held = HeldLine::default();
        assert_eq!(push(&mut held, "one\ntw"), "one\n");
        assert_eq!(push(&mut held, "o\n"), "");
        assert_eq!(push(&mut held, "\n\n"), "");
        assert_eq!(push(&mut held, "three"), "two\n\n\n");
        assert_eq!(held.take(), b"three");
        assert_eq!(held.take(), b"");
    }

    #[test]
    fn a_line_that_the_message_contains_is_dropped() {
        for (line, message, is_dropped) in [
            ("no such table: x\n", "no such table: x", true),
            ("  no such table: x", "no such table: x", true),
            ("locked", "warning: locked; step 1 is run again (attempt 2)", true),
            ("locked", "locked; a scratch table could not be dropped", true),
            ("No module named 'x'\n", "the command exited with code 1: No module named 'x'", true),
            ("lock", "locked; step 1 is run again", false),
            ("table: x", "no such table: x", false),
            ("x", "no such table: y", false),
            ("\n", "", false),
            (" ", "no such table: x", false),
        ] {
            let mut held = HeldLine::default();
            assert_eq!(push(&mut held, line), "");
            held.drop_if_in(message);
            assert_eq!(held.take().is_empty(), is_dropped, "{line:?} {message:?}");
        }
    }

    #[test]
    fn the_rest_of_a_line_that_was_shown_is_never_dropped() {
        let mut held = HeldLine::default();
        push(&mut held, "a value, ");
        assert_eq!(held.take(), b"a value, ");
        push(&mut held, "locked\n");
        held.drop_if_in("locked");
        assert_eq!(held.take(), b"locked\n");
        push(&mut held, "locked\n");
        held.drop_if_in("locked");
        assert_eq!(held.take(), b"", "this one is a whole line");
    }

    #[test]
    fn memory_and_time_are_bounded() {
        let mut held = HeldLine::default();
        let long = "x".repeat(MOST);
        assert_eq!(push(&mut held, &long), "");
        assert_eq!(push(&mut held, "y"), format!("{long}y"));
        push(&mut held, "z");
        let quiet = (0..QUIET_PAGES).filter(|_| !held.note_quiet_page()).count();
        assert_eq!(quiet, QUIET_PAGES as usize - 1);
    }
}
