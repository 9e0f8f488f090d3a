//! What the published clients can show of a job's responses.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost::Message as _;
use sqlflow_proto::published::{self, EndOfExecution, Head};
use sqlflow_proto::v1::{self, EncodedRows, response::Response as Kind};
use tonic::Status;

/// Maximum bytes of a response: the clients decode 4 MiB.
const MAX_RESPONSE: usize = 4 * 1024 * 1024 - 4096;
/// Marks a message of Fetch as HTML.
const HTML_PREFIX: &str = "data:text/html,";

/// A part of a job's results.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// A line for people.
    Text(String),
    /// HTML, as an element.
    Html(String),
    /// Columns of a result set.
    Head(Vec<String>),
    /// Its rows.
    Rows(EncodedRows),
    /// The statement has succeeded.
    End(EndOfExecution),
}

impl Item {
    /// What these clients show of a response other than output.
    pub(super) fn of(response: Kind) -> Option<Self> {
        if !is_shown(&response) {
            return None;
        }
        match response {
            Kind::Head(head) => Some(Self::Head(head.column_names)),
            Kind::Rows(rows) => Some(Self::Rows(rows)),
            Kind::Eoe(end) => {
                Some(Self::End(EndOfExecution { sql: end.sql, spent_time_seconds: end.spent_time_seconds }))
            }
            Kind::Message(message) => Some(Self::Text(message.message)),
            Kind::Metrics(metrics) => Some(Self::Text(measurements(&metrics))),
            Kind::Display(display) => Some(shown(&display)),
            Kind::Gap(gap) => Some(Self::Text(format!("[some output is missing here: {}]", gap.reason))),
            Kind::Model(model) if model.removed => Some(Self::Text(format!("model {} dropped", model.name))),
            Kind::Model(model) => Some(Self::Text(format!("model {} published: {}", model.name, model.uri))),
            Kind::Log(_) | Kind::Progress(_) | Kind::Started(_) => None,
        }
    }
}

/// Whether these clients show something of a response. The last message of a job is its status.
pub(super) fn is_shown(response: &Kind) -> bool {
    match response {
        Kind::Progress(_) | Kind::Started(_) => false,
        Kind::Message(message) => message.kind() != v1::message::Kind::End,
        _ => true,
    }
}

/// Names of columns that were not named.
pub(super) fn unnamed(columns: usize) -> Vec<String> {
    (1..=columns).map(|number| number.to_string()).collect()
}

/// Checks that a response can be received.
///
/// # Errors
/// RESOURCE_EXHAUSTED: it is too long.
pub(super) fn check_response(response: &published::Response) -> Result<(), Status> {
    let bytes = response.encoded_len();
    if bytes <= MAX_RESPONSE {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "cannot send a part of the result: it takes {bytes} bytes, and this client decodes 4 MiB; store large values in a \
         table, or read the job with a client of sqlflow.v1"
    )))
}

/// A message with this text. What begins like HTML would be taken for it.
pub(super) fn text(text: &str) -> published::Response {
    let is_like_html = text.starts_with('<') || text.starts_with(HTML_PREFIX);
    message(if is_like_html { format!(" {text}") } else { text.to_owned() })
}

/// HTML for Run, which these clients know by its first character.
pub(super) fn html_of_run(html: String) -> published::Response {
    message(html)
}

/// HTML for Fetch.
pub(super) fn html_of_fetch(html: &str) -> published::Response {
    message(format!("{HTML_PREFIX}{html}"))
}

/// A message, or what stands for one that cannot be received.
fn message(message: String) -> published::Response {
    let message = if message.len() <= MAX_RESPONSE - 64 {
        message
    } else {
        format!("[a result of {} bytes is on the job's page]", message.len())
    };
    published::Response {
        response: Some(published::response::Response::Message(published::Message { message })),
    }
}

pub(super) fn head(column_names: Vec<String>) -> published::Response {
    published::Response { response: Some(published::response::Response::Head(Head { column_names })) }
}

pub(super) fn end(end: EndOfExecution) -> published::Response {
    published::Response { response: Some(published::response::Response::Eoe(end)) }
}

/// These clients show no table without rows beside other results.
pub(super) fn no_rows(columns: &[String]) -> String {
    if columns.is_empty() {
        return "the result has no rows".to_owned();
    }
    format!("the result has no rows; its columns: {}", columns.join(", "))
}

/// `step 3: train-mlogloss 0.5`, or without the step for final values.
fn measurements(metrics: &v1::Metrics) -> String {
    let values: Vec<_> = metrics.metrics.iter().map(|it| format!("{} {}", it.name, it.value)).collect();
    let values = values.join(", ");
    metrics.step.map_or_else(|| values.clone(), |step| format!("step {step}: {values}"))
}

fn shown(display: &v1::Display) -> Item {
    let v1::Display { media_type, data } = display;
    match media_type.as_str() {
        "text/plain" => Item::Text(String::from_utf8_lossy(data).into_owned()),
        "text/html" => Item::Html(format!("<div>{}</div>", String::from_utf8_lossy(data))),
        "image/png" | "image/jpeg" | "image/svg+xml" => {
            let data = BASE64_STANDARD.encode(data);
            Item::Html(format!("<img src=\"data:{media_type};base64,{data}\">"))
        }
        other => Item::Text(format!("[a result of type {other} is on the job's page]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_begins_like_html_is_text() {
        let sent = |line: &str| match text(line).response {
            Some(published::response::Response::Message(message)) => message.message,
            other => panic!("{other:?}"),
        };
        assert_eq!(sent("<p>injected"), " <p>injected");
        assert_eq!(sent("data:text/html,<p>"), " data:text/html,<p>");
        assert_eq!(sent("1 < 2"), "1 < 2");
    }

    #[test]
    fn pictures_are_html() {
        let display = v1::Display { media_type: "image/png".to_owned(), data: b"\x89PNG".to_vec().into() };
        let html = "<img src=\"data:image/png;base64,iVBORw==\">".to_owned();
        assert_eq!(Item::of(Kind::Display(display)), Some(Item::Html(html)));
    }
}
