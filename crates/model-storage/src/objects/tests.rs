//! An object store with scripted responses.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::{is_commit_unknown, is_write_conflict};

/// An HTTP response of the store.
#[derive(Debug, Clone, Copy)]
struct Response {
    status: &'static str,
    body: &'static str,
}

/// Commits an object of five bytes to a store with these responses to its PUT and to HEAD.
async fn commit(put: Response, head: Response) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(respond(connection, put, head));
        }
    });
    let builder = opendal::services::S3::default()
        .bucket("b")
        .region("us-east-1")
        .endpoint(&endpoint)
        .access_key_id("id")
        .secret_access_key("secret")
        .disable_config_load();
    let operator = http::timed(service::built(builder).unwrap()).unwrap();
    let mut writer = operator.writer("m/m.tar.gz").await.unwrap();
    writer.write("model").await.unwrap();
    let upload =
        Upload { operator, writer, length: 5, is_conditional: false, is_whole: true, is_closed: false };

    let retry = Arc::new(RetryPolicy::new(Duration::ZERO));
    let location = ModelLocation::new("s3://b/m", "m").unwrap();
    let store = ObjectStore::new(&location, &AttemptRef::default(), retry).unwrap();
    lock(&store.uploads).insert("m.tar.gz".to_owned(), upload);
    tokio::task::spawn_blocking(move || store.commit("m.tar.gz")).await.unwrap()
}

async fn respond(mut connection: TcpStream, put: Response, head: Response) {
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
    let Response { status, body } = if is_put { put } else { head };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\netag: \"x\"\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    connection.write_all(response.as_bytes()).await.unwrap();
}

const OK: Response = Response { status: "200 OK", body: "" };
const UNAVAILABLE: Response = Response { status: "503 Service Unavailable", body: "" };
const DENIED: Response = Response { status: "403 Forbidden", body: "" };
const MISSING: Response = Response { status: "404 Not Found", body: "" };

#[tokio::test]
async fn accepted_commit_succeeds_even_if_it_cannot_be_verified() {
    commit(OK, UNAVAILABLE).await.unwrap();
    let removed = commit(OK, MISSING).await.unwrap_err();
    assert_eq!((removed.kind(), is_commit_unknown(&removed)), (io::ErrorKind::NotFound, false));
}

#[tokio::test]
async fn failed_commit_that_cannot_be_verified_is_unknown() {
    let unknown = commit(UNAVAILABLE, UNAVAILABLE).await.unwrap_err();
    assert!(is_commit_unknown(&unknown), "{unknown}");
    for (put, head) in [(UNAVAILABLE, MISSING), (DENIED, DENIED)] {
        let refused = commit(put, head).await.unwrap_err();
        assert!(!is_commit_unknown(&refused), "{put:?}, {head:?}: {refused}");
    }
}

#[tokio::test]
async fn missing_upload_is_a_write_conflict_and_missing_bucket_is_not() {
    for (body, is_conflict) in [
        ("<Error><Code>NoSuchUpload</Code><Message>no upload in this bucket</Message></Error>", true),
        ("<Error><Code>NoSuchBucket</Code><Message>no such place</Message></Error>", false),
        ("", true),
    ] {
        let error = commit(Response { body, ..MISSING }, MISSING).await.unwrap_err();
        assert_eq!(is_write_conflict(&error), is_conflict, "{body}: {error}");
    }
}

/// Google's XML API, whose responses OpenDAL passes on as they are, with the name of the bucket in them.
#[tokio::test]
async fn bucket_name_does_not_change_how_an_error_is_classified() {
    let location = ModelLocation::new("gs://my-bucket-of-containers/m", "m").unwrap();
    let retry = Arc::new(RetryPolicy::new(Duration::ZERO));
    let store = ObjectStore::new(&location, &AttemptRef::default(), retry).unwrap();
    let is_conflict = |message: String| {
        let error = http::io_error(opendal::Error::new(opendal::ErrorKind::NotFound, message));
        store.is_write_conflict(&error, true)
    };
    let xml = |code: &str| {
        format!("<Error><Code>{code}</Code><Details>/my-bucket-of-containers/m/m.tar.gz</Details></Error>")
    };
    assert!(is_conflict(xml("NoSuchUpload")) && is_conflict(xml("NoSuchKey")));
    assert!(!is_conflict(xml("NoSuchBucket")) && !is_conflict(xml("ContainerNotFound")));
    let json = r#"GcsErrorResponse { error: GcsError { code: 404, message: "The specified bucket does not exist." } }"#;
    assert!(!is_conflict(json.to_owned()));
}
