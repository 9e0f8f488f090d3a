//! A reader of a job's log that checks positions and offsets.

use sha2::{Digest as _, Sha256};
use sqlflow_proto::v1::log_chunk::Stream;
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_proto::v1::{JobStatus, Token};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::positions::is_next;

/// What was read so far.
#[derive(Debug)]
pub struct Reading {
    pub cursor: Token,
    pub status: JobStatus,
    /// Bytes of stdout.
    pub length: u64,
    /// The end of stdout, at most 64 KiB.
    pub tail: Vec<u8>,
    /// Bytes that gap records report as missing.
    pub missing: u64,
    pub gaps: usize,
    /// The server's messages.
    pub messages: Vec<String>,
    position: u64,
    digest: Sha256,
}

impl Reading {
    pub fn of(token: &Token) -> Self {
        Self {
            cursor: token.clone(),
            status: JobStatus::default(),
            length: 0,
            tail: Vec::new(),
            missing: 0,
            gaps: 0,
            messages: Vec::new(),
            position: 0,
            digest: Sha256::new(),
        }
    }

    pub fn is_over(&self) -> bool {
        is_over(&self.status)
    }

    /// One Fetch. Fails if the server is gone.
    pub async fn fetch(&mut self, client: &mut Client) -> Result<(), tonic::Status> {
        let page = client.api.fetch(self.cursor.clone()).await?.into_inner();
        for result in page.results {
            assert!(is_next(self.position, result.position), "{} after {}", result.position, self.position);
            self.position = result.position;
            match result.response {
                Some(Payload::Log(log)) if log.stream() == Stream::Stdout => {
                    assert_eq!(log.offset, self.length + self.missing, "offsets are contiguous");
                    self.length += log.data.len() as u64;
                    self.digest.update(&log.data);
                    self.tail.extend_from_slice(&log.data);
                    self.tail.drain(..self.tail.len().saturating_sub(1 << 16));
                }
                Some(Payload::Gap(gap)) => {
                    self.gaps += 1;
                    self.missing += gap.bytes.unwrap_or(0);
                }
                Some(Payload::Message(said)) => self.messages.push(said.message),
                _ => {}
            }
        }
        self.status = page.job_status.unwrap();
        self.cursor = page.next.unwrap_or_else(|| self.cursor.clone());
        Ok(())
    }

    /// Fetches until the condition holds.
    pub async fn until(&mut self, client: &mut Client, is_enough: impl Fn(&Self) -> bool) {
        let begun = std::time::Instant::now();
        while !is_enough(self) {
            assert!(begun.elapsed().as_secs() < 600, "the condition does not become true: {self:?}");
            self.fetch(client).await.unwrap();
        }
    }

    pub fn sha256(&self) -> String {
        self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub fn says(&self, text: &str) -> bool {
        self.tail.windows(text.len()).any(|window| window == text.as_bytes())
    }
}
