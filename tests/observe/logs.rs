//! The server's log as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

/// JSON without duplicate keys. Readers differ in which of two equal keys they take, or reject the line.
#[derive(Debug, Clone)]
enum Strict {
    Object(BTreeMap<String, Strict>),
    Other(String),
}

impl Strict {
    fn get(&self, path: &[&str]) -> Option<&str> {
        match (self, path) {
            (Self::Object(entries), [first, rest @ ..]) => entries.get(*first)?.get(rest),
            (Self::Other(text), []) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, Strict>()? {
                    if entries.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("duplicate key {key:?}")));
                    }
                }
                Ok(Strict::Object(entries))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
                while seq.next_element::<Strict>()?.is_some() {}
                Ok(Strict::Other(String::new()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Strict, E> {
                Ok(Strict::Other(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Strict, E> {
                Ok(Strict::Other(number.to_string()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Strict, E> {
                Ok(Strict::Other(number.to_string()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Strict, E> {
                Ok(Strict::Other(number.to_string()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict::Other(value.to_string()))
            }

            fn visit_unit<E: Error>(self) -> Result<Strict, E> {
                Ok(Strict::Other("null".to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// Jobs that succeed, fail and are cancelled: each has one line about its end, and no line has a duplicate key.
#[tokio::test(flavor = "multi_thread")]
async fn job_end_is_one_line_and_lines_are_strict_json() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), python::iris(&dir.path().join("iris.db")).unwrap());
    let server = setup.start().unwrap();
    let mut client = server.client().await.unwrap();
    let mut expected = BTreeMap::new();
    for (program, state) in
        [("SELECT 1; SELECT * FROM iris;", "succeeded"), ("SELECT nothing FROM iris;", "failed")]
    {
        let token = client.run(program).await.unwrap();
        client.follow(&token).await.unwrap();
        expected.insert(token.job_id, state.to_owned());
    }
    let token = client.run(ENDLESS).await.unwrap();
    client.until(&token, |it| matches!(it, Payload::Started(_))).await.unwrap();
    client.api.cancel(token.clone()).await.unwrap();
    client.follow(&token).await.unwrap();
    expected.insert(token.job_id, "cancelled".to_owned());
    server.stop().unwrap();

    serde_json::from_str::<Strict>(r#"{"a": {"b": 1, "b": 2}}"#).unwrap_err();
    let log = std::fs::read_to_string(dir.path().join("state/server.log")).unwrap();
    let mut ended = BTreeMap::new();
    let mut attempts = 0;
    for line in log.lines() {
        let line: Strict = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        match line.get(&["fields", "message"]) {
            Some("the job has ended") => {
                let job = line.get(&["span", "job"]).unwrap().to_owned();
                let before = ended.insert(job, line.get(&["fields", "state"]).unwrap().to_owned());
                assert_eq!(before, None, "{line:?}");
            }
            Some("the attempt has ended") => {
                attempts += 1;
                assert_ne!(line.get(&["fields", "reason"]), None, "{line:?}");
            }
            _ => {}
        }
    }
    assert_eq!((ended, attempts), (expected, 3), "{log}");
}

/// Checks the source, so it covers lines that no test writes. `message` is the text of a line, and `name` that of a
/// span.
#[test]
fn log_fields_have_no_reserved_names() {
    let mut folders = vec![python::repository().join("server/src")];
    let mut lines = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for part in text.split("tracing::").skip(1) {
                let Some((macro_name, rest)) = part.split_once("!(") else { continue };
                let taken = match macro_name {
                    "info" | "warn" | "error" | "debug" => "message",
                    "info_span" | "debug_span" => "name",
                    _ => continue,
                };
                lines += 1;
                // Fields precede the text.
                let fields = rest.split(['"', ';']).next().unwrap();
                let mut names = fields
                    .split(',')
                    .map(|it| it.split('=').next().unwrap().trim().trim_start_matches(['%', '?']));
                assert!(!names.any(|it| it == taken), "{}: {fields}", path.display());
            }
        }
    }
    assert!(lines > 50, "{lines}");
}
