//! The certificate of the agents' port, if the operator gives none. It is made at the first start, signed by its own key, and
//! kept with it in one file of the state folder, so that a later server shows the same one. Agents trust exactly this one.
//!
//! It has no end: it is replaced with the state folder. So no clock decides whether agents can attach.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use sqlflow_os::durable;

/// First line of the file, before the host of the certificate. Readers of PEM skip it.
const HOST: &str = "host ";
const CERTIFICATE: &str = "CERTIFICATE";
const KEY: &str = "PRIVATE KEY";

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
    let failed =
        |error: rcgen::Error| io::Error::other(format!("cannot make a certificate for agents: {error}"));
    // With the extension that makes it an authority, some verifiers would not take it for a server.
    let mut content = CertificateParams::new([host.to_owned()]).map_err(failed)?;
    content.distinguished_name = DistinguishedName::new();
    content.distinguished_name.push(DnType::CommonName, "sqlflow-server");
    // As long as possible, so that it does not depend on the clocks of servers and nodes.
    content.not_before = date_time_ymd(2020, 1, 1);
    content.not_after = date_time_ymd(4096, 1, 1);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = content.self_signed(&key).map_err(failed)?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem() })
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
