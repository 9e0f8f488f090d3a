//! Reading a job's log page by page, each record once, through faults of the server and the network.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::Result as Page;

use crate::client::Client;
use crate::failure::{Failure, is_transient, reason};
use crate::token;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An empty page that came sooner means that the server does not wait, so we do.
const WAITED: Duration = Duration::from_millis(50);

/// Where a reader stands in a job's log.
#[derive(Debug)]
pub(crate) struct Follower {
    client: Client,
    /// The token to ask with. A plain one is asked with for ever: the server keeps its place, for the next reader too.
    token: String,
    /// The token to go on with after the last page.
    next: String,
    /// Position of the last record that was handed on. A plain token's pages may repeat; records may not.
    seen: u64,
    retry_timeout: Duration,
}

impl Follower {
    /// A reader that begins where the token says, and waits up to `retry_timeout` for a server that stopped answering.
    pub(crate) fn new(client: Client, token: String, retry_timeout: Duration) -> Self {
        let seen = token::split(&token).1.unwrap_or(0);
        Self { client, next: token.clone(), token, seen, retry_timeout }
    }

    /// The token to go on with after the last page.
    pub(crate) fn next_token(&self) -> &str {
        &self.next
    }

    /// Fetches the next page; its records are new ones. `say` takes lines for the person while the server is away.
    /// May be dropped at any time: only a page that was handed on moves the reader.
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
                Err(status) if is_transient(&status) => {
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

    /// Moves behind a page, and takes what was seen before out of it.
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
            "cannot reach the server at {} for {} s: {reason}; the job may go on: sqlflowctl fetch {}",
            self.client.server(),
            self.retry_timeout.as_secs(),
            self.next
        ))
    }
}

fn ends(page: &Page) -> bool {
    page.job_status.as_ref().is_some_and(crate::render::job::is_terminal)
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{Response, Token};

    use super::*;

    fn page(positions: &[u64], next: &str) -> Page {
        let results =
            positions.iter().map(|&position| Response { position, ..Response::default() }).collect();
        let next = Some(Token { token: next.to_owned(), ..Token::default() });
        Page { results, next, ..Page::default() }
    }

    fn follower(token: &str) -> Follower {
        let client = Client::new("127.0.0.1:1").unwrap();
        Follower::new(client, token.to_owned(), Duration::ZERO)
    }

    fn positions(page: &Page) -> Vec<u64> {
        page.results.iter().map(|response| response.position).collect()
    }

    #[tokio::test]
    async fn a_cursor_moves_with_each_page() {
        let mut follower = follower("sqlflow0.0");
        follower.accept(page(&[1, 2], "sqlflow0.2"));
        assert_eq!(follower.token, "sqlflow0.2");
    }

    #[tokio::test]
    async fn a_plain_token_stays_and_repeated_records_are_dropped() {
        let mut follower = follower("sqlflow0");
        assert_eq!(positions(&follower.accept(page(&[5, 6], "sqlflow0.6"))), [5, 6]);
        assert_eq!(positions(&follower.accept(page(&[5, 6, 7], "sqlflow0.7"))), [7]);
        assert_eq!((follower.token.as_str(), follower.next_token()), ("sqlflow0", "sqlflow0.7"));
    }
}
