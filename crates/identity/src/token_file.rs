//! The token file: who has which bearer token. It holds hashes only, so that nobody who reads it can use the tokens.
//!
//! ```toml
//! [[tokens]]
//! name = "ana"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! groups = ["ml-team"]
//! ```

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use sqlflow_os::reloaded::Reloaded;

use crate::{Method, Principal};

/// First characters of every token, by which scanners for leaked secrets find them.
const PREFIX: &str = "sqlflow_at_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// A new token.
#[must_use]
pub fn new_token() -> String {
    format!("{PREFIX}{}", hex::encode(rand::random::<[u8; TOKEN_BYTES]>()))
}

/// The entry for a token in the file.
#[must_use]
pub fn entry(name: &str, token: &str) -> String {
    let name = toml::Value::from(name);
    format!("[[tokens]]\nname = {name}\nsha256 = \"{}\"\n", hex::encode(Sha256::digest(token)))
}

type Tokens = HashMap<[u8; 32], Principal>;

/// The file's entries. A changed file is read again; one that cannot be used leaves the entries before it in use.
pub struct TokenFile(Reloaded<Tokens>);

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is not of this form.
    pub fn open(path: &Path) -> io::Result<Self> {
        Reloaded::open(path, parse).map(Self)
    }

    /// Whose token it is. `on_error` gets the error of a changed file that cannot be used.
    pub fn principal(&self, token: &str, on_error: impl FnOnce(&io::Error)) -> Option<Principal> {
        // The hash is looked up, so that the time does not depend on how much of a token is right.
        self.0.current(on_error).get::<[u8; 32]>(&Sha256::digest(token).into()).cloned()
    }
}

impl TokenFile {
    /// The principal of this name, if it has an entry whose hash is the right one.
    pub fn entry(
        &self,
        name: &str,
        is_right: &dyn Fn(&[u8; 32]) -> bool,
        on_error: impl FnOnce(&io::Error),
    ) -> Option<Principal> {
        let tokens = self.0.current(on_error);
        let mut of_name = tokens.iter().filter(|(_, principal)| principal.name() == name);
        of_name.find(|(hash, _)| is_right(hash)).map(|(_, principal)| principal.clone())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    tokens: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    #[serde(default)]
    groups: Vec<String>,
}

fn parse(text: &str) -> Result<Tokens, String> {
    let document: Document =
        toml::from_str(text).map_err(|error: toml::de::Error| error.message().to_owned())?;
    let mut tokens = Tokens::new();
    for entry in document.tokens {
        let name = entry.name.as_str();
        if name.is_empty() {
            return Err("a token has an empty name".to_owned());
        }
        let hash = hex::decode(&entry.sha256).ok().and_then(|it| it.try_into().ok()).ok_or_else(|| {
            format!("the token of {name:?} has no SHA-256 of 64 hexadecimal digits; make one with `sqlflow-server token`")
        })?;
        let groups = entry.groups.iter().map(String::as_str);
        let principal = Principal::new(Method::Token, name).with_groups(Method::Token, groups);
        if tokens.insert(hash, principal).is_some() {
            return Err(format!("the token of {name:?} is there twice"));
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(file: &TokenFile, token: &str) -> Option<String> {
        file.principal(token, |error| panic!("{error}")).map(|it| it.name().to_owned())
    }

    #[test]
    fn token_is_known_by_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let (ana, bob) = (new_token(), new_token());
        std::fs::write(&path, entry("ana", &ana) + &entry("b\"ob", &bob) + "groups = ['ml']\n").unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert_eq!(known(&file, &ana).as_deref(), Some("token:ana"));
        assert_eq!(known(&file, &bob).as_deref(), Some("token:b\"ob"));
        let groups = file.principal(&bob, |_| ()).unwrap().groups().to_vec();
        assert_eq!(groups, ["token:ml"]);
        let hash = hex::encode(Sha256::digest(&ana));
        for wrong in ["", "x", &hash, &ana[1..], &ana.to_uppercase()] {
            assert_eq!(known(&file, wrong), None, "{wrong}");
        }
        assert!(!std::fs::read_to_string(&path).unwrap().contains(&ana));
    }

    #[test]
    fn entry_is_found_by_name_and_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        std::fs::write(&path, entry("ana", "x") + &entry("ana", "y") + &entry("bob", "z")).unwrap();
        let file = TokenFile::open(&path).unwrap();
        let of = |name: &str, token: &str| {
            let hash: [u8; 32] = Sha256::digest(token).into();
            file.entry(name, &|it| *it == hash, |_| ()).map(|it| it.name().to_owned())
        };
        assert_eq!(of("token:ana", "y").as_deref(), Some("token:ana"), "one of several");
        assert_eq!(of("token:bob", "y"), None, "somebody else's");
        assert_eq!(of("ana", "y"), None, "names have their method");
    }

    #[test]
    fn token_without_an_entry_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let ana = new_token();
        std::fs::write(&path, entry("ana", &ana)).unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert!(known(&file, &ana).is_some());
        std::fs::write(&path, "").unwrap();
        file.0.check_soon();
        assert_eq!(known(&file, &ana), None);
    }

    #[test]
    fn wrong_entries_are_named() {
        for (text, part) in [
            ("tokens = 1", "expected"),
            ("[[tokens]]\nname = 'ana'", "sha256"),
            ("[[tokens]]\nname = 'ana'\nsha256 = 'x'", "the token of \"ana\" has no SHA-256"),
            ("[[tokens]]\nname = ''\nsha256 = ''", "empty name"),
            ("[[tokens]]\nname = 'ana'\ntoken = 'x'\nsha256 = ''", "token"),
            (&(entry("ana", "x") + &entry("bob", "x")), "\"bob\" is there twice"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(parse("").unwrap().is_empty());
    }
}
