//! What full tracing costs: the same with a collector, over both transports, and without, in turn.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_proto::v1::{GetJobRequest, get_job_request::By};
use sqlflow_tests::client::{Client, is_over};
use sqlflow_tests::server::{Server, Setup};
use sqlflow_tests::services::Jaeger;
use sqlflow_tests::stand_in::{self, STEP};
use tempfile::TempDir;

use crate::agent;
use crate::arguments::Scale;
use crate::measure::Measurement;

/// With more output the disk would dominate.
const MOST_MEGABYTES: u64 = 1024;

/// Run → token, and durable bytes of output per second.
pub async fn all(folder: &Path, scale: &Scale) -> anyhow::Result<Vec<Measurement>> {
    let megabytes = scale.megabytes.min(MOST_MEGABYTES);
    let dir = TempDir::new_in(folder.canonicalize()?)?;
    let jaeger = Jaeger::shared();
    let collectors = [
        ("untraced", None),
        ("grpc", Some(format!("http://127.0.0.1:{}", jaeger.port))),
        // The path says that it is HTTP.
        ("http", Some(format!("http://127.0.0.1:{}/v1/traces", jaeger.http_port))),
    ];
    let start = async |name: &str, megabytes| {
        let mut sides = Vec::new();
        for (transport, collector) in collectors.clone() {
            let folder = dir.path().join(format!("{name}-{transport}"));
            sides.push(Side::start(&folder, megabytes, collector).await?);
        }
        anyhow::Ok(sides)
    };

    let mut tokens = [
        Measurement::time("run_to_token_untraced", "  the same without a collector"),
        Measurement::time("run_to_token_traced", "Run → token, traced over gRPC")
            .beside("run_to_token_untraced"),
        Measurement::time("run_to_token_traced_http", "Run → token, traced over HTTP")
            .beside("run_to_token_untraced"),
    ];
    let mut streams = [
        Measurement::new("log_untraced", "MiB/s", "  the same without a collector"),
        Measurement::new("log_traced", "MiB/s", "output made durable, traced over gRPC")
            .beside("log_untraced"),
        Measurement::new("log_traced_http", "MiB/s", "output made durable, traced over HTTP")
            .beside("log_untraced"),
    ];
    let mut sides = start("run", 0).await?;
    for _ in 0..scale.jobs {
        for (side, tokens) in sides.iter_mut().zip(&mut tokens) {
            let token = tokens.clock(side.client.run(STEP)).await?;
            side.end_of(token.token).await?;
        }
    }
    for side in sides {
        side.server.stop()?;
    }
    let mut sides = start("log", megabytes).await?;
    for _ in 0..scale.streams.max(3) {
        for (side, streams) in sides.iter_mut().zip(&mut streams) {
            streams.add(megabytes as f64 / side.stream().await?);
        }
    }
    for side in sides {
        side.server.stop()?;
    }
    Ok(tokens.into_iter().rev().chain(streams.into_iter().rev()).collect())
}

/// A server whose steps print.
struct Side {
    server: Server,
    client: Client,
}

impl Side {
    async fn start(dir: &Path, megabytes: u64, collector: Option<String>) -> anyhow::Result<Self> {
        std::fs::create_dir(dir)?;
        let code =
            format!("import os\npiece = b'x' * (1 << 20)\nfor _ in range({megabytes}): os.write(1, piece)");
        let setup: Setup = stand_in::setup(dir, &code, None)
            .flag(format!("--agent={}", agent::shipped()?.display()))
            .flag("--retain-output=2GiB")
            .envs(collector.map(|it| ("OTEL_EXPORTER_OTLP_ENDPOINT", it)));
        let server = setup.start()?;
        let client = server.client().await?;
        Ok(Self { server, client })
    }

    /// Duration in seconds.
    async fn stream(&mut self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let token = self.client.run(STEP).await?.token;
        self.end_of(token).await?;
        Ok(begun.elapsed().as_secs_f64())
    }

    /// Waits for its success.
    async fn end_of(&mut self, token: String) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            let request = GetJobRequest { by: Some(By::Token(token.clone())) };
            let status = self.client.api.get_job(request).await?.into_inner().status.context("it has one")?;
            if is_over(&status) {
                ensure!(status.code() == Code::Succeeded, "the job failed: {}", status.message);
                return Ok(());
            }
        }
    }
}
