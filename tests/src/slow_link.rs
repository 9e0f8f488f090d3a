//! A TCP link with latency between clients and a server: bytes arrive later, in order, with the same bandwidth.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Clients connect to `address` as if it were the server.
#[derive(Debug)]
pub struct SlowLink {
    /// Address: `127.0.0.1:port`.
    pub address: String,
    swallows: Arc<AtomicBool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl SlowLink {
    /// Listens, and forwards every connection to `server` with `delay` in each direction.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn to(server: &str, delay: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, server) = (listener.local_addr()?.to_string(), server.parse::<SocketAddr>()?);
        let swallows = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallows);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(server).await else { continue };
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(carry(near_in, far_out, delay, Arc::default()));
                tokio::spawn(carry(far_in, near_out, delay, Arc::clone(&flag)));
            }
        });
        Ok(Self { address, swallows, accepting })
    }

    /// From now on bytes from the server are lost, as if the client died before they arrive.
    pub fn swallow_answers(&self, swallows: bool) {
        self.swallows.store(swallows, Ordering::Relaxed);
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Forwards pieces and the end, each `delay` after it arrived.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration, swallows: Arc<AtomicBool>) {
    let mut under_way: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut piece = vec![0; 64 << 10];
    let mut is_open = true;
    while is_open || !under_way.is_empty() {
        let due = under_way.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut piece), if is_open => {
                let length = read.unwrap_or(0);
                is_open = length > 0;
                if !swallows.load(Ordering::Relaxed) {
                    under_way.push_back((Instant::now() + delay, piece[..length].to_vec()));
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (_, bytes) = under_way.pop_front().unwrap_or_else(|| (Instant::now(), Vec::new()));
                if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
