//! Output of findings, and their counts.

use std::io::{self, Write};

use serde::Serialize;

use super::finding::{Done, Finding, Level};

/// Counts of checks and findings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) jobs: u64,
    pub(super) logs: u64,
    pub(super) problems: u64,
    /// Repaired problems.
    pub(super) repaired: u64,
    pub(super) notes: u64,
}

impl Counts {
    /// Remaining problems.
    pub(super) fn left(&self) -> u64 {
        self.problems.saturating_sub(self.repaired)
    }
}

/// Writes findings as they are found.
pub(super) struct Report<W> {
    out: W,
    form: Form,
    pub(super) counts: Counts,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line each, for people.
    Text,
    /// One JSON object each.
    Json,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W, form: Form) -> Self {
        Self { out, form, counts: Counts::default() }
    }

    /// A finding. As JSON it is written together with the result of its remedy, as text before that.
    pub(super) fn found(&mut self, finding: &Finding) -> io::Result<()> {
        match finding.kind.level() {
            Level::Problem => self.counts.problems += 1,
            Level::Note => self.counts.notes += 1,
        }
        match self.form {
            Form::Text => self.line(&finding.to_text()),
            Form::Json => Ok(()),
        }
    }

    /// The result of the last finding's remedy.
    pub(super) fn done(&mut self, finding: &Finding, done: Option<&Done>) -> io::Result<()> {
        if done.is_some_and(|done| done.repaired) {
            self.counts.repaired += 1;
        }
        match (self.form, done) {
            (Form::Text, Some(done)) => self.line(&done.to_text()),
            (Form::Text, None) => Ok(()),
            (Form::Json, done) => self.line(&finding.to_json(done)),
        }
    }

    /// The last line. `is_complete`: everything was checked.
    pub(super) fn end(&mut self, is_complete: bool) -> io::Result<()> {
        #[derive(Serialize)]
        struct Summary<'a> {
            kind: &'static str,
            complete: bool,
            #[serde(flatten)]
            counts: &'a Counts,
        }
        let line = match self.form {
            Form::Json => {
                let summary = Summary { kind: "summary", complete: is_complete, counts: &self.counts };
                serde_json::to_string(&summary).expect("plain data always serializes")
            }
            Form::Text => self.summary(is_complete),
        };
        self.line(&line)
    }

    fn summary(&self, is_complete: bool) -> String {
        let Counts { jobs, logs, problems, repaired, notes } = self.counts;
        let looked = if is_complete { "looked at" } else { "broken off after" };
        let repairs = match (problems, repaired) {
            (0, _) | (_, 0) => String::new(),
            (problems, repaired) => {
                format!(", {repaired} repaired, {} left", problems.saturating_sub(repaired))
            }
        };
        let notes = match notes {
            0 => String::new(),
            notes => format!("; {}", count(notes, "note")),
        };
        format!(
            "{looked} {} and {}: {}{repairs}{notes}",
            count(jobs, "job"),
            count(logs, "log"),
            count(problems, "problem")
        )
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(counts: Counts, form: Form, is_complete: bool) -> String {
        let mut out = Vec::new();
        let mut report = Report { out: &mut out, form, counts };
        report.end(is_complete).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn summary_line_contains_counts_and_completeness() {
        let counts = Counts { jobs: 3, logs: 1, problems: 2, repaired: 1, notes: 1 };
        assert_eq!(
            summary(counts.clone(), Form::Text, true),
            "looked at 3 jobs and 1 log: 2 problems, 1 repaired, 1 left; 1 note\n"
        );
        let none = Counts { jobs: 1, ..Counts::default() };
        assert_eq!(summary(none, Form::Text, false), "broken off after 1 job and 0 logs: 0 problems\n");
        let json: serde_json::Value = serde_json::from_str(&summary(counts, Form::Json, false)).unwrap();
        assert_eq!((&json["kind"], &json["complete"]), (&"summary".into(), &false.into()));
        assert_eq!((json["problems"].as_u64(), json["repaired"].as_u64()), (Some(2), Some(1)));
    }
}
