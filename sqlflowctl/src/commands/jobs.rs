//! `cancel`, `list` and `describe`.

use jiff::Timestamp;
use sqlflow_proto::v1::{GetJobRequest, Job, ListJobsRequest, get_job_request::By, job_status};
use tonic::Code;

use super::Form;
use crate::args::{JobArgument, List, State};
use crate::client::Client;
use crate::console::Console;
use crate::failure::Failure;
use crate::render::job::{description, is_cancelled, job_json, state_name, write_listing};
use crate::render::json::write_line;
use crate::render::{Screen as _, Tone};
use crate::token;
use crate::token_store::{SHORTEST_PREFIX, ambiguous, find_token, token_of};

/// Maximum number of jobs in one page of a listing.
const LARGEST_PAGE: u32 = 1_000;

pub(super) async fn cancel(
    args: &JobArgument,
    json: bool,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let token = token_of(&args.job)?;
    let response = client.cancel(token::split(&token).0).await;
    let job = response.map_err(|status| Failure::from_status(&status, client.server()))?;
    if json {
        write_line(console, &job_json(&job))?;
    } else {
        let status = job.status.clone().unwrap_or_default();
        let state = state_name(&status);
        let line = if status.is_terminal() {
            format!("job {} has ended: {state}", job.job_id)
        } else {
            format!("job {} is being cancelled", job.job_id)
        };
        console.line(Tone::Plain, &line);
    }
    console.flush()
}

pub(super) async fn describe(
    args: &JobArgument,
    json: bool,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    // With the token the server returns the program too. Without it, only what listings have.
    let by = match find_token(&args.job) {
        Ok(Some(token)) => By::Token(token::split(&token).0.to_owned()),
        Ok(None) if args.job == "last" => By::Token(token_of(&args.job)?),
        Err(failure @ Failure::Usage(_)) => return Err(failure),
        Ok(None) | Err(_) => By::JobId(args.job.clone()),
    };
    let is_id = matches!(by, By::JobId(_));
    let job = match client.job(GetJobRequest { by: Some(by) }).await {
        Ok(job) => job,
        Err(status) if is_id && matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
            match job_by_prefix(&args.job, &mut client).await? {
                Some(job) => job,
                None if looks_like_an_id(&args.job) => {
                    return Err(Failure::Usage(format!(
                        "no job has an id that begins with {:?}; see sqlflowctl list",
                        args.job
                    )));
                }
                None => return Err(Failure::from_status(&status, client.server())),
            }
        }
        Err(status) => return Err(Failure::from_status(&status, client.server())),
    };
    if json {
        write_line(console, &job_json(&job))?;
    } else {
        console.results(description(&job, Timestamp::now()).as_bytes())?;
    }
    console.flush()
}

/// Whether the text may be the beginning of an id.
fn looks_like_an_id(text: &str) -> bool {
    (SHORTEST_PREFIX..token::ID_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// The only job whose id begins with `prefix`, among the newest that the server lists.
async fn job_by_prefix(prefix: &str, client: &mut Client) -> Result<Option<Job>, Failure> {
    if prefix.len() < SHORTEST_PREFIX {
        return Ok(None);
    }
    let request = ListJobsRequest { page_size: LARGEST_PAGE, ..ListJobsRequest::default() };
    let listed = client.list(request).await;
    let listed = listed.map_err(|status| Failure::from_status(&status, client.server()))?;
    let ids: Vec<String> = listed.jobs.into_iter().map(|job| job.job_id).collect();
    let matching: Vec<String> = ids.into_iter().filter(|id| id.starts_with(prefix)).collect();
    match &matching[..] {
        [] => Ok(None),
        [id] => {
            let response = client.job(GetJobRequest { by: Some(By::JobId(id.clone())) }).await;
            response.map(Some).map_err(|status| Failure::from_status(&status, client.server()))
        }
        several => Err(ambiguous(prefix, several)),
    }
}

pub(super) async fn list(
    args: &List,
    form: Form,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let jobs = newest_jobs(args, &mut client).await?;
    if form.json {
        for job in &jobs {
            write_line(console, &job_json(job))?;
        }
    } else {
        write_listing(&jobs, Timestamp::now(), form.style, &mut |piece| console.results(piece))?;
    }
    console.flush()
}

/// Lists jobs page by page, up to the limit.
async fn newest_jobs(args: &List, client: &mut Client) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    let mut page_token = String::new();
    while jobs.len() < args.limit as usize {
        let missing = args.limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        let request = ListJobsRequest {
            page_size: missing.min(LARGEST_PAGE),
            page_token,
            user_id: args.user.clone(),
            codes: args.state.iter().map(|&state| job_status::Code::from(state).into()).collect(),
        };
        let response = client.list(request).await;
        let page = response.map_err(|status| Failure::from_status(&status, client.server()))?;
        jobs.extend(page.jobs.into_iter().filter(|job| is_in_any(job, &args.state)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    jobs.truncate(args.limit as usize);
    Ok(jobs)
}

/// Whether the job is in one of these states. The server does not distinguish cancelled and failed jobs.
fn is_in_any(job: &Job, states: &[State]) -> bool {
    let status = job.status.clone().unwrap_or_default();
    let matches = |state: &State| match state {
        State::Cancelled => is_cancelled(&status),
        State::Failed => status.code() == job_status::Code::Failed && !is_cancelled(&status),
        other => status.code() == job_status::Code::from(*other),
    };
    states.is_empty() || states.iter().any(matches)
}
