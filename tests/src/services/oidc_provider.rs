//! An OpenID Connect provider.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{LOOPBACK, Service, free_port, get, tool, wait_until};
use crate::access::certificates;
use crate::browser::{Browser, Page};
use crate::http;

/// Secret of both clients.
const SECRET: &str = "secret & more: 100%";
/// Where clients of tests take their codes.
const CALLBACK: &str = "http://127.0.0.1:1/callback";

/// A provider that keeps everything in memory. Its users are `ana`, `bob`, and `kim` of the group `authors`, each with the
/// address `NAME@example.com`. Servers reach it with TLS, and browsers of tests without.
#[derive(Debug)]
pub struct OidcProvider {
    /// Its name: `https://127.0.0.1:port`.
    pub issuer: String,
    /// Address without TLS.
    pub address: String,
    /// With `ca.crt`, by which its certificate is signed, `other.crt`, and the file `secret` of its clients.
    pub dir: tempfile::TempDir,
    _service: Service,
}

impl OidcProvider {
    /// Starts one. It has a client `sqlflow`, with this redirect URI, and a client `other`.
    ///
    /// # Panics
    /// It cannot be installed or started.
    pub fn start(redirect_uri: &str) -> Self {
        let program = tool("oidc-provider");
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        certificates(dir.path());
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("secret"), format!("{SECRET}\n")).expect("the folder is ours");
        let [port, plain_port] = std::array::from_fn(|_| free_port());
        let issuer = format!("https://{LOOPBACK}:{port}");
        let client = |id: &str| json!({ "client_id": id, "client_secret": SECRET, "redirect_uris": [CALLBACK, redirect_uri] });
        let user = |name: &str, groups: &[&str]| json!({ "email": format!("{name}@example.com"), "email_verified": true, "groups": groups });
        let options = json!({
            "issuer": issuer,
            "tls": { "port": port, "cert": file("server.crt"), "key": file("server.key") },
            "port": plain_port,
            "clients": [client("sqlflow"), client("other")],
            "users": { "ana": user("ana", &[]), "bob": user("bob", &[]), "kim": user("kim", &["authors"]) },
        });
        std::fs::write(file("options.json"), options.to_string()).expect("the folder is ours");
        let log = file("log");
        let mut command = Command::new("node");
        command.arg(program.join("main.mjs")).arg(file("options.json"));
        let service = Service::start(&mut command, &log);
        let ready = || get((LOOPBACK, plain_port), "/.well-known/openid-configuration").contains("200 OK");
        wait_until("the OpenID Connect provider", &service, &log, ready);
        Self { issuer, address: format!("{LOOPBACK}:{plain_port}"), dir, _service: service }
    }

    /// Path of a file in its folder.
    pub fn file(&self, name: &str) -> String {
        Path::new(self.dir.path()).join(name).display().to_string()
    }

    /// A browser that reaches it.
    pub fn browser(&self) -> Browser {
        Browser::default().with_host(self.issuer.trim_start_matches("https://"), &self.address)
    }

    /// Signs in as this user, at an address to which a client has sent the browser, until the provider leads back to this
    /// path.
    ///
    /// # Panics
    /// It does not lead back.
    pub fn sign_in(&self, browser: &mut Browser, host: &str, path: &str, user: &str, until: &str) -> Page {
        let mut page = browser.get(host, path);
        // Forms for signing in and for consent.
        for _ in 0..3 {
            page = browser.follow(page, until);
            if page.leads_to().is_some() {
                return page;
            }
            let value =
                |before: &str| page.answer.body.split(before).nth(1).and_then(|it| it.split('"').next());
            let (Some(action), Some(prompt)) = (value("action=\""), value("name=\"prompt\" value=\"")) else {
                break;
            };
            let form = format!("prompt={prompt}&login={user}&password=any");
            page = browser.post(&self.address, http::path_of(action), &form);
        }
        panic!("the provider does not lead back: {page:?}")
    }

    /// An ID token of this user for this client.
    ///
    /// # Panics
    /// It issues none.
    pub fn id_token(&self, user: &str, client: &str) -> String {
        let verifier = "v".repeat(43);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let path = format!(
            "/auth?client_id={client}&response_type=code&scope=openid+email+groups&redirect_uri={}&nonce=n\
             &code_challenge={challenge}&code_challenge_method=S256",
            form(CALLBACK)
        );
        let back = self.sign_in(&mut self.browser(), &self.address, &path, user, "/callback");
        let (_, path) = back.leads_to().expect("it leads back");
        let code = path.split("code=").nth(1).and_then(|it| it.split('&').next());
        let code = code.unwrap_or_else(|| panic!("there is no code: {back:?}"));
        let request = format!(
            "grant_type=authorization_code&code={code}&redirect_uri={}&code_verifier={verifier}",
            form(CALLBACK)
        );
        let basic = STANDARD.encode(format!("{client}:{}", form(SECRET)));
        let lines = format!("Authorization: Basic {basic}\r\n");
        let answer = http::post_with(&self.address, "/token", &request, &lines);
        let tokens: serde_json::Value = serde_json::from_str(&answer.body).expect("it answers with tokens");
        tokens["id_token"].as_str().unwrap_or_else(|| panic!("there is no ID token: {answer:?}")).to_owned()
    }
}

/// A value of a form.
fn form(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    value
        .bytes()
        .map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") })
        .collect()
}
