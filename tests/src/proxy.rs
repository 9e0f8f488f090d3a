//! A link that misbehaves: between agents and a server, on Unix sockets, byte for byte.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Connections of an earlier number than this are cut.
    cuts: u64,
    /// Bytes are taken and go nowhere, as on a link whose other end is gone.
    pub is_half_open: bool,
    /// Every piece of at most 64 KiB waits for this long.
    pub delay: Duration,
    /// Bytes a second in each direction; `None`: no limit. What waits is in the socket of who sends.
    pub rate: Option<u32>,
}

/// Read at once where there is a rate, so that the proxy itself holds next to nothing.
const RATED_PIECE: usize = 4 << 10;

/// Agents connect to it as if it were the server. Dropping it cuts everything.
#[derive(Debug)]
pub struct Proxy {
    weather: watch::Sender<Weather>,
    passed: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens at `address`; every connection goes on to `server`, which need not be there yet.
    pub fn listen(address: &Path, server: &Path) -> Self {
        let listener = UnixListener::bind(address).expect("the proxy can listen");
        let server = server.to_owned();
        let weather = watch::Sender::new(Weather::default());
        let (passed, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (news, all_passed, count) = (weather.clone(), passed.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = UnixStream::connect(&server).await else { continue };
                // The weather a connection is born into is its own: read before anyone can count it.
                let born = *news.borrow();
                count.fetch_add(1, Ordering::Relaxed);
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, born, news.subscribe(), all_passed.clone()));
                tokio::spawn(pass(far_in, near_out, born, news.subscribe(), Arc::default()));
            }
        });
        Self { weather, passed, connections, accepting }
    }

    /// Cuts every connection, wherever it is.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Changes the weather.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Bytes from agents that were passed on.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Connections that were made so far.
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
    born: Weather,
    mut weather: watch::Receiver<Weather>,
    passed: Arc<AtomicU64>,
) {
    let mut piece = vec![0; 64 << 10];
    let mut was_half_open = born.is_half_open;
    let mut news = weather.clone();
    let carry = async {
        loop {
            let most = if news.borrow().rate.is_some() { RATED_PIECE } else { piece.len() };
            let Ok(length @ 1..) = from.read(&mut piece[..most]).await else { return };
            let now = *news.borrow_and_update();
            was_half_open |= now.is_half_open;
            if was_half_open {
                // What is lost is lost: this connection stays silent for ever.
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
        _ = weather.wait_for(|now| now.cuts > born.cuts) => {}
    }
}
