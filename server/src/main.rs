//! `sqlflow-server`: serves until SIGTERM or Ctrl+C. Its jobs continue without it, unless `--on-exit cancel`. The subcommand `doctor` checks a
//! state folder instead.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use sqlflow_cli::ctrl_c::CtrlC;
use sqlflow_server::config::{Command, LogFormat, OnExitOption, Options};
use sqlflow_server::telemetry::Telemetry;
use sqlflow_server::{doctor, open_files};
use sqlflow_telemetry::live::Pipeline;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Log filter: the HTTP/2 library warns about each acknowledgement of a PING that it did not send itself. `api::delivery`
/// sends such PINGs.
const NO_PING_WARNINGS: &str = "h2::proto::ping_pong=error";
/// Fields of the spans around a log line that are exported with it.
const LOG_FIELDS: [&str; 2] = ["job", "attempt"];
/// Timeout for pending system calls at the end, such as those of a disk that does not answer.
const LEAVE_TIME: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // Submitters and other programs of the same user must not read tokens and data sources from its memory. The kernel
    // then writes no core either.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        let _ = writeln!(
            std::io::stderr(),
            "error: cannot protect the server's memory from other processes: {error}"
        );
        return ExitCode::FAILURE;
    }
    let ended =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(
            |runtime| {
                let ended = runtime.block_on(run());
                runtime.shutdown_timeout(LEAVE_TIME);
                ended
            },
        );
    match ended {
        Ok(code) => code,
        Err(error) => {
            // No backtrace, even if the environment requests one. The reader of stderr may be gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<ExitCode> {
    let options = Options::read()?;
    if let Some(Command::Doctor(args)) = &options.command {
        let keys = options.secret_keys(&options.state_dir).await;
        return Ok(doctor::run(&options.state_dir, args, keys).await);
    }
    if let Some(Command::Token(args)) = &options.command {
        args.run()?;
        return Ok(ExitCode::SUCCESS);
    }
    if options.check {
        return Ok(options.check().await);
    }
    let telemetry = Telemetry::from_env()?;
    start_logging(options.log_format, &telemetry);
    let open_files_limit = open_files::raise_limit();
    let asked = CancellationToken::new();
    cancel_on_signal(asked.clone(), options.on_exit)?;
    Box::pin(sqlflow_server::server::run(options, open_files_limit, telemetry, asked)).await?;
    Ok(ExitCode::SUCCESS)
}

fn cancel_on_signal(asked: CancellationToken, on_exit: OnExitOption) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = CtrlC::listen()?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            () = interrupt.recv() => {}
        }
        asked.cancel();
        match on_exit {
            OnExitOption::Leave => tracing::info!("shutting down; jobs continue"),
            OnExitOption::Cancel => tracing::info!("shutting down; jobs are cancelled (--on-exit cancel)"),
        }
    });
    Ok(())
}

/// Log lines to stderr; live spans and log lines to the collector, if they are exported.
fn start_logging(format: LogFormat, telemetry: &Telemetry) {
    // The server reports the failures of exports itself.
    let own = [NO_PING_WARNINGS, "opentelemetry_sdk=off", "sqlflow_live=off"];
    let filter = || {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        own.iter().fold(filter, |filter, directive| {
            filter.add_directive(directive.parse().expect("it is a directive"))
        })
    };
    // The reader of the log may be gone: reporting that on the same stream would panic wherever a line is written.
    let lines = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_ansi(
            std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
        )
        .with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let spans = telemetry.tracer().pipeline().map(Pipeline::layer);
    let exported = telemetry.logs().map(|it| it.layer(filter(), &LOG_FIELDS));
    tracing_subscriber::registry().with(spans).with(lines.with_filter(filter())).with(exported).init();
}
