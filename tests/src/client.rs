//! Clients like those that users write.

use std::time::{Duration, Instant};

use sqlflow_proto::v1::column::Values;
use sqlflow_proto::v1::sql_flow_client::SqlFlowClient;
use sqlflow_proto::v1::{
    Column, JobStatus, Request, Response, Rows, Session, Token, job_status::Code, response,
};
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Time between polls of a job without new results.
const POLL: Duration = Duration::from_millis(20);
/// Timeout for one job.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A connection to one server.
#[derive(Debug, Clone)]
pub struct Client {
    /// The generated client.
    pub api: SqlFlowClient<Channel>,
}

/// Status and results of a job.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The last status.
    pub status: JobStatus,
    /// Everything that was fetched, in order.
    pub results: Vec<Response>,
}

impl Client {
    /// Connects to `127.0.0.1:port`.
    ///
    /// # Errors
    /// No server listens there.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        Self::over(Endpoint::from_shared(format!("http://{address}"))?).await
    }

    /// Connects with TLS to `host:port`, whose certificate is for `name` and signed by one of these (PEM).
    ///
    /// # Errors
    /// No such server listens there.
    pub async fn connect_with_tls(address: &str, name: &str, ca: &str) -> anyhow::Result<Self> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(name);
        Self::over(Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?).await
    }

    async fn over(endpoint: Endpoint) -> anyhow::Result<Self> {
        // Larger frames than by default, as sqlflowctl has them.
        let channel = endpoint.max_frame_size(256 << 10).connect().await?;
        let api = SqlFlowClient::new(channel)
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20);
        Ok(Self { api })
    }

    /// Runs a program in a session with defaults.
    ///
    /// # Errors
    /// The server's.
    pub async fn run(&mut self, sql: impl Into<String>) -> Result<Token, Status> {
        self.run_in(sql, Session::default()).await
    }

    /// Runs a program in this session.
    ///
    /// # Errors
    /// The server's.
    pub async fn run_in(&mut self, sql: impl Into<String>, session: Session) -> Result<Token, Status> {
        Ok(self
            .api
            .run(Request { sql: sql.into(), session: Some(session), ..Request::default() })
            .await?
            .into_inner())
    }

    /// Fetches with the cursors that the server gives until the job has ended and all is read.
    ///
    /// # Errors
    /// The server's.
    pub async fn follow(&mut self, token: &Token) -> Result<Ended, Status> {
        let begun = Instant::now();
        let mut cursor = token.clone();
        let mut results = Vec::new();
        loop {
            let page = self.api.fetch(cursor.clone()).await?.into_inner();
            let status = page.job_status.unwrap_or_default();
            let is_empty = page.results.is_empty();
            results.extend(page.results);
            if is_over(&status) {
                return Ok(Ended { status, results });
            }
            cursor = page.next.unwrap_or(cursor);
            bounded(begun, is_empty).await?;
        }
    }

    /// Fetches until there is such a result. Returns the cursor after that page.
    ///
    /// # Errors
    /// The server's; the job ended without it.
    pub async fn until(
        &mut self,
        token: &Token,
        is_it: impl Fn(&response::Response) -> bool,
    ) -> Result<Token, Status> {
        let mut cursor = token.clone();
        loop {
            let page = self.api.fetch(cursor.clone()).await?.into_inner();
            cursor = page.next.unwrap_or(cursor);
            if page.results.iter().filter_map(|it| it.response.as_ref()).any(&is_it) {
                return Ok(cursor);
            }
            let status = page.job_status.unwrap_or_default();
            if is_over(&status) {
                return Err(Status::aborted(format!("the job ended before: {status:?}")));
            }
        }
    }

    /// The loop of the design document: fetches with the plain token until SUCCEEDED or FAILED.
    ///
    /// # Errors
    /// The server's.
    pub async fn follow_plainly(&mut self, token: &Token) -> Result<Ended, Status> {
        let begun = Instant::now();
        let mut results = Vec::new();
        loop {
            let page = self.api.fetch(token.clone()).await?.into_inner();
            let status = page.job_status.unwrap_or_default();
            let is_empty = page.results.is_empty();
            results.extend(page.results);
            if is_over(&status) {
                return Ok(Ended { status, results });
            }
            bounded(begun, is_empty).await?;
        }
    }
}

/// Waits if there was nothing new. Fails after [`TIMEOUT`].
async fn bounded(begun: Instant, is_empty: bool) -> Result<(), Status> {
    if begun.elapsed() > TIMEOUT {
        return Err(Status::deadline_exceeded("the test's job does not end"));
    }
    if is_empty {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Whether the status is SUCCEEDED or FAILED.
pub fn is_over(status: &JobStatus) -> bool {
    status.is_terminal()
}

impl Ended {
    /// Fails the test, with the job's log, unless the job succeeded.
    pub fn expect_success(&self) {
        assert_eq!(self.status.code(), Code::Succeeded, "{:?}\n{}", self.status, self.log());
    }

    /// All bytes of stdout and stderr, in order.
    pub fn log(&self) -> String {
        let bytes: Vec<u8> = self.payloads().filter_map(as_log).flat_map(|log| log.data.to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Number of rows in all batches.
    pub fn row_count(&self) -> u64 {
        self.payloads()
            .map(
                |payload| {
                    if let response::Response::Rows(rows) = payload { u64::from(rows.count) } else { 0 }
                },
            )
            .sum()
    }

    /// All cells as text. Columns of texts and numbers only.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let batches = self.payloads().filter_map(|payload| match payload {
            response::Response::Rows(rows) => Some(rows),
            _ => None,
        });
        batches.flat_map(|rows| cells(&rows.decoded().expect("the columns are valid"))).collect()
    }

    /// What was fetched, without the envelope.
    pub fn payloads(&self) -> impl Iterator<Item = &response::Response> {
        self.results.iter().filter_map(|result| result.response.as_ref())
    }
}

fn cells(rows: &Rows) -> Vec<Vec<String>> {
    let columns: Vec<Vec<String>> = rows.columns.iter().map(texts).collect();
    (0..rows.count as usize).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

fn texts(column: &Column) -> Vec<String> {
    match column.values.as_ref() {
        Some(Values::Strings(texts)) => texts.iter().map(str::to_owned).collect(),
        Some(Values::Int64s(numbers)) => numbers.values.iter().map(i64::to_string).collect(),
        Some(Values::Doubles(numbers)) => numbers.values.iter().map(f64::to_string).collect(),
        other => panic!("unsupported column {other:?}"),
    }
}

fn as_log(payload: &response::Response) -> Option<&sqlflow_proto::v1::LogChunk> {
    match payload {
        response::Response::Log(log) => Some(log),
        _ => None,
    }
}
