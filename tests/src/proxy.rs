//! A link with faults between agents and a server, on Unix sockets, at the level of bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// Faults of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Connections with a lower number than this are cut.
    cuts: u64,
    /// Bytes are accepted and lost, as if the other end were gone.
    pub is_half_open: bool,
    /// Delay of every piece of at most 64 KiB.
    pub delay: Duration,
    /// Bytes per second in each direction; `None`: no limit. Waiting bytes stay in the sender's socket.
    pub rate: Option<u32>,
}

/// Size of a read with a rate limit: small, so that the proxy itself buffers almost nothing.
const RATED_PIECE: usize = 4 << 10;

/// Agents connect to it instead of the server. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    faults: watch::Sender<Faults>,
    passed: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens at `address`, and forwards every connection to `server`, which may start later.
    pub fn listen(address: &Path, server: &Path) -> Self {
        let listener = UnixListener::bind(address).expect("the proxy can listen");
        let server = server.to_owned();
        let faults = watch::Sender::new(Faults::default());
        let (passed, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (news, all_passed, count) = (faults.clone(), passed.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&server).await else { continue };
                // A connection keeps the faults of its start, which are read before it is counted.
                let born = *news.borrow();
                count.fetch_add(1, Ordering::Relaxed);
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, born, news.subscribe(), all_passed.clone()));
                tokio::spawn(pass(far_in, near_out, born, news.subscribe(), Arc::default()));
            }
        });
        Self { faults, passed, connections, accepting }
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// Changes the faults.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }

    /// Forwarded bytes from agents.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Number of connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: Faults,
    mut faults: watch::Receiver<Faults>,
    passed: Arc<AtomicU64>,
) {
    let mut piece = vec![0; 64 << 10];
    let mut was_half_open = born.is_half_open;
    let mut news = faults.clone();
    let carry = async {
        loop {
            let most = if news.borrow().rate.is_some() { RATED_PIECE } else { piece.len() };
            let Ok(length @ 1..) = from.read(&mut piece[..most]).await else { return };
            let now = *news.borrow_and_update();
            was_half_open |= now.is_half_open;
            if was_half_open {
                // Bytes were lost, so this connection stays silent.
                continue;
            }
            let carrying = now.rate.map_or(0.0, |rate| length as f64 / f64::from(rate));
            tokio::time::sleep(now.delay + Duration::from_secs_f64(carrying)).await;
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
            passed.fetch_add(length as u64, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = carry => {}
        _ = faults.wait_for(|now| now.cuts > born.cuts) => {}
    }
}
