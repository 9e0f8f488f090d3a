//! SQL dialect of a program, as far as splitting and classifying statements depend on it.

use std::fmt;
use std::str::FromStr;

/// Dialect of a program's standard SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// MySQL and MariaDB. Hive and MaxCompute are read by the same rules.
    Mysql,
    /// PostgreSQL. DuckDB is read by the same rules.
    Postgresql,
    /// SQLite.
    Sqlite,
}

impl Dialect {
    /// All dialects, for tests and help texts.
    pub const ALL: [Self; 3] = [Self::Mysql, Self::Postgresql, Self::Sqlite];
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mysql => "mysql",
            Self::Postgresql => "postgresql",
            Self::Sqlite => "sqlite",
        })
    }
}

/// The name is not the scheme of a supported data source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect {0:?}, expected mysql, hive, maxcompute, postgresql, duckdb or sqlite")]
pub struct UnknownDialect(String);

impl FromStr for Dialect {
    type Err = UnknownDialect;

    /// Parses the scheme of a data source, such as `mysql` in `mysql://…`, in any case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name.to_ascii_lowercase().as_str() {
            "mysql" | "mariadb" | "hive" | "maxcompute" => Ok(Self::Mysql),
            "postgresql" | "postgres" | "duckdb" => Ok(Self::Postgresql),
            "sqlite" | "sqlite3" => Ok(Self::Sqlite),
            _ => Err(UnknownDialect(name.to_owned())),
        }
    }
}
