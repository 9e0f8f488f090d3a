//! Authentication: the client's side of the methods that PostgreSQL asks for.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use sqlflow_data_source::ChannelBinding;

use super::messages::{chunk, text};

/// An authentication. Its errors are causes, in one line.
pub(super) struct Authentication<'a> {
    user: &'a str,
    password: Option<&'a str>,
    channel_binding: ChannelBinding,
    /// Binds it to the TLS connection. `None`: that is not possible.
    end_point: Option<Vec<u8>>,
    exchange: Exchange,
}

/// State of the exchange.
enum Exchange {
    /// SCRAM has not begun.
    None,
    /// SCRAM has begun.
    Scram { state: Box<ScramSha256>, is_bound: bool },
    /// SCRAM has ended: the server has proved that it knows the password.
    Proved { is_bound: bool },
}

/// What follows a message.
pub(super) enum Next {
    /// An answer, if any.
    Answer(BytesMut),
    /// The user is authenticated.
    Done,
}

impl<'a> Authentication<'a> {
    pub(super) fn new(
        user: &'a str,
        password: Option<&'a str>,
        channel_binding: ChannelBinding,
        end_point: Option<Vec<u8>>,
    ) -> Self {
        Self { user, password, channel_binding, end_point, exchange: Exchange::None }
    }

    /// Reacts to the body of an authentication message.
    pub(super) fn react(&mut self, mut body: &[u8]) -> Result<Next, String> {
        let malformed = || "its request for authentication is malformed".to_owned();
        let method = u32::from_be_bytes(chunk(&mut body).ok_or_else(malformed)?);
        let mut out = BytesMut::new();
        match method {
            0 => return self.end(),
            3 | 5 if self.channel_binding == ChannelBinding::Require => return Err(unbound()),
            3 => frontend::password_message(self.password()?.as_bytes(), &mut out)
                .map_err(|it| it.to_string())?,
            5 => {
                let salt = chunk(&mut body).ok_or_else(malformed)?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), &mut out).map_err(|it| it.to_string())?;
            }
            10 => self.begin_scram(body, &mut out)?,
            11 | 12 => self.continue_scram(method, body, &mut out)?,
            7 | 8 => return Err(unsupported("GSSAPI")),
            9 => return Err(unsupported("SSPI")),
            2 => return Err(unsupported("Kerberos")),
            other => return Err(unsupported(&format!("method {other}"))),
        }
        Ok(Next::Answer(out))
    }

    fn password(&self) -> Result<&'a str, String> {
        self.password.ok_or_else(|| {
            format!("it asks for the password of user {}; add the password to the data source", self.user)
        })
    }

    fn end(&self) -> Result<Next, String> {
        match &self.exchange {
            // Only a server that knows the password can end the exchange.
            Exchange::Scram { .. } => Err("it ended the authentication too early".to_owned()),
            Exchange::Proved { is_bound: true } => Ok(Next::Done),
            _ if self.channel_binding == ChannelBinding::Require => Err(unbound()),
            _ => Ok(Next::Done),
        }
    }

    fn begin_scram(&mut self, mut body: &[u8], out: &mut BytesMut) -> Result<(), String> {
        let (mut has_scram, mut has_plus) = (false, false);
        while let Some(mechanism) = text(&mut body).filter(|it| !it.is_empty()) {
            has_scram |= mechanism == SCRAM_SHA_256;
            has_plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let end_point = self.end_point.take().filter(|_| self.channel_binding != ChannelBinding::Disable);
        let is_bound = has_plus && end_point.is_some();
        if self.channel_binding == ChannelBinding::Require && !is_bound {
            return Err(unbound());
        }
        if !has_scram && !is_bound {
            return Err(unsupported("a SASL mechanism other than SCRAM-SHA-256"));
        }
        let (mechanism, binding) = match end_point {
            Some(hash) if has_plus => (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)),
            // It would be possible, so the server detects that somebody has removed its offer.
            Some(_) => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        let state = ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, state.message(), out).map_err(|it| it.to_string())?;
        self.exchange = Exchange::Scram { state: Box::new(state), is_bound };
        Ok(())
    }

    fn continue_scram(&mut self, method: u32, body: &[u8], out: &mut BytesMut) -> Result<(), String> {
        let cannot = |it: std::io::Error| format!("the authentication by SCRAM-SHA-256 failed: {it}");
        let Exchange::Scram { state, is_bound } = &mut self.exchange else {
            return Err("it continued an authentication that had not begun".to_owned());
        };
        if method == 11 {
            state.update(body).map_err(cannot)?;
            return frontend::sasl_response(state.message(), out).map_err(cannot);
        }
        state.finish(body).map_err(cannot)?;
        self.exchange = Exchange::Proved { is_bound: *is_bound };
        Ok(())
    }
}

fn unbound() -> String {
    "it does not bind the authentication to the TLS connection, which channel_binding=require demands"
        .to_owned()
}

fn unsupported(method: &str) -> String {
    format!(
        "it asks for authentication by {method}, which is not supported; use scram-sha-256 in its pg_hba.conf"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn method(number: u32, rest: &[u8]) -> Vec<u8> {
        [&number.to_be_bytes()[..], rest].concat()
    }

    fn answer(next: Next) -> Vec<u8> {
        match next {
            Next::Answer(bytes) => bytes.to_vec(),
            Next::Done => panic!("done"),
        }
    }

    fn prefer() -> Authentication<'static> {
        Authentication::new("u", Some("secret"), ChannelBinding::Prefer, None)
    }

    #[test]
    fn passwords_are_sent_as_asked_for() {
        assert_eq!(answer(prefer().react(&method(3, b"")).unwrap()), b"p\0\0\0\x0bsecret\0");
        let hashed = answer(prefer().react(&method(5, b"salt")).unwrap());
        assert!(hashed.starts_with(b"p\0\0\0\x28md5"), "{hashed:?}");
        let error = Authentication::new("u", None, ChannelBinding::Prefer, None).react(&method(3, b"")).err();
        assert_eq!(error.unwrap(), "it asks for the password of user u; add the password to the data source");
        let error = prefer().react(&method(7, b"")).err().unwrap();
        assert!(error.contains("GSSAPI"), "{error}");
    }

    #[test]
    fn scram_is_bound_if_both_sides_can() {
        let both = method(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
        let plain = method(10, b"SCRAM-SHA-256\0\0");
        let begin = |binding, end_point: Option<&[u8]>, offer: &[u8]| {
            let mut it = Authentication::new("u", Some("secret"), binding, end_point.map(<[u8]>::to_vec));
            it.react(offer).map(|next| String::from_utf8_lossy(&answer(next)).into_owned())
        };
        let hash = Some(&b"hash"[..]);
        let bound = begin(ChannelBinding::Prefer, hash, &both).unwrap();
        assert!(
            bound.contains("SCRAM-SHA-256-PLUS\0") && bound.contains("p=tls-server-end-point,,"),
            "{bound}"
        );
        assert!(begin(ChannelBinding::Prefer, hash, &plain).unwrap().contains("y,,"));
        assert!(begin(ChannelBinding::Prefer, None, &both).unwrap().contains("n,,"));
        assert!(begin(ChannelBinding::Disable, hash, &both).unwrap().contains("n,,"));
        assert!(begin(ChannelBinding::Require, hash, &both).unwrap().contains("p=tls-server-end-point,,"));
        for (end_point, offer) in [(hash, &plain), (None, &both)] {
            assert!(
                begin(ChannelBinding::Require, end_point, offer).unwrap_err().contains("channel_binding")
            );
        }
        for offer in [method(0, b""), method(3, b""), method(5, b"salt")] {
            assert!(begin(ChannelBinding::Require, hash, &offer).unwrap_err().contains("channel_binding"));
        }
    }

    #[test]
    fn server_must_prove_that_it_knows_the_password() {
        let mut it = prefer();
        it.react(&method(10, b"SCRAM-SHA-256\0\0")).unwrap();
        assert!(it.react(&method(0, b"")).is_err());
        assert!(it.react(&method(12, b"v=AAAA")).is_err());
        let mut it = prefer();
        it.react(&method(10, b"SCRAM-SHA-256\0\0")).unwrap();
        assert!(it.react(&method(11, b"r=other,s=c2FsdA==,i=4096")).is_err());
    }

    proptest! {
        #[test]
        fn no_message_panics(messages in proptest::collection::vec((0_u32..14, any::<Vec<u8>>()), 0..6)) {
            let mut it = prefer();
            for (number, rest) in messages {
                let _ = it.react(&method(number, &rest));
            }
            let _ = it.react(b"\0");
        }
    }
}
