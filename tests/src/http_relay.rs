//! A relay between a client and an HTTP server: forwards everything, answers every request with an error, cuts uploads
//! in the middle, or is slow. It works on connections and bytes, not on requests.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Fault of the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// None: forwards everything.
    Pass,
    /// Every request is answered with this code, reason and body.
    Answer(u16, &'static str, String),
    /// Each connection is cut after this many bytes from the client.
    CutAfter(u64),
    /// Bytes per second from each client.
    Slow(u64),
    /// Conditional writes are rejected as unsupported.
    RefuseConditions,
    /// Every response has a date in the year 2100.
    Dated2100,
    /// Latency.
    Late(Duration),
    /// Requests with this text in the first line are answered with success and this JSON.
    AnswerTo(&'static str, &'static str),
    /// Responses to requests with this text in the first line are lost.
    LoseAnswerTo(&'static str),
}

/// Every date in HTTP has this length.
const DATE_2100: &[u8] = b"Fri, 01 Jan 2100 00:00:00 GMT";

/// The relay. It runs until the program ends.
#[derive(Debug)]
pub struct HttpRelay {
    /// Port in `http://127.0.0.1:<port>`.
    pub port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Number of injected faults.
    done: u64,
    open: Vec<TcpStream>,
}

impl HttpRelay {
    /// Starts one in front of `127.0.0.1:<behind>`.
    pub fn start(behind: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(Mutex::new(State { mode: Mode::Pass, done: 0, open: Vec::new() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, behind, &shared));
            }
        });
        Self { port, state }
    }

    /// Sets the fault of new connections. Open connections are cut.
    pub fn set(&self, mode: Mode) {
        let mut state = lock(&self.state);
        state.mode = mode;
        state.done = 0;
        for connection in state.open.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Number of answers and cuts since the fault was set.
    pub fn done(&self) -> u64 {
        lock(&self.state).done
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no thread panics while it holds the lock")
}

fn serve(mut client: TcpStream, behind: u16, state: &Mutex<State>) {
    let mode = {
        let mut state = lock(state);
        state.open.extend(client.try_clone());
        state.mode.clone()
    };
    if let Mode::Answer(code, reason, body) = &mode {
        // The content of the request does not matter.
        let _ = client.read(&mut [0; 64 << 10]);
        let _ = client.write_all(answer(*code, reason, body).as_bytes());
        lock(state).done += 1;
        return;
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else { return };
    let (Ok(mut from), Ok(mut to)) = (server.try_clone(), client.try_clone()) else { return };
    let is_lost = Arc::new(AtomicBool::new(false));
    let (answering, is_losing) = (mode.clone(), is_lost.clone());
    let answers = std::thread::spawn(move || {
        let _ = match answering {
            Mode::Dated2100 => copy_dated(&mut from, &mut to),
            Mode::LoseAnswerTo(_) => copy_until(&is_losing, &mut from, &mut to),
            _ => io::copy(&mut from, &mut to).map(drop),
        };
        let _ = to.shutdown(Shutdown::Both);
    });
    if upload(client, server, mode, &is_lost) {
        lock(state).done += 1;
    }
    let _ = answers.join();
}

/// Copies responses, each of which begins with a read of its own.
fn copy_dated(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    const HEADER: &[u8] = b"\r\nDate: ";
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if let Some(at) = piece[..length].windows(HEADER.len()).position(|it| it == HEADER) {
            let date = at + HEADER.len()..at + HEADER.len() + DATE_2100.len();
            piece[date].copy_from_slice(DATE_2100);
        }
        to.write_all(&piece[..length])?;
    }
}

/// Copies responses until one arrives while this is set.
fn copy_until(is_lost: &AtomicBool, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 || is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        to.write_all(&piece[..length])?;
    }
}

/// Whether a conditional write begins here.
fn is_conditional(piece: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&piece[..piece.len().min(4096)]).to_lowercase();
    (text.starts_with("put ") || text.starts_with("post "))
        && (text.contains("\r\nif-match:") || text.contains("\r\nif-none-match:"))
}

/// Whether a request with this text in its first line begins here.
fn is_request(piece: &[u8], text: &str) -> bool {
    let first = piece.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(first).contains(text)
}

fn answer(code: u16, reason: &str, body: &str) -> String {
    let kind = if body.starts_with('{') { "application/json" } else { "application/xml" };
    let length = body.len();
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

const NOT_IMPLEMENTED: &str = "<Error><Code>NotImplemented</Code><Message>A header implies functionality that is not implemented.</Message></Error>";

/// True if it was cut, or a response was lost.
fn upload(mut client: TcpStream, mut server: TcpStream, mode: Mode, is_lost: &AtomicBool) -> bool {
    let mut piece = vec![0; 16 << 10];
    let (mut carried, begun) = (0, Instant::now());
    let mut is_cut = false;
    while let Ok(length @ 1..) = client.read(&mut piece) {
        carried += length as u64;
        match mode {
            Mode::RefuseConditions if is_conditional(&piece[..length]) => {
                let _ = client.write_all(answer(501, "Not Implemented", NOT_IMPLEMENTED).as_bytes());
                is_cut = true;
                break;
            }
            Mode::AnswerTo(text, json) if is_request(&piece[..length], text) => {
                let _ = client.write_all(answer(200, "OK", json).as_bytes());
                is_cut = true;
                break;
            }
            Mode::LoseAnswerTo(text) if is_request(&piece[..length], text) => {
                is_lost.store(true, Ordering::Release);
            }
            Mode::Late(by) => std::thread::sleep(by),
            Mode::CutAfter(limit) if carried > limit => {
                is_cut = true;
                break;
            }
            Mode::Slow(bytes) => {
                let due = Duration::from_secs_f64(carried as f64 / bytes as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            _ => {}
        }
        if server.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(if is_cut { Shutdown::Both } else { Shutdown::Write });
    if is_cut {
        let _ = client.shutdown(Shutdown::Both);
    }
    is_cut || is_lost.load(Ordering::Acquire)
}
