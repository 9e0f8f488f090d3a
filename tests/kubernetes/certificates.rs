//! Certificates of agents and server, renewed by `manifests/certificates.sh`.

use std::process::Command;

use sqlflow_tests::cluster::Namespace;

use crate::manifests::make_certificates;

/// A server uses the old certificate until it has loaded the new one, so agents must trust both.
#[test]
fn renewal_keeps_the_previous_certificate_trusted() {
    let namespace = Namespace::new("renewed");
    let jobs = namespace.of_submitters();
    let file = |name: &str| namespace.dir().join(name);
    let certificates = ["first", "second", "third"].map(|name| {
        make_certificates(&namespace);
        let template = r#"go-template={{index .data "tls.crt" | base64decode}}"#;
        let certificate = namespace.kubectl(&["get", "secret", "sqlflow-agent-tls", "-o", template]);
        std::fs::write(file(name), certificate).unwrap();
        name
    });
    let template = r#"go-template={{index .data "ca.crt"}}"#;
    let trusted = namespace.kubectl(&["get", "configmap", "sqlflow-ca", "-o", template]);
    let by_agents = jobs.kubectl(&["get", "configmap", "sqlflow-ca", "-o", template]);
    assert_eq!(by_agents, trusted);
    assert!(!jobs.kubectl(&["get", "secrets", "-o", "name"]).contains("sqlflow-agent-tls"), "the key stays");
    std::fs::write(file("trusted"), trusted).unwrap();
    let is_trusted = certificates.map(|name| {
        let mut verify = Command::new("openssl");
        verify.arg("verify").arg("-CAfile").arg(file("trusted")).arg(file(name));
        verify.output().unwrap().status.success()
    });
    assert_eq!(is_trusted, [false, true, true], "only the newest two are trusted");
}

/// Data sources in the state are encrypted with it.
#[test]
fn renewal_keeps_the_key_of_secrets() {
    let namespace = Namespace::new("key-kept");
    let _jobs = namespace.of_submitters();
    let keys = [(), ()].map(|()| {
        make_certificates(&namespace);
        namespace.kubectl(&["get", "secret", "sqlflow-secrets-key", "-o", "jsonpath={.data.key}"])
    });
    assert!(!keys[0].is_empty() && keys[0] == keys[1], "{keys:?}");
}
