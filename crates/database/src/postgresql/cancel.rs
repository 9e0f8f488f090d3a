//! Ends the running statement from another thread.

use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sqlflow_data_source::Keepalives;

use super::session::Session;
use super::tls::{self, Answer};
use crate::Error;
use crate::stream::{Endpoint, Socket, Stream};

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the statement to end after the request. A server that stalls does not end it.
const TIME_TO_END: Duration = Duration::from_secs(1);

/// Ends the running statement of a session, over a connection of its own.
#[derive(Clone)]
pub(super) struct CancelRequest {
    pub(super) endpoint: Endpoint,
    pub(super) keepalives: Keepalives,
    /// TLS, if the session has it.
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Number and secret key of the server's process.
    pub(super) process: Option<(i32, i32)>,
}

impl CancelRequest {
    /// Sends the request, and waits until the server has received it.
    pub(super) fn send(&self) -> io::Result<()> {
        let Some((number, key)) = self.process else { return Ok(()) };
        let deadline = Some(Instant::now() + TIMEOUT);
        let mut socket = Socket::open(&self.endpoint, &self.keepalives, deadline)?;
        let mut stream = match &self.tls {
            Some((configuration, name)) if tls::request(&mut socket)? == Answer::Supported => {
                Stream::encrypt(socket, Arc::clone(configuration), name.clone())?
            }
            Some(_) => return Err(io::Error::other("the server no longer supports TLS")),
            None => Stream::Plain(socket),
        };
        let mut request = BytesMut::new();
        frontend::cancel_request(number, key, &mut request);
        stream.write_all(&request)?;
        stream.flush()?;
        // It closes the connection after it has sent the signal, so the signal cannot meet a later statement.
        let _ = stream.read(&mut [0]);
        Ok(())
    }
}

/// Whether a statement is running, for the thread that ends it.
#[derive(Debug, Clone, Default)]
pub(super) struct Running(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    is_cancelled: bool,
}

/// A statement that is running until this is dropped.
pub(super) struct RunningStatement(Running);

impl Running {
    /// Begins a statement.
    ///
    /// # Errors
    /// Statements were cancelled.
    pub(super) fn begin(&self) -> Result<RunningStatement, Error> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_cancelled {
            return Err(Error::user("the statement was cancelled before it began"));
        }
        state.is_running = true;
        Ok(RunningStatement(self.clone()))
    }

    /// Statements may begin again.
    pub(super) fn resume(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_cancelled = false;
    }

    /// What ends the running statement of a session, in the database too, and prevents others.
    pub(super) fn canceller(&self, session: &Session) -> Box<dyn Fn() + Send> {
        let running = self.clone();
        let request = session.cancel.clone();
        let socket = session.stream.socket().handle();
        Box::new(move || {
            if !running.cancel() {
                return;
            }
            // If the server does not respond, ending the connection is what remains.
            let _ = request.send();
            if let (false, Ok(socket)) = (running.await_end(), &socket) {
                socket.shut_down();
            }
        })
    }

    /// Returns whether a statement is running.
    fn cancel(&self) -> bool {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_cancelled = true;
        state.is_running
    }

    /// Returns whether the statement has ended.
    fn await_end(&self) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self.0.ended.wait_timeout_while(state, TIME_TO_END, |state| state.is_running);
        !ended.unwrap_or_else(PoisonError::into_inner).0.is_running
    }
}

impl Drop for RunningStatement {
    fn drop(&mut self) {
        self.0.0.state.lock().unwrap_or_else(PoisonError::into_inner).is_running = false;
        self.0.0.ended.notify_all();
    }
}
