//! What callers may do.

use std::str::FromStr;

use crate::{Method, Principal};

/// Who may use a server, and who may administer it.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Who may use it.
    pub allowed: Vec<Pattern>,
    /// Who may also read and cancel the jobs of others.
    pub admins: Vec<Pattern>,
    /// Everybody is an administrator, also callers that are not known.
    pub is_open: bool,
}

/// One or more principals: `unix:ana`, `oidc:*`, `group:oidc:ml-team`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    is_group: bool,
    /// Name, or its beginning.
    name: String,
    is_prefix: bool,
}

/// A pattern that nobody can match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no principal; write METHOD:NAME or group:METHOD:NAME, where METHOD is unix, token, cert, \
     oidc or kubernetes, such as unix:ana or token:*"
)]
pub struct PatternError(String);

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    principal: Option<Principal>,
    is_allowed: bool,
    is_admin: bool,
}

impl Policy {
    /// Whether a principal of this method could be allowed.
    #[must_use]
    pub fn names(&self, method: Method) -> bool {
        self.is_open || self.allowed.iter().chain(&self.admins).any(|it| it.is_of(method))
    }

    /// The principal with those of its groups only that decide something here.
    #[must_use]
    pub fn with_needed_groups(&self, principal: &Principal) -> Principal {
        principal.filter_groups(|group| {
            self.allowed.iter().chain(&self.admins).any(|it| it.is_group && it.is_same(group))
        })
    }

    /// The caller with this identity; `None`: nothing is known of it.
    #[must_use]
    pub fn caller(&self, principal: Option<Principal>) -> Caller {
        let is_one_of = |patterns: &[Pattern]| matches_any(patterns, principal.as_ref());
        let is_admin = self.is_open || is_one_of(&self.admins);
        Caller { is_allowed: is_admin || is_one_of(&self.allowed), is_admin, principal }
    }
}

/// Name of a caller of whom nothing is known.
pub const ANONYMOUS: &str = "anonymous";

impl Caller {
    /// Name of the principal, or [`ANONYMOUS`].
    #[must_use]
    pub fn name(&self) -> &str {
        self.principal.as_ref().map_or(ANONYMOUS, Principal::name)
    }

    /// The principal, if it is known.
    #[must_use]
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Whether they may run programs, and list their jobs.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.is_allowed
    }

    /// Whether they may read and cancel everybody's jobs.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Whether one of these stands for them. Administrators may do what others may.
    #[must_use]
    pub fn is_one_of(&self, patterns: &[Pattern]) -> bool {
        self.is_admin || matches_any(patterns, self.principal.as_ref())
    }

    /// Whether they may read and cancel a job of this principal without its token.
    #[must_use]
    pub fn may_access(&self, owner: Option<&str>) -> bool {
        let is_owner = || self.principal.as_ref().is_some_and(|it| owner == Some(it.name()));
        self.is_admin || (self.is_allowed && is_owner())
    }
}

fn matches_any(patterns: &[Pattern], principal: Option<&Principal>) -> bool {
    principal.is_some_and(|it| patterns.iter().any(|pattern| pattern.matches(it)))
}

impl Pattern {
    /// Whether it stands for this principal.
    #[must_use]
    pub fn matches(&self, principal: &Principal) -> bool {
        match self.is_group {
            true => principal.groups().iter().any(|group| self.is_same(group)),
            false => self.is_same(principal.name()),
        }
    }

    fn is_same(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&self.name) } else { name == self.name }
    }

    /// Whether it stands for principals of this method.
    #[must_use]
    pub fn is_of(&self, method: Method) -> bool {
        self.name.strip_prefix(method.name()).is_some_and(|it| it.starts_with(':'))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (is_group, name) = match text.strip_prefix("group:") {
            Some(group) => (true, group),
            None => (false, text),
        };
        let (name, is_prefix) = match name.strip_suffix('*') {
            Some(begin) => (begin, true),
            None => (name, false),
        };
        // The whole method: `o*` would also match methods of later versions.
        let is_whole = name.split_once(':').is_some_and(|(method, name)| {
            Method::ALL.iter().any(|it| it.name() == method) && (is_prefix || !name.is_empty())
        });
        if !is_whole || name.contains('*') {
            return Err(PatternError(text.to_owned()));
        }
        Ok(Self { is_group, name: name.to_owned(), is_prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Method;

    fn patterns(all: &[&str]) -> Vec<Pattern> {
        all.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn pattern_matches_names_prefixes_and_groups() {
        let ana = Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, ["ml", "web"]);
        for (pattern, matches) in [
            ("oidc:ana", true),
            ("oidc:an", false),
            ("oidc:an*", true),
            ("oidc:*", true),
            ("token:ana", false),
            ("token:*", false),
            ("group:oidc:ml", true),
            ("group:oidc:m*", true),
            ("group:oidc:ana", false),
            ("oidc:ml", false),
            ("group:token:ml", false),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(&ana), matches, "{pattern}");
        }
    }

    #[test]
    fn groups_that_decide_nothing_are_left_out() {
        let policy = Policy {
            allowed: patterns(&["group:oidc:ml", "oidc:web"]),
            admins: patterns(&["group:oidc:op*"]),
            is_open: false,
        };
        let ana = Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, ["ml", "web", "ops", "mls"]);
        let needed = policy.with_needed_groups(&ana);
        assert_eq!(
            (needed.name(), needed.groups()),
            ("oidc:ana", &["oidc:ml".to_owned(), "oidc:ops".to_owned()][..])
        );
        assert_eq!(policy.caller(Some(needed)).is_admin(), policy.caller(Some(ana)).is_admin());
        assert!(policy.names(Method::Oidc) && !policy.names(Method::Token) && !policy.names(Method::Unix));
    }

    #[test]
    fn pattern_without_a_method_is_refused() {
        for wrong in
            ["", "*", "ana", "o*", ":ana", "unix:", "ldap:ana", "group:ml", "group:*", "unix:a*b", "unix:**"]
        {
            let error = wrong.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?} names no principal")), "{error}");
        }
    }

    #[test]
    fn caller_may_access_own_jobs_and_an_admin_all() {
        let policy = Policy {
            allowed: patterns(&["unix:ana", "unix:bob"]),
            admins: patterns(&["unix:root"]),
            is_open: false,
        };
        let caller = |name| policy.caller(Some(Principal::new(Method::Unix, name)));
        let may = |caller: &Caller, owner| (caller.is_allowed(), caller.is_admin(), caller.may_access(owner));
        assert_eq!(may(&caller("ana"), Some("unix:ana")), (true, false, true));
        assert_eq!(may(&caller("bob"), Some("unix:ana")), (true, false, false));
        assert_eq!(may(&caller("bob"), None), (true, false, false), "a job of an older server");
        assert_eq!(may(&caller("root"), Some("unix:ana")), (true, true, true));
        assert_eq!(may(&caller("root"), None), (true, true, true));
        assert_eq!(may(&caller("eve"), Some("unix:eve")), (false, false, false), "no longer allowed");
        let nobody = policy.caller(None);
        assert_eq!(may(&nobody, None), (false, false, false));
        assert_eq!(nobody.name(), "anonymous");
        let open = Policy { is_open: true, ..Policy::default() };
        assert_eq!(may(&open.caller(None), Some("unix:ana")), (true, true, true));
    }
}
