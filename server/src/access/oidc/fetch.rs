//! Requests to the provider: encrypted, bounded in size, time and number, without redirects.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::redirect::Policy;
use reqwest::{Certificate, RequestBuilder, StatusCode, Url};
use tokio::sync::Semaphore;

/// Time limit of one request.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Maximum size of an answer. Documents of real providers have some 10 kB.
const MAX_ANSWER_BYTES: usize = 512 * 1024;
/// Maximum number of requests at a time.
const MAX_REQUESTS: usize = 16;

/// A provider's address: HTTPS, or HTTP on this machine.
///
/// # Errors
/// It is another one; one sentence.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL: {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => Err(format!(
            "{text:?} does not begin with https://; keys and tokens could be changed on their way"
        )),
    }
}

/// Whether the host is this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

/// Sends requests to one provider.
pub struct Fetcher {
    client: reqwest::Client,
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
        Ok(Self { client, places: Semaphore::new(MAX_REQUESTS) })
    }

    /// The document at an address.
    ///
    /// # Errors
    /// It cannot be fetched; one sentence that names the address.
    pub async fn get(&self, url: &Url) -> Result<Vec<u8>, String> {
        let answer = self.send(url, self.client.get(url.clone())).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            other => Err(format!("{url} answers with {other}")),
        }
    }

    /// The answer to a form. `client` is the id and the secret for basic authentication.
    ///
    /// # Errors
    /// There is none; one sentence that names the address.
    pub async fn post(
        &self,
        url: &Url,
        form: String,
        client: Option<(&str, &str)>,
    ) -> Result<Answer, String> {
        let mut request = self
            .client
            .post(url.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form);
        if let Some((id, secret)) = client {
            request = request.basic_auth(id, Some(secret));
        }
        self.send(url, request).await
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<Answer, String> {
        let _place = self.places.acquire().await;
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
}

#[cfg(test)]
mod tests {
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
}
