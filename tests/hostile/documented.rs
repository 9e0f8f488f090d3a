//! The commands of `docs/security.md`, unchanged, on a machine that others reach.

use std::process::Command;

use sqlflow_tests::access;
use sqlflow_tests::documents::commands;
use sqlflow_tests::server::program;

#[test]
fn commands_of_the_page_secure_a_server() {
    let block = commands("docs/security.md", "sqlflow-server token");
    let lines: Vec<&str> = block.lines().collect();
    let [token, server, login] = lines[..] else { panic!("three commands: {block}") };
    let script = format!(
        "set -e
        ip link set lo up; ip addr add 192.0.2.7/32 dev lo
        printf '127.0.0.1 localhost\\n192.0.2.7 sqlflow.example.com\\n' > hosts; mount --bind hosts /etc/hosts
        token=$({token}
        )
        {server} 2> log & server=$!
        trap 'kill $server; wait $server' EXIT
        until grep -q 'is ready' log; do kill -0 $server || {{ cat log >&2; exit 9; }}; sleep 0.05; done
        echo \"$token\" | {login}
        sqlflowctl list > /dev/null; echo listed
        sqlflowctl logout; sqlflowctl --server https://sqlflow.example.com:50051 list || echo unknown"
    );
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let folder = program("sqlflow-server").parent().unwrap().display().to_string();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &script])
        .env_clear()
        .env("PATH", format!("{folder}:/usr/sbin:/usr/bin:/sbin:/bin"))
        .env("HOME", dir.path())
        .env("SSL_CERT_FILE", "ca.crt")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("logged in") || String::from_utf8_lossy(&output.stderr).contains("logged in"),
        "{output:?}"
    );
    assert!(said.contains("listed\n") && said.ends_with("unknown\n"), "{output:?}");
}
