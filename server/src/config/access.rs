//! Options that say who may use the server, and how they show who they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use sqlflow_cli::address;
use sqlflow_data_source::Sockets;
use sqlflow_identity::token_file::TokenFile;
use sqlflow_identity::{Pattern, Policy, local_user};
use sqlflow_job_store::Secret;
use sqlflow_os::reloaded::Reloaded;
use sqlflow_tls::server::{ServerFiles, ServerTls};

use sqlflow_units::{duration, whole_number};

use super::Options;
use super::oidc::OidcArgs;
use super::values::bytes;
use crate::admission::PrincipalLimits;
use crate::data_sources::{self, DataSources, Named};
use crate::model_rights::{ModelRights, rules as model_rules};

/// Options for access.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Unix socket for clients of this user, beside --listen; empty: none
    /// [default: $XDG_RUNTIME_DIR/sqlflow/server.sock, if that is a folder of this user]
    #[arg(long, env = "SQLFLOW_SOCKET", value_name = "FILE")]
    pub socket: Option<OsString>,

    /// Certificate chain of --listen and --http-listen (PEM), reloaded when it is renewed. With it both have TLS only
    #[arg(long, env = "SQLFLOW_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, env = "SQLFLOW_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Certificates that sign those of clients (PEM). A client with such a certificate is cert:NAME, by its common name
    #[arg(long, env = "SQLFLOW_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    pub client_ca: Option<PathBuf>,

    /// Revoked certificates of clients: lists (CRL, PEM) by the authorities of --client-ca, reloaded when they change
    #[arg(long, env = "SQLFLOW_CLIENT_CRL", value_name = "FILE", requires = "client_ca")]
    pub client_crl: Option<PathBuf>,

    /// File with hashes of access tokens, reloaded when it changes; `sqlflow-server token` makes its entries. A client
    /// with such a token is token:NAME
    #[arg(long, env = "SQLFLOW_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Accept tokens of Kubernetes with the audience sqlflow-clients, which the cluster's API server verifies. A client
    /// with such a token is kubernetes:NAME, such as kubernetes:system:serviceaccount:team:default
    #[arg(long, env = "SQLFLOW_KUBERNETES_TOKENS")]
    pub kubernetes_tokens: bool,

    /// Who may use the server: METHOD:NAME, METHOD:BEGINNING* or group:METHOD:NAME, where METHOD is unix, token, cert,
    /// oidc or kubernetes [default: token:*,cert:*]. Administrators may, too
    #[arg(long, env = "SQLFLOW_ALLOW", value_name = "PRINCIPALS", value_delimiter = ',')]
    pub allow: Vec<Pattern>,

    /// Who may also read and cancel the jobs of others, in the form of --allow; root and this server's own user may anyway.
    /// That user may not if there are other users whose jobs run as it: with the local launcher, and authentication or --allow
    #[arg(long, env = "SQLFLOW_ADMIN", value_name = "PRINCIPALS", value_delimiter = ',')]
    pub admin: Vec<Pattern>,

    /// Serve everybody who can connect, as an administrator. Programs run with the rights of this server
    #[arg(long, env = "SQLFLOW_INSECURE")]
    pub insecure: bool,

    /// TOML file with data sources that sessions name in place of a DSN, each a table with dsn and users (principals in the
    /// form of --allow; without it everybody); reloaded when it changes
    #[arg(long, env = "SQLFLOW_DATA_SOURCES", value_name = "FILE")]
    pub data_sources: Option<PathBuf>,

    /// Who may use --datasource, in the form of --allow [default: everybody who may use the server]
    #[arg(long, env = "SQLFLOW_DATASOURCE_USERS", value_name = "PRINCIPALS", value_delimiter = ',')]
    pub datasource_users: Vec<Pattern>,

    /// Whether a session may bring a data source of its own, which the server's machine then connects to [default: true
    /// for a server without --allow, --token-file, --client-ca, --oidc-issuer and --kubernetes-tokens, otherwise false]
    #[arg(
        long,
        env = "SQLFLOW_ALLOW_CLIENT_DSN",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        require_equals = true
    )]
    pub allow_client_dsn: Option<bool>,

    /// TOML file with who may read and make which models: tables by the models' names, or beginnings of names with * at the
    /// end, each with read and create (principals in the form of --allow; without it everybody); reloaded when it changes
    #[arg(long, env = "SQLFLOW_MODEL_RIGHTS", value_name = "FILE")]
    pub model_rights: Option<PathBuf>,

    /// Folder below which the SQLite files lie that sessions name and statements attach; may be repeated. With --launcher
    /// kubernetes it is one of the Pods [default: none for a server with --allow, --token-file, --client-ca, --oidc-issuer
    /// or --kubernetes-tokens, otherwise any]
    #[arg(long, env = "SQLFLOW_SQLITE_FOLDER", value_name = "DIR", value_delimiter = ',')]
    pub sqlite_folder: Vec<PathBuf>,

    /// Time for which the link to a job's page opens it; `sqlflowctl describe` prints a new one
    #[arg(long, env = "SQLFLOW_LINK_LIFETIME", value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub link_lifetime: std::time::Duration,

    /// Time after which a browser signs in again
    #[arg(long, env = "SQLFLOW_SESSION_LIFETIME", value_name = "TIME", default_value = "12h", value_parser = duration)]
    pub session_lifetime: std::time::Duration,

    /// Another address for /metrics, /readyz and /healthz, without TLS and for everybody who can connect; --http-listen
    /// shows /metrics to administrators only
    #[arg(long, env = "SQLFLOW_METRICS_LISTEN", value_name = "ADDRESS", value_parser = address::http_listen)]
    pub metrics_listen: Option<std::net::SocketAddr>,

    /// How many jobs of one principal may be waiting or running; further programs are refused. This limit and the next ones
    /// are not for administrators. 0: no limit
    #[arg(long, env = "SQLFLOW_LIMIT_JOBS", value_name = "NUMBER", default_value = "1000", value_parser = number)]
    pub limit_jobs: u64,

    /// Maximum size of all programs of one principal, in jobs that have not ended and in those that are still kept
    #[arg(long, env = "SQLFLOW_LIMIT_PROGRAMS", value_name = "SIZE", default_value = "1GiB", value_parser = bytes)]
    pub limit_programs: u64,

    /// Maximum size of the logs, with rows, of all jobs of one principal that are kept; measured again after 30 seconds
    #[arg(long, env = "SQLFLOW_LIMIT_LOGS", value_name = "SIZE", default_value = "64GiB", value_parser = bytes)]
    pub limit_logs: u64,

    /// How many web pages of running jobs one principal may have open
    #[arg(long, env = "SQLFLOW_LIMIT_PAGES", value_name = "NUMBER", default_value = "64", value_parser = number)]
    pub limit_pages: u64,

    /// How many searches in logs one principal may run at a time
    #[arg(long, env = "SQLFLOW_LIMIT_SEARCHES", value_name = "NUMBER", default_value = "4", value_parser = number)]
    pub limit_searches: u64,

    /// How many connections one principal may have to --listen and to the socket, and as many of browsers to --http-listen
    #[arg(long, env = "SQLFLOW_LIMIT_CONNECTIONS", value_name = "NUMBER", default_value = "256", value_parser = number)]
    pub limit_connections: u64,

    /// Options of OpenID Connect.
    #[command(flatten)]
    pub oidc: OidcArgs,
}

fn number(text: &str) -> Result<u64, String> {
    whole_number::<u64>(text, 0..=u64::MAX)
}

impl AccessArgs {
    /// The rules. Where jobs of others run as this server's user (`runs_jobs`), that user is nobody: their code could call
    /// the server too.
    #[must_use]
    pub fn policy(&self, runs_jobs: bool) -> Policy {
        let own = local_user::own();
        let is_trusted = |user: &str| user != own.name() || !(runs_jobs && self.is_shared());
        let known = |name: &str| name.parse::<Pattern>().expect("it begins with a method");
        let mut allowed = self.allow.clone();
        if allowed.is_empty() {
            allowed = ["token:*", "cert:*"].map(known).to_vec();
        }
        let local = [own.name(), "unix:root"].into_iter().filter(|user| is_trusted(user)).map(known);
        let admins = local.chain(self.admin.iter().cloned());
        Policy { allowed, admins: admins.collect(), is_open: self.insecure }
    }

    /// What each principal may use.
    #[must_use]
    pub fn limits(&self) -> PrincipalLimits {
        PrincipalLimits {
            jobs: self.limit_jobs,
            program_bytes: self.limit_programs,
            log_bytes: self.limit_logs,
            pages: self.limit_pages,
            searches: self.limit_searches,
            connections: self.limit_connections,
        }
    }

    /// Whether callers from other machines can show who they are.
    fn has_authentication(&self) -> bool {
        self.client_ca.is_some()
            || self.token_file.is_some()
            || self.kubernetes_tokens
            || self.oidc.oidc_issuer.is_some()
    }

    /// Whether anyone beside the server's own user and root may use it.
    pub(super) fn is_shared(&self) -> bool {
        self.has_authentication() || !self.allow.is_empty()
    }

    /// TLS of the listeners for clients and for browsers, with this protocol.
    ///
    /// # Errors
    /// A file cannot be used; the message names it.
    pub fn tls(&self, protocol: &str) -> anyhow::Result<Option<ServerTls>> {
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let files = ServerFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_ca: self.client_ca.clone(),
            client_crl: self.client_crl.clone(),
        };
        Ok(Some(ServerTls::open(files, &[protocol])?))
    }

    /// The token file.
    ///
    /// # Errors
    /// It cannot be read, or has another form.
    pub fn tokens(&self) -> anyhow::Result<Option<TokenFile>> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let read = TokenFile::open(file);
        Ok(Some(read.with_context(|| format!("cannot use the token file {}", file.display()))?))
    }

    /// The data sources that sessions may use, with this default.
    ///
    /// # Errors
    /// The file cannot be read, or has another form.
    pub fn data_sources(&self, default: Secret) -> anyhow::Result<DataSources> {
        let named = self.named_data_sources()?;
        let allow_client_dsn = self.allow_client_dsn.unwrap_or(!self.is_shared());
        let sockets = if self.is_shared() { Sockets::Refused } else { Sockets::Allowed };
        Ok(DataSources::new(default)
            .allow_sockets(sockets)
            .with_named(named)
            .for_users(self.datasource_users.clone())
            .allow_client_dsn(allow_client_dsn))
    }

    fn named_data_sources(&self) -> anyhow::Result<Option<Reloaded<Named>>> {
        let read = |file: &PathBuf| {
            data_sources::read(file)
                .with_context(|| format!("cannot use the data sources {}", file.display()))
        };
        self.data_sources.as_ref().map(read).transpose()
    }

    /// Who may read and make which models.
    ///
    /// # Errors
    /// The file cannot be read, or has another form.
    pub fn model_rights(&self) -> anyhow::Result<ModelRights> {
        let read = |file: &PathBuf| {
            model_rules::read(file)
                .with_context(|| format!("cannot use the rules for models {}", file.display()))
        };
        Ok(ModelRights::new(self.model_rights.as_ref().map(read).transpose()?))
    }

    /// Where the Unix socket is.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        match &self.socket {
            Some(path) if path.is_empty() => None,
            Some(path) => Some(path.into()),
            None => address::default_socket(),
        }
    }
}

impl Options {
    /// Refuses addresses that others could reach, if nobody would be asked who they are, or if what they send could be
    /// read on its way.
    ///
    /// # Errors
    /// One sentence with what can be done.
    pub fn check_access(&self) -> anyhow::Result<()> {
        let access = &self.access;
        ensure!(
            self.listen.is_some() || access.socket().is_some(),
            "cannot serve clients: the address (from {}) is empty, and there is no socket; set --socket",
            self.origin("listen")
        );
        // Who may use it does not depend on where jobs run.
        access.oidc.check(&access.policy(false), self.public_url.as_deref())?;
        if access.insecure {
            return Ok(());
        }
        for (option, address) in [("listen", self.listen), ("http-listen", Some(self.http_listen))] {
            let Some(address) = address.filter(|address| !address.ip().is_loopback()) else { continue };
            let origin = self.origin(option);
            ensure!(
                access.has_authentication(),
                "cannot listen on {address} (from {origin}): everybody who reaches it could run programs with the \
                 rights of this server; set --token-file, --client-ca, --oidc-issuer or --kubernetes-tokens, or listen \
                 on 127.0.0.1 (--insecure serves everybody)"
            );
            ensure!(
                access.tls_cert.is_some(),
                "cannot listen on {address} (from {origin}) without TLS: access tokens and passwords could be read on \
                 their way; set --tls-cert and --tls-key (--insecure does without, and serves everybody)"
            );
        }
        Ok(())
    }

    /// Files that code of users must not reach: they hold secrets, or say who may do what.
    ///
    /// # Errors
    /// The file with data sources cannot be read.
    pub(super) fn private_paths(&self) -> anyhow::Result<Vec<PathBuf>> {
        let access = &self.access;
        let files = [
            &self.config,
            &access.token_file,
            &access.data_sources,
            &access.model_rights,
            &access.tls_cert,
            &access.tls_key,
            // With an authority of its own it would be any principal.
            &access.client_ca,
            &access.client_crl,
            &access.oidc.oidc_ca,
            &access.oidc.oidc_client_secret_file,
        ];
        let files = files.into_iter().flatten();
        let files = files.chain(self.secrets.files());
        let mut paths: Vec<PathBuf> = files.map(std::path::absolute).collect::<std::io::Result<_>>()?;
        if let Some(named) = access.named_data_sources()? {
            paths.extend(data_sources::local_paths(&named));
        }
        Ok(paths)
    }

    /// Checks the files of access.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn check_access_files(&self) -> anyhow::Result<()> {
        self.access.tls("h2")?;
        self.access.tokens()?;
        self.access.data_sources(self.datasource.clone())?;
        self.access.model_rights()?;
        self.access.oidc.open()?;
        self.access.oidc.client()?;
        Ok(())
    }
}

/// `sqlflow-server token`: makes an access token.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArgs {
    /// Name of its owner, who becomes token:NAME
    pub name: String,

    /// Append its entry to this file, which is created if it does not exist; otherwise the entry is printed on standard
    /// error
    #[arg(long, value_name = "FILE", env = "SQLFLOW_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// Makes it. The token is printed on standard output, once: only its hash is stored.
    ///
    /// # Errors
    /// The name is empty, or the file cannot be written.
    pub fn run(&self) -> anyhow::Result<()> {
        use sqlflow_identity::token_file;
        use std::io::Write as _;
        if self.name.trim().is_empty() {
            bail!("cannot make a token without a name; write sqlflow-server token NAME");
        }
        let token = token_file::new_token();
        let entry = token_file::entry(&self.name, &token);
        match &self.token_file {
            Some(file) => append(file, &entry)?,
            None => write!(std::io::stderr(), "Add this to the file of --token-file:\n\n{entry}\n")?,
        }
        writeln!(std::io::stdout(), "{token}")?;
        Ok(())
    }
}

fn append(file: &Path, entry: &str) -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    let write = || {
        let mut opened =
            std::fs::OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file)?;
        let mut text = String::new();
        opened.read_to_string(&mut text)?;
        let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        opened.write_all(format!("{line_end}{entry}").as_bytes())?;
        opened.sync_all()
    };
    write().with_context(|| format!("cannot add the token to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use sqlflow_identity::{Method, Principal};

    use super::*;

    fn options(flags: &[&str]) -> Options {
        Options::try_parse_from([&["sqlflow-server"], flags].concat()).unwrap()
    }

    #[test]
    fn reachable_address_needs_authentication_and_tls() {
        let check = |flags: &[&str]| options(flags).check_access().map_err(|error| error.to_string());
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["--listen=[::1]:1", "--http-listen=127.3.2.1:1"]), Ok(()));
        assert_eq!(check(&["--listen=", "--socket=/s"]), Ok(()));
        assert!(check(&["--listen=", "--socket="]).unwrap_err().ends_with("set --socket"));
        for open in ["--listen=:1", "--listen=192.0.2.1:1", "--http-listen=[::]:1"] {
            let error = check(&[open]).unwrap_err();
            assert!(error.contains("set --token-file"), "{error}");
            let error = check(&[open, "--token-file=t"]).unwrap_err();
            assert!(error.contains("set --tls-cert and --tls-key"), "{error}");
            assert_eq!(check(&[open, "--token-file=t", "--tls-cert=c", "--tls-key=k"]), Ok(()));
            assert_eq!(check(&[open, "--insecure"]), Ok(()));
        }
        let error = check(&["--listen=:1", "--tls-cert=c", "--tls-key=k"]).unwrap_err();
        assert!(error.contains("set --token-file"), "{error}");
    }

    #[test]
    fn own_user_and_root_administer_and_others_are_listed() {
        let caller = |flags: &[&str], method, name| {
            let caller = options(flags).access.policy(true).caller(Some(Principal::new(method, name)));
            (caller.is_allowed(), caller.is_admin())
        };
        let own = local_user::own();
        let own = own.name().strip_prefix("unix:").unwrap();
        assert_eq!(caller(&[], Method::Unix, own), (true, true));
        assert_eq!(caller(&[], Method::Unix, "root"), (true, true));
        assert_eq!(caller(&[], Method::Unix, "eve"), (false, false));
        assert_eq!(
            caller(&["--allow=unix:eve"], Method::Unix, own),
            (false, false),
            "eve's jobs run as this user"
        );
        // Code of another user's job would be that user.
        let with_tokens = ["--token-file=t"];
        assert_eq!(caller(&with_tokens, Method::Unix, own), (false, false));
        let policy = options(&with_tokens).access.policy(false);
        assert!(policy.caller(Some(Principal::new(Method::Unix, own))).is_admin(), "jobs run elsewhere");
        let named = format!("--admin=unix:{own}");
        assert_eq!(caller(&["--token-file=t", &named], Method::Unix, own), (true, true));
        assert_eq!(caller(&[], Method::Token, "ana"), (true, false));
        assert_eq!(caller(&["--allow=token:bob,unix:eve"], Method::Token, "ana"), (false, false));
        assert_eq!(caller(&["--allow=token:bob,unix:eve"], Method::Unix, "eve"), (true, false));
        assert_eq!(caller(&["--admin=token:ana"], Method::Token, "ana"), (true, true));
        assert_eq!(caller(&[], Method::Kubernetes, "system:serviceaccount:a:b"), (false, false));
    }
}
