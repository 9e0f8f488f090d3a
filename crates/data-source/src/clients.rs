//! What the data source of a client may not have: files and sockets that belong to the server's user. With them, a client
//! would use that user's rights.

use sqlflow_sql::Dialect;

use crate::{DataSourceError, MysqlAddress, SslRoot, dialect, is_duckdb, mysql, postgresql};

/// Whether the data source of a client may have a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// The client is the server's user.
    Allowed,
    /// The database may trust the user of the process that connects.
    Refused,
}

/// Checks a client's data source: it has no option with a file. The file of SQLite or DuckDB is judged by
/// [`crate::Reach`].
///
/// # Errors
/// It has one, or it is malformed. The message has no part of the text but an option's name.
pub fn check_of_client(data_source: &str, sockets: Sockets) -> Result<(), DataSourceError> {
    let (file, has_socket) = match dialect(data_source)? {
        Dialect::Sqlite => return Ok(()),
        Dialect::Postgresql if is_duckdb(data_source) => return Ok(()),
        Dialect::Mysql => {
            let source = mysql(data_source)?;
            (source.file_option, matches!(source.address, MysqlAddress::Socket(_)))
        }
        Dialect::Postgresql => {
            let source = postgresql(data_source)?;
            let root = matches!(source.tls.root, Some(SslRoot::File(_))).then_some("sslrootcert");
            let certificate = source.tls.certificate.as_ref().map(|_| "sslcert");
            let key = source.tls.key.as_ref().map(|_| "sslkey");
            let file = root.or(certificate).or(key).map(str::to_owned);
            (file, source.hosts.iter().any(|host| host.socket().is_some()))
        }
    };
    match file {
        Some(option) => Err(DataSourceError::FileOfClient(option)),
        None if has_socket && sockets == Sockets::Refused => Err(DataSourceError::SocketOfClient),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_server_are_refused_by_name() {
        for (text, option) in [
            ("postgresql://u:hunter2@h/d?sslrootcert=/etc/shadow", "sslrootcert"),
            ("postgresql://u:hunter2@h/d?sslcert=/c&sslkey=/k", "sslcert"),
            ("mysql://u:hunter2@h/d?allowAllFiles=true", "allowAllFiles"),
            ("mysql://u:hunter2@h/d?serverPubKey=x", "serverPubKey"),
            ("mysql://u:hunter2@h/d?ssl-ca=%2Fetc%2Fshadow", "ssl-ca"),
            ("mysql://u:hunter2@h/d?a=b&SSL_KEY=%2Fetc%2Fshadow", "SSL_KEY"),
        ] {
            let error = check_of_client(text, Sockets::Allowed).expect_err(text);
            assert_eq!(error, DataSourceError::FileOfClient(option.to_owned()), "{text}");
            assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("shadow"));
        }
        // Nobody's, so that they are refused without regard to who names them.
        for option in ["passfile", "service", "servicefile", "sslcrl", "sslcrldir", "sslkeylogfile"] {
            let text = format!("postgresql://u@h/d?{option}=/dev/null");
            assert_eq!(dialect(&text), Err(DataSourceError::PostgresqlUnsupported(option)));
        }
    }

    #[test]
    fn socket_is_refused_to_others_than_the_servers_user() {
        for text in [
            "mysql://root@unix(/run/mysqld/mysqld.sock)/d",
            "postgresql:///d?host=/run/postgresql",
            "postgresql://db,%2Frun%2Fpostgresql/d",
        ] {
            assert_eq!(check_of_client(text, Sockets::Allowed), Ok(()), "{text}");
            assert_eq!(
                check_of_client(text, Sockets::Refused),
                Err(DataSourceError::SocketOfClient),
                "{text}"
            );
        }
        for text in [
            "mysql://u:p@h/d?time_zone=x&tls=true&allowAllFiles=false",
            "postgresql://u:p@h/d?sslrootcert=system",
            "sqlite:////data/a.db",
        ] {
            assert_eq!(check_of_client(text, Sockets::Refused), Ok(()), "{text}");
        }
    }
}
