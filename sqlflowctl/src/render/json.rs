//! A job for scripts: one JSON object per line, with a `type`.
//!
//! `job`, then the records of the log (`started`, `head`, `rows`, `message`, `log`, `progress`, `metrics`, `display`,
//! `gap`, `model`, `end`) with `position`, `statement` and `time`, and a `status` after each change. Bytes that may not
//! be UTF-8 are in `hex`.

use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use sqlflow_proto::v1::{
    Head, JobStatus, LogChunk, Metrics, Response, log_chunk::Stream, message, response::Response as Kind,
};
use sqlflow_text::cell::Batch;

use super::{Screen, View, job};
use crate::failure::Failure;

/// Shows a job as JSON lines.
#[derive(Debug, Default)]
pub(crate) struct JsonView {
    only_logs: bool,
    shown: Option<JobStatus>,
}

impl JsonView {
    /// A view of the job's own output and its gaps only.
    pub(crate) fn of_logs() -> Self {
        Self { only_logs: true, shown: None }
    }
}

impl View for JsonView {
    fn show(&mut self, response: &Response, screen: &mut dyn Screen) -> Result<(), Failure> {
        let Some(kind) = &response.response else { return Ok(()) };
        if self.only_logs && !matches!(kind, Kind::Log(_) | Kind::Gap(_)) {
            return Ok(());
        }
        let decoded;
        let body = match kind {
            Kind::Rows(rows) => {
                decoded = super::decoded(rows)?;
                Body::Rows { rows: RowsOf(super::batch(&decoded)?) }
            }
            kind => Body::Small(small(kind)),
        };
        let record = Record {
            kind: type_name(kind),
            position: response.position,
            statement: response.statement,
            time: job::time_text(response.time.as_ref()),
            body,
        };
        write_line(screen, &record)
    }

    fn status(&mut self, status: &JobStatus, next: &str, screen: &mut dyn Screen) -> Result<(), Failure> {
        if self.only_logs || self.shown.as_ref() == Some(status) {
            return Ok(());
        }
        self.shown = Some(status.clone());
        let mut line = Map::new();
        line.insert("type".into(), "status".into());
        line.extend(job::status_fields(status));
        line.insert("next".into(), next.into());
        write_line(screen, &line)
    }
}

/// Writes one object as a line of results.
pub(crate) fn write_line(screen: &mut dyn Screen, line: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_vec(line).map_err(|error| Failure::Other(error.into()))?;
    text.push(b'\n');
    screen.results(&text)?;
    Ok(())
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    position: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<u32>,
    time: Option<String>,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    /// Serialized directly, since a batch may be large.
    Rows {
        rows: RowsOf<'a>,
    },
    Small(Value),
}

/// A batch as an array of rows, each an array of values.
struct RowsOf<'a>(Batch<'a>);

impl Serialize for RowsOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.row_count()))?;
        for row in 0..self.0.row_count() {
            rows.serialize_element(&RowOf(self.0, row))?;
        }
        rows.end()
    }
}

struct RowOf<'a>(Batch<'a>, usize);

impl Serialize for RowOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.row(self.1))
    }
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Head(_) => "head",
        Kind::Rows(_) => "rows",
        Kind::Message(_) => "message",
        Kind::Eoe(_) => "end",
        Kind::Log(_) => "log",
        Kind::Progress(_) => "progress",
        Kind::Metrics(_) => "metrics",
        Kind::Display(_) => "display",
        Kind::Gap(_) => "gap",
        Kind::Model(_) => "model",
        Kind::Started(_) => "started",
    }
}

fn small(kind: &Kind) -> Value {
    match kind {
        Kind::Head(head) => json!({ "columns": columns(head) }),
        // Rows have their own body.
        Kind::Rows(rows) => json!({ "count": rows.count }),
        Kind::Message(message) => json!({ "message": message.message, "kind": message_kind(message.kind()) }),
        Kind::Eoe(end) => json!({
            "sql": end.sql,
            "spent_time_seconds": end.spent_time_seconds,
            "rows_affected": end.rows_affected,
        }),
        Kind::Log(log) => log_fields(log),
        Kind::Progress(progress) => json!({
            "phase": progress.phase,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
        }),
        Kind::Metrics(metrics) => metrics_fields(metrics),
        Kind::Display(display) => {
            json!({ "media_type": display.media_type, "hex": hex::encode(&display.data) })
        }
        Kind::Gap(gap) => json!({ "reason": gap.reason, "bytes": gap.bytes }),
        Kind::Model(model) => json!({
            "name": model.name,
            "uri": model.uri,
            "size_bytes": model.size_bytes,
            "sha256": hex::encode(&model.sha256),
            "removed": model.removed,
            "replaced": model.replaced.as_ref().map(|earlier| json!({
                "made": job::time_text(earlier.made.as_ref()),
                "trained_by": earlier.trained_by,
            })),
        }),
        Kind::Started(started) => json!({ "sql": started.sql }),
    }
}

fn message_kind(kind: message::Kind) -> &'static str {
    match kind {
        message::Kind::Unspecified => "unspecified",
        message::Kind::Status => "status",
        message::Kind::Warning => "warning",
        message::Kind::End => "end",
    }
}

fn columns(head: &Head) -> Vec<Value> {
    let database_type =
        |index: usize| head.column_types.get(index).map_or("", |it| it.database_type.as_str());
    head.column_names
        .iter()
        .enumerate()
        .map(|(index, name)| json!({ "name": name, "database_type": database_type(index) }))
        .collect()
}

/// `text` is always present, with replacement characters if necessary; `hex` only if the bytes are not UTF-8.
fn log_fields(log: &LogChunk) -> Value {
    let stream = match log.stream() {
        Stream::Unspecified => "unspecified",
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let mut fields = json!({
        "stream": stream,
        "step": log.step,
        "attempt": log.attempt,
        "offset": log.offset,
        "text": String::from_utf8_lossy(&log.data),
    });
    if std::str::from_utf8(&log.data).is_err() {
        fields["hex"] = hex::encode(&log.data).into();
    }
    fields
}

/// Metrics by name. A value that JSON cannot represent is `null`.
fn metrics_fields(metrics: &Metrics) -> Value {
    let values: Map<String, Value> =
        metrics.metrics.iter().map(|metric| (metric.name.clone(), json!(metric.value))).collect();
    let mut fields = json!({ "step": metrics.step, "values": values });
    if metrics.kept {
        fields["kept"] = json!(true);
    }
    fields
}

#[cfg(test)]
mod tests {
    use sqlflow_proto::v1::{
        Column, ColumnType, EarlierModel, Int64s, Model, Rows, column::Values, job_status::Code,
    };

    use super::super::test_screen::TestScreen;
    use super::*;

    fn lines(kinds: Vec<Kind>) -> Vec<String> {
        let mut screen = TestScreen::default();
        let mut view = JsonView::default();
        for (index, kind) in kinds.into_iter().enumerate() {
            let response = Response {
                position: index as u64 + 1,
                statement: Some(2),
                time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                response: Some(kind),
            };
            view.show(&response, &mut screen).unwrap();
        }
        screen.results.lines().map(str::to_owned).collect()
    }

    #[test]
    fn records_are_one_object_per_line() {
        let head = Kind::Head(Head {
            column_names: vec!["n".into()],
            column_types: vec![ColumnType { database_type: "INT".into() }],
        });
        let column =
            Column { nulls: vec![0b10].into(), values: Some(Values::Int64s(Int64s { values: vec![1, 0] })) };
        let rows = Kind::Rows(Rows { count: 2, columns: vec![column] }.into());
        assert_eq!(
            lines(vec![head, rows]),
            [
                r#"{"type":"head","position":1,"statement":2,"time":"1970-01-01T00:00:00Z","columns":[{"database_type":"INT","name":"n"}]}"#,
                r#"{"type":"rows","position":2,"statement":2,"time":"1970-01-01T00:00:00Z","rows":[[1],[null]]}"#,
            ]
        );
    }

    #[test]
    fn message_has_its_kind_and_model_its_change() {
        let message = sqlflow_proto::v1::Message { message: "no".into(), kind: message::Kind::End.into() };
        let earlier = EarlierModel { made: None, trained_by: "ana".into() };
        let model = Model { name: "m".into(), removed: true, replaced: Some(earlier), ..Model::default() };
        let lines = lines(vec![Kind::Message(message), Kind::Model(model)]);
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&parsed[0]["kind"], &parsed[0]["type"]), (&json!("end"), &json!("message")));
        assert_eq!(parsed[1]["removed"], true);
        assert_eq!(parsed[1]["replaced"], json!({ "made": null, "trained_by": "ana" }));
    }

    #[test]
    fn non_utf8_output_is_also_in_hex() {
        let log =
            |data: &'static [u8]| Kind::Log(LogChunk { data: data.into(), stream: 1, ..LogChunk::default() });
        let lines = lines(vec![log(b"fine\n"), log(b"\xff")]);
        let parsed: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&parsed[0]["text"], &parsed[0]["hex"]), (&json!("fine\n"), &Value::Null));
        assert_eq!((&parsed[1]["text"], &parsed[1]["hex"]), (&json!("\u{fffd}"), &json!("ff")));
        assert_eq!(parsed[0]["stream"], "stdout");
    }

    #[test]
    fn status_is_written_when_it_changes() {
        let mut screen = TestScreen::default();
        let mut view = JsonView::default();
        let running = JobStatus { code: Code::Running.into(), ..JobStatus::default() };
        let failed = JobStatus { code: Code::Failed.into(), message: "no".into(), cause: 2 };
        for (status, next) in [(&running, "t.1"), (&running, "t.2"), (&failed, "t.3")] {
            view.status(status, next, &mut screen).unwrap();
        }
        let parsed: Vec<Value> =
            screen.results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 2);
        assert_eq!(
            parsed[1],
            json!({"type": "status", "code": "FAILED", "state": "CANCELLED", "cause": "CANCELLED", "message": "no", "next": "t.3"})
        );
    }
}
