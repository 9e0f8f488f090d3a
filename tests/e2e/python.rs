//! The Python of submitters: a server detects that it is broken, reports it everywhere, and recovers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sqlflow_proto::v1::{Cause, job_status::Code};
use sqlflow_tests::http;
use sqlflow_tests::python;
use sqlflow_tests::server::Setup;
use sqlflow_tests::until::until;

#[tokio::test(flavor = "multi_thread")]
async fn broken_python_fails_jobs_until_it_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("python");
    fs::write(
        &broken,
        "#!/bin/sh\necho \"ModuleNotFoundError: No module named 'sqlflow_submitter'\" >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("x.db").display()));
    let server = setup.flag(format!("--python={}", broken.display())).start().unwrap();
    let mut client = server.client().await.unwrap();

    let token = client.run("SHOW MODELS;").await.unwrap();
    let ended = client.follow(&token).await.unwrap();
    assert_eq!((ended.status.code(), ended.status.cause()), (Code::Failed, Cause::LaunchFailed));
    let sentence =
        "cannot import sqlflow_submitter: ModuleNotFoundError: No module named 'sqlflow_submitter'";
    for part in [broken.to_str().unwrap(), sentence, "make install", "--python"] {
        assert!(ended.status.message.contains(part), "{part}: {}", ended.status.message);
    }
    let ready = http::get(&server.http, "/readyz");
    assert_eq!(ready.code, 200, "results can be fetched");
    assert!(
        ready.body.contains("launcher: cannot run submitters: ") && ready.body.contains(sentence),
        "{}",
        ready.body
    );
    assert!(http::get(&server.http, "/metrics").body.contains("sqlflow_launcher_ready 0"));

    let real = python::program();
    fs::write(&broken, format!("#!/bin/sh\nexec {} \"$@\"\n", real.display())).unwrap();
    let ended = loop {
        let token = client.run("SHOW MODELS;").await.unwrap();
        let ended = client.follow(&token).await.unwrap();
        // The result of the check is cached for a moment.
        if ended.status.code() == Code::Succeeded || !ended.status.message.contains(sentence) {
            break ended;
        }
    };
    assert_eq!(ended.status.code(), Code::Succeeded, "{:?}", ended.status);
    until("the server sees it", || http::get(&server.http, "/readyz").body.contains("launcher: ok"));
}

/// As in `PYTHONPATH=images/submitter sqlflow-server`. Submitters run in other folders.
#[tokio::test(flavor = "multi_thread")]
async fn relative_pythonpath_is_resolved_in_the_servers_folder() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new(dir.path(), format!("sqlite://{}", dir.path().join("x.db").display()));
    // Tests run in the folder of their crate.
    let server = setup.env("PYTHONPATH", "../images/submitter").start().unwrap();
    let mut client = server.client().await.unwrap();
    let token = client.run("SHOW MODELS;").await.unwrap();
    assert_eq!(client.follow(&token).await.unwrap().status.code(), Code::Succeeded);
}
