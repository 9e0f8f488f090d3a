//! Listeners for clients: a TCP port, with or without TLS, and a Unix socket. A connection is served once it is known
//! who its other end is: the user of a local process, or the holder of a client certificate.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use sqlflow_identity::{Principal, local_user, loopback};
use sqlflow_tls::server::ServerTls;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::delivery::TrackedStream;
use crate::access::{CertifiedStream, LocalUsers, Peer};
use crate::connections::{self, LimitedConnection, MAX_UNADMITTED, Unadmitted};

/// Where clients connect.
pub struct ClientListener {
    /// The port, if there is one.
    pub tcp: Option<TcpListener>,
    /// TLS of the port.
    pub tls: Option<Arc<ServerTls>>,
    /// For clients on this machine.
    pub socket: Option<ClientSocket>,
}

/// A Unix socket, which is removed with this.
pub struct ClientSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// A socket's file, which is removed with this unless another server has replaced it.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// A client's connection.
pub(super) enum ClientStream {
    Tcp(TcpStream),
    Tls(Box<CertifiedStream>),
    Unix(UnixStream),
}

type Connected = Unadmitted<(ClientStream, Peer)>;

impl ClientListener {
    /// Connections whose other ends are identified, as far as that is possible.
    pub(super) fn connections(
        self,
        users: Arc<LocalUsers>,
    ) -> impl Stream<Item = io::Result<LimitedConnection<TrackedStream<ClientStream>>>> + Send {
        let Self { tcp, tls, socket } = self;
        let of_port: BoxStream<'static, Connected> = match tcp {
            None => stream::pending().boxed(),
            Some(tcp) => of_port(tcp, tls, Arc::clone(&users)).boxed(),
        };
        let of_socket: BoxStream<'static, Connected> = match socket {
            None => stream::pending().boxed(),
            Some(socket) => of_socket(socket, users).boxed(),
        };
        stream::select(of_port, of_socket).map(|connection| {
            Ok(LimitedConnection::new(connection.map(|(stream, peer)| TrackedStream::new(stream, peer))))
        })
    }
}

fn of_port(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    users: Arc<LocalUsers>,
) -> impl Stream<Item = Connected> + Send {
    let identified = move |connection: Unadmitted<TcpStream>| {
        let (tls, users) = (tls.clone(), Arc::clone(&users));
        async move {
            // Small answers must not wait for more to say.
            let _ = connection.stream().set_nodelay(true);
            let peer = peer_of(connection.stream(), &users).await;
            let Some(tls) = tls else {
                return Some(connection.map(|stream| (ClientStream::Tcp(stream), peer)));
            };
            // A peer that does not complete it is not an error of this server.
            let connection = connection.try_map(|stream| CertifiedStream::accept(stream, peer, &tls)).await?;
            Some(connection.map(|(stream, peer)| (ClientStream::Tls(Box::new(stream)), peer)))
        }
    };
    // A slow handshake delays nobody else's.
    connections::unadmitted(Arc::new(listener), "clients")
        .map(identified)
        .buffer_unordered(2 * MAX_UNADMITTED)
        .filter_map(std::future::ready)
}

fn of_socket(socket: ClientSocket, users: Arc<LocalUsers>) -> impl Stream<Item = Connected> + Send {
    let ClientSocket { listener, file } = socket;
    let identified = move |connection: Unadmitted<UnixStream>| {
        // It lives as long as this.
        let _ = &file;
        let users = Arc::clone(&users);
        async move {
            let principal = match connection.stream().peer_cred() {
                Ok(credentials) if local_user::is_one_user(credentials.uid()) => {
                    users.of(credentials.uid()).await
                }
                Ok(_) | Err(_) => None,
            };
            connection.map(|stream| (ClientStream::Unix(stream), Peer { principal, address: None }))
        }
    };
    // A user whose name is looked up for long delays nobody else.
    let connections = connections::unadmitted(Arc::new(listener), "local clients");
    connections.map(identified).buffer_unordered(2 * MAX_UNADMITTED)
}

/// The other end of a connection, with the user if it is on this machine.
pub(crate) async fn peer_of(stream: &TcpStream, users: &LocalUsers) -> Peer {
    let address = stream.peer_addr().ok().map(|it| it.ip().to_canonical());
    Peer { principal: user_behind(stream, users).await, address }
}

/// The user whose process is at the other end, if that is on this machine.
async fn user_behind(stream: &TcpStream, users: &LocalUsers) -> Option<Principal> {
    let (client, server) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    match loopback::user_of(client, server) {
        Ok(uid) => users.of(uid.filter(|uid| local_user::is_one_user(*uid))?).await,
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell which user connects");
            None
        }
    }
}

impl ClientSocket {
    /// Listens on a socket at this path, for this user only. `None`: another server listens there.
    ///
    /// # Errors
    /// It cannot be created, or there is another kind of file.
    pub fn bind(path: &Path) -> io::Result<Option<Self>> {
        use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it is a file and no socket"));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => return Ok(None),
            // Nobody listens there any more.
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        // It gets its name when nobody else can connect any more.
        let new = path.with_extension(format!("{:016x}", rand::random::<u64>()));
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::metadata(&new)?.ino();
        std::fs::rename(&new, path)?;
        Ok(Some(Self { listener, file: SocketFile { path: path.to_owned(), inode } }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        use std::os::unix::fs::MetadataExt as _;
        if std::fs::symlink_metadata(&self.path).is_ok_and(|it| it.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn socket_is_for_its_user_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sqlflow/server.sock");
        let socket = ClientSocket::bind(&path).unwrap().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert!(ClientSocket::bind(&path).unwrap().is_none(), "it is in use");
        drop(socket);
        assert!(!path.exists());
        // One that a killed server left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = ClientSocket::bind(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        let other = ClientSocket::bind(&path).unwrap().unwrap();
        drop(socket);
        assert!(path.exists(), "it is another server's");
        drop(other);
        std::fs::write(&path, "data").unwrap();
        assert!(ClientSocket::bind(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }
}
