//! What a model's place holds before it is replaced or removed, for the person who does it.

use std::io;
use std::time::SystemTime;

use serde_json::Value;
use sqlflow_proto::record::EarlierModel;

use crate::store::ModelStore;
use crate::tarball;

/// Longest name of a user that is repeated, in characters.
const MAX_USER: usize = 100;

/// `None`: there is no model.
///
/// # Errors
/// Those of the storage.
pub(super) fn look(store: &dyn ModelStore, tarball: &str) -> io::Result<Option<EarlierModel>> {
    let content = match store.read(tarball) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // What cannot be read can be replaced all the same.
    let meta = tarball::meta(content).ok().flatten().unwrap_or_default();
    let meta: Value = serde_json::from_slice(&meta).unwrap_or_default();
    let user = meta["trained_by"].as_str().unwrap_or_default();
    let made_ms = match meta["trained_ms"].as_i64() {
        Some(trained) => trained,
        None => published_ms(store, tarball)?.unwrap_or(0),
    };
    // It stands in a line of text, whatever somebody wrote there.
    let trained_by = user.chars().filter(|c| !c.is_control()).take(MAX_USER).collect();
    Ok(Some(EarlierModel { made_ms, trained_by }))
}

fn published_ms(store: &dyn ModelStore, tarball: &str) -> io::Result<Option<i64>> {
    let file = store.list()?.into_iter().find(|file| file.path == tarball);
    let since_1970 = file
        .and_then(|file| file.modified?.duration_since(SystemTime::UNIX_EPOCH).ok())
        .map(|it| it.as_millis());
    Ok(since_1970.and_then(|it| i64::try_from(it).ok()))
}
