//! `--check`: checks a server's configuration without a server. Nothing is opened or created; only the Python of local
//! submitters is run, to check that it can import them, and the command that prints the key of secrets.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use sqlflow_launcher::{Python, missing_data_process, pythons};
use sqlflow_telemetry::Propagation;

use super::files::{find_agent, read_yaml};
use super::{LauncherOption, Options};
use crate::telemetry::Telemetry;

/// Checks everything, prints `ok` or all problems, and returns the exit status.
pub(super) async fn run(options: &Options) -> ExitCode {
    let problems = problems(options).await;
    // The reader may be gone.
    if problems.is_empty() {
        let unconfined = options.confinement(&options.state_dir).ok().and_then(|(_, warning)| warning);
        for doubt in options.doubtful_data_source().into_iter().chain(unconfined) {
            let _ = writeln!(std::io::stderr(), "warning: {doubt}");
        }
        let _ = writeln!(std::io::stdout(), "{}", summary(options));
        return ExitCode::SUCCESS;
    }
    for problem in problems {
        let _ = writeln!(std::io::stderr(), "error: {problem}");
    }
    ExitCode::FAILURE
}

fn summary(options: &Options) -> String {
    let data_source = match options.datasource.expose().split_once("://") {
        Some((scheme, _)) => scheme,
        None => "none",
    };
    let clients = options.listen.map_or_else(|| "the socket".to_owned(), |address| address.to_string());
    format!(
        "ok: listens on {clients} and {}, state folder {}, data source {data_source}, launcher {:?}",
        options.http_listen,
        options.state_dir.display(),
        options.launcher
    )
}

async fn problems(options: &Options) -> Vec<String> {
    let mut problems = Vec::new();
    let mut take = |checked: anyhow::Result<()>| {
        problems.extend(checked.err().map(|error| format!("{error:#}")));
    };
    take(state_dir(options));
    take(options.models_uri(Path::new("/")).map(drop));
    take(options.check_data_source());
    take(options.check_access());
    take(options.check_access_files());
    take(options.missing_data_source().map_or(Ok(()), |why| Err(anyhow::Error::msg(why))));
    take(Telemetry::from_env().map(drop));
    take(Propagation::from_variables(&|name: &str| std::env::var(name).ok()).map(drop));
    take(options.confinement(&options.state_dir).map(drop));
    take(options.run_as().map(drop));
    take(options.reach(&options.state_dir).map(drop));
    take(options.secret_keys(&options.state_dir).await.map(drop));
    match options.launcher {
        LauncherOption::Local => {
            let agent = find_agent(options.agent.clone());
            let missing = agent.as_deref().ok().and_then(missing_data_process);
            take(missing.map_or(Ok(()), |why| Err(anyhow::Error::msg(why))));
            take(agent.map(drop));
            let user = options.run_as().ok().flatten();
            let pythons = pythons(options.python.as_deref());
            let python = Python::first_of(pythons, options.passed_variables(), user);
            take(python.look_once().await.map_err(anyhow::Error::msg));
        }
        LauncherOption::Kubernetes => {
            let given = &options.kubernetes;
            for missing in given.missing() {
                take(Err(anyhow::anyhow!("--launcher kubernetes needs {missing}")));
            }
            if given.agent_url.is_some() {
                take(given.agent_address().map(drop));
            }
            for (flag, file) in [("agent-cert", &given.agent_cert), ("agent-key", &given.agent_key)] {
                if let Some(file) = file {
                    let read = std::fs::read(file).map(drop);
                    take(read.map_err(|error| {
                        let from = options.origin(flag);
                        anyhow::anyhow!("cannot read {} (from {from}): {error}", file.display())
                    }));
                }
            }
            for (flag, file) in
                [("pod-template", &given.pod_template), ("workspace-claim", &given.workspace_claim)]
            {
                if let Some(file) = file {
                    let from = options.origin(flag);
                    take(read_yaml(file).map(drop).map_err(|error| error.context(format!("wrong {from}"))));
                }
            }
        }
    }
    problems
}

/// Checks that the folder can be used, or created.
fn state_dir(options: &Options) -> anyhow::Result<()> {
    let dir = &options.state_dir;
    let from = options.origin("state-dir");
    let first = dir.ancestors().find(|it| it.symlink_metadata().is_ok()).unwrap_or(Path::new("."));
    anyhow::ensure!(
        first.is_dir(),
        "cannot use the state folder {} (from {from}): {} is not a folder",
        dir.display(),
        first.display()
    );
    nix::unistd::access(first, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK).map_err(
        |error| {
            anyhow::anyhow!(
                "cannot use the state folder {} (from {from}): {} cannot be written: {error}",
                dir.display(),
                first.display()
            )
        },
    )
}
