//! The principal in a client certificate, whose chain was verified before.

use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode as _, Tag, Tagged as _};

use crate::{Method, Principal};

/// Numbers of the attributes of a subject.
const COMMON_NAME: &str = "2.5.4.3";
const ORGANIZATION: &str = "2.5.4.10";

/// The holder of a certificate: `cert:` and its common name (CN). The organizations (O) are groups. `None`: it has no
/// common name or several, or is not a certificate.
#[must_use]
pub fn holder(der: &[u8]) -> Option<Principal> {
    let certificate = Certificate::from_der(der).ok()?;
    let subject = certificate.tbs_certificate.subject;
    let attributes = || subject.0.iter().flat_map(|it| it.0.iter());
    let texts = |kind: &'static str| {
        attributes().filter(move |it| it.oid.to_string() == kind).map(|it| text(AnyRef::from(&it.value)))
    };
    let names: Vec<Option<String>> = texts(COMMON_NAME).collect();
    // Of several names, which would be the holder?
    let [Some(name)] = &names[..] else { return None };
    let groups: Vec<String> = texts(ORGANIZATION).flatten().collect();
    let holder = Principal::new(Method::Certificate, Some(name.as_str()).filter(|it| !it.is_empty())?);
    Some(holder.with_groups(Method::Certificate, groups.iter().map(String::as_str)))
}

fn text(value: AnyRef<'_>) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|it| it.as_str().to_owned()),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|it| it.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn der(subject: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "30", "-subj", subject, "-keyout", "key", "-out", "der", "-outform", "DER"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(dir.path().join("der")).unwrap()
    }

    #[test]
    fn common_name_is_the_holder_and_organizations_are_groups() {
        let ana = holder(&der("/O=ml/O=web/CN=ana")).unwrap();
        assert_eq!(ana.name(), "cert:ana");
        assert_eq!(ana.groups(), ["cert:ml", "cert:web"]);
        for subject in ["/O=ml", "/CN=ana/CN=root"] {
            assert_eq!(holder(&der(subject)), None, "{subject}");
        }
        assert_eq!(holder(b"no certificate"), None);
    }
}
