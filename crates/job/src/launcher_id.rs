//! Launcher ids.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Id of a launcher. Only a launcher with the same id can observe its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherId {
    /// Kind of the launcher.
    pub launcher: String,
    /// Scope among launchers of this kind; see `Launcher::scope`. `None`: it was recorded by a version without scopes,
    /// and the kind is the whole id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl LauncherId {
    /// The id of a launcher without a scope.
    pub fn of(launcher: impl Into<String>) -> Self {
        Self { launcher: launcher.into(), scope: None }
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
        let Some(recorded) = &other.scope else { return self.launcher == other.launcher };
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
        self.launcher == other.launcher && self.scope.as_ref().is_some_and(is_own)
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
            Some(scope) => write!(f, "{} ({scope})", self.launcher),
            None => f.write_str(&self.launcher),
        }
    }
}
