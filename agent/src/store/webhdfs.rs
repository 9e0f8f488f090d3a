//! Models in HDFS over HTTP, for where its own protocol does not reach.
//!
//! OpenDAL writes and reads. It cannot rename, so that one request is ours: RENAME with `renameoptions=OVERWRITE`, one
//! transaction of the namenode.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use opendal::{Operator, Writer};

use super::patience::Waiting;
use super::{
    FoundFile, ModelPlace, ModelStore, Over, Patience, Pieces, Sink, StagedFile, Staging, http, kind,
};
use crate::cache::Fingerprint;
use crate::failpoint;

/// Bytes of one APPEND.
const PIECE: usize = 4 << 20;

pub(super) struct WebhdfsStore {
    /// `http://host:port`
    endpoint: String,
    folder: String,
    staging: Staging,
    waiting: Waiting,
}

impl fmt::Debug for WebhdfsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhdfsStore")
            .field("endpoint", &self.endpoint)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl WebhdfsStore {
    pub(super) fn new(place: &ModelPlace, staging: Staging, patience: Arc<Patience>) -> Result<Self, String> {
        Ok(Self {
            endpoint: format!("http://{}", place.authority),
            folder: place.folder.clone(),
            staging,
            waiting: Waiting::new(patience)?,
        })
    }

    fn operator(&self) -> io::Result<Operator> {
        let mut builder = opendal::services::Webhdfs::default().endpoint(&self.endpoint);
        match user_of_requests() {
            User::Token(token) => builder = builder.delegation(&token),
            User::Named(user) => builder = builder.user_name(&user),
            User::Unknown => {}
        }
        Ok(http::retried(http::timed(Operator::new(builder).map_err(http::io_error)?)?))
    }

    fn staged_path(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.folder, self.staging.folder())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut url = reqwest::Url::parse(&self.endpoint).map_err(io::Error::other)?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(["webhdfs", "v1"]).extend(from.trim_start_matches('/').split('/'));
        }
        url.query_pairs_mut()
            .append_pair("op", "RENAME")
            .append_pair("destination", to)
            .append_pair("renameoptions", "OVERWRITE");
        match user_of_requests() {
            User::Token(token) => drop(url.query_pairs_mut().append_pair("delegation", &token)),
            User::Named(user) => drop(url.query_pairs_mut().append_pair("user.name", &user)),
            User::Unknown => {}
        }
        let answer = http::client()?.put(url).send().await.map_err(without_url)?;
        if answer.status().is_success() {
            return Ok(());
        }
        let status = answer.status();
        let text = answer.text().await.map_err(without_url)?;
        Err(io::Error::other(format!("RENAME: {status}: {}", exception(&text))))
    }
}

impl ModelStore for WebhdfsStore {
    fn stage(&self, name: &str, _over: Over) -> io::Result<Box<dyn StagedFile>> {
        let operator = self.operator()?;
        let path = self.staged_path(name);
        let writer = self.waiting.wait(async {
            // What an earlier try left would be appended to.
            operator.delete(&path).await.map_err(http::io_error)?;
            operator.writer_with(&path).append(true).await.map_err(http::io_error)
        })?;
        let staged = Staged { operator, path, writer, length: 0, waiting: self.waiting.clone() };
        Ok(Box::new(Pieces::new(staged, PIECE)))
    }

    fn commit(&self, name: &str) -> io::Result<()> {
        failpoint::reach(&format!("{}-before-rename", kind(name)));
        let (from, to) = (self.staged_path(name), format!("{}/{name}", self.folder));
        self.waiting.wait(self.rename(&from, &to))?;
        failpoint::reach(&format!("{}-after-rename", kind(name)));
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        failpoint::reach("clear");
        let operator = self.operator()?;
        self.waiting.wait(async {
            let entries = match operator.list(&format!("{}/", self.folder)).await {
                Err(error) if error.kind() == opendal::ErrorKind::NotFound => return Ok(()),
                other => other.map_err(http::io_error)?,
            };
            for entry in entries {
                if self.staging.is_stale(entry.name().trim_end_matches('/')) {
                    operator.delete_with(entry.path()).recursive(true).await.map_err(http::io_error)?;
                }
            }
            Ok(())
        })
    }

    fn fingerprint(&self, name: &str) -> io::Result<Option<Fingerprint>> {
        let operator = self.operator()?;
        self.waiting.wait(http::fingerprint(&operator, &format!("{}/{name}", self.folder)))
    }

    fn list(&self) -> io::Result<Vec<FoundFile>> {
        let operator = self.operator()?;
        self.waiting.wait(http::list(&operator, &self.folder))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = format!("{}/{name}", self.folder);
        self.waiting.wait(async {
            operator.delete(&path).await.map_err(http::io_error)?;
            // Refused as long as something is in it.
            let _ = operator.delete(&format!("{}/", self.folder)).await;
            Ok(())
        })
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let operator = self.operator()?;
        let path = format!("{}/{name}", self.folder);
        let stream = self.waiting.wait(async {
            operator.stat(&path).await.map_err(http::io_error)?;
            let reader = operator.reader(&path).await.map_err(http::io_error)?;
            reader.into_bytes_stream(..).await.map_err(http::io_error)
        })?;
        Ok(Box::new(http::Reading::new(stream, self.waiting.clone())))
    }
}

enum User {
    Token(String),
    Named(String),
    Unknown,
}

/// Read anew for every request, as tokens are renewed.
fn user_of_requests() -> User {
    let variable = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
    match (variable("WEBHDFS_DELEGATION_TOKEN"), variable("HADOOP_USER_NAME")) {
        (Some(token), _) => User::Token(token),
        (None, Some(user)) => User::Named(user),
        (None, None) => User::Unknown,
    }
}

/// The URL may hold a token.
fn without_url(error: reqwest::Error) -> io::Error {
    io::Error::other(error.without_url())
}

/// `{"RemoteException":{"message":…}}`
fn exception(text: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let message = json["RemoteException"]["message"].as_str().unwrap_or(text);
    message.lines().next().unwrap_or_default().to_owned()
}

struct Staged {
    operator: Operator,
    path: String,
    writer: Writer,
    length: u64,
    waiting: Waiting,
}

impl Sink for Staged {
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        self.length += piece.len() as u64;
        let writer = &mut self.writer;
        self.waiting.persist(async || writer.write(piece.clone()).await)
    }

    fn finish(self) -> io::Result<()> {
        let Self { operator, path, mut writer, length, waiting } = self;
        let stored = waiting.wait(async {
            writer.close().await.map_err(http::io_error)?;
            operator.stat(&path).await.map(|found| found.content_length()).map_err(http::io_error)
        })?;
        // An APPEND whose answer was lost was sent again.
        if stored != length {
            return Err(io::Error::other(format!("{length} bytes were sent, but HDFS has {stored}")));
        }
        Ok(())
    }
}
