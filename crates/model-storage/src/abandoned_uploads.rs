//! Abandoned multipart uploads to S3.
//!
//! The upload of an agent that was killed is invisible, but occupies paid storage. The store does not record an owner,
//! so the age decides, by the store's clock. OpenDAL neither lists uploads nor aborts those of other writers; this
//! module sends both requests.

use std::io;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{Method, Request};
use opendal::Operator;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, DefaultCredentialProvider, RequestSigner};
use reqsign_core::time::Timestamp;
use reqsign_core::{Context, OsEnv, Signer};
use reqsign_file_read_tokio::TokioFileRead;
use reqwest::{Client, Response};
use serde::Deserialize;

use super::http::{client, io_error, transporter};
use super::staging::ABANDONED_AFTER;

/// Timeout for all of it, so that a slow store does not delay this attempt. The next attempt tries again.
const LONGEST: Duration = Duration::from_secs(10);
/// Uploads in one response, each with a name of at most 1,024 bytes.
const AT_ONCE: &str = "100";
/// Maximum length of such a response.
const LONGEST_LIST: usize = 1 << 20;
/// Characters that AWS signatures do not escape; see "Create a canonical request" in its documentation.
const QUOTED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Aborts uploads of this object that began more than a day ago. Returns their number.
///
/// # Errors
/// Those of the store.
pub(super) async fn abort_abandoned(operator: &Operator, region: &str, path: &str) -> io::Result<usize> {
    let aborting = async {
        let store = Store::new(operator, region).await?;
        let (now, found) = store.uploads_of(path).await?;
        let abandoned = found.iter().filter(|it| it.key == path && it.is_abandoned(now));
        let mut aborted = 0;
        for upload in abandoned {
            let query = format!("uploadId={}", quoted(&upload.id));
            store.ask(Method::DELETE, &store.object(path), &query).await?;
            aborted += 1;
        }
        Ok(aborted)
    };
    tokio::time::timeout(LONGEST, aborting).await?
}

struct Store {
    client: Client,
    signer: Signer<Credential>,
    /// `https://host/` or `https://host/bucket/`
    bucket: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default, rename = "Upload")]
    found: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    #[serde(rename = "UploadId")]
    id: String,
    initiated: String,
}

impl Upload {
    fn is_abandoned(&self, now: SystemTime) -> bool {
        let Ok(begun) = self.initiated.parse::<Timestamp>() else { return false };
        now.duration_since(begun.as_system_time()).is_ok_and(|age| age > ABANDONED_AFTER)
    }
}

impl Store {
    async fn new(operator: &Operator, region: &str) -> io::Result<Self> {
        // The address of the bucket is taken from a request that OpenDAL signs.
        const NAME: &str = "x";
        let presigned = operator.presign_stat(NAME, LONGEST).await.map_err(io_error)?;
        let bucket = presigned.uri().to_string();
        let bucket = bucket.split('?').next().and_then(|it| it.strip_suffix(NAME));
        let bucket =
            bucket.ok_or_else(|| io::Error::other("cannot find the address of the bucket"))?.to_owned();
        let client = client()?;
        let context = Context::new().with_file_read(TokioFileRead).with_env(OsEnv);
        let context = context.with_http_send(transporter(client.clone()));
        let provider = DefaultCredentialProvider::builder().build();
        let signer = Signer::new(context, provider, RequestSigner::new("s3", region));
        Ok(Self { client, signer, bucket })
    }

    /// Uploads under this name, with the time of the store.
    async fn uploads_of(&self, path: &str) -> io::Result<(SystemTime, Vec<Upload>)> {
        let query = format!("max-uploads={AT_ONCE}&prefix={}&uploads=", quoted(path));
        let answer = self.ask(Method::GET, &self.bucket, &query).await?;
        let date = answer.headers().get(http::header::DATE).and_then(|it| it.to_str().ok());
        let now = date.and_then(|it| Timestamp::parse_rfc2822(it).ok());
        let now = now.ok_or_else(|| io::Error::other("the response has no valid Date header"))?;
        let text = body(answer).await?;
        let uploads: Uploads = quick_xml::de::from_reader(&text[..]).map_err(io::Error::other)?;
        Ok((now.as_system_time(), uploads.found))
    }

    fn object(&self, path: &str) -> String {
        let segments: Vec<_> = path.split('/').map(quoted).collect();
        format!("{}{}", self.bucket, segments.join("/"))
    }

    async fn ask(&self, method: Method, address: &str, query: &str) -> io::Result<Response> {
        let request = Request::builder().method(method).uri(format!("{address}?{query}")).body(());
        let (mut head, ()) = request.map_err(io::Error::other)?.into_parts();
        self.signer.sign(&mut head, None).await.map_err(io::Error::other)?;
        let Parts { method, uri, headers, .. } = head;
        let answer = self.client.request(method, uri.to_string()).headers(headers).send().await;
        let answer = answer.map_err(|error| io::Error::other(error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            status => Err(io::Error::other(format!("the store answered {status}"))),
        }
    }
}

async fn body(mut answer: Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(io::Error::other)? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST_LIST {
            return Err(io::Error::other("the list of uploads is too long"));
        }
    }
    Ok(body)
}

fn quoted(text: &str) -> String {
    utf8_percent_encode(text, &QUOTED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_uploads_are_abandoned() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let begun = |initiated: &str| Upload { key: "k".into(), id: "1".into(), initiated: initiated.into() };
        // 2001-09-09T01:46:40Z is now.
        assert!(begun("2001-09-08T01:46:39.000Z").is_abandoned(now));
        for kept in ["2001-09-08T01:46:41Z", "2001-09-09T01:46:40Z", "2001-09-10T00:00:00Z", "", "yesterday"]
        {
            assert!(!begun(kept).is_abandoned(now), "{kept}");
        }
    }

    #[test]
    fn list_of_uploads_is_parsed() {
        let text = r#"<?xml version="1.0"?><ListMultipartUploadsResult><Bucket>b</Bucket><Upload><Key>a &amp; b</Key>
            <UploadId>one</UploadId><Initiator><ID>x</ID></Initiator><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>
            <Upload><Initiated>2026-01-01T00:00:00Z</Initiated><UploadId>two</UploadId><Key>c</Key></Upload>
            </ListMultipartUploadsResult>"#;
        let uploads: Uploads = quick_xml::de::from_str(text).unwrap();
        let found: Vec<_> = uploads.found.iter().map(|it| (it.key.as_str(), it.id.as_str())).collect();
        assert_eq!(found, [("a & b", "one"), ("c", "two")]);
        let none: Uploads = quick_xml::de::from_str("<ListMultipartUploadsResult/>").unwrap();
        assert!(none.found.is_empty());
    }
}
