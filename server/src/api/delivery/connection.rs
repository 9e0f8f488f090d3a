//! A client's connection, as far as delivery depends on it: how it ended, and whether the client reset a stream.
//! The HTTP/2 library tells a server of neither, so the frames that come are looked at on their way in.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client said that it leaves, and left.
    Good,
    /// Any other way: a client that was killed ends its connection, too.
    Bad,
}

/// What was seen of a connection so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// Streams that the client reset.
    pub(super) resets: u64,
    /// The first end that was seen.
    pub(super) end: Option<(End, Instant)>,
    says_goodbye: bool,
}

/// A client's connection.
#[derive(Debug, Default)]
pub(in crate::api) struct Connection {
    seen: Mutex<Seen>,
}

impl Connection {
    pub(super) fn seen(&self) -> Seen {
        *self.lock()
    }

    pub(super) fn note_reset(&self) {
        self.lock().resets += 1;
    }

    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert_with(|| (end, Instant::now()));
    }

    /// Nothing more comes.
    fn end_of_stream(&self) {
        let end = if self.lock().says_goodbye { End::Good } else { End::Bad };
        self.end(end);
    }

    fn note(&self, frame: FrameType) {
        match frame {
            FrameType::Reset => self.note_reset(),
            FrameType::GoAway => self.lock().says_goodbye = true,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Frames that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameType {
    Reset,
    GoAway,
}

/// What an HTTP/2 client sends before its frames.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

/// Finds frames in the bytes of a client, however they are cut.
#[derive(Debug, Default)]
struct FrameWatch {
    /// Bytes of the preface that were met, or of no HTTP/2 at all: then there is no good end, and no frame.
    preface: usize,
    is_foreign: bool,
    header: [u8; HEADER_BYTES],
    filled: usize,
    /// Bytes of a payload that are still to come.
    skip: usize,
}

impl FrameWatch {
    fn take(&mut self, mut bytes: &[u8], mut see: impl FnMut(FrameType)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.is_foreign {
                return;
            }
            if self.preface < PREFACE.len() {
                self.is_foreign = byte != PREFACE[self.preface];
                self.preface += 1;
                bytes = rest;
            } else if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
            } else {
                self.header[self.filled] = byte;
                self.filled += 1;
                bytes = rest;
                if self.filled == HEADER_BYTES {
                    self.filled = 0;
                    let [high, middle, low, kind, ..] = self.header;
                    self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                    match kind {
                        3 => see(FrameType::Reset),
                        7 => see(FrameType::GoAway),
                        _ => {}
                    }
                }
            }
        }
    }
}

/// A stream that notes what matters of it.
pub(in crate::api) struct TrackedStream<S> {
    inner: S,
    connection: Arc<Connection>,
    watch: FrameWatch,
}

impl<S> TrackedStream<S> {
    pub(in crate::api) fn new(inner: S) -> Self {
        Self { inner, connection: Arc::default(), watch: FrameWatch::default() }
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.connection.end(End::Bad);
        }
        polled
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
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let connection = &this.connection;
            let read = buffer.filled().get(before..).unwrap_or_default();
            if read.is_empty() && buffer.remaining() > 0 {
                connection.end_of_stream();
            }
            this.watch.take(read, |frame| connection.note(frame));
        }
        this.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.note(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(context);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(context);
        self.note(polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn seen(bytes: &[u8], piece: usize) -> Vec<FrameType> {
        let (mut watch, mut found) = (FrameWatch::default(), Vec::new());
        for part in bytes.chunks(piece) {
            watch.take(part, |kind| found.push(kind));
        }
        found
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let settings = frame(4, &[]);
        // A payload that looks like a frame.
        let data = frame(0, &frame(3, &[0; 4]));
        let bytes = [PREFACE, &settings, &data, &frame(3, &[0, 0, 0, 8]), &data, &frame(7, &[0; 8])].concat();
        for piece in 1..=bytes.len() {
            assert_eq!(seen(&bytes, piece), [FrameType::Reset, FrameType::GoAway], "in pieces of {piece}");
        }
        assert_eq!(seen(b"GET / HTTP/1.1\r\n\r\n\x07\x07\x07", 5), []);
    }

    #[tokio::test]
    async fn an_end_is_good_only_after_the_client_said_that_it_leaves() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for (last, end) in [(frame(4, &[]), End::Bad), (frame(7, &[0; 8]), End::Good)] {
            let (mut client, server) = tokio::io::duplex(1000);
            let mut server = TrackedStream::new(server);
            client.write_all(&[PREFACE, &last].concat()).await.unwrap();
            drop(client);
            server.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(server.connect_info().seen().end.unwrap().0, end);
        }
    }
}
