use jsonwebtoken::get_current_timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use ring::{digest, hmac};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example.com";

/// A key of the provider, with the id `one`.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|it| URL_SAFE_NO_PAD.encode(it));
        json!({ "kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y })
    }

    fn keys(&self) -> Keys {
        Keys::parse(json!({ "keys": [self.jwk()] }).to_string().as_bytes()).unwrap()
    }

    fn token_with(&self, head: &Value, claims: &Value) -> String {
        signed(head, claims, |text| self.0.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec())
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "ES256", "kid": "one", "typ": "JWT" }), claims)
    }
}

fn signed(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let text = [head, claims].map(|it| URL_SAFE_NO_PAD.encode(it.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// Claims of a valid token, with these changes. A null removes a claim.
fn claims(changes: &Value) -> Value {
    let mut claims =
        json!({ "iss": ISSUER, "aud": "sqlflow", "exp": get_current_timestamp() + 300, "sub": "ana" });
    let all = claims.as_object_mut().unwrap();
    all.extend(changes.as_object().unwrap().clone());
    all.retain(|_, value| !value.is_null());
    claims
}

fn verify(token: &str, keys: &Keys) -> Result<Claims, Wrong> {
    let audiences = ["sqlflow".to_owned(), "flows".to_owned()];
    Unverified::of(token).unwrap().verify(token, keys, ISSUER, &audiences)
}

#[test]
fn valid_token_is_accepted() {
    let signer = Signer::new();
    let now = get_current_timestamp();
    for changes in [
        json!({}),
        json!({ "aud": ["other", "flows"] }),
        // Within the leeway.
        json!({ "exp": now - 30 }),
        json!({ "nbf": now + 30 }),
    ] {
        let verified = verify(&signer.token(&claims(&changes)), &signer.keys());
        assert_eq!(verified.unwrap()["sub"], "ana", "{changes}");
    }
    for typ in [json!("jwt"), json!("at+jwt"), json!("application/at+jwt"), Value::Null] {
        let head = json!({ "alg": "ES256", "typ": typ });
        assert!(verify(&signer.token_with(&head, &claims(&json!({}))), &signer.keys()).is_ok(), "{head}");
    }
}

#[test]
fn wrong_claims_are_refused_with_the_cause() {
    let signer = Signer::new();
    let now = get_current_timestamp();
    for (changes, refused) in [
        (json!({ "exp": 1_000_000_000 }), Wrong::Expired("2001-09-09T01:46:40Z".to_owned())),
        (json!({ "exp": 1_000_000_000.5 }), Wrong::Expired("2001-09-09T01:46:40Z".to_owned())),
        (json!({ "nbf": 4_000_000_000_u64 }), Wrong::Early("2096-10-02T07:06:40Z".to_owned())),
        (json!({ "aud": "another" }), Wrong::Audience("sqlflow or flows".to_owned())),
        (json!({ "aud": ["another"] }), Wrong::Audience("sqlflow or flows".to_owned())),
        (json!({ "aud": null, "azp": "sqlflow" }), Wrong::Missing("aud".to_owned())),
        (json!({ "aud": 7 }), Wrong::Missing("aud".to_owned())),
        (json!({ "exp": null }), Wrong::Missing("exp".to_owned())),
        (json!({ "exp": (now + 300).to_string() }), Wrong::Missing("exp".to_owned())),
        (json!({ "iss": format!("{ISSUER}/") }), Wrong::Issuer(ISSUER.to_owned())),
    ] {
        assert_eq!(verify(&signer.token(&claims(&changes)), &signer.keys()), Err(refused), "{changes}");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let (signer, other) = (Signer::new(), Signer::new());
    let keys = signer.keys();
    let right = claims(&json!({}));
    let head = |alg: &str, kid: &str| json!({ "alg": alg, "kid": kid });
    assert_eq!(verify(&other.token(&right), &keys), Err(Wrong::Signature));
    assert_eq!(verify(&signer.token_with(&head("ES256", "two"), &right), &keys), Err(Wrong::Key));
    assert_eq!(verify(&signer.token_with(&head("ES384", "one"), &right), &keys), Err(Wrong::Key));
    assert_eq!(verify(&signer.token_with(&head("RS256", "one"), &right), &keys), Err(Wrong::Key));
    for none in ["none", "None", "NONE", ""] {
        assert_eq!(
            verify(&signed(&head(none, "one"), &right, |_| Vec::new()), &keys),
            Err(Wrong::Algorithm),
            "{none}"
        );
    }
    assert_eq!(verify(&signed(&head("ES256", "one"), &right, |_| Vec::new()), &keys), Err(Wrong::Signature));
    // The public key, which everybody knows, as the secret of an HMAC.
    let jwk = signer.jwk().to_string();
    for secret in [signer.0.public_key().as_ref(), jwk.as_bytes()] {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let forged =
            signed(&head("HS256", "one"), &right, |text| hmac::sign(&secret, text).as_ref().to_vec());
        assert_eq!(verify(&forged, &keys), Err(Wrong::Algorithm));
    }
    // A signature of a right token with other claims.
    let token = signer.token(&right);
    let [head, _, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("{token}") };
    let body = URL_SAFE_NO_PAD.encode(claims(&json!({ "sub": "root" })).to_string());
    assert_eq!(verify(&format!("{head}.{body}.{signature}"), &keys), Err(Wrong::Signature));
    for kind in [json!({ "typ": "logout+jwt" }), json!({ "crit": ["b64"], "b64": false })] {
        let mut head = json!({ "alg": "ES256", "kid": "one" });
        head.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        assert_eq!(verify(&signer.token_with(&head, &right), &keys), Err(Wrong::Kind), "{kind}");
    }
}

#[test]
fn key_of_another_curve_is_accepted() {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x });
    let keys = Keys::parse(json!({ "keys": [jwk] }).to_string().as_bytes()).unwrap();
    let head = json!({ "alg": "EdDSA", "kid": "ed" });
    let token = signed(&head, &claims(&json!({})), |text| pair.sign(text).as_ref().to_vec());
    assert!(verify(&token, &keys).is_ok());
    let hashed = signed(&head, &claims(&json!({})), |text| {
        pair.sign(digest::digest(&digest::SHA256, text).as_ref()).as_ref().to_vec()
    });
    assert_eq!(verify(&hashed, &keys), Err(Wrong::Signature));
}

#[test]
fn other_tokens_are_no_jwt() {
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let (head, body) = (encoded("{\"alg\":\"ES256\"}"), encoded("{\"iss\":\"x\"}"));
    assert_eq!(Unverified::of(&format!("{head}.{body}.")).unwrap().issuer(), "x");
    for wrong in [
        String::new(),
        "sqlflow_at_00".to_owned(),
        "a.b.c".to_owned(),
        format!("{head}.{body}"),
        format!("{head}.{body}.x.x"),
        format!("{head}.{}.x", encoded("{}")),
        format!("{head}.{}.x", encoded("{\"iss\":1}")),
        format!("{head}.{}.x", encoded("{\"iss\":\"x\",\"iss\":\"y\"}")),
        format!("{head}.{}.x", encoded(&"[".repeat(5000))),
        format!("{head}.{body}.{}", "x".repeat(MAX_TOKEN_BYTES)),
    ] {
        assert!(Unverified::of(&wrong).is_none(), "{wrong}");
    }
}

#[test]
fn principal_is_a_verified_claim_that_is_a_name() {
    let principal = |claim: &str, claims: Value| {
        let names = NameClaims { principal: claim.to_owned(), groups: "groups".to_owned() };
        let found = names.principal(claims.as_object().unwrap());
        found.map(|it| (it.name().to_owned(), it.groups().join(" ")))
    };
    let is = |name: &str, groups: &str| Ok((name.to_owned(), groups.to_owned()));
    assert_eq!(
        principal("sub", json!({ "sub": "a-1", "groups": ["ml", "", 7, "x\n", "web"] })),
        is("oidc:a-1", "oidc:ml oidc:web")
    );
    assert_eq!(principal("sub", json!({ "sub": "a-1", "groups": "ml" })), is("oidc:a-1", "oidc:ml"));
    assert_eq!(principal("sub", json!({ "sub": "a-1", "groups": 7 })), is("oidc:a-1", ""));
    let email = |verified: Value| {
        principal("email", json!({ "email": "ana@example.com", "email_verified": verified }))
    };
    assert_eq!(email(json!(true)), is("oidc:ana@example.com", ""));
    assert_eq!(email(json!("true")), is("oidc:ana@example.com", ""));
    for wrong in [json!(false), json!("false"), json!(1), Value::Null] {
        assert_eq!(email(wrong), Err(Wrong::Email));
    }
    assert_eq!(principal("name", json!({ "sub": "a-1" })), Err(Wrong::Missing("name".to_owned())));
    for wrong in [
        json!(7),
        json!(""),
        json!(" ana"),
        json!("a\nb"),
        json!("a\u{202e}b"),
        json!("a".repeat(257)),
        json!(["a"]),
    ] {
        assert_eq!(principal("sub", json!({ "sub": wrong })), Err(Wrong::Name("sub".to_owned())), "{wrong}");
    }
}

#[test]
fn id_token_is_for_its_client_and_its_sign_in() {
    let check = |claims: Value| check_sign_in(claims.as_object().unwrap(), "pages", "n");
    assert_eq!(check(json!({ "nonce": "n" })), Ok(()));
    assert_eq!(check(json!({ "nonce": "n", "azp": "pages" })), Ok(()));
    assert_eq!(check(json!({ "nonce": "m" })), Err(Wrong::Nonce));
    assert_eq!(check(json!({})), Err(Wrong::Nonce));
    assert_eq!(check(json!({ "nonce": "n", "azp": "other" })), Err(Wrong::Client));
}
