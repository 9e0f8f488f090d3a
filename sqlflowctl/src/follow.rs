//! Reads a job's log page by page, each record once, despite errors of the server and the network.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::{JobStatus, Result as Page};

use crate::client::Client;
use crate::failure::{Failure, is_retryable, reason};
use crate::token;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An empty page that arrives sooner shows that the server does not wait, so the client waits.
const WAITED: Duration = Duration::from_millis(50);

/// A reader of a job's log, with its position.
#[derive(Debug)]
pub(crate) struct Follower {
    client: Client,
    /// Token of the requests. A plain one is kept, because the server stores its cursor, also for the next reader.
    token: String,
    /// Token for the page after the last one.
    next: String,
    /// Position of the last record that was returned. Pages of a plain token may repeat; records must not.
    seen: u64,
    retry_timeout: Duration,
}

impl Follower {
    /// A reader that begins at the token's cursor, and retries for `retry_timeout` if the server does not answer.
    pub(crate) fn new(client: Client, token: String, retry_timeout: Duration) -> Self {
        let seen = token::split(&token).1.unwrap_or(0);
        Self { client, next: token.clone(), token, seen, retry_timeout }
    }

    /// Token for the page after the last one.
    pub(crate) fn next_token(&self) -> &str {
        &self.next
    }

    /// Fetches the next page, with new records only. `say` gets messages for people while the server does not answer.
    /// Cancel safe: only a page that was returned moves the reader.
    pub(crate) async fn page(&mut self, say: &mut impl FnMut(&str)) -> Result<Page, Failure> {
        let mut outage: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = Instant::now();
            match self.client.fetch(&self.token).await {
                Ok(page) => {
                    if outage.is_some() {
                        say("the server is back");
                    }
                    if page.results.is_empty() && asked.elapsed() < WAITED && !ends(&page) {
                        tokio::time::sleep(FIRST_PAUSE).await;
                    }
                    return Ok(self.accept(page));
                }
                Err(status) if is_retryable(&status) => {
                    if outage.is_none() {
                        let seconds = self.retry_timeout.as_secs();
                        say(&format!(
                            "the server at {} does not answer ({}); trying for {seconds} s",
                            self.client.server(),
                            reason(&status)
                        ));
                    }
                    if outage.get_or_insert(asked).elapsed() + pause > self.retry_timeout {
                        return Err(self.gave_up(&reason(&status)));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(status) => return Err(Failure::from_status(&status, self.client.server())),
            }
        }
    }

    /// Moves after a page, and removes records from it that were seen before.
    fn accept(&mut self, mut page: Page) -> Page {
        page.results.retain(|response| response.position > self.seen);
        self.seen = page.results.iter().map(|response| response.position).fold(self.seen, u64::max);
        if let Some(next) = page.next.as_ref().filter(|next| !next.token.is_empty()) {
            self.next.clone_from(&next.token);
        }
        if token::split(&self.token).1.is_some() {
            self.token.clone_from(&self.next);
        }
        page
    }

    fn gave_up(&self, reason: &str) -> Failure {
        Failure::Server(format!(
            "cannot reach the server at {} for {} s: {reason}; the job may continue; read on with: sqlflowctl fetch {}",
            self.client.server(),
            self.retry_timeout.as_secs(),
            self.next
        ))
    }
}

fn ends(page: &Page) -> bool {
    page.job_status.as_ref().is_some_and(JobStatus::is_terminal)
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Response, Token};

    use super::*;
    use crate::connection::Connection;

    fn page(positions: &[u64], next: &str) -> Page {
        let results =
            positions.iter().map(|&position| Response { position, ..Response::default() }).collect();
        let next = Some(Token { token: next.to_owned(), ..Token::default() });
        Page { results, next, ..Page::default() }
    }

    fn follower(token: &str) -> Follower {
        let client = Client::new(&Connection::to("http://127.0.0.1:1")).unwrap();
        Follower::new(client, token.to_owned(), Duration::ZERO)
    }

    fn positions(page: &Page) -> Vec<u64> {
        page.results.iter().map(|response| response.position).collect()
    }

    #[tokio::test]
    async fn cursor_moves_with_each_page() {
        let mut follower = follower("sqlflow0.0");
        follower.accept(page(&[1, 2], "sqlflow0.2"));
        assert_eq!(follower.token, "sqlflow0.2");
    }

    #[tokio::test]
    async fn plain_token_stays_and_repeated_records_are_dropped() {
        let mut follower = follower("sqlflow0");
        assert_eq!(positions(&follower.accept(page(&[5, 6], "sqlflow0.6"))), [5, 6]);
        assert_eq!(positions(&follower.accept(page(&[5, 6, 7], "sqlflow0.7"))), [7]);
        assert_eq!((follower.token.as_str(), follower.next_token()), ("sqlflow0", "sqlflow0.7"));
    }
}
