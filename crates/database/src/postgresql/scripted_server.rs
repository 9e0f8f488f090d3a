//! A server that a test plays by the protocol, to misbehave.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use sqlflow_data_source::Reach;

use super::PostgresqlDatabase;
use super::frames::tests::frame;
use crate::{Database as _, Error, Notice, Notify};

const CANCEL_REQUEST: [u8; 8] = [0, 0, 0, 16, 4, 210, 22, 46];
const PROCESS: [u8; 8] = [0, 0, 0, 7, 0, 0, 0, 9];

/// A server of one session, run by a script.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// Cancel requests.
    cancelled: mpsc::Receiver<Vec<u8>>,
}

impl Server {
    pub(super) fn start(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, cancelled) = mpsc::channel();
        thread::spawn(move || {
            let (mut session, _) = listener.accept().unwrap();
            thread::spawn(move || {
                start_up(&mut session);
                script(&mut session);
            });
            while let Ok((mut other, _)) = listener.accept() {
                let mut request = Vec::new();
                let mut bytes = [0; 16];
                if other.read_exact(&mut bytes).is_ok() {
                    request.extend_from_slice(&bytes);
                }
                if sender.send(request).is_err() {
                    return;
                }
            }
        });
        Self { address, cancelled }
    }

    pub(super) fn connect(&self) -> PostgresqlDatabase {
        connect(self.address, Arc::default()).unwrap()
    }

    pub(super) fn assert_cancelled(&self) {
        let request = self.cancelled.recv_timeout(Duration::from_secs(60)).expect("no cancel request");
        assert_eq!(request, [CANCEL_REQUEST, PROCESS].concat());
    }
}

pub(super) fn connect(
    address: SocketAddr,
    notices: Arc<Mutex<Vec<Notice>>>,
) -> Result<PostgresqlDatabase, Error> {
    let notify: Notify = Arc::new(move |notice| notices.lock().unwrap().push(notice));
    PostgresqlDatabase::open(
        &format!("postgresql://u:p@{address}/d?sslmode=disable"),
        Reach::default(),
        &notify,
    )
}

fn start_up(session: &mut TcpStream) {
    let mut length = [0; 4];
    session.read_exact(&mut length).unwrap();
    let mut message = vec![0; u32::from_be_bytes(length) as usize - 4];
    session.read_exact(&mut message).unwrap();
    session.write_all(&[frame(b'R', &[0; 4]), frame(b'K', &PROCESS), ready()].concat()).unwrap();
    answer(session, &[complete("SET"), complete("SET"), ready()]);
}

/// Reads a message of the client. Returns its body; `None`: it has closed the connection.
pub(super) fn receive(session: &mut TcpStream) -> Option<Vec<u8>> {
    let mut header = [0; 5];
    session.read_exact(&mut header).ok()?;
    let [_, length @ ..] = header;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    session.read_exact(&mut body).ok()?;
    Some(body)
}

/// Answers the next message.
pub(super) fn answer(session: &mut TcpStream, frames: &[Vec<u8>]) {
    if receive(session).is_some() {
        let _ = session.write_all(&frames.concat());
    }
}

pub(super) fn ready() -> Vec<u8> {
    frame(b'Z', b"I")
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', &[tag.as_bytes(), b"\0"].concat())
}

/// Describes a result set with one column of type text.
pub(super) fn description() -> Vec<u8> {
    frame(b'T', b"\0\x01v\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0")
}

pub(super) fn row(value: &str) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    frame(b'D', &[b"\0\x01", &length.to_be_bytes()[..], value.as_bytes()].concat())
}

pub(super) fn error(state: &str, message: &str) -> Vec<u8> {
    frame(b'E', format!("SERROR\0C{state}\0M{message}\0\0").as_bytes())
}

/// A server that sends these bytes, in place of a session or after it has begun.
pub(super) fn answered_with(bytes: Vec<u8>, is_started: bool, statement: fn(&mut PostgresqlDatabase)) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut session, _) = listener.accept().unwrap();
        drop(listener);
        if is_started {
            start_up(&mut session);
            receive(&mut session);
        }
        // The client may have left.
        let _ = session.write_all(&bytes);
        let _ = session.shutdown(std::net::Shutdown::Write);
        let _ = session.read_to_end(&mut Vec::new());
    });
    if let Ok(mut database) = connect(address, Arc::default()) {
        statement(&mut database);
        let _ = database.describe("SELECT 1");
    }
    server.join().unwrap();
}
