//! Launcher ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Kind of a launcher. Stored and sent by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LauncherKind {
    /// Processes on the server's machine.
    Local,
    /// Pods.
    Kubernetes,
    /// A kind of another version, by its name.
    Other(String),
}

impl LauncherKind {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Kubernetes => "kubernetes",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for LauncherKind {
    fn from(name: String) -> Self {
        match name.as_str() {
            "local" => Self::Local,
            "kubernetes" => Self::Kubernetes,
            _ => Self::Other(name),
        }
    }
}

impl From<LauncherKind> for String {
    fn from(kind: LauncherKind) -> Self {
        kind.name().to_owned()
    }
}

/// Id of a launcher. Only a launcher with the same id can observe its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherId {
    /// Kind of the launcher.
    #[serde(rename = "launcher")]
    pub kind: LauncherKind,
    /// Scope among launchers of this kind; see `Launcher::scope`. `None`: it was recorded by a version without scopes,
    /// and the kind is the whole id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl LauncherId {
    /// The id of a launcher without a scope.
    #[must_use]
    pub fn of(kind: LauncherKind) -> Self {
        Self { kind, scope: None }
    }

    /// Separates a scope from the authorities that distinguish scopes with the same name: names with [`Self::OR`]
    /// between them, of which one in common is enough. Scopes of earlier servers have no authorities, nor do some
    /// launchers.
    pub const AUTHORITY: &str = ", authority ";
    /// Separates the names of authorities.
    pub const OR: &str = "+";

    /// Whether a launcher with this id can observe attempts of the other.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let Some(recorded) = &other.scope else { return self.kind == other.kind };
        let is_own = |own: &String| {
            let (own, recorded) = (Scope::of(own), Scope::of(recorded));
            let is_same = match (own.authority, recorded.authority) {
                (Some(own), Some(recorded)) => {
                    own.split(Self::OR).any(|one| recorded.split(Self::OR).any(|other| one == other))
                }
                _ => true,
            };
            own.name == recorded.name && is_same
        };
        self.kind == other.kind && self.scope.as_ref().is_some_and(is_own)
    }
}

/// The parts of a scope.
struct Scope<'a> {
    name: &'a str,
    authority: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn of(text: &'a str) -> Self {
        match text.split_once(LauncherId::AUTHORITY) {
            Some((name, authority)) => Self { name, authority: Some(authority) },
            None => Self { name: text, authority: None },
        }
    }
}

impl fmt::Display for LauncherId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Some(scope) => write!(f, "{} ({scope})", self.kind.name()),
            None => f.write_str(self.kind.name()),
        }
    }
}
