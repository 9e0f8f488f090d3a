//! Login: the server's greeting, TLS, and the authentication.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mysql_common::auth::plugins::{AuthProc, ChallengeResponsePlugin as _, Context};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use sqlflow_data_source::{MysqlAddress, MysqlSource, MysqlTls};

use super::failure::Failure;
use super::packets::Packets;
use super::stream;
use crate::Error;
use crate::stream::Stream;

/// Limit of rows that is announced to the server. The actual one is checked while reading.
const MAX_PACKET: u32 = 1 << 30;
/// `utf8mb4_general_ci`, which all servers know.
const COLLATION: u8 = 45;
/// Maximum number of packets that an authentication takes.
const MAX_ROUNDS: usize = 16;

/// A session of a server.
pub(super) struct Session {
    pub(super) packets: Packets,
    /// The server's id of the connection.
    pub(super) connection_id: u32,
    pub(super) capabilities: CapabilityFlags,
}

/// Connects and logs in, within the timeout.
pub(super) fn log_in(source: &MysqlSource, timeout: Duration) -> Result<Session, Failure> {
    let deadline = Instant::now() + timeout;
    let mut packets = Packets::new(stream::connect(&source.address, deadline)?, deadline);
    let greeting = packets.receive()?;
    if greeting.first() == Some(&0xff) {
        return Err(Failure::from_packet(greeting));
    }
    let greeting: HandshakePacket<'_> = ParseBuf(greeting)
        .parse(())
        .map_err(|_| Failure::Protocol("it does not greet as a MySQL server does"))?;
    let greeting = greeting.into_owned();
    let capabilities = wanted(source) & (greeting.capabilities() | CapabilityFlags::CLIENT_SSL);
    if !capabilities.contains(CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_SECURE_CONNECTION)
    {
        return Err(Failure::Protocol("its protocol is older than that of MySQL 4.1"));
    }
    let offers_tls = greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL);
    let (mut packets, capabilities) = encrypt(packets, source, capabilities, offers_tls)?;
    authenticate(&mut packets, source, &greeting, capabilities)?;
    packets.login_ended()?;
    Ok(Session { packets, connection_id: greeting.connection_id(), capabilities })
}

/// Local files are never offered, and several statements in one are rejected by the server.
fn wanted(source: &MysqlSource) -> CapabilityFlags {
    let always = CapabilityFlags::CLIENT_LONG_PASSWORD
        | CapabilityFlags::CLIENT_LONG_FLAG
        | CapabilityFlags::CLIENT_PROTOCOL_41
        | CapabilityFlags::CLIENT_TRANSACTIONS
        | CapabilityFlags::CLIENT_SECURE_CONNECTION
        | CapabilityFlags::CLIENT_MULTI_RESULTS
        | CapabilityFlags::CLIENT_PLUGIN_AUTH
        | CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA
        | CapabilityFlags::CLIENT_CONNECT_ATTRS;
    if source.database.is_empty() { always } else { always | CapabilityFlags::CLIENT_CONNECT_WITH_DB }
}

fn encrypt(
    mut packets: Packets,
    source: &MysqlSource,
    capabilities: CapabilityFlags,
    offers_tls: bool,
) -> Result<(Packets, CapabilityFlags), Failure> {
    let MysqlAddress::Tcp { host, .. } = &source.address else { return Ok((packets, capabilities)) };
    let (is_required, is_verified) = match source.tls {
        MysqlTls::Off => return Ok((packets, capabilities)),
        MysqlTls::Preferred => (false, false),
        MysqlTls::Unverified => (true, false),
        MysqlTls::Verified => (true, true),
    };
    if !offers_tls {
        return if is_required {
            let address = &source.address;
            Err(Failure::Other(Error::user(format!(
                "cannot connect to MySQL server at {address}: the data source demands TLS, which the server does not \
                 support; enable TLS in the server, or write tls=false"
            ))))
        } else {
            Ok((packets, capabilities))
        };
    }
    let capabilities = capabilities | CapabilityFlags::CLIENT_SSL;
    packets.send(&serialized(&SslRequest::new(capabilities, MAX_PACKET, COLLATION)))?;
    Ok((packets.encrypt(host, is_verified)?, capabilities))
}

fn authenticate(
    packets: &mut Packets,
    source: &MysqlSource,
    greeting: &HandshakePacket<'_>,
    capabilities: CapabilityFlags,
) -> Result<(), Failure> {
    let user = if source.user.is_empty() { crate::connect::system_user()? } else { source.user.clone() };
    let mut login = Login {
        password: source.password.as_bytes(),
        is_encrypted: matches!(packets.stream(), Stream::Tls(_)),
        is_local: packets.stream().socket().is_unix(),
        allows_clear_text: source.allows_clear_text,
        allows_old_hash: source.allows_old_hash,
        scramble: greeting.nonce(),
    };
    // The server switches to the plugin of the user's account.
    let plugin = greeting.auth_plugin().filter(is_usual).unwrap_or(AuthPlugin::MysqlNativePassword);
    let mut procedure = login.begin(&plugin)?;
    let first = procedure.run(&login, &login.scramble).map_err(plugin_failed)?;
    let attributes = HashMap::from([
        ("_client_name".to_owned(), "sqlflow".to_owned()),
        ("program_name".to_owned(), "sqlflow".to_owned()),
        ("_pid".to_owned(), std::process::id().to_string()),
    ]);
    let response = HandshakeResponse::new(
        first.data(),
        // As of a server that knows utf8mb4.
        (8, 0, 0),
        Some(user.as_bytes()),
        capabilities.contains(CapabilityFlags::CLIENT_CONNECT_WITH_DB).then_some(source.database.as_bytes()),
        capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH).then_some(plugin),
        capabilities,
        capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then_some(attributes),
        MAX_PACKET,
    );
    packets.send(&serialized(&response))?;
    for _ in 0..MAX_ROUNDS {
        let packet = packets.receive()?;
        let answer = match packet {
            [0x00, ..] => return Ok(()),
            [0xff, ..] => return Err(Failure::from_packet(packet)),
            [0x01, challenge @ ..] => procedure.run(&login, challenge).map_err(plugin_failed)?,
            [0xfe] => {
                procedure = login.begin(&AuthPlugin::MysqlOldPassword)?;
                procedure.run(&login, &login.scramble).map_err(plugin_failed)?
            }
            [0xfe, ..] => {
                let request: AuthSwitchRequest<'_> = ParseBuf(packet)
                    .parse(())
                    .map_err(|_| Failure::Protocol("a malformed change of the authentication plugin"))?;
                procedure = login.begin(&request.auth_plugin())?;
                login.scramble = request.plugin_data().to_vec();
                procedure.run(&login, &login.scramble).map_err(plugin_failed)?
            }
            _ => return Err(Failure::Protocol("an unknown packet during authentication")),
        };
        if let Some(data) = answer.data() {
            packets.send(data)?;
        }
    }
    Err(Failure::Protocol("the authentication does not end"))
}

/// Whether a plugin may begin, before the server has seen the user's name. Others reveal more of the password.
fn is_usual(plugin: &AuthPlugin<'_>) -> bool {
    matches!(plugin, AuthPlugin::MysqlNativePassword | AuthPlugin::CachingSha2Password)
}

struct Login<'a> {
    password: &'a [u8],
    is_encrypted: bool,
    is_local: bool,
    allows_clear_text: bool,
    allows_old_hash: bool,
    scramble: Vec<u8>,
}

impl Login<'_> {
    fn begin(&self, plugin: &AuthPlugin<'_>) -> Result<AuthProc, Failure> {
        let name = String::from_utf8_lossy(plugin.as_bytes()).into_owned();
        let weak = match plugin {
            AuthPlugin::MysqlClearPassword => Some(("allowCleartextPasswords=true", self.allows_clear_text)),
            AuthPlugin::MysqlOldPassword => Some(("allowOldPasswords=true", self.allows_old_hash)),
            _ => None,
        };
        let cannot = |why: String| Err(Failure::Other(Error::user(format!("cannot log in: {why}"))));
        match weak {
            Some((option, false)) => {
                return cannot(format!(
                    "the server requests the password by the plugin {name}, which reveals it; give the user another \
                     plugin, or write {option} and use TLS or a Unix socket"
                ));
            }
            Some(_) if !(self.is_encrypted || self.is_local) => {
                return cannot(format!(
                    "the server requests the password by the plugin {name}, and the connection is not encrypted; enable \
                     TLS in the server, or use its Unix socket"
                ));
            }
            _ => {}
        }
        let is_built = !matches!(plugin, AuthPlugin::Ed25519 | AuthPlugin::Parsec | AuthPlugin::Other(_));
        plugin.init().ok().filter(|_| is_built).ok_or_else(|| {
            Failure::Other(Error::user(format!(
                "cannot log in: the authentication plugin {name:?} of this user is not supported; use \
                 caching_sha2_password or mysql_native_password"
            )))
        })
    }
}

impl Context for &Login<'_> {
    fn pass(&self) -> &[u8] {
        self.password
    }

    fn is_ipc_transport(&self) -> bool {
        self.is_local
    }

    fn is_tls_transport(&self) -> bool {
        self.is_encrypted
    }

    fn scramble(&self) -> &[u8] {
        &self.scramble
    }

    fn server_key_pem(&self) -> Option<&[u8]> {
        None
    }
}

fn plugin_failed(_: mysql_common::auth::plugins::Error) -> Failure {
    Failure::Protocol("a malformed challenge during authentication")
}

fn serialized(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn handshake_has_a_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address =
            MysqlAddress::Tcp { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // A long record, one byte at a time, until the client gives up.
            stream.write_all(b"\x16\x03\x03\x3f\xff").unwrap();
            while stream.write_all(b"\0").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let stream = stream::connect(&address, Instant::now() + Duration::from_millis(300)).unwrap();
        let error = stream::encrypt(stream, "127.0.0.1", false).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }

    #[test]
    fn login_has_a_deadline() {
        for sends in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                if sends {
                    stream.write_all(b"\xff\xff\0\0").unwrap();
                }
                // A long packet, one byte at a time, until the client gives up.
                while sends && stream.write_all(b"\0").is_ok() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let _ = std::io::Read::read(&mut stream, &mut [0]);
            });
            let source = sqlflow_data_source::mysql(&format!("mysql://u:p@127.0.0.1:{port}/")).unwrap();
            let error =
                log_in(&source, Duration::from_millis(300)).err().unwrap().into_error(&source.address);
            let expected = format!("MySQL server at 127.0.0.1:{port}: no response in time");
            assert_eq!((error.kind, error.message), (crate::ErrorKind::Unavailable, expected), "{sends}");
        }
    }
}
