//! A link between clients and a server whose address may change. It can be cut, held or closed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// State of all connections.
#[derive(Debug, Clone, Copy, Default)]
struct Condition {
    /// Connections with a lower number than this are cut.
    cuts: u64,
    /// Bytes are held back and not lost.
    is_held: bool,
}

/// Clients connect to `address`, which stays the same across restarts of the server. Dropping it cuts everything.
#[derive(Debug)]
pub struct TcpRelay {
    /// Address for clients: `127.0.0.1:port`.
    pub address: String,
    target: Arc<Mutex<Option<String>>>,
    condition: watch::Sender<Condition>,
    accepting: tokio::task::JoinHandle<()>,
}

impl TcpRelay {
    /// Listens at a free port. Connections are closed at once while there is no target.
    ///
    /// # Errors
    /// No port is free.
    pub async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let condition = watch::Sender::new(Condition::default());
        let target = Arc::new(Mutex::new(None::<String>));
        let (changes, current) = (condition.clone(), target.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let target = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(target) = target else { continue };
                let Ok(far) = TcpStream::connect(&target).await else { continue };
                let born = changes.borrow().cuts;
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(pass(near_in, far_out, born, changes.subscribe()));
                tokio::spawn(pass(far_in, near_out, born, changes.subscribe()));
            }
        });
        Ok(Self { address, target, condition, accepting })
    }

    /// Sets the target of new connections. Without one they are closed at once.
    pub fn lead_to(&self, target: Option<String>) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.condition.send_modify(|condition| condition.cuts += 1);
    }

    /// Holds all bytes back.
    pub fn hold(&self) {
        self.condition.send_modify(|condition| condition.is_held = true);
    }

    /// Forwards bytes again.
    pub fn release(&self) {
        self.condition.send_modify(|condition| condition.is_held = false);
    }
}

impl Drop for TcpRelay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    born: u64,
    mut condition: watch::Receiver<Condition>,
) {
    let mut piece = vec![0; 64 << 10];
    let mut changes = condition.clone();
    let carry = async {
        loop {
            let Ok(length @ 1..) = from.read(&mut piece).await else { return };
            // An error means that the relay is gone. The other branch then ends this task.
            let _ = changes.wait_for(|now| !now.is_held).await;
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = carry => {}
        _ = condition.wait_for(|now| now.cuts > born) => {}
    }
}
