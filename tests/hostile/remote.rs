//! Clients on other machines.

use std::path::Path;
use std::process::{Command, Output};

use sqlflow_tests::access::{self, Tokens};
use sqlflow_tests::server::program;

/// Runs a script in a network of its own, in which 192.0.2.7 is an address of the machine that is not loopback. `$SERVER`
/// is a server there, `$CTL` the command line.
fn in_network(dir: &Path, flags: &[&str], script: &str) -> Output {
    let begin = r#"
        set -e
        ip link set lo up
        ip addr add 192.0.2.7/32 dev lo
        "$SERVER" --listen=192.0.2.7:50051 --http-listen=127.0.0.1:50080 --state-dir=state --socket= \
            --datasource="sqlite:///$HOME/x.db?mode=rwc" "$@" 2> log &
        server=$!
        trap 'kill $server; wait $server' EXIT
        until grep -q "is ready" log; do kill -0 $server || { cat log >&2; exit 9; }; sleep 0.05; done
        set +e
    "#;
    Command::new("unshare")
        .args(["--net", "sh", "-c", &format!("{begin}\n{script}"), "sh"])
        .args(flags)
        .env("SERVER", program("sqlflow-server"))
        .env("CTL", program("sqlflowctl"))
        .env("HOME", dir)
        .env_remove("SQLFLOW_SERVER")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("XDG_CONFIG_HOME")
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn unknown_client_on_another_machine_gets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    access::certificates(dir.path());
    let tokens = Tokens::at(dir.path(), &["ana"]);
    let script = r#"
        export SQLFLOW_SERVER=https://192.0.2.7:50051 SQLFLOW_CA=ca.crt
        "$CTL" run -e 'SELECT 1'; echo "run $?"
        "$CTL" list; echo "list $?"
        SQLFLOW_ACCESS_TOKEN=wrong "$CTL" list; echo "wrong $?"
        SQLFLOW_ACCESS_TOKEN=$TOKEN "$CTL" list; echo "right $?"
        SQLFLOW_SERVER=http://192.0.2.7:50051 SQLFLOW_ACCESS_TOKEN=$TOKEN "$CTL" list; echo "plain $?"
    "#;
    let script = format!("TOKEN={}\n{script}", tokens.of("ana"));
    let flags = [&tokens.flag(), "--tls-cert=server.crt", "--tls-key=server.key"];
    let output = in_network(dir.path(), &flags, &script);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for part in ["run 2\n", "list 2\n", "wrong 2\n", "right 0\n", "plain 2\n"] {
        assert!(said.contains(part), "{part}: {said}\n{errors}");
    }
    for part in [
        "the server cannot tell who calls; send an access token (SQLFLOW_ACCESS_TOKEN)",
        "the access token is not valid here",
        "cannot send the access token to http://192.0.2.7:50051: it could be read on its way; write https://",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn insecure_server_serves_everybody_and_logs_it() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#""$CTL" --server http://192.0.2.7:50051 list; echo "list $?"; cat log"#;
    let output = in_network(dir.path(), &["--insecure"], script);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("list 0") && said.contains("everybody who can connect runs programs"),
        "{output:?}"
    );
}
