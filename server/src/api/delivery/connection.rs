//! Delivery facts about a client's connection: how it ended, whether the client reset a stream, and what it received.
//! The HTTP/2 library reports none of these to a server, so this module parses the frames in both directions.
//!
//! A PING after the last frame of a page asks for a receipt: frames are read in order, so a client that acknowledges
//! it has read the page. Both leave in one write, since a client that closes its connection after the page may not
//! read further. The HTTP/2 library ignores the acknowledgement of a PING that it did not send.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::frames::{Frame, FrameKind, FrameWatch, PING_BYTES};
use crate::access::Peer;

use sqlflow_sync::lock;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client announced its end (GOAWAY), and closed.
    Good,
    /// Any other way; a killed client's connection ends, too.
    Bad,
}

/// Number of a receipt on its connection, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Receipt(pub(super) u32);

/// Observations of a connection so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Number of streams that the client reset.
    pub(super) resets: u64,
    /// The first end that was observed.
    pub(super) end: Option<(End, Instant)>,
    /// The newest receipt before the client's GOAWAY: afterwards it may read without delivering.
    pub(super) received: Receipt,
    /// The newest receipt that was requested.
    asked: Receipt,
    /// A page was written since then.
    is_receipt_due: bool,
    says_goodbye: bool,
}

/// A client's connection.
#[derive(Debug, Default)]
pub(in crate::api) struct Connection {
    seen: Mutex<Seen>,
    /// The client.
    peer: Arc<Peer>,
}

impl Connection {
    /// The client.
    pub(in crate::api) fn peer(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }

    pub(super) fn seen(&self) -> Seen {
        *self.lock()
    }

    pub(super) fn note_reset(&self) {
        self.lock().resets += 1;
    }

    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert_with(|| (end, Instant::now()));
    }

    /// A page was written, and its stream is still open. Returns the receipt that will prove it.
    pub(super) fn page_written(&self) -> Receipt {
        let mut seen = self.lock();
        seen.is_receipt_due = true;
        seen.asked.next()
    }

    /// The receipt to request now, if one is due.
    fn due(&self) -> Option<Receipt> {
        let seen = self.lock();
        seen.is_receipt_due.then(|| seen.asked.next())
    }

    fn asked(&self, receipt: Receipt) {
        let mut seen = self.lock();
        seen.asked = receipt;
        seen.is_receipt_due = false;
    }

    pub(super) fn received(&self, receipt: Receipt) {
        let mut seen = self.lock();
        if !seen.says_goodbye {
            seen.received = seen.received.max(receipt);
        }
    }

    /// The connection has ended.
    fn end_of_stream(&self) {
        let end = if self.lock().says_goodbye { End::Good } else { End::Bad };
        self.end(end);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Receipt {
    /// First bytes of the payload of a PING that requests a receipt.
    const MARK: [u8; 4] = *b"page";

    fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    fn ping(self) -> [u8; PING_BYTES] {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&Self::MARK);
        payload[4..].copy_from_slice(&self.0.to_be_bytes());
        Frame::ping(payload)
    }

    fn of_payload(payload: [u8; 8]) -> Option<Self> {
        let number = payload.strip_prefix(&Self::MARK)?;
        Some(Self(u32::from_be_bytes(number.try_into().ok()?)))
    }
}

/// A stream that records delivery facts, and requests receipts.
pub(in crate::api) struct TrackedStream<S> {
    inner: S,
    connection: Arc<Connection>,
    incoming: FrameWatch,
    outgoing: FrameWatch,
    /// Streams that the client opened, and whose last frame is not written.
    open: BTreeSet<u32>,
    /// The newest stream that the client opened.
    newest: u32,
    /// Remaining bytes of a PING.
    ping: Vec<u8>,
}

impl<S> TrackedStream<S> {
    pub(in crate::api) fn new(inner: S, peer: Peer) -> Self {
        let connection = Connection { seen: Mutex::default(), peer: Arc::new(peer) };
        Self {
            inner,
            connection: Arc::new(connection),
            incoming: FrameWatch::of_client(),
            outgoing: FrameWatch::of_server(),
            open: BTreeSet::new(),
            newest: 0,
            ping: Vec::new(),
        }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.connection.end(End::Bad);
        }
        polled
    }

    fn note_read(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.incoming.next(&mut bytes) {
            match frame.kind {
                FrameKind::Headers { .. } if frame.stream > self.newest => {
                    self.newest = frame.stream;
                    self.open.insert(frame.stream);
                }
                FrameKind::Reset => {
                    self.open.remove(&frame.stream);
                    self.connection.note_reset();
                }
                FrameKind::GoAway => self.connection.lock().says_goodbye = true,
                FrameKind::PingAck(payload) => {
                    if let Some(receipt) = Receipt::of_payload(payload) {
                        self.connection.received(receipt);
                    }
                }
                FrameKind::Headers { .. }
                | FrameKind::Data { .. }
                | FrameKind::Ping(_)
                | FrameKind::Other => {}
            }
        }
    }

    /// This many bytes of the slices were written.
    fn note_written(&mut self, slices: &[IoSlice<'_>], mut count: usize) {
        for slice in slices {
            let mut bytes = &slice[..count.min(slice.len())];
            count -= bytes.len();
            while let Some(frame) = self.outgoing.next(&mut bytes) {
                if frame.ends_stream() {
                    self.open.remove(&frame.stream);
                }
            }
        }
    }

    /// Number of bytes up to the end of all open streams.
    fn until_all_ended(&self, slices: &[IoSlice<'_>]) -> Option<usize> {
        let (mut watch, mut open, mut before) = (self.outgoing.clone(), self.open.clone(), 0);
        for slice in slices {
            let mut bytes = &**slice;
            while let Some(frame) = watch.next(&mut bytes) {
                if frame.ends_stream() && open.remove(&frame.stream) && open.is_empty() {
                    return Some(before + slice.len() - bytes.len());
                }
            }
            before += slice.len();
        }
        None
    }
}

impl<S: AsyncWrite + Unpin> TrackedStream<S> {
    fn poll_write_slices(
        &mut self,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_ping(context))?;
        let due = self.connection.due();
        let Some((receipt, end)) = due.and_then(|it| Some((it, self.until_all_ended(slices)?))) else {
            let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, slices))?;
            self.note_written(slices, count);
            return Poll::Ready(Ok(count));
        };
        let ping = receipt.ping();
        let (mut both, mut left) = (Vec::with_capacity(slices.len() + 1), end);
        for slice in slices {
            both.push(IoSlice::new(&slice[..left.min(slice.len())]));
            left -= left.min(slice.len());
        }
        both.push(IoSlice::new(&ping));
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &both))?;
        self.note_written(slices, count.min(end));
        if count >= end {
            self.connection.asked(receipt);
            self.ping = ping[count - end..].to_vec();
        }
        Poll::Ready(Ok(count.min(end)))
    }

    /// Writes the remaining bytes of a PING.
    fn poll_ping(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.ping.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, &self.ping))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ping.drain(..count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for TrackedStream<S> {
    fn drop(&mut self) {
        self.connection.end(End::Bad);
    }
}

impl<S> Connected for TrackedStream<S> {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let read = buffer.filled().get(before..).unwrap_or_default();
            if read.is_empty() && buffer.remaining() > 0 {
                self.connection.end_of_stream();
            }
            self.note_read(read);
        }
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll_write_slices(context, &[IoSlice::new(bytes)]);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll_write_slices(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut polled = self.poll_ping(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            polled = Pin::new(&mut self.inner).poll_flush(context);
        }
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.note(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::{PREFACE, tests::frame};
    use super::*;

    #[tokio::test]
    async fn clean_end_requires_goaway() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for (last, end) in [(frame(4, 0, 0, &[]), End::Bad), (frame(7, 0, 0, &[0; 8]), End::Good)] {
            let (mut client, server) = tokio::io::duplex(1000);
            let mut server = TrackedStream::new(server, Peer::default());
            client.write_all(&[PREFACE, &last].concat()).await.unwrap();
            drop(client);
            server.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(server.connect_info().seen().end.unwrap().0, end);
        }
    }

    /// What a client reads if these frames are written in pieces, after it opened two streams and a page was written.
    async fn written(frames: &[Vec<u8>], piece: usize) -> Vec<u8> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut client, server) = tokio::io::duplex(1000);
        let mut server = TrackedStream::new(server, Peer::default());
        let opened = [PREFACE, &frame(1, 4, 1, &[0]), &frame(1, 5, 3, &[0])].concat();
        client.write_all(&opened).await.unwrap();
        server.read_exact(&mut vec![0; opened.len()]).await.unwrap();
        assert_eq!(server.connection.page_written(), Receipt(1));
        for part in frames.concat().chunks(piece) {
            server.write_all(part).await.unwrap();
        }
        server.flush().await.unwrap();
        drop(server);
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        read
    }

    #[tokio::test]
    async fn receipt_is_requested_once_between_frames() {
        let (data, end, other) = (frame(0, 0, 1, &[7; 20]), frame(1, 5, 1, &[0]), frame(0, 1, 3, &[]));
        let frames = [data, end, other, frame(4, 1, 0, &[]), frame(0, 1, 5, &[])];
        let ping = Receipt(1).ping();
        let expected = [&frames[..3].concat()[..], &ping, &frames[3..].concat()[..]].concat();
        for piece in 1..=frames.concat().len() {
            assert_eq!(written(&frames, piece).await, expected, "in pieces of {piece}");
        }
        let open = written(&frames[..2], 1000).await;
        assert_eq!(open, frames[..2].concat(), "a stream is still open: it may be the page's");
    }

    #[test]
    fn receipt_counts_only_before_goaway() {
        let connection = Connection::default();
        connection.received(Receipt(1));
        connection.lock().says_goodbye = true;
        connection.received(Receipt(2));
        assert_eq!(connection.seen().received, Receipt(1));
    }
}
