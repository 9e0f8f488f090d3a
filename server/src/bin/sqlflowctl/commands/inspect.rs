//! `cancel`, `list` and `describe`: jobs from outside.

use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{GetJobRequest, Job, ListJobsRequest, get_job_request::By};

use crate::args::{JobArgument, List};
use crate::client::Client;
use crate::console::Console;
use crate::failure::Failure;
use crate::remember::{find_token, token_of};
use crate::render::job::{description, is_terminal, job_json, state_name, write_listing};
use crate::render::json::write_line;
use crate::render::{Screen as _, Tone};
use crate::token;

/// Jobs in one page of a listing, at most.
const LARGEST_PAGE: u32 = 1_000;

pub(super) async fn cancel(
    args: &JobArgument,
    json: bool,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let token = token_of(&args.job)?;
    let answer = client.cancel(token::split(&token).0).await;
    let job = answer.map_err(|status| Failure::from_status(&status, client.server()))?;
    if json {
        write_line(console, &job_json(&job))?;
    } else {
        let status = job.status.clone().unwrap_or_default();
        let state = state_name(status.code());
        let line = if is_terminal(&status) {
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
    // With the token the server shows the program too; without it, what any listing may show.
    let by = match find_token(&args.job) {
        Ok(Some(token)) => By::Token(token::split(&token).0.to_owned()),
        Ok(None) if args.job == "last" => By::Token(token_of(&args.job)?),
        Ok(None) | Err(_) => By::JobId(args.job.clone()),
    };
    let answer = client.job(GetJobRequest { by: Some(by) }).await;
    let job = answer.map_err(|status| Failure::from_status(&status, client.server()))?;
    if json {
        write_line(console, &job_json(&job))?;
    } else {
        console.results(description(&job).as_bytes())?;
    }
    console.flush()
}

pub(super) async fn list(
    args: &List,
    json: bool,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let jobs = newest_jobs(args, &mut client).await?;
    if json {
        for job in &jobs {
            write_line(console, &job_json(job))?;
        }
    } else {
        write_listing(&jobs, &mut |piece| console.results(piece))?;
    }
    console.flush()
}

/// Page by page, up to the limit.
async fn newest_jobs(args: &List, client: &mut Client) -> Result<Vec<Job>, Failure> {
    let mut jobs = Vec::new();
    let mut page_token = String::new();
    while jobs.len() < args.limit as usize {
        let missing = args.limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        let request = ListJobsRequest {
            page_size: missing.min(LARGEST_PAGE),
            page_token,
            user_id: args.user.clone(),
            codes: args.state.iter().map(|&state| Code::from(state).into()).collect(),
        };
        let answer = client.list(request).await;
        let page = answer.map_err(|status| Failure::from_status(&status, client.server()))?;
        jobs.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    jobs.truncate(args.limit as usize);
    Ok(jobs)
}
