//! Servers that misbehave. Tests with a real server drive the data process: `images/submitter/tests`.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;

use proptest::prelude::*;
use sqlflow_data_source::Reach;

use super::PostgresqlDatabase;
use super::frames::tests::frame;
use super::scripted_server::{
    Server, answer, answered_with, complete, connect, description, error, ready, receive, row,
};
use super::writer::PostgresqlWriter;
use crate::{
    Batch, Column, Database, Discard, Error, ErrorKind, Notice, Notify, Results, TableName, TableWriter as _,
};

/// Records results as texts.
#[derive(Default)]
struct Record(Vec<String>);

impl Results for Record {
    fn result_set(&mut self, columns: &[Column]) -> Result<(), Error> {
        self.0.push(format!("columns {}", columns.len()));
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.0.extend((0..batch.rows).filter_map(|row| batch.columns[0].text(row)));
        Ok(())
    }

    fn changed(&mut self, rows: Option<u64>) {
        self.0.push(format!("changed {rows:?}"));
    }
}

/// Reports each batch.
struct Report(mpsc::Sender<usize>);

impl Results for Report {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, batch: Batch) -> Result<(), Error> {
        self.0.send(batch.rows).map_err(|error| Error::undelivered(error.to_string()))
    }

    fn changed(&mut self, _: Option<u64>) {}
}

/// Rejects every batch.
struct Reject;

impl Results for Reject {
    fn result_set(&mut self, _: &[Column]) -> Result<(), Error> {
        Ok(())
    }

    fn batch(&mut self, _: Batch) -> Result<(), Error> {
        Err(Error::undelivered("nobody reads"))
    }

    fn changed(&mut self, _: Option<u64>) {}
}

#[test]
fn statement_can_have_several_results() {
    let server = Server::start(|session| {
        let first = [complete("UPDATE 2"), description(), row("a"), row("b"), complete("SELECT 2")].concat();
        answer(session, &[first, description(), complete("SELECT 0"), ready()]);
        answer(session, &[frame(b'I', b""), ready()]);
    });
    let mut database = server.connect();
    let mut record = Record::default();
    database.execute("UPDATE …; SELECT …; SELECT …", &mut record).unwrap();
    assert_eq!(record.0, ["changed Some(2)", "columns 1", "a", "b", "columns 1"]);
    let mut record = Record::default();
    database.execute("-- nothing", &mut record).unwrap();
    assert_eq!(record.0, ["changed None"]);
}

#[test]
fn rows_of_a_slow_query_do_not_wait_for_the_next_one() {
    let (batches, reported) = mpsc::channel();
    let server = Server::start(move |session| {
        let part = &row("c")[..7];
        answer(session, &[description(), row("a"), row("b"), part.to_vec()]);
        // It sends more only after these have arrived.
        assert_eq!(reported.recv().unwrap(), 2);
        session.write_all(&[&row("c")[7..], &complete("SELECT 3"), &ready()].concat()).unwrap();
        assert_eq!(reported.recv().unwrap(), 1);
        answer(session, &[ready()]);
    });
    let mut database = server.connect();
    database.execute("SELECT …", &mut Report(batches)).unwrap();
    database.execute("SELECT …", &mut Discard).unwrap();
}

#[test]
fn descriptions_have_columns_or_an_error() {
    let server = Server::start(|session| {
        let parameters = frame(b't', b"\0\x01\0\0\0\x17");
        for end in [&[ready()][..], &[error("57014", "canceled"), ready()]] {
            // Parse, Describe, Sync.
            answer(session, &[]);
            answer(session, &[]);
            answer(session, &[&[frame(b'1', b""), parameters.clone(), description()], end].concat());
        }
    });
    let mut database = server.connect();
    assert_eq!(database.describe("SELECT $1::int").unwrap().len(), 1);
    assert_eq!(database.describe("SELECT $1::int").unwrap_err().message, "canceled");
}

#[test]
fn copy_is_refused_and_the_session_goes_on() {
    let server = Server::start(|session| {
        answer(session, &[frame(b'G', b"\0\0\0")]);
        assert_eq!(receive(session).unwrap(), b"refused by the client\0");
        session.write_all(&[error("57014", "COPY failed"), ready()].concat()).unwrap();
        let copied =
            [frame(b'H', b"\0\0\0"), frame(b'd', b"x\n"), frame(b'c', b""), complete("COPY 1"), ready()];
        answer(session, &copied);
        answer(session, &[description(), row("a"), complete("SELECT 1"), ready()]);
    });
    let mut database = server.connect();
    for sql in ["COPY t FROM STDIN", "COPY t TO STDOUT"] {
        let error = database.execute(sql, &mut Discard).unwrap_err();
        assert_eq!(error.kind, ErrorKind::User);
        assert!(error.message.starts_with("cannot run COPY to or from the client"), "{error}");
    }
    server.assert_cancelled();
    let mut record = Record::default();
    database.execute("SELECT 'a'", &mut record).unwrap();
    assert_eq!(record.0, ["columns 1", "a"]);
}

#[test]
fn connection_lost_within_copy_is_one_line() {
    let rows = arrow_array::StringArray::from_iter_values((0..200_000).map(|it| format!("{it:032}")));
    let batch = Batch { rows: 200_000, columns: vec![crate::Values::Texts(rows)] };
    let lost = |begin: Vec<Vec<u8>>, end: Vec<u8>| {
        let server = Server::start(move |session| {
            answer(session, &begin);
            // Some rows.
            receive(session);
            session.write_all(&end).unwrap();
        });
        let error = server.connect().copy("t", &[], &batch).unwrap_err();
        (error.kind, error.message.replace(&server.address.to_string(), "h:1"))
    };
    let copies = || vec![frame(b'G', b"\0\0\0")];
    let (kind, message) = lost(copies(), error("57P01", "terminating connection"));
    assert_eq!(
        (kind, &*message),
        (ErrorKind::Unavailable, "PostgreSQL server at h:1: terminating connection")
    );
    let (kind, message) = lost(copies(), Vec::new());
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.starts_with("PostgreSQL server at h:1: "), "{message}");
    // It answers neither with an error nor with the request for rows.
    for begin in [vec![frame(b'H', b"\0\0\0")], vec![complete("COPY 0"), ready()]] {
        assert_eq!(lost(begin, Vec::new()).0, ErrorKind::Unavailable);
    }
}

#[test]
fn replacement_is_unclear_only_if_its_commit_was_sent() {
    for (sent, is_unclear) in [("BEGIN", false), ("DROP", false), ("ALTER", false), ("COMMIT", true)] {
        let server = Server::start(move |session| {
            while let Some(statement) = receive(session).filter(|it| !it.starts_with(sent.as_bytes())) {
                let tag = String::from_utf8(statement).unwrap().split(' ').next().unwrap().to_owned();
                session.write_all(&[complete(&tag), ready()].concat()).unwrap();
            }
        });
        let mut writer = PostgresqlWriter::new(server.connect()).unwrap();
        let (staging, table) = (TableName::parse("s.t__x"), TableName::parse("s.t"));
        let error = writer.swap(&staging, &table, "x", &mut |_| Ok(())).unwrap_err();
        assert_eq!((error.kind, error.is_unclear), (ErrorKind::Unavailable, is_unclear), "{sent}");
    }
}

#[test]
fn encoding_of_the_session_stays_utf8() {
    let server = Server::start(|session| {
        for _ in 0..2 {
            answer(session, &[frame(b'S', b"client_encoding\0LATIN1\0"), complete("SET"), ready()]);
            assert_eq!(receive(session).unwrap(), b"SET client_encoding TO 'UTF8'\0");
            let reset = [frame(b'S', b"client_encoding\0UTF8\0"), complete("SET"), ready()];
            session.write_all(&reset.concat()).unwrap();
        }
    });
    let notices = Arc::default();
    let mut database = connect(server.address, Arc::clone(&notices)).unwrap();
    for _ in 0..2 {
        database.execute("SET NAMES 'latin1'", &mut Discard).unwrap();
    }
    let note = "note: the encoding of the session stays UTF-8: the database converts texts to and from its own encoding";
    assert_eq!(*notices.lock().unwrap(), [Notice::Server(note.into())]);
}

#[test]
fn row_beyond_the_limit_is_refused_and_its_query_cancelled() {
    let server = Server::start(|session| {
        let header = [&b"D"[..], &(1_u32 << 30).to_be_bytes()[..]].concat();
        answer(session, &[description(), header, vec![b'x'; 1000]]);
        assert_eq!(receive(session), None);
    });
    let mut database = server.connect();
    let error = database.execute("SELECT …", &mut Discard).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Undelivered);
    assert_eq!(
        error.message,
        "cannot read a row of 1073741820 bytes: it is too long; select fewer or smaller columns (limit: 67108864 bytes)"
    );
    server.assert_cancelled();
}

#[test]
fn query_is_cancelled_if_nobody_takes_its_rows() {
    let server = Server::start(|session| {
        answer(session, &[description(), row("a").repeat(200)]);
        assert_eq!(receive(session), None);
    });
    let mut database = server.connect();
    assert_eq!(database.execute("SELECT …", &mut Reject), Err(Error::undelivered("nobody reads")));
    server.assert_cancelled();
}

#[test]
fn connection_lost_within_a_row_is_one_line() {
    let server = Server::start(|session| answer(session, &[description(), b"D\0\0\x10\0half".to_vec()]));
    let mut database = server.connect();
    let address = server.address;
    let lost = format!("PostgreSQL server at {address}: server closed the connection unexpectedly");
    assert_eq!(database.execute("SELECT …", &mut Discard), Err(Error::unavailable(lost)));
    assert_eq!(database.execute("SELECT …", &mut Discard).unwrap_err().kind, ErrorKind::Unavailable);
}

#[test]
fn error_before_the_end_of_a_connection_is_its_cause() {
    let server = Server::start(|session| answer(session, &[error("XX000", "it crashed")]));
    let error = server.connect().execute("SELECT …", &mut Discard).unwrap_err();
    assert_eq!(error, Error::unavailable(format!("PostgreSQL server at {}: it crashed", server.address)));
}

#[test]
fn server_that_stalls_within_a_row_can_be_left() {
    let (stalled, stalls) = mpsc::channel();
    let server = Server::start(move |session| {
        answer(session, &[description(), b"D\0\0\x10\0half".to_vec()]);
        stalled.send(()).unwrap();
        assert_eq!(receive(session), None);
    });
    let mut database = server.connect();
    let cancel = database.canceller();
    let reader = thread::spawn(move || (database.execute("SELECT …", &mut Discard), database));
    stalls.recv().unwrap();
    cancel();
    server.assert_cancelled();
    let (result, mut database) = reader.join().unwrap();
    assert_eq!(result.unwrap_err().kind, ErrorKind::Unavailable);
    let next = database.execute("SELECT 1", &mut Discard).unwrap_err();
    assert_eq!(next.message, "the statement was cancelled before it began");
}

#[test]
fn unavailable_hosts_are_passed_over() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(|_| {});
    let notify: Notify = Arc::new(|_| {});
    let source = |second| format!("postgresql://u:p@{closed},{second}/d?sslmode=disable");
    PostgresqlDatabase::open(&source(server.address), Reach::default(), &notify).unwrap();
    let error = PostgresqlDatabase::open(&source(closed), Reach::default(), &notify).err().unwrap();
    let refused = format!("cannot reach PostgreSQL server at {closed}: Connection refused");
    assert_eq!(error, Error::unavailable(format!("{refused}; {refused}")));
}

#[test]
fn server_that_sends_nothing_is_left_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let notify: Notify = Arc::new(|_| {});
    let source = format!("postgresql://u:p@{address}/d?connect_timeout=1");
    let error = PostgresqlDatabase::open(&source, Reach::default(), &notify).err().unwrap();
    assert_eq!(
        error,
        Error::unavailable(format!("cannot reach PostgreSQL server at {address}: timeout expired"))
    );
}

#[test]
fn server_of_another_protocol_is_reported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut session, _) = listener.accept().unwrap();
            session.write_all(b"J\0\0\0\x0a11.4.2-MariaDB\0").unwrap();
            let _ = session.read_to_end(&mut Vec::new());
        }
    });
    let notify: Notify = Arc::new(|_| {});
    for (mode, cause) in [
        ("prefer", "it does not answer like a PostgreSQL server; check host and port"),
        ("disable", "it sent a message that is not one of PostgreSQL's protocol"),
    ] {
        let source = format!("postgresql://u:p@{address}/d?sslmode={mode}");
        let error = PostgresqlDatabase::open(&source, Reach::default(), &notify).err().unwrap();
        let message = format!("cannot reach PostgreSQL server at {address}: {cause}");
        assert_eq!(error, Error::unavailable(message));
    }
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_answer_panics(
        frames in proptest::collection::vec(("[RKZTDCIEGHWdcNSAv1tn]|[ -~]", any::<Vec<u8>>()), 0..8),
        valid in any::<bool>(),
        rest: Vec<u8>,
        is_started in any::<bool>(),
    ) {
        let mut bytes = if valid && is_started { [description(), row("a")].concat() } else { Vec::new() };
        for (tag, body) in frames {
            bytes.extend(frame(tag.as_bytes()[0], &body));
        }
        bytes.extend(rest);
        answered_with(bytes, is_started, |database| drop(database.execute("SELECT 1", &mut Record::default())));
    }
}
