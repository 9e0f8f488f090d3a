//! Reads programs from files or arguments, and jobs' logs.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sqlflow_proto::v1::JobStatus;
use sqlflow_proto::v1::job_status::Code;

use crate::args::{Program, ProgramSource};
use crate::console::Console;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::interrupt::Interrupts;
use crate::render::{Screen as _, Tone, View, job};

/// The largest program that a server accepts.
const LARGEST_PROGRAM: u64 = 16 * 1024 * 1024;

/// The program of a command.
pub(super) fn read_program(program: &Program) -> Result<String, Failure> {
    match program.source() {
        ProgramSource::Text(sql) => Ok(sql.to_owned()),
        ProgramSource::File(file) => read_file(file),
    }
}

/// The text of a file, or of standard input for `-`.
fn read_file(file: &Path) -> Result<String, Failure> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(LARGEST_PROGRAM + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).and_then(|file| file.take(LARGEST_PROGRAM + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Usage(format!("cannot read the program from {name}: {error}")))?;
    if bytes.len() as u64 > LARGEST_PROGRAM {
        return Err(Failure::Usage(format!("cannot use the program in {name}: larger than 16 MiB")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        Failure::Usage(format!("cannot use the program in {name}: byte {place} is not UTF-8"))
    })
}

/// Prints a job until it ends. Returns its last status.
pub(super) async fn read_to_end(
    follower: &mut Follower,
    view: &mut dyn View,
    console: &mut Console,
    interrupts: Option<&Interrupts>,
) -> Result<JobStatus, Failure> {
    loop {
        if let Some(interrupts) = interrupts {
            interrupts.set_resume_hint(resume_hint(follower));
        }
        let status = read_page(follower, view, console).await?;
        if status.is_terminal() {
            return Ok(status);
        }
    }
}

/// Prints one page. Returns the job's status.
pub(super) async fn read_page(
    follower: &mut Follower,
    view: &mut dyn View,
    console: &mut Console,
) -> Result<JobStatus, Failure> {
    let page = match follower.page(&mut |line: &str| console.line(Tone::Warning, line)).await {
        Ok(page) => page,
        Err(failure) => {
            view.left(console);
            return Err(failure);
        }
    };
    for response in &page.results {
        view.show(response, console)?;
    }
    let status = page.job_status.unwrap_or_default();
    view.status(&status, follower.next_token(), console)?;
    console.flush()?;
    Ok(status)
}

/// The hint for a user who stopped reading.
pub(super) fn resume_hint(follower: &Follower) -> String {
    format!("stopped reading, the job continues; read on with: sqlflowctl fetch {}", follower.next_token())
}

/// The result of the command by the job's last status.
pub(super) fn outcome(job: &str, status: &JobStatus) -> Result<(), Failure> {
    match status.code() {
        Code::Failed if job::is_cancelled(status) => {
            Err(Failure::Cancelled(job::failure_sentence(job, status)))
        }
        Code::Failed => Err(Failure::Job(job::failure_sentence(job, status))),
        _ => Ok(()),
    }
}

/// [`outcome`], with a line for a job that succeeded.
pub(super) fn conclude(
    job: &str,
    status: &JobStatus,
    quiet: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    let ended = outcome(job, status);
    if status.code() == Code::Succeeded && !quiet {
        console.line(Tone::Dim, &format!("job {job} succeeded"));
    }
    ended
}
