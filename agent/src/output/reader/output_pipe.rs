//! An output stream of the command: its pipe, its records, and the copy for the agent's own stream.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::{BufMut as _, Bytes, BytesMut};
use sqlflow_proto::record::output::Stream;
use sqlflow_proto::record::{Gap, Output, gap, record::Payload};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::CHUNK;
use crate::output::link::Link;
use crate::output::progress::ProgressLines;
use crate::output::tee::{Tee, TeeMode};

/// Maximum length of a line that is appended to the output.
pub(super) const LONGEST_LINE: usize = 4 << 10;
/// Minimum room in a block; with less, a new one is allocated.
const WORTHWHILE: usize = 8 << 10;

/// One of the command's output streams.
#[derive(Debug)]
pub struct OutputPipe {
    /// `None` after its end.
    pub(super) pipe: Option<pipe::Receiver>,
    stream: Stream,
    offset: u64,
    block: BytesMut,
    tee: Option<Tee>,
    /// For a tee in line mode.
    progress: Option<ProgressLines>,
    /// Dropped bytes without a gap record yet.
    dropped: u64,
    /// The output so far ends within a line.
    is_mid_line: bool,
}

impl OutputPipe {
    /// # Errors
    /// `pipe` is not a pipe, or cannot be made non-blocking.
    pub fn new(pipe: OwnedFd, stream: Stream, tee: Option<Tee>, mode: TeeMode) -> io::Result<Self> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let progress = (mode == TeeMode::Lines).then(|| ProgressLines::new(Instant::now()));
        Ok(Self {
            pipe: Some(pipe),
            stream,
            offset: 0,
            block: BytesMut::new(),
            tee,
            progress,
            dropped: 0,
            is_mid_line: false,
        })
    }

    /// Reads once, and records or drops the bytes. Returns their number; 0: nothing is there now.
    pub(super) async fn turn(&mut self, link: &Link, drops: bool, stop: &mut watch::Receiver<bool>) -> usize {
        if self.is_held() && !*stop.borrow() {
            return 0;
        }
        let Some(pipe) = &self.pipe else { return 0 };
        if self.block.capacity() < WORTHWHILE {
            self.block = BytesMut::with_capacity(CHUNK);
        }
        match pipe.try_read_buf(&mut (&mut self.block).limit(CHUNK)) {
            Ok(0) => self.pipe = None,
            Ok(read) => {
                let data = self.block.split().freeze();
                self.take(data, drops, link, stop).await;
                return read;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::error!(%error, stream = ?self.stream, "cannot read the command's output");
                self.pipe = None;
            }
        }
        0
    }

    /// Records or drops output.
    async fn take(&mut self, data: Bytes, drops: bool, link: &Link, stop: &mut watch::Receiver<bool>) {
        let count = data.len() as u64;
        self.is_mid_line = data.last().is_some_and(|byte| *byte != b'\n');
        self.repeat(data.clone(), link, stop).await;
        if drops {
            self.dropped += count;
        } else {
            self.record_dropped(link);
            let output = Output { stream: self.stream.into(), offset: self.offset, data };
            link.outbox.push_output(Payload::Output(output));
        }
        self.offset += count;
    }

    /// Appends a line, at most [`LONGEST_LINE`] bytes of it, as if the command had written it.
    pub(super) async fn append_line(&mut self, line: &str, link: &Link, stop: &mut watch::Receiver<bool>) {
        let line = &line[..line.floor_char_boundary(LONGEST_LINE)];
        let begin = if self.is_mid_line { "\n" } else { "" };
        self.take(format!("{begin}{line}\n").into(), false, link, stop).await;
    }

    /// Whether the reader of the agent's own stream is slow, so that the command waits at this pipe.
    fn is_held(&self) -> bool {
        self.tee.as_ref().is_some_and(Tee::holds)
    }

    /// Copies output to the agent's own stream.
    async fn repeat(&mut self, data: Bytes, link: &Link, stop: &mut watch::Receiver<bool>) {
        let data = match &mut self.progress {
            Some(progress) => progress.push(&data, Instant::now()).into(),
            None => data,
        };
        self.show(data, link, stop).await;
    }

    /// Shows the state of a progress bar without new output.
    pub(super) async fn show_progress(&mut self, link: &Link, stop: &mut watch::Receiver<bool>) {
        if let Some(progress) = &mut self.progress {
            let state = progress.flush(Instant::now());
            self.show(state.into(), link, stop).await;
        }
    }

    /// A stuck reader there does not delay the records of the last bytes.
    async fn show(&mut self, data: Bytes, link: &Link, stop: &mut watch::Receiver<bool>) {
        let Some(tee) = self.tee.as_ref().filter(|_| !data.is_empty()) else { return };
        tokio::select! {
            biased;
            () = tee.room() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        tee.pass(data);
        if let Some(failure) = tee.failure() {
            link.outbox.warn(failure);
        }
        if tee.is_over() {
            self.pipe = None;
        }
    }

    /// Waits until that is due.
    pub(super) async fn progress_due(&self) {
        match self.progress.as_ref().filter(|_| !self.is_held()).and_then(ProgressLines::due) {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn record_dropped(&mut self, link: &Link) {
        if self.dropped > 0 {
            let bytes = Some(std::mem::take(&mut self.dropped));
            link.outbox.push_output(Payload::Gap(Gap { reason: gap::Reason::SpoolFull.into(), bytes }));
        }
    }

    pub(super) async fn readable(&self) {
        match (&self.pipe, &self.tee) {
            (Some(_), Some(tee)) if tee.holds() => tee.room().await,
            (Some(pipe), _) => {
                // An error shows at the read.
                let _ = pipe.readable().await;
            }
            (None, _) => std::future::pending().await,
        }
    }
}
