//! The certificate of the agents' port, if the operator gives none. It is made at the first start, signed by its own key, and
//! kept with it in one file of the state folder, so that a later server shows the same one. Agents trust exactly this one.
//!
//! It has no end: it is replaced with the state folder. So no clock decides whether agents can attach.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use sqlflow_os::durable;

/// First line of the file, before the host of the certificate. Readers of PEM skip it.
const HOST: &str = "host ";
const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";
/// Length of a line in PEM.
const LINE: usize = 64;

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const TEXT: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// Parts of a certificate that have tags of their own.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Kinds of names.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// Object identifiers, without their tags.
const ECDSA_WITH_SHA256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME256V1: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// Reads the certificate for this host (a name or an address) and its key from the file, or makes both. Returns the
/// certificate in PEM.
///
/// # Errors
/// The file can be neither read nor written; or there is no random number.
pub(crate) fn open(file: &Path, host: &str) -> io::Result<String> {
    // Two servers that start at once have the same one.
    let lock = File::create(file.with_extension("lock"))?;
    lock.lock()?;
    match fs::read_to_string(file) {
        Ok(text) => {
            if let Some(found) = certificate_for(&text, host) {
                return Ok(found);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let Made { certificate, key } = make(host)?;
    durable::replace(file, |target| {
        durable::close_to_others(target);
        target.write_all(format!("{HOST}{host}\n{certificate}{key}").as_bytes())
    })?;
    Ok(certificate)
}

/// The certificate in the content of the file; `None`: it is for another host, or damaged.
fn certificate_for(text: &str, host: &str) -> Option<String> {
    let (first, rest) = text.split_once('\n')?;
    if first.strip_prefix(HOST)? != host {
        return None;
    }
    let end = format!("-----END {CERTIFICATE}-----\n");
    let (certificate, key) = rest.split_once(&end)?;
    // Written as a whole, so the key is complete if it is there.
    key.contains(KEY).then(|| format!("{certificate}{end}"))
}

/// A certificate and its key, in PEM.
struct Made {
    certificate: String,
    key: String,
}

fn make(host: &str) -> io::Result<Made> {
    let failed = |what: &str| io::Error::other(format!("cannot make a certificate for agents: {what}"));
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
        .map_err(|_| failed("no key can be generated"))?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)
        .map_err(|_| failed("its key cannot be used"))?;
    let mut serial = [0; 16];
    random.fill(&mut serial).map_err(|_| failed("there is no random number"))?;
    // Positive, and without a leading zero.
    serial[0] = (serial[0] & 0x3f) | 0x40;
    let content = content(&serial, host, pair.public_key().as_ref());
    let signature = pair.sign(&random, &content).map_err(|_| failed("it cannot be signed"))?;
    let certificate =
        der(SEQUENCE, &[content, signature_algorithm(), bit_string(signature.as_ref())].concat());
    Ok(Made { certificate: pem(CERTIFICATE, &certificate), key: pem(KEY, key.as_ref()) })
}

/// What is signed.
fn content(serial: &[u8], host: &str, public_key: &[u8]) -> Vec<u8> {
    let own_name = [der(OBJECT, &COMMON_NAME), der(TEXT, b"sqlflow-server")].concat();
    let own_name = der(SEQUENCE, &der(SET, &der(SEQUENCE, &own_name)));
    // As long as possible, so that it does not depend on the clocks of servers and nodes.
    let valid = [der(UTC_TIME, b"200101000000Z"), der(TIME, b"40960101000000Z")].concat();
    let key_kind = [der(OBJECT, &EC_PUBLIC_KEY), der(OBJECT, &PRIME256V1)].concat();
    let key = [der(SEQUENCE, &key_kind), bit_string(public_key)].concat();
    let names = der(OCTET_STRING, &der(SEQUENCE, &alternative_name(host)));
    let names = der(SEQUENCE, &[der(OBJECT, &SUBJECT_ALT_NAME), names].concat());
    let parts = [
        der(VERSION, &der(INTEGER, &[2])),
        der(INTEGER, serial),
        signature_algorithm(),
        own_name.clone(),
        der(SEQUENCE, &valid),
        own_name,
        der(SEQUENCE, &key),
        der(EXTENSIONS, &der(SEQUENCE, &names)),
    ];
    der(SEQUENCE, &parts.concat())
}

fn signature_algorithm() -> Vec<u8> {
    der(SEQUENCE, &der(OBJECT, &ECDSA_WITH_SHA256))
}

fn alternative_name(host: &str) -> Vec<u8> {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => der(IP_ADDRESS, &address.octets()),
        Ok(IpAddr::V6(address)) => der(IP_ADDRESS, &address.octets()),
        Err(_) => der(DNS_NAME, host.as_bytes()),
    }
}

/// Bytes without unused bits.
fn bit_string(bytes: &[u8]) -> Vec<u8> {
    der(BIT_STRING, &[[0].as_slice(), bytes].concat())
}

/// A value with its tag and its length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|it| **it == 0).count()..];
    let mut encoded = vec![tag];
    match digits {
        [] => encoded.push(0),
        [short @ 0..=127] => encoded.push(*short),
        digits => {
            encoded.push(0x80 | u8::try_from(digits.len()).expect("a length has eight bytes"));
            encoded.extend(digits);
        }
    }
    encoded.extend(content);
    encoded
}

fn pem(kind: &str, content: &[u8]) -> String {
    let text = STANDARD.encode(content);
    let mut lines = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = next;
    }
    format!("-----BEGIN {kind}-----\n{lines}-----END {kind}-----\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn another_program_verifies_the_certificate_for_its_host() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agents.pem");
        let long = format!("{}.ana.svc", "notebook".repeat(25));
        for (host, option) in [
            ("sidecar.ana.svc", "-verify_hostname"),
            (&*long, "-verify_hostname"),
            ("10.244.0.7", "-verify_ip"),
            ("fd00::7", "-verify_ip"),
        ] {
            fs::write(dir.path().join("ca.crt"), open(&file, host).unwrap()).unwrap();
            let verify = |host: &str| {
                let mut openssl = Command::new("openssl");
                openssl.args(["verify", "-CAfile", "ca.crt", option, host, "agents.pem"]);
                openssl.current_dir(dir.path()).output().unwrap().status.success()
            };
            assert!(verify(host), "{host}");
            let other = if option == "-verify_ip" { "10.244.0.8" } else { "other.ana.svc" };
            assert!(!verify(other), "{host}");
        }
    }

    #[test]
    fn certificate_stays_with_the_state_folder_and_its_key_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agents.pem");
        let first = open(&file, "a.ana.svc").unwrap();
        assert_eq!(open(&file, "a.ana.svc").unwrap(), first, "agents of the last server still attach");
        assert!(!first.contains("PRIVATE"), "{first}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(open(&file, "b.ana.svc").unwrap(), first, "it is for another host");
        fs::write(&file, "host b.ana.svc\nno PEM").unwrap();
        assert!(open(&file, "b.ana.svc").unwrap().contains("BEGIN CERTIFICATE"), "a damaged one is replaced");
    }
}
