//! A session: its connection, opened and authenticated.

use std::io::{self, Write as _};
use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sqlflow_data_source::{Password, PostgresqlHost, PostgresqlSource, SslMode};

use super::authentication::{Authentication, Next};
use super::cancel::CancelRequest;
use super::errors;
use super::frames::{Frame, FrameError, Frames, MAX_FRAME};
use super::messages::{self, ServerMessage, chunk};
use super::tls::{self, Answer};
use crate::stream::{Endpoint, Socket, Stream};
use crate::{Error, Notice, Notify};

/// A session.
pub(super) struct Session {
    pub(super) stream: Stream,
    pub(super) frames: Frames,
    pub(super) reports: Reports,
    /// `host:port`, for messages.
    pub(super) address: String,
    pub(super) cancel: CancelRequest,
}

/// What the server reports at any time.
pub(super) struct Reports {
    /// Encoding of texts.
    pub(super) encoding: Option<String>,
    notify: Notify,
}

impl Reports {
    /// Takes a report: a notice, or the value of a setting. `None`: it is malformed.
    pub(super) fn take(&mut self, frame: Frame<'_>) -> Option<()> {
        match frame.tag {
            b'N' => {
                let ServerMessage { severity, message, .. } = messages::server_message(frame.body)?;
                (self.notify)(Notice::Server(format!("{severity}: {message}")));
            }
            b'S' => {
                let (name, value) = messages::parameter(frame.body)?;
                if name == "client_encoding" {
                    self.encoding = Some(value);
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Prints a note like a message of the database.
    pub(super) fn note(&self, text: &str) {
        (self.notify)(Notice::Server(text.to_owned()));
    }
}

/// Why a connection cannot be opened.
enum OpenError {
    /// The server rejected it.
    Rejected(Box<ServerMessage>),
    /// The server does not respond, or not as a PostgreSQL server.
    Unreachable(String),
    /// The TLS handshake failed.
    Handshake(io::Error),
    /// The user can correct it.
    User(String),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        // Some servers reject a client's certificate only after the handshake.
        if tls::is_alert(&error) {
            Self::Handshake(error)
        } else {
            Self::Unreachable(errors::system_message(&error))
        }
    }
}

impl From<FrameError> for OpenError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error.into(),
            other => Self::Unreachable(errors::cause(&other)),
        }
    }
}

/// Whether a connection has TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Plain,
    TlsIfSupported,
    Tls,
}

/// Opens a session on the first host that responds.
///
/// # Errors
/// `Unavailable`: none responds. `User`: one rejected the user, for example.
pub(super) fn open(source: &PostgresqlSource, notify: &Notify) -> Result<Session, Error> {
    let uses_tls = source.tls.mode != SslMode::Disable && source.hosts.iter().any(|it| it.socket().is_none());
    let tls = if uses_tls { Some(tls::configuration(&source.tls)?) } else { None };
    let user = match &source.user {
        Some(user) => user.clone(),
        None => crate::connect::system_user()?,
    };
    let opener = Opener { source, notify, tls, user };
    let mut failures: Vec<Error> = Vec::new();
    for host in &source.hosts {
        match opener.open_host(host) {
            Ok(session) => return Ok(session),
            Err(error) if error.kind == crate::ErrorKind::Unavailable => failures.push(error),
            Err(error) => return Err(error),
        }
    }
    let messages: Vec<_> = failures.iter().map(|it| it.message.as_str()).collect();
    Err(Error::unavailable(messages.join("; ")))
}

struct Opener<'a> {
    source: &'a PostgresqlSource,
    notify: &'a Notify,
    tls: Option<Arc<ClientConfig>>,
    user: String,
}

impl Opener<'_> {
    fn open_host(&self, host: &PostgresqlHost) -> Result<Session, Error> {
        let address = host.to_string();
        let mut failure = "its name has no address".to_owned();
        let endpoints =
            endpoints(host).map_err(|it| errors::unreachable(&address, &errors::system_message(&it)))?;
        for endpoint in endpoints {
            match self.open_endpoint(host, &endpoint) {
                Ok(session) => return Ok(session),
                Err(OpenError::Unreachable(cause)) => failure = cause,
                Err(OpenError::Rejected(message)) => return Err(errors::rejected(&address, &message)),
                Err(OpenError::User(cause)) => return Err(Error::user(errors::at(&address, &cause))),
                Err(OpenError::Handshake(error)) => match tls::problem(&error, &host.name) {
                    Some(problem) => return Err(Error::user(errors::at(&address, &problem))),
                    None => failure = format!("the TLS handshake failed: {}", errors::system_message(&error)),
                },
            }
        }
        Err(errors::unreachable(&address, &failure))
    }

    /// Tries with and without TLS, as `sslmode` says.
    fn open_endpoint(&self, host: &PostgresqlHost, endpoint: &Endpoint) -> Result<Session, OpenError> {
        let open = |security| self.attempt(host, endpoint, security);
        // SQLSTATE of a connection that pg_hba.conf does not allow.
        let not_allowed = |error: &OpenError| matches!(error, OpenError::Rejected(it) if it.state == "28000");
        match self.source.tls.mode {
            _ if matches!(endpoint, Endpoint::Unix(_)) => open(Security::Plain),
            SslMode::Disable => open(Security::Plain),
            SslMode::Allow => match open(Security::Plain) {
                Err(plain) if not_allowed(&plain) => match open(Security::Tls) {
                    // It does not support TLS.
                    Err(OpenError::User(_)) => Err(plain),
                    tls => tls,
                },
                plain => plain,
            },
            SslMode::Prefer => open(Security::TlsIfSupported).or_else(|tls| {
                let is_handshake = matches!(tls, OpenError::Handshake(_));
                if is_handshake || not_allowed(&tls) { open(Security::Plain) } else { Err(tls) }
            }),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => open(Security::Tls),
        }
    }

    fn attempt(
        &self,
        host: &PostgresqlHost,
        endpoint: &Endpoint,
        security: Security,
    ) -> Result<Session, OpenError> {
        let deadline = self.source.connect_timeout.map(|timeout| Instant::now() + timeout);
        let mut socket = Socket::open(endpoint, &self.source.keepalives, deadline)?;
        let mut cancel = CancelRequest {
            endpoint: endpoint.clone(),
            keepalives: self.source.keepalives.clone(),
            tls: None,
            process: None,
        };
        let stream = match (security, &self.tls) {
            (Security::Plain, _) | (_, None) => Stream::Plain(socket),
            (security, Some(configuration)) => match tls::request(&mut socket)? {
                Answer::Supported => {
                    let name = server_name(host, endpoint)?;
                    cancel.tls = Some((Arc::clone(configuration), name.clone()));
                    Stream::encrypt(socket, Arc::clone(configuration), name).map_err(OpenError::Handshake)?
                }
                Answer::Unsupported if security == Security::TlsIfSupported => Stream::Plain(socket),
                Answer::Unsupported => {
                    return Err(OpenError::User(
                        "it does not support TLS, which sslmode demands; choose sslmode=prefer, or enable TLS there"
                            .to_owned(),
                    ));
                }
            },
        };
        let mut session = Session {
            stream,
            frames: Frames::new(),
            reports: Reports { encoding: None, notify: Arc::clone(self.notify) },
            address: host.to_string(),
            cancel,
        };
        self.start(&mut session)?;
        session.stream.remove_deadline()?;
        Ok(session)
    }

    /// Sends the startup message, and authenticates the user.
    fn start(&self, session: &mut Session) -> Result<(), OpenError> {
        let source = self.source;
        let mut parameters = vec![
            ("user", self.user.as_str()),
            ("database", source.database.as_ref().unwrap_or(&self.user)),
            ("application_name", source.application_name.as_deref().unwrap_or("sqlflow")),
            ("client_encoding", "UTF8"),
        ];
        parameters.extend(source.options.as_deref().map(|options| ("options", options)));
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)?;
        session.write(&out)?;
        let mut authentication = Authentication::new(
            &self.user,
            source.password.as_ref().map(|Password(password)| password.as_str()),
            source.channel_binding,
            tls::end_point(&session.stream),
        );
        let mut is_authenticated = false;
        loop {
            let frame = session.frames.next(&mut session.stream)?;
            match frame.tag {
                b'R' if !is_authenticated => {
                    match authentication.react(frame.body).map_err(OpenError::User)? {
                        Next::Answer(answer) => session.write(&answer)?,
                        Next::Done => {
                            is_authenticated = true;
                            session.frames.set_limit(MAX_FRAME);
                        }
                    }
                }
                b'E' => {
                    let error = messages::server_message(frame.body).ok_or(FrameError::Malformed)?;
                    return Err(OpenError::Rejected(Box::new(error)));
                }
                b'K' if is_authenticated => {
                    let mut body = frame.body;
                    let mut number = || chunk(&mut body).map(i32::from_be_bytes);
                    session.cancel.process = number().zip(number());
                }
                b'Z' if is_authenticated => return Ok(()),
                // `v`: the server does not know a feature that was not requested.
                b'N' | b'S' | b'v' => session.reports.take(frame).ok_or(FrameError::Malformed)?,
                _ => return Err(FrameError::Malformed.into()),
            }
        }
    }
}

impl Session {
    /// Sends messages.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }
}

fn endpoints(host: &PostgresqlHost) -> io::Result<Vec<Endpoint>> {
    if let Some(path) = host.socket() {
        return Ok(vec![Endpoint::Unix(path.into())]);
    }
    if let Some(address) = host.address {
        return Ok(vec![Endpoint::Tcp((address, host.port).into())]);
    }
    Ok((host.name.as_str(), host.port).to_socket_addrs()?.map(Endpoint::Tcp).collect())
}

/// The name that the server's certificate must have.
fn server_name(host: &PostgresqlHost, endpoint: &Endpoint) -> Result<ServerName<'static>, OpenError> {
    match (ServerName::try_from(host.name.clone()), endpoint) {
        (Ok(name), _) => Ok(name),
        (Err(_), Endpoint::Tcp(address)) => Ok(address.ip().into()),
        (Err(error), Endpoint::Unix(_)) => Err(OpenError::User(error.to_string())),
    }
}
