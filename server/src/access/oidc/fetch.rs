//! Requests to the provider: encrypted, bounded in size, time and number, without redirects.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use reqwest::{Certificate, RequestBuilder, StatusCode, Url};
use tokio::sync::Semaphore;

use crate::access::is_loopback;

/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Maximum size of an answer. Documents of real providers have some 10 kB.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// Maximum number of forms that are sent at a time.
const MAX_FORMS: usize = 16;

/// A provider's address: HTTPS, or HTTP on this machine.
///
/// # Errors
/// It is another one; one sentence.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if url.host_str().is_some_and(is_loopback) => Ok(url),
        _ => Err(format!(
            "{text:?} does not begin with https://; keys and tokens could be changed on their way"
        )),
    }
}

/// Sends requests to one provider.
pub struct Fetcher {
    client: reqwest::Client,
    /// For forms only: anyone can cause one. Documents are fetched one after the other, and do not wait for forms.
    places: Semaphore,
}

/// Status and content of an answer.
pub struct Answer {
    /// Of HTTP.
    pub status: StatusCode,
    /// At most [`MAX_ANSWER_BYTES`].
    pub body: Vec<u8>,
}

impl Fetcher {
    /// Trusts the certificates of this file (PEM), or without one those that the system trusts.
    ///
    /// # Errors
    /// The certificates cannot be used; the message names their file.
    pub fn new(ca: Option<&Path>) -> anyhow::Result<Self> {
        sqlflow_tls::install_provider();
        let trusted = match ca {
            Some(file) => sqlflow_tls::certificates(file)
                .with_context(|| format!("cannot use the certificates {}", file.display()))?,
            None => sqlflow_tls::trusted_certificates()?,
        };
        let trusted: Vec<Certificate> =
            trusted.iter().map(|it| Certificate::from_der(it)).collect::<Result<_, _>>()?;
        let client = reqwest::Client::builder()
            .tls_certs_only(trusted)
            .timeout(REQUEST_TIME)
            // A redirect could lead to an address without TLS.
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, places: Semaphore::new(MAX_FORMS) })
    }

    /// The document at an address.
    ///
    /// # Errors
    /// It cannot be fetched; one sentence that names the address.
    pub async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
        let answer = send(url, self.client.get(url.clone())).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            other => Err(format!("{url} answers with {other}")),
        }
    }

    /// The answer to a form. `client` is the id and the secret for basic authentication.
    ///
    /// # Errors
    /// There is none, or too many forms are being sent; one sentence that names the address.
    pub async fn post(
        &self,
        url: &Url,
        form: String,
        client: Option<(&str, &str)>,
    ) -> Result<Answer, String> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| format!("{MAX_FORMS} requests to {url} are running, and no more are sent"))?;
        let mut request = self
            .client
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form);
        if let Some((id, secret)) = client {
            request = request.basic_auth(id, Some(secret));
        }
        send(url, request).await
    }
}

async fn send(url: &Url, request: RequestBuilder) -> Result<Answer, String> {
    // Without the address, which each message names anyway.
    let failed = |error: reqwest::Error| {
        format!("{url} cannot be fetched: {}", sqlflow_text::with_causes(&error.without_url()))
    };
    let mut response = request.send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(format!("{url} answers with more than {MAX_ANSWER_BYTES} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: response.status(), body })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn address_of_another_machine_is_encrypted() {
        for good in [
            "https://login.example.com/realms/a",
            "http://127.0.0.1:5556/dex",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for wrong in
            ["http://login.example.com", "http://127.0.0.1.example.com", "ftp://127.0.0.1", "login", ""]
        {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn forms_over_the_limit_are_refused_and_delay_no_document() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = address(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let fetcher = Fetcher::new(None).unwrap();
        let _sent: Vec<_> = (0..MAX_FORMS).map(|_| fetcher.places.try_acquire().unwrap()).collect();
        let refused = fetcher.post(&url, String::new(), None).await.err().unwrap();
        assert!(refused.contains("no more are sent"), "{refused}");
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The request is small: it comes as one piece.
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (document, ()) = tokio::join!(fetcher.get(&url), answering);
        assert_eq!(document.unwrap(), b"{}");
    }
}
