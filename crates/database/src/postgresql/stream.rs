//! The connection to a server: TCP or a Unix socket, perhaps with TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::{ClientConnection, StreamOwned};
use socket2::{SockRef, TcpKeepalive};
use sqlflow_data_source::Keepalives;

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A socket, with a deadline while the connection is opened.
#[derive(Debug)]
pub(super) struct Socket {
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
    pub(super) fn open(
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

    /// Another handle of the connection, which can end it.
    pub(super) fn handle(&self) -> io::Result<Self> {
        let inner = match &self.inner {
            Inner::Tcp(tcp) => Inner::Tcp(tcp.try_clone()?),
            Inner::Unix(unix) => Inner::Unix(unix.try_clone()?),
        };
        Ok(Self { inner, deadline: None })
    }

    /// Ends the connection. Reads that block return.
    pub(super) fn shut_down(&self) {
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
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    /// The socket.
    pub(super) fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Whether bytes arrive in this time, or the connection ends.
    pub(super) fn is_readable_within(&mut self, time: Duration) -> bool {
        match self {
            Self::Plain(socket) => socket.is_readable_within(time),
            Self::Tls(tls) => {
                let state = tls.conn.process_new_packets();
                state.is_ok_and(|it| it.plaintext_bytes_to_read() > 0) || tls.sock.is_readable_within(time)
            }
        }
    }

    /// Removes the deadline for opening the connection.
    pub(super) fn remove_deadline(&mut self) -> io::Result<()> {
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
