//! What a browser keeps for this server: it can be read there, and made by servers of this state folder only. So it survives
//! their restarts, and the server keeps nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Links;

/// Maximum length of a value: browsers keep no larger cookies.
pub(super) const MAX_VALUE_BYTES: usize = 3800;

/// Purpose of all these MACs, beside those of `Links`.
const SEALED: &str = "kept by a browser";

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

fn with<'a>(purpose: &[&'a str], content: &'a [u8]) -> Vec<&'a [u8]> {
    purpose.iter().map(|it| it.as_bytes()).chain([content]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PURPOSE: &[&str] = &["session", "https://login.example.com pages"];

    fn links(dir: &tempfile::TempDir) -> Links {
        Links::open(&dir.path().join("links.key"), "https://host", Duration::ZERO).unwrap()
    }

    #[test]
    fn every_server_of_the_state_folder_reads_a_value() {
        let dir = tempfile::tempdir().unwrap();
        let value = seal(&links(&dir), PURPOSE, &"ana");
        assert_eq!(unseal::<String>(&links(&dir), PURPOSE, &value).as_deref(), Some("ana"));
        assert!(value.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it)), "{value}");
    }

    #[test]
    fn changed_and_foreign_values_are_refused() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let links = links(&dir);
        let value = seal(&links, PURPOSE, &"ana");
        let (content, mac) = value.split_once('.').unwrap();
        let root = URL_SAFE_NO_PAD.encode("\"root\"");
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
            assert_eq!(unseal::<String>(&links, PURPOSE, &wrong), None, "{wrong}");
        }
        assert_eq!(unseal::<String>(&self::links(&other), PURPOSE, &value), None, "another state folder");
        let others: [&[&str]; 3] = [&["session", "https://login.example.com"], &["session"], &[]];
        for purpose in others {
            assert_eq!(unseal::<String>(&links, purpose, &value), None, "{purpose:?}");
        }
    }
}
