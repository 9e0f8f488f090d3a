//! A terminal record as JSON: it says what became of a statement or a model, and holds no data of the user.

use serde::{Deserialize, Serialize};
use sqlflow_proto::record::{
    EarlierModel, ModelPublished, Record, StatementEnded, StatementStarted, record::Payload,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TerminalRecord {
    seq: u64,
    time: i64,
    #[serde(default)]
    statement: Option<u32>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Started {},
    Ended { micros: u64, rows: Option<u64> },
    Model(Model),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Model {
    name: String,
    uri: String,
    bytes: u64,
    /// In hexadecimal.
    sha256: String,
    #[serde(default)]
    removed: bool,
    #[serde(default)]
    replaced: Option<Replaced>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Replaced {
    ms: i64,
    #[serde(default)]
    by: String,
}

impl TerminalRecord {
    /// `None`: it is no terminal record.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let kind = match record.payload.as_ref()? {
            Payload::Started(StatementStarted {}) => Kind::Started {},
            Payload::Ended(ended) => Kind::Ended { micros: ended.duration_micros, rows: ended.rows_affected },
            Payload::Model(model) => Kind::Model(Model {
                name: model.name.clone(),
                uri: model.uri.clone(),
                bytes: model.size_bytes,
                sha256: hex::encode(&model.sha256),
                removed: model.removed,
                replaced: model
                    .replaced
                    .as_ref()
                    .map(|it| Replaced { ms: it.made_ms, by: it.trained_by.clone() }),
            }),
            _ => return None,
        };
        Some(Self { seq: record.seq, time: record.time_unix_micros, statement: record.statement, kind })
    }

    /// `None`: a value in it cannot be read.
    pub(crate) fn record(&self) -> Option<Record> {
        let payload = match &self.kind {
            Kind::Started {} => Payload::Started(StatementStarted {}),
            Kind::Ended { micros, rows } => {
                Payload::Ended(StatementEnded { duration_micros: *micros, rows_affected: *rows })
            }
            Kind::Model(model) => Payload::Model(ModelPublished {
                name: model.name.clone(),
                uri: model.uri.clone(),
                size_bytes: model.bytes,
                sha256: hex::decode(&model.sha256).ok()?.into(),
                removed: model.removed,
                replaced: model
                    .replaced
                    .as_ref()
                    .map(|it| EarlierModel { made_ms: it.ms, trained_by: it.by.clone() }),
            }),
        };
        Some(Record {
            seq: self.seq,
            time_unix_micros: self.time,
            statement: self.statement,
            payload: Some(payload),
        })
    }
}
