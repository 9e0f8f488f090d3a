//! Throughput of a command's output to a durable log, through the static agent and a server.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use sqlflow_proto::v1::job_status::Code;
use sqlflow_tests::client::is_over;
use sqlflow_tests::stand_in::{self, STEP};
use tempfile::TempDir;

use crate::agent;
use crate::measure::Measurement;
use crate::world::World;

/// Bytes per second, and the resources of agent and server for it. No client fetches meanwhile.
pub async fn durable(world: &World) -> anyhow::Result<Vec<Measurement>> {
    let mut speed =
        Measurement::new("agent_durable", "MiB/s", "agent → server: output, durable").beside("disk_stream");
    let mut disk = Measurement::new("disk_stream", "MiB/s", "  dd of the same, synced at the end");
    let mut agent_memory = Measurement::new("agent_durable_memory", "MB", "agent: largest memory meanwhile");
    let mut server_memory = Measurement::new("server_durable_memory", "MB", "server: memory at the end");
    let megabytes = world.scale.megabytes;
    for _ in 0..world.scale.streams {
        let dir = TempDir::new_in(world.dir())?;
        let code = format!(
            "import os, re
piece = b'x' * (1 << 20)
for _ in range({megabytes}):
    os.write(1, piece)
status = open(f'/proc/{{os.getppid()}}/status').read()
os.write(2, re.search(r'VmHWM:\\s+(\\d+)', status)[1].encode())"
        );
        let agent = agent::shipped()?;
        let setup = stand_in::setup(dir.path(), &code, None)
            .flag(format!("--agent={}", agent.display()))
            .flag(format!("--retain-output={}GiB", megabytes / 1024 + 1));
        let server = setup.start()?;
        let mut client = server.client().await?;
        let begun = Instant::now();
        let token = client.run(STEP).await?;
        let (mut cursor, mut said) = (token.clone(), Vec::new());
        let taken = loop {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let by = sqlflow_proto::v1::get_job_request::By::Token(token.token.clone());
            let job =
                client.api.get_job(sqlflow_proto::v1::GetJobRequest { by: Some(by) }).await?.into_inner();
            let status = job.status.context("a job has a status")?;
            if is_over(&status) {
                ensure!(status.code() == Code::Succeeded, "the job failed: {}", status.message);
                break begun.elapsed();
            }
        };
        speed.add(megabytes as f64 / taken.as_secs_f64());
        server_memory.add(server.resident_bytes()? as f64 / 1e6);
        loop {
            let page = client.api.fetch(cursor).await?.into_inner();
            for result in page.results {
                if let Some(sqlflow_proto::v1::response::Response::Log(log)) = result.response
                    && log.stream() == sqlflow_proto::v1::log_chunk::Stream::Stderr
                {
                    said.extend_from_slice(&log.data);
                }
            }
            let Some(next) = page.next else { break };
            if page.job_status.is_some_and(|status| is_over(&status)) {
                break;
            }
            cursor = next;
        }
        agent_memory.add(String::from_utf8(said)?.parse::<f64>()? * 1024.0 / 1e6);
        server.stop()?;
        let begun = Instant::now();
        let block = format!("of={}", dir.path().join("dd").display());
        let dd = std::process::Command::new("dd")
            .args([
                "if=/dev/zero",
                &block,
                "bs=1M",
                &format!("count={megabytes}"),
                "conv=fsync",
                "status=none",
            ])
            .status()?;
        ensure!(dd.success(), "dd fails");
        disk.add(megabytes as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(vec![speed, disk, agent_memory, server_memory])
}
