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

use serde::Deserialize;
use sqlflow_data_source::is_name;
use sqlflow_identity::{Caller, Pattern};
use sqlflow_job_store::Secret;
use sqlflow_os::reloaded::Reloaded;
use sqlflow_sql::nearest;
use tonic::Status;

/// Number of names in an error.
const LISTED: usize = 10;

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
        Self { named: None, default, default_users: Vec::new(), allow_client_dsn: true }
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

    /// The data source of a session that gives this text: a name, or one of its own.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: there is none of that name for this caller. PERMISSION_DENIED: sessions bring none here.
    pub fn of(&self, caller: &Caller, given: &str) -> Result<Secret, Status> {
        if given.is_empty() {
            return self.default_for(caller);
        }
        if is_name(given) {
            return self.named(caller, given);
        }
        if !self.allow_client_dsn {
            return Err(Status::permission_denied(format!(
                "cannot use the data source of the session: this server takes the names of its own only{}",
                self.listed(caller)
            )));
        }
        Ok(Secret::new(given))
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
        if entries.is_none() && self.allow_client_dsn {
            // It was meant as a whole one.
            return Ok(Secret::new(name));
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
    let entries = named.current(|_| ());
    entries.values().flat_map(|entry| sqlflow_data_source::local_paths(entry.dsn.expose())).collect()
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

    #[test]
    fn name_is_for_its_users() {
        let dir = tempfile::tempdir().unwrap();
        let sources = sources(dir.path(), false);
        let of = |name: &str, given: &str| match sources.of(&caller(name), given) {
            Ok(secret) => Ok(secret.expose().to_owned()),
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
        assert_eq!(sources.of(&caller("ana"), "sqlite:////x.db").unwrap().expose(), "sqlite:////x.db");
        assert!(sources.of(&caller("ana"), "x").is_err());
        let alone = DataSources::new(Secret::new(""));
        assert_eq!(alone.of(&caller("ana"), "x").unwrap().expose(), "x", "the check of its form says more");
        assert_eq!(alone.of(&caller("ana"), "").unwrap().expose(), "");
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
