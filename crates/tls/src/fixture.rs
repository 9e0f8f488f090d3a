//! Certificates for tests.

#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Host of the certificates.
pub const HOST: &str = "sqlflow-server";

/// A folder with the self-signed pairs `one` and `two`; `tls` is a copy of the first.
pub fn pairs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "30", "-subj", "/CN=test", "-keyout", &format!("{name}.key"), "-out"])
            .args([&format!("{name}.crt"), "-addext", &format!("subjectAltName=DNS:{HOST}")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    renew(dir.path(), "one");
    dir
}

/// Replaces `tls` by a copy of this pair.
pub fn renew(dir: &Path, name: &str) {
    for kind in ["key", "crt"] {
        std::fs::copy(dir.join(format!("{name}.{kind}")), dir.join(format!("tls.{kind}"))).unwrap();
    }
}
