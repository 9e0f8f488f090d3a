//! How an attempt ended.

use sqlflow_proto::agent::{Failure, outcome::Reason};

/// Exit code for faults of the agent or the attempt that the command's exit code does not show.
pub const EXIT_FAULT: u8 = 65;
/// Exit code that a shell reports for a process killed by TERM.
const EXIT_TERMINATED: u8 = 128 + 15;
/// The command, in messages.
pub(super) const COMMAND: &str = "the command";
/// Maximum length of message and detail of an outcome, in bytes.
const MESSAGE_LIMIT: usize = 4 << 10;
const DETAIL_LIMIT: usize = 256 << 10;

/// Why a command cannot be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFault {
    /// It, or its interpreter, does not exist.
    NotFound,
    /// This machine or this user cannot execute it.
    NotExecutable,
    /// The machine, or a limit of the agent, has run out of processes, memory or the like.
    Exhausted,
    /// Something else, which is not the command's fault.
    Other,
}

impl StartFault {
    /// Whether the same start may succeed later.
    pub(super) fn is_retryable(self) -> bool {
        match self {
            Self::Exhausted => true,
            Self::NotFound | Self::NotExecutable | Self::Other => false,
        }
    }

    /// The exit codes of shells and container runtimes.
    fn exit_code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::Exhausted | Self::Other => EXIT_FAULT,
        }
    }
}

/// Why an output cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishFault {
    /// The storage fails, or no server granted the commit. Another attempt may publish the same output.
    Retryable,
    /// The user can fix it; the storage did what it should.
    UserError,
    /// The attempt was ended.
    Final,
}

/// Exit status of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub status: ExitStatus,
    /// OOM kills since the start.
    pub oom_kills: u32,
    /// Memory limit of the cgroup in bytes; 0: none, or not known.
    pub memory_limit: u64,
    /// Memory peak of the cgroup in bytes; 0: not known.
    pub memory_peak: u64,
}

impl Exit {
    /// Success without OOM kills.
    pub(super) const SUCCESS: Self =
        Self { status: ExitStatus::Code(0), oom_kills: 0, memory_limit: 0, memory_peak: 0 };

    /// Whether the exit code is 0.
    pub fn is_success(self) -> bool {
        self.status == ExitStatus::Code(0)
    }

    /// `the kernel killed 1 process for lack of memory (limit 64 MiB, peak 64 MiB)`
    pub(super) fn oom_sentence(self) -> String {
        let mut figures = Vec::new();
        if self.memory_limit > 0 {
            figures.push(format!("limit {}", mebibytes(self.memory_limit)));
        }
        if self.memory_peak > 0 {
            figures.push(format!("peak {}", mebibytes(self.memory_peak)));
        }
        let processes = if self.oom_kills == 1 { "process" } else { "processes" };
        let mut text = format!("the kernel killed {} {processes} for lack of memory", self.oom_kills);
        if !figures.is_empty() {
            text = format!("{text} ({})", figures.join(", "));
        }
        text
    }
}

/// Why the attempt ended, if not by its programs' own exit. The first cause counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Cancelled(String),
    Terminated(String),
    Refused(String),
    Superseded(String),
    ChannelBroken(String),
    /// The companion did not complete its work after the command's success.
    CompanionStuck(String),
    StartFailed {
        message: String,
        fault: StartFault,
    },
    InputFailed {
        message: String,
        user_error: bool,
    },
    PublishFailed {
        message: String,
        fault: PublishFault,
    },
    OutputMissing(String),
    /// The command succeeded; its output is complete nowhere.
    OutputLost(String),
    AgentFailed(String),
}

impl End {
    /// Whether the output of a successful command is worth publishing later.
    pub(super) fn leaves_output(&self) -> bool {
        matches!(self, Self::PublishFailed { fault: PublishFault::Retryable, .. } | Self::Terminated(_))
    }
}

/// The outcome without its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// Kind of the end.
    pub reason: Reason,
    /// Exit status of the command, if it ran; or of the program whose end is the cause.
    pub status: Option<ExitStatus>,
    /// A message for people.
    pub message: String,
    /// The message lacks a reason, which stderr may have.
    lacks_reason: bool,
    /// Traceback and the like.
    pub detail: String,
    /// The same step may succeed in another attempt.
    pub retryable: bool,
    /// The user can fix it.
    pub user_error: bool,
    /// The command succeeded, and its output is kept.
    pub output_kept: bool,
    /// The command failed, and its submitter did not report the result of the running statement.
    pub unexplained: bool,
    /// The database reported that it did not execute the last statement, or rolled it back.
    pub not_executed: bool,
}

impl ExitReport {
    /// Reports whether another attempt can publish the output of a finished training.
    pub(super) fn say_what_becomes_of_output(&mut self, outlives: bool) {
        if self.status != Some(ExitStatus::Code(0)) {
            return;
        }
        self.output_kept = outlives;
        let fate = if outlives { "is kept" } else { "is lost with its workspace" };
        self.add(&format!("what the command made {fate}"));
    }

    /// Appends a clause to the message.
    pub(super) fn add(&mut self, clause: &str) {
        self.message = head(&format!("{}; {clause}", self.message), MESSAGE_LIMIT);
    }

    /// Appends the stderr tail, if nothing else explains the exit code.
    pub fn explain(&mut self, stderr_tail: &str) {
        if self.lacks_reason {
            self.message = head(&format!("{}: {stderr_tail}", self.message), MESSAGE_LIMIT);
        }
    }
}

/// What the programs leave for the report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    /// The command, or the program whose end is the cause.
    pub(super) program: &'a str,
    /// Its end.
    pub(super) exit: Option<Exit>,
    /// A signal of the agent ended it.
    pub(super) is_by_agent: bool,
    /// What it reported.
    pub(super) failure: Option<&'a Failure>,
    /// The result of the last statement is unknown.
    pub(super) leaves_open: bool,
}

/// The exit report of an attempt.
pub(super) fn exit_report(end: Option<&End>, evidence: Evidence<'_>) -> ExitReport {
    let Evidence { exit, failure, .. } = evidence;
    let status = exit.map(|exit| exit.status);
    let detail = failure.map(|failure| tail(&failure.detail, DETAIL_LIMIT)).unwrap_or_default();
    let simple = |reason, message: &str, retryable, user_error| ExitReport {
        reason,
        status,
        message: head(message, MESSAGE_LIMIT),
        lacks_reason: false,
        detail: detail.clone(),
        retryable,
        user_error,
        output_kept: false,
        unexplained: false,
        not_executed: false,
    };
    match end {
        Some(End::Cancelled(why)) => simple(Reason::Cancelled, why, false, false),
        // Not by a user: for example a drained node, or a preempted spot machine.
        Some(End::Terminated(why)) => simple(Reason::Terminated, why, true, false),
        Some(End::Refused(why) | End::Superseded(why)) => simple(Reason::Refused, why, false, false),
        Some(End::ChannelBroken(why) | End::CompanionStuck(why) | End::OutputLost(why)) => {
            simple(Reason::AgentFailed, why, false, false)
        }
        // Nothing has started, so another attempt repeats no effect.
        Some(End::StartFailed { message, fault }) => {
            simple(Reason::StartFailed, message, fault.is_retryable(), false)
        }
        Some(End::InputFailed { message, user_error }) => {
            simple(Reason::InputFailed, message, !user_error, *user_error)
        }
        // A training is never repeated for a failed upload.
        Some(End::PublishFailed { message, fault }) => {
            simple(Reason::PublishFailed, message, false, *fault == PublishFault::UserError)
        }
        Some(End::OutputMissing(why)) => simple(Reason::InputFailed, why, false, false),
        Some(End::AgentFailed(why)) => simple(Reason::AgentFailed, why, true, false),
        None => match exit {
            Some(exit) => own_end(exit, evidence, detail),
            None => simple(Reason::AgentFailed, "the command never ran", true, false),
        },
    }
}

/// Report of a program that ended by itself.
fn own_end(exit: Exit, evidence: Evidence<'_>, detail: String) -> ExitReport {
    let Evidence { program, failure, .. } = evidence;
    let said = failure.map(|failure| head(&failure.message, MESSAGE_LIMIT)).filter(|said| !said.is_empty());
    let is_user_error = failure.is_some_and(|failure| failure.user_error);
    // In a shared cgroup, the killed process may belong to another attempt.
    let is_explained = is_user_error && matches!(exit.status, ExitStatus::Code(_));
    let mut lacks_reason = false;
    let (reason, message, retryable) = match exit.status {
        ExitStatus::Code(0) => (Reason::Succeeded, String::new(), false),
        _ if exit.oom_kills > 0 && !is_explained => {
            let mut message = format!("out of memory: {}; give it more memory", exit.oom_sentence());
            if let Some(said) = said {
                message = head(&format!("{message}; {program} failed with: {said}"), MESSAGE_LIMIT);
            } else if program != COMMAND {
                message = format!("{message}; {program} {}", ended(exit.status));
            }
            (Reason::OutOfMemory, message, false)
        }
        ExitStatus::Code(_) => {
            lacks_reason = said.is_none();
            let message = said.unwrap_or_else(|| format!("{program} {}", ended(exit.status)));
            (Reason::Exited, message, failure.is_some_and(|failure| failure.transient))
        }
        // It had reported its failure before the signal.
        ExitStatus::Signal(_) if evidence.is_by_agent && said.is_some() => {
            let retryable = failure.is_some_and(|failure| failure.transient);
            (Reason::Exited, said.unwrap_or_default(), retryable)
        }
        ExitStatus::Signal(signal) => {
            let message = format!("{program} {}, which the agent did not send", ended(exit.status));
            // KILL and TERM come from outside. Any other signal is a fault of the program, and will come again.
            (Reason::Signaled, message, matches!(signal, 9 | 15))
        }
    };
    let mut report = ExitReport {
        reason,
        status: Some(exit.status),
        message,
        lacks_reason,
        detail,
        retryable,
        user_error: reason == Reason::Exited && is_user_error,
        output_kept: false,
        unexplained: reason == Reason::Exited && evidence.leaves_open,
        not_executed: reason == Reason::Exited && failure.is_some_and(|failure| failure.not_executed),
    };
    if exit.oom_kills > 0 && reason == Reason::Exited {
        report.add(&exit.oom_sentence());
    }
    report
}

/// The agent's exit code.
pub(super) fn exit_code(end: Option<&End>, exit: Option<Exit>) -> u8 {
    let child = exit.map(|exit| match exit.status {
        ExitStatus::Code(code) => u8::try_from(code).unwrap_or(u8::MAX),
        ExitStatus::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
    });
    match (end, child) {
        (Some(End::Superseded(_)), _) => EXIT_FAULT,
        (Some(End::Cancelled(_) | End::Terminated(_)), None | Some(0)) => EXIT_TERMINATED,
        (Some(End::StartFailed { fault, .. }), None) => fault.exit_code(),
        // The command succeeded or never ran, so its code does not show the fault.
        (Some(_), None | Some(0)) | (None, None) => EXIT_FAULT,
        (_, Some(code)) => code,
    }
}

/// `was killed by SIGKILL`
fn ended(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("exited with code {code}"),
        ExitStatus::Signal(signal) => format!("was killed by {}", signal_name(signal)),
    }
}

fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(known) => known.as_str().to_owned(),
        Err(_) => format!("signal {signal}"),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// At most `limit` bytes from the front, cut at a character.
fn head(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

/// At most `limit` bytes from the back: the last lines of a traceback are the most useful.
fn tail(text: &str, limit: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(limit))..].to_owned()
}

#[cfg(test)]
mod tests;
