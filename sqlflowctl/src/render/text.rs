//! A job on a terminal: tables, progress and messages. Messages are not repeated: the message about the job's end, and the
//! error that its program wrote last, become the command's final sentence.

use jiff::Timestamp;
use sqlflow_proto::v1::{
    Display, EarlierModel, EncodedRows, EndOfExecution, Gap, JobStatus, Message, Metrics, Model, Response,
    StatementStarted, log_chunk::Stream, message, response,
};
use sqlflow_text::escape::{escaped, escaped_lines};
use sqlflow_text::mention::mention;

use super::held_line::HeldLine;
use super::progress::{ProgressView, metrics_line};
use super::result_set::{ResultSet, Style};
use super::{Screen, Tone, View};
use crate::failure::Failure;

/// Columns of the table that EVALUATE shows its metrics in.
const METRICS_TABLE: [&str; 2] = ["metric", "value"];
/// A statement's text is cut to this many characters where it is only mentioned.
const MENTION: usize = 72;

/// Shows a job as text.
#[derive(Debug)]
pub(crate) struct TextView {
    job: String,
    quiet: bool,
    style: Style,
    table: Option<ResultSet>,
    tables: u64,
    /// The last line that the job's programs wrote to standard error: it may be the job's error.
    held: HeldLine,
    /// Whether the page had a record.
    has_records: bool,
    /// A message that may be the sentence that the command ends with.
    message: Option<Message>,
    started: Option<Timestamp>,
    /// The statement's result is its measurements.
    shows_metrics: bool,
    progress: ProgressView,
}

impl TextView {
    /// A view of `job`. `quiet` leaves out the job's own output, its messages and its progress.
    pub(crate) fn new(job: &str, quiet: bool, style: Style) -> Self {
        Self {
            job: job.to_owned(),
            quiet,
            style,
            table: None,
            tables: 0,
            held: HeldLine::default(),
            has_records: false,
            message: None,
            started: None,
            shows_metrics: false,
            progress: ProgressView::default(),
        }
    }

    fn started(&mut self, started: &StatementStarted, response: &Response, screen: &mut dyn Screen) {
        self.started = time(response);
        self.progress = ProgressView::default();
        self.shows_metrics = false;
        if !self.quiet {
            let number = response.statement.map_or(String::new(), |index| format!(" {}", index + 1));
            screen
                .line(Tone::Dim, &format!("statement{number}: {}", escaped(&mention(&started.sql, MENTION))));
        }
    }

    fn open_table(
        &mut self,
        names: Option<&[String]>,
        screen: &mut dyn Screen,
    ) -> Result<&mut ResultSet, Failure> {
        self.close_table(screen)?;
        if self.tables > 0 {
            screen.results(b"\n")?;
        }
        self.tables += 1;
        Ok(self.table.insert(ResultSet::new(names, self.style)))
    }

    /// Ends the open table, if there is one, and gives its number of rows.
    fn close_table(&mut self, screen: &mut dyn Screen) -> Result<Option<u64>, Failure> {
        let Some(mut table) = self.table.take() else { return Ok(None) };
        table.finish(&mut |piece| screen.results(piece))?;
        Ok(Some(table.row_count()))
    }

    fn rows(&mut self, rows: &EncodedRows, screen: &mut dyn Screen) -> Result<(), Failure> {
        let rows = super::decoded(rows)?;
        let batch = super::batch(&rows)?;
        if self.table.is_none() {
            self.open_table(None, screen)?;
        }
        if let Some(table) = &mut self.table {
            table.write_rows(&batch, &mut |piece| screen.results(piece))?;
        }
        Ok(())
    }

    fn end(
        &mut self,
        end: &EndOfExecution,
        response: &Response,
        screen: &mut dyn Screen,
    ) -> Result<(), Failure> {
        screen.end_progress();
        let rows = self.close_table(screen)?;
        let what = match (rows, end.rows_affected) {
            (Some(rows), _) => format!("{rows} {}", plural(rows, "row")),
            (None, Some(rows)) => format!("{rows} {} affected", plural(rows, "row")),
            (None, None) => "done".to_owned(),
        };
        let spent = match (self.started.take(), time(response)) {
            (Some(started), Some(ended)) => ended.duration_since(started).as_secs_f64().max(0.0),
            _ => end.spent_time_seconds as f64,
        };
        screen.line(Tone::Plain, &format!("{what} ({spent:.1} s)"));
        Ok(())
    }

    /// Shows what was kept back.
    fn flush_held(&mut self, screen: &mut dyn Screen) {
        let held = self.held.take();
        if !held.is_empty() {
            screen.log(&held);
        }
        if let Some(message) = self.message.take() {
            screen.line(Tone::Dim, &escaped(&message.message));
        }
    }

    /// A message may repeat the error that the program wrote, and the command's last sentence repeats the one about the
    /// job's end. A server of an earlier version does not say which message that is.
    fn message(&mut self, message: &Message, screen: &mut dyn Screen) {
        if self.message.is_some() {
            self.flush_held(screen);
        }
        match message.kind() {
            message::Kind::End | message::Kind::Unspecified => self.message = Some(message.clone()),
            message::Kind::Status | message::Kind::Warning => {
                self.held.drop_if_in(&message.message);
                self.flush_held(screen);
                screen.line(Tone::Dim, &escaped(&message.message));
            }
        }
    }

    fn drop_final_message(&mut self, status: &JobStatus) {
        let said = &status.message;
        // A job that succeeded has no sentence of its own; its last message says that it did.
        self.message.take_if(|it| said.is_empty() || it.message == *said || it.kind() == message::Kind::End);
        self.held.drop_if_in(said);
    }

    fn metrics(&mut self, metrics: &Metrics, screen: &mut dyn Screen) {
        let line = metrics_line(&metrics.metrics);
        if metrics.step.is_none() {
            // A final value: what led to it is over, and stands above it.
            screen.end_progress();
            self.progress = ProgressView::default();
            if !self.shows_metrics {
                screen.line(Tone::Plain, &line);
            }
        } else if !self.quiet {
            self.progress.metrics = line;
            // Metrics alone are no progress: they stand beside it.
            if !self.progress.phase.is_empty() {
                screen.progress(&self.progress);
            }
        }
    }

    fn display(&mut self, display: &Display, position: u64, screen: &mut dyn Screen) -> Result<(), Failure> {
        if display.media_type == "text/plain" {
            let text = escaped_lines(&String::from_utf8_lossy(&display.data));
            screen.results(format!("{text}\n").as_bytes())?;
            return Ok(());
        }
        let name = format!("sqlflow-{}-{position}.{}", file_part(&self.job), extension(&display.media_type));
        let where_it_is = screen.save(&name, &display.data)?;
        let size = size(display.data.len() as u64);
        screen.line(Tone::Plain, &format!("{}, {size}: {where_it_is}", escaped(&display.media_type)));
        Ok(())
    }
}

impl View for TextView {
    fn show(&mut self, response: &Response, screen: &mut dyn Screen) -> Result<(), Failure> {
        use response::Response as Kind;
        self.has_records = true;
        match &response.response {
            Some(Kind::Log(log)) if !self.quiet && log.stream() == Stream::Stderr => {
                if self.message.is_some() {
                    self.flush_held(screen);
                }
                let before = self.held.push(&log.data);
                if !before.is_empty() {
                    screen.log(&before);
                }
                return Ok(());
            }
            Some(Kind::Message(message)) if !self.quiet => {
                self.message(message, screen);
                return Ok(());
            }
            _ => self.flush_held(screen),
        }
        match &response.response {
            Some(Kind::Started(started)) => self.started(started, response, screen),
            Some(Kind::Head(head)) => {
                self.shows_metrics |= head.column_names == METRICS_TABLE;
                self.open_table(Some(&head.column_names), screen)?;
            }
            Some(Kind::Rows(rows)) => self.rows(rows, screen)?,
            Some(Kind::Eoe(end)) => self.end(end, response, screen)?,
            Some(Kind::Log(log)) if !self.quiet => screen.log(&log.data),
            Some(Kind::Progress(progress)) if !self.quiet => {
                self.progress.advance(progress);
                screen.progress(&self.progress);
            }
            Some(Kind::Log(_) | Kind::Message(_) | Kind::Progress(_)) => {}
            Some(Kind::Metrics(metrics)) => self.metrics(metrics, screen),
            Some(Kind::Display(display)) => self.display(display, response.position, screen)?,
            Some(Kind::Gap(gap)) => screen.line(Tone::Warning, &gap_line(gap)),
            Some(Kind::Model(model)) => screen.line(Tone::Plain, &model_line(model)),
            // A record of a later version; what we know is complete without it.
            None => {}
        }
        Ok(())
    }

    fn status(&mut self, status: &JobStatus, _next: &str, screen: &mut dyn Screen) -> Result<(), Failure> {
        let had_records = std::mem::take(&mut self.has_records);
        let may_end = self.message.as_ref().is_none_or(|it| it.kind() == message::Kind::End);
        if status.is_terminal() {
            screen.end_progress();
            self.drop_final_message(status);
            self.flush_held(screen);
            self.close_table(screen)?;
        } else if !may_end || (!had_records && self.held.note_quiet_page()) {
            self.flush_held(screen);
        }
        Ok(())
    }

    fn left(&mut self, screen: &mut dyn Screen) {
        self.flush_held(screen);
    }
}

/// The line that stands where records are missing.
pub(crate) fn gap_line(gap: &Gap) -> String {
    let bytes = gap.bytes.map_or("some output".to_owned(), |bytes| format!("{} of output", size(bytes)));
    format!("[{bytes} is missing here: {}]", escaped(&gap.reason))
}

fn model_line(model: &Model) -> String {
    let (name, uri) = (escaped(&model.name), escaped(&model.uri));
    let earlier = model.replaced.as_ref().map(earlier);
    match earlier {
        _ if !model.removed => {
            let replaced = earlier.map(|it| format!("; replaced model {name}, {it}")).unwrap_or_default();
            format!("model {name} published: {uri} ({}){replaced}", size(model.size_bytes))
        }
        Some(it) => format!("model {name} dropped: {uri}, {it}"),
        None => format!("model {name} did not exist: {uri}"),
    }
}

/// `trained 2026-11-20 by ana`, or without the user where none is known.
fn earlier(model: &EarlierModel) -> String {
    let day = super::job::instant(model.made.as_ref()).map(|at| at.strftime("%F").to_string());
    let day = day.unwrap_or_else(|| "at an unknown time".to_owned());
    match model.trained_by.as_str() {
        "" => format!("trained {day}"),
        user => format!("trained {day} by {}", escaped(user)),
    }
}

fn time(response: &Response) -> Option<Timestamp> {
    super::job::instant(response.time.as_ref())
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// A size as people say it: `812 B`, `3.4 MB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `text` as a part of a file's name.
fn file_part(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}

fn extension(media_type: &str) -> &'static str {
    match media_type {
        "image/png" => "png",
        "image/svg+xml" => "svg",
        "image/jpeg" => "jpg",
        "text/html" => "html",
        "application/json" => "json",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests;
