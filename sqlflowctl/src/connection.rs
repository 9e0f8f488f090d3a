//! How the command connects: address, trusted certificates, and who the user is. Each comes from an option, its variable,
//! or the login that `sqlflowctl login` stored, in this order.

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use sqlflow_cli::address;
use sqlflow_identity::local_user;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::failure::Failure;
use crate::listener::TrustedUsers;
use crate::own_server::OwnServer;

/// Server of a user that names none, if the default socket does not exist, and no server of their own runs.
pub(crate) const DEFAULT_SERVER: &str = "http://127.0.0.1:50051";
/// Variable with an access token.
pub(crate) const TOKEN_VARIABLE: &str = "SQLFLOW_ACCESS_TOKEN";

/// Options for the connection.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArgs {
    /// Address of the server: HOST:PORT, :PORT for this machine, https://HOST:PORT, or unix:///PATH; own: a server of
    /// your own on this machine, which is started if it does not run, and ends when nobody has used it for ten minutes. A
    /// server that is not on this machine needs https and an access token (SQLFLOW_ACCESS_TOKEN), or a client certificate
    /// [default: that of the login, or $XDG_RUNTIME_DIR/sqlflow/server.sock if it exists and the folder is your own, or your
    /// own server if it runs, or 127.0.0.1:50051]
    #[arg(long, global = true, value_name = "ADDRESS", env = "SQLFLOW_SERVER", value_parser = server_address)]
    pub(crate) server: Option<String>,
    /// User whose server this is, if it is on this machine, without TLS, and neither root's nor your own. Any user could
    /// listen there while the server is down, so nothing is sent to the server of a user who is not named
    #[arg(long, global = true, value_name = "NAME", env = "SQLFLOW_SERVER_USER")]
    pub(crate) server_user: Option<String>,
    /// File with the access token, read before each call, as Kubernetes renews them [default: SQLFLOW_ACCESS_TOKEN
    /// itself, or that of the login]
    #[arg(long, global = true, value_name = "FILE", env = "SQLFLOW_ACCESS_TOKEN_FILE")]
    pub(crate) access_token_file: Option<PathBuf>,
    /// Certificates (PEM) that sign the server's [default: those of this system]
    #[arg(long, global = true, value_name = "FILE", env = "SQLFLOW_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate (PEM) by which the server knows the user
    #[arg(long, global = true, value_name = "FILE", env = "SQLFLOW_CLIENT_CERT", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "SQLFLOW_CLIENT_KEY", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
}

/// A connection's settings.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// URL of the server.
    pub(crate) server: String,
    /// The server, if it is started when it is needed.
    pub(crate) own: Option<OwnServer>,
    /// Where the access token is.
    pub(crate) token: AccessToken,
    server_user: Option<String>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

/// An access token. `Debug` does not show it.
#[derive(Clone, Default)]
pub(crate) enum AccessToken {
    /// There is none.
    #[default]
    None,
    /// The token itself.
    Text(String),
    /// In a file that may be renewed.
    File(PathBuf),
}

impl std::fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Text(_) => "Text(redacted)",
            Self::File(_) => "File",
        })
    }
}

impl AccessToken {
    /// The token now.
    pub(crate) fn read(&self) -> Result<Option<String>, String> {
        match self {
            Self::None => Ok(None),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::File(file) => {
                let text = fs::read_to_string(file);
                let text = text
                    .map_err(|error| format!("cannot read the access token {}: {error}", file.display()))?;
                Ok(Some(text.trim().to_owned()))
            }
        }
    }
}

/// What `sqlflowctl login` stores.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) server: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) access_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) server_user: Option<String>,
}

impl ConnectionArgs {
    /// The settings.
    pub(crate) fn connection(&self) -> Result<Connection, Failure> {
        self.with(Login::stored()?)
    }

    /// The settings without a stored login, for a new one.
    pub(crate) fn without_login(&self) -> Result<Connection, Failure> {
        self.with(None)
    }

    fn with(&self, login: Option<Login>) -> Result<Connection, Failure> {
        // A login is for its own server: its token is not sent to others.
        let login = login.filter(|login| self.server.as_ref().is_none_or(|server| *server == login.server));
        let login = login.unwrap_or_default();
        let named = match (&self.server, login.server.as_str()) {
            (Some(server), _) => server.clone(),
            (None, "") => default_server(),
            (None, server) => server.to_owned(),
        };
        let own = (named == address::OWN).then(OwnServer::of_user).transpose()?;
        let server = own.as_ref().map_or(named, OwnServer::url);
        let in_variable = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let token = match (&self.access_token_file, in_variable, login.access_token.as_str()) {
            (Some(file), ..) => AccessToken::File(file.clone()),
            (None, Some(token), _) => AccessToken::Text(token),
            (None, None, "") => AccessToken::None,
            (None, None, token) => AccessToken::Text(token.to_owned()),
        };
        let identity = self.client_cert.clone().zip(self.client_key.clone());
        Ok(Connection {
            server,
            own,
            token,
            server_user: self.server_user.clone().or(login.server_user),
            ca: self.ca.clone().or(login.ca),
            identity,
        })
    }
}

/// An address as a URL, or the name of a server of the user's own.
fn server_address(text: &str) -> Result<String, String> {
    if text == address::OWN { Ok(text.to_owned()) } else { address::server_url(text) }
}

fn default_server() -> String {
    let own = || {
        let socket = address::own_socket_in(&address::own_folder()?);
        address::is_listening(&socket).then_some(socket)
    };
    match address::default_socket().filter(|path| path.exists()).or_else(own) {
        Some(path) => format!("unix://{}", path.display()),
        None => DEFAULT_SERVER.to_owned(),
    }
}

/// Whether nobody else can read what is sent there.
fn is_private(server: &str) -> bool {
    server.starts_with("https://") || is_this_machine(server)
}

/// Whether the server is on this machine.
pub(crate) fn is_this_machine(server: &str) -> bool {
    let Some((scheme, address)) = server.split_once("://") else { return false };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let ip: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    scheme == "unix" || host == "localhost" || ip.is_some_and(|it| it.is_loopback())
}

impl Connection {
    /// To this server, without an identity.
    #[cfg(test)]
    pub(crate) fn to(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            own: None,
            token: AccessToken::None,
            server_user: None,
            ca: None,
            identity: None,
        }
    }

    /// Checks that nobody else can read the access token on its way.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if matches!(self.token, AccessToken::None) || is_private(&self.server) {
            return Ok(());
        }
        Err(Failure::Usage(format!(
            "cannot send the access token to {}: it could be read on its way; write https://",
            self.server
        )))
    }

    /// Whose server it may be, if that must be known before anything is sent: most calls have a secret, if only a job's
    /// token. `None`: it shows by TLS or by its socket who it is, or it is on another machine.
    pub(crate) fn trusted_users(&self) -> Result<Option<TrustedUsers>, Failure> {
        if !(self.server.starts_with("http://") && is_this_machine(&self.server)) {
            return Ok(None);
        }
        let id_of = |name: &String| {
            let why = || format!("cannot use --server-user {name}: there is no such user on this machine");
            local_user::id_of(name).ok_or_else(|| Failure::Usage(why()))
        };
        let named = self.server_user.as_ref().map(id_of).transpose()?;
        Ok(Some(TrustedUsers::new(named)))
    }

    /// TLS, for a server that has it.
    pub(crate) fn tls(&self) -> Result<Option<ClientTlsConfig>, Failure> {
        if !self.server.starts_with("https://") {
            return Ok(None);
        }
        sqlflow_tls::install_provider();
        let read = |file: &Path| {
            fs::read(file).map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())))
        };
        let mut config = ClientTlsConfig::new();
        config = match &self.ca {
            Some(file) => config.ca_certificate(Certificate::from_pem(read(file)?)),
            None => {
                let trusted = sqlflow_tls::trusted_certificates();
                let trusted = trusted.map_err(|error| Failure::Usage(error.to_string()))?;
                config.trust_anchors(sqlflow_tls::anchors(&trusted))
            }
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(Some(config))
    }
}

impl Login {
    fn file() -> Option<PathBuf> {
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
        Some(folder.join("sqlflow/login.json"))
    }

    fn stored() -> Result<Option<Self>, Failure> {
        let Some(file) = Self::file() else { return Ok(None) };
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Failure::Usage(format!("cannot read the login {}: {error}", file.display())));
            }
        };
        let login = serde_json::from_str(&text).map_err(|error| {
            Failure::Usage(format!(
                "cannot use the login {}: it is damaged at line {}; log in again, or remove it with sqlflowctl logout",
                file.display(),
                error.line()
            ))
        })?;
        Ok(Some(login))
    }

    /// Stores the login for later commands. Only the user can read it.
    pub(crate) fn store(&self) -> anyhow::Result<PathBuf> {
        let file = Self::file()
            .context("cannot store the login: neither XDG_CONFIG_HOME nor HOME names a folder")?;
        let write = || {
            let folder = file.parent().unwrap_or(Path::new("/"));
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let new = file.with_extension(format!("{:016x}", rand::random::<u64>()));
            let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            let stored = written
                .write_all(format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())
                .and_then(|()| written.sync_all())
                .and_then(|()| fs::rename(&new, &file));
            if stored.is_err() {
                // A part of the token may be in it.
                let _ = fs::remove_file(&new);
            }
            stored
        };
        write().with_context(|| format!("cannot store the login in {}", file.display()))?;
        Ok(file)
    }

    /// Removes the stored login. Whether there was one.
    pub(crate) fn remove() -> anyhow::Result<bool> {
        let Some(file) = Self::file() else { return Ok(false) };
        match fs::remove_file(&file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot remove the login {}", file.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(server: Option<&str>) -> ConnectionArgs {
        ConnectionArgs {
            server: server.map(str::to_owned),
            server_user: None,
            access_token_file: None,
            ca: None,
            client_cert: None,
            client_key: None,
        }
    }

    fn login(server: &str) -> Option<Login> {
        let (server, access_token) = (server.to_owned(), "secret".to_owned());
        Some(Login { server, access_token, ..Login::default() })
    }

    #[test]
    fn tokens_are_sent_encrypted_and_to_their_server_only() {
        let with = |server, login| {
            let connection = args(server).with(login)?;
            connection.check().map(|()| connection)
        };
        let found = with(None, login("https://a:1")).unwrap();
        assert_eq!(
            (found.server.as_str(), found.token.read().unwrap().as_deref()),
            ("https://a:1", Some("secret"))
        );
        let other = with(Some("http://b:1"), login("https://a:1")).unwrap();
        assert_eq!((other.server.as_str(), other.token.read().unwrap()), ("http://b:1", None));
        let error = with(None, login("http://a:1")).unwrap_err().to_string();
        assert!(error.contains("write https://"), "{error}");
        for private in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "unix:///s"] {
            assert!(with(None, login(private)).is_ok(), "{private}");
        }
        for open in ["http://localhost.example.com:1", "http://127.evil.example.com:1", "http://192.0.2.1:1"]
        {
            assert!(with(None, login(open)).is_err(), "{open}");
        }
        assert!(!format!("{found:?}").contains("secret"));
    }

    #[test]
    fn own_server_gets_no_token_of_a_login() {
        assert_eq!(server_address("own").as_deref(), Ok("own"));
        let found = args(Some("own")).with(login("https://a:1")).unwrap();
        assert!(found.server.starts_with("unix:///") && found.server.ends_with("/sqlflow/own/server.sock"));
        assert_eq!(found.token.read().unwrap(), None);
        assert!(found.own.is_some() && args(Some("http://a:1")).with(None).unwrap().own.is_none());
    }

    #[test]
    fn server_of_this_machine_must_be_known_before_anything_is_sent() {
        let is_checked = |server: &str, login| {
            let connection = args(Some(server)).with(login).unwrap();
            connection.trusted_users().unwrap().is_some()
        };
        let local = "http://127.0.0.1:1";
        for known in [local, "http://localhost:1", "http://[::1]:1"] {
            assert!(is_checked(known, login(known)), "{known}");
            assert!(is_checked(known, None), "{known}: a program, a data source or a job's token");
        }
        for shown in ["https://127.0.0.1:1", "unix:///s"] {
            assert!(!is_checked(shown, login(shown)), "{shown}");
        }
        assert!(!is_checked("http://192.0.2.1:1", None), "its user is not known here");
        let unknown = ConnectionArgs { server_user: Some("no such user".to_owned()), ..args(Some(local)) };
        let error = unknown.with(login(local)).unwrap().trusted_users().unwrap_err().to_string();
        assert!(error.contains("--server-user no such user"), "{error}");
    }
}
