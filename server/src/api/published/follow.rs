//! A call of Run that follows its job to the end.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use sqlflow_identity::Caller;
use sqlflow_job::{CursorToken, JobId, JobKey};
use sqlflow_proto::published::Response;
use sqlflow_proto::v1::{self, EncodedRows, response::Response as Kind};
use sqlflow_text::cell::Batch;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::WAITING;
use super::item::{self, Item};
use super::lines::Lines;
use super::stream::Stream;
use super::{failure, row};
use crate::access::{Action, Right, Via, audit};
use crate::api::answer_budget::Room;
use crate::api::delivery::{Call, Connection};
use crate::api::fetch::{Fetched, Opened};
use crate::api::v1::TokenApi;

/// Time for which a job is followed on although its state or log cannot be read.
const OUTAGE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes from which on a response waits alone.
const LONG_RESPONSE: usize = 256 << 10;

/// A job and the client that follows it.
pub(super) struct Follow {
    pub(super) api: Arc<TokenApi>,
    pub(super) id: JobId,
    pub(super) key: JobKey,
    pub(super) caller: Caller,
    pub(super) connection: Arc<Connection>,
    pub(super) sender: Sender<Result<Response, Status>>,
}

/// Why the client gets nothing more.
enum Ended {
    /// It has everything.
    Told,
    /// It has left, or cannot receive the results.
    Left,
}

/// Why not everything can be sent.
enum Stopped {
    /// The job failed, or cannot be read.
    ByJob(Status),
    /// A row is longer than these clients can receive.
    TooLong(Status),
}

impl From<Status> for Stopped {
    fn from(error: Status) -> Self {
        Self::ByJob(error)
    }
}

impl Follow {
    /// Sends the responses until the job has ended. A client that leaves before wants no more of it: nobody else has its token.
    pub(super) async fn follow(self, shutdown: CancellationToken) {
        let stopping = || {
            Status::unavailable(format!(
                "the server is stopping; job {} goes on, and another server or the next start has its results",
                self.id
            ))
        };
        let ended = tokio::select! {
            ended = self.send_all() => ended,
            () = self.sender.closed() => Ended::Left,
            () = shutdown.cancelled() => self.send(Err(stopping())).await,
        };
        if matches!(ended, Ended::Left) && !shutdown.is_cancelled() {
            audit(&self.caller, Action::Cancel, &self.id, Right::Identity, Via::Api);
            if let Err(error) = self.api.cancel_job(&self.id).await {
                tracing::warn!(job = %self.id, %error, "cannot cancel the job of a client that has left");
            }
        }
    }

    /// Sends a response. A long one waits until the client has taken the others.
    async fn send(&self, response: Result<Response, Status>) -> Ended {
        let length = response.as_ref().map_or(0, Response::encoded_len);
        let places = if length > LONG_RESPONSE { WAITING } else { 1 };
        match self.sender.reserve_many(places).await {
            Ok(mut places) => {
                if let Some(place) = places.next() {
                    place.send(response);
                }
                Ended::Told
            }
            Err(_) => Ended::Left,
        }
    }

    async fn send_all(&self) -> Ended {
        match self.send_job().await {
            Ok(ended) => ended,
            Err(Stopped::ByJob(error)) => self.send(Err(error)).await,
            Err(Stopped::TooLong(error)) => {
                self.send(Err(error)).await;
                Ended::Left
            }
        }
    }

    async fn send_job(&self) -> Result<Ended, Stopped> {
        let (mut stream, mut lines) = (Stream::default(), Lines::default());
        let mut cursor = 0;
        loop {
            let (fetched, mut room) = self.fetch(cursor).await?;
            cursor = fetched.next;
            // Held until the client has taken the page.
            room.shrink(fetched.results.iter().map(v1::Response::encoded_len).sum());
            for record in fetched.results {
                let Some(kind) = record.response else { continue };
                for item in items(kind, &mut lines).into_iter().flat_map(|item| stream.push(item)) {
                    if let Ended::Left = self.send_item(item).await? {
                        return Ok(Ended::Left);
                    }
                }
            }
            let state = fetched.status;
            let failed = match state.code() {
                v1::job_status::Code::Succeeded => false,
                v1::job_status::Code::Failed => true,
                v1::job_status::Code::Pending
                | v1::job_status::Code::Running
                | v1::job_status::Code::Unknown => continue,
            };
            let rest = flushed(&mut lines).into_iter().flat_map(|item| stream.push(item)).collect::<Vec<_>>();
            for item in rest.into_iter().chain(stream.finish()) {
                if let Ended::Left = self.send_item(item).await? {
                    return Ok(Ended::Left);
                }
            }
            return if failed { Err(failure::of(&state, &self.id).into()) } else { Ok(Ended::Told) };
        }
    }

    async fn fetch(&self, cursor: u64) -> Result<(Fetched, Room), Status> {
        let deadline = Instant::now() + OUTAGE;
        loop {
            let opened = Opened {
                id: self.id.clone(),
                token: CursorToken { key: self.key.clone(), cursor: Some(cursor) },
                caller: self.caller.clone(),
                right: Right::Identity,
            };
            let call = Call::new(Arc::clone(&self.connection), None);
            match self.api.fetcher.page(opened, call).await {
                Ok(fetched) => return Ok(fetched),
                // Without room for a page its client may be reading those of other calls.
                Err(error)
                    if matches!(error.code(), Code::Unavailable | Code::ResourceExhausted)
                        && Instant::now() < deadline =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn send_item(&self, item: Item) -> Result<Ended, Stopped> {
        let response = match item {
            Item::Rows(rows) => return self.send_rows(&rows).await,
            Item::Text(text) => item::text(&text),
            Item::Html(html) => item::html_of_run(html),
            Item::Head(columns) => item::head(columns),
            Item::End(end) => item::end(end),
        };
        Ok(self.send(Ok(response)).await)
    }

    async fn send_rows(&self, rows: &EncodedRows) -> Result<Ended, Stopped> {
        let rows = rows.decoded().map_err(row::damaged)?;
        let batch = Batch::new(&rows).map_err(row::damaged)?;
        for index in 0..batch.row_count() {
            let response = row::response(&batch, index);
            item::check_response(&response).map_err(Stopped::TooLong)?;
            if let Ended::Left = self.send(Ok(response)).await {
                return Ok(Ended::Left);
            }
        }
        Ok(Ended::Told)
    }
}

/// What these clients show of a response. A line of output that is not complete comes before anything else.
fn items(kind: Kind, lines: &mut Lines) -> Vec<Item> {
    let Kind::Log(chunk) = kind else {
        return match Item::of(kind) {
            Some(item) => flushed(lines).into_iter().chain([item]).collect(),
            None => Vec::new(),
        };
    };
    let mut texts = Vec::new();
    for piece in chunk.data.split_inclusive(|byte| *byte == b'\n') {
        lines.push(&chunk, piece, &mut texts);
    }
    texts.into_iter().map(Item::Text).collect()
}

fn flushed(lines: &mut Lines) -> Vec<Item> {
    let mut texts = Vec::new();
    lines.flush(&mut texts);
    texts.into_iter().map(Item::Text).collect()
}
