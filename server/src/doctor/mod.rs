//! `sqlflow-server doctor`: checks and repairs a state folder, with running servers or without.
//!
//! `diagnose` and `stuck` derive findings from what was read, and `finding` formats them; all are pure. `state` is the folder,
//! `scan` goes through it, `repair` implements `--repair`, and `report` writes the output. Reads and writes go
//! through `Survey` of `sqlflow_job_store`, `Maintenance` of `sqlflow_result_log` and `RunFolders` of `sqlflow_launcher`.

mod diagnose;
mod finding;
mod repair;
mod report;
mod scan;
mod state;
mod stuck;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use sqlflow_cli::ctrl_c::CtrlC;
use sqlflow_job_store::SecretKeys;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::repair::{Orphans, Repairs};
use self::report::{Form, Report};
use self::scan::{Scan, ScanError};
use self::state::State;

/// Exit code: there are problems.
const FOUND: u8 = 1;
/// Exit code: not everything could be checked.
const NOT_SEEN: u8 = 2;
/// Exit code of a process that was ended by Ctrl+C.
const INTERRUPTED: i32 = 130;

/// Arguments of the doctor.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Exit status: 0 nothing is wrong, or all of it was repaired; 1 something is wrong; 2 not everything could be scanned at.

Examples:
  sqlflow-server doctor --state-dir /var/lib/sqlflow
  sudo -u sqlflow sqlflow-server doctor --state-dir /var/lib/sqlflow --repair")]
pub struct Args {
    /// Repair what can be repaired without further loss, and print what was done
    #[arg(long)]
    repair: bool,

    /// With --repair: delete logs and run folders of unknown jobs, instead of moving them to lost+found
    #[arg(long, requires = "repair")]
    delete_orphans: bool,

    /// Print one JSON object per finding, and one of kind `summary` at the end
    #[arg(long)]
    json: bool,
}

/// Checks a state folder, and repairs it on request. Writes findings to standard output.
/// `keys`: those of the server; without any, encrypted data sources are not checked.
pub async fn run(state_dir: &Path, args: &Args, keys: anyhow::Result<SecretKeys>) -> ExitCode {
    match try_run(state_dir, args, keys).await {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(NOT_SEEN)
        }
    }
}

async fn try_run(
    state_dir: &Path,
    args: &Args,
    keys: anyhow::Result<SecretKeys>,
) -> anyhow::Result<ExitCode> {
    let keys = keys?;
    let state = State::find(state_dir)?;
    if args.repair {
        state.may_repair(nix::unistd::geteuid().as_raw())?;
    }
    let orphans = if args.delete_orphans { Orphans::Delete } else { Orphans::SetAside };
    let form = if args.json { Form::Json } else { Form::Text };
    let mut scan = Scan {
        survey: state.survey()?,
        state,
        report: Report::new(io::stdout(), form),
        repairs: args.repair.then(|| Repairs::new(orphans)),
        stop: stop_on_signal()?,
        keys,
    };
    let scanned = scan.run().await;
    let Scan { survey, mut report, .. } = scan;
    drop(survey);
    match scanned {
        Err(ScanError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(ExitCode::from(NOT_SEEN));
        }
        _ => report.end(scanned.is_ok())?,
    }
    scanned?;
    Ok(if report.counts.left() > 0 { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// The first SIGTERM or Ctrl+C waits for the current repair, the second ends the process at once.
fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = CtrlC::listen()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                () = interrupt.recv() => {}
            }
            if stopped.is_cancelled() {
                std::process::exit(INTERRUPTED);
            }
            stopped.cancel();
        }
    });
    Ok(stop)
}
