//! An upload in parts, which is invisible until it is completed.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use opendal::{Buffer, Operator, Writer};
use sqlflow_sync::lock;

use crate::retry::Calls;
use crate::{RetryPolicy, Sink};

/// Uploads that were begun and neither completed nor aborted, by name.
pub(super) type Uploads = Arc<Mutex<HashMap<String, Upload>>>;

/// An upload that was begun.
pub(super) struct Upload {
    pub(super) operator: Operator,
    pub(super) writer: Writer,
    pub(super) length: u64,
    /// It has a precondition.
    pub(super) is_conditional: bool,
    /// All parts were sent; it can be completed.
    pub(super) is_whole: bool,
    /// The store confirmed its completion.
    pub(super) is_closed: bool,
}

/// Sends the parts of a staged file.
pub(super) struct Staged {
    pub(super) name: String,
    pub(super) part: usize,
    /// The last part so far. A shorter rest is sent together with it: OpenDAL would buffer a short part, and lose it
    /// when sending fails.
    pub(super) held_back: Bytes,
    pub(super) uploads: Uploads,
    pub(super) calls: Calls,
}

impl Sink for Staged {
    fn send(&mut self, piece: Bytes) -> io::Result<()> {
        if piece.len() < self.part {
            let last = std::mem::take(&mut self.held_back);
            return self.write([last, piece].into_iter().collect());
        }
        let part = std::mem::replace(&mut self.held_back, piece);
        self.write(part.into())
    }

    fn finish(mut self) -> io::Result<()> {
        let last = std::mem::take(&mut self.held_back);
        self.write(last.into())?;
        lock(&self.uploads).entry(self.name).and_modify(|upload| upload.is_whole = true);
        Ok(())
    }
}

impl Staged {
    fn write(&self, part: Buffer) -> io::Result<()> {
        let mut uploads = lock(&self.uploads);
        let Some(upload) = uploads.get_mut(&self.name) else { return Err(RetryPolicy::abandoned_error()) };
        self.calls.wait_with_retries(async || upload.writer.write(part.clone()).await)?;
        upload.length += part.len() as u64;
        Ok(())
    }
}
