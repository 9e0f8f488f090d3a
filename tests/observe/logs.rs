//! The server's log, as machines read it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use sqlflow_proto::v1::response::Response as Payload;
use sqlflow_tests::ENDLESS;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;

/// JSON in which no object has a key twice: readers differ in which of the two they take, or refuse the line.
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
                        return Err(A::Error::custom(format!("the key {key:?} is there twice")));
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

/// A job that succeeds, one that fails and one that is cancelled: one line says how each ended, and no line has a key twice.
#[tokio::test(flavor = "multi_thread")]
async fn each_jobs_end_is_one_line_and_each_line_is_strict_json() {
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

/// Also of lines that no test writes: the text of a line is its field `message`, and a span's name its field `name`.
#[test]
fn no_field_of_a_line_has_a_name_that_is_taken() {
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
                // Fields come before the text.
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
