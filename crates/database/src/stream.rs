//! The connection to a server: TCP or a Unix socket, perhaps with TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};
use sqlflow_data_source::Keepalives;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A socket, with a deadline while the connection is opened.
#[derive(Debug)]
pub(crate) struct Socket {
    inner: Inner,
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects until the deadline.
    pub(crate) fn open(
        endpoint: &Endpoint,
        keepalives: &Keepalives,
        deadline: Option<Instant>,
    ) -> io::Result<Self> {
        let inner = match endpoint {
            Endpoint::Unix(path) => Inner::Unix(UnixStream::connect(path)?),
            Endpoint::Tcp(address) => {
                let tcp = match deadline {
                    None => TcpStream::connect(address)?,
                    Some(deadline) => TcpStream::connect_timeout(address, remaining(deadline)?)?,
                };
                tcp.set_nodelay(true)?;
                keep_alive(&tcp, keepalives)?;
                Inner::Tcp(tcp)
            }
        };
        Ok(Self { inner, deadline })
    }

    /// Connects to the first address that responds. Each has its share of the time, so that one that does not respond
    /// leaves some to the next.
    pub(crate) fn open_first(
        addresses: &[SocketAddr],
        keepalives: &Keepalives,
        deadline: Instant,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for (place, address) in addresses.iter().enumerate() {
            let untried = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
            let share = remaining(deadline)? / untried;
            match Self::open(&Endpoint::Tcp(*address), keepalives, Some(Instant::now() + share)) {
                Ok(socket) => return Ok(Self { deadline: Some(deadline), ..socket }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Another handle of the connection, which can end it.
    pub(crate) fn handle(&self) -> io::Result<Self> {
        let inner = match &self.inner {
            Inner::Tcp(tcp) => Inner::Tcp(tcp.try_clone()?),
            Inner::Unix(unix) => Inner::Unix(unix.try_clone()?),
        };
        Ok(Self { inner, deadline: None })
    }

    /// Ends the connection. Reads that block return.
    pub(crate) fn shut_down(&self) {
        let _ = match &self.inner {
            Inner::Tcp(tcp) => tcp.shutdown(Shutdown::Both),
            Inner::Unix(unix) => unix.shutdown(Shutdown::Both),
        };
    }

    fn is_readable_within(&self, time: Duration) -> bool {
        let descriptor = match &self.inner {
            Inner::Tcp(tcp) => tcp.as_fd(),
            Inner::Unix(unix) => unix.as_fd(),
        };
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        // After an error, a read tells what is wrong.
        poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], timeout) != Ok(0)
    }

    /// Removes the deadline.
    fn remove_deadline(&mut self) -> io::Result<()> {
        self.deadline = None;
        self.set_timeouts(None)
    }

    /// Sets the time after which a read fails, if there is no deadline.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match &self.inner {
            Inner::Tcp(tcp) => tcp.set_read_timeout(Some(timeout)),
            Inner::Unix(unix) => unix.set_read_timeout(Some(timeout)),
        }
    }

    /// Whether it is a Unix socket.
    pub(crate) const fn is_unix(&self) -> bool {
        matches!(self.inner, Inner::Unix(_))
    }

    fn set_timeouts(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.inner {
            Inner::Tcp(tcp) => tcp.set_read_timeout(timeout).and_then(|()| tcp.set_write_timeout(timeout)),
            Inner::Unix(unix) => {
                unix.set_read_timeout(timeout).and_then(|()| unix.set_write_timeout(timeout))
            }
        }
    }

    /// Before each operation, because a server may send one byte at a time.
    fn apply_deadline(&self) -> io::Result<()> {
        match self.deadline {
            None => Ok(()),
            Some(deadline) => self.set_timeouts(Some(remaining(deadline)?)),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.apply_deadline()?;
        timed(match &mut self.inner {
            Inner::Tcp(tcp) => tcp.read(buffer),
            Inner::Unix(unix) => unix.read(buffer),
        })
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.apply_deadline()?;
        timed(match &mut self.inner {
            Inner::Tcp(tcp) => tcp.write(bytes),
            Inner::Unix(unix) => unix.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, perhaps with TLS.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    /// Performs the TLS handshake, until the socket's deadline.
    pub(crate) fn encrypt(
        mut socket: Socket,
        configuration: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let mut connection = ClientConnection::new(configuration, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, socket))))
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Whether bytes arrive in this time, or the connection ends.
    pub(crate) fn is_readable_within(&mut self, time: Duration) -> bool {
        match self {
            Self::Plain(socket) => socket.is_readable_within(time),
            Self::Tls(tls) => {
                let state = tls.conn.process_new_packets();
                state.is_ok_and(|it| it.plaintext_bytes_to_read() > 0) || tls.sock.is_readable_within(time)
            }
        }
    }

    /// Removes the deadline for opening the connection.
    pub(crate) fn remove_deadline(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.remove_deadline(),
            Self::Tls(tls) => tls.sock.remove_deadline(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

fn keep_alive(tcp: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    if keepalives.enabled {
        let mut settings = TcpKeepalive::new();
        if let Some(idle) = keepalives.idle {
            settings = settings.with_time(idle);
        }
        if let Some(interval) = keepalives.interval {
            settings = settings.with_interval(interval);
        }
        if let Some(count) = keepalives.count {
            settings = settings.with_retries(count);
        }
        socket.set_tcp_keepalive(&settings)?;
    }
    match keepalives.user_timeout {
        Some(timeout) => socket.set_tcp_user_timeout(Some(timeout)),
        None => Ok(()),
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A socket whose timeout expired says that it would block.
fn timed<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const KEEPALIVES: Keepalives =
        Keepalives { enabled: false, idle: None, interval: None, count: None, user_timeout: None };

    /// An address that does not respond: the queue of its listener is full.
    fn silent() -> (Vec<TcpStream>, TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        (std::iter::from_fn(connect).collect(), listener, address)
    }

    #[test]
    fn address_that_does_not_respond_leaves_time_to_the_next() {
        let (_queued, _listener, silent) = silent();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [silent, listener.local_addr().unwrap()];
        let open = |addresses: &[SocketAddr], time| {
            Socket::open_first(addresses, &KEEPALIVES, Instant::now() + Duration::from_millis(time))
        };
        assert!(!open(&addresses, 2000).unwrap().is_unix());
        assert_eq!(open(&addresses[..1], 100).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(open(&[], 100).unwrap_err().to_string(), "the host has no address");
    }
}
