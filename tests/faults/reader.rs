//! Clients that survive every fault: they switch to the other server and retry.

use std::time::Duration;

use sqlflow_proto::v1::{Session, Token};
use sqlflow_tests::client::{Client, is_over};
use tokio::time::{Instant, timeout};

use super::observed::{History, Reader};
use super::schedule::Slot;
use super::world::World;

/// Timeout of one call. A `Fetch` without new results takes a second.
const CALL: Duration = Duration::from_millis(2500);
/// Backoff after an error.
const PAUSE: Duration = Duration::from_millis(50);

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}

/// A connection to one of the servers.
struct Connection {
    slot: Slot,
    client: Option<Client>,
}

impl Connection {
    async fn client(&mut self, world: &World) -> Option<&mut Client> {
        if self.client.is_none() {
            let connect = Client::connect(world.address(self.slot));
            self.client = timeout(CALL, connect).await.ok().and_then(Result::ok);
        }
        self.client.as_mut()
    }

    async fn change(&mut self) {
        (self.slot, self.client) = (self.slot.other(), None);
        tokio::time::sleep(PAUSE).await;
    }
}

/// A `Run` that was answered, and the markers of those that were not.
pub struct Submitted {
    pub token: Option<Token>,
    pub unanswered: Vec<String>,
    /// The marker of the `Run` that was answered.
    pub marker: String,
}

/// Runs a program until one `Run` is answered.
pub async fn submit(
    world: &World,
    first: Slot,
    name: &str,
    sql: impl Fn(&str) -> String,
    datasource: String,
) -> Submitted {
    let mut connection = Connection { slot: first, client: None };
    let mut unanswered = Vec::new();
    for number in 0.. {
        let marker = format!("{name}-{number}");
        if world.is_given_up() {
            return Submitted { token: None, unanswered, marker };
        }
        let session = Session {
            db_conn_str: datasource.clone(),
            // ListJobs returns it, which identifies a job whose response was lost.
            user_id: marker.clone(),
            ..Session::default()
        };
        if let Some(client) = connection.client(world).await {
            let call = request(sqlflow_proto::v1::Request {
                sql: sql(&marker),
                session: Some(session),
                ..Default::default()
            });
            match timeout(CALL * 2, client.api.run(call)).await {
                Ok(Ok(token)) => {
                    return Submitted { token: Some(token.into_inner()), unanswered, marker };
                }
                Ok(Err(status)) => world.note(format!("{marker}: Run: {status:?}")),
                Err(_) => world.note(format!("{marker}: Run: no answer")),
            }
            unanswered.push(marker);
        }
        connection.change().await;
    }
    unreachable!("the loop has no end")
}

/// Reads a job until its log ends or the time is up.
pub async fn read(world: &World, token: &Token, first: Slot, reader: Reader) -> History {
    let mut connection = Connection { slot: first, client: None };
    let (mut results, mut cursor) = (Vec::new(), token.clone());
    if reader != Reader::Plain {
        // From the start: the plain token continues where its reader is.
        cursor.token.push_str(".0");
    }
    let mut pages = 0_u32;
    while !world.is_given_up() {
        let page = match connection.client(world).await {
            Some(client) => timeout(CALL * 2, client.api.fetch(request(cursor.clone()))).await,
            None => {
                connection.change().await;
                continue;
            }
        };
        let page = match page {
            Ok(Ok(page)) => page.into_inner(),
            Ok(Err(status)) => {
                world.note(format!(
                    "{} {reader:?}: Fetch from {:?}: {status:?}",
                    token.job_id, connection.slot
                ));
                connection.change().await;
                continue;
            }
            Err(_) => {
                connection.change().await;
                continue;
            }
        };
        let is_empty = page.results.is_empty();
        results.extend(page.results);
        let status = page.job_status.unwrap_or_default();
        if is_over(&status) {
            return History { reader, results, end: Some(status) };
        }
        if let (Reader::Cursor | Reader::AfterTheEnd, Some(next)) = (reader, page.next) {
            cursor = next;
        }
        pages += 1;
        if pages.is_multiple_of(7) && reader != Reader::AfterTheEnd {
            connection.change().await;
        } else if is_empty {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    History { reader, results, end: None }
}

/// Cancels the job. Gives up after five seconds, since the job may have ended anyway.
pub async fn cancel(world: &World, token: &Token, first: Slot) {
    let mut connection = Connection { slot: first, client: None };
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if let Some(client) = connection.client(world).await
            && let Ok(Ok(_)) = timeout(CALL, client.api.cancel(request(token.clone()))).await
        {
            world.note(format!("{}: cancelled", token.job_id));
            return;
        }
        connection.change().await;
    }
    world.note(format!("{}: Cancel was not answered", token.job_id));
}
