//! Sessions of browsers that signed in, with an access token or at a provider. The cookie is a statement that this server
//! sealed: whose session it is, with what it began, and until when. It opens pages, and nothing else takes it. No token is in
//! it, so other servers on the host, which get the cookie too, learn none.

use std::time::Duration;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlflow_identity::{Method, Principal};

use super::cookies;
use super::links::{Links, now_seconds};
use super::sealed::{MAX_VALUE_BYTES, seal, unseal};
use crate::access::Access;

/// Names of the cookie. Browsers take the first one over HTTPS only, and from this host only.
const SECURE_COOKIE: &str = "__Host-sqlflow_session";
const PLAIN_COOKIE: &str = "sqlflow_session";
/// Maximum lifetime of a session with a token that is no entry of the token file. The session does not see when the token is
/// revoked.
const WITHOUT_ENTRY: Duration = Duration::from_secs(15 * 60);

/// Purpose of the sealed statement.
const SESSION: &str = "browser session";
/// Purpose of a MAC.
const ENTRY: &str = "entry of a browser session";

/// Makes and checks sessions.
#[derive(Clone)]
pub struct Sessions {
    links: Links,
    lifetime: Duration,
}

/// What a cookie says.
#[derive(Debug, Serialize, Deserialize)]
struct Statement {
    /// Name of the principal.
    name: String,
    /// Times in seconds since the Unix epoch.
    issued: u64,
    until: u64,
    basis: Basis,
}

/// What a session began with. The groups are those that decide something here: all of them may be too long for a cookie.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Basis {
    /// An entry of the token file, by a fingerprint of its hash. The session ends with the entry, and has its groups.
    Entry(String),
    /// Another token, for a principal with these groups.
    Token { groups: Vec<String> },
    /// A sign-in at a provider, for a principal with these groups.
    SignIn {
        /// Provider and client. The session ends if the server has another one.
        authority: String,
        groups: Vec<String>,
    },
}

impl Sessions {
    /// Signed with the secret of these links, and valid for `lifetime`.
    #[must_use]
    pub fn new(links: Links, lifetime: Duration) -> Self {
        Self { links, lifetime }
    }

    /// The cookie for a principal that showed this token. `None`: it would be too long.
    pub(super) fn begin(&self, principal: &Principal, token: &str, access: &Access) -> Option<String> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let is_entry = access.entry(principal.name(), &|it| *it == hash).is_some();
        let basis = if is_entry {
            Basis::Entry(self.fingerprint(&hash))
        } else {
            Basis::Token { groups: needed_groups(principal, access) }
        };
        self.begin_with(principal, basis)
    }

    /// The cookie for a principal that signed in at this authority. `None`: it would be too long.
    pub(super) fn begin_signed_in(
        &self,
        principal: &Principal,
        authority: &str,
        access: &Access,
    ) -> Option<String> {
        let groups = needed_groups(principal, access);
        self.begin_with(principal, Basis::SignIn { authority: authority.to_owned(), groups })
    }

    fn begin_with(&self, principal: &Principal, basis: Basis) -> Option<String> {
        let seconds = match &basis {
            Basis::Token { .. } => self.lifetime.min(WITHOUT_ENTRY),
            Basis::Entry(_) | Basis::SignIn { .. } => self.lifetime,
        }
        .as_secs();
        let issued = now_seconds();
        let until = issued.saturating_add(seconds);
        let statement = Statement { name: principal.name().to_owned(), issued, until, basis };
        let value = seal(&self.links, &[SESSION], &statement);
        (value.len() <= MAX_VALUE_BYTES).then(|| self.cookie(&value, seconds))
    }

    /// The cookie that ends a session.
    pub(super) fn end(&self) -> String {
        self.cookie("", 0)
    }

    /// Whether the browser has a session, perhaps one that has ended.
    pub(super) fn has_one(&self, headers: &HeaderMap) -> bool {
        self.values(headers).next().is_some()
    }

    /// Whose session the request has. `None`: it has none, or that has ended. `authority` is that of sign-ins at a provider now.
    pub(super) fn principal(
        &self,
        headers: &HeaderMap,
        access: &Access,
        authority: Option<&str>,
    ) -> Option<Principal> {
        self.values(headers).find_map(|value| self.opened(value, access, authority, now_seconds()))
    }

    fn opened(&self, value: &str, access: &Access, authority: Option<&str>, now: u64) -> Option<Principal> {
        let Statement { name, issued, until, basis } = unseal::<Statement>(&self.links, &[SESSION], value)?;
        // An operator who shortens the lifetime means earlier sessions too.
        let until = until.min(issued.saturating_add(self.lifetime.as_secs()));
        if now >= until {
            return None;
        }
        match basis {
            Basis::Entry(fingerprint) => access.entry(&name, &|hash| self.fingerprint(hash) == fingerprint),
            Basis::Token { groups } => principal(&name, &groups),
            Basis::SignIn { authority: of, groups } => {
                (authority == Some(of.as_str())).then(|| principal(&name, &groups)).flatten()
            }
        }
    }

    fn values<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        cookies::values(headers, self.cookie_name()).filter(|value| !value.is_empty())
    }

    fn cookie_name(&self) -> &'static str {
        cookies::name(&self.links, PLAIN_COOKIE, SECURE_COOKIE)
    }

    fn cookie(&self, value: &str, seconds: u64) -> String {
        cookies::set(&self.links, self.cookie_name(), value, "/", seconds, "Strict")
    }

    /// Which entry it is, for those who have the secret only.
    fn fingerprint(&self, hash: &[u8; 32]) -> String {
        hex::encode(&self.links.derive(ENTRY, &[hash])[..16])
    }
}

fn needed_groups(principal: &Principal, access: &Access) -> Vec<String> {
    access.policy().with_needed_groups(principal).groups().to_vec()
}

/// The principal of this whole name and these whole groups.
fn principal(name: &str, groups: &[String]) -> Option<Principal> {
    let (method, own) = name.split_once(':')?;
    let method = Method::ALL.into_iter().find(|it| it.name() == method)?;
    let groups = groups.iter().filter_map(|it| it.split_once(':')).map(|(_, group)| group);
    Some(Principal::new(method, own).with_groups(method, groups))
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use sqlflow_identity::Policy;
    use sqlflow_identity::token_file::{TokenFile, entry};

    use super::*;
    use crate::access::Tokens;

    const HOUR: Duration = Duration::from_secs(3600);
    const AUTHORITY: &str = "https://login.example.com pages";

    struct World {
        sessions: Sessions,
        access: Access,
        dir: tempfile::TempDir,
    }

    /// Two entries of ana, with the tokens `one` and `two`.
    fn world(public_url: &str) -> World {
        world_with(public_url, Policy::default())
    }

    fn world_with(public_url: &str, policy: Policy) -> World {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens.toml");
        std::fs::write(&file, entry("ana", "one") + &entry("ana", "two")).unwrap();
        let links = Links::open(&dir.path().join("links.key"), public_url, HOUR).unwrap();
        let tokens = Tokens(TokenFile::open(&file).unwrap());
        let access = Access::new(policy, vec![Box::new(tokens)]);
        World { sessions: Sessions::new(links, HOUR), access, dir }
    }

    fn value(cookie: &str) -> &str {
        cookie.split(';').next().unwrap().split_once('=').unwrap().1
    }

    impl World {
        fn begin(&self, principal: &Principal, token: &str) -> String {
            self.sessions.begin(principal, token, &self.access).unwrap()
        }

        fn at(&self, cookie: &str, later: u64) -> Option<Principal> {
            self.sessions.opened(value(cookie), &self.access, Some(AUTHORITY), now_seconds() + later)
        }
    }

    #[test]
    fn session_of_an_entry_ends_with_it_and_with_its_time() {
        let world = world("http://host");
        let ana = Principal::new(Method::Token, "ana");
        let cookie = world.begin(&ana, "one");
        assert!(!cookie.contains(&hex::encode("one")), "{cookie}");
        assert_eq!(world.at(&cookie, 3500), Some(ana.clone()));
        assert_eq!(world.at(&cookie, 3600), None, "its time is over");
        let shorter = Sessions { lifetime: Duration::from_secs(60), ..world.sessions.clone() };
        assert_eq!(shorter.opened(value(&cookie), &world.access, None, now_seconds() + 60), None);
        let without = Access::new(Policy::default(), Vec::new());
        assert_eq!(world.sessions.opened(value(&cookie), &without, None, now_seconds()), None);
        // An entry of the same name is another one.
        let file = world.dir.path().join("rotated.toml");
        std::fs::write(&file, entry("ana", "two")).unwrap();
        let rotated = Access::new(Policy::default(), vec![Box::new(Tokens(TokenFile::open(&file).unwrap()))]);
        assert_eq!(world.sessions.opened(value(&cookie), &rotated, None, now_seconds()), None);
        assert!(
            world.sessions.opened(value(&world.begin(&ana, "two")), &rotated, None, now_seconds()).is_some()
        );
    }

    #[test]
    fn session_with_another_token_is_short_and_has_its_groups() {
        let long = "x".repeat(3000);
        let needed = ["system:authenticated", "x", &long].map(|it| format!("group:kubernetes:{it}"));
        let allowed = needed.iter().map(|it| it.parse().unwrap()).collect();
        let world = world_with("http://host", Policy { allowed, ..Policy::default() });
        let bob = Principal::new(Method::Kubernetes, "system:serviceaccount:a:b")
            .with_groups(Method::Kubernetes, ["system:authenticated", "x"]);
        let cookie = world.begin(&bob, "a.b.c");
        assert!(cookie.contains("; Max-Age=900;"), "{cookie}");
        assert_eq!(world.at(&cookie, 800), Some(bob.clone()));
        assert_eq!(world.at(&cookie, 900), None);
        let unneeded = "y".repeat(3000);
        let more = bob.clone().with_groups(Method::Kubernetes, ["system:authenticated", "x", &unneeded]);
        assert_eq!(world.at(&world.begin(&more, "a.b.c"), 0), Some(bob.clone()), "no rule has that group");
        let many = bob.with_groups(Method::Kubernetes, [long.as_str()]);
        assert_eq!(world.sessions.begin(&many, "a.b.c", &world.access), None);
    }

    #[test]
    fn session_of_a_sign_in_ends_with_its_time_and_its_authority() {
        let allowed = vec!["group:oidc:ml".parse().unwrap()];
        let world = world_with("http://host", Policy { allowed, ..Policy::default() });
        let ana = Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, ["ml"]);
        let of_more = ana.clone().with_groups(Method::Oidc, ["ml", "unneeded"]);
        let cookie = world.sessions.begin_signed_in(&of_more, AUTHORITY, &world.access).unwrap();
        assert!(cookie.contains("; Max-Age=3600;"), "{cookie}");
        assert_eq!(world.at(&cookie, 3500), Some(ana.clone()));
        assert_eq!(world.at(&cookie, 3600), None, "its time is over");
        let shorter = Sessions { lifetime: Duration::from_secs(60), ..world.sessions.clone() };
        let opened = |sessions: &Sessions, authority, later| {
            sessions.opened(value(&cookie), &world.access, authority, now_seconds() + later)
        };
        assert_eq!(opened(&shorter, Some(AUTHORITY), 50), Some(ana));
        assert_eq!(opened(&shorter, Some(AUTHORITY), 60), None);
        assert_eq!(opened(&world.sessions, Some("https://login.example.com other"), 0), None);
        assert_eq!(opened(&world.sessions, None, 0), None);
    }

    #[test]
    fn forged_session_is_none() {
        let world = world("http://host");
        let cookie = world.begin(&Principal::new(Method::Token, "ana"), "one");
        let (said, mac) = value(&cookie).split_once('.').unwrap();
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(said).unwrap()).unwrap();
        let forged = URL_SAFE_NO_PAD.encode(text.replace("token:ana", "token:bob"));
        let other = world.sessions.links.derive("job page until ", &[text.as_bytes()]);
        for wrong in [
            String::new(),
            "one".to_owned(),
            said.to_owned(),
            format!("{said}."),
            format!("{said}.{}", &mac[2..]),
            format!("{forged}.{mac}"),
            format!("{said}.{}", URL_SAFE_NO_PAD.encode(other)),
            seal(&world.sessions.links, &["something else"], &text),
        ] {
            assert_eq!(world.sessions.opened(&wrong, &world.access, None, now_seconds()), None, "{wrong}");
        }
    }

    #[test]
    fn cookie_is_for_this_host_over_https() {
        let world = world("https://host");
        let cookie = world.begin(&Principal::new(Method::Token, "ana"), "one");
        assert!(cookie.starts_with("__Host-sqlflow_session="), "{cookie}");
        for part in ["; Path=/;", "; HttpOnly", "; SameSite=Strict", "; Secure"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        let sent = |text: String| HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
        let value = value(&cookie);
        let of =
            |name: &str| world.sessions.principal(&sent(format!("a=b; {name}={value}")), &world.access, None);
        assert!(of("__Host-sqlflow_session").is_some());
        assert_eq!(of("sqlflow_session"), None, "another host of the domain could set it");
        assert!(world.sessions.end().contains("=; Path=/; Max-Age=0;"));
    }
}
