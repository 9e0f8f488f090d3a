//! The terminal, or files and pipes: results go to standard output, all else to standard error.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args::Color;
use crate::failure::Failure;
use crate::pager::Pager;
use crate::render::progress::ProgressView;
use crate::render::result_set::{Expand, Style};
use crate::render::{Screen, Tone};
use crate::terminal_text::TerminalText;

/// While a progress bar is drawn, the job's output is printed by whole lines; at most this many bytes of an incomplete
/// line are held.
const HELD_BACK: usize = 8 * 1024;

/// Prints the output of a view.
pub(crate) struct Console {
    out: BufWriter<Box<dyn Write>>,
    err: Box<dyn Write>,
    /// Whether results and messages go to the same terminal.
    shared: bool,
    /// Whether standard error is a terminal, so that a progress bar can be drawn.
    bars: bool,
    coloured: bool,
    save_displays: Option<PathBuf>,
    /// Whether the job's output ended within a line.
    mid_line: bool,
    bar: Option<ProgressBar>,
    held_back: Vec<u8>,
    pager: Option<Pager>,
    /// Escapes the job's own output on standard output and on standard error, where these are terminals.
    escaped_out: Option<TerminalText>,
    escaped_err: Option<TerminalText>,
}

impl Console {
    /// The console of this process.
    pub(crate) fn new(color: Color) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let is_plain = color == Color::Never || wants_no_color();
        let bars = err.is_terminal() && !is_dumb() && !is_plain;
        Self {
            shared: (out.is_terminal() && err.is_terminal()) || is_same(&out, &err),
            coloured: match color {
                Color::Auto => bars,
                Color::Always => true,
                Color::Never => false,
            },
            bars,
            escaped_out: out.is_terminal().then(TerminalText::default),
            escaped_err: err.is_terminal().then(TerminalText::default),
            ..Self::over(Box::new(out), Box::new(err))
        }
    }

    fn over(out: Box<dyn Write>, err: Box<dyn Write>) -> Self {
        Self {
            out: BufWriter::with_capacity(64 * 1024, out),
            err,
            shared: false,
            bars: false,
            coloured: false,
            save_displays: None,
            mid_line: false,
            bar: None,
            held_back: Vec::new(),
            pager: None,
            escaped_out: None,
            escaped_err: None,
        }
    }

    /// Saves displays to files in this folder.
    pub(crate) fn save_displays_in(&mut self, folder: Option<PathBuf>) {
        self.save_displays = folder;
    }

    /// Prints control sequences of the job's own output unchanged, if `raw`.
    pub(crate) fn keep_control_sequences(&mut self, raw: bool) {
        if raw {
            (self.escaped_out, self.escaped_err) = (None, None);
        }
    }

    /// Style of result sets.
    pub(crate) fn style(&self, csv: bool, expand: Expand) -> Style {
        let is_terminal = io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Style { csv, expand, width: width.filter(|_| is_terminal) }
    }

    /// Sends results to the user's pager from here on, if standard output is a terminal and there is a pager.
    pub(crate) fn page(&mut self, wanted: bool) {
        if wanted && io::stdout().is_terminal() && !is_dumb() {
            self.pager = Pager::start();
        }
        if let Some(input) = self.pager.as_mut().and_then(Pager::input) {
            self.out = BufWriter::new(Box::new(input));
            self.shared = false;
        }
    }

    /// Ends the pager, if there is one, by waiting for the user.
    pub(crate) fn end_paging(&mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        // Characters that are still incomplete.
        let rest =
            |text: &mut Option<TerminalText>| text.as_mut().map(TerminalText::rest).unwrap_or_default();
        let (out, err) = (rest(&mut self.escaped_out), rest(&mut self.escaped_err));
        self.pass_on(&err);
        let ended = if out.is_empty() { ended } else { ended.and(self.results(&out).map_err(Failure::from)) };
        let Some(pager) = self.pager.take() else { return ended };
        let flushed = self.out.flush();
        self.out = BufWriter::new(Box::new(io::stdout()));
        pager.wait();
        match ended.and(flushed.map_err(Failure::from)) {
            // The user left the pager early.
            Err(Failure::ClosedOutput) => Ok(()),
            ended => ended,
        }
    }

    /// Flushes all results so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.suspending(|console| console.out.flush())?)
    }

    /// Prints the error as the last line of the command's output.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.end_progress();
        if !matches!(failure, Failure::ClosedOutput) {
            self.write_line("31", &failure.to_string());
        }
    }

    fn write_line(&mut self, color: &str, text: &str) {
        let line = if self.coloured && !color.is_empty() {
            format!("\x1b[{color}m{text}\x1b[0m\n")
        } else {
            format!("{text}\n")
        };
        self.suspending(|console| {
            // Results are flushed first if both go to the same place. The next write of results reports a closed
            // output.
            let _ = console.out.flush();
            console.finish_log_line();
            let _ = console.err.write_all(line.as_bytes());
        });
    }

    /// Begins a new line if the job's output ended within one.
    fn finish_log_line(&mut self) {
        if std::mem::take(&mut self.mid_line) {
            let _ = self.err.write_all(b"\n");
        }
    }

    /// Writes while the progress bar is hidden.
    fn suspending<T>(&mut self, write: impl FnOnce(&mut Self) -> T) -> T {
        match self.bar.clone() {
            Some(bar) => bar.suspend(|| write(self)),
            None => write(self),
        }
    }

    fn pass_on(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.mid_line = *last != b'\n';
        self.suspending(|console| {
            // Both may go to one file or pipe. The next write of results reports a closed output.
            let _ = console.out.flush();
            let _ = console.err.write_all(bytes);
        });
    }
}

impl Screen for Console {
    fn results(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.shared {
            return self.out.write_all(bytes);
        }
        self.suspending(|console| {
            console.finish_log_line();
            console.out.write_all(bytes)?;
            console.out.flush()
        })
    }

    fn line(&mut self, tone: Tone, text: &str) {
        let color = match tone {
            Tone::Plain => "",
            Tone::Dim => "2",
            Tone::Warning => "33",
        };
        self.write_line(color, text);
    }

    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.escaped_out.as_mut().map(|text| text.escaped(bytes)) {
            Some(escaped) => self.results(&escaped),
            None => self.results(bytes),
        }
    }

    fn log(&mut self, bytes: &[u8]) {
        let escaped = self.escaped_err.as_mut().map(|text| text.escaped(bytes));
        let bytes = escaped.as_deref().unwrap_or(bytes);
        if self.bar.is_none() {
            self.pass_on(bytes);
            return;
        }
        self.held_back.extend_from_slice(bytes);
        let whole = self.held_back.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let rest = self.held_back.split_off(whole);
        let lines = std::mem::replace(&mut self.held_back, rest);
        self.pass_on(&lines);
        if self.held_back.len() > HELD_BACK {
            let mut piece = std::mem::take(&mut self.held_back);
            piece.push(b'\n');
            self.pass_on(&piece);
        }
    }

    fn progress(&mut self, view: &ProgressView) {
        // The bar is for people who watch; the job's own output is the record.
        if !self.bars {
            return;
        }
        let is_new = self.bar.is_none();
        if is_new {
            self.finish_log_line();
        }
        let bar = self.bar.get_or_insert_with(|| ProgressBar::hidden().with_style(style()));
        // In one call, because each call draws the bar.
        bar.set_message(view.bar());
        if is_new {
            // Drawn only now, when all its parts are set.
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    fn end_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            let rest = std::mem::take(&mut self.held_back);
            self.pass_on(&rest);
        }
    }

    fn save(&mut self, name: &str, data: &[u8]) -> Result<String, Failure> {
        let Some(folder) = &self.save_displays else {
            return Ok("to keep it, use --save-displays DIR (also with `fetch --from-start`)".to_owned());
        };
        let path = folder.join(name);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, data))
            .with_context(|| format!("cannot save a display as {}", path.display()))?;
        Ok(format!("saved as {}", path.display()))
    }
}

/// Whether escape sequences are disabled by the user.
pub(crate) fn wants_no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A terminal without escape sequences.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether both write to the same terminal, file or pipe, so that their order is visible.
fn is_same(out: &io::Stdout, err: &io::Stderr) -> bool {
    match (nix::sys::stat::fstat(out), nix::sys::stat::fstat(err)) {
        (Ok(out), Ok(err)) => (out.st_dev, out.st_ino) == (err.st_dev, err.st_ino),
        _ => false,
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").expect("the template is well formed")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn messages_begin_on_a_new_line() {
        let screen = Shared::default();
        let mut console =
            Console { shared: true, ..Console::over(Box::new(screen.clone()), Box::new(screen.clone())) };
        console.log(b"half a li");
        console.log(b"ne");
        console.line(Tone::Dim, "a message");
        console.log(b"whole\n");
        console.line(Tone::Plain, "another");
        console.log(b"loss 0.1");
        console.results(b" n\n---\n").unwrap();
        assert_eq!(screen.text(), "half a line\na message\nwhole\nanother\nloss 0.1\n n\n---\n");
    }

    #[test]
    fn file_output_has_results_only_without_colour() {
        let (out, err) = (Shared::default(), Shared::default());
        let mut console = Console::over(Box::new(out.clone()), Box::new(err.clone()));
        console.results(b"rows\n").unwrap();
        console.log(b"\xf0 raw");
        console.fail(&Failure::Job("job 01j failed".to_owned()));
        console.flush().unwrap();
        assert_eq!(out.text(), "rows\n");
        assert_eq!(err.0.lock().unwrap().as_slice(), b"\xf0 raw\njob 01j failed\n");
    }

    #[test]
    fn output_under_a_progress_bar_is_printed_by_lines() {
        let err = Shared::default();
        let mut console = Console::over(Box::new(io::sink()), Box::new(err.clone()));
        console.bar = Some(ProgressBar::hidden());
        console.log(b"one\ntw");
        assert_eq!(err.text(), "one\n");
        console.log(&[b'x'; HELD_BACK]);
        assert_eq!(err.text().len(), "one\ntw\n".len() + HELD_BACK, "an endless line is not held forever");
        console.log(b"tail");
        console.end_progress();
        assert!(err.text().ends_with("\ntail"));
    }
}
