//! Data sources of MySQL and MariaDB, in the form of Go's MySQL driver.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::DataSourceError;

/// The form, for messages.
const FORM: &str = "mysql://user:password@tcp(host:3306)/database";
const DEFAULT_PORT: u16 = 3306;

/// Options that configure Go's driver. All other options are session variables, as in Go. Those that have no equivalent
/// here are ignored.
const DRIVER_OPTIONS: [&str; 24] = [
    "allowAllFiles",
    "allowCleartextPasswords",
    "allowFallbackToPlaintext",
    "allowNativePasswords",
    "allowOldPasswords",
    "charset",
    "checkConnLiveness",
    "clientFoundRows",
    "collation",
    "columnsWithAlias",
    "compress",
    "connectionAttributes",
    "interpolateParams",
    "loc",
    "maxAllowedPacket",
    "multiStatements",
    "parseTime",
    "readTimeout",
    "rejectReadOnly",
    "serverPubKey",
    "timeTruncate",
    "timeout",
    "tls",
    "writeTimeout",
];

/// The address of a MySQL server, and the login.
#[derive(Clone, PartialEq, Eq)]
pub struct MysqlSource {
    /// User; empty if none is given.
    pub user: String,
    /// Password; empty if none is given.
    pub password: String,
    /// Where the server listens.
    pub address: MysqlAddress,
    /// The session's database; empty if none is given.
    pub database: String,
    /// Whether the connection is encrypted.
    pub tls: MysqlTls,
    /// Whether the server may request the password in clear text, over TLS or a Unix socket.
    pub allows_clear_text: bool,
    /// Whether the server may request the password hashed as in MySQL 4.0, over TLS or a Unix socket.
    pub allows_old_hash: bool,
    /// Name of an option that, in some driver, names a file or gives access to files. It has no effect here.
    pub file_option: Option<String>,
    /// Session variables and their values, as SQL.
    pub variables: Vec<(String, String)>,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MysqlAddress {
    /// A TCP port.
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

/// Whether a TCP connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MysqlTls {
    /// If the server supports it. Its certificate is not verified: the default.
    Preferred,
    /// Always. The server's certificate is verified: `tls=true`.
    Verified,
    /// Always. The server's certificate is not verified: `tls=skip-verify`.
    Unverified,
    /// Never: `tls=false`.
    Off,
}

impl fmt::Display for MysqlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// Without the password.
impl fmt::Debug for MysqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlSource")
            .field("user", &self.user)
            .field("address", &self.address)
            .field("database", &self.database)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Parses `mysql://user:password@tcp(host:port)/database?option=value`, and the forms with `unix(/path)` and
/// `host:port`.
///
/// As in Go, the password is not escaped: the last `/` begins the database, and the last `@` before it ends the password.
///
/// # Errors
/// It is malformed. The message has no part of the text, which may be a password.
pub fn mysql(data_source: &str) -> Result<MysqlSource, DataSourceError> {
    parse(data_source.strip_prefix("mysql://").ok_or(DataSourceError::Malformed { form: FORM })?)
}

pub(crate) fn parse(rest: &str) -> Result<MysqlSource, DataSourceError> {
    let malformed = DataSourceError::Malformed { form: FORM };
    let (place, rest) = rest.rsplit_once('/').ok_or(malformed.clone())?;
    let (database, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (login, address) = place.rsplit_once('@').unwrap_or(("", place));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut source = MysqlSource {
        user: user.to_owned(),
        password: password.to_owned(),
        address: parse_address(address).ok_or(malformed)?,
        database: decoded(database),
        tls: MysqlTls::Preferred,
        allows_clear_text: false,
        allows_old_hash: false,
        file_option: None,
        variables: Vec::new(),
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = decoded(value);
        if is_of_file(name, &value) {
            source.file_option = Some(name.to_owned());
        }
        match name {
            "tls" => source.tls = parse_tls(&value)?,
            "allowCleartextPasswords" => source.allows_clear_text |= is_true(&value),
            "allowOldPasswords" => source.allows_old_hash |= is_true(&value),
            _ if DRIVER_OPTIONS.contains(&name) => {}
            _ => source.variables.push((name.to_owned(), value)),
        }
    }
    Ok(source)
}

/// Whether an option names a file in Go's driver or in those of C, or lets a server read files.
fn is_of_file(name: &str, value: &str) -> bool {
    match name {
        "allowAllFiles" => is_true(value),
        "serverPubKey" => true,
        _ => name.get(..3).is_some_and(|it| it.eq_ignore_ascii_case("ssl")),
    }
}

/// As Go's driver reads it.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true" | "TRUE" | "True")
}

/// The values that Go's driver accepts without registration.
fn parse_tls(value: &str) -> Result<MysqlTls, DataSourceError> {
    match value.to_ascii_lowercase().as_str() {
        "" | "preferred" => Ok(MysqlTls::Preferred),
        "true" | "1" => Ok(MysqlTls::Verified),
        "skip-verify" => Ok(MysqlTls::Unverified),
        "false" | "0" => Ok(MysqlTls::Off),
        _ => Err(DataSourceError::MysqlTls),
    }
}

/// `tcp(host:port)`, `unix(/path)` or `host:port`. Without a host it is this machine, as in Go.
fn parse_address(address: &str) -> Option<MysqlAddress> {
    let inside = |network: &str| address.strip_prefix(network)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(path) = inside("unix") {
        return path.starts_with('/').then(|| MysqlAddress::Socket(path.into()));
    }
    let address = inside("tcp").unwrap_or(address);
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let is_address =
                !host.is_empty() && host.bytes().all(|it| it.is_ascii_hexdigit() || b":.".contains(&it));
            (is_address.then_some(host)?, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    let is_name = |it: char| !it.is_whitespace() && !it.is_control() && !"()[]".contains(it);
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    host.chars().all(is_name).then(|| MysqlAddress::Tcp { host: host.to_owned(), port })
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> MysqlAddress {
        MysqlAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn forms_of_go_are_parsed() {
        let source =
            mysql("mysql://u:p/w@rd:x?y@tcp(db.example:3307)/d?maxAllowedPacket=0&sql_mode=%27ANSI%27")
                .unwrap();
        assert_eq!((source.user.as_str(), source.password.as_str()), ("u", "p/w@rd:x?y"));
        assert_eq!((source.address, source.database.as_str()), (tcp("db.example", 3307), "d"));
        assert_eq!(source.variables, [("sql_mode".to_owned(), "'ANSI'".to_owned())]);
        for (text, address, database) in [
            ("mysql://u@unix(/run/my.sock)/d", MysqlAddress::Socket("/run/my.sock".into()), "d"),
            ("mysql:///d", tcp("127.0.0.1", 3306), "d"),
            ("mysql://u:p@[::1]:3308/", tcp("::1", 3308), ""),
            ("mysql://u:p@tcp([::1])/a%2Fb", tcp("::1", 3306), "a/b"),
            ("mysql://u:p@db/d", tcp("db", 3306), "d"),
            ("mysql://u:p@tcp(db)/?", tcp("db", 3306), ""),
        ] {
            let source = mysql(text).unwrap();
            assert_eq!((source.address, source.database.as_str()), (address, database), "{text}");
        }
        assert_eq!(mysql("mysql://u@unix(/run/my.sock)/d").unwrap().address.to_string(), "/run/my.sock");
        assert_eq!(mysql("mysql://u@db/d").unwrap().address.to_string(), "db:3306");
    }

    #[test]
    fn options_are_parsed() {
        for (option, tls) in [
            ("", MysqlTls::Preferred),
            ("?tls=preferred", MysqlTls::Preferred),
            ("?tls=true", MysqlTls::Verified),
            ("?tls=skip-verify&", MysqlTls::Unverified),
            ("?tls=true&tls=False", MysqlTls::Off),
        ] {
            assert_eq!(mysql(&format!("mysql://u:p@h/d{option}")).unwrap().tls, tls, "{option}");
        }
        assert_eq!(mysql("mysql://u:p@h/d?tls=custom"), Err(DataSourceError::MysqlTls));
        for (option, expected) in [
            ("", [false, false]),
            ("?allowOldPasswords=false", [false, false]),
            ("?allowOldPasswords=true", [false, true]),
            ("?allowCleartextPasswords=1", [true, false]),
        ] {
            let source = mysql(&format!("mysql://u:p@h/d{option}")).unwrap();
            assert_eq!([source.allows_clear_text, source.allows_old_hash], expected, "{option}");
        }
    }

    #[test]
    fn malformed_ones_are_rejected_and_debug_hides_the_password() {
        for text in [
            "mysql://u:hunter2@h:3306",
            "mysql://u:hunter2@tcp(h:x1)/d",
            "mysql://u:hunter2@tcp(h:1/d",
            "mysql://u:hunter2@tcp(h:0)/d",
            "mysql://u:hunter2@h:65536/d",
            "mysql://u:hunter2@h:/d",
            "mysql://u:hunter2@h:1:2/d",
            "mysql://u:hunter2@unix(my.sock)/d",
            "mysql://u:hunter2@unix()/d",
            "mysql://u:hunter2@udp(h:1)/d",
            "mysql://u:hunter2@[::1/d",
            "mysql://u:hunter2@[hunter2]:1/d",
            "mysql://u:hunter2@[::1]x/d",
            "mysql://u:hunter2@a b/d",
            "postgresql://u:hunter2@h/d",
        ] {
            let error = mysql(text).expect_err(text).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let source = mysql("mysql://u:hunter2@h/d?x=hunter2").unwrap();
        assert!(!format!("{source:?}").contains("hunter2"));
    }
}
