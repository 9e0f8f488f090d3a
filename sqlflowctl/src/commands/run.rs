//! `run`: runs a program and prints its output until it ends.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::{JobStatus, Request, Session, Token};
use sqlflow_text::escape::escaped;
use tonic::{Code, Status};

use super::Form;
use super::data_source::DataSource;
use super::read::{conclude, read_program, read_to_end};
use crate::args::Run;
use crate::client::Client;
use crate::console::Console;
use crate::failure::{Failure, is_retryable};
use crate::follow::Follower;
use crate::interrupt::Interrupts;
use crate::render::json::{JsonView, write_line};
use crate::render::program_error::program_error;
use crate::render::text::TextView;
use crate::render::{Screen as _, Tone, View};
use crate::token;
use crate::token_store::Memory;
use crate::trace::Trace;

/// Pause before Run is retried, in which a server can restart.
const RUN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Timeout for cancelling the job after standard output was closed.
const LAST_CALL: Duration = Duration::from_secs(5);

pub(super) async fn run(
    args: &Run,
    source: &DataSource,
    form: Form,
    client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let trace = Trace::begin().map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let ended = traced(args, source, form, client, console, &trace).await;
    // Without the message, which may quote the program and the data.
    let sent = trace.end(ended.as_ref().err().map(|failure| failure.kind().to_owned())).await;
    if let Err(error) = sent {
        console.line(Tone::Warning, &format!("warning: spans are lost: {error:#}"));
    }
    ended
}

async fn traced(
    args: &Run,
    source: &DataSource,
    form: Form,
    mut client: Client,
    console: &mut Console,
    trace: &Trace,
) -> Result<(), Failure> {
    let sql = read_program(&args.program)?;
    let request = Request {
        sql: sql.clone(),
        session: Some(Session {
            db_conn_str: source.checked(client.server())?,
            user_id: args.user.clone().unwrap_or_else(login_name),
            exit_on_submit: args.detach,
            fetch_timeout_seconds: args.fetch_timeout,
            ..Session::default()
        }),
        // 128 random bits: a Run whose response was lost can be repeated, and nobody can guess the id.
        request_id: format!("{:032x}", rand::random::<u128>()),
    };
    if let Some(warning) = source.warning(client.server()) {
        console.line(Tone::Warning, &escaped(&warning));
    }
    let token = match run_once(&mut client, request, trace, args.reading.retry_timeout).await {
        Ok(token) => token,
        Err(unanswered) => return Err(refused(&unanswered, &sql, client.server())),
    };
    // From here on Ctrl+C cancels the job.
    let interrupts = match args.detach {
        true => None,
        false => Some(Interrupts::cancelling(client.clone(), token.token.clone())?),
    };
    announce(args, &token, form.json, console)?;
    let Some(interrupts) = interrupts else { return Ok(()) };

    // With an explicit cursor a lost page can be fetched again, and the plain token's cursor does not move.
    let mut follower = Follower::new(client.clone(), token::at(&token.token, 0), args.reading.retry_timeout);
    console.save_displays_in(args.reading.save_displays.clone());
    console.keep_control_sequences(args.reading.raw);
    let mut view: Box<dyn View> = if form.json {
        Box::new(JsonView::default())
    } else {
        Box::new(TextView::new(&token.job_id, args.reading.quiet, form.style))
    };
    match read_to_end(&mut follower, view.as_mut(), console, Some(&interrupts)).await {
        Ok(status) => finished(args, &token.job_id, &status, &interrupts, console),
        Err(Failure::ClosedOutput) => Err(closed_output(args, client, &token, console).await),
        Err(failure) => Err(failure),
    }
}

/// The default user.
fn login_name() -> String {
    ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default()
}

/// A Run without a response that has a token.
struct Unanswered {
    status: Status,
    /// Whether this call or an earlier one may have reached the server.
    may_be_accepted: bool,
}

/// Runs the program once. If a response is lost, the call is retried with the same request id; while the job may have
/// been accepted, for up to `retry_timeout`.
async fn run_once(
    client: &mut Client,
    request: Request,
    trace: &Trace,
    retry_timeout: Duration,
) -> Result<Token, Unanswered> {
    let begun = Instant::now();
    let (mut is_first, mut may_be_accepted) = (true, false);
    loop {
        let status = match client.run(request.clone(), trace).await {
            Ok(token) => return Ok(token),
            Err(status) => status,
        };
        let is_lost = is_retryable(&status);
        may_be_accepted |= is_lost && !never_connected(&status);
        let is_retried_later = may_be_accepted && begun.elapsed() + RUN_AGAIN_AFTER <= retry_timeout;
        if !is_lost || !(is_first || is_retried_later) {
            return Err(Unanswered { status, may_be_accepted });
        }
        is_first = false;
        tokio::time::sleep(RUN_AGAIN_AFTER).await;
    }
}

/// Prints the job's id, and stores its token.
fn announce(args: &Run, token: &Token, json: bool, console: &mut Console) -> Result<(), Failure> {
    console.line(Tone::Dim, &format!("job {}", token.job_id));
    if !token.job_tracer_url.is_empty() {
        console.line(Tone::Dim, &format!("page {}", escaped(&token.job_tracer_url)));
    }
    if !args.no_remember {
        let remembered = Memory::of_user().and_then(|memory| memory.add(&token.job_id, &token.token));
        if let Err(error) = remembered {
            console.line(Tone::Warning, &format!("warning: {error:#}"));
        }
    }
    if json {
        let line = serde_json::json!({ "type": "job", "job": token.job_id, "token": token.token });
        write_line(console, &line)?;
    } else if args.detach {
        console.results(format!("{}\n", token.token).as_bytes())?;
    } else if args.no_remember {
        // The job could not be accessed later without it.
        console.line(Tone::Dim, &format!("token {}", token.token));
    }
    console.flush()
}

fn finished(
    args: &Run,
    job: &str,
    status: &JobStatus,
    interrupts: &Interrupts,
    console: &mut Console,
) -> Result<(), Failure> {
    match conclude(job, status, args.reading.quiet, console) {
        Err(Failure::Cancelled(sentence)) if interrupts.interrupted() => Err(Failure::Interrupted(sentence)),
        ended => ended,
    }
}

/// Cancels the job because standard output was closed, as by `| head`. It prints a message, because the statements that
/// remain are not executed.
async fn closed_output(args: &Run, mut client: Client, token: &Token, console: &mut Console) -> Failure {
    let cancelled = tokio::time::timeout(LAST_CALL, client.cancel(&token.token)).await;
    if !matches!(cancelled, Ok(Ok(_))) {
        let job = &token.job_id;
        console.line(Tone::Warning, &format!("job {job} could not be cancelled: the server does not answer"));
    } else if !args.reading.quiet {
        console.line(Tone::Dim, &format!("job {} cancelled: standard output was closed", token.job_id));
    }
    Failure::ClosedOutput
}

/// The error for a Run without a token.
fn refused(unanswered: &Unanswered, sql: &str, server: &str) -> Failure {
    let Unanswered { status, may_be_accepted } = unanswered;
    if status.code() == Code::InvalidArgument {
        return Failure::Usage(program_error(status.message(), sql));
    }
    match Failure::from_status(status, server) {
        Failure::Server(sentence) if *may_be_accepted => {
            Failure::Server(format!("{sentence}; the job may have been accepted: see `sqlflowctl list`"))
        }
        failure => failure,
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
