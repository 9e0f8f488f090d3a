//! Logins at servers that send what no real one does.

use std::sync::mpsc::{Receiver, Sender, channel};

use proptest::prelude::*;

use super::tests::{OK, PASSWORD, Peer, greeting, open, serve};
use crate::ErrorKind;

#[test]
fn password_is_not_sent_in_clear_text() {
    for begins_with_it in [true, false] {
        let (sent, received): (Sender<Vec<u8>>, Receiver<_>) = channel();
        let source = serve(move |peer| {
            peer.greet(if begins_with_it { "mysql_clear_password" } else { "mysql_native_password" });
            sent.send(peer.receive()).unwrap();
            peer.send(b"\xfemysql_clear_password\0");
            sent.send(peer.receive()).unwrap();
        });
        let error = open(&source).err().unwrap();
        assert_eq!(error.kind, ErrorKind::User);
        assert!(
            error.message.contains("mysql_clear_password, and the connection is not encrypted"),
            "{error}"
        );
        for payload in received {
            assert!(!payload.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes()));
        }
        let source = serve(|peer| {
            peer.greet("mysql_native_password");
            peer.receive();
            peer.send(b"\xfemysql_clear_password\0");
            assert_eq!(peer.receive(), [PASSWORD.as_bytes(), b"\0"].concat());
            peer.send(b"\xff\x15\x04#28000no");
        });
        let allowed = format!("{source}?allowCleartextPasswords=true");
        assert_eq!(open(&allowed).err().unwrap().message, "no");
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
