//! A sign-in that a browser has begun. Its secrets are derived from a number that only this browser's cookie has, and from
//! the state folder's secret: neither suffices alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::web::Links;
use crate::web::sealed::{seal, unseal};

/// Purposes of what is derived.
const COOKIE: &str = "sign-in at a provider";
const STATE: &str = "state of a sign-in";
const NONCE: &str = "nonce of a sign-in";
const VERIFIER: &str = "code verifier of a sign-in";

/// Where a sign-in leads to, unless to another page of this server.
const HOME: &str = "/jobs";
const MAX_PATH_BYTES: usize = 200;

/// A sign-in.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    /// Random.
    id: [u8; 16],
    /// Path of the page to show afterwards.
    to: String,
    /// End of its time, in seconds since the Unix epoch.
    until: u64,
}

impl Begun {
    pub(super) fn new(to: &str, until: u64) -> Self {
        Self { id: rand::random(), to: to.to_owned(), until }
    }

    /// Path of the page to show afterwards.
    pub(super) fn to(&self) -> &str {
        &self.to
    }

    /// Comes back with the code.
    pub(super) fn state(&self, links: &Links) -> String {
        URL_SAFE_NO_PAD.encode(links.derive(STATE, &[&self.id]))
    }

    pub(super) fn is_state(&self, links: &Links, state: &str) -> bool {
        URL_SAFE_NO_PAD.decode(state).is_ok_and(|it| links.derives(STATE, &[&self.id], &it))
    }

    /// Comes back in the ID token.
    pub(super) fn nonce(&self, links: &Links) -> String {
        URL_SAFE_NO_PAD.encode(links.derive(NONCE, &[&self.id]))
    }

    /// Shows that who exchanges the code is who requested it (PKCE, RFC 7636).
    pub(super) fn verifier(&self, links: &Links) -> String {
        URL_SAFE_NO_PAD.encode(links.derive(VERIFIER, &[&self.id]))
    }

    /// What the provider gets of the verifier before.
    pub(super) fn challenge(&self, links: &Links) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier(links)))
    }

    /// The cookie's value.
    pub(super) fn seal(&self, links: &Links, authority: &str) -> String {
        seal(links, &[COOKIE, authority], self)
    }

    /// The sign-in of a cookie, if its time is not over.
    pub(super) fn unseal(links: &Links, authority: &str, value: &str, now: u64) -> Option<Self> {
        unseal(links, &[COOKIE, authority], value).filter(|it: &Self| now < it.until)
    }
}

/// A path of this server's pages: anybody can make a link with another address.
pub(super) fn local_path(to: &str) -> &str {
    let is_page = to == HOME || to.strip_prefix(HOME).is_some_and(|it| it.starts_with('/'));
    let is_plain = to.bytes().all(|it| it.is_ascii_alphanumeric() || b"/-_".contains(&it));
    if is_page && is_plain && to.len() <= MAX_PATH_BYTES { to } else { HOME }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sign_in_leads_to_pages_of_this_server_only() {
        for page in ["/jobs", "/jobs/01m8my38s4enfskp01655jjtm7", "/jobs/x/log"] {
            assert_eq!(local_path(page), page);
        }
        for other in [
            "",
            "/",
            "//evil.example.com",
            "/\\evil.example.com",
            "https://evil.example.com",
            "/jobs.evil.example.com",
            "/jobs@evil.example.com",
            "/jobs/../sign-out",
            "/jobs/\r\nSet-Cookie: a=b",
            "/jobs/?key=x",
            "/jobs;url=https://evil.example.com",
            "javascript:alert(1)",
        ] {
            assert_eq!(local_path(other), HOME, "{other}");
        }
        assert_eq!(local_path(&format!("/jobs/{}", "x".repeat(300))), HOME);
    }

    #[test]
    fn sign_in_belongs_to_one_browser_and_one_provider() {
        let dir = tempfile::tempdir().unwrap();
        let links = Links::open(&dir.path().join("links.key"), "https://host", Duration::ZERO).unwrap();
        let (mine, other) = (Begun::new(HOME, 100), Begun::new(HOME, 100));
        let opened = Begun::unseal(&links, "provider", &mine.seal(&links, "provider"), 99).unwrap();
        assert!(opened.is_state(&links, &mine.state(&links)));
        assert!(!opened.is_state(&links, &other.state(&links)) && !opened.is_state(&links, ""));
        assert!(!opened.is_state(&links, &mine.nonce(&links)));
        assert_eq!(opened.verifier(&links), mine.verifier(&links));
        assert!(
            Begun::unseal(&links, "provider", &mine.seal(&links, "provider"), 100).is_none(),
            "it is over"
        );
        assert!(Begun::unseal(&links, "other", &mine.seal(&links, "provider"), 99).is_none());
        let all = [mine.state(&links), mine.nonce(&links), mine.verifier(&links), mine.challenge(&links)];
        assert!(all.iter().all(|it| it.len() == 43), "{all:?}");
        assert_eq!(std::collections::BTreeSet::from(all).len(), 4);
    }
}
