//! Models in HDFS over HTTP, for networks that its own protocol does not cross.
//!
//! OpenDAL writes and reads. It cannot rename, so this module sends that request itself: RENAME with
//! `renameoptions=OVERWRITE`, one transaction of the namenode.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use opendal::{Entry, ErrorKind, Metadata, Operator, Writer};
use sqlflow_os::failpoint;

use super::renamed_files::{FileState, Lookup, StagedFiles};
use super::retry::Calls;
use super::staging::{Folders, Staging, is_staging};
use super::{
    FoundFile, ModelLocation, ModelStore, Pieces, Precondition, RetryPolicy, Sink, StagedFile, below, http,
    kind,
};
use crate::cache::Fingerprint;

/// Bytes of one APPEND.
const PIECE: usize = 4 << 20;

pub(super) struct WebhdfsStore {
    /// `http://host:port`
    endpoint: String,
    folder: String,
    staging: Staging,
    calls: Calls,
    staged: StagedFiles,
}

impl From<&Metadata> for FileState {
    fn from(found: &Metadata) -> Self {
        Self { bytes: found.content_length(), modified: found.last_modified().map(SystemTime::from) }
    }
}

impl From<opendal::Result<Metadata>> for Lookup {
    fn from(found: opendal::Result<Metadata>) -> Self {
        match found {
            Ok(found) => Self::Found(FileState::from(&found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::Missing,
            Err(_) => Self::Failed,
        }
    }
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
    pub(super) fn new(
        location: &ModelLocation,
        staging: Staging,
        retry: Arc<RetryPolicy>,
    ) -> Result<Self, String> {
        Ok(Self {
            endpoint: format!("http://{}", location.authority),
            folder: location.folder.clone(),
            staging,
            calls: Calls::new(retry)?,
            staged: StagedFiles::default(),
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

    fn final_path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    async fn rename(&self, operator: &Operator, name: &str) -> io::Result<()> {
        let (from, to) = (self.staged_path(name), self.final_path(name));
        let Err(error) = self.ask_to_rename(&from, &to).await else { return Ok(()) };
        let (from, to) = (operator.stat(&from).await, operator.stat(&to).await);
        self.staged.renamed(name, error, from.into(), to.into())
    }

    async fn ask_to_rename(&self, from: &str, to: &str) -> io::Result<()> {
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
        let status = answer.status();
        let text = answer.text().await.map_err(without_url)?;
        if !status.is_success() {
            return Err(io::Error::other(format!("RENAME: {status}: {}", exception(&text))));
        }
        // A namenode that overwrites returns nothing more. HttpFS ignores the option, and refuses with status 200.
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(answer) if answer["boolean"] == false => Err(io::Error::other(
                "RENAME was refused; HttpFS cannot replace a file: use the address of a namenode",
            )),
            _ => Ok(()),
        }
    }
}

impl ModelStore for WebhdfsStore {
    fn stage(&self, name: &str, precondition: Precondition, _bytes: u64) -> io::Result<Box<dyn StagedFile>> {
        let operator = self.operator()?;
        let path = self.staged_path(name);
        let writer = self.calls.wait(async {
            // Otherwise the file of an earlier try would be appended to.
            operator.delete(&path).await.map_err(http::io_error)?;
            operator.writer_with(&path).append(true).await.map_err(http::io_error)
        })?;
        if precondition == Precondition::IfUnchanged {
            self.staging.sweep(self);
        }
        let staged = Staged {
            operator,
            path,
            name: name.to_owned(),
            writer,
            length: 0,
            staged: self.staged.clone(),
            calls: self.calls.clone(),
        };
        Ok(Box::new(Pieces::new(staged, PIECE)))
    }

    fn commit(&self, name: &str) -> io::Result<()> {
        failpoint::agent(&format!("{}-before-rename", kind(name)));
        let operator = self.operator()?;
        self.calls.wait(self.rename(&operator, name))?;
        failpoint::agent(&format!("{}-after-rename", kind(name)));
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        failpoint::agent("clear");
        self.staging.clear(self)
    }

    fn fingerprint(&self, name: &str) -> io::Result<Option<Fingerprint>> {
        let operator = self.operator()?;
        self.calls.wait(http::fingerprint(&operator, &self.final_path(name)))
    }

    fn list(&self) -> io::Result<Vec<FoundFile>> {
        let operator = self.operator()?;
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in self.calls.wait(entries(&operator, &folder))? {
                let metadata = entry.metadata();
                if metadata.is_dir() {
                    folders.push(entry.path().to_owned());
                } else if let Some(path) = below(&self.folder, entry.path()) {
                    let FileState { bytes, modified } = FileState::from(metadata);
                    found.push(FoundFile { path, bytes, modified });
                }
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str) -> io::Result<FoundFile> {
        let operator = self.operator()?;
        let path = self.final_path(name);
        let found = self.calls.wait(async { operator.stat(&path).await.map_err(http::io_error) })?;
        if !found.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let FileState { bytes, modified } = FileState::from(&found);
        Ok(FoundFile { path: name.to_owned(), bytes, modified })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = self.final_path(name);
        self.calls.wait(async { operator.delete(&path).await.map_err(http::io_error) })?;
        self.staging.sweep(self);
        // Fails unless it is empty.
        let folder = format!("{}/", self.folder);
        let _ = self.calls.wait(async { operator.delete(&folder).await.map_err(http::io_error) });
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let operator = self.operator()?;
        let path = self.final_path(name);
        let stream = self.calls.wait(async {
            operator.stat(&path).await.map_err(http::io_error)?;
            let reader = operator.reader(&path).await.map_err(http::io_error)?;
            reader.into_bytes_stream(..).await.map_err(http::io_error)
        })?;
        Ok(Box::new(http::Reading::new(stream, self.calls.clone())))
    }
}

impl Folders for WebhdfsStore {
    fn names(&self) -> io::Result<Vec<String>> {
        let operator = self.operator()?;
        let found = self.calls.wait_for_cleanup(entries(&operator, &self.folder))?;
        let names = found.iter().map(|it| it.name().trim_end_matches('/').to_owned());
        Ok(names.filter(|name| is_staging(name)).collect())
    }

    /// OpenDAL does not report it for the folder itself.
    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
        let operator = self.operator()?;
        let within = self.calls.wait_for_cleanup(entries(&operator, &format!("{}/{name}", self.folder)))?;
        Ok(within.iter().filter_map(|it| FileState::from(it.metadata()).modified).max())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let operator = self.operator()?;
        let path = format!("{}/{name}/", self.folder);
        self.calls.wait_for_cleanup(async {
            operator.delete_with(&path).recursive(true).await.map_err(http::io_error)
        })
    }
}

/// Entries of a folder; none if it does not exist.
async fn entries(operator: &Operator, folder: &str) -> io::Result<Vec<Entry>> {
    let folder = format!("{}/", folder.trim_end_matches('/'));
    let mut found = match operator.list(&folder).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other.map_err(http::io_error)?,
    };
    // The folder itself is listed too.
    found.retain(|entry| entry.path().trim_matches('/') != folder.trim_matches('/'));
    Ok(found)
}

enum User {
    Token(String),
    Named(String),
    Unknown,
}

/// Read for every request, since tokens are renewed.
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
    name: String,
    writer: Writer,
    length: u64,
    staged: StagedFiles,
    calls: Calls,
}

impl Sink for Staged {
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        self.length += piece.len() as u64;
        let writer = &mut self.writer;
        self.calls.wait_with_retries(async || writer.write(piece.clone()).await)
    }

    fn finish(self) -> io::Result<()> {
        let Self { operator, path, name, mut writer, length, staged, calls } = self;
        let found = calls.wait(async {
            writer.close().await.map_err(http::io_error)?;
            operator.stat(&path).await.map(|found| FileState::from(&found)).map_err(http::io_error)
        })?;
        // An APPEND whose response was lost was sent twice.
        if found.bytes != length {
            return Err(io::Error::other(format!("{length} bytes were sent, but HDFS has {}", found.bytes)));
        }
        staged.insert(name, found);
        Ok(())
    }
}
