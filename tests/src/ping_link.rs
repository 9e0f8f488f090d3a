//! A link between clients and a server that counts connections, pings and GOAWAY frames.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that a client sends before its first frame.
const PREFACE: usize = 24;
/// Bytes before the payload of a frame.
const HEADER: usize = 9;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
/// Flag of a ping that answers one.
const ACK: u8 = 1;

/// Number of events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Connections of clients.
    pub connections: u32,
    /// Pings of clients, without answers.
    pub pings: u32,
    /// GOAWAY frames of the server.
    pub goaways: u32,
}

/// Clients connect to `address` as if it were the server.
#[derive(Debug)]
pub struct PingLink {
    /// Address: `127.0.0.1:port`.
    pub address: String,
    seen: watch::Sender<Seen>,
    accepting: tokio::task::JoinHandle<()>,
}

impl PingLink {
    /// Listens, and forwards every connection to `server`.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn to(server: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, server) = (listener.local_addr()?.to_string(), server.to_owned());
        let seen = watch::Sender::new(Seen::default());
        let counts = seen.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&server).await else { continue };
                counts.send_modify(|seen| seen.connections += 1);
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let requests = Frames::after(PREFACE);
                tokio::spawn(carry(near_in, far_out, requests, note_of_client, counts.clone()));
                tokio::spawn(carry(far_in, near_out, Frames::after(0), note_of_server, counts.clone()));
            }
        });
        Ok(Self { address, seen, accepting })
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }
}

impl Drop for PingLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn note_of_client(seen: &mut Seen, frame: Frame) {
    if frame.kind == PING && frame.flags & ACK == 0 {
        seen.pings += 1;
    }
}

fn note_of_server(seen: &mut Seen, frame: Frame) {
    if frame.kind == GOAWAY {
        seen.goaways += 1;
    }
}

/// Forwards bytes until the end of one side, and notes each frame.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frames: Frames,
    note: fn(&mut Seen, Frame),
    seen: watch::Sender<Seen>,
) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        for frame in frames.begun_in(&piece[..length]) {
            seen.send_modify(|seen| note(seen, frame));
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

/// Type and flags of an HTTP/2 frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
}

/// Finds the headers of frames in a stream of bytes.
struct Frames {
    /// Bytes before the next header.
    skip: usize,
    header: [u8; HEADER],
    /// Bytes of the header that have arrived.
    filled: usize,
}

impl Frames {
    /// Of a stream whose first frame begins after so many bytes.
    fn after(skip: usize) -> Self {
        Self { skip, header: [0; HEADER], filled: 0 }
    }

    /// The frames whose headers end in these bytes, which are the next ones of the stream.
    fn begun_in(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEADER {
                let [high, middle, low, kind, flags, ..] = self.header;
                self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.filled = 0;
                found.push(Frame { kind, flags });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let mut bytes = vec![0; PREFACE];
        // SETTINGS without a payload, a ping, and its answer.
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        for flags in [0, ACK] {
            bytes.extend([0, 0, 8, PING, flags, 0, 0, 0, 0]);
            bytes.extend([9; 8]);
        }
        let expected = [(4, 0), (PING, 0), (PING, ACK)].map(|(kind, flags)| Frame { kind, flags });
        for size in 1..=bytes.len() {
            let mut frames = Frames::after(PREFACE);
            let found: Vec<_> = bytes.chunks(size).flat_map(|piece| frames.begun_in(piece)).collect();
            assert_eq!(found, expected, "pieces of {size} bytes");
        }
    }
}
