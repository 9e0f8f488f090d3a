//! Data sources of PostgreSQL: the URIs of libpq. An option has the meaning that libpq gives it. What only libpq can do
//! is rejected by name. The environment (`PGHOST` and the like) is not read.

mod values;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use self::values::Values;
use crate::DataSourceError;

/// The form, for messages.
pub(crate) const FORM: &str = "postgresql://user:password@host:5432/database, with special characters of the password \
                               escaped, such as %40 for @";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A PostgreSQL data source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresqlSource {
    /// Servers, which are tried in order; at least one.
    pub hosts: Vec<PostgresqlHost>,
    /// Name of the user. `None`: the user of the process.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Password>,
    /// Name of the database. `None`: the user's name.
    pub database: Option<String>,
    /// Options of the server's command line, such as `-c work_mem=64MB`.
    pub options: Option<String>,
    /// Name of the program in the server's views.
    pub application_name: Option<String>,
    /// Timeout for connecting to one server. `None`: no limit.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalives.
    pub keepalives: Keepalives,
    /// TLS.
    pub tls: PostgresqlTls,
    /// Whether the authentication is bound to the TLS connection.
    pub channel_binding: ChannelBinding,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresqlHost {
    /// Name, or an absolute path: the folder of the server's Unix socket.
    pub name: String,
    /// Address to connect to in place of the name's, which then is used for the certificate only.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

impl PostgresqlHost {
    /// Path of the Unix socket; `None`: TCP.
    #[must_use]
    pub fn socket(&self) -> Option<String> {
        let is_socket = self.address.is_none() && self.name.starts_with('/');
        is_socket.then(|| format!("{}/.s.PGSQL.{}", self.name.trim_end_matches('/'), self.port))
    }
}

/// `host:port`, for messages.
impl fmt::Display for PostgresqlHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, .. } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// A password. It is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// TCP keepalives. `None`: the system's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether they are sent.
    pub enabled: bool,
    /// Time without traffic until the first one.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
    /// Number of lost ones after which the connection is lost.
    pub count: Option<u32>,
    /// Time after which the connection is lost if sent data is not acknowledged.
    pub user_timeout: Option<Duration>,
}

/// TLS of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresqlTls {
    /// When TLS is used, and what is verified.
    pub mode: SslMode,
    /// Certificates to trust. `None`: those of libpq's default file, if it exists.
    pub root: Option<SslRoot>,
    /// File of the client's certificate.
    pub certificate: Option<String>,
    /// File of its key.
    pub key: Option<String>,
    /// Whether the server's name is sent in clear text.
    pub sni: bool,
    /// Whether TLS 1.2 is refused.
    pub only_tls_1_3: bool,
    /// Whether the certificate of the process's user is shown, if the data source has none. A client's data source must
    /// not use it.
    pub uses_default_certificate: bool,
}

/// Certificates to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SslRoot {
    /// Those of the system.
    System,
    /// Those of a file.
    File(String),
}

/// When TLS is used, and what is verified: `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server rejects a connection without it.
    Allow,
    /// If the server supports it.
    Prefer,
    /// Always.
    Require,
    /// Always, with a certificate of a trusted authority.
    VerifyCa,
    /// Always, with a certificate of a trusted authority for this host.
    VerifyFull,
}

/// Whether the authentication is bound to the TLS connection: `channel_binding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server supports it.
    Prefer,
    /// Always.
    Require,
}

/// Parses a PostgreSQL data source, `postgresql://` or `postgres://`.
///
/// # Errors
/// In one line, without the password.
pub fn postgresql(data_source: &str) -> Result<PostgresqlSource, DataSourceError> {
    let rest = ["postgresql://", "postgres://"].iter().find_map(|scheme| data_source.strip_prefix(scheme));
    let values = Values::parse(rest.ok_or(malformed())?)?;
    values.only("target_session_attrs", &["any"])?;
    values.only("load_balance_hosts", &["disable"])?;
    values.only("gssencmode", &["disable", "prefer"])?;
    values.only("sslnegotiation", &["postgres"])?;
    let mode = match values.get("sslmode") {
        None if values.get("sslrootcert") == Some("system") => SslMode::VerifyFull,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            return Err(value("sslmode", "disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    let root = values.get("sslrootcert").map(|it| match it {
        "system" => SslRoot::System,
        path => SslRoot::File(path.to_owned()),
    });
    if root == Some(SslRoot::System) && mode != SslMode::VerifyFull {
        return Err(value("sslmode", "verify-full, since sslrootcert=system trusts every public authority"));
    }
    let channel_binding = match values.get("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(_) => return Err(value("channel_binding", "disable, prefer or require")),
    };
    let only_tls_1_3 = match values.get("ssl_min_protocol_version") {
        None | Some("TLSv1" | "TLSv1.1" | "TLSv1.2") => false,
        Some("TLSv1.3") => true,
        Some(_) => return Err(value("ssl_min_protocol_version", "TLSv1.2 or TLSv1.3")),
    };
    let connect_timeout = match values.integer("connect_timeout")? {
        None => Some(DEFAULT_TIMEOUT),
        Some(..=0) => None,
        // As libpq does.
        Some(seconds) => Some(Duration::from_secs(seconds.max(2).unsigned_abs().into())),
    };
    let certificate = values.text("sslcert");
    let key = values.text("sslkey");
    if certificate.is_some() != key.is_some() {
        let (missing, given) = if key.is_none() { ("sslkey", "sslcert") } else { ("sslcert", "sslkey") };
        return Err(DataSourceError::PostgresqlOptionMissing { missing, given });
    }
    Ok(PostgresqlSource {
        hosts: values.hosts()?,
        user: values.text("user"),
        password: values.text("password").map(Password),
        database: values.text("dbname"),
        options: values.text("options"),
        application_name: values
            .text("application_name")
            .or_else(|| values.text("fallback_application_name")),
        connect_timeout,
        keepalives: Keepalives {
            enabled: values.integer("keepalives")? != Some(0),
            idle: values.duration("keepalives_idle", Duration::from_secs)?,
            interval: values.duration("keepalives_interval", Duration::from_secs)?,
            count: values
                .integer("keepalives_count")?
                .and_then(|it| u32::try_from(it).ok())
                .filter(|it| *it > 0),
            user_timeout: values.duration("tcp_user_timeout", Duration::from_millis)?,
        },
        tls: PostgresqlTls {
            mode,
            root,
            certificate,
            key,
            sni: values.integer("sslsni")? != Some(0),
            only_tls_1_3,
            uses_default_certificate: true,
        },
        channel_binding,
    })
}

fn malformed() -> DataSourceError {
    DataSourceError::Malformed { form: FORM }
}

fn value(option: &'static str, expected: &'static str) -> DataSourceError {
    DataSourceError::PostgresqlValue { option, expected }
}

#[cfg(test)]
mod tests {
    use super::values::UNSUPPORTED;
    use super::*;

    fn parsed(text: &str) -> PostgresqlSource {
        postgresql(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn host(name: &str, port: u16) -> PostgresqlHost {
        PostgresqlHost { name: name.to_owned(), address: None, port }
    }

    #[test]
    fn parts_of_a_uri_are_read_as_by_libpq() {
        let source = parsed("postgresql://an%40a:p%2Fw%3A%40d:x?y@db.example:5433/sh%20op");
        assert_eq!(source.user.as_deref(), Some("an@a"));
        assert_eq!(source.password, Some(Password("p/w:@d:x?y".into())));
        assert_eq!(source.database.as_deref(), Some("sh op"));
        assert_eq!(source.hosts, [host("db.example", 5433)]);
        assert_eq!(source.connect_timeout, Some(Duration::from_secs(10)));
        assert_eq!((source.tls.mode, source.tls.root), (SslMode::Prefer, None));
        let source = parsed("postgres://[::1]/d?user=u&password=a%26b&application_name=x&connect_timeout=0");
        assert_eq!(source.hosts, [host("::1", 5432)]);
        assert_eq!(source.hosts[0].to_string(), "[::1]:5432");
        assert_eq!(source.password, Some(Password("a&b".into())));
        assert_eq!(source.connect_timeout, None);
        assert!(!format!("{source:?}").contains("a&b"));
        let source = parsed("postgresql://%2Frun%2Fpostgresql:5444/d");
        assert_eq!(source.hosts[0].socket().as_deref(), Some("/run/postgresql/.s.PGSQL.5444"));
        let source = parsed("postgresql:///d?host=/tmp&port=1");
        assert_eq!(source.hosts[0].socket().as_deref(), Some("/tmp/.s.PGSQL.1"));
        let source =
            parsed("postgresql://u@h?hostaddr=10.0.0.1&sslmode=verify-full&sslrootcert=/ca.pem&ssl=true");
        assert_eq!(source.hosts[0].address, Some([10, 0, 0, 1].into()));
        assert_eq!(
            (source.tls.mode, source.tls.root),
            (SslMode::Require, Some(SslRoot::File("/ca.pem".into())))
        );
        assert_eq!(parsed("postgresql://h/d?sslrootcert=system").tls.mode, SslMode::VerifyFull);
    }

    #[test]
    fn several_hosts_are_tried_in_order() {
        assert_eq!(parsed("postgresql://a:1,b:2/d").hosts, [host("a", 1), host("b", 2)]);
        assert_eq!(parsed("postgresql://a,b/d?port=7").hosts, [host("a", 7), host("b", 7)]);
        assert_eq!(parsed("postgresql://a:1,b/d").hosts, [host("a", 1), host("b", 5432)]);
        for wrong in
            ["postgresql://a,b/d?port=1,2,3", "postgresql://a,/d", "postgresql://a,b/d?hostaddr=10.0.0.1"]
        {
            assert_eq!(postgresql(wrong), Err(malformed()), "{wrong}");
        }
    }

    #[test]
    fn options_that_only_libpq_supports_are_rejected_by_name() {
        for option in UNSUPPORTED {
            let error = postgresql(&format!("postgresql://h/d?{option}=hunter2")).unwrap_err().to_string();
            assert!(error.contains(&format!("option {option} ")) && !error.contains("hunter2"), "{error}");
        }
        for (option, message) in [
            ("gssencmode=require", "option gssencmode of the PostgreSQL data source must be disable"),
            (
                "target_session_attrs=primary",
                "option target_session_attrs of the PostgreSQL data source must be any",
            ),
            (
                "sslmode=hunter2",
                "option sslmode of the PostgreSQL data source must be disable, allow, prefer, require, verify-ca or \
                 verify-full",
            ),
            (
                "sslmode=require&sslrootcert=system",
                "option sslmode of the PostgreSQL data source must be verify-full, since sslrootcert=system trusts \
                 every public authority",
            ),
            (
                "connect_timeout=soon",
                "option connect_timeout of the PostgreSQL data source must be a whole number",
            ),
            ("hostaddr=localhost", "option hostaddr of the PostgreSQL data source must be an IP address"),
            (
                "sslcert=/c.pem",
                "the PostgreSQL data source has the option sslcert without sslkey; add sslkey",
            ),
            (
                "ssl_mode=x",
                "the PostgreSQL data source has the option ssl_mode, which does not exist; see libpq's options",
            ),
        ] {
            let error = postgresql(&format!("postgresql://h/d?{option}")).unwrap_err().to_string();
            assert_eq!(error, message);
        }
    }

    #[test]
    fn malformed_uris_are_rejected_without_password() {
        for text in [
            "postgresql://",
            "postgresql:///d",
            "postgresql://u:hunter2@",
            "postgresql://u:hunter2@:5432/d",
            "postgresql://u:hunter2/pa@ss@h:1/d",
            "postgresql://u:1234/hunter2@h:1/d",
            "postgresql://u:x@hunter2@h:1/d",
            "postgresql://u:1/x?hunter2=3@h/d",
            "postgresql://u:1/x?hunter2@h",
            "postgresql://u:p@h:hunter2/d",
            "postgresql://u:p@h:0/d",
            "postgresql://u:hunter2%@h/d",
            "postgresql://u:hunter2%g0@h/d",
            "postgresql://u:hunter2%00@h/d",
            "postgresql://u:hunter2%ff@h/d",
            "postgresql://[::1/hunter2",
            "postgresql://[::1]hunter2/d",
            "postgresql://h/d?hunter2",
        ] {
            assert_eq!(postgresql(text), Err(malformed()), "{text}");
        }
    }
}
