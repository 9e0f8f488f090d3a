//! Models in HDFS, by its own protocol.
//!
//! The client is used without OpenDAL, whose binding of it deletes the target before a rename and hides error messages.
//! Its rename is the namenode's `rename2` with OVERWRITE: one transaction.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::file::{FileReader, FileWriter};
use hdfs_native::{Client, ClientBuilder, HdfsError, WriteOptions};
use sqlflow_os::failpoint;

use super::kerberos;
use super::renamed_files::{FileState, Lookup, StagedFiles};
use super::retry::Calls;
use super::staging::{Folders, Staging, is_staging};
use super::{
    FoundFile, ModelLocation, ModelStore, Pieces, Precondition, RetryPolicy, Sink, StagedFile, below, kind,
};
use crate::cache::{Fingerprint, TRAILER};

/// Bytes that are buffered before they are sent to the pipeline of datanodes.
const BUFFER: usize = 1 << 20;
const FOLDER_MODE: u32 = 0o755;

/// A model's folder. Files are staged in a folder within it.
pub(super) struct HdfsStore {
    /// `hdfs://host:port`; without a host, the default of Hadoop's configuration.
    url: String,
    folder: String,
    staging: Staging,
    calls: Calls,
    staged: StagedFiles,
}

impl From<&FileStatus> for FileState {
    fn from(status: &FileStatus) -> Self {
        Self { bytes: status.length as u64, modified: Some(time(status.modification_time)) }
    }
}

impl From<Result<FileStatus, HdfsError>> for Lookup {
    fn from(found: Result<FileStatus, HdfsError>) -> Self {
        match found {
            Ok(status) => Self::Found(FileState::from(&status)),
            Err(HdfsError::FileNotFound(_)) => Self::Missing,
            Err(_) => Self::Failed,
        }
    }
}

impl fmt::Debug for HdfsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HdfsStore")
            .field("url", &self.url)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl HdfsStore {
    pub(super) fn new(
        location: &ModelLocation,
        staging: Staging,
        retry: Arc<RetryPolicy>,
    ) -> Result<Self, String> {
        kerberos::check()?;
        Ok(Self {
            url: format!("hdfs://{}", location.authority),
            folder: location.folder.clone(),
            staging,
            calls: Calls::new(retry)?,
            staged: StagedFiles::default(),
        })
    }

    /// A new client, which reads configuration, tokens and tickets again.
    fn client(&self) -> io::Result<Client> {
        ClientBuilder::new().with_url(&self.url).build().map_err(io_error)
    }

    fn final_path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn staged_path(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.folder, self.staging.folder())
    }

    async fn rename(&self, client: &Client, name: &str) -> io::Result<()> {
        let (from, to) = (self.staged_path(name), self.final_path(name));
        let Err(error) = client.rename(&from, &to, true).await.map_err(io_error) else { return Ok(()) };
        let (from, to) = (client.get_file_info(&from).await, client.get_file_info(&to).await);
        self.staged.renamed(name, error, from.into(), to.into())
    }
}

impl ModelStore for HdfsStore {
    fn stage(&self, name: &str, precondition: Precondition, _bytes: u64) -> io::Result<Box<dyn StagedFile>> {
        let client = self.client()?;
        let path = self.staged_path(name);
        let writer = self.calls.wait(async {
            let parent = path.rsplit_once('/').map_or("/", |(parent, _)| parent);
            client.mkdirs(parent, FOLDER_MODE, true).await.map_err(io_error)?;
            client.create(&path, WriteOptions::default().overwrite(true)).await.map_err(io_error)
        })?;
        if precondition == Precondition::IfUnchanged {
            self.staging.sweep(self);
        }
        let staged = Staged {
            client,
            path,
            name: name.to_owned(),
            writer,
            staged: self.staged.clone(),
            calls: self.calls.clone(),
        };
        Ok(Box::new(Pieces::new(staged, BUFFER)))
    }

    fn commit(&self, name: &str) -> io::Result<()> {
        let client = self.client()?;
        failpoint::agent(&format!("{}-before-rename", kind(name)));
        self.calls.wait(self.rename(&client, name))?;
        failpoint::agent(&format!("{}-after-rename", kind(name)));
        Ok(())
    }

    fn clear(&self) -> io::Result<()> {
        failpoint::agent("clear");
        self.staging.clear(self)
    }

    fn fingerprint(&self, name: &str) -> io::Result<Option<Fingerprint>> {
        let client = self.client()?;
        let path = self.final_path(name);
        self.calls.wait(async {
            let status = client.get_file_info(&path).await.map_err(io_error)?;
            let Some(start) = status.length.checked_sub(TRAILER) else { return Ok(None) };
            let reader = client.read(&path).await.map_err(io_error)?;
            let last = reader.read_range(start, TRAILER).await.map_err(io_error)?;
            let tag = status.modification_time.to_string();
            let trailer = last.as_ref().try_into().ok();
            Ok(trailer.map(|trailer| Fingerprint { tag, length: status.length as u64, trailer }))
        })
    }

    fn list(&self) -> io::Result<Vec<FoundFile>> {
        let client = self.client()?;
        let mut found = Vec::new();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            for status in self.calls.wait(entries(&client, &folder))? {
                if status.isdir {
                    folders.push(status.path);
                } else if let Some(path) = below(&self.folder, &status.path) {
                    let modified = Some(time(status.modification_time));
                    found.push(FoundFile { path, bytes: status.length as u64, modified });
                }
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str) -> io::Result<FoundFile> {
        let client = self.client()?;
        let path = self.final_path(name);
        let status = self.calls.wait(async { client.get_file_info(&path).await.map_err(io_error) })?;
        if status.isdir {
            return Err(io::ErrorKind::NotFound.into());
        }
        let modified = Some(time(status.modification_time));
        Ok(FoundFile { path: name.to_owned(), bytes: status.length as u64, modified })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let client = self.client()?;
        self.calls.wait(async {
            client.delete(&self.final_path(name), false).await.map_err(io_error)?;
            Ok(())
        })?;
        self.staging.sweep(self);
        // Fails unless it is empty.
        let _ = self.calls.wait(async { client.delete(&self.folder, false).await.map_err(io_error) });
        Ok(())
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let client = self.client()?;
        let path = self.final_path(name);
        let reader = self.calls.wait(async { client.read(&path).await.map_err(io_error) })?;
        Ok(Box::new(Reading { _client: client, reader, calls: self.calls.clone(), piece: Bytes::new() }))
    }
}

impl Folders for HdfsStore {
    fn names(&self) -> io::Result<Vec<String>> {
        let client = self.client()?;
        let found = self.calls.wait_for_cleanup(entries(&client, &self.folder))?;
        let name = |it: FileStatus| it.path.rsplit('/').next().map(str::to_owned);
        Ok(found.into_iter().filter_map(name).filter(|name| is_staging(name)).collect())
    }

    fn changed(&self, name: &str) -> io::Result<Option<SystemTime>> {
        let client = self.client()?;
        let path = format!("{}/{name}", self.folder);
        self.calls.wait_for_cleanup(async {
            let own = client.get_file_info(&path).await.map_err(io_error)?;
            let within = entries(&client, &path).await?;
            let changes = within.iter().chain([&own]).map(|it| it.modification_time);
            Ok(changes.max().map(time))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let client = self.client()?;
        let path = format!("{}/{name}", self.folder);
        self.calls.wait_for_cleanup(async { client.delete(&path, true).await.map(drop).map_err(io_error) })
    }
}

/// Entries of a folder; none if it does not exist.
async fn entries(client: &Client, folder: &str) -> io::Result<Vec<FileStatus>> {
    match client.list_status(folder, false).await {
        Err(HdfsError::FileNotFound(_)) => Ok(Vec::new()),
        other => other.map_err(io_error),
    }
}

fn time(unix_millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix_millis)
}

struct Staged {
    client: Client,
    path: String,
    name: String,
    writer: FileWriter,
    staged: StagedFiles,
    calls: Calls,
}

impl Sink for Staged {
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        let writer = &mut self.writer;
        self.calls.wait(async { Box::pin(writer.write_bytes(piece)).await.map_err(io_error) }).map(drop)
    }

    fn finish(self) -> io::Result<()> {
        let Self { client, path, name, mut writer, staged, calls } = self;
        let described = calls.wait(async {
            // Durable on the datanodes, not only in their memory.
            writer.hsync().await.map_err(io_error)?;
            Box::pin(writer.close()).await.map_err(io_error)?;
            client.get_file_info(&path).await.map(|status| FileState::from(&status)).map_err(io_error)
        })?;
        staged.insert(name, described);
        Ok(())
    }
}

struct Reading {
    _client: Client,
    reader: FileReader,
    calls: Calls,
    piece: Bytes,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.reader.remaining() > 0 {
            let reader = &mut self.reader;
            self.piece = self.calls.wait(async { reader.read_bytes(BUFFER).await.map_err(io_error) })?;
        }
        let length = buffer.len().min(self.piece.len());
        buffer[..length].copy_from_slice(&self.piece.split_to(length));
        Ok(length)
    }
}

/// With the first line of the message: the others are a Java stack trace.
fn io_error(error: HdfsError) -> io::Error {
    let kind = match &error {
        HdfsError::IOError(error) => error.kind(),
        HdfsError::FileNotFound(_) => io::ErrorKind::NotFound,
        HdfsError::RPCError(class, _) if class.ends_with(".FileNotFoundException") => io::ErrorKind::NotFound,
        HdfsError::RPCError(class, _) if class.ends_with(".AccessControlException") => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    let text = error.to_string();
    let mut text = text.lines().next().unwrap_or_default().to_owned();
    // The only sign of a namenode that requires Kerberos when the client is not configured for it.
    if text.contains("RPC listener disconnected") {
        text.push_str(" (if the namenode requires Kerberos, set HADOOP_CONF_DIR)");
    }
    io::Error::new(kind, text)
}
