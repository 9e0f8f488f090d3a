//! `fetch` and `logs`: reading an existing job.

use std::pin::pin;
use std::time::Duration;

use sqlflow_proto::v1::{GetJobRequest, JobStatus, get_job_request::By};

use super::Form;
use super::read::{conclude, read_page, read_to_end, resume_hint};
use crate::args::{Fetch, Logs};
use crate::client::Client;
use crate::console::Console;
use crate::failure::Failure;
use crate::follow::Follower;
use crate::interrupt::Interrupts;
use crate::render::json::JsonView;
use crate::render::logs::LogsView;
use crate::render::text::TextView;
use crate::render::{Screen as _, Tone, View};
use crate::token;
use crate::token_store::token_of;

/// Timeout after an interrupt for a page that was requested: the server may have moved the plain cursor after it
/// already. Fetch answers within a second.
const LAST_PAGE: Duration = Duration::from_secs(2);

pub(super) async fn fetch(
    args: &Fetch,
    form: Form,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    let token = token_of(&args.job)?;
    let token = if args.from_start { token::at(&token, 0) } else { token };
    let by_token = GetJobRequest { by: Some(By::Token(token::split(&token).0.to_owned())) };
    let job = match client.job(by_token).await {
        Ok(job) => job.job_id,
        Err(status) => return Err(Failure::from_status(&status, client.server())),
    };
    console.save_displays_in(args.reading.save_displays.clone());
    console.keep_control_sequences(args.reading.raw);
    let mut view: Box<dyn View> = if form.json {
        Box::new(JsonView::default())
    } else {
        Box::new(TextView::new(&job, args.reading.quiet, form.style))
    };
    let mut follower = Follower::new(client, token, args.reading.retry_timeout);
    if args.once {
        let status = read_page(&mut follower, view.as_mut(), console).await?;
        view.left(console);
        if !status.is_terminal() && !form.json {
            console.line(Tone::Dim, &format!("next: {}", follower.next_token()));
        }
        return conclude(&job, &status, args.reading.quiet, console);
    }
    let status = read_until_interrupted(&mut follower, view.as_mut(), console).await?;
    conclude(&job, &status, args.reading.quiet, console)
}

/// Prints a job until it ends or the user interrupts.
async fn read_until_interrupted(
    follower: &mut Follower,
    view: &mut dyn View,
    console: &mut Console,
) -> Result<JobStatus, Failure> {
    let interrupts = Interrupts::stopping()?;
    loop {
        interrupts.set_resume_hint(resume_hint(follower));
        let status = {
            let mut page = pin!(read_page(follower, view, console));
            tokio::select! {
                status = &mut page => Some(status?),
                () = interrupts.first() => tokio::time::timeout(LAST_PAGE, page).await.ok().transpose()?,
            }
        };
        match status {
            Some(status) if status.is_terminal() => return Ok(status),
            _ if interrupts.interrupted() => {
                view.left(console);
                return Err(Failure::Interrupted(resume_hint(follower)));
            }
            _ => {}
        }
    }
}

pub(super) async fn logs(
    args: &Logs,
    json: bool,
    mut client: Client,
    console: &mut Console,
) -> Result<(), Failure> {
    console.keep_control_sequences(args.raw);
    // An explicit cursor does not move the plain cursor of other readers.
    let token = token::at(&token_of(&args.job)?, 0);
    let by_token = GetJobRequest { by: Some(By::Token(token::split(&token).0.to_owned())) };
    let end_now = match client.job(by_token).await {
        Ok(job) => job.last_position,
        Err(status) => return Err(Failure::from_status(&status, client.server())),
    };
    let mut view: Box<dyn View> = if json { Box::new(JsonView::of_logs()) } else { Box::new(LogsView) };
    let mut follower = Follower::new(client, token, args.retry_timeout);
    if args.follow {
        read_to_end(&mut follower, view.as_mut(), console, None).await?;
        return Ok(());
    }
    while token::split(follower.next_token()).1.unwrap_or(u64::MAX) < end_now {
        if read_page(&mut follower, view.as_mut(), console).await?.is_terminal() {
            break;
        }
    }
    Ok(())
}
