//! Servers of MySQL's protocol that stall, or send what no real one does. Real servers: `images/submitter/tests`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use crate::test_servers::options;
use crate::{Batch, Column, ConnectOptions, Database, Discard, Error, ErrorKind, Notice, Results, connect};

pub(super) const PASSWORD: &str = "hunter2";
pub(super) const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
/// A column `v` of type VARCHAR.
const COLUMN: &[u8] = b"\x03def\0\0\0\x01v\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0";

/// The server's end of a connection.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
    sequence: u8,
}

impl Peer {
    /// The client's next payload; empty at the end.
    pub(super) fn receive(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        if self.stream.read_exact(&mut header).is_err() {
            return Vec::new();
        }
        self.sequence = header[3].wrapping_add(1);
        let mut payload = vec![0; u32::from_le_bytes([header[0], header[1], header[2], 0]) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        payload
    }

    pub(super) fn send(&mut self, payload: &[u8]) {
        let mut packet = u32::try_from(payload.len()).unwrap().to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        // The client may have closed the connection.
        let _ = self.stream.write_all(&packet).and_then(|()| self.stream.write_all(payload));
    }

    pub(super) fn send_all(&mut self, payloads: &[&[u8]]) {
        for payload in payloads {
            self.send(payload);
        }
    }

    pub(super) fn greet(&mut self, plugin: &str) {
        self.sequence = 0;
        self.send(&greeting(plugin));
    }

    /// Lets the client log in, and answers `SET NAMES`.
    pub(super) fn log_in(&mut self) {
        self.greet("mysql_native_password");
        self.receive();
        self.send(OK);
        assert_eq!(self.receive(), b"\x03SET NAMES utf8mb4");
        self.send(OK);
    }
}

/// The packet with which a server greets.
pub(super) fn greeting(plugin: &str) -> Vec<u8> {
    // PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION, MULTI_RESULTS, PLUGIN_AUTH, PLUGIN_AUTH_LENENC_CLIENT_DATA.
    let capabilities = 0x0000_0200_u32 | 0x2000 | 0x8000 | 0x2_0000 | 0x8_0000 | 0x20_0000;
    let [c1, c2, c3, c4] = capabilities.to_le_bytes();
    let mut greeting = b"\x0a8.0.0\0\x07\0\0\0abcdefgh\0".to_vec();
    greeting.extend([c1, c2, 45, 2, 0, c3, c4, 21]);
    greeting.extend([0; 10]);
    greeting.extend(b"ijklmnopqrst\0");
    greeting.extend(plugin.bytes().chain([0]));
    greeting
}

/// A server whose first connection is this one; others are accepted and get nothing.
pub(super) fn serve(run: impl FnOnce(&mut Peer) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut peer = Peer { stream, sequence: 0 };
        run(&mut peer);
        // Stalls until the client closes the connection.
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    format!("mysql://u:{PASSWORD}@tcp(127.0.0.1:{port})/d")
}

/// The same at a Unix socket.
pub(super) fn serve_at(path: &Path, run: impl FnOnce(&mut Peer) + Send + 'static) -> String {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        // Reading and writing are the same.
        let mut peer = Peer { stream: OwnedFd::from(stream).into(), sequence: 0 };
        run(&mut peer);
        let _ = peer.stream.read_to_end(&mut Vec::new());
    });
    format!("mysql://u:{PASSWORD}@unix({})/d", path.display())
}

pub(super) fn open(data_source: &str) -> Result<Box<dyn Database>, Error> {
    connect(data_source, options(|_| ()))
}

/// The error of a statement to which a server sends this.
fn error_of(response: impl FnOnce(&mut Peer) + Send + 'static) -> Error {
    let source = serve(|peer| {
        peer.log_in();
        peer.receive();
        response(peer);
    });
    let mut database = open(&source).unwrap();
    let error = database.execute("SELECT v", &mut Discard).unwrap_err();
    assert!(!error.message.contains(PASSWORD) && !error.message.contains('\n'));
    if error.kind == ErrorKind::Unavailable {
        assert!(error.message.starts_with("MySQL server at 127.0.0.1:"), "{error}");
    }
    error
}

fn text(payload: &[u8]) -> Vec<u8> {
    [&[u8::try_from(payload.len()).unwrap()], payload].concat()
}

#[test]
fn row_above_the_limit_is_an_error_before_it_is_received() {
    let error = error_of(|peer| {
        peer.send_all(&[&[1], COLUMN, EOF]);
        let full = vec![0_u8; 0xff_ffff];
        // 1 GiB.
        let mut first = full.clone();
        first[0] = 0xfe;
        first[1..9].copy_from_slice(&(1_u64 << 30).to_le_bytes());
        peer.send(&first);
        (0..64).for_each(|_| peer.send(&full));
    });
    assert_eq!(error.kind, ErrorKind::Undelivered);
    assert_eq!(
        error.message,
        "cannot read the result: a row is larger than the limit of 64 MiB; select fewer or smaller columns"
    );
}

#[test]
fn too_many_columns_are_a_clear_error() {
    let error = error_of(|peer| peer.send_all(&[&[0xfe, 0, 0, 0, 0, 1, 0, 0, 0]]));
    assert_eq!(error.kind, ErrorKind::Undelivered);
    assert!(error.message.contains("it has 4294967296 columns, above the limit of 262144"), "{error}");
}

#[test]
fn names_of_columns_are_bounded() {
    let error = error_of(|peer| {
        peer.send(&[0xfc, 0xff, 0xff]);
        let name = [
            &b"\x03def\0\0\0\xfd\0\0\x08"[..],
            &vec![b'x'; 8 << 16],
            b"\0\x0c\x2d\0\xff\0\0\0\xfd\0\0\0\0\0",
        ]
        .concat();
        for _ in 0..129 {
            peer.send(&name);
        }
    });
    assert_eq!(error.kind, ErrorKind::Undelivered);
    assert!(error.message.contains("the names of its columns have more than 64 MiB"), "{error}");
}

#[test]
fn what_the_protocol_does_not_allow_is_one_clear_error() {
    type Response = fn(&mut Peer);
    let cases: [(Response, &str); 7] = [
        (|peer| peer.send_all(&[&[1], COLUMN, EOF, b"\x05abc"]), "unexpected response: a malformed row"),
        (|peer| peer.send_all(&[&[1], COLUMN, EOF, b"\x01ab"]), "unexpected response: a malformed row"),
        (|peer| peer.send_all(&[&[1], COLUMN, EOF, b"\xfd\x01"]), "unexpected response: a malformed row"),
        (|peer| peer.send_all(&[&[1], b"\x03def"]), "unexpected response: a malformed column"),
        (|peer| peer.send_all(&[&[0xfd, 0, 0]]), "unexpected response: a malformed number of columns"),
        (
            |peer| {
                peer.sequence = 9;
                peer.send(OK);
            },
            "unexpected response: packets out of order",
        ),
        (|peer| peer.stream.shutdown(std::net::Shutdown::Both).unwrap(), "the connection was lost"),
    ];
    for (response, expected) in cases {
        let error = error_of(response);
        assert!(error.message.ends_with(expected), "{error}");
        assert_eq!(error.kind, ErrorKind::Unavailable);
    }
}

#[test]
fn local_file_is_never_sent_and_the_connection_stays_usable() {
    let (sent, received) = channel();
    let source = serve(move |peer| {
        peer.log_in();
        peer.receive();
        peer.send(b"\xfb/etc/passwd");
        sent.send(peer.receive()).unwrap();
        peer.send(OK);
        peer.receive();
        peer.send(OK);
    });
    let mut database = open(&source).unwrap();
    let error =
        database.execute("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t", &mut Discard).unwrap_err();
    assert!(error.message.starts_with("cannot execute LOAD DATA LOCAL: files of this machine are not sent"));
    assert_eq!(received.recv().unwrap(), b"", "an empty file");
    database.execute("SELECT 1", &mut Discard).unwrap();
}

/// Tells when rows have arrived.
struct Tell(Sender<usize>);

impl Results for Tell {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.0.send(batch.rows).unwrap();
        Ok(())
    }

    fn changed(&mut self, _: Option<u64>) {}
}

#[test]
fn rows_of_a_slow_query_do_not_wait_for_more_rows() {
    let (seen, arrived) = channel();
    let source = serve(move |peer| {
        peer.log_in();
        peer.receive();
        peer.send_all(&[&[1], COLUMN, EOF, &text(b"first"), &text(b"second")]);
        assert_eq!(arrived.recv().unwrap(), 2);
        peer.send_all(&[&text(b"third"), EOF]);
        assert_eq!(arrived.recv().unwrap(), 1);
    });
    open(&source).unwrap().execute("SELECT v", &mut Tell(seen)).unwrap();
}

/// A row that arrives before the server was silent for a while does not begin the wait again.
#[test]
fn rows_of_a_steady_query_do_not_wait_for_a_pause() {
    let (seen, arrived) = channel();
    let source = serve(move |peer| {
        peer.log_in();
        peer.receive();
        peer.send_all(&[&[1], COLUMN, EOF]);
        let shown = (0..60).any(|_| {
            peer.send_all(&[&text(b"row")]);
            arrived.recv_timeout(Duration::from_millis(50)).is_ok()
        });
        assert!(shown, "60 rows were sent, and none was shown");
        peer.send_all(&[EOF]);
        while arrived.recv().is_ok() {}
    });
    open(&source).unwrap().execute("SELECT v", &mut Tell(seen)).unwrap();
}

#[test]
fn statement_is_cancelled_though_the_server_stalls_in_a_row_or_sends_on() {
    for stalls in [true, false] {
        let (began, has_begun) = channel();
        let source = serve(move |peer| {
            peer.log_in();
            peer.receive();
            peer.send_all(&[&[1], COLUMN, EOF]);
            began.send(()).unwrap();
            if stalls {
                peer.stream.write_all(b"\x09\0\0\x04\x08half").unwrap();
            } else {
                let mut rows = Vec::new();
                while peer.stream.write_all(&rows).is_ok() {
                    rows.clear();
                    rows.extend([2, 0, 0, peer.sequence, 1, b'x']);
                    peer.sequence = peer.sequence.wrapping_add(1);
                }
            }
        });
        let mut database = open(&source).unwrap();
        let cancel = database.canceller();
        let cancels = std::thread::spawn(move || {
            has_begun.recv().unwrap();
            cancel();
        });
        let error = database.execute("SELECT v", &mut Discard).unwrap_err();
        assert_eq!(error.message, "the statement was cancelled");
        let next = database.execute("SELECT v", &mut Discard).unwrap_err();
        assert!(next.message.ends_with("the connection was lost"), "{next}");
        cancels.join().unwrap();
    }
}

#[test]
fn error_of_the_receiver_ends_the_statement_and_the_connection() {
    struct Full;

    impl Results for Full {
        fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
            Err(Error::undelivered("full"))
        }

        fn batch(&mut self, _: Batch) -> Result<(), Error> {
            Ok(())
        }

        fn changed(&mut self, _: Option<u64>) {}
    }

    let source = serve(|peer| {
        peer.log_in();
        peer.receive();
        peer.send_all(&[&[1], COLUMN, EOF, &text(b"x"), EOF]);
    });
    let mut database = open(&source).unwrap();
    assert_eq!(database.execute("SELECT v", &mut Full).unwrap_err().message, "full");
    assert_eq!(database.execute("SELECT 1", &mut Discard).unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn encoding_note_is_sent_once() {
    let source = serve(|peer| {
        peer.log_in();
        for _ in 0..4 {
            peer.receive();
            peer.send(OK);
        }
    });
    let notes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&notes);
    let notify = Arc::new(move |notice: Notice| kept.lock().unwrap().push(notice));
    let replay = vec!["SET NAMES latin1".to_owned(), "SET NAMES latin1".to_owned()];
    connect(
        &source,
        ConnectOptions { replay, may_create: false, reach: sqlflow_data_source::Reach::default(), notify },
    )
    .unwrap();
    assert_eq!(notes.lock().unwrap().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]
    #[test]
    fn no_response_panics(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..24), 1..6), begins in 0..4_usize) {
        let prefix: [&[u8]; 3] = [&[1], COLUMN, EOF];
        let source = serve(move |peer| {
            peer.log_in();
            peer.receive();
            peer.send_all(&prefix[..begins]);
            payloads.iter().for_each(|it| peer.send(it));
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut database = open(&source).unwrap();
        let _ = database.execute("SELECT v", &mut Discard);
    }
}

/// Such as one that cannot prepare DROP, or that has the code of a wrong syntax for a missing table.
#[test]
fn server_with_one_code_for_all_errors_rejects_no_statement() {
    const SYNTAX_ERROR: &[u8] = b"\xff\x28\x04#42000an error";
    for wrong in ["DROP", "SELECT", ""] {
        let source = serve(move |peer| {
            peer.log_in();
            loop {
                let request = peer.receive();
                let sql = String::from_utf8_lossy(&request).into_owned();
                let is_wrong = sql.contains("TABEL") || !wrong.is_empty() && sql[1..].starts_with(wrong);
                match request.first() {
                    None | Some(1) => return,
                    // Preparing, without parameters and columns; closing has no response.
                    Some(22) if is_wrong => peer.send(SYNTAX_ERROR),
                    Some(22) => peer.send(&[0; 12]),
                    _ => {}
                }
            }
        });
        let mut database = open(&source).unwrap();
        // What is known of the server is asked once.
        for _ in 0..2 {
            let found = database.check_syntax("DROP TABEL t");
            assert_eq!(
                found.is_err_and(|it| it.is_syntax && it.message == "an error"),
                wrong.is_empty(),
                "{wrong}"
            );
        }
    }
}
