//! Where attempts run, and who can tell about them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where an attempt runs: only a launcher of the same place can tell what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherId {
    /// The launcher's name.
    pub launcher: String,
    /// Which of the places that launchers of this name serve; see `Launcher::scope`. `None`: it was recorded before scopes
    /// were, and the launcher's name says all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

impl LauncherId {
    /// The place of a launcher that has one only.
    pub fn of(launcher: impl Into<String>) -> Self {
        Self { launcher: launcher.into(), scope: None }
    }

    /// Stands in a scope before what tells apart places that are called alike: names with [`Self::OR`] between them, of which
    /// one in common is enough. Earlier servers recorded scopes without, and some places have none.
    pub const AUTHORITY: &str = ", authority ";
    /// Stands between the names of authorities.
    pub const OR: &str = "+";

    /// Whether a launcher of this place can tell about attempts of the other.
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
