//! An OpenID Connect provider that signs whatever a test wants.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

/// A provider. It answers requests for its document and its keys.
#[derive(Debug)]
pub struct Provider {
    /// Its name: `http://127.0.0.1:port`.
    pub issuer: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    keys: Vec<Value>,
    is_away: bool,
    /// Requests for keys.
    fetches: usize,
}

impl Provider {
    /// Starts one that publishes these keys.
    ///
    /// # Panics
    /// It cannot listen.
    pub fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let issuer = format!("http://{}", listener.local_addr().expect("it listens"));
        let state = State { keys: published(keys), is_away: false, fetches: 0 };
        let provider = Self { issuer: issuer.clone(), state: Arc::new(Mutex::new(state)) };
        let state = Arc::clone(&provider.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A server that leaves is not an error of the provider.
                let _ = answer(stream, &issuer, &state);
            }
        });
        provider
    }

    /// Publishes other keys.
    pub fn publish(&self, keys: &[&SigningKey]) {
        self.lock().keys = published(keys);
    }

    /// Answers no more, or again.
    pub fn set_away(&self, is_away: bool) {
        self.lock().is_away = is_away;
    }

    /// How often its keys were fetched.
    pub fn fetches(&self) -> usize {
        self.lock().fetches
    }

    /// Claims of a valid token for `sqlflow`, with these changes.
    ///
    /// # Panics
    /// The changes are no object.
    pub fn claims(&self, changes: &Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let mut claims = json!({ "iss": self.issuer, "aud": "sqlflow", "exp": now + 600, "sub": "ana" });
        let all = claims.as_object_mut().expect("it is one");
        all.extend(changes.as_object().expect("changes are an object").clone());
        claims
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }
}

fn published(keys: &[&SigningKey]) -> Vec<Value> {
    keys.iter().map(|it| it.jwk()).collect()
}

fn answer(mut stream: TcpStream, issuer: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|it| !it.is_empty()) {}
    let mut state = state.lock().expect("no thread panics while it holds the lock");
    if state.is_away {
        return Ok(());
    }
    let body = match request.split(' ').nth(1) {
        Some("/keys") => {
            state.fetches += 1;
            json!({ "keys": state.keys })
        }
        _ => json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }),
    };
    let body = body.to_string();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A key for ES256.
pub struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key with this id.
    ///
    /// # Panics
    /// There is no randomness.
    pub fn new(id: &str) -> Self {
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &SystemRandom::new()).expect("there is randomness");
        let pair =
            EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &SystemRandom::new()).expect("it is a key");
        Self { id: id.to_owned(), pair }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let head = json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" });
        signed(&head, claims, |text| {
            self.pair.sign(&SystemRandom::new(), text).expect("there is randomness").as_ref().to_vec()
        })
    }

    /// The public key: the uncompressed point.
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key as the provider publishes it.
    pub fn jwk(&self) -> Value {
        let (x, y) = self.public()[1..].split_at(32);
        let [x, y] = [x, y].map(|it| URL_SAFE_NO_PAD.encode(it));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id, "x": x, "y": y })
    }
}

/// A token with a signature of any kind.
pub fn signed(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = [head, claims].map(|it| URL_SAFE_NO_PAD.encode(it.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}
