//! The values in a URI.

use std::collections::HashMap;
use std::time::Duration;

use super::{PostgresqlHost, malformed, value};
use crate::DataSourceError;

const DEFAULT_PORT: u16 = 5432;
/// Maximum number of hosts, which are tried in order.
const MAX_HOSTS: usize = 16;

/// libpq's options that are rejected, because only libpq supports them.
pub(super) const UNSUPPORTED: [&str; 23] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "servicefile",
    "ssl_max_protocol_version",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
];

const SUPPORTED: [&str; 29] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcompression",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "ssl",
];

/// The values of a URI by libpq's names. The last one of a name counts.
pub(super) struct Values(HashMap<&'static str, String>);

impl Values {
    pub(super) fn parse(rest: &str) -> Result<Self, DataSourceError> {
        let mut values = Self(HashMap::new());
        // The user ends before the first `/`, and an `@` elsewhere is part of a password that is not escaped: it would
        // be taken for a host or port, and shown in messages.
        let (place, options) = match rest.find(['@', '/']) {
            Some(end) if rest[end..].starts_with('@') => {
                values.login(&rest[..end])?;
                split_options(&rest[end + 1..])
            }
            _ => split_options(rest),
        };
        if place.contains('@') {
            return Err(malformed());
        }
        let (servers, database) = place.split_once('/').unwrap_or((place, ""));
        values.servers(servers)?;
        values.set("dbname", database)?;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').ok_or(malformed())?;
            values.option(&decode(name)?, value, !options.contains('@'))?;
        }
        Ok(values)
    }

    fn login(&mut self, login: &str) -> Result<(), DataSourceError> {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        self.set("user", user)?;
        self.set("password", password)
    }

    /// `host:port,host:port`.
    fn servers(&mut self, servers: &str) -> Result<(), DataSourceError> {
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for server in servers.split(',') {
            let (name, port) = match server.strip_prefix('[') {
                Some(address) => {
                    let (address, rest) = address.split_once(']').ok_or(malformed())?;
                    let port = if rest.is_empty() { Some("") } else { rest.strip_prefix(':') };
                    (address, port.ok_or(malformed())?)
                }
                None => server.split_once(':').unwrap_or((server, "")),
            };
            names.push(name);
            ports.push(port);
        }
        self.set("host", &names.join(","))?;
        let has_port = ports.iter().any(|port| !port.is_empty());
        if has_port { self.set("port", &ports.join(",")) } else { Ok(()) }
    }

    fn option(&mut self, name: &str, value: &str, may_show: bool) -> Result<(), DataSourceError> {
        if (name, value) == ("ssl", "true") {
            // As libpq does, for JDBC's URIs.
            return self.set("sslmode", "require");
        }
        if let Some(name) = UNSUPPORTED.iter().find(|it| **it == name) {
            return Err(DataSourceError::PostgresqlUnsupported(name));
        }
        let known = SUPPORTED.iter().find(|it| **it == name && name != "ssl");
        let is_word = name.len() <= 32 && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        match known {
            Some(name) => self.set(name, value),
            // Other text could be a part of a password.
            None if may_show && is_word => Err(DataSourceError::PostgresqlOption(name.to_owned())),
            None => Err(malformed()),
        }
    }

    fn set(&mut self, name: &'static str, value: &str) -> Result<(), DataSourceError> {
        let value = decode(value)?;
        if value.is_empty() {
            self.0.remove(name);
        } else {
            self.0.insert(name, value);
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    pub(super) fn integer(&self, name: &'static str) -> Result<Option<i32>, DataSourceError> {
        let number = self.get(name).map(|it| it.trim().parse().map_err(|_| value(name, "a whole number")));
        number.transpose()
    }

    /// A positive number. Others mean the system's value.
    pub(super) fn duration(
        &self,
        name: &'static str,
        unit: impl Fn(u64) -> Duration,
    ) -> Result<Option<Duration>, DataSourceError> {
        Ok(self.integer(name)?.filter(|it| *it > 0).map(|it| unit(it.unsigned_abs().into())))
    }

    /// Rejects values that only libpq supports.
    pub(super) fn only(
        &self,
        name: &'static str,
        supported: &'static [&'static str],
    ) -> Result<(), DataSourceError> {
        match self.get(name) {
            Some(given) if !supported.contains(&given) => Err(value(name, supported[0])),
            _ => Ok(()),
        }
    }

    pub(super) fn hosts(&self) -> Result<Vec<PostgresqlHost>, DataSourceError> {
        let list = |name| self.get(name).map(|it| it.split(',').collect::<Vec<_>>()).unwrap_or_default();
        let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = names.len().max(addresses.len());
        let fits = |list: &[&str]| list.is_empty() || list.len() == count;
        if count == 0
            || count > MAX_HOSTS
            || !fits(&names)
            || !fits(&addresses)
            || ports.len() > 1 && !fits(&ports)
        {
            return Err(malformed());
        }
        (0..count)
            .map(|place| {
                let address = addresses.get(place).copied().unwrap_or_default();
                let name = names.get(place).filter(|it| !it.is_empty()).copied().unwrap_or(address);
                let port = ports.get(place).or(ports.first()).copied().unwrap_or_default();
                Ok(PostgresqlHost {
                    name: host_name(name)?,
                    address: match address {
                        "" => None,
                        text => Some(text.parse().map_err(|_| value("hostaddr", "an IP address"))?),
                    },
                    port: match port {
                        "" => DEFAULT_PORT,
                        port => port.parse().ok().filter(|port| *port > 0).ok_or(malformed())?,
                    },
                })
            })
            .collect()
    }
}

fn host_name(name: &str) -> Result<String, DataSourceError> {
    let is_name = !name.is_empty() && (name.starts_with('/') || !name.contains(['(', ')', ' ', '/', '@']));
    if is_name { Ok(name.to_owned()) } else { Err(malformed()) }
}

fn split_options(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// Decodes `%40`. An invalid escape and a NUL character are errors, as in libpq.
fn decode(text: &str) -> Result<String, DataSourceError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|it| char::from(it).to_digit(16)).ok_or(malformed());
                let code = digit()? * 16 + digit()?;
                u8::try_from(code).map_err(|_| malformed())?
            }
            byte => byte,
        };
        if byte == 0 {
            return Err(malformed());
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}
