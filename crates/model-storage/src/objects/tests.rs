//! A store that answers as it likes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::may_be_in_place;

/// What comes of committing an object of five bytes to a store that answers its PUT and the looks at it (HEAD) with these.
async fn commit(put: &'static str, head: &'static str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, put, head));
        }
    });
    let builder = opendal::services::S3::default()
        .bucket("b")
        .region("us-east-1")
        .endpoint(&endpoint)
        .access_key_id("id")
        .secret_access_key("secret")
        .disable_config_load();
    let operator = http::timed(built(builder).unwrap()).unwrap();
    let mut writer = operator.writer("m/m.tar.gz").await.unwrap();
    writer.write("model").await.unwrap();
    let upload =
        Upload { operator, writer, length: 5, is_conditional: false, is_whole: true, is_closed: false };

    let patience = Arc::new(Patience::new(Duration::ZERO));
    let place = ModelPlace::new("s3://b/m", "m").unwrap();
    let store = ObjectStore::new(&place, &AttemptRef::default(), patience).unwrap();
    lock(&store.uploads).insert("m.tar.gz".to_owned(), upload);
    tokio::task::spawn_blocking(move || store.commit("m.tar.gz")).await.unwrap()
}

async fn answer(mut connection: TcpStream, put: &str, head: &str) {
    let mut request = Vec::new();
    let end = loop {
        if connection.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
        if let Some(end) = request.windows(4).position(|it| it == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let is_put = request.starts_with(b"PUT");
    while is_put && !request[end..].ends_with(b"model") {
        connection.read_buf(&mut request).await.unwrap();
    }
    let status = if is_put { put } else { head };
    let answer =
        format!("HTTP/1.1 {status}\r\netag: \"x\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    connection.write_all(answer.as_bytes()).await.unwrap();
}

const OK: &str = "200 OK";
const AWAY: &str = "503 Service Unavailable";
const DENIED: &str = "403 Forbidden";
const MISSING: &str = "404 Not Found";

#[tokio::test]
async fn what_the_store_has_taken_is_in_place_also_when_nobody_can_look() {
    commit(OK, AWAY).await.unwrap();
    let removed = commit(OK, MISSING).await.unwrap_err();
    assert_eq!((removed.kind(), may_be_in_place(&removed)), (io::ErrorKind::NotFound, false));
}

#[tokio::test]
async fn what_nobody_can_look_for_may_be_in_place() {
    let unknown = commit(AWAY, AWAY).await.unwrap_err();
    assert!(may_be_in_place(&unknown), "{unknown}");
    for (put, head) in [(AWAY, MISSING), (DENIED, DENIED)] {
        let refused = commit(put, head).await.unwrap_err();
        assert!(!may_be_in_place(&refused), "{put}, {head}: {refused}");
    }
}
