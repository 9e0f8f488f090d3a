//! Displays of statements, such as plots: from the log, one record at a time.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use maud::html;
use sqlflow_identity::Caller;
use sqlflow_proto::record::record::Payload;
use tokio::sync::Semaphore;

use super::statements::PICTURES;
use super::{Key, Refusal};
use crate::web::Web;

/// Maximum number of concurrent reads of displays: each is one record, of at most 17 MiB.
const MAX_READ: usize = 4;
static READS: Semaphore = Semaphore::const_new(MAX_READ);

/// The display at a position of the log. A picture is sent with its media type; anything else is a download.
pub(super) async fn display(
    State(web): State<Web>,
    Path((id, position)): Path<(String, u64)>,
    Query(Key { key }): Query<Key>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    let record = web.open(&id, &key, &caller).await?;
    let Some(before) = position.checked_sub(1) else { return Err(nothing()) };
    let _turn = READS.acquire().await.map_err(|_| nothing())?;
    let page = web.log.read(&record.job.id, before, 1).await.map_err(|error| Refusal::fault(&error))?;
    let stored = page.records.into_iter().next().filter(|it| it.position == position);
    let Some(Payload::Display(display)) = stored.and_then(|it| it.record?.payload) else {
        return Err(nothing());
    };
    // It never changes.
    let kept = (header::CACHE_CONTROL, "private, max-age=86400, immutable".to_owned());
    let response = match PICTURES.into_iter().find(|it| *it == display.media_type) {
        Some(kind) => ([(header::CONTENT_TYPE, kind.to_owned()), kept], display.data).into_response(),
        None => {
            let name = format!("attachment; filename=\"{id}-{position}\"");
            let kind = (header::CONTENT_TYPE, "application/octet-stream".to_owned());
            ([kind, kept, (header::CONTENT_DISPOSITION, name)], display.data).into_response()
        }
    };
    Ok(response)
}

fn nothing() -> Refusal {
    Refusal(
        StatusCode::NOT_FOUND,
        html! { h1 { "Nothing to see" } p { "The log has no display at this position." } },
    )
}
