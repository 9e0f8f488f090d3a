//! What a browser keeps for this server: it can be read there, and made by servers of this state folder only. So a session
//! survives their restarts, and nobody has a list of sessions.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlflow_identity::{Method, Principal};

use super::Links;

/// Maximum length of a value: browsers keep no larger cookies.
pub(super) const MAX_VALUE_BYTES: usize = 3800;
/// Purpose of the MAC of a session.
const SESSION: &str = "session of a browser";

/// Purpose of a value, and what else it depends on. A value for one realm is none for another.
#[derive(Clone, Copy)]
pub(super) struct Realm<'a> {
    /// How the principal was found.
    pub(super) method: Method,
    /// Who proved it: a session ends if another one does.
    pub(super) authority: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Session {
    /// Without the method, as the groups: a session is always one of its realm.
    name: String,
    groups: Vec<String>,
    /// Seconds since the Unix epoch.
    until: u64,
}

/// Signs a session of this principal. `None`: it has another method, or too many groups for a cookie.
#[must_use]
pub(super) fn sign(links: &Links, realm: Realm<'_>, principal: &Principal, until: u64) -> Option<String> {
    let plain = |name: &str| name.strip_prefix(realm.method.name())?.strip_prefix(':').map(str::to_owned);
    let groups = principal.groups().iter().map(|it| plain(it)).collect::<Option<_>>()?;
    let session = Session { name: plain(principal.name())?, groups, until };
    Some(seal(links, &parts(realm), &session)).filter(|it| it.len() <= MAX_VALUE_BYTES)
}

/// The principal of a session that is valid at this time.
#[must_use]
pub(super) fn verify(links: &Links, realm: Realm<'_>, value: &str, now: u64) -> Option<Principal> {
    let session: Session = unseal(links, &parts(realm), value)?;
    let groups = session.groups.iter().map(String::as_str);
    let principal = || Principal::new(realm.method, &session.name).with_groups(realm.method, groups);
    (now < session.until).then(principal)
}

fn parts(realm: Realm<'_>) -> [&str; 3] {
    [SESSION, realm.method.name(), realm.authority]
}

/// Signs a value for a purpose, of which each has its own list of texts.
pub(super) fn seal(links: &Links, purpose: &[&str], content: &impl Serialize) -> String {
    let content = serde_json::to_vec(content).expect("texts and numbers can be written");
    let mac = links.derive(SEALED, &with(purpose, &content));
    format!("{}.{}", URL_SAFE_NO_PAD.encode(&content), URL_SAFE_NO_PAD.encode(mac))
}

/// A value that was sealed for this purpose.
pub(super) fn unseal<T: DeserializeOwned>(links: &Links, purpose: &[&str], value: &str) -> Option<T> {
    if value.len() > MAX_VALUE_BYTES {
        return None;
    }
    let (content, mac) = value.split_once('.')?;
    let [content, mac] = [content, mac].map(|it| URL_SAFE_NO_PAD.decode(it).ok());
    let content = content?;
    let is_own = links.derives(SEALED, &with(purpose, &content), &mac?);
    is_own.then(|| serde_json::from_slice(&content).ok()).flatten()
}

/// Purpose of all these MACs, beside those of `Links`.
const SEALED: &str = "kept by a browser";

fn with<'a>(purpose: &[&'a str], content: &'a [u8]) -> Vec<&'a [u8]> {
    purpose.iter().map(|it| it.as_bytes()).chain([content]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const REALM: Realm<'_> = Realm { method: Method::Oidc, authority: "https://login.example.com pages" };

    fn links(dir: &tempfile::TempDir) -> Links {
        Links::open(&dir.path().join("links.key"), "https://host", Duration::ZERO).unwrap()
    }

    #[test]
    fn session_is_valid_on_every_server_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let ana = Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, ["ml", "web"]);
        let value = sign(&links(&dir), REALM, &ana, NOW + 60).unwrap();
        assert_eq!(verify(&links(&dir), REALM, &value, NOW + 59), Some(ana));
        assert_eq!(verify(&links(&dir), REALM, &value, NOW + 60), None);
        assert!(value.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it)), "{value}");
    }

    #[test]
    fn changed_and_foreign_sessions_are_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let links = links(&dir);
        let ana = Principal::new(Method::Oidc, "ana");
        let value = sign(&links, REALM, &ana, NOW + 60).unwrap();
        let (content, mac) = value.split_once('.').unwrap();
        let root =
            URL_SAFE_NO_PAD.encode(format!("{{\"name\":\"root\",\"groups\":[],\"until\":{}}}", NOW + 60));
        for wrong in [
            format!("{root}.{mac}"),
            format!("{root}."),
            format!("{content}."),
            format!("{content}.{}", &mac[..mac.len() - 2]),
            content.to_owned(),
            String::new(),
            "x".repeat(MAX_VALUE_BYTES + 1),
            seal(&links, &["something else"], &"x"),
        ] {
            assert_eq!(verify(&links, REALM, &wrong, NOW), None, "{wrong}");
        }
        assert_eq!(verify(&self::links(&other), REALM, &value, NOW), None, "another state folder");
        assert_eq!(
            verify(&links, Realm { authority: "https://login.example.com", ..REALM }, &value, NOW),
            None
        );
        assert_eq!(verify(&links, Realm { method: Method::Token, ..REALM }, &value, NOW), None);
    }

    #[test]
    fn principal_that_is_not_of_its_realm_gets_no_session() {
        let dir = tempfile::tempdir().unwrap();
        let links = links(&dir);
        assert_eq!(sign(&links, REALM, &Principal::new(Method::Unix, "root"), NOW), None);
        let groups: Vec<String> = (0..1000).map(|it| format!("group-{it}")).collect();
        let many =
            Principal::new(Method::Oidc, "ana").with_groups(Method::Oidc, groups.iter().map(String::as_str));
        assert_eq!(sign(&links, REALM, &many, NOW), None);
    }
}
