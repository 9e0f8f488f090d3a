//! The cache of fetched models.

use std::path::Path;

use sqlflow_tests::agent::{Ended, Exec};

use crate::locations::Place;

/// Reads the model's weights with a cache. Returns them, and whether they came from the cache.
fn read(place: Place, cache: &Path) -> (Vec<u8>, bool) {
    let into = tempfile::tempdir().unwrap();
    let exec = Exec::new().envs(place.environment());
    let Ended { code, stderr, .. } = exec
        .env("SQLFLOW_AGENT_LOG", "info")
        .flags([format!("--cache={}", cache.display()), "--publish-retry=0".to_owned()])
        .flags(["--input".to_owned(), format!("{}={}", place.uri(), into.path().display())])
        .start(&["true"])
        .end();
    assert_eq!(code, Some(0), "{place:?}: {stderr}");
    (std::fs::read(into.path().join("weights")).unwrap(), stderr.contains("the model is from the cache"))
}

/// Also if old and new model have the same size. A corrupted cache is not used.
#[test]
fn model_is_fetched_once_until_it_is_replaced() {
    for place in Place::all("cached") {
        place.make();
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("cache");
        for weights in [b"first!", b"second"] {
            assert_eq!(place.publish(weights).code, Some(0));
            assert_eq!(read(place, &cache), (weights.to_vec(), false), "{place:?}");
            assert_eq!(read(place, &cache), (weights.to_vec(), true), "{place:?}");
        }
        for file in std::fs::read_dir(&cache).unwrap() {
            std::fs::write(file.unwrap().path(), "corrupted").unwrap();
        }
        assert_eq!(read(place, &cache), (b"second".to_vec(), false), "{place:?}");
        assert_eq!(read(place, &cache), (b"second".to_vec(), true), "{place:?}");
    }
}
