//! Logins at servers that send what no real one does.

use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;

use super::tests::{OK, PASSWORD, Peer, greeting, open, serve, serve_at};
use crate::ErrorKind;

/// What a server gets that requests the password in clear text: all packets of the client.
fn requests_clear_text(begins_with_it: bool) -> (impl FnOnce(&mut Peer) + Send, Receiver<Vec<u8>>) {
    let (sent, received): (Sender<Vec<u8>>, _) = channel();
    let server = move |peer: &mut Peer| {
        peer.greet(if begins_with_it { "mysql_clear_password" } else { "mysql_native_password" });
        sent.send(peer.receive()).unwrap();
        peer.send(b"\xfemysql_clear_password\0");
        sent.send(peer.receive()).unwrap();
        peer.send(b"\xff\x15\x04#28000no");
    };
    (server, received)
}

#[test]
fn password_is_sent_in_clear_text_if_that_is_asked_for_and_nobody_can_read_it() {
    const ASKED: &str = "?allowCleartextPasswords=true";
    const NOT_ASKED: &str = "mysql_clear_password, which reveals it; give the user another plugin, or write \
                             allowCleartextPasswords=true and use TLS or a Unix socket";
    const READABLE: &str = "mysql_clear_password, and the connection is not encrypted; enable TLS";
    let clear_text = [PASSWORD.as_bytes(), b"\0"].concat();
    for (is_socket, options, expected) in [
        (false, "", NOT_ASKED),
        (false, "?allowOldPasswords=true", NOT_ASKED),
        (false, ASKED, READABLE),
        (true, "", NOT_ASKED),
        (true, ASKED, "no"),
    ] {
        for begins_with_it in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (server, received) = requests_clear_text(begins_with_it);
            let source =
                if is_socket { serve_at(&dir.path().join("my.sock"), server) } else { serve(server) };
            let error = open(&format!("{source}{options}")).err().unwrap();
            assert!(error.message.contains(expected), "{options}: {error}");
            assert_eq!(error.kind, ErrorKind::User);
            let has_it =
                |payload: &Vec<u8>| payload.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes());
            let revealed: Vec<_> = received.into_iter().filter(has_it).collect();
            let is_revealed = is_socket && options == ASKED;
            assert_eq!(
                revealed,
                if is_revealed { vec![clear_text.clone()] } else { Vec::new() },
                "{options}"
            );
        }
    }
}

#[test]
fn old_hash_is_sent_if_that_is_asked_for_and_nobody_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    for (is_socket, options, expected) in [
        (false, "", "mysql_old_password, which reveals it"),
        (true, "?allowCleartextPasswords=true", "write allowOldPasswords=true"),
        (false, "?allowOldPasswords=true", "the connection is not encrypted"),
        (true, "?allowOldPasswords=true", "no"),
    ] {
        let server = |peer: &mut Peer| {
            peer.greet("mysql_native_password");
            peer.receive();
            peer.send(b"\xfe");
            peer.receive();
            peer.send(b"\xff\x15\x04#28000no");
        };
        let path = dir.path().join(options.len().to_string());
        let source = if is_socket { serve_at(&path, server) } else { serve(server) };
        let error = open(&format!("{source}{options}")).err().unwrap();
        assert!(error.message.contains(expected), "{options}: {error}");
    }
}

#[test]
fn password_is_sent_hashed_or_encrypted() {
    let source = serve(|peer| {
        peer.greet("caching_sha2_password");
        let login = peer.receive();
        assert!(login.windows(22).any(|it| it == b"caching_sha2_password\0"));
        // The account is not in the server's cache.
        peer.send(&[1, 4]);
        assert_eq!(peer.receive(), [2], "the request for the server's key");
        peer.send(b"\x01no key");
    });
    let error = open(&source).err().unwrap();
    assert!(error.message.ends_with("a malformed challenge during authentication"), "{error}");
    let source = serve(|peer| {
        peer.greet("caching_sha2_password");
        peer.receive();
        peer.send(&[1, 3]);
        peer.send(OK);
        peer.receive();
        peer.send(OK);
    });
    open(&source).unwrap();
}

#[test]
fn login_fails_with_one_clear_error() {
    type Response = fn(&mut Peer);
    let cases: [(&str, Response, ErrorKind, &str); 6] = [
        (
            "",
            |peer| peer.send(b"\xff\x10\x04Too many connections"),
            ErrorKind::Unavailable,
            "Too many connections",
        ),
        (
            "",
            |peer| peer.send(b"SSH-2.0"),
            ErrorKind::Unavailable,
            "it does not greet as a MySQL server does",
        ),
        (
            "?tls=true",
            |peer| peer.greet("mysql_native_password"),
            ErrorKind::User,
            "the data source demands TLS",
        ),
        ("?tls=skip-verify", |peer| peer.greet("x"), ErrorKind::User, "the data source demands TLS"),
        (
            "",
            |peer| {
                peer.greet("mysql_native_password");
                peer.receive();
                peer.send(b"\xfeauth_gssapi_client\0x");
            },
            ErrorKind::User,
            "the authentication plugin \"auth_gssapi_client\" of this user is not supported",
        ),
        (
            "",
            |peer| {
                peer.greet("caching_sha2_password");
                while !peer.receive().is_empty() {
                    peer.send(b"\xfemysql_native_password\0abcdefghijklmnopqrst\0");
                }
            },
            ErrorKind::Unavailable,
            "the authentication does not end",
        ),
    ];
    for (options, response, kind, expected) in cases {
        let source = serve(response);
        let error = open(&format!("{source}{options}")).err().unwrap();
        assert_eq!((error.kind, error.message.contains(expected)), (kind, true), "{error}");
        assert!(!error.message.contains(PASSWORD));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]
    #[test]
    fn no_login_panics(
        plugin in "mysql_native_password|caching_sha2_password|sha256_password|mysql_old_password|client_ed25519|x?",
        cut in 0..80_usize,
        answers in proptest::collection::vec(
            (prop_oneof![Just(0_u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()], "[a-z_]{0,2}|sha256_password.?|mysql_old_password.?|caching_sha2_password.?|mysql_native_password.?", proptest::collection::vec(any::<u8>(), 0..24)),
            0..5,
        ),
    ) {
        let source = serve(move |peer| {
            if cut < 60 {
                peer.send(&greeting(&plugin)[..cut.min(greeting(&plugin).len())]);
            } else {
                peer.greet(&plugin);
            }
            for (kind, name, rest) in answers {
                peer.send(&[&[kind], name.replace('.', "\0").as_bytes(), &rest].concat());
            }
            peer.stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let _ = open(&format!("{source}?allowOldPasswords=true"));
    }
}
