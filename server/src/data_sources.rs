//! The data sources of a server: those that the operator names, the default, and whether clients bring their own.
//!
//! ```toml
//! [flowers]
//! dsn = "mysql://reader:password@tcp(db:3306)/flowers"
//! users = ["token:ana", "group:cert:ml-team"]     # without it: everybody who may use the server
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlflow_data_source::{DataSourceError, Reach, Refusal, Sockets, is_name};
use sqlflow_identity::{Caller, Pattern};
use sqlflow_job_store::Secret;
use sqlflow_os::reloaded::Reloaded;
use sqlflow_sql::nearest;
use sqlflow_sync::blocking;
use tonic::Status;

/// Number of names in an error.
const LISTED: usize = 10;
/// Timeout for judging a database file at Run. A network file system may not answer.
const JUDGE_TIME: Duration = Duration::from_secs(5);

/// What sessions may use.
#[derive(Clone)]
pub struct DataSources {
    named: Option<Arc<Reloaded<Named>>>,
    /// Of sessions that name none; empty: they are refused.
    default: Secret,
    /// Who may use the default; empty: everybody who may use the server.
    default_users: Vec<Pattern>,
    /// Whether a session may bring its own.
    allow_client_dsn: bool,
    /// Whether one of a session may have a Unix socket.
    sockets: Sockets,
    /// What jobs may reach by a data source, without the files of entries that were added after the start.
    reach: Reach,
    /// Whether the files of jobs are those of this machine.
    sees_files: bool,
}

/// A data source, and whose it is.
#[derive(Debug, Clone)]
pub struct DataSource {
    /// Its text.
    pub dsn: Secret,
    /// Whether the session brought it. Otherwise it is the operator's.
    pub is_clients: bool,
}

/// The file's content.
pub type Named = BTreeMap<String, Entry>;

/// A data source with a name.
#[derive(Debug)]
pub struct Entry {
    dsn: Secret,
    /// `None`: everybody who may use the server.
    users: Option<Vec<Pattern>>,
}

impl DataSources {
    /// The default only, for everybody, and those that sessions bring.
    #[must_use]
    pub fn new(default: Secret) -> Self {
        Self {
            named: None,
            default,
            default_users: Vec::new(),
            allow_client_dsn: true,
            sockets: Sockets::Allowed,
            reach: Reach::default(),
            sees_files: false,
        }
    }

    /// With the data sources of this file.
    #[must_use]
    pub fn with_named(self, file: Option<Reloaded<Named>>) -> Self {
        Self { named: file.map(Arc::new), ..self }
    }

    /// With these users of the default.
    #[must_use]
    pub fn for_users(self, default_users: Vec<Pattern>) -> Self {
        Self { default_users, ..self }
    }

    /// Whether sessions may bring their own.
    #[must_use]
    pub fn allow_client_dsn(self, allow_client_dsn: bool) -> Self {
        Self { allow_client_dsn, ..self }
    }

    /// Whether those of sessions may have a Unix socket.
    #[must_use]
    pub fn allow_sockets(self, sockets: Sockets) -> Self {
        Self { sockets, ..self }
    }

    /// With jobs on this machine, which may reach this much.
    #[must_use]
    pub fn on_this_machine(self, reach: Reach) -> Self {
        Self { reach, sees_files: true, ..self }
    }

    /// With jobs in Pods, whose files the server does not see. They may reach this much.
    #[must_use]
    pub fn in_pods(self, reach: Reach) -> Self {
        Self { reach, sees_files: false, ..self }
    }

    /// What a job may reach now by a data source, which a client brought or not. The file of an entry that was added while
    /// the server runs is private at once.
    #[must_use]
    pub fn reach(&self, is_clients: bool) -> Reach {
        let mut reach = Reach { is_clients, ..self.reach.clone() };
        // Where files are private, the one with the data sources is among them.
        if !reach.private.is_empty()
            && let Some(named) = self.entries()
        {
            let added: Vec<PathBuf> =
                paths_of(&named).into_iter().filter(|it| !reach.private.contains(it)).collect();
            reach.private.extend(added);
        }
        reach
    }

    /// The data source of a session that gives this text: a name, or one of its own.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: there is none of that name for this caller, or it is wrong. PERMISSION_DENIED: sessions bring none
    /// here, or none of this kind.
    pub fn of(&self, caller: &Caller, given: &str) -> Result<DataSource, Status> {
        let operators = |dsn| DataSource { dsn, is_clients: false };
        Ok(if given.is_empty() {
            operators(self.default_for(caller)?)
        } else if is_name(given) && (self.named.is_some() || !self.allow_client_dsn) {
            operators(self.named(caller, given)?)
        } else {
            // Without named ones, a name was meant as a whole one: the check of its form says more.
            DataSource { dsn: self.of_client(caller, given)?, is_clients: true }
        })
    }

    fn of_client(&self, caller: &Caller, given: &str) -> Result<Secret, Status> {
        if !self.allow_client_dsn {
            return Err(Status::permission_denied(format!(
                "cannot use the data source of the session: this server takes the names of its own only{}",
                self.listed(caller)
            )));
        }
        match sqlflow_data_source::check_of_client(given, self.sockets) {
            Ok(()) => Ok(Secret::new(given)),
            Err(error @ (DataSourceError::FileOfClient(_) | DataSourceError::SocketOfClient)) => {
                Err(Status::permission_denied(format!("cannot use the data source of the session: {error}")))
            }
            Err(error) => Err(Status::invalid_argument(error.to_string())),
        }
    }

    /// Refuses a file of SQLite or DuckDB that the data process would not open. It looks again, when it opens the file. The client
    /// chooses the path, so this comes after admission.
    ///
    /// # Errors
    /// PERMISSION_DENIED: no job may open it.
    pub async fn check_file(&self, found: &DataSource) -> Result<(), Status> {
        let dsn = found.dsn.expose();
        let file = sqlflow_data_source::database_file(dsn).filter(|_| self.sees_files);
        let Some(file) = file else { return Ok(()) };
        let (reach, path) = (self.reach(found.is_clients), file.clone());
        let judging = blocking::run(move || reach.own_file(&path));
        // Without an answer it is unseen.
        let Ok(judged) = tokio::time::timeout(JUDGE_TIME, judging).await else { return Ok(()) };
        match judged.map_err(|_| Status::unavailable("the server is shutting down"))? {
            // Its folder may be mounted later.
            Ok(_) | Err(Refusal::Unseen(_) | Refusal::Dangling) => Ok(()),
            Err(refusal @ (Refusal::Outside(_) | Refusal::State | Refusal::Private)) => {
                let kind = if sqlflow_data_source::is_duckdb(dsn) { "DuckDB" } else { "SQLite" };
                Err(Status::permission_denied(format!(
                    "cannot open {kind} file {}: {refusal}",
                    file.display()
                )))
            }
        }
    }

    fn default_for(&self, caller: &Caller) -> Result<Secret, Status> {
        let is_allowed = self.default_users.is_empty() || caller.is_one_of(&self.default_users);
        // Without any the error says how to give one.
        let is_there = !self.default.expose().is_empty();
        if is_allowed && (is_there || self.names(caller).is_empty()) {
            return Ok(self.default.clone());
        }
        Err(Status::invalid_argument(format!(
            "cannot run the program without a data source: the session names none, and this server has no default for {}{}",
            caller.name(),
            self.listed(caller)
        )))
    }

    fn named(&self, caller: &Caller, name: &str) -> Result<Secret, Status> {
        let entries = self.entries();
        let found = entries.as_ref().and_then(|it| it.get(name)).filter(|it| it.is_for(caller));
        if let Some(entry) = found {
            return Ok(entry.dsn.clone());
        }
        let names = self.names(caller);
        let near = nearest(name, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let hint = near.map_or_else(|| self.listed(caller), |near| format!("; did you mean {near}?"));
        Err(Status::invalid_argument(format!(
            "cannot use the data source {name:?}: this server has none of that name for {}{hint}",
            caller.name()
        )))
    }

    fn entries(&self) -> Option<Arc<Named>> {
        let file = self.named.as_ref()?;
        Some(file.current(|error| {
            tracing::error!(%error, "cannot read the data sources again; using the previous ones");
        }))
    }

    /// Names that this caller may use.
    fn names(&self, caller: &Caller) -> Vec<String> {
        let entries = self.entries().unwrap_or_default();
        entries.iter().filter(|(_, entry)| entry.is_for(caller)).map(|(name, _)| name.clone()).collect()
    }

    /// The end of an error.
    fn listed(&self, caller: &Caller) -> String {
        let names = self.names(caller);
        match &names[..] {
            [] => String::new(),
            names if names.len() <= LISTED => format!("; there are: {}", names.join(", ")),
            names => {
                format!("; there are: {}, and {} more", names[..LISTED].join(", "), names.len() - LISTED)
            }
        }
    }
}

impl Entry {
    fn is_for(&self, caller: &Caller) -> bool {
        self.users.as_ref().is_none_or(|users| caller.is_one_of(users))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    dsn: String,
    users: Option<Vec<String>>,
}

/// Reads the file.
///
/// # Errors
/// It cannot be read, or an entry is wrong. The message shows no data source, which has a password.
pub fn read(path: &Path) -> io::Result<Reloaded<Named>> {
    Reloaded::open(path, parse)
}

/// Files and sockets of this machine among the data sources.
#[must_use]
pub fn local_paths(named: &Reloaded<Named>) -> Vec<PathBuf> {
    paths_of(&named.current(|_| ()))
}

fn paths_of(named: &Named) -> Vec<PathBuf> {
    named.values().flat_map(|entry| sqlflow_data_source::local_paths(entry.dsn.expose())).collect()
}

fn parse(text: &str) -> Result<Named, String> {
    // An error of the whole would quote the line.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    table.into_iter().map(|(name, value)| Ok((name.clone(), entry(&name, value)?))).collect()
}

fn entry(name: &str, value: toml::Value) -> Result<Entry, String> {
    let wrong = |why: &str| format!("data source {name:?}: {why}");
    if !is_name(name) {
        return Err(wrong("a name has 1 to 64 letters, digits, _ and -"));
    }
    if !value.is_table() {
        return Err(wrong("it has the keys dsn and users"));
    }
    let Written { dsn, users } = value.try_into().map_err(|error: toml::de::Error| wrong(error.message()))?;
    sqlflow_data_source::dialect(&dsn).map_err(|error| wrong(&error.to_string()))?;
    let parsed = |users: Vec<String>| users.iter().map(|it| it.parse()).collect::<Result<Vec<Pattern>, _>>();
    let users = users.map(parsed).transpose();
    Ok(Entry {
        dsn: Secret::new(dsn),
        users: users.map_err(|error: sqlflow_identity::PatternError| wrong(&error.to_string()))?,
    })
}

#[cfg(test)]
mod tests {
    use sqlflow_identity::{Method, Policy, Principal};

    use super::*;

    const FILE: &str = "
        [flowers]
        dsn = 'sqlite:////data/flowers.db'
        users = ['token:ana', 'group:token:ml']
        [public]
        dsn = 'sqlite:////data/public.db'
        [locked]
        dsn = 'sqlite:////data/locked.db'
        users = []
    ";

    fn caller(name: &str) -> Caller {
        let policy = Policy { allowed: vec!["token:*".parse().unwrap()], ..Policy::default() };
        policy.caller(Some(Principal::new(Method::Token, name)))
    }

    /// With the file, and a default for bob.
    fn sources(dir: &Path, allow_client_dsn: bool) -> DataSources {
        let path = dir.join("sources.toml");
        std::fs::write(&path, FILE).unwrap();
        DataSources::new(Secret::new("sqlite:////data/default.db"))
            .with_named(Some(read(&path).unwrap()))
            .for_users(vec!["token:bob".parse().unwrap()])
            .allow_client_dsn(allow_client_dsn)
    }

    /// What Run takes from ana's session.
    async fn checked(sources: &DataSources, given: &str) -> Result<DataSource, Status> {
        let found = sources.of(&caller("ana"), given)?;
        sources.check_file(&found).await?;
        Ok(found)
    }

    #[test]
    fn name_is_for_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), false);
        let of = |name: &str, given: &str| match sources.of(&caller(name), given) {
            Ok(DataSource { dsn, is_clients }) => {
                assert!(!is_clients);
                Ok(dsn.expose().to_owned())
            }
            Err(status) => Err(status.message().to_owned()),
        };
        assert_eq!(of("ana", "flowers").unwrap(), "sqlite:////data/flowers.db");
        assert_eq!(of("bob", "public").unwrap(), "sqlite:////data/public.db");
        assert_eq!(of("bob", "").unwrap(), "sqlite:////data/default.db");
        // To bob it does not exist.
        let error = of("bob", "flowers").unwrap_err();
        assert!(error.contains("has none of that name for token:bob; there are: public"), "{error}");
        assert!(of("ana", "flowrs").unwrap_err().contains("did you mean flowers?"));
        assert!(of("ana", "").unwrap_err().contains("no default for token:ana; there are: flowers, public"));
        let error = of("ana", "mysql://u:hunter2@tcp(h:1)/d").unwrap_err();
        assert!(error.contains("takes the names of its own only; there are: flowers, public"), "{error}");
        assert!(!error.contains("hunter2"));
    }

    #[test]
    fn own_data_source_is_taken_where_that_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), true);
        let own = sources.of(&caller("ana"), "sqlite:////x.db").unwrap();
        assert_eq!((own.dsn.expose(), own.is_clients), ("sqlite:////x.db", true));
        assert!(sources.of(&caller("ana"), "x").is_err());
        let alone = DataSources::new(Secret::new(""));
        let error = alone.of(&caller("ana"), "x").unwrap_err();
        assert!(error.message().contains("has no scheme"), "the check of its form says more: {error:?}");
        assert_eq!(alone.of(&caller("ana"), "").unwrap().dsn.expose(), "");
    }

    #[tokio::test]
    async fn own_data_source_reaches_no_files_of_the_operator() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["data", "state"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let reach = Reach {
            sqlite_folders: Some(vec![dir.path().join("data")]),
            state_folder: Some(dir.path().join("state")),
            ..Reach::default()
        };
        let file = |name: &str| format!("sqlite:///{}", dir.path().join(name).display());
        let sources = DataSources::new(Secret::new(file("default.db"))).allow_sockets(Sockets::Refused);
        let sources = sources.on_this_machine(reach);
        let of = async |given: &str| checked(&sources, given).await;
        assert!(!of("").await.unwrap().is_clients, "the operator's lies anywhere");
        assert!(of(&file("data/new.db?mode=rwc")).await.unwrap().is_clients);
        assert!(of(&file("data/none/x.db")).await.is_ok(), "the data process says more");
        assert!(of("duckdb://").await.unwrap().is_clients);
        for (given, expected) in [
            (file("default.db"), "it lies in no folder for database files"),
            (file("data/../x.db"), "it lies in no folder for database files"),
            ("sqlite:////no/such/folder/x.db".to_owned(), "it lies in no folder for database files"),
            (file("state/state.db"), "it belongs to the state"),
            (file("state/x.db").replace("sqlite:", "duckdb:"), "it belongs to the state"),
            (file("x.db").replace("sqlite:", "duckdb:"), "cannot open DuckDB file"),
            (file("x.db").replace("sqlite:", "duckdb:"), "it lies in no folder for database files"),
            ("mysql://u:hunter2@unix(/run/my.sock)/d".to_owned(), "has no Unix socket here"),
            ("postgresql://u:hunter2@h/d?sslrootcert=/etc/shadow".to_owned(), "the option sslrootcert;"),
        ] {
            let error = of(&given).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::PermissionDenied, "{given}");
            assert!(error.message().contains(expected), "{error:?}");
            assert!(!error.message().contains("hunter2") && !error.message().contains("shadow"));
            let is_other_kind = given.starts_with("duckdb:") && error.message().contains("SQLite");
            assert!(!is_other_kind, "{error:?}");
        }
        let state = DataSources::new(Secret::new(file("state/x.db")))
            .on_this_machine(Reach { state_folder: Some(dir.path().join("state")), ..Reach::default() });
        assert!(checked(&state, "").await.unwrap_err().message().contains("it belongs to the state"));
    }

    #[test]
    fn file_of_an_added_data_source_is_private_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let shared = sources(dir.path(), true)
            .on_this_machine(Reach { private: vec!["/sources.toml".into()], ..Reach::default() });
        let added: PathBuf = "/data/added.db".into();
        assert!(!shared.reach(true).private.contains(&added));
        let text = format!("{FILE}\n[added]\ndsn = 'sqlite:////data/added.db'\n");
        std::fs::write(dir.path().join("sources.toml"), text).unwrap();
        shared.named.as_ref().unwrap().check_soon();
        let reach = shared.reach(true);
        assert!(reach.is_clients && reach.private.contains(&added), "{reach:?}");
        assert!(reach.private.contains(&"/sources.toml".into()), "{reach:?}");
        let single_user = shared.on_this_machine(Reach::default());
        assert_eq!(single_user.reach(false), Reach::default(), "it may name all files");
    }

    #[test]
    fn wrong_entries_are_named_without_their_data_source() {
        for (text, part) in [
            (
                "[a]\ndsn = 'mysql://u:hunter2@h/d'\nusers = ['ana']",
                "data source \"a\": \"ana\" names no principal",
            ),
            ("[a]\ndsn = 'oracle://u:hunter2@h/d'", "data source \"a\": the data source's scheme"),
            ("[a]\nuser = ['x']\ndsn = 'sqlite:////x'", "unknown field `user`"),
            ("['a b']\ndsn = 'sqlite:////x'", "a name has 1 to 64 letters"),
            ("a = 'mysql://u:hunter2@h/d'", "data source \"a\""),
            ("[a]\ndsn = 'mysql://u:hunter2@h/d", "invalid"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
